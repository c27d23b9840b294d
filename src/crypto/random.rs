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

/// Fills `into` with public random bytes (nonces) from the thread's generator.
///
/// The generator is not reseeded by `fork`: a process that forks must not seal in both halves (SECURITY.md).
pub(crate) fn nonce(into: &mut [u8]) {
    rand::rng().fill_bytes(into);
}
