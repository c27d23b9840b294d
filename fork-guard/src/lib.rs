//! Tells a process from its copies.
//!
//! `fork(2)` copies the state of random generators, and what was drawn from them ahead. A child that goes on with it repeats
//! its parent's nonces. So such state remembers the [`Generation`] it was made in and is used only while that
//! [is current](Generation::is_current): in a forked child no generation from before the fork is. A [`Process`] is the same
//! without [`Generation::advance`]: it tells what threads left behind that were not copied.
//!
//! ```
//! # use strongroom_fork_guard::Generation;
//! let mut drawn = (Generation::current()?, "drawn from the operating system");
//! // … and before each use:
//! if !drawn.0.is_current() {
//!     drawn = (Generation::current()?, "drawn anew");
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Take the generation first and draw then: what was drawn is as new as its mark or newer.
//!
//! # How a fork is noticed
//!
//! Two words in memory hold the marks that are current. A fork sets them to zero in the child, and who finds zero there puts
//! the next number, which no mark from before the fork bears. Looking costs two loads and no system call.
//!
//! - Linux from 4.14 on, and Android: the words stand on a page of their own that the kernel hands to a child wiped
//!   (`MADV_WIPEONFORK`). So every copy of the address space is noticed, a bare `clone` or `fork` system call and `_Fork` too.
//! - Where the kernel refuses that (an older one, an emulator, a filter of system calls), and on other Unix systems: a handler that
//!   `pthread_atfork` registers sets them to zero. It runs in `fork` of the C library and is skipped by bare system calls,
//!   `_Fork`, and `vfork`, whose child shares its parent's memory and must not do anything anyway.
//! - Elsewhere there is no fork.
//!
//! If neither can be had (no memory left), there is no current generation, and [`Generation::current`] says so each time that it
//! is asked. Nothing here takes a lock, which a fork in another thread could leave taken for ever.
//!
//! # What is not noticed
//!
//! Copies that the kernel knows nothing of: a virtual machine resumed twice from one snapshot, a process restored from a
//! checkpoint (CRIU). Whoever resumes has to call [`Generation::advance`] before random state is used again.

#![cfg_attr(not(unix), forbid(unsafe_code))]

use std::io;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(all(unix, not(target_os = "emscripten"))))]
#[path = "elsewhere.rs"]
mod guard;
#[cfg(all(unix, not(target_os = "emscripten")))]
#[path = "unix.rs"]
mod guard;

/// The marks that are current. A fork sets them to zero in the child.
#[derive(Debug)]
struct Words {
    process: AtomicU64,
    generation: AtomicU64,
}

impl Words {
    const fn zero() -> Self {
        Self { process: AtomicU64::new(0), generation: AtomicU64::new(0) }
    }
}

/// The next mark. Copied by a fork, so that a child's marks are greater than all that it inherited.
static NEXT: AtomicU64 = AtomicU64::new(1);

fn next() -> NonZeroU64 {
    // It starts at one and does not come round in the age of the universe.
    NonZeroU64::new(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap_or(NonZeroU64::MAX)
}

/// The first mark of this process in `word`; of threads that come at once, one's.
#[cold]
fn first(word: impl FnOnce(&'static Words) -> &'static AtomicU64) -> io::Result<NonZeroU64> {
    let (word, next) = (word(guard::guarded()?), next());
    let found = word.compare_exchange(0, next.get(), Ordering::Relaxed, Ordering::Relaxed).err();
    Ok(found.and_then(NonZeroU64::new).unwrap_or(next))
}

/// How fresh random state is: no generation of before a fork, or of before [`Self::advance`], is current afterwards.
///
/// It means something in this process and its forked children only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(NonZeroU64);

impl Generation {
    /// The generation of now.
    ///
    /// # Errors
    /// The operating system's, where a fork would go unnoticed because it had no memory left for the guard.
    #[inline]
    pub fn current() -> io::Result<Self> {
        match NonZeroU64::new(guard::words().generation.load(Ordering::Relaxed)) {
            Some(current) => Ok(Self(current)),
            None => first(|words| &words.generation).map(Self),
        }
    }

    /// Whether what was made in it may be used.
    #[inline]
    pub fn is_current(self) -> bool {
        // It is never zero, as a word is that a fork has wiped.
        guard::words().generation.load(Ordering::Relaxed) == self.0.get()
    }

    /// Ends the current generation.
    ///
    /// # Errors
    /// As [`Self::current`]'s; then there is no generation at all.
    pub fn advance() -> io::Result<()> {
        let words = guard::guarded()?;
        words.generation.fetch_max(next().get(), Ordering::Relaxed);
        Ok(())
    }
}

/// A process and its threads, as opposed to the processes forked off from it.
///
/// It means something in this process and its forked children only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(NonZeroU64);

impl Process {
    /// The process that asks.
    ///
    /// # Errors
    /// As [`Generation::current`]'s.
    #[inline]
    pub fn current() -> io::Result<Self> {
        match NonZeroU64::new(guard::words().process.load(Ordering::Relaxed)) {
            Some(current) => Ok(Self(current)),
            None => first(|words| &words.process).map(Self),
        }
    }

    /// Whether it is the process that asks.
    #[inline]
    pub fn is_current(self) -> bool {
        guard::words().process.load(Ordering::Relaxed) == self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// The only test that advances: the others here share its process.
    #[test]
    fn advancing_ends_the_generation_and_not_the_process() {
        let (process, mut ended) = (Process::current().unwrap(), HashSet::new());
        for _ in 0..1_000 {
            let generation = Generation::current().unwrap();
            assert!(generation.is_current() && Generation::current().unwrap() == generation);
            Generation::advance().unwrap();
            assert!(!generation.is_current());
            assert!(ended.insert(generation.0), "a generation came again");
        }
        assert!(process.is_current() && Process::current().unwrap() == process);
    }

    #[test]
    fn threads_that_come_at_once_are_of_one_process() {
        let start = std::sync::Barrier::new(8);
        let current = || {
            start.wait();
            Process::current().unwrap()
        };
        let processes: Vec<_> = std::thread::scope(|s| {
            let threads: Vec<_> = (0..8).map(|_| s.spawn(current)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(processes.iter().all(|process| process.is_current()));
    }
}
