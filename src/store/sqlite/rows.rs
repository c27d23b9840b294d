//! Reading and writing rows, and the log.

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Connection as _, Row as _, Sqlite};

use crate::error::{Error, Result};
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::row_digest::RowDigest;
use crate::key::scope::Scope;
use crate::store::LogEntry;
use crate::store::row::{KeyIndex, Put, RowChange, RowKey, Write, check_length, period_to_text, signed};
use crate::store::sqlite::session::failed;

/// How many entries the log keeps.
const LOG: i64 = 10_000;

/// The statements for one row of a table. Each ends with the columns of its key.
struct Statements {
    get: &'static str,
    digest: &'static str,
    /// Adds a row with digest and bytes (a data key's after its index), or does nothing where there is one.
    insert: &'static str,
    /// Puts digest and bytes (a data key's after its index) in the place of the row of a digest.
    update: &'static str,
    /// Takes away the row of a digest.
    remove: &'static str,
}

macro_rules! statements {
    ($table:literal, $columns:literal = $key:literal $(, $index:literal = $set:literal, $values:literal)?) => {
        Statements {
            get: concat!("SELECT row FROM ", $table, " WHERE (", $columns, ") = (", $key, ")"),
            digest: concat!("SELECT digest FROM ", $table, " WHERE (", $columns, ") = (", $key, ")"),
            insert: concat!(
                "INSERT INTO ", $table, " (", $($index, ", ",)? "digest, row, ", $columns, ") VALUES (",
                $($values, ", ",)? "?, ?, ", $key, ") ON CONFLICT DO NOTHING"
            ),
            update: concat!(
                "UPDATE OR IGNORE ", $table, " SET ", $($set, ", ",)? "digest = ?, row = ? WHERE digest = ? AND (",
                $columns, ") = (", $key, ")"
            ),
            remove: concat!("DELETE FROM ", $table, " WHERE digest = ? AND (", $columns, ") = (", $key, ")"),
        }
    };
}

const SINGLE_ROWS: Statements = statements!("single_rows", "name" = "?");
const TENANTS: Statements = statements!("tenants", "tenant" = "?");
const DATA_KEYS: Statements = statements!(
    "data_keys",
    "tenant, key_id" = "?, ?",
    "scope, period, state" = "scope = ?, period = ?, state = ?",
    "?, ?, ?"
);
const JOURNAL: Statements = statements!("journal", "tenant, seq" = "?, ?");
const KEKS: Statements = statements!("keks", "kek" = "?");

impl Statements {
    fn of(key: &RowKey) -> &'static Self {
        match key {
            RowKey::Room | RowKey::Fleet => &SINGLE_ROWS,
            RowKey::Tenant(_) => &TENANTS,
            RowKey::Key(..) => &DATA_KEYS,
            RowKey::Journal(..) => &JOURNAL,
            RowKey::Kek(_) => &KEKS,
        }
    }
}

type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

fn bind_key<'q>(query: Statement<'q>, key: &'q RowKey) -> Statement<'q> {
    match key {
        RowKey::Room => query.bind("room"),
        RowKey::Fleet => query.bind("fleet"),
        RowKey::Tenant(tenant) => query.bind(tenant.as_str()),
        RowKey::Key(tenant, id) => query.bind(tenant.as_str()).bind(id.as_bytes().as_slice()),
        RowKey::Journal(tenant, number) => query.bind(tenant.as_str()).bind(signed(*number)),
        RowKey::Kek(kek) => query.bind(kek.as_str()),
    }
}

fn bind_index<'q>(query: Statement<'q>, index: Option<&'q KeyIndex>) -> Statement<'q> {
    match index {
        None => query,
        Some(index) => {
            query.bind(index.scope.to_bytes()).bind(period_to_text(index.period.as_ref())).bind(index.state.as_str())
        }
    }
}

fn unreadable(e: sqlx::Error) -> Error {
    Error::malformed("a column of a stored row does not read").with_source(e)
}

pub(super) async fn get(db: &mut SqliteConnection, key: &RowKey) -> Result<Option<Vec<u8>>> {
    let row = bind_key(sqlx::query(Statements::of(key).get), key).fetch_optional(db).await.map_err(failed)?;
    row.map(|row| row.try_get(0).map_err(unreadable)).transpose()
}

/// Several rows, on one connection.
pub(super) async fn get_many(db: &mut SqliteConnection, keys: &[RowKey]) -> Result<Vec<Option<Vec<u8>>>> {
    let mut rows = Vec::with_capacity(keys.len());
    for key in keys {
        rows.push(get(db, key).await?);
    }
    Ok(rows)
}

pub(super) async fn active(
    db: &mut SqliteConnection,
    tenant: &TenantId,
    scope: &Scope,
    period: Option<&PeriodLabel>,
) -> Result<Option<(KeyId, Vec<u8>)>> {
    const ACTIVE: &str =
        "SELECT key_id, row FROM data_keys WHERE tenant = ? AND scope = ? AND period = ? AND state = 'active'";
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

/// A listed row. One without bytes is listed all the same, so that whoever reads it names it.
fn bytes_of(row: &SqliteRow) -> Vec<u8> {
    row.try_get(1).unwrap_or_default()
}

/// Goes on behind names that cannot be one, so that an empty page is the end. Names are read as bytes: they may be no text.
pub(super) async fn tenants(
    db: &mut SqliteConnection,
    after: Option<&TenantId>,
    limit: u32,
) -> Result<Vec<(TenantId, Vec<u8>)>> {
    const TENANTS: &str = "SELECT CAST(tenant AS BLOB), row FROM tenants
        WHERE tenant > CAST(? AS TEXT) ORDER BY tenant LIMIT ?";
    let mut after = after.map_or("", TenantId::as_str).as_bytes().to_vec();
    let limit = limit as usize;
    let mut found = Vec::new();
    loop {
        let wanted = limit - found.len();
        let rows =
            sqlx::query(TENANTS).bind(&*after).bind(signed(wanted as u64)).fetch_all(&mut *db).await.map_err(failed)?;
        for row in &rows {
            after = row.try_get(0).map_err(unreadable)?;
            let tenant = std::str::from_utf8(&after).ok().and_then(|name| TenantId::new(name).ok());
            found.extend(tenant.map(|tenant| (tenant, bytes_of(row))));
        }
        if rows.len() < wanted || found.len() == limit {
            return Ok(found);
        }
    }
}

pub(super) async fn keys(
    db: &mut SqliteConnection,
    tenant: &TenantId,
    after: Option<&KeyId>,
    limit: u32,
) -> Result<Vec<(KeyId, Vec<u8>)>> {
    const KEYS: &str = "SELECT key_id, row FROM data_keys
        WHERE tenant = ? AND key_id > ? AND length(key_id) = 32 ORDER BY key_id LIMIT ?";
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
        Some((KeyId::from_bytes(id), bytes_of(row)))
    });
    Ok(keys.collect())
}

pub(super) async fn journal(
    db: &mut SqliteConnection,
    tenant: &TenantId,
    after: u64,
    limit: u32,
) -> Result<Vec<(u64, Vec<u8>)>> {
    let rows = sqlx::query("SELECT seq, row FROM journal WHERE tenant = ? AND seq > ? ORDER BY seq LIMIT ?")
        .bind(tenant.as_str())
        .bind(signed(after))
        .bind(i64::from(limit))
        .fetch_all(db)
        .await
        .map_err(failed)?;
    let entries = rows.iter().filter_map(|row| {
        let number = u64::try_from(row.try_get::<i64, _>(0).ok()?).ok()?;
        Some((number, bytes_of(row)))
    });
    Ok(entries.collect())
}

/// All of it, or nothing. The transaction has the write lock from its start: it cannot fail half-way because another one wrote.
pub(super) async fn put(db: &mut SqliteConnection, writes: &[Write], entry: Option<LogEntry<'_>>) -> Result<Put> {
    let mut tx = db.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    let mut against = Vec::new();
    for (at, write) in writes.iter().enumerate() {
        against.extend((!write_one(&mut tx, write).await?).then_some(at));
    }
    if !against.is_empty() {
        tx.rollback().await.map_err(failed)?;
        return Ok(Put::Conflict(against));
    }
    let number = match entry {
        Some(entry) => Some(add(&mut tx, entry).await?),
        None => None,
    };
    tx.commit().await.map_err(failed)?;
    Ok(Put::Written(number))
}

/// Says whether the row had the version that was expected, and no other Active key stood against it.
async fn write_one(db: &mut SqliteConnection, write: &Write) -> Result<bool> {
    let statements = Statements::of(&write.key);
    let expected = write.expected.as_ref().map(|digest| digest.as_bytes().as_slice());
    let (bytes, index) = match &write.change {
        RowChange::Put(bytes, index) => (bytes, index),
        RowChange::Remove => {
            let query = sqlx::query(statements.remove).bind(expected);
            let done = bind_key(query, &write.key).execute(db).await.map_err(failed)?;
            return Ok(done.rows_affected() == 1);
        }
        RowChange::Keep => {
            let row = bind_key(sqlx::query(statements.digest), &write.key).fetch_optional(db).await.map_err(failed)?;
            let digest = row.map(|row| row.try_get::<Vec<u8>, _>(0)).transpose().map_err(unreadable)?;
            return Ok(digest.as_deref() == expected);
        }
    };
    let digest = RowDigest::of(bytes);
    let query = sqlx::query(if expected.is_none() { statements.insert } else { statements.update });
    let query = bind_index(query, index.as_ref()).bind(digest.as_bytes().as_slice()).bind(bytes);
    let query = match expected {
        None => query,
        Some(expected) => query.bind(expected),
    };
    let done = bind_key(query, &write.key).execute(db).await.map_err(failed)?;
    Ok(done.rows_affected() == 1)
}

async fn add(db: &mut SqliteConnection, entry: LogEntry<'_>) -> Result<u64> {
    let seq: i64 = sqlx::query_scalar("UPDATE log_end SET seq = seq + 1 RETURNING seq")
        .fetch_one(&mut *db)
        .await
        .map_err(failed)?;
    let number = unsigned(seq)?;
    let entry = entry(number);
    check_length(&entry)?;
    sqlx::query("INSERT INTO changes (seq, entry) VALUES (?, ?)")
        .bind(seq)
        .bind(entry)
        .execute(&mut *db)
        .await
        .map_err(failed)?;
    sqlx::query("DELETE FROM changes WHERE seq <= ?").bind(seq - LOG).execute(db).await.map_err(failed)?;
    Ok(number)
}

/// A number that no writer of ours makes negative.
fn unsigned(stored: i64) -> Result<u64> {
    u64::try_from(stored).map_err(|_| Error::malformed("the number of a log entry is negative"))
}

/// What a reading of the log gives, apart from the file's identity.
pub(super) struct LogRows {
    pub(super) entries: Vec<(u64, Vec<u8>)>,
    pub(super) end: u64,
    pub(super) fleet: Option<Vec<u8>>,
    pub(super) name: String,
}

/// Entries after `after`, the earliest `limit` of them, the log's end and the store's name, by one statement: one view of the file.
pub(super) async fn log(db: &mut SqliteConnection, after: Option<u64>, limit: u32) -> Result<LogRows> {
    const READ: &str = "SELECT log_end.seq, store_identity.id, newer.seq, newer.entry,
            (SELECT row FROM single_rows WHERE name = 'fleet') FROM log_end, store_identity
        LEFT JOIN (SELECT seq, entry FROM changes WHERE seq > ? ORDER BY seq LIMIT ?) AS newer ORDER BY newer.seq";
    let rows = sqlx::query(READ)
        .bind(signed(after.unwrap_or(u64::MAX)))
        .bind(i64::from(limit))
        .fetch_all(db)
        .await
        .map_err(failed)?;
    let [first, ..] = rows.as_slice() else {
        return Err(Error::malformed("the key store does not say which it is; restore its table store_identity"));
    };
    let end = unsigned(first.try_get(0).map_err(unreadable)?)?;
    let name = first.try_get(1).map_err(unreadable)?;
    let fleet = first.try_get(4).map_err(unreadable)?;
    let mut entries = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(seq) = row.try_get(2).map_err(unreadable)? {
            entries.push((unsigned(seq)?, row.try_get(3).map_err(unreadable)?));
        }
    }
    Ok(LogRows { entries, end, fleet, name })
}
