//! Blocks through a reader, a cipher and a writer, on several threads, in order and in bounded memory.
//!
//! Every worker does all three: it reads the next block under a lock, seals or opens it, waits for its turn, and writes it.
//! So a block stays on one core and in its caches from the reading to the writing, and is handed to nobody.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::crypto::wiped::Wiped;
use crate::error::{Error, Result};
use crate::file::failure::While;
use crate::format::chunk::plain_part;
use crate::format::layout::{CHUNK_LEN, SEALED_CHUNK_LEN};

/// Chunks of a block: 1 MiB of plaintext.
pub(crate) const BLOCK_CHUNKS: usize = 64;

const READ: &str = "the source file could not be read";
const WRITE: &str = "the target file could not be written";

/// A reused buffer of up to 64 sealed chunks, or their plaintext at the same places. Wiped when dropped.
pub(crate) struct Block {
    bytes: Wiped,
    /// Bytes in use, counted sealed.
    len: usize,
}

impl Block {
    pub(crate) fn new() -> Self {
        Self { bytes: Wiped::zeroed(BLOCK_CHUNKS * SEALED_CHUNK_LEN), len: 0 }
    }

    /// The bytes in use, sealed.
    pub(crate) fn sealed_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len == self.bytes.len()
    }

    /// Bytes of plaintext that the bytes in use hold.
    pub(crate) fn plain_len(&self) -> usize {
        plain_part(self.len)
    }

    /// Bytes in use, sealed.
    pub(crate) fn sealed_len(&self) -> usize {
        self.len
    }

    /// Says how many bytes are in use, sealed.
    pub(crate) fn set_sealed_len(&mut self, len: usize) {
        self.len = len.min(self.bytes.len());
    }

    /// Fills the block with sealed bytes until it is full or the source ends.
    pub(crate) fn read_sealed(&mut self, source: &mut impl Read) -> Result<()> {
        self.len = 0;
        while let Some(space) = self.bytes.get_mut(self.len..).filter(|space| !space.is_empty()) {
            match source.read(space) {
                Ok(0) => break,
                Ok(len) => self.len += len,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).doing(READ),
            }
        }
        self.len = self.len.min(self.bytes.len());
        Ok(())
    }

    /// Fills the block with plaintext, each chunk to its place, until it is full or the source ends; returns how much.
    pub(crate) fn read_plain(&mut self, source: &mut impl Read) -> Result<usize> {
        let places = self.bytes.chunks_exact_mut(SEALED_CHUNK_LEN);
        let mut places: Vec<_> = places.filter_map(|place| place.get_mut(..CHUNK_LEN)).map(IoSliceMut::new).collect();
        let mut space = places.as_mut_slice();
        let mut filled = 0;
        while filled < BLOCK_CHUNKS * CHUNK_LEN {
            match source.read_vectored(space) {
                Ok(0) => break,
                Ok(len) => {
                    let len = len.min(BLOCK_CHUNKS * CHUNK_LEN - filled);
                    filled += len;
                    IoSliceMut::advance_slices(&mut space, len);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).doing(READ),
            }
        }
        Ok(filled)
    }

    /// Writes the sealed bytes.
    pub(crate) fn write_sealed(&self, target: &mut impl Write) -> Result<()> {
        target.write_all(self.bytes.get(..self.len).unwrap_or_default()).doing(WRITE)
    }

    /// Writes the plaintext of every chunk.
    pub(crate) fn write_plain(&self, target: &mut impl Write) -> Result<()> {
        let mut left = self.plain_len();
        let mut places = Vec::with_capacity(BLOCK_CHUNKS);
        for place in self.bytes.chunks_exact(SEALED_CHUNK_LEN) {
            let len = left.min(CHUNK_LEN);
            places.extend(place.get(..len).filter(|place| !place.is_empty()).map(IoSlice::new));
            left -= len;
        }
        let mut rest = places.as_mut_slice();
        let mut left = self.plain_len();
        while left > 0 {
            match target.write_vectored(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)).doing(WRITE),
                Ok(len) => {
                    let len = len.min(left);
                    left -= len;
                    IoSlice::advance_slices(&mut rest, len);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).doing(WRITE),
            }
        }
        Ok(())
    }
}

/// Runs blocks through `produce` (`None` ends), `work` and `consume` on `workers` threads, the calling one among them.
/// Holds one block for each.
///
/// # Errors
/// That of the first block that failed. Those before it have been consumed, none behind it.
pub(crate) fn run<J: Send>(
    workers: usize,
    mut produce: impl FnMut(&mut Block) -> Result<Option<J>> + Send,
    work: impl Fn(J, &mut Block) -> Result<()> + Sync,
    mut consume: impl FnMut(&Block) -> Result<()> + Send,
) -> Result<()> {
    let workers = workers.clamp(1, 64);
    let mut first = Block::new();
    let Some(first_job) = produce(&mut first)? else { return Ok(()) };
    if !first.is_full() {
        // A file of one block is not worth a thread.
        work(first_job, &mut first)?;
        consume(&first)?;
        return match produce(&mut first)? {
            None => Ok(()),
            Some(_) => Err(Error::invalid("only the last block is short")),
        };
    }
    let line = Line {
        source: Mutex::new(Source { next: 1, produce }),
        work,
        order: Order { state: Mutex::default(), wake: (0..workers).map(|_| Condvar::new()).collect() },
        target: Mutex::new(consume),
    };
    thread::scope(|scope| {
        let line = &line;
        let threads: Vec<_> = (1..workers).map(|_| scope.spawn(|| line.work_on(Block::new(), None))).collect();
        let mut failed = line.work_on(first, Some(first_job)).err();
        for thread in threads {
            match thread.join() {
                Ok(ended) => failed = failed.into_iter().chain(ended.err()).min_by_key(|failure| failure.block),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        // Every thread is joined before an error is told.
        failed.map_or(Ok(()), |failure| Err(failure.error))
    })
}

/// What the workers share.
struct Line<P, W, C> {
    source: Mutex<Source<P>>,
    work: W,
    order: Order,
    /// Only ever locked by the worker whose turn it is.
    target: Mutex<C>,
}

struct Source<P> {
    /// The number of the next block.
    next: u64,
    produce: P,
}

/// Why a block failed.
struct Failure {
    block: u64,
    error: Error,
}

impl<P, W, C> Line<P, W, C> {
    /// One worker: takes a block, works on it, and puts it out when it is its turn, until there are no more.
    fn work_on<J>(&self, mut block: Block, first: Option<J>) -> Result<(), Failure>
    where
        P: FnMut(&mut Block) -> Result<Option<J>>,
        W: Fn(J, &mut Block) -> Result<()>,
        C: FnMut(&Block) -> Result<()>,
    {
        let mut first = first.map(|job| (Ticket { order: &self.order, number: 0 }, job));
        loop {
            let taken = match first.take() {
                Some(first) => Some(first),
                None => self.take(&mut block)?,
            };
            let Some((ticket, job)) = taken else { return Ok(()) };
            let failed = |error| Failure { block: ticket.number, error };
            (self.work)(job, &mut block).map_err(failed)?;
            if !ticket.is_next() {
                return Ok(()); // a block before this one failed
            }
            // A poisoned lock belongs to a panic that goes on when its thread is joined.
            let Ok(mut consume) = self.target.lock() else { return Ok(()) };
            consume(&block).map_err(failed)?;
            drop(consume);
            ticket.pass();
        }
    }

    /// Reads the next block. `None` if there are no more, or one has failed.
    fn take<J>(&self, block: &mut Block) -> Result<Option<(Ticket<'_>, J)>, Failure>
    where
        P: FnMut(&mut Block) -> Result<Option<J>>,
    {
        let Ok(mut source) = self.source.lock() else { return Ok(None) };
        if self.order.has_failed() {
            return Ok(None);
        }
        // Dropped before the lock: nobody reads on behind an error.
        let ticket = Ticket { order: &self.order, number: source.next };
        match (source.produce)(block) {
            Ok(Some(job)) => {
                source.next += 1;
                Ok(Some((ticket, job)))
            }
            Ok(None) => {
                ticket.give_back();
                Ok(None)
            }
            Err(error) => Err(Failure { block: ticket.number, error }),
        }
    }
}

/// Whose turn it is to put a block out.
struct Order {
    state: Mutex<Turns>,
    /// One for each worker. Blocks under way have numbers in a row, no more than workers, so two never share one.
    wake: Vec<Condvar>,
}

#[derive(Default)]
struct Turns {
    next: u64,
    /// The first block that failed.
    failed: Option<u64>,
}

impl Order {
    fn turns(&self) -> MutexGuard<'_, Turns> {
        // Two numbers, each set in one step: whole whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_failed(&self) -> bool {
        self.turns().failed.is_some()
    }

    fn wake(&self, number: u64) -> Option<&Condvar> {
        self.wake.get(usize::try_from(number % self.wake.len() as u64).ok()?)
    }
}

/// A block's place in the order. Dropped without having passed, on an error or a panic, it turns away all behind it.
struct Ticket<'a> {
    order: &'a Order,
    number: u64,
}

impl Ticket<'_> {
    /// Waits until every block before has passed. False if one has failed.
    fn is_next(&self) -> bool {
        let mut turns = self.order.turns();
        while turns.next != self.number && turns.failed.is_none_or(|failed| failed > self.number) {
            let Some(wake) = self.order.wake(self.number) else { return false };
            turns = wake.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        turns.next == self.number
    }

    /// It is the next one's turn.
    fn pass(self) {
        let next = self.number + 1;
        self.order.turns().next = next;
        if let Some(wake) = self.order.wake(next) {
            wake.notify_one();
        }
        std::mem::forget(self);
    }

    /// There is no such block.
    fn give_back(self) {
        std::mem::forget(self);
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut turns = self.order.turns();
        turns.failed = Some(turns.failed.map_or(self.number, |failed| failed.min(self.number)));
        for wake in &self.order.wake {
            wake.notify_one();
        }
    }
}
