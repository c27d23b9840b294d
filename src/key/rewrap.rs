//! Rewrap orders: which KEKs all of a tenant's records are to be wrapped under.

use serde::Serialize;

use crate::key::json::objects;
use crate::key::kek_expression::KekExpression;
use crate::key::record::KeyRecord;
use crate::key::wrapped_key::WrappedKey;

objects! {
    /// A rewrap under way. It stands on the tenant's row until the last record is done, so that any node can go on with it.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct RewrapOrder {
        /// What every record is to be wrapped under.
        pub to: KekExpression,
        /// The tenant's epoch when it began. Records whose wrapping is older are due, whatever they are wrapped under: this is
        /// what makes a rewrap under the same KEK take up its new version.
        pub epoch: u64,
        /// When it began, in Unix milliseconds.
        pub since: i64,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::record::tests::record;
    use crate::key::wrapped_key::{Pending, Wrapping};

    fn wrapped(kek: &str) -> WrappedKey {
        WrappedKey::One(Wrapping { kek: format!("local:{kek}").parse().unwrap(), wrapped: vec![1] })
    }

    #[test]
    fn what_is_old_or_elsewhere_or_unproven_is_due() {
        let order = RewrapOrder { to: wrapped("new").expression(), epoch: 5, since: 0 };
        let due = |kek: &str, epoch: u64| {
            let record = KeyRecord { wrapped: Some(wrapped(kek)), wrapped_epoch: epoch, ..record() };
            order.is_due(&record)
        };
        assert!(due("old", 4) && due("old", 5) && due("old", 6) && due("new", 4));
        assert!(!due("new", 5) && !due("new", 6));
        let pending = Some(Pending { wrapped: wrapped("new"), epoch: 5 });
        let unproven = KeyRecord { wrapped: Some(wrapped("new")), wrapped_epoch: 5, pending, ..record() };
        assert!(order.is_due(&unproven));
        assert!(!order.is_due(&KeyRecord { wrapped: None, ..record() }), "a destroyed key has nothing to wrap");
    }

    #[test]
    fn a_pending_wrapping_is_this_order_s_by_epoch_and_keks() {
        let order = RewrapOrder { to: wrapped("new").expression(), epoch: 5, since: 0 };
        let is_pending = |kek: &str, epoch: u64| {
            order.is_pending(&KeyRecord { pending: Some(Pending { wrapped: wrapped(kek), epoch }), ..record() })
        };
        assert!(is_pending("new", 5));
        assert!(!is_pending("new", 4) && !is_pending("new", 6) && !is_pending("old", 5));
        assert!(!order.is_pending(&record()));
    }
}
