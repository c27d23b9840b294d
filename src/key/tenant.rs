//! Tenant records: a tenant's row in the key store.

use crate::error::{Error, ErrorKind, Result};
use crate::key::erasure::Erasure;
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::policy::TenantPolicy;
use crate::key::revocation::Revocation;
use crate::key::rewrap::RewrapOrder;
use crate::key::scope::Scope;

/// Most revocations, and most erasures that wait, of one tenant at a time: every load goes through them.
pub(crate) const MAX_RULES: usize = 1000;

/// The stored row of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRecord {
    /// Whose.
    pub tenant: TenantId,
    /// What it decided about its keys.
    pub policy: TenantPolicy,
    /// What is revoked at present.
    pub revocations: Vec<Revocation>,
    /// What is waiting to be erased.
    pub erasures: Vec<Erasure>,
    /// The rewrap under way, until every record is done.
    pub rewrap: Option<RewrapOrder>,
    /// When it was enrolled, in Unix milliseconds.
    pub enrolled_at: i64,
    /// Counts the changes of the row, so that life-cycle decisions have an order: compare-and-set goes by it, a data key is
    /// inserted only under the epoch it was made under, and a node that saw a higher one refuses a lower one. A new row has
    /// 1.
    pub epoch: u64,
}

impl TenantRecord {
    /// The row of a tenant that is enrolled at this moment (Unix milliseconds).
    pub(crate) fn enrolled(tenant: TenantId, policy: TenantPolicy, enrolled_at: i64) -> Self {
        let (revocations, erasures) = (Vec::new(), Vec::new());
        Self { tenant, policy, revocations, erasures, rewrap: None, enrolled_at, epoch: 1 }
    }

    /// Checks what a store read, before anything is done with it.
    ///
    /// # Errors
    /// `Malformed` if no store was given such a row.
    pub(crate) fn check_stored(&self) -> Result<()> {
        if self.epoch == 0 {
            return Err(Error::malformed("a tenant's stored row has epoch 0"));
        }
        let checked = self.policy.check().and_then(|()| self.check());
        checked.map_err(|e| Error::malformed("a tenant's stored row is beyond its limits").with_source(e))
    }

    /// # Errors
    /// `Limit` if there are too many rules.
    pub(crate) fn check(&self) -> Result<()> {
        if self.revocations.len() > MAX_RULES || self.erasures.len() > MAX_RULES {
            return Err(Error::limit("a tenant has at most 1000 revocations, and as many erasures that wait"));
        }
        Ok(())
    }

    /// # Errors
    /// `Revoked` if a revocation, or an erasure that waits, covers the keys of `scope` in `period`, or this one.
    pub(crate) fn check_not_revoked(
        &self,
        scope: &Scope,
        period: Option<&PeriodLabel>,
        key_id: Option<&KeyId>,
    ) -> Result<()> {
        let by = self.policy.restored_by();
        if self.revocations.iter().any(|r| r.selector.covers(scope, period, key_id)) {
            let message = format!("the tenant revoked this key; {by} can restore it");
            return Err(Error::new(ErrorKind::Revoked, message).with_tenant(self.tenant.as_str()));
        }
        if let Some(erasure) = self.erasures.iter().find(|e| e.selector.covers(scope, period, key_id)) {
            let undo = if erasure.carried_out_since.is_none() { "can still undo" } else { "can no longer undo" };
            let message = format!("this key waits to be erased (erasure {}); {by} {undo} that", erasure.id);
            return Err(Error::new(ErrorKind::Revoked, message).with_tenant(self.tenant.as_str()));
        }
        Ok(())
    }
}

pub(crate) fn suspended() -> Error {
    Error::new(ErrorKind::Revoked, "this key is suspended; the tenant's administrator can restore it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::revocation::Selector;

    fn row() -> TenantRecord {
        let policy = TenantPolicy::new(crate::key::kek::KekUri::new("local:a").unwrap(), "eu".parse().unwrap());
        TenantRecord::enrolled(TenantId::new("acme").unwrap(), policy, 1)
    }

    fn erasure(carried_out_since: Option<i64>) -> Erasure {
        Erasure { id: "E1".into(), selector: Selector::everything(), requested_at: 1, due_at: 2, carried_out_since }
    }

    #[test]
    fn so_many_rules_and_no_more() {
        let revocation = Revocation { selector: Selector::everything(), since: 1 };
        for (count, fits) in [(MAX_RULES - 1, true), (MAX_RULES, true), (MAX_RULES + 1, false)] {
            let revoked = TenantRecord { revocations: vec![revocation.clone(); count], ..row() };
            let erased = TenantRecord { erasures: vec![erasure(None); count], ..row() };
            for row in [revoked, erased] {
                assert_eq!((row.check().is_ok(), row.check_stored().is_ok()), (fits, fits), "{count}");
            }
        }
    }

    #[test]
    fn a_stored_row_has_an_epoch_and_a_policy_within_its_limits() {
        assert!(row().check_stored().is_ok());
        let kind = |row: TenantRecord| row.check_stored().err().map(|e| e.kind());
        assert_eq!(kind(TenantRecord { epoch: 0, ..row() }), Some(ErrorKind::Malformed));
        let policy = row().policy.scope_by(["tenant"]);
        assert_eq!(kind(TenantRecord { policy, ..row() }), Some(ErrorKind::Malformed));
    }

    #[test]
    fn what_is_revoked_or_waits_to_be_erased_does_not_open() {
        let scope = Scope::new(&[("channel", "C9")]).unwrap();
        assert!(row().check_not_revoked(&scope, None, None).is_ok());
        let selector = Selector::fields([("channel", "C9")]);
        let revoked = TenantRecord { revocations: vec![Revocation { selector, since: 1 }], ..row() };
        let error = revoked.check_not_revoked(&scope, None, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Revoked);
        assert!(error.to_string().contains("its administrator can restore it"), "{error}");
        let other = Scope::new(&[("channel", "C8")]).unwrap();
        assert!(revoked.check_not_revoked(&other, None, None).is_ok());
        for (since, undo) in [(None, "can still undo"), (Some(3), "can no longer undo")] {
            let erased = TenantRecord { erasures: vec![erasure(since)], ..row() };
            let error = erased.check_not_revoked(&scope, None, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Revoked);
            assert!(error.to_string().contains(undo), "{error}");
        }
    }
}
