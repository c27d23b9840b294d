//! Floor 3: key stores. The [`KeyStore`] trait and one file a backend; SQL lives only here.

pub(crate) mod memory;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "testing"))]
pub(crate) mod row;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::key::change::{Change, Changes};
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
/// - *Compare-and-set*: `update_tenant` writes only over the epoch, `update_key` only over the revision, before the one
///   handed in, else [`Conflict`](crate::ErrorKind::Conflict) and nothing changes.
/// - *One Active key*: never two for one tenant, scope and period.
/// - *Epochs*: a key is inserted only while its `wrapped_epoch` is the tenant's epoch, in the same transaction. So no key
///   comes into being under KEKs, regions or revocations that were decided otherwise meanwhile.
/// - *Log*: changes are numbered without gaps, in the order in which they commit; [`Self::changes`] never passes over one
///   that commits later. At least the last 1000 are kept.
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

    /// Replaces a tenant's row if the stored epoch is `record.epoch - 1`, and adds `change` to the log with it (nothing if
    /// there is nothing to forget).
    async fn update_tenant(&self, record: &TenantRecord, change: &Change) -> Result<()>;

    /// Tenants in the order of their names, at most `limit`, after the name `after`.
    async fn tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<TenantRecord>>;

    /// Adds a change to the log.
    async fn announce(&self, change: &Change) -> Result<()>;

    /// The changes that came after the place `after`, at most `limit`; with `None`, only the place where the log ends now. A
    /// place that the log has not reached (the store was restored from an older copy) is a gap.
    async fn changes(&self, after: Option<u64>, limit: u32) -> Result<Changes>;

    /// Resolves when the log may have grown. A store that is not told never does: then the log is only polled.
    async fn changed(&self) {
        std::future::pending::<()>().await;
    }

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
    /// `Conflict` if the id is taken, the tenant is not enrolled, or its epoch is another one.
    async fn insert_active(&self, record: &KeyRecord) -> Result<Placed>;

    /// Puts `successor` in the place of the Active key `old` of the same scope and period, which becomes Deactivated. If
    /// `old` is no longer the Active one, changes nothing and returns the one that is; `Conflict` if there is none, or as
    /// [`Self::insert_active`].
    async fn succeed(&self, old: &KeyId, successor: &KeyRecord) -> Result<Placed>;

    /// Replaces state and wrappings (`wrapped`, `pending`, `wrapped_epoch`) of a key if the stored revision is
    /// `record.revision - 1`. What a key is (suite, scope, period, region, creation) never changes, and a Destroyed key stays
    /// one (`Conflict`).
    async fn update_key(&self, record: &KeyRecord) -> Result<()> {
        match self.update_keys(std::slice::from_ref(record)).await?.as_slice() {
            [true] => Ok(()),
            _ => Err(conflict(STALE_KEY)),
        }
    }

    /// [`Self::update_key`] for many, in one transaction: says of each whether it was written.
    async fn update_keys(&self, records: &[KeyRecord]) -> Result<Vec<bool>>;

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
pub(crate) const STALE_EPOCH: &str = "the tenant's row was changed while the data key was made; make it anew";
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

    async fn update_tenant(&self, record: &TenantRecord, change: &Change) -> Result<()> {
        (**self).update_tenant(record, change).await
    }

    async fn tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<TenantRecord>> {
        (**self).tenants(after, limit).await
    }

    async fn announce(&self, change: &Change) -> Result<()> {
        (**self).announce(change).await
    }

    async fn changes(&self, after: Option<u64>, limit: u32) -> Result<Changes> {
        (**self).changes(after, limit).await
    }

    async fn changed(&self) {
        (**self).changed().await;
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

    async fn update_keys(&self, records: &[KeyRecord]) -> Result<Vec<bool>> {
        (**self).update_keys(records).await
    }

    async fn keys(&self, tenant: &TenantId, after: Option<&KeyId>, limit: u32) -> Result<Vec<KeyRecord>> {
        (**self).keys(tenant, after, limit).await
    }
}
