//! What the contract cannot force from outside: transactions that meet half-way.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sqlx::Connection;
use strongroom::testing::store_contract;
use strongroom::{KeyState, KeyStore, PostgresKeyStore, PostgresOptions, Put, Result, Write};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::cluster::{Database, execute};
use crate::through::Through;
use crate::{keep, key, key_id, log, put, put_key, scope, tenant, written};

/// What hangs is broken.
const HANGS: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_contract_through_two_stores_in_turn() {
    let database = Database::new().await;
    let stores = vec![database.store().await, database.store().await];
    store_contract(Arc::new(Through::in_turn(stores))).await;
}

// Who waited for another one's row has to see it as it is then, whatever the server's default.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_contract_on_a_server_that_is_stricter() {
    let database = Database::new().await;
    let stricter = "DO $$ BEGIN EXECUTE format(
        'ALTER DATABASE %I SET default_transaction_isolation TO serializable', current_database()); END $$";
    execute(&mut database.raw().await, stricter).await;
    store_contract(Arc::new(database.store().await)).await;
}

/// Waits until so many statements of the database wait for a lock.
pub(crate) async fn until_waiting(database: &Database, waiting: i64) {
    let mut db = database.raw().await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    let all_wait = async {
        while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut db).await.unwrap() < waiting {
            tokio::task::yield_now().await;
        }
    };
    timeout(HANGS, all_wait).await.expect("nobody waits");
}

fn spawn(store: &Arc<PostgresKeyStore>, writes: Vec<Write>) -> JoinHandle<Result<Put>> {
    let store = Arc::clone(store);
    tokio::spawn(async move { store.put(&writes, None).await })
}

const WRITTEN: Put = Put::Written(None);

/// A store with the tenant `acme`, of version 1.
async fn acme(database: &Database) -> Arc<PostgresKeyStore> {
    let store = database.store().await;
    written(&store, &[put(&tenant("acme"), None, b"1")]).await;
    Arc::new(store)
}

#[tokio::test]
async fn a_key_made_under_a_row_that_is_just_changing_is_refused() {
    for changed in [true, false] {
        let database = Database::new().await;
        let store = acme(&database).await;
        let mut other = database.raw().await;
        let mut deciding = other.begin().await.unwrap();
        execute(&mut deciding, "UPDATE tenants SET digest = 'another'").await;
        let creating = spawn(&store, vec![keep(&tenant("acme"), b"1"), put_key(1, 1, KeyState::Active, None, b"key")]);
        until_waiting(&database, 1).await;
        if changed {
            deciding.commit().await.unwrap();
            assert_eq!(creating.await.unwrap().unwrap(), Put::Conflict(vec![0]));
        } else {
            deciding.rollback().await.unwrap();
            assert_eq!(creating.await.unwrap().unwrap(), WRITTEN);
        }
        assert_eq!(store.get(&key(1)).await.unwrap().is_some(), !changed);
    }
}

// A tenant's keys are made by many nodes at once, each relying on the tenant's row.
#[tokio::test]
async fn who_keeps_a_row_does_not_wait_for_others_who_keep_it() {
    let database = Database::new().await;
    let store = acme(&database).await;
    let mut other = database.raw().await;
    let mut creating = other.begin().await.unwrap();
    execute(
        &mut creating,
        "SELECT FROM tenants FOR SHARE; INSERT INTO data_keys VALUES ('acme', '9', '', '', 'active', '', '')",
    )
    .await;
    let create = [keep(&tenant("acme"), b"1"), put_key(1, 1, KeyState::Active, None, b"key")];
    assert_eq!(timeout(HANGS, store.put(&create, None)).await.expect("waits").unwrap(), WRITTEN);
    // But who writes it waits.
    let deciding = spawn(&store, vec![put(&tenant("acme"), Some(b"1"), b"2")]);
    until_waiting(&database, 1).await;
    creating.commit().await.unwrap();
    assert_eq!(deciding.await.unwrap().unwrap(), WRITTEN);
}

// Nobody waits for the log because somebody else waits for a row.
#[tokio::test]
async fn the_log_is_taken_last() {
    let database = Database::new().await;
    let store = acme(&database).await;
    let mut other = database.raw().await;
    let mut deciding = other.begin().await.unwrap();
    execute(&mut deciding, "SELECT FROM tenants FOR UPDATE").await;
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.put(&[put(&tenant("acme"), Some(b"1"), b"2")], Some(&|_| b"second".to_vec())).await }
    });
    until_waiting(&database, 1).await;
    let first = timeout(HANGS, store.put(&[], Some(&|_| b"first".to_vec()))).await.expect("waits").unwrap();
    assert_eq!(first, Put::Written(Some(1)));
    deciding.commit().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), Put::Written(Some(2)));
    assert_eq!(store.log(Some(1), 10).await.unwrap().entries, [(2, b"second".to_vec())]);
}

#[tokio::test]
async fn who_loses_to_an_insertion_under_way_is_told_or_gets_the_place() {
    // By the row, and by the index of Active keys.
    for (mine, theirs) in [(1, 1), (2, 1)] {
        for won in [true, false] {
            let database = Database::new().await;
            let store = acme(&database).await;
            written(&store, &[put_key(theirs, 7, KeyState::Active, None, b"theirs")]).await;
            let mut other = database.raw().await;
            // The row as it was, inserted again by a transaction that has not ended yet.
            execute(&mut other, "CREATE TABLE copy AS TABLE data_keys; DELETE FROM data_keys").await;
            let mut inserting = other.begin().await.unwrap();
            execute(&mut inserting, "INSERT INTO data_keys TABLE copy").await;
            let losing = vec![keep(&tenant("acme"), b"1"), put_key(mine, 7, KeyState::Active, None, b"mine")];
            let losing = spawn(&store, losing);
            until_waiting(&database, 1).await;
            let active = if won {
                inserting.commit().await.unwrap();
                assert_eq!(losing.await.unwrap().unwrap(), Put::Conflict(vec![1]));
                (key_id(theirs), b"theirs".to_vec())
            } else {
                inserting.rollback().await.unwrap();
                assert_eq!(losing.await.unwrap().unwrap(), WRITTEN);
                (key_id(mine), b"mine".to_vec())
            };
            let acme = strongroom::TenantId::new("acme").unwrap();
            assert_eq!(store.active(&acme, &scope(7), None).await.unwrap(), Some(active));
        }
    }
}

#[tokio::test]
async fn a_row_that_is_kept_absent_does_not_come_into_being() {
    let database = Database::new().await;
    let store = acme(&database).await;
    for (row, insert) in [
        (tenant("other"), "INSERT INTO tenants VALUES ('other', '', '')"),
        (
            key(1),
            r"INSERT INTO data_keys VALUES ('acme', decode(rpad('00000001', 64, '0'), 'hex'), '', '', '', '', '')",
        ),
        (strongroom::RowKey::Room, "UPDATE single_rows SET digest = '', row = '' WHERE name = 'room'"),
    ] {
        let mut other = database.raw().await;
        let mut inserting = other.begin().await.unwrap();
        execute(&mut inserting, insert).await;
        let absent = Write { key: row.clone(), expected: None, change: strongroom::RowChange::Keep };
        let writes = vec![absent, put(&tenant(&format!("beside-{}", insert.len())), None, b"1")];
        let keeping = spawn(&store, writes.clone());
        until_waiting(&database, 1).await;
        inserting.rollback().await.unwrap();
        assert_eq!(keeping.await.unwrap().unwrap(), WRITTEN);
        execute(&mut other, insert).await;
        let writes = [writes[0].clone(), put(&tenant("never"), None, b"1")];
        assert_eq!(store.put(&writes, None).await.unwrap(), Put::Conflict(vec![0]), "{row:?}");
    }
}

#[tokio::test]
async fn a_second_active_key_that_the_index_refuses_is_a_conflict() {
    let database = Database::new().await;
    let store = acme(&database).await;
    written(&store, &[put_key(1, 1, KeyState::Suspended, None, b"suspended")]).await;
    written(&store, &[put_key(2, 1, KeyState::Active, None, b"active")]).await;
    let mut other = database.raw().await;
    execute(
        &mut other,
        "CREATE TABLE copy AS SELECT * FROM data_keys WHERE row = 'active'; DELETE FROM data_keys WHERE row = 'active'",
    )
    .await;
    // The new Active key is being written while the old one is restored.
    let mut inserting = other.begin().await.unwrap();
    execute(&mut inserting, "INSERT INTO data_keys TABLE copy").await;
    let restoring = spawn(
        &store,
        vec![put(&tenant("acme"), Some(b"1"), b"2"), put_key(1, 1, KeyState::Active, Some(b"suspended"), b"restored")],
    );
    until_waiting(&database, 1).await;
    inserting.commit().await.unwrap();
    assert_eq!(restoring.await.unwrap().unwrap(), Put::Conflict(vec![1]));
    assert_eq!(store.get(&key(1)).await.unwrap().unwrap(), b"suspended");
    assert_eq!(store.get(&tenant("acme")).await.unwrap().unwrap(), b"1");
}

async fn deadlocks(database: &Database) -> i64 {
    sqlx::query_scalar("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        .fetch_one(&mut database.raw().await)
        .await
        .unwrap()
}

/// Of four puts at once, one is written.
async fn one_of_four(store: &Arc<PostgresKeyStore>, put: impl Fn(u32) -> Vec<Write>) {
    let puts: Vec<_> = (0..4).map(|n| spawn(store, put(n))).collect();
    let puts = join_all(puts).await;
    let won = puts.into_iter().filter(|put| matches!(put, Ok(Ok(Put::Written(_))))).count();
    assert_eq!(won, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn puts_in_opposite_orders_do_not_meet_in_a_deadlock() {
    let database = Database::new().await;
    let store = acme(&database).await;
    for round in 0..10_u8 {
        let old = [round.wrapping_sub(1)];
        let old = (round > 0).then_some(&old[..]);
        let same_rows = |n: u32| {
            let keys = (0..40).map(|n| put_key(n, n, KeyState::Active, old, &[round]));
            let tenants = (0..5).map(|n| put(&tenant(&format!("T{n}")), old, &[round]));
            let mut writes: Vec<_> = keys.chain(tenants).collect();
            if n % 2 == 1 {
                writes.reverse();
            }
            writes
        };
        one_of_four(&store, same_rows).await;
        // New keys for the same channels, with ids in the channels' order and against it.
        let first = 1_000 * (u32::from(round) + 1);
        let same_channels = |n: u32| {
            let id = |at: u32| (n + 1) * 100_000 + if n < 2 { at } else { 1_000 - at };
            (0..40).map(|at| put_key(first + id(at), first + at, KeyState::Active, None, &[round])).collect()
        };
        one_of_four(&store, same_channels).await;
    }
    assert_eq!(deadlocks(&database).await, 0);
}

#[tokio::test]
async fn the_victim_of_a_deadlock_tries_again() {
    let database = Database::new().await;
    let mut other = database.raw().await;
    // Who waits for a second finds the deadlock, and loses: that is the store.
    execute(&mut other, "SET deadlock_timeout TO '1h'").await;
    let store = acme(&database).await;
    let new: Vec<_> = (1..3).map(|n| put_key(n, n, KeyState::Active, None, &[1])).collect();
    written(&store, &new).await;
    let mut crossing = other.begin().await.unwrap();
    let touch =
        |n: u32| format!("UPDATE data_keys SET row = row WHERE key_id = decode(rpad('0000000{n}', 64, '0'), 'hex')");
    assert_eq!(execute(&mut crossing, &touch(2)).await, 1);
    let updating = spawn(&store, (1..3).map(|n| put_key(n, n, KeyState::Deactivated, Some(&[1]), &[2])).collect());
    until_waiting(&database, 1).await;
    execute(&mut crossing, &touch(1)).await;
    crossing.commit().await.unwrap();
    assert_eq!(updating.await.unwrap().unwrap(), WRITTEN);
    while deadlocks(&database).await == 0 {
        tokio::task::yield_now().await; // statistics come late
    }
}

// Each dropped call was in the middle of something, on the only connection that there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_dropped_while_they_wait_leave_nothing_behind() {
    let database = Database::new().await;
    let store = database.store_with(&PostgresOptions::default().max_connections(1)).await;
    written(&store, &[put(&tenant("acme"), None, b"1")]).await;
    let mut other = database.raw().await;
    for round in 0..5 {
        let mut locking = other.begin().await.unwrap();
        execute(&mut locking, "SELECT FROM tenants WHERE tenant = 'acme' FOR UPDATE").await;
        let first = tenant(&format!("A{round}")); // written before the one that is waited for
        let writes = [put(&first, None, b"1"), put(&tenant("acme"), Some(b"1"), b"2")];
        {
            let mut waiting = std::pin::pin!(store.put(&writes, Some(&|_| b"never".to_vec())));
            tokio::select! {
                put = &mut waiting => panic!("did not wait: {put:?}"),
                () = until_waiting(&database, 1) => {}
            }
        }
        // The next call is not swallowed by a transaction that nobody ends, nor does it wait for one.
        let next = put(&tenant(&format!("Z{round}")), None, b"1");
        timeout(HANGS, written(&store, &[next])).await.expect("waits for a dropped call");
        locking.rollback().await.unwrap();
        let fresh = database.store().await;
        assert_eq!(fresh.get(&tenant(&format!("Z{round}"))).await.unwrap().unwrap(), b"1", "said to be written");
        written(&fresh, &[put(&first, None, b"free"), keep(&tenant("acme"), b"1")]).await;
    }
    log(&store).await.unwrap();
    assert_eq!(store.log(None, 0).await.unwrap().end, 1);
}
