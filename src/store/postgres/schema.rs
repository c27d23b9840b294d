//! The schema: its versions, and who brings it up to date.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use crate::error::{Error, Result};
use crate::store::postgres::session::failed;
use crate::store::row::draw_identity;

/// One script for each schema version, in order.
const MIGRATIONS: &[&str] = &[include_str!("../../../migrations/postgres/0001_rows.sql")];

/// Names the lock under which a database is migrated: any number that nobody else takes.
const MIGRATING: i64 = 0x7374_726f_6e67_726d; // "strongrm"

/// Applies the scripts that the database lacks, in one transaction. Of several nodes one does it and the others wait. A
/// database that lacks none is only read, so that nodes need not own the schema.
///
/// # Errors
/// `InvalidArgument` if a later version wrote it; nothing is changed then.
pub(super) async fn migrate(db: &mut PgConnection, schema: &str) -> Result<()> {
    if missing(version(db, schema).await?)?.is_empty() {
        return Ok(());
    }
    let mut tx = db.begin().await.map_err(failed)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATING).execute(&mut *tx).await.map_err(failed)?;
    // Somebody else may have done it while this one waited.
    let applied = version(&mut tx, schema).await?;
    let scripts = missing(applied)?;
    if applied == 0 {
        let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)")
            .bind(schema)
            .fetch_one(&mut *tx)
            .await
            .map_err(failed)?;
        let create = if there { String::new() } else { format!("CREATE SCHEMA {schema};") };
        let versions =
            "CREATE TABLE migrations (version bigint PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())";
        let create = AssertSqlSafe(create + versions); // the schema's name is checked
        sqlx::raw_sql(create).execute(&mut *tx).await.map_err(failed)?;
    }
    for (number, script) in (applied + 1..).zip(scripts) {
        sqlx::raw_sql(*script).execute(&mut *tx).await.map_err(failed)?;
        sqlx::query("INSERT INTO migrations (version) VALUES ($1)")
            .bind(number)
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

/// The last script applied; 0 for none.
async fn version(db: &mut PgConnection, schema: &str) -> Result<i64> {
    // Not by to_regclass, which may remember from before the lock that there was no such table.
    const THERE: &str = "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = $1 AND tablename = 'migrations')";
    let there: bool = sqlx::query_scalar(THERE).bind(schema).fetch_one(&mut *db).await.map_err(failed)?;
    if !there {
        return Ok(0);
    }
    let last = format!("SELECT COALESCE(MAX(version), 0) FROM {schema}.migrations"); // the name is checked
    sqlx::query_scalar(AssertSqlSafe(last)).fetch_one(db).await.map_err(failed)
}

fn missing(version: i64) -> Result<&'static [&'static str]> {
    let applied = usize::try_from(version).unwrap_or(usize::MAX);
    MIGRATIONS.get(applied..).ok_or_else(|| {
        let known = MIGRATIONS.len();
        Error::invalid(format!(
            "the key store has schema version {version}, this strongroom knows up to {known}: update it"
        ))
    })
}
