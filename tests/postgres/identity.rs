//! Which store it is, and that the lease path does not wait for others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::Connection;
use strongroom::{ErrorKind, KeyStore, PostgresKeyStore, PostgresOptions};
use tokio::time::timeout;

use crate::cluster::{Cluster, Database, connect, execute};
use crate::{log, put, tenant, written};

/// What hangs is broken.
const HANGS: Duration = Duration::from_secs(30);

async fn identity(store: &PostgresKeyStore) -> String {
    store.log(None, 0).await.unwrap().store.0
}

#[tokio::test]
async fn the_same_database_is_the_same_store_and_a_copy_is_another() {
    let cluster = Arc::new(Cluster::start(&["fsync=off"]));
    let database = Database::on(Arc::clone(&cluster), "").await;
    let store = database.store().await;
    let mine = identity(&store).await;
    assert_eq!(identity(&database.store().await).await, mine);
    assert_eq!(mine.matches('/').count(), 4, "{mine}");
    assert!(!mine.contains('-') && mine.ends_with("/00000001"), "all of it can be read here: {mine}");
    cluster.crash();
    cluster.restart();
    let again = timeout(HANGS, async {
        loop {
            if let Ok(log) = store.log(None, 0).await {
                return log.store.0;
            }
        }
    });
    assert_eq!(again.await.expect("does not come back"), mine, "a restart makes no other store");
    store.close().await;
    // A database that is copied, or whose tables are restored, has the same name inside.
    let name = |identity: &str| identity.split('/').next().unwrap().to_owned();
    let source = database.url.rsplit(['/', '?']).nth(1).unwrap();
    let copied = Database::on(Arc::clone(&cluster), &format!("TEMPLATE {source}")).await;
    let copy = identity(&copied.store().await).await;
    assert!(copy != mine && name(&copy) == name(&mine), "{copy}, {mine}");
    let mut db = database.raw().await;
    execute(
        &mut db,
        "CREATE TABLE restored (LIKE log_end INCLUDING ALL); INSERT INTO restored TABLE log_end;
        DROP TABLE log_end; ALTER TABLE restored RENAME TO log_end",
    )
    .await;
    let restored = identity(&database.store().await).await;
    assert!(restored != mine && name(&restored) == name(&mine), "{restored}, {mine}");
    let new = database.store_with(&PostgresOptions::default().schema("new")).await;
    assert_ne!(name(&identity(&new).await), name(&mine));
}

#[tokio::test]
async fn from_a_standby_the_log_is_not_read_and_a_promoted_one_is_another_store() {
    let cluster = Arc::new(Cluster::start(&["fsync=off", "wal_level=replica", "max_wal_senders=4"]));
    let database = Database::on(Arc::clone(&cluster), "").await;
    let primary = database.store().await;
    written(&primary, &[put(&tenant("acme"), None, b"1")]).await;
    log(&primary).await.unwrap();
    let standby = cluster.standby();
    let url = database.url.replace(&format!(":{}/", cluster.port()), &format!(":{}/", standby.port()));
    let store = PostgresKeyStore::connect(&url).await.unwrap();
    // It has the rows, and may be behind.
    assert_eq!(store.get(&tenant("acme")).await.unwrap().unwrap(), b"1");
    for refused in [store.log(Some(0), 10).await.err(), log(&store).await.err()] {
        let refused = refused.expect("a standby answered");
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert!(refused.to_string().contains("connect to the primary"), "{refused}");
    }
    let mine = identity(&primary).await;
    standby.promote();
    let promoted = timeout(HANGS, async {
        loop {
            if let Ok(log) = store.log(Some(0), 10).await {
                return log;
            }
        }
    });
    let promoted = promoted.await.expect("is not promoted");
    assert_eq!((promoted.end, promoted.entries.len()), (1, 1));
    assert!(promoted.store.0 != mine && promoted.store.0.ends_with("/00000002"), "{:?}, {mine}", promoted.store);
    assert_eq!(identity(&primary).await, mine);
}

#[tokio::test]
async fn what_a_user_may_not_read_is_left_out() {
    let cluster = Arc::new(Cluster::start(&["fsync=off"]));
    let database = Database::on(Arc::clone(&cluster), "").await;
    let all = identity(&database.store().await).await;
    let grants = "CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA strongroom TO app;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA strongroom TO app;
        REVOKE EXECUTE ON FUNCTION pg_control_system FROM PUBLIC";
    execute(&mut database.raw().await, grants).await;
    let url = database.url.replace("postgres@", "app@");
    let store = PostgresKeyStore::connect(&url).await.unwrap();
    let less = identity(&store).await;
    let [mut parts, fewer] = [&all, &less].map(|identity| identity.split('/').collect::<Vec<_>>());
    parts[3] = "-";
    assert_eq!(parts, fewer);
    execute(&mut database.raw().await, "REVOKE EXECUTE ON FUNCTION pg_walfile_name FROM PUBLIC").await;
    let least = identity(&PostgresKeyStore::connect(&url).await.unwrap()).await;
    parts[4] = "-";
    assert_eq!(parts, least.split('/').collect::<Vec<_>>());
}

// What every other connection waits for keeps no lease from being renewed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_read_while_all_else_waits() {
    let database = Database::new().await;
    let store = Arc::new(database.store_with(&PostgresOptions::default().max_connections(2)).await);
    written(&*store, &[put(&tenant("acme"), None, b"1")]).await;
    let mut other = connect(&database.url).await;
    let mut locking = other.begin().await.unwrap();
    execute(&mut locking, "LOCK TABLE tenants").await;
    let waiting: Vec<_> = (0..6)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.get(&tenant("acme")).await })
        })
        .collect();
    crate::races::until_waiting(&database, 2).await;
    for _ in 0..3 {
        let began = Instant::now();
        store.log(Some(0), 10).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(3), "a reading of the log waited for others");
    }
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()), "the test did not test what it should");
    locking.rollback().await.unwrap();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().unwrap().unwrap(), b"1");
    }
}
