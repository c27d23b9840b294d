//! A key store in a PostgreSQL database, shared by the nodes of a fleet.

mod keys;
mod news;
pub(crate) mod options;
mod schema;
mod session;
mod tenants;

use std::str::FromStr as _;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::postgres::PgConnectOptions;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::key::change::{Change, Changes};
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::record::KeyRecord;
use crate::key::scope::Scope;
use crate::key::tenant::TenantRecord;
use crate::store::postgres::news::News;
use crate::store::postgres::options::PostgresOptions;
use crate::store::postgres::session::{Session, Sessions};
use crate::store::row::period_to_text;
use crate::store::{KeyStore, Placed};

/// Tenants and key records in a PostgreSQL database (12 or later), in a schema of their own, for fleets of nodes.
///
/// Its connections have `synchronous_commit` on whatever the server's default, so a key is on disk before it is used, if the
/// server itself runs with `fsync` on, which is its default. One more connection listens for changes that other nodes make;
/// while it is down, nodes hear of them by polling. A pooler in front of the database must pool by session.
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
    news: Arc<News>,
    listening: JoinHandle<()>,
}

impl PostgresKeyStore {
    /// Connects with the default options and brings the schema up to date. Call it on the runtime that will use the store.
    ///
    /// The URL is as everywhere with PostgreSQL: `postgres://user:password@host:port/database`. Without `sslmode=verify-full`
    /// (and `sslrootcert=FILE` where the certificate is no public authority's) nobody checks whom it talks to.
    ///
    /// # Errors
    /// `InvalidArgument` if the URL does not parse, or a later version of strongroom wrote the schema; `Unavailable` if the
    /// database does not answer, refuses the login, or the user may not create what is missing.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(url, &PostgresOptions::default()).await
    }

    /// As [`Self::connect`], with options.
    ///
    /// # Errors
    /// As [`Self::connect`]; `InvalidArgument` if the schema's name is none.
    pub async fn connect_with(url: &str, options: &PostgresOptions) -> Result<Self> {
        const CONNECT: &str = "connect to the key store";
        options.check()?;
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(Error::invalid("the key store's URL does not start with postgres://"));
        }
        let connect = PgConnectOptions::from_str(url)
            .map_err(|e| Error::invalid("the key store's URL does not parse").with_source(e))?;
        let sessions = Sessions::open(connect.clone(), options).await.map_err(|e| e.with_operation(CONNECT))?;
        let schema = &options.schema;
        let migrating = |mut db: Session| async move {
            let done = schema::migrate(&mut db, schema).await;
            db.ended(done)
        };
        sessions.run("migrate the key store", migrating).await?;
        let news = Arc::new(News::default());
        let listening = tokio::spawn(news::listening(connect, options.timeout, Arc::clone(&news)));
        Ok(Self { sessions, news, listening })
    }

    /// Closes all connections, after the calls under way. Dropping the store does so too, without waiting.
    pub async fn close(&self) {
        self.listening.abort();
        self.sessions.close().await;
    }
}

impl Drop for PostgresKeyStore {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

#[async_trait]
impl KeyStore for PostgresKeyStore {
    async fn tenant(&self, tenant: &TenantId) -> Result<Option<TenantRecord>> {
        let call = |mut db: Session| async move {
            let done = tenants::find(&mut db, tenant).await;
            db.ended(done)
        };
        self.sessions.run("read the tenant", call).await
    }

    async fn insert_tenant(&self, record: &TenantRecord) -> Result<()> {
        let call = |mut db: Session| async move {
            let done = tenants::insert(&mut db, record).await;
            db.ended(done)
        };
        self.sessions.run("insert the tenant", call).await
    }

    async fn update_tenant(&self, record: &TenantRecord, change: &Change) -> Result<()> {
        let call = |mut db: Session| async move {
            let done = tenants::update(&mut db, record, change).await;
            db.ended(done)
        };
        self.sessions.run("update the tenant", call).await
    }

    async fn tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<TenantRecord>> {
        let call = |mut db: Session| async move {
            let done = tenants::page(&mut db, after, limit).await;
            db.ended(done)
        };
        self.sessions.run("list tenants", call).await
    }

    async fn announce(&self, change: &Change) -> Result<()> {
        let call = |mut db: Session| async move {
            let done = tenants::log(&mut db, change).await;
            db.ended(done)
        };
        self.sessions.run("log a change", call).await
    }

    async fn changes(&self, after: Option<u64>, limit: u32) -> Result<Changes> {
        let call = |mut db: Session| async move {
            let done = tenants::changes(&mut db, after, limit).await;
            db.ended(done)
        };
        self.sessions.run("read the log of changes", call).await
    }

    async fn changed(&self) {
        self.news.changed().await;
    }

    async fn key(&self, tenant: &TenantId, key_id: &KeyId) -> Result<Option<KeyRecord>> {
        let call = |mut db: Session| async move {
            let done = keys::find(&mut db, tenant, key_id).await;
            db.ended(done)
        };
        self.sessions.run("read the key record", call).await
    }

    async fn active_key(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<KeyRecord>> {
        let call = |mut db: Session| async move {
            let done = keys::find_active(&mut db, tenant, scope, period_to_text(period)).await;
            db.ended(done)
        };
        self.sessions.run("find the Active key", call).await
    }

    async fn insert_active(&self, record: &KeyRecord) -> Result<Placed> {
        let call = |mut db: Session| async move {
            let done = keys::insert_active(&mut db, record).await;
            db.ended(done)
        };
        self.sessions.run("insert a data key", call).await
    }

    async fn succeed(&self, old: &KeyId, successor: &KeyRecord) -> Result<Placed> {
        let call = |mut db: Session| async move {
            let done = keys::succeed(&mut db, old, successor).await;
            db.ended(done)
        };
        self.sessions.run("rotate a data key", call).await
    }

    async fn update_keys(&self, records: &[KeyRecord]) -> Result<Vec<bool>> {
        records.iter().try_for_each(KeyRecord::check)?;
        let call = |mut db: Session| async move {
            let done = keys::update(&mut db, records).await;
            db.ended(done)
        };
        self.sessions.run("update key records", call).await
    }

    async fn keys(&self, tenant: &TenantId, after: Option<&KeyId>, limit: u32) -> Result<Vec<KeyRecord>> {
        let call = |mut db: Session| async move {
            let done = keys::page(&mut db, tenant, after, limit).await;
            db.ended(done)
        };
        self.sessions.run("list key records", call).await
    }
}
