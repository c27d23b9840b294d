//! What work on keys leaves on the stack.
//!
//! Values that were moved, and registers that the compiler or a cipher's code saved, stay on the stack until something else
//! is called. Safe Rust cannot wipe them where they are, but it can write over the place.

use std::hint::black_box;

/// Bytes of stack that a cipher and its key schedule need (`tests/memory.rs` shows that it is enough): in development builds,
/// where nothing is optimised, several times as many.
pub(crate) const CIPHER: usize = if cfg!(debug_assertions) { 8 << 10 } else { 2 << 10 };
/// Bytes of stack that key derivation needs, in development builds too.
pub(crate) const DERIVATION: usize = 16 << 10;

/// Runs `work`, which must not return secrets by value, in a frame of its own, and then writes over that frame and those of
/// what it called: `DEPTH` bytes below the caller's.
pub(crate) fn swept<const DEPTH: usize, T>(work: impl FnOnce() -> T) -> T {
    let made = apart(work);
    sweep::<DEPTH>();
    made
}

#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

#[inline(never)]
fn sweep<const DEPTH: usize>() {
    // Mutable, or it would be a constant elsewhere; `black_box` may read it, so it is written.
    let mut below = [0_u8; DEPTH];
    black_box(&mut below);
}
