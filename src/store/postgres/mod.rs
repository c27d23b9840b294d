//! A key store in a PostgreSQL database, shared by the nodes of a fleet.

mod listener;
mod locks;
mod log;
pub(crate) mod options;
mod put;
mod rows;
mod schema;
mod session;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::JoinHandle;

use crate::error::Result;
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::scope::Scope;
use crate::store::postgres::log::Reading;
use crate::store::postgres::options::PostgresOptions;
use crate::store::postgres::session::{Session, Sessions};
use crate::store::row::{self, Log, Put, RowKey, Write};
use crate::store::signal::Signal;
use crate::store::{KeyStore, LogEntry, StoreCapacity};

/// Rows in a PostgreSQL database (12 or later), in a schema of their own, for fleets of nodes.
///
/// Its connections have `synchronous_commit` on whatever the server's default, so a key is on disk before it is used, if the
/// server itself runs with `fsync` on, which is its default. One more connection reads what leases are granted on, the log of changes
/// and the records of keys in use, so that whatever the others wait for keeps no lease from being renewed, and one listens for changes that other nodes make; while it is down,
/// nodes hear of them by polling. A pooler in front of the database must pool by session.
///
/// Which store it is it knows by a random name drawn when the tables are made, and by the server's system identifier and
/// timeline where the user may read them (`pg_control_system`, `pg_walfile_name`): a copy or a promoted standby is another one.
/// From a standby the log is not read.
///
/// The user needs `USAGE` on the schema and `SELECT`, `INSERT`, `UPDATE` and `DELETE` on its tables; to make them, `CREATE`.
///
/// Nodes of two versions may share it: docs/upgrading.md says which.
///
/// Every call ends within [`PostgresOptions::timeout`] (10 seconds unless set), with `Unavailable` if the database does not
/// answer; it reconnects by itself.
///
/// ```no_run
/// # async fn connect() -> strongroom::Result<()> {
/// use strongroom::PostgresKeyStore;
///
/// let store = PostgresKeyStore::connect("postgres://chat@db.internal/chat?sslmode=verify-full").await?;
/// # let _ = store;
/// # Ok(()) }
/// ```
pub struct PostgresKeyStore {
    sessions: Sessions,
    /// For what leases are granted on: the log, the records of keys in use, the room's row and the fleet's.
    lease: Sessions,
    reading: Reading,
    /// Of `sessions`.
    connections: usize,
    grown: Arc<Signal>,
    listening: JoinHandle<()>,
}

impl PostgresKeyStore {
    /// Connects with the default options and brings the schema up to date. Call it on the runtime that will use the store.
    ///
    /// The URL is as everywhere with PostgreSQL: `postgres://user:password@host:port/database`. Without `sslmode=verify-full`
    /// (and `sslrootcert=FILE` where the certificate is no public authority's) nobody checks whom it talks to.
    ///
    /// # Errors
    /// `InvalidArgument` if the URL does not parse or has a parameter that is not known, which would be passed over, or a later
    /// version of strongroom wrote the schema so that this one cannot use it; `StoreFault` if the database refuses the login, or the user may not create what is
    /// missing; `Unavailable` if it does not answer.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(url, &PostgresOptions::default()).await
    }

    /// As [`Self::connect`], with options.
    ///
    /// # Errors
    /// As [`Self::connect`]; `InvalidArgument` if the schema's name is none.
    pub async fn connect_with(url: &str, options: &PostgresOptions) -> Result<Self> {
        const CONNECT: &str = "connect to the key store";
        const MIGRATE: &str = "migrate the key store";
        options.check()?;
        let connect = options::of_url(url)?;
        let open = async |connections| Sessions::open(connect.clone(), options, connections).await;
        let sessions = open(options.max_connections).await.map_err(|e| e.with_operation(CONNECT))?;
        let (schema, limit) = (&options.schema, options.migration_timeout);
        let looking = |mut db: Session| async move {
            let done = schema::is_up_to_date(&mut db, schema).await;
            db.ended(done)
        };
        if !sessions.run(MIGRATE, looking).await? {
            let migrating = |mut db: Session| async move {
                let done = schema::migrate(&mut db, schema, limit).await;
                db.ended(done)
            };
            sessions.run_within(limit, MIGRATE, migrating).await?;
        }
        let lease = open(1).await.map_err(|e| e.with_operation(CONNECT))?;
        let preparing = |mut db: Session| async move {
            let done = Reading::prepare(&mut db).await;
            db.ended(done)
        };
        let reading = lease.run(CONNECT, preparing).await?;
        let grown = Arc::new(Signal::default());
        let listening = tokio::spawn(listener::listening(connect, options.timeout, Arc::clone(&grown)));
        let connections = usize::try_from(options.max_connections).unwrap_or(usize::MAX / 2);
        Ok(Self { sessions, lease, reading, connections, grown, listening })
    }

    /// Closes all connections, after the calls under way. Dropping the store does so too, without waiting.
    pub async fn close(&self) {
        self.listening.abort();
        self.sessions.close().await;
        self.lease.close().await;
    }
}

impl Drop for PostgresKeyStore {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

#[async_trait]
impl KeyStore for PostgresKeyStore {
    async fn get(&self, key: &RowKey) -> Result<Option<Vec<u8>>> {
        let call = |mut db: Session| async move {
            let done = rows::get(&mut db, key).await;
            db.ended(done)
        };
        // The lease looks at these two.
        let sessions = if matches!(key, RowKey::Room | RowKey::Fleet) { &self.lease } else { &self.sessions };
        sessions.run("read a row", call).await
    }

    async fn get_many(&self, keys: &[RowKey]) -> Result<Vec<Option<Vec<u8>>>> {
        let call = |mut db: Session| async move {
            let done = rows::get_many(&mut db, keys).await;
            db.ended(done)
        };
        // The lease looks up the keys in use.
        self.lease.run("read rows", call).await
    }

    async fn active(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<(KeyId, Vec<u8>)>> {
        let call = |mut db: Session| async move {
            let done = rows::active(&mut db, tenant, scope, period).await;
            db.ended(done)
        };
        self.sessions.run("find the Active key", call).await
    }

    async fn tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<(TenantId, Vec<u8>)>> {
        let call = |mut db: Session| async move {
            let done = rows::tenants(&mut db, after, limit).await;
            db.ended(done)
        };
        self.sessions.run("list tenants", call).await
    }

    async fn keys(&self, tenant: &TenantId, after: Option<&KeyId>, limit: u32) -> Result<Vec<(KeyId, Vec<u8>)>> {
        let call = |mut db: Session| async move {
            let done = rows::keys(&mut db, tenant, after, limit).await;
            db.ended(done)
        };
        self.sessions.run("list data keys", call).await
    }

    async fn journal(&self, tenant: &TenantId, after: u64, limit: u32) -> Result<Vec<(u64, Vec<u8>)>> {
        let call = |mut db: Session| async move {
            let done = rows::journal(&mut db, tenant, after, limit).await;
            db.ended(done)
        };
        self.sessions.run("read the journal", call).await
    }

    async fn put(&self, writes: &[Write], entry: Option<LogEntry<'_>>) -> Result<Put> {
        row::check(writes)?;
        let call = |mut db: Session| async move {
            let done = put::put(&mut db, writes, entry).await;
            db.ended(done)
        };
        self.sessions.run("write rows", call).await
    }

    async fn log(&self, after: Option<u64>, limit: u32) -> Result<Log> {
        let call = |mut db: Session| async move {
            let done = self.reading.log(&mut db, after, limit).await;
            db.ended(done)
        };
        self.lease.run("read the log of changes", call).await
    }

    /// A fifth of the connections is left to the control plane.
    fn capacity(&self) -> StoreCapacity {
        let each = (self.connections * 2 / 5).max(1);
        StoreCapacity::new(each, each)
    }

    async fn changed(&self) {
        self.grown.wait().await;
    }
}
