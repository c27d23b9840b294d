//! Stores that tell each other by NOTIFY.

use std::time::Duration;

use strongroom::{ErrorKind, KeyStore, Put};
use tokio::time::timeout;

use crate::cluster::{Database, execute};
use crate::{log, put, tenant};

/// What hangs is broken; no bound that anybody documents.
const HANGS: Duration = Duration::from_secs(30);

async fn told(store: &impl KeyStore) {
    timeout(HANGS, store.changed()).await.expect("nobody told of a change");
}

#[tokio::test]
async fn an_entry_of_one_node_is_told_to_the_others() {
    let database = Database::new().await;
    let (one, other) = (database.store().await, database.store().await);
    told(&other).await; // it listens now
    for n in 0..20 {
        // Said while nobody waits for it, and while somebody does.
        if n % 2 == 0 {
            log(&one).await.unwrap();
            told(&other).await;
        } else {
            let ((), logged) = tokio::join!(told(&other), log(&one));
            logged.unwrap();
        }
    }
    // A row without an entry is nothing to hear: what the next call hears is the last entry.
    assert_eq!(one.put(&[put(&tenant("acme"), None, b"1")], None).await.unwrap(), Put::Written(None));
    log(&one).await.unwrap();
    told(&other).await;
    assert_eq!(other.log(Some(20), 10).await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn an_entry_that_is_rolled_back_is_told_to_nobody() {
    let database = Database::new().await;
    let (one, other) = (database.store().await, database.store().await);
    told(&other).await;
    let put = one.put(&[put(&tenant("acme"), Some(b"none"), b"1")], Some(&|_| b"never".to_vec())).await.unwrap();
    assert_eq!(put, Put::Conflict(vec![0]));
    log(&one).await.unwrap();
    told(&other).await;
    assert_eq!(other.log(Some(0), 10).await.unwrap().entries, [(1, 1_u64.to_be_bytes().to_vec())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listener_comes_back_by_itself_and_says_so() {
    let database = Database::new().await;
    let mut db = database.raw().await;
    let (one, other) = (database.store().await, database.store().await);
    told(&other).await;
    for _ in 0..3 {
        let listeners = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE query LIKE 'LISTEN%' AND datname = current_database()";
        execute(&mut db, listeners).await;
        told(&other).await; // it listens again: what was said meanwhile is missed, so it says that it may have been
        log(&one).await.unwrap();
        told(&other).await;
    }
}

#[tokio::test]
async fn a_store_that_is_closed_tells_nothing_and_leaves_no_connection() {
    let database = Database::new().await;
    let mut db = database.raw().await;
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    for close in [true, false] {
        let store = database.store().await;
        told(&store).await;
        if close {
            store.close().await;
            for refused in [log(&store).await.err(), store.log(None, 0).await.err()] {
                assert_eq!(refused.map(|e| e.kind()), Some(ErrorKind::Unavailable));
            }
            assert!(futures_util::FutureExt::now_or_never(store.changed()).is_none());
        }
        drop(store);
        let gone = async {
            while sqlx::query_scalar::<_, i64>(others).fetch_one(&mut db).await.unwrap() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(HANGS, gone).await.expect("connections were left behind");
    }
}
