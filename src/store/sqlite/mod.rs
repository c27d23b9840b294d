//! A key store in one SQLite file, shared by any number of processes of one machine.

mod file;
mod rows;
mod schema;
mod session;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::scope::Scope;
use crate::store::row::{self, Log, Put, RowKey, StoreIdentity, Write};
use crate::store::sqlite::file::StoreFile;
use crate::store::sqlite::rows::LogRows;
use crate::store::sqlite::session::Sessions;
use crate::store::{KeyStore, LogEntry};

/// Connections of one process: SQLite writes one at a time anyway.
const CONNECTIONS: u32 = 4;

/// How often the log is read in all if the file is replaced meanwhile.
const TRIES: u32 = 3;

/// Rows in one SQLite file (WAL, `synchronous=FULL`: a key is on disk before it is used). One connection more reads the log of
/// changes alone, so that whatever the others wait for keeps no lease from being renewed.
///
/// Which store it is it knows by a random name drawn when the file is made, and by the file's device, inode and time of birth,
/// as far as the system tells them: a copy is another one. If another file is put in its place while it is open, connections to
/// the old one are closed, and new ones opened.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("keys.db");
/// strongroom::SqliteKeyStore::create(&path).await?; // once
/// let store = strongroom::SqliteKeyStore::open(&path).await?;
/// # let _ = store;
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SqliteKeyStore {
    sessions: Sessions,
    /// For the log alone.
    lease: Sessions,
    file: Arc<StoreFile>,
}

impl SqliteKeyStore {
    /// Makes a new store and opens it. The file comes into being with all of its tables, or not at all; of several that make it,
    /// one does.
    ///
    /// # Errors
    /// `Conflict` if there is anything of that name, which is left as it is; `InvalidArgument` if the path has no file name;
    /// `Unavailable` if the file cannot be made.
    pub async fn create(path: impl AsRef<Path>) -> Result<Self> {
        const CREATE: &str = "create the key store";
        let path = file::absolute(path.as_ref()).map_err(|e| e.with_operation(CREATE))?;
        file::create(&path).await.map_err(|e| e.with_operation(CREATE))?;
        Self::open(path).await
    }

    /// Opens a store that is there, and brings its schema up to date.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no file, if it is not one that [`Self::create`] made, or if a later version of strongroom
    /// wrote it; it is left as it is then. `Unavailable` if it cannot be opened.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        const OPEN: &str = "open the key store";
        let path = file::absolute(path.as_ref()).map_err(|e| e.with_operation(OPEN))?;
        let file = Arc::new(StoreFile::find(path).map_err(|e| e.with_operation(OPEN))?);
        let sessions = Sessions::open(&file, CONNECTIONS).await?;
        let mut db = sessions.begin(schema::MIGRATE).await?;
        let migrated = schema::migrate(&mut db).await;
        db.ended(migrated)?;
        let lease = Sessions::open(&file, 1).await?;
        Ok(Self { sessions, lease, file })
    }

    /// Closes all connections. Dropping the store does so too, without waiting.
    pub async fn close(&self) {
        self.sessions.close().await;
        self.lease.close().await;
    }
}

#[async_trait]
impl KeyStore for SqliteKeyStore {
    async fn get(&self, key: &RowKey) -> Result<Option<Vec<u8>>> {
        let mut db = self.sessions.begin("read a row").await?;
        let done = rows::get(&mut db, key).await;
        db.ended(done)
    }

    async fn active(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<(KeyId, Vec<u8>)>> {
        let mut db = self.sessions.begin("find the Active key").await?;
        let done = rows::active(&mut db, tenant, scope, period).await;
        db.ended(done)
    }

    async fn tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<(TenantId, Vec<u8>)>> {
        let mut db = self.sessions.begin("list tenants").await?;
        let done = rows::tenants(&mut db, after, limit).await;
        db.ended(done)
    }

    async fn keys(&self, tenant: &TenantId, after: Option<&KeyId>, limit: u32) -> Result<Vec<(KeyId, Vec<u8>)>> {
        let mut db = self.sessions.begin("list data keys").await?;
        let done = rows::keys(&mut db, tenant, after, limit).await;
        db.ended(done)
    }

    async fn journal(&self, tenant: &TenantId, after: u64, limit: u32) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut db = self.sessions.begin("read the journal").await?;
        let done = rows::journal(&mut db, tenant, after, limit).await;
        db.ended(done)
    }

    async fn put(&self, writes: &[Write], entry: Option<LogEntry<'_>>) -> Result<Put> {
        row::check(writes)?;
        let mut db = self.sessions.begin("write rows").await?;
        let done = rows::put(&mut db, writes, entry).await;
        db.ended(done)
    }

    async fn log(&self, after: Option<u64>, limit: u32) -> Result<Log> {
        const READ: &str = "read the log of changes";
        for _ in 0..TRIES {
            // If this file stands at the path before and after, the connection is to it.
            let file = self.file.seen();
            let mut db = self.lease.begin(READ).await?;
            let done = rows::log(&mut db, after, limit).await;
            let LogRows { entries, end, fleet, name } = db.ended(done)?;
            if self.file.at_path() == Some(file) {
                return Ok(Log { entries, end, fleet, store: StoreIdentity(format!("sqlite:{name}/{file}")) });
            }
        }
        let replaced = "the key store's file is replaced again and again; retry";
        Err(Error::new(ErrorKind::Unavailable, replaced).with_operation(READ))
    }
}
