//! Sessions: pooled connections, each lent for one call, and what becomes of calls that fail or are dropped.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::Sqlite;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use crate::error::{Error, ErrorKind, Result};
use crate::store::sqlite::file::StoreFile;

/// How long a writer waits for another one.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(15);

/// How each connection is opened.
pub(super) fn settings(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("secure_delete", "ON") // an erased key's wrapped bytes are overwritten, not only unlinked
        .pragma("journal_size_limit", "4194304") // what a busy moment made of the log is given back
}

pub(super) struct Sessions {
    pool: SqlitePool,
}

/// A connection lent for one call.
///
/// It goes back to the pool only if the call came to its end. Otherwise it is closed: nobody is to find it in the middle of a
/// transaction that failed, or was dropped, without being undone.
pub(super) struct Session {
    db: PoolConnection<Sqlite>,
    operation: &'static str,
    ended: bool,
}

impl Sessions {
    /// At most `connections` of them, all to the file that stands at the path.
    ///
    /// # Errors
    /// As [`failed`] if it cannot be opened.
    pub(super) async fn open(file: &Arc<StoreFile>, connections: u32) -> Result<Self> {
        let options = settings(&file.path);
        let watched = Arc::clone(file);
        let pool = SqlitePoolOptions::new()
            .max_connections(connections)
            .before_acquire(move |_, connection| {
                let opened = Instant::now().checked_sub(connection.age);
                let current = opened.is_some_and(|opened| watched.is_current(opened));
                Box::pin(async move { Ok(current) })
            })
            .connect_with(options)
            .await
            .map_err(|e| failed(e).with_operation("open the key store"))?;
        Ok(Self { pool })
    }

    pub(super) async fn begin(&self, operation: &'static str) -> Result<Session> {
        let db = self.pool.acquire().await.map_err(|e| failed(e).with_operation(operation))?;
        Ok(Session { db, operation, ended: false })
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

impl Session {
    /// Says how the call ended. After an error nobody knows what state the connection is in.
    pub(super) fn ended<T>(mut self, result: Result<T>) -> Result<T> {
        self.ended = result.is_ok();
        result.map_err(|e| e.with_operation(self.operation))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.ended {
            self.db.close_on_drop();
        }
    }
}

impl Deref for Session {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.db
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.db
    }
}

/// An error that no row is to blame for: `StoreFault` where somebody has to act, else `Unavailable`.
#[allow(clippy::needless_pass_by_value)] // for map_err
pub(super) fn failed(e: sqlx::Error) -> Error {
    use ErrorKind::{StoreFault, Unavailable};
    let (kind, message) = match &e {
        // The primary code stands in the lower byte of an extended one.
        sqlx::Error::Database(d) => match d.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xFF) {
            Some(5 | 6) => (Unavailable, "the key store is busy with other writers; retry"),
            Some(8) => {
                (StoreFault, "the key store is read-only; make its file, its folder and its file system writable")
            }
            Some(10) => (StoreFault, "the key store's disk fails to read or write; check it"),
            Some(11 | 26) => (StoreFault, "the key store's file is corrupt; restore it from a backup"),
            Some(13) => (StoreFault, "the key store's disk is full; make room"),
            Some(14) => (
                StoreFault,
                "the key store's file cannot be opened; check that it is there, and that it and its folder are writable",
            ),
            _ => (Unavailable, "the key store failed"),
        },
        sqlx::Error::PoolTimedOut => (Unavailable, "all connections to the key store are in use; retry"),
        _ => (Unavailable, "the key store failed"),
    };
    Error::new(kind, message).with_source(e)
}
