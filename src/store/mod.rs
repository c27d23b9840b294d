//! Layer 3: key stores. The [`KeyStore`] trait and one file a backend; SQL lives only here.

mod capacity;
pub(crate) mod memory;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
pub(crate) mod row;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) mod schema_version;
mod signal;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::scope::Scope;
pub use crate::store::capacity::StoreCapacity;
use crate::store::row::{Log, Put, RowKey, Write};

/// Makes the bytes of a log entry once its number is known. Called within the transaction that adds it, and again, perhaps for
/// another number, if that is tried again; must be quick.
pub type LogEntry<'a> = &'a (dyn Fn(u64) -> Vec<u8> + Send + Sync);

/// Where rows rest: bytes, and the columns that they are found by. It understands none of them, holds no secret, and is not
/// trusted: whoever reads a row verifies it (FORMAT.md, "Stored rows").
///
/// # Contract
///
/// `strongroom::testing::store_contract` (feature `testing`) checks it.
///
/// - *Durability*: when [`Self::put`] returns [`Put::Written`], all of it survives a crash of process and machine. Messages are
///   sealed under a data key as soon as its row is said to be written.
/// - *Atomicity*: each `put` happens wholly or not at all, its log entry included, also against other processes.
/// - *Compare-and-set*: a row is written only over the version that the write expects (SHA-256 of the stored bytes), and a row
///   that is kept stays that version, or stays absent, until the whole is written.
/// - *One Active key*: never two rows whose index says Active for one tenant, scope and period; a `put` may take one's
///   state and give it to another, in this order.
/// - *Log*: entries are numbered from 1 without gaps, in the order in which they commit; [`Self::log`] never passes over one
///   that commits later. At least the last 1000 are kept.
/// - *Freshness*: [`Self::log`] answers only from the store that takes writes, not from a standby behind it.
/// - *Tenancy*: every key is found under its tenant only; another tenant's key of the same id does not exist.
/// - *Bytes*: rows up to 16 MiB come back as they were put.
/// - *Removal*: a data key's row that is taken away is not there any more, under its id, in lists or as an Active key; another one may
///   be put in its place.
/// - *Refusals*: [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a `put` that names a row twice, a data key's row without
///   its index, another row with one, a journal entry with the number 0, or a row to take away that is no data key's or comes without
///   the version expected; [`Limit`](crate::ErrorKind::Limit) for more bytes,
///   of a row or of an entry. Nothing is written then.
/// - *Errors*: [`Unavailable`](crate::ErrorKind::Unavailable) if nothing can be said at present,
///   [`StoreFault`](crate::ErrorKind::StoreFault) if nothing can before somebody acts (full, corrupt, set up wrongly); never a
///   panic. A row whose name cannot be one is passed over in lists.
/// - *Cancellation*: dropping a call's future leaves all rows old or new, never in between.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// The bytes of a row.
    async fn get(&self, key: &RowKey) -> Result<Option<Vec<u8>>>;

    /// The bytes of several rows, in the order of their names. The keys in use are looked up by this with each lease: a backend
    /// answers in fewer round trips where it can. By default it reads one after the other.
    async fn get_many(&self, keys: &[RowKey]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            rows.push(self.get(key).await?);
        }
        Ok(rows)
    }

    /// The row of a data key whose index says that it is the Active one of a scope and period.
    async fn active(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<(KeyId, Vec<u8>)>>;

    /// Tenants' rows in the order of their names (by bytes), at most `limit`, after the name `after`.
    async fn tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<(TenantId, Vec<u8>)>>;

    /// A tenant's data keys in the order of their ids, at most `limit`, after the id `after`.
    async fn keys(&self, tenant: &TenantId, after: Option<&KeyId>, limit: u32) -> Result<Vec<(KeyId, Vec<u8>)>>;

    /// A tenant's journal in the order of its numbers, at most `limit`, after the number `after` (0: from the first).
    async fn journal(&self, tenant: &TenantId, after: u64, limit: u32) -> Result<Vec<(u64, Vec<u8>)>>;

    /// Writes all of `writes`, in their order, and adds `entry` to the log; or does nothing of it. Without writes it only adds to
    /// the log.
    async fn put(&self, writes: &[Write], entry: Option<LogEntry<'_>>) -> Result<Put>;

    /// The entries of the log after the number `after`, the earliest `limit` of them; with `None` no entries, only where it ends
    /// now. What it no longer keeps, it leaves out.
    async fn log(&self, after: Option<u64>, limit: u32) -> Result<Log>;

    /// How many calls the data plane makes at once. Those beyond wait for their turn, by turns between tenants, before any
    /// deadline of the store begins. The lease and the control plane ask besides: leave them some connections.
    fn capacity(&self) -> StoreCapacity {
        StoreCapacity::default()
    }

    /// Resolves when the log may have grown. A store that is not told never does: then the log is only polled.
    async fn changed(&self) {
        std::future::pending::<()>().await;
    }
}

/// A key store shared with other owners.
#[async_trait]
impl<S: KeyStore + ?Sized> KeyStore for Arc<S> {
    async fn get(&self, key: &RowKey) -> Result<Option<Vec<u8>>> {
        (**self).get(key).await
    }

    async fn get_many(&self, keys: &[RowKey]) -> Result<Vec<Option<Vec<u8>>>> {
        (**self).get_many(keys).await
    }

    async fn active(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<(KeyId, Vec<u8>)>> {
        (**self).active(tenant, scope, period).await
    }

    async fn tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<(TenantId, Vec<u8>)>> {
        (**self).tenants(after, limit).await
    }

    async fn keys(&self, tenant: &TenantId, after: Option<&KeyId>, limit: u32) -> Result<Vec<(KeyId, Vec<u8>)>> {
        (**self).keys(tenant, after, limit).await
    }

    async fn journal(&self, tenant: &TenantId, after: u64, limit: u32) -> Result<Vec<(u64, Vec<u8>)>> {
        (**self).journal(tenant, after, limit).await
    }

    async fn put(&self, writes: &[Write], entry: Option<LogEntry<'_>>) -> Result<Put> {
        (**self).put(writes, entry).await
    }

    async fn log(&self, after: Option<u64>, limit: u32) -> Result<Log> {
        (**self).log(after, limit).await
    }

    fn capacity(&self) -> StoreCapacity {
        (**self).capacity()
    }

    async fn changed(&self) {
        (**self).changed().await;
    }
}
