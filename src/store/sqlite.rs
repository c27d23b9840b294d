//! A key store in one SQLite file, shared by any number of processes of one machine.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Row, Sqlite, Transaction};

use crate::error::{Error, ErrorKind, Result};
use crate::key::change::{Change, Changes, Forget};
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::record::KeyRecord;
use crate::key::scope::Scope;
use crate::key::tenant::TenantRecord;
use crate::store::row::{
    ChangeColumns, KeyColumns, TenantColumns, forget_to_text, pending_to_text, period_to_text, signed, to_text,
    unsigned, wrapped_to_text,
};
use crate::store::{KEY_EXISTS, KeyStore, NOT_ACTIVE, Placed, STALE_EPOCH, STALE_TENANT, TENANT_EXISTS, conflict};

/// One script for each schema version, in order.
const MIGRATIONS: &[&str] = &[include_str!("../../migrations/sqlite/0001_tenants_and_keys.sql")];

/// How long a writer waits for another one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(15);
/// Connections of one process: SQLite writes one at a time anyway.
const CONNECTIONS: u32 = 4;

/// How many changes the log keeps.
const LOG: i64 = 10_000;

const INSERT_KEY: &str = "INSERT INTO data_keys
    (tenant, key_id, suite, scope, period, region, state, state_since, wrapped, pending, wrapped_epoch, created_at, revision)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const SELECT_ACTIVE: &str =
    "SELECT * FROM data_keys WHERE tenant = ? AND scope = ? AND period = ? AND state = 'active'";

/// Tenants and key records in one SQLite file (WAL, `synchronous=FULL`: a key is on disk before it is used).
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let folder = tempfile::tempdir()?;
/// let store = strongroom::SqliteKeyStore::open(folder.path().join("keys.db")).await?;
/// # let _ = store;
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SqliteKeyStore {
    pool: SqlitePool,
}

impl SqliteKeyStore {
    /// Opens the file, creates it if it does not exist, and brings its schema up to date.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be opened; `InvalidArgument` if a later version of strongroom wrote it.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path.as_ref())
            .create_if_missing(true)
            .busy_timeout(BUSY_TIMEOUT)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .pragma("secure_delete", "ON"); // an erased key's wrapped bytes are overwritten, not only unlinked
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect_with(options)
            .await
            .map_err(|e| failed("open the key store", e))?;
        let store = Self { pool };
        store.migrate().await?;
        Ok(store)
    }

    /// Closes all connections. Dropping the store does so too, without waiting.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Applies the scripts that the file lacks, in one transaction, so that of several processes one does it.
    async fn migrate(&self) -> Result<()> {
        let mut tx = self.writing("migrate the key store").await?;
        let version: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut *tx)
            .await
            .map_err(|e| failed("migrate the key store", e))?;
        let applied = usize::try_from(version).unwrap_or(usize::MAX);
        let Some(missing) = MIGRATIONS.get(applied..) else {
            return Err(Error::invalid(format!(
                "the key store has schema version {version}, this strongroom knows up to {}: update it",
                MIGRATIONS.len()
            )));
        };
        for script in missing {
            sqlx::raw_sql(*script).execute(&mut *tx).await.map_err(|e| failed("migrate the key store", e))?;
        }
        if !missing.is_empty() {
            let stamp = format!("PRAGMA user_version = {}", MIGRATIONS.len());
            let stamp = sqlx::AssertSqlSafe(stamp); // a number of our own
            sqlx::raw_sql(stamp).execute(&mut *tx).await.map_err(|e| failed("migrate the key store", e))?;
        }
        tx.commit().await.map_err(|e| failed("migrate the key store", e))
    }

    /// A transaction that holds the write lock from its start: it cannot fail half-way because another one wrote.
    async fn writing(&self, operation: &'static str) -> Result<Transaction<'static, Sqlite>> {
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| failed(operation, e))
    }
}

fn failed(operation: &'static str, e: sqlx::Error) -> Error {
    let message = match &e {
        sqlx::Error::Database(d) if is_busy(d.code().as_deref()) => "the key store is busy with other writers; retry",
        sqlx::Error::PoolTimedOut => "all connections to the key store are in use; retry",
        _ => "the key store failed",
    };
    Error::new(ErrorKind::Unavailable, message).with_operation(operation).with_source(e)
}

/// SQLITE_BUSY and SQLITE_LOCKED with their extended codes.
fn is_busy(code: Option<&str>) -> bool {
    code.and_then(|c| c.parse::<u32>().ok()).is_some_and(|c| matches!(c & 0xFF, 5 | 6))
}

/// `what` where a constraint refused the row, else [`failed`].
fn refused_or_failed(operation: &'static str, what: &'static str, e: sqlx::Error) -> Error {
    match &e {
        sqlx::Error::Database(d) if d.is_unique_violation() || d.is_foreign_key_violation() => conflict(what),
        _ => failed(operation, e),
    }
}

fn column<'r, T>(row: &'r SqliteRow, name: &'static str) -> Result<T>
where
    T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
{
    row.try_get(name).map_err(|e| Error::malformed("a stored row's column does not read").with_source(e))
}

fn key_record(row: &SqliteRow) -> Result<KeyRecord> {
    KeyColumns {
        tenant: column(row, "tenant")?,
        key_id: column(row, "key_id")?,
        suite: column(row, "suite")?,
        scope: column(row, "scope")?,
        period: column(row, "period")?,
        region: column(row, "region")?,
        state: column(row, "state")?,
        state_since: column(row, "state_since")?,
        wrapped: column(row, "wrapped")?,
        pending: column(row, "pending")?,
        wrapped_epoch: column(row, "wrapped_epoch")?,
        created_at: column(row, "created_at")?,
        revision: column(row, "revision")?,
    }
    .read()
}

fn tenant_record(row: &SqliteRow) -> Result<TenantRecord> {
    TenantColumns {
        tenant: column(row, "tenant")?,
        policy: column(row, "policy")?,
        revocations: column(row, "revocations")?,
        erasures: column(row, "erasures")?,
        rewrap: column(row, "rewrap")?,
        enrolled_at: column(row, "enrolled_at")?,
        epoch: column(row, "epoch")?,
    }
    .read()
}

async fn find_active(
    db: &mut SqliteConnection,
    tenant: &TenantId,
    scope: &Scope,
    period: &str,
) -> Result<Option<KeyRecord>> {
    let row = sqlx::query(SELECT_ACTIVE)
        .bind(tenant.as_str())
        .bind(scope.to_bytes())
        .bind(period)
        .fetch_optional(db)
        .await
        .map_err(|e| failed("find the Active key", e))?;
    row.as_ref().map(key_record).transpose()
}

/// # Errors
/// `Conflict` unless the tenant is enrolled and at the epoch that the record was made under.
async fn check_epoch(db: &mut SqliteConnection, record: &KeyRecord) -> Result<()> {
    let epoch: Option<i64> = sqlx::query_scalar("SELECT epoch FROM tenants WHERE tenant = ?")
        .bind(record.tenant.as_str())
        .fetch_optional(db)
        .await
        .map_err(|e| failed("read the tenant's epoch", e))?;
    match epoch.map(unsigned).transpose()? {
        Some(epoch) if epoch == record.wrapped_epoch => Ok(()),
        Some(_) => Err(conflict(STALE_EPOCH)),
        None => Err(conflict(KEY_EXISTS)),
    }
}

async fn log(db: &mut SqliteConnection, change: &Change) -> Result<()> {
    if change.forget == Forget::Nothing {
        return Ok(());
    }
    let added = sqlx::query("INSERT INTO changes (tenant, selector, forget) VALUES (?, ?, ?)")
        .bind(change.tenant.as_str())
        .bind(to_text(&change.selector)?)
        .bind(forget_to_text(change.forget))
        .execute(&mut *db)
        .await
        .map_err(|e| failed("log a change", e))?;
    sqlx::query("DELETE FROM changes WHERE seq <= ?")
        .bind(added.last_insert_rowid() - LOG)
        .execute(db)
        .await
        .map(|_| ())
        .map_err(|e| failed("log a change", e))
}

fn change(row: &SqliteRow) -> Result<Change> {
    ChangeColumns { tenant: column(row, "tenant")?, selector: column(row, "selector")?, forget: column(row, "forget")? }
        .read()
}

async fn insert(db: &mut SqliteConnection, record: &KeyRecord) -> Result<()> {
    sqlx::query(INSERT_KEY)
        .bind(record.tenant.as_str())
        .bind(record.key_id.as_bytes().as_slice())
        .bind(i64::from(record.suite.byte()))
        .bind(record.scope.to_bytes())
        .bind(period_to_text(record.period.as_ref()))
        .bind(record.region.as_str())
        .bind(record.state.as_str())
        .bind(record.state_since)
        .bind(wrapped_to_text(record.wrapped.as_ref())?)
        .bind(pending_to_text(record.pending.as_ref())?)
        .bind(signed(record.wrapped_epoch)?)
        .bind(record.created_at)
        .bind(signed(record.revision)?)
        .execute(db)
        .await
        .map(|_| ())
        .map_err(|e| refused_or_failed("insert a data key", KEY_EXISTS, e))
}

/// Whether the row was there to be updated, and no constraint refused it.
async fn update(db: &mut SqliteConnection, record: &KeyRecord) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE data_keys SET state = ?, state_since = ?, wrapped = ?, pending = ?, wrapped_epoch = ?, revision = ?
         WHERE tenant = ? AND key_id = ? AND revision = ? - 1 AND state <> 'destroyed'",
    )
    .bind(record.state.as_str())
    .bind(record.state_since)
    .bind(wrapped_to_text(record.wrapped.as_ref())?)
    .bind(pending_to_text(record.pending.as_ref())?)
    .bind(signed(record.wrapped_epoch)?)
    .bind(signed(record.revision)?)
    .bind(record.tenant.as_str())
    .bind(record.key_id.as_bytes().as_slice())
    .bind(signed(record.revision)?)
    .execute(db)
    .await;
    match done {
        Ok(done) => Ok(done.rows_affected() == 1),
        // A second Active key: the statement alone is undone.
        Err(sqlx::Error::Database(e)) if e.is_unique_violation() => Ok(false),
        Err(e) => Err(failed("update key records", e)),
    }
}

#[async_trait]
impl KeyStore for SqliteKeyStore {
    async fn tenant(&self, tenant: &TenantId) -> Result<Option<TenantRecord>> {
        let row = sqlx::query("SELECT * FROM tenants WHERE tenant = ?")
            .bind(tenant.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| failed("read the tenant", e))?;
        row.as_ref().map(tenant_record).transpose()
    }

    async fn insert_tenant(&self, record: &TenantRecord) -> Result<()> {
        sqlx::query(
            "INSERT INTO tenants (tenant, policy, revocations, erasures, rewrap, enrolled_at, epoch)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(record.tenant.as_str())
        .bind(to_text(&record.policy)?)
        .bind(to_text(&record.revocations)?)
        .bind(to_text(&record.erasures)?)
        .bind(record.rewrap.as_ref().map(to_text).transpose()?)
        .bind(record.enrolled_at)
        .bind(signed(record.epoch)?)
        .execute(&self.pool)
        .await
        .map(|_| ())
        .map_err(|e| refused_or_failed("insert the tenant", TENANT_EXISTS, e))
    }

    async fn update_tenant(&self, record: &TenantRecord, change: &Change) -> Result<()> {
        let mut tx = self.writing("update the tenant").await?;
        let done = sqlx::query(
            "UPDATE tenants SET policy = ?, revocations = ?, erasures = ?, rewrap = ?, epoch = ?
             WHERE tenant = ? AND epoch = ? - 1",
        )
        .bind(to_text(&record.policy)?)
        .bind(to_text(&record.revocations)?)
        .bind(to_text(&record.erasures)?)
        .bind(record.rewrap.as_ref().map(to_text).transpose()?)
        .bind(signed(record.epoch)?)
        .bind(record.tenant.as_str())
        .bind(signed(record.epoch)?)
        .execute(&mut *tx)
        .await
        .map_err(|e| failed("update the tenant", e))?;
        if done.rows_affected() != 1 {
            return Err(conflict(STALE_TENANT));
        }
        log(&mut tx, change).await?;
        tx.commit().await.map_err(|e| failed("update the tenant", e))
    }

    async fn tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<TenantRecord>> {
        let rows = sqlx::query("SELECT * FROM tenants WHERE tenant > ? ORDER BY tenant LIMIT ?")
            .bind(after.map_or("", TenantId::as_str))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await
            .map_err(|e| failed("list tenants", e))?;
        rows.iter().map(tenant_record).collect()
    }

    async fn announce(&self, change: &Change) -> Result<()> {
        let mut tx = self.writing("log a change").await?;
        log(&mut tx, change).await?;
        tx.commit().await.map_err(|e| failed("log a change", e))
    }

    async fn changes(&self, after: Option<u64>, limit: u32) -> Result<Changes> {
        let last: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(seq), 0) FROM changes")
            .fetch_one(&self.pool)
            .await
            .map_err(|e| failed("read the log of changes", e))?;
        let upto = unsigned(last)?;
        let missed = match Changes::missed(after, upto, limit) {
            Ok(missed) => missed,
            Err(answer) => return Ok(answer),
        };
        let rows = sqlx::query("SELECT * FROM changes WHERE seq > ? AND seq <= ? ORDER BY seq")
            .bind(signed(upto - missed)?)
            .bind(last)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| failed("read the log of changes", e))?;
        Ok(Changes::read(rows.iter().map(change).collect::<Result<_>>()?, missed, upto))
    }

    async fn key(&self, tenant: &TenantId, key_id: &KeyId) -> Result<Option<KeyRecord>> {
        let row = sqlx::query("SELECT * FROM data_keys WHERE tenant = ? AND key_id = ?")
            .bind(tenant.as_str())
            .bind(key_id.as_bytes().as_slice())
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| failed("read the key record", e))?;
        row.as_ref().map(key_record).transpose()
    }

    async fn active_key(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<KeyRecord>> {
        let mut db = self.pool.acquire().await.map_err(|e| failed("find the Active key", e))?;
        find_active(&mut db, tenant, scope, period_to_text(period)).await
    }

    async fn insert_active(&self, record: &KeyRecord) -> Result<Placed> {
        let mut tx = self.writing("insert a data key").await?;
        let period = period_to_text(record.period.as_ref());
        if let Some(existing) = find_active(&mut tx, &record.tenant, &record.scope, period).await? {
            return Ok(Placed::Existing(Box::new(existing)));
        }
        check_epoch(&mut tx, record).await?;
        insert(&mut tx, record).await?;
        tx.commit().await.map_err(|e| failed("insert a data key", e))?;
        Ok(Placed::New)
    }

    async fn succeed(&self, old: &KeyId, successor: &KeyRecord) -> Result<Placed> {
        let mut tx = self.writing("rotate a data key").await?;
        let period = period_to_text(successor.period.as_ref());
        match find_active(&mut tx, &successor.tenant, &successor.scope, period).await? {
            None => return Err(conflict(NOT_ACTIVE)),
            Some(active) if active.key_id != *old => return Ok(Placed::Existing(Box::new(active))),
            Some(_) => {}
        }
        check_epoch(&mut tx, successor).await?;
        sqlx::query(
            "UPDATE data_keys SET state = 'deactivated', state_since = ?, revision = revision + 1
             WHERE tenant = ? AND key_id = ?",
        )
        .bind(successor.created_at)
        .bind(successor.tenant.as_str())
        .bind(old.as_bytes().as_slice())
        .execute(&mut *tx)
        .await
        .map_err(|e| failed("rotate a data key", e))?;
        insert(&mut tx, successor).await?;
        tx.commit().await.map_err(|e| failed("rotate a data key", e))?;
        Ok(Placed::New)
    }

    async fn update_keys(&self, records: &[KeyRecord]) -> Result<Vec<bool>> {
        records.iter().try_for_each(KeyRecord::check)?;
        let mut tx = self.writing("update key records").await?;
        let mut written = Vec::with_capacity(records.len());
        for record in records {
            written.push(update(&mut tx, record).await?);
        }
        tx.commit().await.map_err(|e| failed("update key records", e))?;
        Ok(written)
    }

    async fn keys(&self, tenant: &TenantId, after: Option<&KeyId>, limit: u32) -> Result<Vec<KeyRecord>> {
        let after: &[u8] = after.map_or(&[], |id| id.as_bytes());
        let rows = sqlx::query("SELECT * FROM data_keys WHERE tenant = ? AND key_id > ? ORDER BY key_id LIMIT ?")
            .bind(tenant.as_str())
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await
            .map_err(|e| failed("list key records", e))?;
        rows.iter().map(key_record).collect()
    }
}
