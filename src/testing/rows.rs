//! Rows as SQL key stores keep them, without a database: what a fuzzer alters before a store would read them.

use crate::error::Result;
use crate::key::change::Change;
use crate::key::record::KeyRecord;
use crate::key::tenant::TenantRecord;
use crate::store::row::{
    ChangeColumns, KeyColumns, TenantColumns, forget_to_text, pending_to_text, period_to_text, signed, to_text,
    wrapped_to_text,
};

/// The columns of a data key's row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // they are those of `migrations/`
pub struct KeyRow {
    pub tenant: String,
    pub key_id: Vec<u8>,
    pub suite: i64,
    pub scope: Vec<u8>,
    pub period: String,
    pub region: String,
    pub state: String,
    pub state_since: i64,
    pub wrapped: Option<String>,
    pub pending: Option<String>,
    pub wrapped_epoch: i64,
    pub created_at: i64,
    pub revision: i64,
}

impl KeyRow {
    /// The row that a store writes for `record`.
    ///
    /// # Errors
    /// `Limit` if a number does not fit a column.
    pub fn of(record: &KeyRecord) -> Result<Self> {
        Ok(Self {
            tenant: record.tenant.as_str().to_owned(),
            key_id: record.key_id.as_bytes().to_vec(),
            suite: record.suite.byte().into(),
            scope: record.scope.to_bytes(),
            period: period_to_text(record.period.as_ref()).to_owned(),
            region: record.region.as_str().to_owned(),
            state: record.state.as_str().to_owned(),
            state_since: record.state_since,
            wrapped: wrapped_to_text(record.wrapped.as_ref())?,
            pending: pending_to_text(record.pending.as_ref())?,
            wrapped_epoch: signed(record.wrapped_epoch)?,
            created_at: record.created_at,
            revision: signed(record.revision)?,
        })
    }

    /// What a store makes of the row.
    ///
    /// # Errors
    /// `Malformed` if no store wrote it.
    pub fn read(&self) -> Result<KeyRecord> {
        KeyColumns {
            tenant: &self.tenant,
            key_id: &self.key_id,
            suite: self.suite,
            scope: &self.scope,
            period: &self.period,
            region: &self.region,
            state: &self.state,
            state_since: self.state_since,
            wrapped: self.wrapped.as_deref(),
            pending: self.pending.as_deref(),
            wrapped_epoch: self.wrapped_epoch,
            created_at: self.created_at,
            revision: self.revision,
        }
        .read()
    }
}

/// The columns of a tenant's row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // they are those of `migrations/`
pub struct TenantRow {
    pub tenant: String,
    pub policy: String,
    pub revocations: String,
    pub erasures: String,
    pub rewrap: Option<String>,
    pub enrolled_at: i64,
    pub epoch: i64,
}

impl TenantRow {
    /// The row that a store writes for `record`.
    ///
    /// # Errors
    /// `Limit` if a number does not fit a column.
    pub fn of(record: &TenantRecord) -> Result<Self> {
        Ok(Self {
            tenant: record.tenant.as_str().to_owned(),
            policy: to_text(&record.policy)?,
            revocations: to_text(&record.revocations)?,
            erasures: to_text(&record.erasures)?,
            rewrap: record.rewrap.as_ref().map(to_text).transpose()?,
            enrolled_at: record.enrolled_at,
            epoch: signed(record.epoch)?,
        })
    }

    /// What a store makes of the row.
    ///
    /// # Errors
    /// `Malformed` if no store wrote it.
    pub fn read(&self) -> Result<TenantRecord> {
        TenantColumns {
            tenant: &self.tenant,
            policy: &self.policy,
            revocations: &self.revocations,
            erasures: &self.erasures,
            rewrap: self.rewrap.as_deref(),
            enrolled_at: self.enrolled_at,
            epoch: self.epoch,
        }
        .read()
    }
}

/// The columns of a logged change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // they are those of `migrations/`
pub struct ChangeRow {
    pub tenant: String,
    pub selector: String,
    pub forget: String,
}

impl ChangeRow {
    /// The row that a store writes for `change`.
    ///
    /// # Errors
    /// None that is known.
    pub fn of(change: &Change) -> Result<Self> {
        Ok(Self {
            tenant: change.tenant.as_str().to_owned(),
            selector: to_text(&change.selector)?,
            forget: forget_to_text(change.forget).to_owned(),
        })
    }

    /// What a store makes of the row.
    ///
    /// # Errors
    /// `Malformed` if no store wrote it.
    pub fn read(&self) -> Result<Change> {
        ChangeColumns { tenant: &self.tenant, selector: &self.selector, forget: &self.forget }.read()
    }
}
