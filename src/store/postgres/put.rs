//! Writing rows: all of a call, or nothing.
//!
//! First all rows that a call names are locked, in one order for all callers, and their versions compared; then they are written.
//! A row that is yet to be there has nothing to lock: it is inserted instead, which waits for whoever is inserting the same. Only
//! data keys are inserted later, since one may take the Active state that another leaves.

use std::collections::HashSet;

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

use crate::error::Result;
use crate::key::id::{KeyId, TenantId};
use crate::key::row_digest::RowDigest;
use crate::key::state::KeyState;
use crate::store::LogEntry;
use crate::store::postgres::log;
use crate::store::postgres::rows::{Statements, query};
use crate::store::postgres::session::failed;
use crate::store::row::{KeyIndex, Put, RowChange, RowKey, Write, period_to_text};

/// A write and its place among the writes of the call.
type Placed<'w> = (usize, &'w Write);

pub(super) async fn put(db: &mut PgConnection, writes: &[Write], entry: Option<LogEntry<'_>>) -> Result<Put> {
    let mut tx = db.begin().await.map_err(failed)?;
    let mut ordered: Vec<Placed<'_>> = writes.iter().enumerate().collect();
    ordered.sort_unstable_by(|(_, one), (_, other)| one.key.cmp(&other.key));
    let mut against = lock(&mut tx, &ordered).await?;
    if against.is_empty() {
        against = write(&mut tx, &ordered).await?;
    }
    if !against.is_empty() {
        tx.rollback().await.map_err(failed)?;
        against.sort_unstable();
        return Ok(Put::Conflict(against));
    }
    // Last, since whoever adds an entry waits from here to the commit.
    let number = match entry {
        Some(entry) => Some(log::add(&mut tx, entry).await?),
        None => None,
    };
    tx.commit().await.map_err(failed)?;
    Ok(Put::Written(number))
}

/// How a row is locked before anything is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// Others may rely on it too.
    Shared,
    Exclusive,
    /// There must be no row, nor may one come.
    Absence,
    /// There must be no row: this one is inserted.
    Insertion,
}

impl Lock {
    fn of(write: &Write) -> Self {
        // Rows of which a store has one are there also while they are empty.
        let single = matches!(write.key, RowKey::Room | RowKey::Fleet);
        match (&write.change, &write.expected) {
            (RowChange::Keep, None) if !single => Self::Absence,
            (RowChange::Keep, _) => Self::Shared,
            (RowChange::Put(..), None) => Self::Insertion,
            (RowChange::Put(..), Some(_)) | (RowChange::Remove, _) => Self::Exclusive,
        }
    }
}

/// Locks the rows, and gives the places of those that have another version than expected.
async fn lock(db: &mut PgConnection, ordered: &[Placed<'_>]) -> Result<Vec<usize>> {
    let mut against = Vec::new();
    let batch = |one: &Placed<'_>, other: &Placed<'_>| {
        let keys = matches!((&one.1.key, &other.1.key), (RowKey::Key(..), RowKey::Key(..)));
        keys && Lock::of(one.1) == Lock::of(other.1)
    };
    for run in ordered.chunk_by(batch) {
        let Some((at, write)) = run.first() else { continue };
        let (key, expected) = (&write.key, bytes_of(write.expected.as_ref()));
        match (Lock::of(write), &write.change) {
            (Lock::Insertion, _) if matches!(key, RowKey::Key(..)) => {} // with the writes
            (Lock::Insertion, RowChange::Put(bytes, _)) => {
                against.extend((!insert(db, key, bytes).await?).then_some(*at));
            }
            (Lock::Absence, _) => {
                for (at, write) in run {
                    against.extend((!hold_absence(db, &write.key).await?).then_some(*at));
                }
            }
            (kind, _) if run.len() > 1 => against.extend(lock_keys(db, run, kind).await?),
            (kind, _) => against.extend((digest(db, key, kind).await?.as_deref() != expected).then_some(*at)),
        }
    }
    Ok(against)
}

fn bytes_of(digest: Option<&RowDigest>) -> Option<&[u8]> {
    digest.map(|digest| digest.as_bytes().as_slice())
}

/// Locks a row and gives its digest.
async fn digest(db: &mut PgConnection, key: &RowKey, kind: Lock) -> Result<Option<Vec<u8>>> {
    let statements = Statements::of(key);
    let statement = if kind == Lock::Shared { statements.keep } else { statements.lock };
    let row = query(statement, key).fetch_optional(db).await.map_err(failed)?;
    row.map_or(Ok(None), |row| row.try_get(0).map_err(failed))
}

/// Says whether there was none.
async fn insert(db: &mut PgConnection, key: &RowKey, bytes: &[u8]) -> Result<bool> {
    let digest = RowDigest::of(bytes);
    let query = query(Statements::of(key).insert, key).bind(digest.as_bytes().as_slice()).bind(bytes);
    let done = query.execute(db).await.map_err(failed)?;
    Ok(done.rows_affected() == 1)
}

/// Keeps a row from coming into being: whoever would insert it waits for the end of this transaction. Says whether there is none.
async fn hold_absence(db: &mut PgConnection, key: &RowKey) -> Result<bool> {
    let absent = insert(db, key, &[]).await?;
    if absent {
        query(Statements::of(key).delete, key).execute(db).await.map_err(failed)?;
    }
    Ok(absent)
}

/// Columns of keys, an array each.
fn ids<'w>(of: &[(usize, &'w Write)]) -> (Vec<&'w str>, Vec<&'w [u8]>) {
    let id = |(_, write): &(usize, &'w Write)| match &write.key {
        RowKey::Key(tenant, id) => Some((tenant.as_str(), id.as_bytes().as_slice())),
        _ => None,
    };
    of.iter().filter_map(id).unzip()
}

/// Locks many data keys with one statement, in their order.
async fn lock_keys(db: &mut PgConnection, run: &[Placed<'_>], kind: Lock) -> Result<Vec<usize>> {
    macro_rules! lock {
        ($mode:literal) => {
            concat!(
                "SELECT tenant, key_id, digest FROM data_keys
                 WHERE (tenant, key_id) IN (SELECT * FROM unnest($1::text[], $2::bytea[])) ORDER BY tenant, key_id FOR ",
                $mode
            )
        };
    }
    let statement = if kind == Lock::Shared { lock!("SHARE") } else { lock!("NO KEY UPDATE") };
    let (tenants, key_ids) = ids(run);
    let rows = sqlx::query(statement).bind(tenants).bind(key_ids).fetch_all(db).await.map_err(failed)?;
    let mut found = HashSet::with_capacity(rows.len());
    for row in &rows {
        let column = |at: usize| row.try_get::<&[u8], _>(at).map_err(failed);
        found.insert((row.try_get::<&str, _>(0).map_err(failed)?, column(1)?, column(2)?));
    }
    let (tenants, key_ids) = ids(run);
    let versions = tenants.into_iter().zip(key_ids).zip(run).filter_map(|((tenant, id), (at, write))| {
        let expected = bytes_of(write.expected.as_ref())?;
        (!found.contains(&(tenant, id, expected))).then_some(*at)
    });
    Ok(versions.collect())
}

/// Writes the rows, which are locked, and gives the places of data keys that others were first to insert, or that would be a second
/// Active one.
async fn write(db: &mut PgConnection, ordered: &[Placed<'_>]) -> Result<Vec<usize>> {
    let mut against = Vec::new();
    let mut keys = Vec::new();
    // First, so that another key may take the Active state of one that goes.
    let gone: Vec<Placed<'_>> =
        ordered.iter().filter(|(_, write)| write.change == RowChange::Remove).copied().collect();
    against.extend(remove_keys(db, &gone).await?);
    for (at, write) in ordered {
        let expected = write.expected.as_ref();
        match (&write.key, &write.change, bytes_of(expected)) {
            (RowKey::Key(tenant, id), RowChange::Put(bytes, Some(index)), _) => {
                keys.push(KeyWrite { at: *at, tenant, id, expected, bytes, index });
            }
            (key, RowChange::Put(bytes, _), Some(expected)) => {
                let digest = RowDigest::of(bytes);
                let query = query(Statements::of(key).update, key).bind(digest.as_bytes().as_slice()).bind(bytes);
                let done = query.bind(expected).execute(&mut *db).await.map_err(failed)?;
                against.extend((done.rows_affected() == 0).then_some(*at));
            }
            _ => {} // kept, taken away, or inserted already
        }
    }
    against.extend(write_keys(db, keys).await?);
    Ok(against)
}

/// Takes data keys away, which are locked, and gives the places of those that are not there.
async fn remove_keys(db: &mut PgConnection, gone: &[Placed<'_>]) -> Result<Vec<usize>> {
    const REMOVE: &str = "
        DELETE FROM data_keys USING unnest($1::text[], $2::bytea[]) AS gone (tenant, key_id)
        WHERE data_keys.tenant = gone.tenant AND data_keys.key_id = gone.key_id
        RETURNING data_keys.tenant, data_keys.key_id";
    if gone.is_empty() {
        return Ok(Vec::new());
    }
    let (tenants, key_ids) = ids(gone);
    let rows = sqlx::query(REMOVE).bind(tenants).bind(key_ids).fetch_all(db).await.map_err(failed)?;
    let mut removed = HashSet::with_capacity(rows.len());
    for row in &rows {
        removed.insert((row.try_get::<&str, _>(0).map_err(failed)?, row.try_get::<&[u8], _>(1).map_err(failed)?));
    }
    let (tenants, key_ids) = ids(gone);
    let each = tenants.into_iter().zip(key_ids).zip(gone);
    Ok(each.filter(|(id, _)| !removed.contains(id)).map(|(_, (at, _))| *at).collect())
}

/// A data key to write.
struct KeyWrite<'w> {
    at: usize,
    tenant: &'w TenantId,
    id: &'w KeyId,
    expected: Option<&'w RowDigest>,
    bytes: &'w Vec<u8>,
    index: &'w KeyIndex,
}

impl KeyWrite<'_> {
    fn activates(&self) -> bool {
        self.index.state == KeyState::Active
    }
}

/// Most rows and bytes of one statement, which PostgreSQL has in memory as a whole; one row may have more.
const BATCH: (usize, usize) = (1_000, 8 << 20);

/// First those that leave the Active state, or have nothing to do with it: a put may take it from one and give it to another.
async fn write_keys(db: &mut PgConnection, mut keys: Vec<KeyWrite<'_>>) -> Result<Vec<usize>> {
    let mut taken = HashSet::new();
    let mut against: Vec<usize> = Vec::new();
    keys.sort_by_key(|key| key.at);
    for key in keys.iter().filter(|key| key.activates()) {
        let slot = (key.tenant, &key.index.scope, key.index.period.as_ref());
        against.extend((!taken.insert(slot)).then_some(key.at));
    }
    if !against.is_empty() {
        return Ok(against);
    }
    // Each kind in one order, of what others may insert too: two calls never wait for each other's.
    keys.sort_by_key(|key| {
        let slot = key.activates().then_some((&key.index.scope, &key.index.period));
        (key.activates(), key.expected.is_none(), key.tenant, slot, key.id)
    });
    let mut batch: Vec<KeyWrite<'_>> = Vec::new();
    let mut size = 0;
    for key in keys {
        let goes_on = batch.last().is_some_and(|last| {
            (last.activates(), last.expected.is_none()) == (key.activates(), key.expected.is_none())
                && batch.len() < BATCH.0
                && size < BATCH.1
        });
        if !goes_on {
            against.extend(write_batch(db, &std::mem::take(&mut batch)).await?);
            size = 0;
        }
        size += key.bytes.len();
        batch.push(key);
    }
    against.extend(write_batch(db, &batch).await?);
    Ok(against)
}

const INSERT_KEYS: &str = "
    INSERT INTO data_keys (tenant, key_id, scope, period, state, digest, row)
    SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::text[], $5::text[], $6::bytea[], $7::bytea[])
    ON CONFLICT DO NOTHING RETURNING tenant, key_id";

/// A second Active key is seen before the index refuses it, which would end the whole transaction. Where another transaction is
/// about to write one, the index does refuse: then all of this one is done again.
const UPDATE_KEYS: &str = "
    UPDATE data_keys AS old SET scope = new.scope, period = new.period, state = new.state, digest = new.digest, row = new.row
    FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::text[], $5::text[], $6::bytea[], $7::bytea[], $8::bytea[])
        AS new (tenant, key_id, scope, period, state, digest, row, expected)
    WHERE old.tenant = new.tenant AND old.key_id = new.key_id AND old.digest = new.expected
    AND (new.state <> 'active' OR NOT EXISTS (
        SELECT FROM data_keys AS other WHERE other.tenant = new.tenant AND other.scope = new.scope
        AND other.period = new.period AND other.state = 'active' AND other.key_id <> new.key_id))
    RETURNING old.tenant, old.key_id";

/// All of one kind; gives the places of those that were not written.
async fn write_batch(db: &mut PgConnection, keys: &[KeyWrite<'_>]) -> Result<Vec<usize>> {
    let Some(first) = keys.first() else { return Ok(Vec::new()) };
    let each = |column: fn(&KeyWrite<'_>) -> Vec<u8>| keys.iter().map(column).collect::<Vec<_>>();
    let query = sqlx::query(if first.expected.is_none() { INSERT_KEYS } else { UPDATE_KEYS })
        .bind(keys.iter().map(|key| key.tenant.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.id.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(each(|key| key.index.scope.to_bytes()))
        .bind(keys.iter().map(|key| period_to_text(key.index.period.as_ref())).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.index.state.as_str()).collect::<Vec<_>>())
        .bind(each(|key| RowDigest::of(key.bytes).as_bytes().to_vec()))
        .bind(keys.iter().map(|key| key.bytes.as_slice()).collect::<Vec<_>>());
    let query = if first.expected.is_none() {
        query
    } else {
        query.bind(keys.iter().filter_map(|key| bytes_of(key.expected)).collect::<Vec<_>>())
    };
    let rows = query.fetch_all(db).await.map_err(failed)?;
    let mut written = HashSet::with_capacity(rows.len());
    for row in &rows {
        written.insert((row.try_get::<&str, _>(0).map_err(failed)?, row.try_get::<&[u8], _>(1).map_err(failed)?));
    }
    let missing = keys.iter().filter(|key| !written.contains(&(key.tenant.as_str(), key.id.as_bytes().as_slice())));
    Ok(missing.map(|key| key.at).collect())
}
