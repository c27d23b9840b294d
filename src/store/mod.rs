//! Floor 3: key stores. The [`KeyStore`] trait and one file a backend; SQL lives only here.

pub(crate) mod memory;
#[cfg(feature = "sqlite")]
pub(crate) mod row;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::record::KeyRecord;
use crate::key::scope::Scope;
use crate::key::tenant::TenantRecord;

/// Where tenants and key records rest. It holds no secret: without the tenants' KEKs its content opens nothing.
///
/// # Contract
///
/// `strongroom::testing::store_contract` (feature `testing`) checks it.
///
/// - *Durability*: when a writing call returns `Ok`, the write survives a crash of process and machine. Messages are
///   sealed under a data key as soon as its record is said to be written.
/// - *Atomicity*: each call happens wholly or not at all, also against other processes.
/// - *Compare-and-set*: `update_*` writes only over the revision before the one handed in, else
///   [`Conflict`](crate::ErrorKind::Conflict) and nothing changes.
/// - *One Active key*: never two for one tenant, scope and period.
/// - *Tenancy*: every key is found under its tenant only; another tenant's key of the same id does not exist.
/// - *Errors*: [`Unavailable`](crate::ErrorKind::Unavailable) if nothing can be said, [`Malformed`](crate::ErrorKind::Malformed)
///   for a stored row that cannot be; never a panic.
/// - *Cancellation*: dropping a call's future leaves the row old or new, never in between.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// The row of a tenant.
    async fn tenant(&self, tenant: &TenantId) -> Result<Option<TenantRecord>>;

    /// Adds a tenant; `Conflict` if there is one of that name.
    async fn insert_tenant(&self, record: &TenantRecord) -> Result<()>;

    /// Replaces a tenant's row if the stored revision is `record.revision - 1`.
    async fn update_tenant(&self, record: &TenantRecord) -> Result<()>;

    /// A tenant's data key by its id.
    async fn key(&self, tenant: &TenantId, key_id: &KeyId) -> Result<Option<KeyRecord>>;

    /// The Active data key of a scope and period.
    async fn active_key(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<KeyRecord>>;

    /// Adds an Active key if its scope and period have none; else changes nothing and returns the one there is.
    /// `Conflict` if the id is taken, or the tenant is not enrolled.
    async fn insert_active(&self, record: &KeyRecord) -> Result<Placed>;

    /// Puts `successor` in the place of the Active key `old` of the same scope and period, which becomes Deactivated. If
    /// `old` is no longer the Active one, changes nothing and returns the one that is; `Conflict` if there is none.
    async fn succeed(&self, old: &KeyId, successor: &KeyRecord) -> Result<Placed>;

    /// Replaces state and wrappings of a key if the stored revision is `record.revision - 1`. What a key is (suite, scope,
    /// period, region, creation) never changes.
    async fn update_key(&self, record: &KeyRecord) -> Result<()>;

    /// A tenant's keys in the order of their ids, at most `limit`, after the id `after`.
    async fn keys(&self, tenant: &TenantId, after: Option<&KeyId>, limit: u32) -> Result<Vec<KeyRecord>>;
}

/// What became of a new Active key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is the Active key now.
    New,
    /// Somebody else's is: use this one.
    Existing(Box<KeyRecord>),
}

pub(crate) fn conflict(what: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, what)
}

pub(crate) const TENANT_EXISTS: &str = "a tenant of that name is already enrolled";
pub(crate) const STALE_TENANT: &str = "the tenant's row was changed meanwhile; read it again";
pub(crate) const STALE_KEY: &str = "the key's row was changed meanwhile; read it again";
pub(crate) const KEY_EXISTS: &str = "a data key of that id exists, or its tenant is not enrolled";
pub(crate) const NOT_ACTIVE: &str = "the scope has no Active key to succeed; read it again";

/// A key store shared with other owners.
#[async_trait]
impl<S: KeyStore + ?Sized> KeyStore for Arc<S> {
    async fn tenant(&self, tenant: &TenantId) -> Result<Option<TenantRecord>> {
        (**self).tenant(tenant).await
    }

    async fn insert_tenant(&self, record: &TenantRecord) -> Result<()> {
        (**self).insert_tenant(record).await
    }

    async fn update_tenant(&self, record: &TenantRecord) -> Result<()> {
        (**self).update_tenant(record).await
    }

    async fn key(&self, tenant: &TenantId, key_id: &KeyId) -> Result<Option<KeyRecord>> {
        (**self).key(tenant, key_id).await
    }

    async fn active_key(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<KeyRecord>> {
        (**self).active_key(tenant, scope, period).await
    }

    async fn insert_active(&self, record: &KeyRecord) -> Result<Placed> {
        (**self).insert_active(record).await
    }

    async fn succeed(&self, old: &KeyId, successor: &KeyRecord) -> Result<Placed> {
        (**self).succeed(old, successor).await
    }

    async fn update_key(&self, record: &KeyRecord) -> Result<()> {
        (**self).update_key(record).await
    }

    async fn keys(&self, tenant: &TenantId, after: Option<&KeyId>, limit: u32) -> Result<Vec<KeyRecord>> {
        (**self).keys(tenant, after, limit).await
    }
}
