//! What work on keys leaves on the stack.
//!
//! Values that were moved, and registers that the compiler or a cipher's code saved, stay on the stack until something else
//! is called. Safe Rust cannot wipe them where they are, but it can write over the place. `tests/memory.rs` shows whether that
//! reaches deep enough; how deep the work reaches depends on the build, and on how wide the processor's registers are: the
//! portable AES, for one, spreads its round keys over registers of 64 bytes where there are some.

use std::hint::black_box;

/// Which work's stack is written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// A cipher's, or a key schedule's.
    Cipher,
    /// The portable AES-GCM's.
    PortableAes,
    /// Key derivation's.
    Derivation,
}

const KIB: usize = 1 << 10;
const UNOPTIMISED: bool = cfg!(debug_assertions);

/// Runs `work`, which must not return secrets by value, in a frame of its own, and then writes over that frame and those of
/// what it called.
#[inline]
pub(crate) fn swept<T>(depth: Depth, work: impl FnOnce() -> T) -> T {
    let made = apart(work);
    match (depth, has_wide_registers()) {
        (Depth::Derivation, _) => sweep::<{ 16 * KIB }>(),
        (_, false) => sweep::<{ if UNOPTIMISED { 8 * KIB } else { 2 * KIB } }>(),
        (Depth::Cipher, true) => sweep::<{ if UNOPTIMISED { 8 * KIB } else { 4 * KIB } }>(),
        (Depth::PortableAes, true) => sweep::<{ 12 * KIB }>(),
    }
    made
}

#[cfg(target_arch = "x86_64")]
fn has_wide_registers() -> bool {
    std::is_x86_feature_detected!("avx512f")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_wide_registers() -> bool {
    false
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
