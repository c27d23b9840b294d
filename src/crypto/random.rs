//! Randomness. Keys and writer prefixes come from the operating system; the per-message half of a nonce from a
//! thread-local ChaCha generator seeded by it (16 ns instead of a 270 ns system call).

use std::cell::{Cell, RefCell};

use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng, TryRng};

use crate::crypto::generation::Generation;
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

/// How many halves of a nonce are drawn at once: what one run of the generator's cipher gives.
const DRAWN: usize = 21;

/// A seed serves for this many draws ahead, about 64 KiB.
const DRAWS_A_SEED: u32 = 256;

/// Halves of nonces that were drawn and not yet used, of one thread. Public, though no one else has seen them yet: what a nonce
/// will be is worth nothing without the key.
struct Drawn {
    halves: Cell<[[u8; 12]; DRAWN]>,
    left: Cell<usize>,
    /// In which they were drawn and the generator was seeded.
    generation: Cell<Option<Generation>>,
    /// And for how many draws more its seed serves. Not [`rand::rng`], which panics where the operating system gives no seed.
    generator: RefCell<Option<(StdRng, u32)>>,
}

/// Fills `half` of a nonce with random bytes that are no secret, from the thread's generator. In place: handing twelve bytes
/// on by value goes through the stack in unaligned pieces, which the processor waits for.
///
/// `generation` is the current one: of what was drawn in another, and of the generator of then, nothing is used.
///
/// # Errors
/// `Unavailable` if the operating system gives no seed when the thread needs one, or the thread is ending.
#[inline]
pub(crate) fn fill_public(half: &mut [u8; 12], generation: Generation) -> Result<()> {
    thread_local! {
        static DRAWN_BY_THREAD: Drawn = const { Drawn::none() };
    }
    DRAWN_BY_THREAD.try_with(|drawn| drawn.take(SysRng, generation, half)).map_err(none_given)?
}

impl Drawn {
    const fn none() -> Self {
        Self {
            halves: Cell::new([[0; 12]; DRAWN]),
            left: Cell::new(0),
            generation: Cell::new(None),
            generator: RefCell::new(None),
        }
    }

    #[inline]
    fn take<E>(&self, seeds: impl TryRng<Error = E>, generation: Generation, half: &mut [u8; 12]) -> Result<()>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let left = self.left.get().wrapping_sub(1);
        let drawn = self.halves.as_array_of_cells().get(left);
        let Some(drawn) = drawn.filter(|_| self.generation.get() == Some(generation)) else {
            return self.draw(seeds, generation, half);
        };
        self.left.set(left);
        *half = drawn.get();
        Ok(())
    }

    /// Draws halves anew and gives the last one. All at once: asked for one by one they cost twice as much.
    #[cold]
    fn draw<E>(&self, mut seeds: impl TryRng<Error = E>, generation: Generation, half: &mut [u8; 12]) -> Result<()>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let mut seeded = self.generator.try_borrow_mut().map_err(none_given)?;
        if self.generation.replace(Some(generation)) != Some(generation) {
            self.left.set(0);
            *seeded = None;
        }
        let (generator, draws) = match &mut *seeded {
            Some((generator, draws @ 1..)) => (generator, draws),
            spent => {
                let generator = StdRng::try_from_rng(&mut seeds).map_err(none_given)?;
                let (generator, draws) = spent.insert((generator, DRAWS_A_SEED));
                (generator, draws)
            }
        };
        let mut halves = [[0; 12]; DRAWN];
        generator.fill_bytes(halves.as_flattened_mut());
        *draws -= 1;
        [.., *half] = halves;
        self.halves.set(halves);
        self.left.set(DRAWN - 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::generation;
    use std::collections::HashSet;

    #[test]
    fn no_half_of_a_nonce_is_given_twice_on_any_thread() {
        let one = || {
            let mut half = [0; 12];
            fill_public(&mut half, generation::current().unwrap()).unwrap();
            half
        };
        let draw = move || (0..10 * DRAWN).map(|_| one()).collect::<Vec<_>>();
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
        let (mut half, now) = ([0; 12], generation::current().unwrap());
        for seeded in 1..=3 {
            for _ in 0..2 {
                let refused = drawn.take(&mut seeds, now, &mut half).map_err(|e| e.kind());
                assert_eq!(refused, Err(ErrorKind::Unavailable));
            }
            seeds.0 = 1;
            // A seed serves for its draws and not for one more.
            let served = DRAWN * DRAWS_A_SEED as usize;
            seen.extend((0..served).map(|_| drawn.take(&mut seeds, now, &mut half).map(|()| half).unwrap()));
            assert_eq!((seen.len(), seeds.0), (seeded * served, 0));
        }
    }

    #[test]
    fn what_was_drawn_in_another_generation_is_not_used() {
        generation::tests::in_its_own_process("crypto::random::tests::draws_by_generation");
    }

    #[test]
    #[ignore = "the process that the test above starts"]
    fn draws_by_generation() {
        let (drawn, mut seeds, mut half) = (Drawn::none(), Gives(1), [0; 12]);
        let mut take = |seeds: &mut Gives| {
            let now = generation::current().unwrap();
            drawn.take(seeds, now, &mut half).map(|()| half).map_err(|e| e.kind())
        };
        let before = take(&mut seeds).unwrap();
        generation::tests::advance();
        // Halves drawn ahead, and a seed that has hardly served: neither is left, and there is no error once only.
        for _ in 0..2 {
            assert_eq!(take(&mut seeds), Err(ErrorKind::Unavailable));
        }
        seeds.0 = 1;
        let after: Vec<_> = (0..2 * DRAWN).map(|_| take(&mut seeds).unwrap()).collect();
        assert!(!after.contains(&before) && seeds.0 == 0);
    }
}
