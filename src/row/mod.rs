//! Layer 3: stored rows as bytes (FORMAT.md, "Stored rows"): a frame that says who vouches for the body, and the body, which is
//! JSON in one spelling. A key store holds them and is not trusted: nothing of a row is used before it is verified.

pub(crate) mod authority;
pub(crate) mod frame;

use crate::key::row_digest::RowDigest;

/// What was read from a verified row.
#[derive(Clone, Debug)]
pub(crate) struct Stored<T> {
    /// The record.
    pub(crate) record: T,
    /// The generation of the keys that vouch for it.
    pub(crate) generation: u32,
    /// The digest of its bytes: what a write over it expects.
    pub(crate) digest: RowDigest,
}

impl<T> std::ops::Deref for Stored<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.record
    }
}
