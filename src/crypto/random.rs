//! Randomness. Keys and writer prefixes come from the operating system; the per-message half of a nonce from a
//! thread-local ChaCha generator seeded by it (16 ns instead of a 270 ns system call).

use std::cell::Cell;

use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng, TryRng};

use crate::error::{Error, ErrorKind, Result};

/// Fills `into` from the operating system's generator.
///
/// # Errors
/// `Unavailable` if the operating system gives none.
pub(crate) fn from_os(into: &mut [u8]) -> Result<()> {
    SysRng.try_fill_bytes(into).map_err(none_given)
}

fn none_given(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unavailable, "the operating system's random generator failed").with_source(source)
}

/// How many halves of a nonce are drawn ahead. With the one drawn for at once: what one run of the generator's cipher gives.
const DRAWN: usize = 20;

/// A seed serves for this many draws ahead, about 64 KiB.
const DRAWS_A_SEED: u32 = 256;

/// Halves of nonces that were drawn and not yet used, of one thread. Public, though no one else has seen them yet: what a nonce
/// will be is worth nothing without the key.
struct Drawn {
    halves: [Cell<[u8; 12]>; DRAWN],
    left: Cell<usize>,
    /// And for how many draws more its seed serves. Not [`rand::rng`], which panics where the operating system gives no seed.
    generator: Cell<Option<(StdRng, u32)>>,
}

/// Twelve random bytes that are no secret (half a nonce), from the thread's generator.
///
/// The generator is not seeded anew by `fork`: a process that forks must not seal in both halves (SECURITY.md).
///
/// # Errors
/// `Unavailable` if the operating system gives no seed when the thread needs one, or the thread is ending.
#[inline]
pub(crate) fn public_bytes() -> Result<[u8; 12]> {
    thread_local! {
        static DRAWN_BY_THREAD: Drawn = const { Drawn::none() };
    }
    DRAWN_BY_THREAD.try_with(|drawn| drawn.take(SysRng)).map_err(none_given)?
}

impl Drawn {
    const fn none() -> Self {
        Self { halves: [const { Cell::new([0; 12]) }; DRAWN], left: Cell::new(0), generator: Cell::new(None) }
    }

    #[inline]
    fn take<E: std::error::Error + Send + Sync + 'static>(&self, seeds: impl TryRng<Error = E>) -> Result<[u8; 12]> {
        let drawn = self.left.get().checked_sub(1).and_then(|last| {
            self.left.set(last);
            self.halves.get(last)
        });
        drawn.map_or_else(|| self.draw(seeds), |half| Ok(half.get()))
    }

    #[cold]
    fn draw<E: std::error::Error + Send + Sync + 'static>(
        &self,
        mut seeds: impl TryRng<Error = E>,
    ) -> Result<[u8; 12]> {
        let (mut generator, draws) = match self.generator.take() {
            Some((generator, draws @ 1..)) => (generator, draws),
            _ => (StdRng::try_from_rng(&mut seeds).map_err(none_given)?, DRAWS_A_SEED),
        };
        let mut draw = || {
            let mut half = [0; 12];
            generator.fill_bytes(&mut half);
            half
        };
        for half in &self.halves {
            half.set(draw());
        }
        let now = draw();
        self.left.set(DRAWN);
        self.generator.set(Some((generator, draws - 1)));
        Ok(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_half_of_a_nonce_is_given_twice_on_any_thread() {
        let draw = || (0..10 * DRAWN).map(|_| public_bytes().unwrap()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(draw)).collect();
        let all: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 40 * DRAWN);
        for at in 0..12 {
            let seen: HashSet<_> = all.iter().map(|half| half[at]).collect();
            assert!(seen.len() > 200, "byte {at} takes few values");
        }
    }

    /// An operating system that gives randomness so many times more.
    struct Gives(u32);

    impl TryRng for &mut Gives {
        type Error = std::io::Error;

        fn try_next_u32(&mut self) -> std::io::Result<u32> {
            unreachable!("seeds are filled")
        }

        fn try_next_u64(&mut self) -> std::io::Result<u64> {
            unreachable!("seeds are filled")
        }

        fn try_fill_bytes(&mut self, into: &mut [u8]) -> std::io::Result<()> {
            self.0 = self.0.checked_sub(1).ok_or_else(|| std::io::Error::other("none"))?;
            from_os(into).map_err(std::io::Error::other)
        }
    }

    #[test]
    fn without_a_seed_there_is_an_error_and_no_nonce_is_given_again() {
        let (drawn, mut seeds, mut seen) = (Drawn::none(), Gives(0), HashSet::new());
        for seeded in 1..=3 {
            for _ in 0..2 {
                let refused = drawn.take(&mut seeds).map_err(|e| e.kind());
                assert_eq!(refused, Err(ErrorKind::Unavailable));
            }
            seeds.0 = 1;
            // A seed serves for its draws and not for one more.
            let served = (DRAWN + 1) * DRAWS_A_SEED as usize;
            seen.extend((0..served).map(|_| drawn.take(&mut seeds).unwrap()));
            assert_eq!((seen.len(), seeds.0), (seeded * served, 0));
        }
    }
}
