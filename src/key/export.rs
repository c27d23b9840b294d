//! Exports: that data keys left under a KEK, which no later revocation or erasure reaches.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::key::json::objects;
use crate::key::kek::KekUri;

/// Most KEKs that a tenant's keys were exported to.
pub(crate) const MAX_EXPORTS: usize = 100;

objects! {
    /// Data keys that were exported to one KEK.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct Export {
        /// The KEK that unwraps the copies.
        pub kek: KekUri,
        /// Whether the tenant's policy did not name it: the caller did.
        pub foreign: bool,
        /// When the first export to it began, in Unix milliseconds.
        pub first_at: i64,
        /// When the last one began.
        pub last_at: i64,
        /// Keys with an epoch of making up to this one may be among the copies.
        pub upto_epoch: u64,
    }
}

/// Notes an export of all keys made up to `epoch`.
///
/// # Errors
/// `Limit` beyond 100 KEKs.
pub(crate) fn note(exports: &mut Vec<Export>, kek: &KekUri, foreign: bool, at: i64, epoch: u64) -> Result<()> {
    if let Some(known) = exports.iter_mut().find(|it| it.kek == *kek) {
        known.foreign |= foreign;
        known.last_at = at;
        known.upto_epoch = epoch;
        return Ok(());
    }
    if exports.len() >= MAX_EXPORTS {
        return Err(Error::limit("a tenant's keys were exported to 100 KEKs already"));
    }
    exports.push(Export { kek: kek.clone(), foreign, first_at: at, last_at: at, upto_epoch: epoch });
    Ok(())
}
