//! What work on keys leaves on the stack.
//!
//! Values that were moved, and registers that the compiler or a cipher's code saved, stay on the stack until something else
//! is called. Safe Rust cannot wipe them where they are, but it can write over the place.

use std::hint::black_box;

/// Bytes of stack that a cipher's key schedule needs (`tests/memory.rs` shows that it is enough).
pub(crate) const CIPHER: usize = 4 << 10;
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
    // `black_box` may change it, so it is no static, and may read it, so it is written. Zeroizing would write it twice.
    let mut below = [0_u8; DEPTH];
    black_box(&mut below);
}
