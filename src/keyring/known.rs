//! What this process knows of scopes' Active keys, whatever is cached: a store that hides an Active key does not get a second one
//! made, and a scope that loses its Active key over and over costs a bounded number of keys.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::scope::Scope;

/// Most keys that this process makes for one scope and period where the store shows none, under one version of the tenant's row. A
/// decision, which the control plane signs, may well have taken the Active key away; whoever writes the store makes none.
const CREATIONS: u32 = 16;
/// Most scopes that are kept in mind.
const SCOPES: usize = 100_000;
/// Most periods of one scope that are: the present one, the next one, whose key is made ahead of time, and one that is past, where
/// messages are sealed anew.
const PERIODS: usize = 3;

#[derive(Default)]
pub(crate) struct Known(Mutex<HashMap<(TenantId, Scope), Vec<Made>>>);

#[derive(Clone)]
struct Made {
    period: Option<PeriodLabel>,
    active: Option<KnownKey>,
    creations: u32,
    /// The tenant's epoch under which these were counted.
    epoch: u64,
}

/// A key that was a scope's Active one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownKey {
    pub(crate) key_id: KeyId,
    /// The tenant's epoch under which it was made.
    pub(crate) made_epoch: u64,
}

impl Made {
    /// Whether it is forgotten before `other` to make room for `period`: periods of another kind first, which the policy had before,
    /// then the oldest.
    fn goes_before(&self, other: &Self, period: Option<&PeriodLabel>) -> bool {
        let is_kept = |made: &Self| match (&made.period, period) {
            (Some(kept), Some(new)) => kept.same_kind(new),
            (kept, new) => kept.is_some() == new.is_some(),
        };
        (is_kept(self), &self.period) < (is_kept(other), &other.period)
    }
}

fn of<'a>(periods: &'a [Made], period: Option<&PeriodLabel>) -> Option<&'a Made> {
    periods.iter().find(|made| made.period.as_ref() == period)
}

impl Known {
    /// The key that this process last knew as the Active one of a scope and period.
    pub(crate) fn active(&self, tenant: &TenantId, scope: &Scope, period: Option<&PeriodLabel>) -> Option<KnownKey> {
        let scopes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        of(scopes.get(&(tenant.clone(), scope.clone()))?, period)?.active
    }

    /// Remembers the Active key of a scope and period.
    pub(crate) fn saw(&self, tenant: &TenantId, scope: &Scope, period: Option<&PeriodLabel>, key: KnownKey) {
        self.change(tenant, scope, period, |made| made.active = Some(key));
    }

    /// Asks whether the scope's budget in this period, and under this epoch of the tenant, allows one more creation, before a KMS is
    /// asked.
    ///
    /// # Errors
    /// `StoreInconsistent` if it is spent.
    pub(crate) fn check_creations(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
        epoch: u64,
    ) -> Result<()> {
        let scopes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let made = scopes.get(&(tenant.clone(), scope.clone())).and_then(|periods| of(periods, period));
        let made = made.filter(|made| made.epoch == epoch);
        if made.is_none_or(|made| made.creations < CREATIONS) {
            return Ok(());
        }
        let message = format!(
            "{CREATIONS} data keys were made for this scope and period, and the key store shows none of them as Active; it hides \
             rows, or was put back"
        );
        Err(Error::new(ErrorKind::StoreInconsistent, message).with_tenant(tenant.as_str()))
    }

    /// Takes one creation out of the scope's budget: a key was made and written. What failed on the way costs nothing.
    pub(crate) fn created(&self, tenant: &TenantId, scope: &Scope, period: Option<&PeriodLabel>, epoch: u64) {
        self.change(tenant, scope, period, |made| {
            if made.epoch != epoch {
                (made.epoch, made.creations) = (epoch, 0);
            }
            made.creations = made.creations.saturating_add(1);
        });
    }

    fn change(&self, tenant: &TenantId, scope: &Scope, period: Option<&PeriodLabel>, change: impl FnOnce(&mut Made)) {
        let mut scopes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = (tenant.clone(), scope.clone());
        if scopes.len() >= SCOPES && !scopes.contains_key(&at) {
            // Any other one: what is forgotten is only not noticed.
            if let Some(other) = scopes.keys().next().cloned() {
                scopes.remove(&other);
            }
        }
        let periods = scopes.entry(at).or_default();
        let found = periods.iter().position(|made| made.period.as_ref() == period);
        let at = found.unwrap_or_else(|| {
            if periods.len() >= PERIODS {
                let goes = (1..periods.len()).fold(0, |goes, at| match (periods.get(at), periods.get(goes)) {
                    (Some(one), Some(other)) if one.goes_before(other, period) => at,
                    _ => goes,
                });
                periods.swap_remove(goes);
            }
            periods.push(Made { period: period.cloned(), active: None, creations: 0, epoch: 0 });
            periods.len() - 1
        });
        if let Some(made) = periods.get_mut(at) {
            change(made);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::period::Period;

    #[test]
    fn a_scope_has_a_budget_in_each_period() {
        let (known, tenant) = (Known::default(), TenantId::new("acme").unwrap());
        let scope = |n: usize| Scope::new(&[("channel", &n.to_string())]).unwrap();
        let hour = |n: i64| Period::Hour.label(n * 3_600_000).unwrap();
        let creates_at = |n, hour: &Option<PeriodLabel>, epoch| {
            let allowed = known.check_creations(&tenant, &scope(n), hour.as_ref(), epoch).is_ok();
            if allowed {
                known.created(&tenant, &scope(n), hour.as_ref(), epoch);
            }
            allowed
        };
        let creates = |n, hour: &Option<PeriodLabel>| creates_at(n, hour, 1);
        assert!((0..1000).all(|_| known.check_creations(&tenant, &scope(0), None, 1).is_ok()), "asking costs nothing");
        assert!((0..CREATIONS).all(|_| creates(0, &hour(0))));
        assert!(!creates(0, &hour(0)) && creates(1, &hour(0)));
        assert!((0..CREATIONS).all(|_| creates_at(0, &hour(0), 2)), "after a decision");
        assert!(!creates_at(0, &hour(0), 2) && creates(0, &hour(1)));
        let key = KnownKey { key_id: KeyId::from_bytes([7; 32]), made_epoch: 3 };
        known.saw(&tenant, &scope(0), hour(1).as_ref(), key);
        assert_eq!(known.active(&tenant, &scope(0), hour(1).as_ref()), Some(key));
        assert_eq!(known.active(&tenant, &scope(0), hour(2).as_ref()), None);
        assert_eq!(known.active(&TenantId::new("globex").unwrap(), &scope(0), hour(1).as_ref()), None);
    }

    /// What is made ahead of time does not make this process forget the present period's key, nor what creating it cost.
    #[test]
    fn the_present_period_is_not_forgotten_for_the_next_one_or_one_that_is_past() {
        let (known, tenant) = (Known::default(), TenantId::new("acme").unwrap());
        let scope = Scope::new(&[("channel", "C9")]).unwrap();
        let hour = |n: i64| Period::Hour.label(n * 3_600_000).unwrap();
        let id = |n: u8| KnownKey { key_id: KeyId::from_bytes([n; 32]), made_epoch: 1 };
        let saw = |n: u8| known.saw(&tenant, &scope, hour(n.into()).as_ref(), id(n));
        let knows = |n: u8| known.active(&tenant, &scope, hour(n.into()).as_ref()) == Some(id(n));
        (0..CREATIONS).for_each(|_| known.created(&tenant, &scope, hour(5).as_ref(), 1));
        saw(5);
        saw(6);
        (0..5).for_each(saw);
        assert!(
            knows(5) && knows(6) && knows(4) && !knows(0),
            "the two newest, and the past one that was asked for last"
        );
        assert!(known.check_creations(&tenant, &scope, hour(5).as_ref(), 1).is_err(), "a spent budget is spent");
        saw(7);
        assert!(knows(7) && knows(6) && knows(5) && !knows(4));
        known.saw(&tenant, &scope, Period::Day.label(0).unwrap().as_ref(), id(99));
        known.saw(&tenant, &scope, Period::Day.label(86_400_000).unwrap().as_ref(), id(98));
        let day = |n: i64| known.active(&tenant, &scope, Period::Day.label(n * 86_400_000).unwrap().as_ref());
        assert_eq!((day(0), day(1)), (Some(id(99)), Some(id(98))), "of another policy's periods one is left");
    }
}
