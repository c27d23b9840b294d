//! Reading rows, and the statements for one row of each table.

use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;
use sqlx::{Postgres, Row as _};

use crate::error::{Error, Result};
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::scope::Scope;
use crate::store::postgres::session::failed;
use crate::store::row::{RowKey, period_to_text, signed};

/// The statements for one row of a table. Each begins with the columns of its key.
pub(super) struct Statements {
    get: &'static str,
    /// The digest of a row that nobody changes until the transaction ends.
    pub(super) keep: &'static str,
    /// The digest of a row that nobody else changes, nor relies on, until the transaction ends.
    pub(super) lock: &'static str,
    /// Adds a row with digest and bytes, or does nothing where there is one.
    pub(super) insert: &'static str,
    /// Puts digest and bytes in the place of the row of a digest.
    pub(super) update: &'static str,
    /// Takes a row away again.
    pub(super) delete: &'static str,
}

macro_rules! statements {
    ($table:literal, $columns:literal = $values:literal, $digest:literal, $row:literal, $expected:literal) => {
        Statements {
            get: concat!("SELECT row FROM ", $table, " WHERE (", $columns, ") = (", $values, ")"),
            keep: concat!("SELECT digest FROM ", $table, " WHERE (", $columns, ") = (", $values, ") FOR SHARE"),
            lock: concat!("SELECT digest FROM ", $table, " WHERE (", $columns, ") = (", $values, ") FOR NO KEY UPDATE"),
            insert: concat!(
                "INSERT INTO ",
                $table,
                " (",
                $columns,
                ", digest, row) VALUES (",
                $values,
                ", ",
                $digest,
                ", ",
                $row,
                ") ON CONFLICT DO NOTHING"
            ),
            update: concat!(
                "UPDATE ",
                $table,
                " SET digest = ",
                $digest,
                ", row = ",
                $row,
                " WHERE (",
                $columns,
                ") = (",
                $values,
                ") AND digest = ",
                $expected
            ),
            delete: concat!("DELETE FROM ", $table, " WHERE (", $columns, ") = (", $values, ")"),
        }
    };
}

/// A row that is always there, and empty as long as there is none: it is never inserted, nor deleted.
const SINGLE_ROWS: Statements = Statements {
    insert: "UPDATE single_rows SET digest = $2, row = $3 WHERE name = $1 AND digest IS NULL",
    ..statements!("single_rows", "name" = "$1", "$2", "$3", "$4")
};
const TENANTS: Statements = statements!("tenants", "tenant" = "$1", "$2", "$3", "$4");
const DATA_KEYS: Statements = Statements {
    // Only to hold the place of a key that must not be there. Keys are written in batches.
    insert:
        "INSERT INTO data_keys (tenant, key_id, scope, period, state, digest, row) VALUES ($1, $2, '', '', '', $3, $4)
        ON CONFLICT DO NOTHING",
    ..statements!("data_keys", "tenant, key_id" = "$1, $2", "$3", "$4", "$5")
};
const JOURNAL: Statements = statements!("journal", "tenant, seq" = "$1, $2", "$3", "$4", "$5");
const KEKS: Statements = statements!("keks", "kek" = "$1", "$2", "$3", "$4");

impl Statements {
    pub(super) fn of(key: &RowKey) -> &'static Self {
        match key {
            RowKey::Room | RowKey::Fleet => &SINGLE_ROWS,
            RowKey::Tenant(_) => &TENANTS,
            RowKey::Key(..) => &DATA_KEYS,
            RowKey::Journal(..) => &JOURNAL,
            RowKey::Kek(_) => &KEKS,
        }
    }
}

/// A statement about one row, with the columns of its key bound.
pub(super) fn query<'q>(statement: &'static str, key: &'q RowKey) -> Query<'q, Postgres, PgArguments> {
    let query = sqlx::query(statement);
    match key {
        RowKey::Room => query.bind("room"),
        RowKey::Fleet => query.bind("fleet"),
        RowKey::Tenant(tenant) => query.bind(tenant.as_str()),
        RowKey::Key(tenant, id) => query.bind(tenant.as_str()).bind(id.as_bytes().as_slice()),
        RowKey::Journal(tenant, number) => query.bind(tenant.as_str()).bind(signed(*number)),
        RowKey::Kek(kek) => query.bind(kek.as_str()),
    }
}

fn unreadable(e: sqlx::Error) -> Error {
    Error::malformed("a column of a stored row does not read").with_source(e)
}

pub(super) async fn get(db: &mut PgConnection, key: &RowKey) -> Result<Option<Vec<u8>>> {
    let row = query(Statements::of(key).get, key).fetch_optional(db).await.map_err(failed)?;
    row.map_or(Ok(None), |row| row.try_get(0).map_err(unreadable))
}

/// Several rows, on one connection.
pub(super) async fn get_many(db: &mut PgConnection, keys: &[RowKey]) -> Result<Vec<Option<Vec<u8>>>> {
    let mut rows = Vec::with_capacity(keys.len());
    for key in keys {
        rows.push(get(db, key).await?);
    }
    Ok(rows)
}

pub(super) async fn active(
    db: &mut PgConnection,
    tenant: &TenantId,
    scope: &Scope,
    period: Option<&PeriodLabel>,
) -> Result<Option<(KeyId, Vec<u8>)>> {
    const ACTIVE: &str =
        "SELECT key_id, row FROM data_keys WHERE tenant = $1 AND scope = $2 AND period = $3 AND state = 'active'";
    let row = sqlx::query(ACTIVE)
        .bind(tenant.as_str())
        .bind(scope.to_bytes())
        .bind(period_to_text(period))
        .fetch_optional(db)
        .await
        .map_err(failed)?;
    let Some(row) = row else { return Ok(None) };
    let id: &[u8] = row.try_get(0).map_err(unreadable)?;
    // Not passed over: the scope would seem to have no key, and none could be made.
    let id = id.try_into().map_err(|_| Error::malformed("the id of the scope's Active key has not 32 bytes"))?;
    Ok(Some((KeyId::from_bytes(id), row.try_get(1).map_err(unreadable)?)))
}

/// Goes on behind names that cannot be one, so that an empty page is the end.
pub(super) async fn tenants(
    db: &mut PgConnection,
    after: Option<&TenantId>,
    limit: u32,
) -> Result<Vec<(TenantId, Vec<u8>)>> {
    let mut after = after.map_or("", TenantId::as_str).to_owned();
    let limit = limit as usize;
    let mut found = Vec::new();
    loop {
        let wanted = limit - found.len();
        let rows = sqlx::query("SELECT tenant, row FROM tenants WHERE tenant > $1 ORDER BY tenant LIMIT $2")
            .bind(&after)
            .bind(signed(wanted as u64))
            .fetch_all(&mut *db)
            .await
            .map_err(failed)?;
        for row in &rows {
            after = row.try_get(0).map_err(unreadable)?;
            // A row without bytes is listed all the same, so that whoever reads it names it.
            found.extend(TenantId::new(&after).map(|tenant| (tenant, row.try_get(1).unwrap_or_default())));
        }
        if rows.len() < wanted || found.len() == limit {
            return Ok(found);
        }
    }
}

pub(super) async fn keys(
    db: &mut PgConnection,
    tenant: &TenantId,
    after: Option<&KeyId>,
    limit: u32,
) -> Result<Vec<(KeyId, Vec<u8>)>> {
    const KEYS: &str = "SELECT key_id, row FROM data_keys
        WHERE tenant = $1 AND key_id > $2 AND length(key_id) = 32 ORDER BY key_id LIMIT $3";
    let after: &[u8] = after.map_or(&[], |id| id.as_bytes());
    let rows = sqlx::query(KEYS)
        .bind(tenant.as_str())
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(db)
        .await
        .map_err(failed)?;
    let keys = rows.iter().filter_map(|row| {
        let id = row.try_get::<&[u8], _>(0).ok()?.try_into().ok()?;
        Some((KeyId::from_bytes(id), row.try_get(1).unwrap_or_default()))
    });
    Ok(keys.collect())
}

pub(super) async fn journal(
    db: &mut PgConnection,
    tenant: &TenantId,
    after: u64,
    limit: u32,
) -> Result<Vec<(u64, Vec<u8>)>> {
    let rows = sqlx::query("SELECT seq, row FROM journal WHERE tenant = $1 AND seq > $2 ORDER BY seq LIMIT $3")
        .bind(tenant.as_str())
        .bind(signed(after))
        .bind(i64::from(limit))
        .fetch_all(db)
        .await
        .map_err(failed)?;
    let entries = rows.iter().filter_map(|row| {
        let number = u64::try_from(row.try_get::<i64, _>(0).ok()?).ok()?;
        Some((number, row.try_get(1).unwrap_or_default()))
    });
    Ok(entries.collect())
}
