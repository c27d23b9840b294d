//! Tenant records: a tenant's row in the key store.

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::key::erasure::Erasure;
use crate::key::export::{Export, MAX_EXPORTS};
use crate::key::floor::{Floor, MAX_FLOORS};
use crate::key::id::{KeyId, TenantId};
use crate::key::incarnation::Incarnation;
use crate::key::journal::JournalHead;
use crate::key::json::objects;
use crate::key::kek_history::{KekHistory, KeksInForce};
use crate::key::period::PeriodLabel;
use crate::key::policy::TenantPolicy;
use crate::key::record::{KeyRecord, erased};
use crate::key::revocation::Revocation;
use crate::key::rewrap::RewrapOrder;
use crate::key::row_digest::RowDigest;
use crate::key::scope::Scope;
use crate::key::state::KeyState;
use crate::key::suspension::Suspension;
use crate::key::wrapped_key::WrappedKey;

/// Most revocations, and most erasures that wait, of one tenant at a time: every load goes through them.
pub(crate) const MAX_RULES: usize = 1000;

objects! {
    /// The stored row of a tenant.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct TenantRecord {
        /// Whose.
        pub tenant: TenantId,
        /// Which life of that name: drawn at enrolment.
        pub incarnation: Incarnation,
        /// Counts the changes of the row, so that life-cycle decisions have an order. A new row has 1.
        pub epoch: u64,
        /// The row of the epoch before; `None` for a new one.
        #[serde(deserialize_with = "crate::key::json::nullable")]
        pub predecessor: Option<RowDigest>,
        /// When it was enrolled, in Unix milliseconds.
        pub enrolled_at: i64,
        /// What it decided about its keys.
        pub policy: TenantPolicy,
        /// What is revoked at present.
        pub revocations: Vec<Revocation>,
        /// What opens nothing for a while.
        pub suspensions: Vec<Suspension>,
        /// What is waiting to be erased.
        pub erasures: Vec<Erasure>,
        /// The rewrap under way, until every record is done.
        #[serde(deserialize_with = "crate::key::json::nullable")]
        pub rewrap: Option<RewrapOrder>,
        /// Which KEKs records may be wrapped under, by the epoch of the wrapping.
        pub keks: KekHistory,
        /// Which keys were erased: they open no more, whatever the store shows.
        pub erased: Vec<Floor>,
        /// Which keys were given up after a compromise: they seal no more, whatever the store shows.
        pub compromised: Vec<Floor>,
        /// Which KEKs data keys were exported to.
        pub exports: Vec<Export>,
        /// Where the tenant's journal ends.
        pub journal: JournalHead,
    }
}

impl TenantRecord {
    /// The row of a tenant that is enrolled at this moment (Unix milliseconds).
    ///
    /// # Errors
    /// `Unavailable` if the operating system gives no randomness.
    pub(crate) fn enrolled(tenant: TenantId, policy: TenantPolicy, enrolled_at: i64) -> Result<Self> {
        Ok(Self {
            tenant,
            incarnation: Incarnation::draw()?,
            epoch: 1,
            predecessor: None,
            enrolled_at,
            keks: KekHistory::enrolled(policy.keks().clone(), policy.members_of_new_keys()),
            policy,
            revocations: Vec::new(),
            suspensions: Vec::new(),
            erasures: Vec::new(),
            rewrap: None,
            erased: Vec::new(),
            compromised: Vec::new(),
            exports: Vec::new(),
            journal: JournalHead::default(),
        })
    }

    /// Checks what a store read, before anything is done with it.
    ///
    /// # Errors
    /// `Malformed` if no control plane wrote such a row.
    pub(crate) fn check_stored(&self) -> Result<()> {
        if self.epoch == 0 || (self.epoch == 1) != self.predecessor.is_none() {
            return Err(Error::malformed("a tenant's stored row has no epoch, or no predecessor"));
        }
        let keks = self.rewrap.as_ref().map_or(self.policy.keks(), |order| &order.to);
        let history = || self.keks.check(self.epoch, keks, self.policy.members_of_new_keys());
        let checked = self.policy.check().and_then(|()| self.check()).and_then(|()| history());
        checked.map_err(|e| Error::malformed("a tenant's stored row is beyond its limits").with_source(e))
    }

    /// Checks that a key record is one of this row's: of this life of the tenant, and wrapped for KEKs that this row allows, shape
    /// included. No KMS is asked with a KEK that only a record names.
    ///
    /// # Errors
    /// `Conflict` if the record is of a later epoch: the row was read too early; `Tampered`, naming the key.
    pub(crate) fn check_record(&self, record: &KeyRecord) -> Result<()> {
        let epochs = [record.made_epoch, record.wrapped_epoch, record.pending.as_ref().map_or(0, |p| p.epoch)];
        let in_force = |wrapped: &WrappedKey, epoch, members: fn(&KeksInForce) -> Option<u8>| {
            let is_part = |it: &KeksInForce| wrapped.expression().is_part_of(&it.keks, members(it));
            self.keks.in_force_at(epoch).is_some_and(is_part)
        };
        // A new key can lack members that did not answer; a rewrap leaves nobody out.
        let (as_new, as_rewrapped) = (|it: &KeksInForce| it.new_key_members, |_: &KeksInForce| None);
        let problem = if record.tenant != self.tenant || record.incarnation != self.incarnation {
            "is another tenant's, or of an earlier enrolment"
        } else if epochs.iter().any(|epoch| *epoch > self.epoch) {
            let message = "a key record is of a later epoch than its tenant's row; read it again";
            return Err(Error::new(ErrorKind::Conflict, message).with_tenant(self.tenant.as_str()));
        } else if record.wrapped.as_ref().is_some_and(|wrapped| !in_force(wrapped, record.wrapped_epoch, as_new))
            || record.pending.as_ref().is_some_and(|pending| !in_force(&pending.wrapped, pending.epoch, as_rewrapped))
        {
            "is wrapped for other KEKs than the tenant's row allows"
        } else {
            return Ok(());
        };
        let message =
            format!("the record of data key {} {problem}: the key store was edited or put back", record.key_id);
        Err(Error::new(ErrorKind::Tampered, message).with_tenant(self.tenant.as_str()))
    }

    /// # Errors
    /// `Erased` if the key was erased, whatever its record says.
    pub(crate) fn check_not_erased(&self, record: &KeyRecord) -> Result<()> {
        if self.erased.iter().any(|floor| floor.covers(record)) {
            return Err(erased().with_tenant(self.tenant.as_str()).with_region(record.region.as_str()));
        }
        Ok(())
    }

    /// Whether the key was given up after a compromise: it seals no more.
    pub(crate) fn is_compromised(&self, record: &KeyRecord) -> bool {
        self.compromised.iter().any(|floor| floor.covers(record))
    }

    /// The suspension of opening that covers a key at `now`, if any does: the one that ends last.
    pub(crate) fn suspension(&self, record: &KeyRecord, now: i64) -> Option<&Suspension> {
        let covering = self.suspensions.iter().filter(|s| now < s.until && s.selector.covers_record(record));
        covering.max_by_key(|s| s.until)
    }

    /// The state of a key as this row has it: what forbids stands here, and a record's own state only narrows further.
    pub(crate) fn state_of(&self, record: &KeyRecord) -> KeyState {
        if record.state == KeyState::Destroyed || self.check_not_erased(record).is_err() {
            return KeyState::Destroyed;
        }
        let (scope, period) = record.at();
        if self.check_not_revoked(scope, period, Some(&record.key_id)).is_err() {
            return KeyState::Suspended;
        }
        match record.state {
            KeyState::Active | KeyState::Deactivated if self.is_compromised(record) => KeyState::Compromised,
            state => state,
        }
    }

    /// Adds a revocation, in the place of one with the same selector. It always has its place if it is broad enough: where there
    /// is room for no more, it stands for the narrower ones.
    pub(crate) fn revoke(&mut self, revocation: Revocation) {
        if self.revocations.len() >= MAX_RULES {
            self.revocations.retain(|r| !revocation.selector.includes(&r.selector));
        }
        self.revocations.push(revocation);
    }

    /// Adds a suspension of opening, in the place of one with the same selector and of those that ended. As [`Self::revoke`]; it
    /// then ends no sooner than those that it stands for.
    pub(crate) fn suspend_opens(&mut self, mut suspension: Suspension) {
        self.suspensions.retain(|s| suspension.since < s.until && s.selector != suspension.selector);
        if self.suspensions.len() >= MAX_RULES {
            for narrower in self.suspensions.extract_if(.., |s| suspension.selector.includes(&s.selector)) {
                suspension.until = suspension.until.max(narrower.until);
            }
        }
        self.suspensions.push(suspension);
    }

    /// # Errors
    /// `Limit` if there are too many rules.
    pub(crate) fn check(&self) -> Result<()> {
        let most = self.revocations.len().max(self.erasures.len()).max(self.suspensions.len());
        if most > MAX_RULES
            || self.erased.len().max(self.compromised.len()) > MAX_FLOORS
            || self.exports.len() > MAX_EXPORTS
        {
            return Err(Error::limit(
                "a tenant has at most 1000 revocations, as many suspensions, as many erasures that wait, and 100 KEKs that keys \
                 were exported to",
            ));
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
        TenantRecord::enrolled(TenantId::new("acme").unwrap(), policy, 1).unwrap()
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
    fn a_rule_for_everything_always_has_its_place() {
        let narrow = |n: usize| Selector::fields([("channel", n.to_string())]);
        let suspension = |selector, until| Suspension { selector, since: 1, until };
        let mut full = row();
        for n in 0..MAX_RULES {
            full.revoke(Revocation { selector: narrow(n), since: 1 });
            full.suspend_opens(suspension(narrow(n), 10 + i64::try_from(n).unwrap()));
        }
        assert_eq!((full.revocations.len(), full.suspensions.len()), (MAX_RULES, MAX_RULES));
        full.revoke(Revocation { selector: Selector::everything(), since: 2 });
        full.suspend_opens(suspension(Selector::everything(), 20));
        assert!(full.check().is_ok());
        assert_eq!(full.revocations, [Revocation { selector: Selector::everything(), since: 2 }]);
        assert_eq!(full.suspensions, [suspension(Selector::everything(), 9 + 1000)], "none ends sooner by it");
        // Where there is room, each stands for itself, and can be lifted by itself.
        full.suspend_opens(suspension(narrow(1), 3));
        full.suspend_opens(Suspension { since: 4, ..suspension(narrow(2), 9) });
        assert_eq!(full.suspensions.len(), 2, "what ended is dropped");
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
