//! Loads that failed a moment ago, over and over: a tenant that is denied, or whose KMS is down, is not asked for with each of its
//! messages.
//!
//! A failure by itself is not remembered: what passes has passed by the next try. From the third in a row on it is, for
//! [`REMEMBERED`]; then one load asks again. A decision about the tenant, and a load that succeeds, end that at once. Only what a KMS
//! or a store answered is remembered, never what the tenant's row says, which changes with a decision.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::key::id::TenantId;
use crate::keyring::flight::Wanted;

/// For how long.
const REMEMBERED: Duration = Duration::from_secs(1);
/// From how many failures in a row on.
const IN_A_ROW: u32 = 3;
/// Most loads whose failures are counted.
const MOST: usize = 10_000;

#[derive(Default)]
pub(crate) struct Failures(Mutex<HashMap<Wanted, Failed>>);

struct Failed {
    error: Error,
    at: Duration,
    in_a_row: u32,
}

impl Failures {
    /// The failure that stands for another try at `now`, if one does.
    pub(crate) fn of(&self, wanted: &Wanted, now: Duration) -> Option<Error> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = failures.get(wanted)?;
        (failed.in_a_row >= IN_A_ROW && now < failed.at + REMEMBERED).then(|| failed.error.clone())
    }

    /// Takes note of how a load ended.
    pub(crate) fn note(&self, wanted: &Wanted, failure: Option<&Error>, now: Duration) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(error) = failure.filter(|e| passes(e.kind())) else {
            failures.remove(wanted);
            return;
        };
        if failures.len() >= MOST && !failures.contains_key(wanted) {
            failures.retain(|_, failed| now < failed.at + REMEMBERED);
            if failures.len() >= MOST {
                return; // not remembered: it only costs what it cost before
            }
        }
        let failed =
            failures.entry(wanted.clone()).or_insert_with(|| Failed { error: error.clone(), at: now, in_a_row: 0 });
        // What failed long ago and was not asked for since is another outage.
        let in_a_row = if now < failed.at + 2 * REMEMBERED { failed.in_a_row.saturating_add(1) } else { 1 };
        *failed = Failed { error: error.clone(), at: now, in_a_row };
    }

    /// Something was decided about the tenant; `None`: about all.
    pub(crate) fn forget(&self, tenant: Option<&TenantId>) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|wanted, _| tenant.is_some_and(|tenant| wanted.tenant() != tenant));
    }
}

/// What KMSs and stores answer, and take back by themselves.
pub(crate) fn passes(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Denied | ErrorKind::Unavailable | ErrorKind::Throttled | ErrorKind::KeyMismatch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::id::KeyId;

    fn wanted(tenant: &str, n: usize) -> Wanted {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        Wanted::Opening(TenantId::new(tenant).unwrap(), KeyId::from_bytes(id))
    }

    #[test]
    fn a_failure_is_remembered_from_the_third_in_a_row_on_for_a_moment() {
        let (failures, denied) = (Failures::default(), Error::new(ErrorKind::Denied, "no"));
        let (acme, globex) = (wanted("acme", 1), wanted("globex", 1));
        let at = Duration::from_millis;
        for n in 0..3 {
            assert!(failures.of(&acme, at(n)).is_none());
            failures.note(&acme, Some(&denied), at(n));
        }
        assert_eq!(failures.of(&acme, at(1_001)).map(|e| e.kind()), Some(ErrorKind::Denied));
        assert!(failures.of(&acme, at(1_002)).is_none() && failures.of(&globex, at(3)).is_none());
        // One more try, and it is remembered again; a success ends it.
        failures.note(&acme, Some(&denied), at(1_002));
        assert!(failures.of(&acme, at(2_001)).is_some());
        failures.note(&acme, None, at(2_001));
        assert!(failures.of(&acme, at(2_001)).is_none());
        for tenant in [Some(&TenantId::new("globex").unwrap()), Some(&TenantId::new("acme").unwrap()), None] {
            for _ in 0..3 {
                failures.note(&acme, Some(&denied), at(3_000));
            }
            failures.forget(tenant);
            assert_eq!(failures.of(&acme, at(3_000)).is_some(), tenant.is_some_and(|t| t.as_str() == "globex"));
        }
        for _ in 0..9 {
            failures.note(&acme, Some(&Error::new(ErrorKind::Revoked, "no")), at(3_000));
        }
        assert!(failures.of(&acme, at(3_000)).is_none(), "a decision is not remembered here");
    }

    #[test]
    fn memory_is_bounded() {
        let (failures, denied) = (Failures::default(), Error::new(ErrorKind::Denied, "no"));
        for n in 0..MOST + 100 {
            failures.note(&wanted("acme", n), Some(&denied), Duration::ZERO);
        }
        assert_eq!(failures.0.lock().unwrap().len(), MOST);
        failures.note(&wanted("acme", MOST + 1), Some(&denied), 2 * REMEMBERED);
        assert_eq!(failures.0.lock().unwrap().len(), 1);
    }
}
