//! Rewrap orders: which KEKs all of a tenant's records are to be wrapped under.

use serde::{Deserialize, Serialize};

use crate::key::kek_expression::KekExpression;
use crate::key::record::KeyRecord;
use crate::key::wrapped_key::WrappedKey;

/// A rewrap under way. It stands on the tenant's row until the last record is done, so that any node can go on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewrapOrder {
    /// What every record is to be wrapped under.
    pub to: KekExpression,
    /// The tenant's epoch when it began. Records whose wrapping is older are due, whatever they are wrapped under: this is
    /// what makes a rewrap under the same KEK take up its new version.
    pub epoch: u64,
    /// When it began, in Unix milliseconds.
    pub since: i64,
}

impl RewrapOrder {
    /// Whether a record is still to be done. A destroyed key has nothing to wrap.
    pub(crate) fn is_due(&self, record: &KeyRecord) -> bool {
        let is_old = |w: &WrappedKey| record.wrapped_epoch < self.epoch || w.expression() != self.to;
        record.wrapped.as_ref().is_some_and(|w| record.pending.is_some() || is_old(w))
    }

    /// Whether the record's pending wrapping is this order's: it only has to be proven.
    pub(crate) fn is_pending(&self, record: &KeyRecord) -> bool {
        record.pending.as_ref().is_some_and(|p| p.epoch == self.epoch && p.wrapped.expression() == self.to)
    }
}
