//! Tenant records: a tenant's row in the key store.

use crate::error::{Error, ErrorKind, Result};
use crate::key::id::TenantId;
use crate::key::period::PeriodLabel;
use crate::key::policy::TenantPolicy;
use crate::key::revocation::Revocation;
use crate::key::scope::Scope;

/// The stored row of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRecord {
    /// Whose.
    pub tenant: TenantId,
    /// What it decided about its keys.
    pub policy: TenantPolicy,
    /// What is revoked at present.
    pub revocations: Vec<Revocation>,
    /// When it was enrolled, in Unix milliseconds.
    pub enrolled_at: i64,
    /// Counts the changes of the row; compare-and-set goes by it. A new row has 1.
    pub revision: u64,
}

impl TenantRecord {
    /// # Errors
    /// `Revoked` if a revocation covers the keys of `scope` in `period`.
    pub(crate) fn check_not_revoked(&self, scope: &Scope, period: Option<&PeriodLabel>) -> Result<()> {
        match self.revocations.iter().find(|r| r.selector.covers(scope, period)) {
            None => Ok(()),
            Some(_) => Err(revoked().with_tenant(self.tenant.as_str())),
        }
    }
}

pub(crate) fn revoked() -> Error {
    Error::new(ErrorKind::Revoked, "the tenant revoked this key; its administrator can restore it")
}
