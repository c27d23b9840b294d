//! Randomness. Keys and writer prefixes come from the operating system; the per-message half of a nonce from a
//! thread-local ChaCha generator seeded by it (16 ns instead of a 270 ns system call).

use std::cell::Cell;

use rand::rngs::SysRng;
use rand::{Rng, TryRng};

use crate::error::{Error, ErrorKind, Result};

/// Fills `into` from the operating system's generator.
///
/// # Errors
/// `Unavailable` if the operating system gives none.
pub(crate) fn from_os(into: &mut [u8]) -> Result<()> {
    SysRng.try_fill_bytes(into).map_err(|e| {
        Error::new(ErrorKind::Unavailable, "the operating system's random generator failed").with_source(e)
    })
}

/// How many halves of a nonce are drawn ahead. With the one drawn for at once: what one run of the generator's cipher gives.
const DRAWN: usize = 20;

/// Halves of nonces that were drawn and not yet used. Public, though no one else has seen them yet: what a nonce will be is
/// worth nothing without the key.
struct Drawn {
    halves: [Cell<[u8; 12]>; DRAWN],
    left: Cell<usize>,
}

/// Twelve random bytes that are no secret (half a nonce), from the thread's generator.
///
/// The generator is not reseeded by `fork`: a process that forks must not seal in both halves (SECURITY.md).
///
/// # Panics
/// If the operating system gives no randomness when a thread asks for the first time, as [`rand::rng`] does. A data key was
/// loaded and a writer's prefix drawn before, so it gave some a moment ago.
pub(crate) fn public_bytes() -> [u8; 12] {
    thread_local! {
        static DRAWN_BY_THREAD: Drawn = const {
            Drawn { halves: [const { Cell::new([0; 12]) }; DRAWN], left: Cell::new(0) }
        };
    }
    DRAWN_BY_THREAD.with(Drawn::take)
}

impl Drawn {
    #[inline]
    fn take(&self) -> [u8; 12] {
        let drawn = self.left.get().checked_sub(1).and_then(|last| {
            self.left.set(last);
            self.halves.get(last)
        });
        drawn.map_or_else(|| self.draw(), Cell::get)
    }

    #[cold]
    fn draw(&self) -> [u8; 12] {
        let mut rng = rand::rng();
        let mut draw = || {
            let mut half = [0; 12];
            rng.fill_bytes(&mut half);
            half
        };
        for half in &self.halves {
            half.set(draw());
        }
        self.left.set(DRAWN);
        draw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_half_of_a_nonce_is_given_twice_on_any_thread() {
        let draw = || (0..10 * DRAWN).map(|_| public_bytes()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(draw)).collect();
        let all: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 40 * DRAWN);
        for at in 0..12 {
            let seen: HashSet<_> = all.iter().map(|half| half[at]).collect();
            assert!(seen.len() > 200, "byte {at} takes few values");
        }
    }
}
