//! Tenants and the log of changes in PostgreSQL.

use sqlx::Connection;
use sqlx::postgres::{PgConnection, PgRow};

use crate::error::Result;
use crate::key::change::{Change, Changes, Forget};
use crate::key::id::TenantId;
use crate::key::tenant::TenantRecord;
use crate::store::postgres::news::CHANNEL;
use crate::store::postgres::session::{column, failed, refused_or_failed};
use crate::store::row::{ChangeColumns, TenantColumns, forget_to_text, signed, to_text, unsigned};
use crate::store::{STALE_TENANT, TENANT_EXISTS, conflict};

/// How many changes the log keeps.
const LOG: i64 = 10_000;

/// Takes the next number (the row stays locked until the commit: see the migration), adds the change, drops what is too old,
/// and tells who listens, which PostgreSQL does when and if this commits.
const LOG_CHANGE: &str = "
    WITH place AS (
        UPDATE log_end SET seq = seq + 1 RETURNING seq
    ), added AS (
        INSERT INTO changes (seq, tenant, selector, forget) SELECT seq, $1, $2, $3 FROM place RETURNING seq
    ), dropped AS (
        DELETE FROM changes USING place WHERE changes.seq <= place.seq - $4
    )
    SELECT pg_notify($5, seq::text) FROM added";

macro_rules! select_tenants {
    ($which:literal) => {
        concat!("SELECT tenant, policy, revocations, erasures, rewrap, enrolled_at, epoch FROM tenants ", $which)
    };
}

fn tenant_record(row: &PgRow) -> Result<TenantRecord> {
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

fn change(row: &PgRow) -> Result<Change> {
    ChangeColumns { tenant: column(row, "tenant")?, selector: column(row, "selector")?, forget: column(row, "forget")? }
        .read()
}

pub(super) async fn find(db: &mut PgConnection, tenant: &TenantId) -> Result<Option<TenantRecord>> {
    let row = sqlx::query(select_tenants!("WHERE tenant = $1"))
        .bind(tenant.as_str())
        .fetch_optional(db)
        .await
        .map_err(failed)?;
    row.as_ref().map(tenant_record).transpose()
}

pub(super) async fn page(db: &mut PgConnection, after: Option<&TenantId>, limit: u32) -> Result<Vec<TenantRecord>> {
    let rows = sqlx::query(select_tenants!("WHERE tenant > $1 ORDER BY tenant LIMIT $2"))
        .bind(after.map_or("", TenantId::as_str))
        .bind(i64::from(limit))
        .fetch_all(db)
        .await
        .map_err(failed)?;
    rows.iter().map(tenant_record).collect()
}

pub(super) async fn insert(db: &mut PgConnection, record: &TenantRecord) -> Result<()> {
    sqlx::query(
        "INSERT INTO tenants (tenant, policy, revocations, erasures, rewrap, enrolled_at, epoch)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(record.tenant.as_str())
    .bind(to_text(&record.policy)?)
    .bind(to_text(&record.revocations)?)
    .bind(to_text(&record.erasures)?)
    .bind(record.rewrap.as_ref().map(to_text).transpose()?)
    .bind(record.enrolled_at)
    .bind(signed(record.epoch)?)
    .execute(db)
    .await
    .map(|_| ())
    .map_err(|e| refused_or_failed(TENANT_EXISTS, e))
}

pub(super) async fn update(db: &mut PgConnection, record: &TenantRecord, change: &Change) -> Result<()> {
    let mut tx = db.begin().await.map_err(failed)?;
    let done = sqlx::query(
        "UPDATE tenants SET policy = $2, revocations = $3, erasures = $4, rewrap = $5, epoch = $6
         WHERE tenant = $1 AND epoch = $6 - 1",
    )
    .bind(record.tenant.as_str())
    .bind(to_text(&record.policy)?)
    .bind(to_text(&record.revocations)?)
    .bind(to_text(&record.erasures)?)
    .bind(record.rewrap.as_ref().map(to_text).transpose()?)
    .bind(signed(record.epoch)?)
    .execute(&mut *tx)
    .await
    .map_err(failed)?;
    if done.rows_affected() != 1 {
        return Err(conflict(STALE_TENANT));
    }
    log(&mut tx, change).await?;
    tx.commit().await.map_err(failed)
}

pub(super) async fn log(db: &mut PgConnection, change: &Change) -> Result<()> {
    if change.forget == Forget::Nothing {
        return Ok(());
    }
    sqlx::query(LOG_CHANGE)
        .bind(change.tenant.as_str())
        .bind(to_text(&change.selector)?)
        .bind(forget_to_text(change.forget))
        .bind(LOG)
        .bind(CHANNEL)
        .execute(db)
        .await
        .map(|_| ())
        .map_err(failed)
}

pub(super) async fn changes(db: &mut PgConnection, after: Option<u64>, limit: u32) -> Result<Changes> {
    let last: i64 = sqlx::query_scalar("SELECT seq FROM log_end").fetch_one(&mut *db).await.map_err(failed)?;
    let upto = unsigned(last)?;
    let missed = match Changes::missed(after, upto, limit) {
        Ok(missed) => missed,
        Err(answer) => return Ok(answer),
    };
    let rows = sqlx::query("SELECT tenant, selector, forget FROM changes WHERE seq > $1 AND seq <= $2 ORDER BY seq")
        .bind(signed(upto - missed)?)
        .bind(last)
        .fetch_all(db)
        .await
        .map_err(failed)?;
    Ok(Changes::read(rows.iter().map(change).collect::<Result<_>>()?, missed, upto))
}
