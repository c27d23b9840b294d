//! Hands: where the threads that use one scope's key hold it, each with a writer and reader keys of its own.
//!
//! A thread takes a place, works with what is in it and leaves it, without waiting for anyone: if another thread is in the
//! place it takes another one, and if all are taken it makes do with a hand that it throws away. So the hot path costs one
//! uncontended exchange, where reading the slot, the writer and its lot from what all threads share would cost five.
//!
//! Who takes the key out of the slot empties the places, too, and for that waits until a thread that is in one is through
//! with its message. That is short: longer messages than [`LONGEST`] are not sealed or opened in a place.
//!
//! A process that is forked off has places of its own, made when it first needs one. Those it inherits may be taken by threads that
//! were not copied and never leave them. For the same reason no place is made under a lock.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use once_cell::race::{OnceBox, OnceNonZeroUsize};

use crate::crypto::generation::{self, Process};
use crate::crypto::message::SealFailure;
use crate::crypto::secret::Plaintext;
use crate::error::Result;
use crate::format::context::Field;
use crate::key::data_key::Hand;
use crate::keyring::cache::CachedKey;
use crate::sync::{Locked, TryLock, waited_for};

/// Bytes of the longest message that is worked on in a place: a tenth of a millisecond's work for AWS-LC, a few milliseconds'
/// without AES instructions.
const LONGEST: usize = 1 << 20;

/// Most places of one slot, a power of two.
const MOST: usize = 128;

/// A key, and what serves it and no other.
pub(crate) struct Held {
    key: Arc<CachedKey>,
    hand: Hand,
}

impl Held {
    pub(crate) fn new(key: Arc<CachedKey>) -> Self {
        Self { key, hand: Hand::default() }
    }

    pub(crate) fn key(&self) -> &CachedKey {
        &self.key
    }

    /// As [`LoadedKey::seal_into`](crate::key::data_key::LoadedKey::seal_into).
    #[inline]
    pub(crate) fn seal_into(
        &mut self,
        now: Duration,
        context: &[Field<'_>],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealFailure> {
        self.key.note_sealing();
        self.key.key.seal_into(&mut self.hand, now, context, plaintext, out)
    }

    /// As [`LoadedKey::open`](crate::key::data_key::LoadedKey::open).
    #[inline]
    pub(crate) fn open(&mut self, envelope: &[u8], context: &[Field<'_>], text: &mut Plaintext) -> Option<Result<()>> {
        self.key.key.open(Some(&mut self.hand), envelope, context, text)
    }

    /// As [`LoadedKey::open_in_place`](crate::key::data_key::LoadedKey::open_in_place).
    #[inline]
    pub(crate) fn open_in_place(&mut self, envelope: &mut [u8], context: &[Field<'_>]) -> Option<Result<()>> {
        self.key.key.open_in_place(Some(&mut self.hand), envelope, context)
    }
}

/// A place for one thread at a time, on cache lines of its own.
#[repr(align(64))]
struct Place(TryLock<Option<Held>>);

/// A place that is made when it is first taken.
type LatePlace = OnceBox<Place>;

/// The places of one slot.
pub(crate) struct Hands {
    /// Whose threads use them.
    process: Option<Process>,
    first: LatePlace,
    /// Made when two threads have met in a place.
    more: OnceBox<Box<[LatePlace]>>,
    /// Those of a process that was forked off from this one.
    forked: OnceBox<Hands>,
}

impl Default for Hands {
    fn default() -> Self {
        Self::of(generation::process().ok())
    }
}

impl Hands {
    fn of(process: Option<Process>) -> Self {
        Self { process, first: LatePlace::new(), more: OnceBox::new(), forked: OnceBox::new() }
    }

    /// Runs `work` with the key that `current` gives, if any, to work on a message of `len` bytes.
    #[inline]
    pub(crate) fn with<R>(
        &self,
        len: usize,
        current: impl FnOnce() -> Option<Arc<CachedKey>>,
        work: impl FnOnce(&mut Held) -> R,
    ) -> Option<R> {
        // One call of `work`, so that it becomes a part of this.
        let (mut place, mut own);
        let taken = if len <= LONGEST { self.take() } else { None };
        let held = if let Some(taken) = taken {
            place = taken;
            // `current` is asked in the place: who empties the slot does so before it empties the places.
            match &mut *place {
                Some(held) => held,
                empty => empty.insert(Held::new(current()?)),
            }
        } else {
            own = Held::new(current()?);
            &mut own
        };
        Some(work(held))
    }

    /// Drops what is held in the places, once those who are in one have left it. What a thread had in its hands when another forked
    /// stays in the child's memory, where nobody can reach it any more.
    pub(crate) fn empty(&self) {
        let is_current = self.process.is_some_and(Process::is_current);
        for place in std::iter::once(&self.first).chain(self.more.get().into_iter().flatten()).filter_map(OnceBox::get)
        {
            // Nobody who is alive works in a place that another process made.
            let left = if is_current { Some(waited_for(&place.0)) } else { place.0.try_lock() };
            if let Some(mut left) = left {
                *left = None;
            }
        }
        if let Some(forked) = self.forked.get() {
            forked.empty();
        }
    }

    /// The places of the process that asks. `None` where a fork would go unnoticed.
    #[inline]
    fn here(&self) -> Option<&Self> {
        if self.process.is_some_and(Process::is_current) { Some(self) } else { self.here_after_fork() }
    }

    #[cold]
    fn here_after_fork(&self) -> Option<&Self> {
        let process = Some(generation::process().ok()?);
        let mut hands = self;
        while hands.process != process {
            hands = hands.forked.get_or_init(|| Box::new(Self::of(process)));
        }
        Some(hands)
    }

    #[inline]
    fn take(&self) -> Option<Locked<'_, Option<Held>>> {
        self.here().and_then(Self::take_here)
    }

    #[inline]
    fn take_here(&self) -> Option<Locked<'_, Option<Held>>> {
        match self.more.get() {
            None => late(&self.first),
            Some(more) => place(more, number()),
        }
        .or_else(|| self.take_another())
    }

    /// Another place than the one of this thread's number, which is taken: under another number, under which the thread stays.
    #[cold]
    fn take_another(&self) -> Option<Locked<'_, Option<Held>>> {
        let more = self.more.get_or_init(|| Box::new((0..enough()).map(|_| LatePlace::new()).collect()));
        (0..more.len()).find_map(|_| {
            renumber();
            place(more, number())
        })
    }
}

#[inline]
fn late(place: &LatePlace) -> Option<Locked<'_, Option<Held>>> {
    place.get_or_init(|| Box::new(Place(TryLock::new(None)))).0.try_lock()
}

#[inline]
fn place(more: &[LatePlace], number: usize) -> Option<Locked<'_, Option<Held>>> {
    // There are as many as a power of two.
    more.get(number & more.len().wrapping_sub(1)).and_then(late)
}

thread_local! {
    /// The calling thread's number.
    static NUMBER: Cell<usize> = Cell::new(next_number());
}

/// Numbers are given as threads come. They are places' numbers too, so that each of few threads has its own.
fn next_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[inline]
fn number() -> usize {
    NUMBER.try_with(Cell::get).unwrap_or(0)
}

fn renumber() {
    // A thread that is ending keeps its own.
    let _ = NUMBER.try_with(|number| number.set(next_number()));
}

/// Twice as many places as threads can run at once: threads that move on from a taken one find a free one soon.
fn enough() -> usize {
    static ENOUGH: OnceNonZeroUsize = OnceNonZeroUsize::new();
    let twice = || 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let enough = || NonZeroUsize::new(twice().next_power_of_two().min(MOST)).unwrap_or(NonZeroUsize::MIN);
    ENOUGH.get_or_init(enough).get()
}

#[cfg(all(test, shuttle))]
mod interleavings;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::cache::tests::key;
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;

    const NOW: Duration = Duration::from_secs(1);

    /// The prefix of the writer by which a message is sealed.
    fn prefix(held: &mut Held) -> [u8; 12] {
        let (mut out, header) = (Vec::new(), held.key().key.header_len());
        assert!(held.seal_into(NOW, &[("message", "M1")], b"hello", &mut out).is_ok());
        let mut text = Plaintext::empty();
        assert!(held.open(&out, &[("message", "M1")], &mut text).unwrap().is_ok());
        assert_eq!(&*text, b"hello");
        out[header..header + 12].try_into().unwrap()
    }

    /// Where a thread works is its own while it works.
    #[test]
    fn threads_that_are_at_work_at_once_have_each_a_hand() {
        let (hands, key) = (Hands::default(), key("acme", 1, Duration::ZERO));
        for threads in [1, 2, 3, enough() + 3] {
            let all_in = Barrier::new(threads);
            let work = || {
                hands.with(
                    5,
                    || Some(Arc::clone(&key)),
                    |held| {
                        let prefix = prefix(held);
                        all_in.wait();
                        prefix
                    },
                )
            };
            let prefixes: HashSet<_> = std::thread::scope(|s| {
                let working: Vec<_> = (0..threads).map(|_| s.spawn(work)).collect();
                working.into_iter().map(|working| working.join().unwrap().unwrap()).collect()
            });
            assert_eq!(prefixes.len(), threads, "a writer of two threads");
            assert_eq!(hands.more.get().is_some(), threads > 1, "places are made when they are needed");
        }
        hands.empty();
        assert_eq!(Arc::strong_count(&key), 1, "somebody still holds the key");
    }

    #[test]
    fn a_thread_finds_what_it_left_until_that_is_taken_from_it() {
        let (hands, old, new) = (Hands::default(), key("acme", 1, Duration::ZERO), key("acme", 2, Duration::ZERO));
        let with = |current: &Arc<CachedKey>, len| {
            let work = |held: &mut Held| (prefix(held), *held.key().key.key_id());
            hands.with(len, || Some(Arc::clone(current)), work).unwrap()
        };
        let first = with(&old, 5);
        assert_eq!(with(&new, LONGEST), first, "it asks only where nothing is held");
        assert_ne!(with(&old, LONGEST + 1).0, first.0, "who waits for a place does not wait for long");
        hands.empty();
        let second = with(&new, 5);
        assert!(second.0 != first.0 && second.1 == *new.key.key_id());
        assert_eq!(with(&old, 5), second);
        hands.empty();
        assert!(hands.with(5, || None, |_| ()).is_none());
        assert!(hands.with(LONGEST + 1, || None, |_| ()).is_none());
        assert_eq!((Arc::strong_count(&old), Arc::strong_count(&new)), (1, 1));
    }

    #[test]
    fn a_thread_that_finds_its_place_taken_stays_where_it_went() {
        let hands = Hands::default();
        let places =
            |hands: &Hands| hands.more.get().map_or(0, |more| more.iter().filter(|late| late.get().is_some()).count());
        let first = hands.take().unwrap();
        let number_before = number();
        drop(hands.take().unwrap());
        assert_ne!(number(), number_before);
        for _ in 0..10 {
            drop(hands.take().unwrap());
        }
        assert_eq!(places(&hands), 1);
        drop(first);
        assert!(enough().is_power_of_two() && (2..=MOST).contains(&enough()));
    }

    #[test]
    fn emptying_waits_for_who_is_at_work() {
        let (hands, key) = (Hands::default(), key("acme", 1, Duration::ZERO));
        let (at_work, emptying, done) = (Barrier::new(2), Barrier::new(2), AtomicBool::new(false));
        std::thread::scope(|s| {
            s.spawn(|| {
                let current = || Some(Arc::clone(&key));
                hands.with(5, current, |held| {
                    at_work.wait();
                    emptying.wait();
                    for _ in 0..50 {
                        prefix(held);
                    }
                    done.store(true, Ordering::SeqCst);
                });
            });
            at_work.wait();
            emptying.wait();
            hands.empty();
            assert!(done.load(Ordering::SeqCst), "the key was taken from under somebody's hands");
            assert_eq!(Arc::strong_count(&key), 1);
        });
    }
}
