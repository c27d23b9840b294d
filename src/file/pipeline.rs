//! Blocks through a reader, several workers and a writer, in order and in bounded memory.
//!
//! The calling thread reads, one thread writes, the workers seal or open in between. Block *k* goes through worker
//! *k mod n*, and the writer asks the workers in the same turn, so that order needs no sorting. Buffers go round: the
//! writer hands them back to the reader. Nobody can wait for a buffer in a circle, since whoever holds one needs only
//! those behind it to go on.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
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

/// Runs blocks through `produce` (on the calling thread; `None` ends), `work` (on `workers` threads) and `consume` (on
/// one thread, in order). Holds `3 * workers + 2` blocks of 1 MiB.
///
/// # Errors
/// The first of `produce`'s, the workers' and `consume`'s errors; nothing is consumed behind a block that failed.
pub(crate) fn run<J: Send>(
    workers: usize,
    mut produce: impl FnMut(&mut Block) -> Result<Option<J>>,
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
    thread::scope(|scope| {
        let (free_in, free) = channel();
        let (mut job_ins, mut threads, mut done_outs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..workers {
            let (job_in, jobs) = sync_channel::<(J, Block)>(1);
            let (done_in, done) = sync_channel::<Block>(1);
            let work = &work;
            threads.push(scope.spawn(move || run_worker(&jobs, &done_in, work)));
            job_ins.push(job_in);
            done_outs.push(done);
        }
        threads.push(scope.spawn(move || {
            for done in done_outs.iter().cycle() {
                // A worker that has ended has failed, or there are no blocks left for anybody.
                let Ok(block) = done.recv() else { break };
                consume(&block)?;
                // The reader may have ended already.
                let _ = free_in.send(block);
            }
            Ok(())
        }));
        let produced = feed(&job_ins, (first_job, first), &free, 3 * workers + 1, &mut produce);
        drop(job_ins);
        let ended = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        // Every thread is joined before an error is told.
        let ended: Vec<_> = ended.collect();
        produced.and(ended.into_iter().collect())
    })
}

fn run_worker<J>(
    jobs: &Receiver<(J, Block)>,
    done: &SyncSender<Block>,
    work: impl Fn(J, &mut Block) -> Result<()>,
) -> Result<()> {
    while let Ok((job, mut block)) = jobs.recv() {
        work(job, &mut block)?;
        if done.send(block).is_err() {
            break; // the writer failed and says why
        }
    }
    Ok(())
}

/// Produces blocks until there are no more or somebody behind has given up, with `spare` buffers besides those that come
/// back.
fn feed<J>(
    workers: &[SyncSender<(J, Block)>],
    first: (J, Block),
    free: &Receiver<Block>,
    mut spare: usize,
    produce: &mut impl FnMut(&mut Block) -> Result<Option<J>>,
) -> Result<()> {
    let mut next = Some(first);
    for worker in workers.iter().cycle() {
        let Some(job) = next.take() else { break };
        if worker.send(job).is_err() {
            break;
        }
        let block = match free.try_recv() {
            Ok(block) => Some(block),
            Err(_) if spare > 0 => {
                spare -= 1;
                Some(Block::new())
            }
            Err(_) => free.recv().ok(),
        };
        let Some(mut block) = block else { break };
        next = produce(&mut block)?.map(|job| (job, block));
    }
    Ok(())
}
