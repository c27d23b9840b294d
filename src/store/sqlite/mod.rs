//! A key store in one SQLite file, shared by any number of processes of one machine.

mod file;
mod rows;
mod schema;
mod session;
mod wal;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::scope::Scope;
use crate::key::state::KeyState;
use crate::store::row::{self, Log, Put, RowChange, RowKey, StoreIdentity, Write};
use crate::store::sqlite::file::StoreFile;
use crate::store::sqlite::rows::LogRows;
use crate::store::sqlite::session::Sessions;
use crate::store::sqlite::wal::WriteAheadLog;
use crate::store::{KeyStore, LogEntry, StoreCapacity};

/// Connections of one process that read. They wait for nobody's lock.
const READERS: u32 = 4;
/// Connections that write. SQLite writes one at a time anyway: the second is there so that a decision is not behind a load here that
/// waits for another process's lock, but beside it.
const WRITERS: u32 = 2;

/// How often the log is read in all if the file is replaced meanwhile.
const TRIES: u32 = 3;

/// Rows in one SQLite file (WAL, `synchronous=FULL`: a key is on disk before it is used). Connections that read are
/// others than those that write, so that another process's lock, which writers wait for, keeps nobody from reading; and one more
/// reads what leases are granted on, the log of changes and the records of keys in use.
///
/// Which store it is it knows by a random name drawn when the file is made, and by the file's device, inode and time of birth,
/// as far as the system tells them: a copy is another one. If another file is put in its place while it is open, connections to
/// the old one are closed, and new ones opened.
///
/// Beside `keys.db` SQLite keeps `keys.db-wal`, where the newest rows may stand, and `keys.db-shm`: the three belong together. A copy
/// of `keys.db` alone, made while a process has it open or after one was killed, may hold none of the keys. Make copies with
/// [`Self::backup`]. [`Self::close`] leaves all rows in `keys.db`, if no other process has it open: call it before the process ends.
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
    readers: Sessions,
    writers: Sessions,
    /// For what leases are granted on: the log, the records of keys in use, the room's row and the fleet's.
    lease: Sessions,
    file: Arc<StoreFile>,
    wal: WriteAheadLog,
}

impl SqliteKeyStore {
    /// Makes a new store and opens it. The file comes into being with all of its tables, or not at all; of several that make it,
    /// one does. Whatever the umask, it has mode 0600, and so have the two files that SQLite keeps beside it.
    ///
    /// # Errors
    /// `Conflict` if there is anything of that name, which is left as it is; `InvalidArgument` if the path has no file name;
    /// `StoreFault` if the file cannot be made.
    pub async fn create(path: impl AsRef<Path>) -> Result<Self> {
        const CREATE: &str = "create the key store";
        let path = file::absolute(path.as_ref()).map_err(|e| e.with_operation(CREATE))?;
        file::create(&path).await.map_err(|e| e.with_operation(CREATE))?;
        Self::open(path).await
    }

    /// Opens a store that is there, and brings its schema up to date. If others than its owner can read or write it, the operator's
    /// log says so: no key stands in it bare, but who writes it can deny service, and who reads it learns tenants and scopes.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no file, if it is not one that [`Self::create`] made, or if a later version of strongroom
    /// wrote it; it is left as it is then. `StoreFault` if it cannot be opened.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        const OPEN: &str = "open the key store";
        let path = file::absolute(path.as_ref()).map_err(|e| e.with_operation(OPEN))?;
        let file = Arc::new(StoreFile::find(path).map_err(|e| e.with_operation(OPEN))?);
        let writers = Sessions::open(&file, WRITERS).await?;
        let mut db = writers.begin(schema::MIGRATE).await?;
        let migrated = schema::migrate(&mut db).await;
        db.ended(migrated)?;
        let (readers, lease) = (Sessions::open(&file, READERS).await?, Sessions::open(&file, 1).await?);
        let wal = WriteAheadLog::beside(&file.path);
        Ok(Self { readers, writers, lease, file, wal })
    }

    /// Copies all rows, as they are at one moment, into a new file at `to`, which then is a whole store: mode 0600, durable, of the
    /// smallest size. The store is read and written meanwhile. It goes on to its end if the future is dropped.
    ///
    /// The copy is as old as it is: put in the place of the store it lacks the data keys made since, and what was sealed under
    /// them with it. Erased keys are in every copy from before their erasure, so erase the copies too.
    ///
    /// # Errors
    /// `Conflict` if there is anything of that name, which is left as it is; `InvalidArgument` if `to` names no file, or is not
    /// UTF-8; `StoreFault` if the copy has no room or cannot be made, `Unavailable` if the store does not answer. Nothing is left behind.
    pub async fn backup(&self, to: impl AsRef<Path>) -> Result<()> {
        const BACK_UP: &str = "back up the key store";
        let run = async {
            let (from, to) = (self.file.path.clone(), file::absolute(to.as_ref())?);
            let copying = tokio::spawn(async move { file::back_up(&from, &to).await });
            let ended_early =
                |e| Error::new(ErrorKind::Unavailable, "the backup's task ended early; make it again").with_source(e);
            copying.await.map_err(ended_early)?
        };
        run.await.map_err(|e: Error| e.with_operation(BACK_UP))
    }

    /// Moves what is in the log of writes into the file, as far as nobody else reads, and closes all connections. Dropping the store
    /// does the latter, without waiting.
    pub async fn close(&self) {
        // What cannot be moved is as durable where it is.
        if let Ok(mut db) = self.writers.begin("close the key store").await {
            let emptied = wal::empty(&mut db, wal::PATIENCE).await;
            let _ = db.ended(emptied);
        }
        self.readers.close().await;
        self.lease.close().await;
        self.writers.close().await;
    }
}

#[async_trait]
impl KeyStore for SqliteKeyStore {
    async fn get(&self, key: &RowKey) -> Result<Option<Vec<u8>>> {
        // The lease looks at these two.
        let sessions = if matches!(key, RowKey::Room | RowKey::Fleet) { &self.lease } else { &self.readers };
        let mut db = sessions.begin("read a row").await?;
        let done = rows::get(&mut db, key).await;
        db.ended(done)
    }

    async fn get_many(&self, keys: &[RowKey]) -> Result<Vec<Option<Vec<u8>>>> {
        // The lease looks up the keys in use.
        let mut db = self.lease.begin("read rows").await?;
        let done = rows::get_many(&mut db, keys).await;
        db.ended(done)
    }

    async fn active(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<(KeyId, Vec<u8>)>> {
        let mut db = self.readers.begin("find the Active key").await?;
        let done = rows::active(&mut db, tenant, scope, period).await;
        db.ended(done)
    }

    async fn tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<(TenantId, Vec<u8>)>> {
        let mut db = self.readers.begin("list tenants").await?;
        let done = rows::tenants(&mut db, after, limit).await;
        db.ended(done)
    }

    async fn keys(&self, tenant: &TenantId, after: Option<&KeyId>, limit: u32) -> Result<Vec<(KeyId, Vec<u8>)>> {
        let mut db = self.readers.begin("list data keys").await?;
        let done = rows::keys(&mut db, tenant, after, limit).await;
        db.ended(done)
    }

    async fn journal(&self, tenant: &TenantId, after: u64, limit: u32) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut db = self.readers.begin("read the journal").await?;
        let done = rows::journal(&mut db, tenant, after, limit).await;
        db.ended(done)
    }

    async fn put(&self, writes: &[Write], entry: Option<LogEntry<'_>>) -> Result<Put> {
        row::check(writes)?;
        let mut db = self.writers.begin("write rows").await?;
        let done = rows::put(&mut db, writes, entry).await;
        if !matches!(done, Ok(Put::Written(_))) {
            return db.ended(done);
        }
        let erased = writes.iter().any(|write| match &write.change {
            RowChange::Put(_, Some(index)) => index.state == KeyState::Destroyed,
            _ => false,
        });
        // It is written by now, whatever becomes of the log.
        let tidied = self.wal.after_write(&mut db, erased).await;
        if let Err(e) = db.ended(tidied) {
            tracing::warn!(error = %e, "the key store's log of writes was not emptied");
        }
        done
    }

    fn capacity(&self) -> StoreCapacity {
        StoreCapacity::new(3, 1)
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
