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
    Change, Forget, KekUri, KeyId, KeyRecord, KeyState, KeyStore, MemoryKeyStore, Placed, Region, Scope, Selector,
    SqliteKeyStore, Suite, TenantId, TenantPolicy, TenantRecord, WrappedKey, Wrapping,
};
use tokio::runtime::{Handle, Runtime};

use crate::contest::{Contest, timed, turns};

/// How many keys a store has before it is measured.
const KEYS: usize = 1_000;

/// How many key records a rewrap writes at a time here.
const PAGE: usize = 100;

/// As long as a data key that AWS KMS wrapped.
const WRAPPED: usize = 184;

/// A plain row is as long as a key record's row, about.
const ROW: [u8; 700] = [7; 700];

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
    key: "SqliteKeyStore, key",
    active: "SqliteKeyStore, active_key",
    polled: "SqliteKeyStore, changes, none",
    changes: "SqliteKeyStore, changes, 100",
    page: "SqliteKeyStore, keys, 100",
    insert: "SqliteKeyStore, insert_active",
    update: "SqliteKeyStore, update_keys, 100",
};

const MEMORY: Names = Names {
    key: "MemoryKeyStore, key",
    active: "MemoryKeyStore, active_key",
    polled: "MemoryKeyStore, changes, none",
    changes: "MemoryKeyStore, changes, 100",
    page: "MemoryKeyStore, keys, 100",
    insert: "MemoryKeyStore, insert_active",
    update: "MemoryKeyStore, update_keys, 100",
};

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn kek() -> KekUri {
    KekUri::new("aws-kms:arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab").unwrap()
}

fn region() -> Region {
    Region::new("eu-central-1").unwrap()
}

/// The key record number `n`, of a scope of its own.
fn record(n: usize) -> KeyRecord {
    let mut id = [0; 32];
    // Ids are evenly spread, as hashes are, so that rows are not written in order.
    id[..8].copy_from_slice(&(n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    KeyRecord {
        tenant: tenant(),
        key_id: KeyId::from_bytes(id),
        suite: Suite::default(),
        scope: Scope::new(&[("workspace", "W1"), ("channel", &format!("C{n}"))]).unwrap(),
        period: None,
        region: region(),
        state: KeyState::Active,
        state_since: 0,
        wrapped: Some(WrappedKey::One(Wrapping { kek: kek(), wrapped: vec![7; WRAPPED] })),
        pending: None,
        wrapped_epoch: 1,
        created_at: 0,
        revision: 1,
    }
}

/// A tenant with [`KEYS`] keys and a page of the log.
async fn fill(store: &dyn KeyStore) {
    let record_of_tenant = TenantRecord {
        tenant: tenant(),
        policy: TenantPolicy::new(kek(), region()).scope_by(["workspace", "channel"]),
        revocations: Vec::new(),
        erasures: Vec::new(),
        rewrap: None,
        enrolled_at: 0,
        epoch: 1,
    };
    store.insert_tenant(&record_of_tenant).await.unwrap();
    for n in 0..KEYS {
        assert_eq!(store.insert_active(&record(n)).await.unwrap(), Placed::New);
    }
    for n in 0..PAGE {
        let selector = Selector::fields([("channel", format!("C{n}"))]);
        store.announce(&Change { tenant: tenant(), selector, forget: Forget::Sealing }).await.unwrap();
    }
    assert_eq!(store.key(&tenant(), &record(7).key_id).await.unwrap(), Some(record(7)));
    assert_eq!(store.keys(&tenant(), None, 100).await.unwrap().len(), PAGE);
    assert_eq!(store.changes(Some(0), 100).await.unwrap().changes.len(), PAGE);
}

/// The keys there are, in an order that no prefetcher guesses.
fn any_key() -> impl FnMut() -> KeyRecord {
    let records: Vec<KeyRecord> = (0..KEYS).map(record).collect();
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
            on.block_on(by.key(&wanted.tenant, &wanted.key_id)).unwrap().unwrap()
        }),
    );
    let (by, on, mut next) = (Arc::clone(store), runtime.clone(), any_key());
    contest.enter(
        names.active,
        PLAIN_READ,
        timed(move || {
            let wanted = next();
            on.block_on(by.active_key(&wanted.tenant, &wanted.scope, None)).unwrap().unwrap()
        }),
    );
    // What each node asks once a second.
    let (by, on) = (Arc::clone(store), runtime.clone());
    let upto = on.block_on(by.changes(None, 1)).unwrap().upto;
    contest.enter(names.polled, PLAIN_READ, timed(move || on.block_on(by.changes(Some(upto), 1_000)).unwrap()));
    let (by, on) = (Arc::clone(store), runtime.clone());
    let from = upto - PAGE as u64;
    contest.enter(names.changes, PLAIN_READ, timed(move || on.block_on(by.changes(Some(from), 1_000)).unwrap()));
    let (by, on) = (Arc::clone(store), runtime.clone());
    contest.enter(names.page, PLAIN_READ, timed(move || on.block_on(by.keys(&tenant(), None, 100)).unwrap()));
}

fn enter_writes(contest: &mut Contest, runtime: &Handle, store: &Arc<dyn KeyStore>, names: &Names) {
    let (by, on, mut written) = (Arc::clone(store), runtime.clone(), KEYS);
    contest.enter(names.insert, PLAIN_WRITE, move |n| {
        let fresh: Vec<KeyRecord> = (0..n)
            .map(|_| {
                written += 1;
                record(written)
            })
            .collect();
        let start = Instant::now();
        for record in &fresh {
            assert_eq!(on.block_on(by.insert_active(record)).unwrap(), Placed::New);
        }
        start.elapsed()
    });
    let (by, on) = (Arc::clone(store), runtime.clone());
    let mut page: Vec<KeyRecord> = (0..PAGE).map(record).collect();
    contest.enter(
        names.update,
        PLAIN_WRITE,
        timed(move || {
            for record in &mut page {
                record.revision += 1;
            }
            assert_eq!(on.block_on(by.update_keys(&page)).unwrap(), [true; PAGE]);
        }),
    );
}

/// The same settings as [`SqliteKeyStore`]'s, one table, no index but its key's.
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
        write_plain(&pool, &record(n).key_id).await;
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
    contest.enter(PLAIN_READ, PLAIN_READ, timed(move || on.block_on(read_plain(&pool, &next().key_id))));
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
            on.block_on(write_plain(&pool, &record(written).key_id));
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
        let sqlite: Arc<dyn KeyStore> = Arc::new(SqliteKeyStore::open(folder.path().join("keys.db")).await.unwrap());
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
