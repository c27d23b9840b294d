//! Data keys in PostgreSQL.

use sqlx::Connection;
use sqlx::postgres::{PgConnection, PgRow};

use crate::error::{Error, ErrorKind, Result};
use crate::key::id::{KeyId, TenantId};
use crate::key::record::KeyRecord;
use crate::key::scope::Scope;
use crate::store::postgres::session::{column, failed, refused_or_failed};
use crate::store::row::{KeyColumns, pending_to_text, period_to_text, signed, unsigned, wrapped_to_text};
use crate::store::{KEY_EXISTS, NOT_ACTIVE, Placed, STALE_EPOCH, conflict};

/// How often an Active key may come and go while one is being inserted.
const TRIES: u32 = 5;

// Columns by name: a node of this version goes on reading when a later one adds some.
macro_rules! select_keys {
    ($which:literal) => {
        concat!(
            "SELECT tenant, key_id, suite, scope, period, region, state, state_since, wrapped, pending, wrapped_epoch,
             created_at, revision FROM data_keys ",
            $which
        )
    };
}

/// Inserts in one statement if the tenant is at the record's epoch, which nobody can change until this has committed.
const INSERT_KEY: &str = "
    WITH enrolled AS (
        SELECT epoch FROM tenants WHERE tenant = $1 FOR SHARE
    ), placed AS (
        INSERT INTO data_keys (tenant, key_id, suite, scope, period, region, state, state_since, wrapped, pending,
            wrapped_epoch, created_at, revision)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13 FROM enrolled WHERE epoch = $11
        ON CONFLICT (tenant, scope, period) WHERE state = 'active' DO NOTHING
        RETURNING 1
    )
    SELECT (SELECT epoch FROM enrolled) AS epoch, EXISTS (SELECT FROM placed) AS placed";

fn key_record(row: &PgRow) -> Result<KeyRecord> {
    KeyColumns {
        tenant: column(row, "tenant")?,
        key_id: column(row, "key_id")?,
        suite: column::<i16>(row, "suite")?.into(),
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

pub(super) async fn find(db: &mut PgConnection, tenant: &TenantId, key_id: &KeyId) -> Result<Option<KeyRecord>> {
    let row = sqlx::query(select_keys!("WHERE tenant = $1 AND key_id = $2"))
        .bind(tenant.as_str())
        .bind(key_id.as_bytes().as_slice())
        .fetch_optional(db)
        .await
        .map_err(failed)?;
    row.as_ref().map(key_record).transpose()
}

pub(super) async fn page(
    db: &mut PgConnection,
    tenant: &TenantId,
    after: Option<&KeyId>,
    limit: u32,
) -> Result<Vec<KeyRecord>> {
    let after: &[u8] = after.map_or(&[], |id| id.as_bytes());
    let rows = sqlx::query(select_keys!("WHERE tenant = $1 AND key_id > $2 ORDER BY key_id LIMIT $3"))
        .bind(tenant.as_str())
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(db)
        .await
        .map_err(failed)?;
    rows.iter().map(key_record).collect()
}

pub(super) async fn find_active(
    db: &mut PgConnection,
    tenant: &TenantId,
    scope: &Scope,
    period: &str,
) -> Result<Option<KeyRecord>> {
    let row = sqlx::query(select_keys!("WHERE tenant = $1 AND scope = $2 AND period = $3 AND state = 'active'"))
        .bind(tenant.as_str())
        .bind(scope.to_bytes())
        .bind(period)
        .fetch_optional(db)
        .await
        .map_err(failed)?;
    row.as_ref().map(key_record).transpose()
}

/// What came of an insertion.
enum Inserted {
    Placed,
    /// The scope has an Active key, as far as this statement saw.
    Taken,
    Refused(Error),
}

async fn insert(db: &mut PgConnection, record: &KeyRecord) -> Result<Inserted> {
    let done: Result<(Option<i64>, bool), _> = sqlx::query_as(INSERT_KEY)
        .bind(record.tenant.as_str())
        .bind(record.key_id.as_bytes().as_slice())
        .bind(i16::from(record.suite.byte()))
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
        .fetch_one(db)
        .await;
    let (epoch, placed) = match done {
        Ok(done) => done,
        Err(e) => match refused_or_failed(KEY_EXISTS, e) {
            refused if refused.kind() == ErrorKind::Conflict => return Ok(Inserted::Refused(refused)),
            e => return Err(e),
        },
    };
    Ok(match epoch.map(unsigned).transpose()? {
        _ if placed => Inserted::Placed,
        Some(epoch) if epoch == record.wrapped_epoch => Inserted::Taken,
        Some(_) => Inserted::Refused(conflict(STALE_EPOCH)),
        None => Inserted::Refused(conflict(KEY_EXISTS)),
    })
}

/// No transaction around it: the insertion is one statement, so losing leaves nothing to roll back, and what it lost
/// against is read with a new view of the database.
pub(super) async fn insert_active(db: &mut PgConnection, record: &KeyRecord) -> Result<Placed> {
    let period = period_to_text(record.period.as_ref());
    for _ in 0..TRIES {
        let inserted = insert(db, record).await?;
        if matches!(inserted, Inserted::Placed) {
            return Ok(Placed::New);
        }
        if let Some(existing) = find_active(db, &record.tenant, &record.scope, period).await? {
            return Ok(Placed::Existing(Box::new(existing)));
        }
        if let Inserted::Refused(e) = inserted {
            return Err(e);
        }
        // The Active key went between the two statements.
    }
    Err(Error::new(ErrorKind::Unavailable, "the scope's Active key comes and goes; retry"))
}

pub(super) async fn succeed(db: &mut PgConnection, old: &KeyId, successor: &KeyRecord) -> Result<Placed> {
    let period = period_to_text(successor.period.as_ref());
    let mut tx = db.begin().await.map_err(failed)?;
    // Whoever else would succeed it waits here for the end of this transaction, and then finds it Deactivated.
    let locked = sqlx::query(
        "UPDATE data_keys SET state = 'deactivated', state_since = $3, revision = revision + 1
         WHERE tenant = $1 AND key_id = $2 AND state = 'active' AND scope = $4 AND period = $5",
    )
    .bind(successor.tenant.as_str())
    .bind(old.as_bytes().as_slice())
    .bind(successor.created_at)
    .bind(successor.scope.to_bytes())
    .bind(period)
    .execute(&mut *tx)
    .await
    .map_err(failed)?;
    if locked.rows_affected() == 0 {
        let active = find_active(&mut tx, &successor.tenant, &successor.scope, period).await?;
        return active.map(|active| Placed::Existing(Box::new(active))).ok_or_else(|| conflict(NOT_ACTIVE));
    }
    match insert(&mut tx, successor).await? {
        Inserted::Placed => tx.commit().await.map_err(failed).map(|()| Placed::New),
        Inserted::Refused(e) => Err(e), // rolled back: the old key stays Active
        Inserted::Taken => Err(conflict(NOT_ACTIVE)),
    }
}

/// All in one transaction; of each, whether it was written.
pub(super) async fn update(db: &mut PgConnection, records: &[KeyRecord]) -> Result<Vec<bool>> {
    let mut tx = db.begin().await.map_err(failed)?;
    lock(&mut tx, records).await?;
    let mut written = Vec::with_capacity(records.len());
    for record in records {
        written.push(update_one(&mut tx, record).await?);
    }
    tx.commit().await.map_err(failed)?;
    Ok(written)
}

/// Locks the rows in the order of their ids, whatever the order of the records: two batches that share some would each wait
/// for the other's.
async fn lock(db: &mut PgConnection, records: &[KeyRecord]) -> Result<()> {
    if records.len() < 2 {
        return Ok(());
    }
    let (tenants, key_ids): (Vec<_>, Vec<_>) =
        records.iter().map(|record| (record.tenant.as_str(), record.key_id.as_bytes().as_slice())).unzip();
    sqlx::query(
        "SELECT FROM data_keys WHERE (tenant, key_id) IN (SELECT * FROM unnest($1::text[], $2::bytea[]))
         ORDER BY tenant, key_id FOR NO KEY UPDATE",
    )
    .bind(tenants)
    .bind(key_ids)
    .execute(db)
    .await
    .map(|_| ())
    .map_err(failed)
}

async fn update_one(db: &mut PgConnection, record: &KeyRecord) -> Result<bool> {
    // A second Active key is seen before the index refuses it, which would end the whole transaction. Where another
    // transaction is about to write one, the index does refuse: then all of this one is done again.
    let done = sqlx::query(
        "UPDATE data_keys SET state = $3, state_since = $4, wrapped = $5, pending = $6, wrapped_epoch = $7, revision = $8
         WHERE tenant = $1 AND key_id = $2 AND revision = $8 - 1 AND state <> 'destroyed'
         AND ($3 <> 'active' OR state = 'active' OR NOT EXISTS (
             SELECT FROM data_keys AS other WHERE other.tenant = data_keys.tenant AND other.scope = data_keys.scope
             AND other.period = data_keys.period AND other.state = 'active'))",
    )
    .bind(record.tenant.as_str())
    .bind(record.key_id.as_bytes().as_slice())
    .bind(record.state.as_str())
    .bind(record.state_since)
    .bind(wrapped_to_text(record.wrapped.as_ref())?)
    .bind(pending_to_text(record.pending.as_ref())?)
    .bind(signed(record.wrapped_epoch)?)
    .bind(signed(record.revision)?)
    .execute(db)
    .await
    .map_err(failed)?;
    Ok(done.rows_affected() == 1)
}
