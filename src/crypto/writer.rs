//! Writers: who holds a nonce prefix, the AES key derived from it, and a lot of messages to seal with it.
//!
//! A writer lives for at most 2^16 messages or 60 seconds, then a new prefix is drawn. It belongs to one thread at a time, so
//! that counting a message is an addition and nothing that threads share.

use std::time::Duration;

use crate::crypto::aead::AeadKey;
use crate::crypto::allotment::Lot;
use crate::crypto::xaes::PREFIX_LEN;

/// How long a writer keeps its prefix.
pub(crate) const PREFIX_LIFE: Duration = Duration::from_secs(60);

/// One prefix in use.
pub(crate) struct Writer {
    /// Random, from the operating system.
    pub(crate) prefix: [u8; PREFIX_LEN],
    /// The AES-256-GCM key of `prefix`; `None` where the suite derives a key for each message.
    pub(crate) key: Option<AeadKey>,
    pub(crate) lot: Lot,
    pub(crate) retires: Duration,
}

impl Writer {
    /// Whether one more message may be sealed at `now`; counts it.
    #[inline]
    pub(crate) fn admits(&mut self, now: Duration) -> bool {
        now < self.retires && self.lot.take_one()
    }
}
