//! Writers: who holds a nonce prefix, the AES key derived from it, and a lot of messages to seal with it.
//!
//! A writer lives for at most 2^16 messages or 60 seconds, then a new prefix is drawn. Each of a few shards has its own
//! writer, so that threads do not share a cache line.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::crypto::aead::AeadKey;
use crate::crypto::allotment::Lot;
use crate::crypto::xaes::PREFIX_LEN;
use crate::sync::ArcSwapOption;

/// How long a writer keeps its prefix.
pub(crate) const PREFIX_LIFE: Duration = Duration::from_secs(60);

/// Threads are spread over this many writers for each data key.
const SHARDS: usize = 4;

/// One prefix in use.
pub(crate) struct Writer {
    /// Random, from the operating system.
    pub(crate) prefix: [u8; PREFIX_LEN],
    /// The AES-256-GCM key of `prefix`; `None` where the suite derives a key for each message.
    pub(crate) key: Option<AeadKey>,
    pub(crate) lot: Lot,
    pub(crate) retires: Duration,
}

impl Writer {
    /// Whether one more message may be sealed at `now`; counts it.
    pub(crate) fn admits(&self, now: Duration) -> bool {
        now < self.retires && self.lot.take_one()
    }
}

/// The writers of one data key.
pub(crate) struct Writers([ArcSwapOption<Writer>; SHARDS]);

impl Writers {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| ArcSwapOption::empty()))
    }

    /// The slot of the calling thread.
    pub(crate) fn slot(&self) -> &ArcSwapOption<Writer> {
        let [first, ..] = &self.0;
        self.0.get(shard()).unwrap_or(first)
    }

    /// The writers of all threads.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Arc<Writer>> {
        self.0.iter().filter_map(ArcSwapOption::load_full)
    }

    /// Replaces the writer of the calling thread and returns the one that was there.
    pub(crate) fn replace(&self, writer: Arc<Writer>) -> Option<Arc<Writer>> {
        self.slot().swap(Some(writer))
    }
}

/// The shard of the calling thread: threads are numbered as they come.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
    }
    MINE.try_with(Cell::get).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_spread_over_the_shards_and_each_keeps_its_own() {
        let of_a_thread = || std::thread::spawn(|| [shard(), shard()]).join().unwrap();
        let seen: std::collections::HashSet<_> = (0..64)
            .map(|_| {
                let [first, again] = of_a_thread();
                assert_eq!(first, again);
                first
            })
            .collect();
        assert!(seen.iter().all(|shard| *shard < SHARDS));
        // Other tests' threads take numbers in between; all of one shard's they cannot.
        assert!(seen.len() > 1);
    }
}
