//! What key stores cost where a key is not in hand: reading a key record, finding and creating the Active one, a rewrap's
//! page, and the log of changes, each beside a plain row of the same length in a SQLite file of the same settings.
//!
//! `cargo bench --bench store` prints, after criterion is through, a table of what it measured by turns. The files are on
//! the disk of the target directory: what is written is durable, and what that costs is the disk's. `PostgresKeyStore` is
//! not among them: it needs a server, and what it costs is mostly the way there and back.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod contest;
mod table;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use strongroom::{
    KeyId, KeyIndex, KeyState, KeyStore, MemoryKeyStore, Put, RowChange, RowDigest, RowKey, Scope, TenantId, Write,
};
use tokio::runtime::{Handle, Runtime};

use crate::contest::{Contest, timed, turns};

/// How many keys a store has before it is measured.
const KEYS: usize = 1_000;

/// How many key records a rewrap writes at a time here.
const PAGE: usize = 100;

/// As long as a key record's row with a data key that AWS KMS wrapped, about.
const ROW: [u8; 1_000] = [7; 1_000];

const PLAIN_READ: &str = "plain row read, SQLite";
const PLAIN_WRITE: &str = "plain row written, SQLite";

/// What the entries of one store are called.
struct Names {
    key: &'static str,
    active: &'static str,
    polled: &'static str,
    changes: &'static str,
    page: &'static str,
    insert: &'static str,
    update: &'static str,
}

const SQLITE: Names = Names {
    key: "SqliteKeyStore, get",
    active: "SqliteKeyStore, active",
    polled: "SqliteKeyStore, log, none",
    changes: "SqliteKeyStore, log, 100",
    page: "SqliteKeyStore, keys, 100",
    insert: "SqliteKeyStore, put, a new key",
    update: "SqliteKeyStore, put, 100 keys",
};

const MEMORY: Names = Names {
    key: "MemoryKeyStore, get",
    active: "MemoryKeyStore, active",
    polled: "MemoryKeyStore, log, none",
    changes: "MemoryKeyStore, log, 100",
    page: "MemoryKeyStore, keys, 100",
    insert: "MemoryKeyStore, put, a new key",
    update: "MemoryKeyStore, put, 100 keys",
};

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

/// A data key's row by its number, of a scope of its own.
#[derive(Clone)]
struct Numbered {
    id: KeyId,
    scope: Scope,
    bytes: Vec<u8>,
}

fn record(n: usize) -> Numbered {
    let mut id = [0; 32];
    // Ids are evenly spread, as hashes are, so that rows are not written in order.
    id[..8].copy_from_slice(&(n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    let scope = Scope::new(&[("workspace", "W1"), ("channel", &format!("C{n}"))]).unwrap();
    Numbered { id: KeyId::from_bytes(id), scope, bytes: ROW.to_vec() }
}

impl Numbered {
    /// What writes it over `expected`.
    fn write(&self, expected: Option<RowDigest>) -> Write {
        let index = KeyIndex { scope: self.scope.clone(), period: None, state: KeyState::Active };
        let change = RowChange::Put(self.bytes.clone(), Some(index));
        Write { key: RowKey::Key(tenant(), self.id), expected, change }
    }
}

/// What holds the tenant's row as it is while a key comes into being.
fn unchanged() -> Write {
    Write { key: RowKey::Tenant(tenant()), expected: Some(RowDigest::of(&ROW)), change: RowChange::Keep }
}

/// A tenant with [`KEYS`] keys and a page of the log.
async fn fill(store: &dyn KeyStore) {
    let row = Write { key: RowKey::Tenant(tenant()), expected: None, change: RowChange::Put(ROW.to_vec(), None) };
    assert_eq!(store.put(&[row], None).await.unwrap(), Put::Written(None));
    for n in 0..KEYS {
        assert_eq!(store.put(&[unchanged(), record(n).write(None)], None).await.unwrap(), Put::Written(None));
    }
    for n in 1..=PAGE as u64 {
        assert_eq!(store.put(&[], Some(&|_| ROW[..200].to_vec())).await.unwrap(), Put::Written(Some(n)));
    }
    assert_eq!(store.keys(&tenant(), None, 100).await.unwrap().len(), PAGE);
    assert_eq!(store.log(Some(0), 100).await.unwrap().entries.len(), PAGE);
}

/// The keys there are, in an order that no prefetcher guesses.
fn any_key() -> impl FnMut() -> Numbered {
    let records: Vec<Numbered> = (0..KEYS).map(record).collect();
    let mut at = 0;
    move || {
        at = (at + 619) % KEYS;
        records[at].clone()
    }
}

fn enter_reads(contest: &mut Contest, runtime: &Handle, store: &Arc<dyn KeyStore>, names: &Names) {
    let (by, on, mut next) = (Arc::clone(store), runtime.clone(), any_key());
    contest.enter(
        names.key,
        PLAIN_READ,
        timed(move || {
            let wanted = next();
            on.block_on(by.get(&RowKey::Key(tenant(), wanted.id))).unwrap().unwrap()
        }),
    );
    let (by, on, mut next) = (Arc::clone(store), runtime.clone(), any_key());
    contest.enter(
        names.active,
        PLAIN_READ,
        timed(move || {
            let wanted = next();
            on.block_on(by.active(&tenant(), &wanted.scope, None)).unwrap().unwrap()
        }),
    );
    // What each node asks once a second.
    let (by, on) = (Arc::clone(store), runtime.clone());
    let upto = on.block_on(by.log(None, 1)).unwrap().end;
    contest.enter(names.polled, PLAIN_READ, timed(move || on.block_on(by.log(Some(upto), 1_000)).unwrap()));
    let (by, on) = (Arc::clone(store), runtime.clone());
    let from = upto - PAGE as u64;
    contest.enter(names.changes, PLAIN_READ, timed(move || on.block_on(by.log(Some(from), 1_000)).unwrap()));
    let (by, on) = (Arc::clone(store), runtime.clone());
    contest.enter(names.page, PLAIN_READ, timed(move || on.block_on(by.keys(&tenant(), None, 100)).unwrap()));
}

fn enter_writes(contest: &mut Contest, runtime: &Handle, store: &Arc<dyn KeyStore>, names: &Names) {
    let (by, on, mut written) = (Arc::clone(store), runtime.clone(), KEYS);
    contest.enter(names.insert, PLAIN_WRITE, move |n| {
        let fresh: Vec<[Write; 2]> = (0..n)
            .map(|_| {
                written += 1;
                [unchanged(), record(written).write(None)]
            })
            .collect();
        let start = Instant::now();
        for writes in &fresh {
            assert_eq!(on.block_on(by.put(writes, None)).unwrap(), Put::Written(None));
        }
        start.elapsed()
    });
    let (by, on) = (Arc::clone(store), runtime.clone());
    let mut page: Vec<Numbered> = (0..PAGE).map(record).collect();
    contest.enter(
        names.update,
        PLAIN_WRITE,
        timed(move || {
            let over = |row: &mut Numbered| {
                let expected = RowDigest::of(&row.bytes);
                row.bytes[0] = row.bytes[0].wrapping_add(1);
                row.write(Some(expected))
            };
            let writes: Vec<Write> = page.iter_mut().map(over).collect();
            assert_eq!(on.block_on(by.put(&writes, None)).unwrap(), Put::Written(None));
        }),
    );
}

/// The same settings as `SqliteKeyStore`'s, one table, no index but its key's.
async fn plain(path: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    sqlx::query("CREATE TABLE plain (id BLOB NOT NULL PRIMARY KEY, content BLOB NOT NULL) STRICT, WITHOUT ROWID")
        .execute(&pool)
        .await
        .unwrap();
    for n in 0..KEYS {
        write_plain(&pool, &record(n).id).await;
    }
    pool
}

async fn read_plain(pool: &SqlitePool, id: &KeyId) -> Vec<u8> {
    sqlx::query_scalar("SELECT content FROM plain WHERE id = ?")
        .bind(id.as_bytes().as_slice())
        .fetch_one(pool)
        .await
        .unwrap()
}

async fn write_plain(pool: &SqlitePool, id: &KeyId) {
    let query = sqlx::query("INSERT INTO plain (id, content) VALUES (?, ?)");
    query.bind(id.as_bytes().as_slice()).bind(ROW.as_slice()).execute(pool).await.unwrap();
}

fn reads(runtime: &Handle, pool: &SqlitePool, stores: &[(Names, Arc<dyn KeyStore>)]) -> Contest {
    let mut contest = Contest::new("key stores, reading");
    let (pool, on, mut next) = (pool.clone(), runtime.clone(), any_key());
    contest.enter(PLAIN_READ, PLAIN_READ, timed(move || on.block_on(read_plain(&pool, &next().id))));
    for (names, store) in stores {
        enter_reads(&mut contest, runtime, store, names);
    }
    contest
}

fn writes(runtime: &Handle, pool: &SqlitePool, stores: &[(Names, Arc<dyn KeyStore>)]) -> Contest {
    let mut contest = Contest::new("key stores, writing, durable on SQLite");
    let (pool, on, mut written) = (pool.clone(), runtime.clone(), KEYS);
    contest.enter(
        PLAIN_WRITE,
        PLAIN_WRITE,
        timed(move || {
            written += 1;
            on.block_on(write_plain(&pool, &record(written).id));
        }),
    );
    for (names, store) in stores {
        enter_writes(&mut contest, runtime, store, names);
    }
    contest
}

fn main() {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (pool, stores) = runtime.block_on(async {
        let sqlite: Arc<dyn KeyStore> = Arc::new(strongroom::testing::sqlite(folder.path().join("keys.db")).await);
        let memory: Arc<dyn KeyStore> = Arc::new(MemoryKeyStore::default());
        fill(&*sqlite).await;
        fill(&*memory).await;
        (plain(&folder.path().join("plain.db")).await, [(SQLITE, sqlite), (MEMORY, memory)])
    });
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(20)
        .configure_from_args();
    // Reading first: writing makes the stores grow.
    let mut contests = [reads(runtime.handle(), &pool, &stores), writes(runtime.handle(), &pool, &stores)];
    for contest in &mut contests {
        contest.by_criterion(&mut criterion);
    }
    if turns() > 0 {
        table::print(&mut contests, turns() / 3); // a durable write takes as long as many slices
    }
    criterion.final_summary();
}
