//! The schema: its versions, how a file gets it, and who brings it up to date.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use crate::error::{Error, ErrorKind, Result};
use crate::store::row::draw_identity;
use crate::store::schema_version::{Migration, SchemaVersion};
use crate::store::sqlite::session::{failed, settings};

/// One script for each schema version, in order.
const MIGRATIONS: &[Migration] =
    &[Migration { script: include_str!("../../../migrations/sqlite/0001_rows.sql"), least_known: 1 }];

/// What a file of ours bears in its header.
pub(super) const APPLICATION_ID: u32 = 0x7374_726d; // "strm"

pub(super) const MIGRATE: &str = "migrate the key store";

/// Makes a file that is a store, closed and durable. There must be none.
///
/// # Errors
/// As [`failed`] if it cannot be made.
pub(super) async fn make(path: &Path) -> Result<()> {
    let options: SqliteConnectOptions = settings(path).create_if_missing(true);
    let mut db = options.connect().await.map_err(failed)?;
    let mut tx = db.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    let mark = format!("PRAGMA application_id = {APPLICATION_ID}"); // a number of our own
    sqlx::raw_sql(AssertSqlSafe(mark)).execute(&mut *tx).await.map_err(failed)?;
    apply(&mut tx, 0, MIGRATIONS).await?;
    sqlx::query("INSERT INTO store_identity (id) VALUES (?)")
        .bind(draw_identity()?)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
    tx.commit().await.map_err(failed)?;
    // Moves all of it from the log of writes into the file itself, which then goes by another name without that log.
    let busy: i64 = sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut db).await.map_err(failed)?;
    db.close().await.map_err(failed)?;
    if busy != 0 {
        return Err(Error::new(ErrorKind::Unavailable, "the new key store's file is used by somebody else; retry"));
    }
    Ok(())
}

/// Applies the scripts that the file lacks, in one transaction, so that of several processes one does it.
///
/// # Errors
/// `InvalidArgument` if a later version wrote it so that this one cannot use it; nothing is changed then.
pub(super) async fn migrate(db: &mut SqliteConnection) -> Result<()> {
    if version(db).await?.missing(MIGRATIONS)?.is_empty() {
        return Ok(());
    }
    let mut tx = db.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    // Somebody else may have done it while this one waited.
    let there = version(&mut tx).await?;
    apply(&mut tx, there.version, there.missing(MIGRATIONS)?).await?;
    tx.commit().await.map_err(failed)
}

async fn apply(db: &mut SqliteConnection, applied: i64, migrations: &'static [Migration]) -> Result<()> {
    let mut newest = applied;
    for Migration { script, least_known } in migrations {
        newest += 1;
        sqlx::raw_sql(*script).execute(&mut *db).await.map_err(failed)?;
        let insert = sqlx::query("INSERT INTO migrations (version, least_known) VALUES (?, ?)");
        insert.bind(newest).bind(least_known).execute(&mut *db).await.map_err(failed)?;
    }
    if migrations.is_empty() {
        return Ok(());
    }
    let stamp = format!("PRAGMA user_version = {newest}"); // a number of our own
    sqlx::raw_sql(AssertSqlSafe(stamp)).execute(db).await.map_err(failed)?;
    Ok(())
}

async fn version(db: &mut SqliteConnection) -> Result<SchemaVersion> {
    let version = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *db).await.map_err(failed)?;
    let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'migrations')")
        .fetch_one(&mut *db)
        .await
        .map_err(failed)?;
    let least_known = if there {
        // As the script says that came last: one that only adds carries on what an earlier one asked for.
        let last = sqlx::query_scalar("SELECT least_known FROM migrations WHERE version = ?").bind(version);
        last.fetch_optional(db).await.map_err(failed)?
    } else {
        None
    };
    Ok(SchemaVersion { version, least_known })
}
