//! Randomness. Keys and writer prefixes come from the operating system; the per-message half of a nonce from a
//! thread-local ChaCha generator seeded by it (16 ns instead of a 270 ns system call).

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

/// Twelve random bytes that are no secret (half a nonce), from the thread's generator.
///
/// The generator is not reseeded by `fork`: a process that forks must not seal in both halves (SECURITY.md).
pub(crate) fn public_bytes() -> [u8; 12] {
    // By words: the generator fills slices in a loop that costs as much as its cipher.
    let mut rng = rand::rng();
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&rng.next_u64().to_ne_bytes());
    bytes[8..].copy_from_slice(&rng.next_u32().to_ne_bytes());
    bytes
}
