//! The log of writes beside the file (`-wal`): what it keeps, and how it is emptied.
//!
//! SQLite writes each page there first and moves it into the file later; then it writes over the log from its start, and what is
//! behind that stays. So what was erased in the file stands in the log for as long as nobody empties it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;

use crate::error::Result;
use crate::store::sqlite::session::{BUSY_TIMEOUT, failed};

/// A log longer than this is emptied as soon as nobody reads from it: twice what SQLite lets it grow to by itself.
const LONG: u64 = 8 << 20;

/// How long an erasure waits for those that read from the log. Nobody writes meanwhile.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

/// `PATH-wal`
pub(super) struct WriteAheadLog {
    path: PathBuf,
    /// Something was erased since the log was emptied last.
    has_erased: AtomicBool,
}

impl WriteAheadLog {
    /// That of the file at `path`.
    pub(super) fn beside(path: &Path) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push("-wal");
        Self { path: name.into(), has_erased: AtomicBool::new(false) }
    }

    /// Empties the log after a write, if that `erased` something or an earlier one did, or if the log is long. Where somebody
    /// reads from it, the next write tries again.
    ///
    /// # Errors
    /// If nobody knows any more what state the connection is in. The write stands all the same.
    pub(super) async fn after_write(&self, db: &mut SqliteConnection, erased: bool) -> Result<()> {
        if erased {
            self.has_erased.store(true, Ordering::Relaxed);
        }
        if !self.has_erased.load(Ordering::Relaxed) && !self.is_long() {
            return Ok(());
        }
        // Only who erases waits: a reader that stays must not slow each write down.
        if empty(db, if erased { PATIENCE } else { Duration::ZERO }).await? {
            self.has_erased.store(false, Ordering::Relaxed);
        } else if erased {
            tracing::warn!(
                "what was erased stays in the key store's log of writes while somebody reads; the next write tries again"
            );
        }
        Ok(())
    }

    fn is_long(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|log| log.len() > LONG)
    }
}

/// Moves all of the log into the file and cuts it to nothing, waiting `patience` for those that use it. Says whether it did.
///
/// # Errors
/// As [`WriteAheadLog::after_write`].
pub(super) async fn empty(db: &mut SqliteConnection, patience: Duration) -> Result<bool> {
    wait(db, patience).await?;
    let busy: i64 = sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *db).await.map_err(failed)?;
    wait(db, BUSY_TIMEOUT).await?;
    Ok(busy == 0)
}

/// How long what follows waits for others.
async fn wait(db: &mut SqliteConnection, longest: Duration) -> Result<()> {
    let set = format!("PRAGMA busy_timeout = {}", longest.as_millis()); // a number of our own
    sqlx::raw_sql(AssertSqlSafe(set)).execute(db).await.map_err(failed)?;
    Ok(())
}
