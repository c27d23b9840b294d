//! The schema: its versions, and who brings it up to date.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use crate::error::Result;
use crate::store::postgres::session::failed;
use crate::store::row::draw_identity;
use crate::store::schema_version::{Migration, SchemaVersion};

/// One script for each schema version, in order.
const MIGRATIONS: &[Migration] =
    &[Migration { script: include_str!("../../../migrations/postgres/0001_rows.sql"), least_known: 1 }];

/// Names the lock under which a database is migrated: any number that nobody else takes.
const MIGRATING: i64 = 0x7374_726f_6e67_726d; // "strongrm"

/// Whether the database lacks nothing. It is only read for that, so that nodes need not own the schema.
///
/// # Errors
/// `InvalidArgument` if a later version wrote it so that this one cannot use it.
pub(super) async fn is_up_to_date(db: &mut PgConnection, schema: &str) -> Result<bool> {
    Ok(version(db, schema).await?.missing(MIGRATIONS)?.is_empty())
}

/// Applies the scripts that the database lacks, in one transaction. Of several nodes one does it and the others wait.
///
/// A statement of it may take as long as `limit`, whatever calls may: it is not cut off in the middle. But for no lock does it wait
/// longer than calls do: behind who waits for a table, everybody else does.
///
/// # Errors
/// As [`is_up_to_date`]; nothing is changed then.
pub(super) async fn migrate(db: &mut PgConnection, schema: &str, limit: Duration) -> Result<()> {
    let mut tx = db.begin().await.map_err(failed)?;
    let unhurried = format!("SET LOCAL statement_timeout TO {}", limit.as_millis()); // a number of our own
    sqlx::raw_sql(AssertSqlSafe(unhurried)).execute(&mut *tx).await.map_err(failed)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATING).execute(&mut *tx).await.map_err(failed)?;
    // Somebody else may have done it while this one waited.
    let there = version(&mut tx, schema).await?;
    let (applied, migrations) = (there.version, there.missing(MIGRATIONS)?);
    if applied == 0 {
        let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)")
            .bind(schema)
            .fetch_one(&mut *tx)
            .await
            .map_err(failed)?;
        let create = if there { String::new() } else { format!("CREATE SCHEMA {schema};") };
        let versions = "CREATE TABLE migrations (version bigint PRIMARY KEY, least_known bigint NOT NULL, \
             applied_at timestamptz NOT NULL DEFAULT now())";
        let create = AssertSqlSafe(create + versions); // the schema's name is checked
        sqlx::raw_sql(create).execute(&mut *tx).await.map_err(failed)?;
    }
    for (number, Migration { script, least_known }) in (applied + 1..).zip(migrations) {
        sqlx::raw_sql(*script).execute(&mut *tx).await.map_err(failed)?;
        sqlx::query("INSERT INTO migrations (version, least_known) VALUES ($1, $2)")
            .bind(number)
            .bind(least_known)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
    }
    if applied == 0 {
        let id = draw_identity()?;
        sqlx::query("INSERT INTO store_identity (id) VALUES ($1)").bind(id).execute(&mut *tx).await.map_err(failed)?;
    }
    tx.commit().await.map_err(failed)
}

async fn version(db: &mut PgConnection, schema: &str) -> Result<SchemaVersion> {
    // Not by to_regclass, which may remember from before the lock that there was no such table.
    const THERE: &str = "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = $1 AND tablename = 'migrations')";
    let there: bool = sqlx::query_scalar(THERE).bind(schema).fetch_one(&mut *db).await.map_err(failed)?;
    if !there {
        return Ok(SchemaVersion { version: 0, least_known: None });
    }
    // As the script says that came last: one that only adds carries on what an earlier one asked for.
    let last = format!("SELECT version, least_known FROM {schema}.migrations ORDER BY version DESC LIMIT 1"); // the name is checked
    let last: Option<(i64, i64)> = sqlx::query_as(AssertSqlSafe(last)).fetch_optional(db).await.map_err(failed)?;
    Ok(last.map_or(SchemaVersion { version: 0, least_known: None }, |(version, least)| SchemaVersion {
        version,
        least_known: Some(least),
    }))
}
