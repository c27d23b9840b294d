//! Writers: who holds a nonce prefix, the AES key derived from it, and a lot of messages to seal with it.
//!
//! A writer lives for at most 2^16 messages, 2^32 bytes or 60 seconds, then a new prefix is drawn. It belongs to one thread at a
//! time, so that counting a message is an addition and nothing that threads share.

use std::time::Duration;

use crate::crypto::aead::AeadKey;
use crate::crypto::allotment::Lot;
use crate::crypto::generation::Generation;
use crate::crypto::xaes::PREFIX_LEN;

/// How long a writer keeps its prefix.
pub(crate) const PREFIX_LIFE: Duration = Duration::from_secs(60);

/// Most bytes of plaintext under one prefix (FORMAT.md, "Nonces and bounds": of a longer run of blocks it could be told that AES is
/// a permutation).
pub(crate) const PREFIX_BYTES: u64 = 1 << 32;

/// One prefix in use.
pub(crate) struct Writer {
    /// Random, from the operating system.
    pub(crate) prefix: [u8; PREFIX_LEN],
    /// The AES-256-GCM key of `prefix`; `None` where the suite derives a key for each message.
    pub(crate) key: Option<AeadKey>,
    pub(crate) lot: Lot,
    /// In which the prefix was drawn: a copy of the process must not seal under it.
    pub(crate) generation: Generation,
    /// Bytes that may still be sealed under it.
    pub(crate) bytes: u64,
    pub(crate) retires: Duration,
}

impl Writer {
    /// Whether one more message, of `len` bytes, may be sealed at `now`; counts it.
    #[inline]
    pub(crate) fn admits(&mut self, now: Duration, len: usize) -> bool {
        let left = self.bytes.checked_sub(len.try_into().unwrap_or(u64::MAX));
        let is_current = self.generation.is_current() && now < self.retires;
        let Some(left) = left.filter(|_| is_current && self.lot.take_one()) else {
            return false;
        };
        self.bytes = left;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::allotment::{Budget, MAX_MESSAGES};
    use crate::crypto::generation;
    use std::sync::Arc;

    #[test]
    fn a_prefix_serves_four_gibibytes() {
        let lot = Arc::new(Budget::new(MAX_MESSAGES)).draw().unwrap();
        let retires = Duration::from_secs(60);
        let generation = generation::current().unwrap();
        let mut writer = Writer { prefix: [0; PREFIX_LEN], key: None, lot, generation, bytes: PREFIX_BYTES, retires };
        let mut admits = |len| writer.admits(Duration::ZERO, len);
        assert!((0..255).all(|_| admits(1 << 24)) && admits((1 << 24) - 1));
        assert!(!admits(2));
        assert!(admits(1), "what was refused was not counted");
        assert!(!admits(1) && admits(0));
    }
}
