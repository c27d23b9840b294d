//! Somebody else's locks: a migration tool, a prompt that was left open, another process in the middle of a long write.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _};
use strongroom::{ErrorKind, KeyStore as _, PostgresOptions, ScopeHandle, Selector, SqliteKeyStore};
use tokio::time::timeout;

use crate::cluster::{Database, execute};
use crate::{HANGS, House, channel};

fn hasty() -> PostgresOptions {
    PostgresOptions::default().timeout(Duration::from_secs(2))
}

// Every tenant's decisions failed after ten seconds: the row that numbered the log was locked until each commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_lock_on_the_row_where_the_log_ends_keeps_no_tenant_from_deciding() {
    let (database, house) = (Database::new().await, House::new(Duration::from_secs(5)));
    let store = Arc::new(database.store_with(&hasty()).await);
    let room = house.room(Arc::<strongroom::PostgresKeyStore>::clone(&store)).await;
    let other_node = house.room(Arc::new(database.store_with(&hasty()).await)).await;
    house.enroll(&room, "acme").await;
    let here = channel(&room, "acme", "C1").await;
    let sealed = here.seal(&[], b"x").await.unwrap();
    let there = channel(&other_node, "acme", "C1").await;
    there.open(&[], &sealed).await.unwrap();
    let before = store.log(None, 0).await.unwrap().end;
    let mut other = database.raw().await;
    let mut locking = other.begin().await.unwrap();
    execute(&mut locking, "SELECT * FROM log_end FOR UPDATE").await;
    let admin = room.admin("a test", "to test").unwrap();
    for n in 0..5 {
        let name = format!("C{n}");
        admin
            .revoke("acme", Selector::fields([("channel", &*name)]))
            .await
            .expect("waits for a lock of somebody else's");
    }
    // The numbers are there, for every node, while the row is still locked and after.
    let log = store.log(Some(before), 10).await.unwrap();
    let numbers: Vec<u64> = log.entries.iter().map(|(number, _)| *number).collect();
    assert_eq!((log.end, numbers), (before + 5, (before + 1..=before + 5).collect()));
    let refused = async {
        loop {
            match there.open(&[], &sealed).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(e) => return e.kind(),
            }
        }
    };
    assert_eq!(timeout(HANGS, refused).await.expect("the other node never hears"), ErrorKind::Revoked);
    locking.rollback().await.unwrap();
    admin.revoke("acme", Selector::fields([("channel", "C9")])).await.unwrap();
    assert_eq!(store.log(None, 0).await.unwrap().end, before + 6);
    admin.restore("acme", Selector::fields([("channel", "C1")])).await.unwrap();
    here.open(&[], &sealed).await.unwrap();
}

// "The key store does not answer in time", and nobody knew whom to look for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_a_lock_is_named_and_nothing_was_decided() {
    let (database, house) = (Database::new().await, House::new(Duration::from_secs(5)));
    let room = house.room(Arc::new(database.store_with(&hasty()).await)).await;
    house.enroll(&room, "acme").await;
    let admin = room.admin("a test", "to test").unwrap();
    let mut other = database.raw().await;
    execute(&mut other, "SET application_name TO 'a prompt left open'").await;
    let process: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut other).await.unwrap();
    for lock in ["LOCK TABLE changes", "SELECT * FROM tenants FOR UPDATE"] {
        let mut locking = other.begin().await.unwrap();
        execute(&mut locking, lock).await;
        let refused = timeout(HANGS, admin.revoke("acme", Selector::everything())).await.expect("hangs").unwrap_err();
        assert!(refused.kind() == ErrorKind::Unavailable && refused.is_retryable(), "{lock}: {refused}");
        for words in [&*format!("process {process}"), "a prompt left open", "nothing was written or decided"] {
            assert!(refused.to_string().contains(words), "{lock}: {refused}");
        }
        locking.rollback().await.unwrap();
        assert!(admin.tenant("acme").await.unwrap().revocations.is_empty(), "{lock}: something was decided");
    }
    admin.revoke("acme", Selector::everything()).await.unwrap();
}

// The lease's look-ups of records waited for a connection behind loads that waited for a lock: keys in hand rested.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_in_hand_serve_while_all_loads_wait_for_a_lock() {
    let (database, house) = (Database::new().await, House::new(Duration::from_secs(1)));
    let options = PostgresOptions::default().max_connections(2).timeout(Duration::from_secs(10));
    let room = house.room(Arc::new(database.store_with(&options).await)).await;
    house.enroll(&room, "acme").await;
    let scope = channel(&room, "acme", "C1").await;
    scope.seal(&[], b"x").await.unwrap();
    let cold: Vec<ScopeHandle> = futures_util::future::join_all(
        (0..20).map(|n| channel(&room, "acme", Box::leak(format!("N{n}").into_boxed_str()))),
    )
    .await;
    let mut other = database.raw().await;
    let mut locking = other.begin().await.unwrap();
    execute(&mut locking, "LOCK TABLE tenants").await;
    let waiting: Vec<_> =
        cold.into_iter().map(|scope| tokio::spawn(async move { scope.seal(&[], b"x").await.map(drop) })).collect();
    let began = tokio::time::Instant::now();
    while began.elapsed() < 4 * house.bound {
        let sealed = scope.seal(&[], b"y").await.unwrap_or_else(|e| panic!("after {:?}: {e}", began.elapsed()));
        scope.open(&[], &sealed).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()), "the test did not test what it should");
    locking.rollback().await.unwrap();
    for waiting in waiting {
        timeout(HANGS, waiting).await.expect("hangs").unwrap().unwrap();
    }
}

// All connections waited for the lock to write, and reads waited for a connection: nine seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_s_lock_on_a_sqlite_file_keeps_nobody_from_reading() {
    let (folder, house) = (tempfile::tempdir().unwrap(), House::new(Duration::from_secs(1)));
    let path = folder.path().join("keys.db");
    let room = house.room(Arc::new(SqliteKeyStore::create(&path).await.unwrap())).await;
    for tenant in ["acme", "globex", "initech"] {
        house.enroll(&room, tenant).await;
    }
    let globex = channel(&room, "globex", "C1").await;
    let sealed = globex.seal(&[], b"x").await.unwrap();
    let [acme, initech] = [room.tenant("acme").await.unwrap(), room.tenant("initech").await.unwrap()];
    let mut other = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe("BEGIN IMMEDIATE")).execute(&mut other).await.unwrap();
    let writing: Vec<_> = (0..24)
        .map(|n| {
            let scope = [&acme, &initech][n % 2].scope([("channel", &*format!("N{n}"))]).unwrap();
            tokio::spawn(async move { scope.seal(&[], b"x").await.map(drop) })
        })
        .collect();
    let admin = room.admin("a test", "to test").unwrap();
    // As long as nothing can be written; longer than any lease.
    let began = tokio::time::Instant::now();
    let mut read = 0;
    while began.elapsed() < 4 * house.bound {
        admin.purge("globex").unwrap();
        timeout(HANGS, globex.open(&[], &sealed)).await.expect("hangs").unwrap();
        read += 1;
    }
    assert!(writing.iter().all(|writing| !writing.is_finished()), "the test did not test what it should");
    // One that waits for a writer comes after a second or more.
    assert!(read > 20, "read {read} times");
    sqlx::raw_sql(AssertSqlSafe("ROLLBACK")).execute(&mut other).await.unwrap();
    for writing in writing {
        timeout(HANGS, writing).await.expect("hangs").unwrap().unwrap();
    }
}
