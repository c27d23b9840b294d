//! What the contract cannot force from outside: transactions that meet half-way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sqlx::Connection;
use strongroom::testing::store_contract;
use strongroom::{Change, ErrorKind, Forget, KeyState, KeyStore, Placed, PostgresOptions, Selector};

use crate::cluster::{Database, execute};
use crate::through::Through;
use crate::{change, key, tenant};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_contract_through_two_stores_in_turn() {
    let database = Database::new().await;
    let stores = vec![database.store().await, database.store().await];
    store_contract(Arc::new(Through::in_turn(stores))).await;
}

/// Waits until some statement of the database waits for a lock.
async fn until_somebody_waits(database: &Database) {
    let mut db = database.raw().await;
    let waiting =
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database())";
    while !sqlx::query_scalar::<_, bool>(waiting).fetch_one(&mut db).await.unwrap() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_key_made_under_an_epoch_that_is_just_ending_is_refused() {
    let database = Database::new().await;
    let store = Arc::new(database.store().await);
    store.insert_tenant(&tenant("acme")).await.unwrap();
    let mut other = database.raw().await;
    let mut deciding = other.begin().await.unwrap();
    execute(&mut deciding, "UPDATE tenants SET epoch = 2").await;
    let inserting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.insert_active(&key("acme", "C1", 1)).await }
    });
    until_somebody_waits(&database).await;
    deciding.commit().await.unwrap();
    assert_eq!(inserting.await.unwrap().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(store.keys(&tenant("acme").tenant, None, 10).await.unwrap(), []);
}

#[tokio::test]
async fn who_loses_to_an_insertion_under_way_gets_its_key_or_the_place() {
    for (won, channel) in [(true, "C1"), (false, "C2")] {
        let database = Database::new().await;
        let store = Arc::new(database.store().await);
        store.insert_tenant(&tenant("acme")).await.unwrap();
        let first = key("acme", channel, 1);
        store.insert_active(&first).await.unwrap();
        let mut other = database.raw().await;
        // The row as it was, inserted again by a transaction that has not ended yet.
        execute(&mut other, "CREATE TABLE copy AS TABLE data_keys; DELETE FROM data_keys").await;
        let mut inserting = other.begin().await.unwrap();
        execute(&mut inserting, "INSERT INTO data_keys TABLE copy").await;
        let second = key("acme", channel, 2);
        let losing = tokio::spawn({
            let (store, second) = (Arc::clone(&store), second.clone());
            async move { store.insert_active(&second).await }
        });
        until_somebody_waits(&database).await;
        if won {
            inserting.commit().await.unwrap();
            assert_eq!(losing.await.unwrap().unwrap(), Placed::Existing(Box::new(first)));
        } else {
            inserting.rollback().await.unwrap();
            assert_eq!(losing.await.unwrap().unwrap(), Placed::New);
        }
    }
}

#[tokio::test]
async fn a_second_active_key_that_the_index_refuses_is_refused_alone() {
    let database = Database::new().await;
    let store = Arc::new(database.store().await);
    store.insert_tenant(&tenant("acme")).await.unwrap();
    let (mut old, new, mut third) = (key("acme", "C1", 1), key("acme", "C1", 2), key("acme", "C3", 3));
    store.insert_active(&old).await.unwrap();
    store.insert_active(&third).await.unwrap();
    (old.state, old.revision) = (KeyState::Suspended, 2);
    store.update_key(&old).await.unwrap();
    store.insert_active(&new).await.unwrap();
    let mut other = database.raw().await;
    execute(
        &mut other,
        "CREATE TABLE copy AS SELECT * FROM data_keys WHERE revision = 1 AND position('\\x4331'::bytea IN scope) > 0;
        DELETE FROM data_keys USING copy WHERE data_keys.key_id = copy.key_id",
    )
    .await;
    // The new Active key is being written while the old one is restored.
    let mut inserting = other.begin().await.unwrap();
    execute(&mut inserting, "INSERT INTO data_keys TABLE copy").await;
    (old.state, old.revision) = (KeyState::Active, 3);
    (third.state, third.revision) = (KeyState::Deactivated, 2);
    let restoring = tokio::spawn({
        let (store, rows) = (Arc::clone(&store), [third.clone(), old]);
        async move { store.update_keys(&rows).await }
    });
    until_somebody_waits(&database).await;
    inserting.commit().await.unwrap();
    assert_eq!(restoring.await.unwrap().unwrap(), [true, false]);
    assert_eq!(store.key(&third.tenant, &third.key_id).await.unwrap(), Some(third));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn updates_in_opposite_orders_do_not_meet_in_a_deadlock() {
    let database = Database::new().await;
    let store = Arc::new(database.store().await);
    store.insert_tenant(&tenant("acme")).await.unwrap();
    let mut rows: Vec<_> = (0..40).map(|n| key("acme", &format!("C{n}"), n)).collect();
    for row in &rows {
        store.insert_active(row).await.unwrap();
    }
    for round in 2..12 {
        for row in &mut rows {
            row.revision = round;
        }
        let updates = [false, true, false, true].map(|backwards| {
            let (store, mut rows) = (Arc::clone(&store), rows.clone());
            if backwards {
                rows.reverse();
            }
            tokio::spawn(async move { store.update_keys(&rows).await.unwrap() })
        });
        let written: usize = join_all(updates).await.into_iter().flat_map(Result::unwrap).map(usize::from).sum();
        assert_eq!(written, rows.len(), "each once");
    }
    let deadlocks: i64 =
        sqlx::query_scalar("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            .fetch_one(&mut database.raw().await)
            .await
            .unwrap();
    assert_eq!(deadlocks, 0);
}

#[tokio::test]
async fn the_victim_of_a_deadlock_tries_again() {
    let database = Database::new().await;
    let mut other = database.raw().await;
    // Who waits for a second finds the deadlock, and loses: that is the store.
    execute(&mut other, "SET deadlock_timeout TO '1h'").await;
    let store = Arc::new(database.store().await);
    store.insert_tenant(&tenant("acme")).await.unwrap();
    let mut rows = [key("acme", "C1", 1), key("acme", "C2", 2)];
    for row in &mut rows {
        store.insert_active(row).await.unwrap();
        (row.state, row.revision) = (KeyState::Deactivated, 2);
    }
    let mut crossing = other.begin().await.unwrap();
    execute(&mut crossing, "UPDATE data_keys SET created_at = 1 WHERE position('\\x4332'::bytea IN scope) > 0").await;
    let updating = tokio::spawn({
        let (store, rows) = (Arc::clone(&store), rows.clone());
        async move { store.update_keys(&rows).await }
    });
    until_somebody_waits(&database).await;
    execute(&mut crossing, "UPDATE data_keys SET created_at = 1 WHERE position('\\x4331'::bytea IN scope) > 0").await;
    crossing.commit().await.unwrap();
    assert_eq!(updating.await.unwrap().unwrap(), [true, true]);
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    while sqlx::query_scalar::<_, i64>(deadlocks).fetch_one(&mut other).await.unwrap() == 0 {
        tokio::task::yield_now().await; // statistics come late
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_log_has_no_gaps_and_no_late_comers() {
    let database = Database::new().await;
    let store = Arc::new(database.store().await);
    let others = [database.store().await, database.store().await].map(Arc::new);
    let mut acme = tenant("acme");
    store.insert_tenant(&acme).await.unwrap();
    acme.epoch = 7; // stale: rolled back, in the middle of the others
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (store, acme) = (Arc::clone(&others[writer % 2]), acme.clone());
            tokio::spawn(async move {
                for n in 0..25 {
                    store.announce(&change(&format!("{writer}/{n}"))).await.unwrap();
                    assert!(store.update_tenant(&acme, &change("never")).await.is_err());
                }
            })
        })
        .collect();
    let mut upto = 0;
    let mut heard = Vec::new();
    while heard.len() < 200 {
        let news = store.changes(Some(upto), 1000).await.unwrap();
        assert!(!news.gap && news.upto - upto == news.changes.len() as u64);
        upto = news.upto;
        heard.extend(news.changes.into_iter().map(|c| format!("{:?}", c.selector)));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!((upto, heard.iter().collect::<BTreeSet<_>>().len()), (200, 200));
    assert!(store.changes(Some(upto), 10).await.unwrap().changes.is_empty());
}

#[tokio::test]
async fn the_log_is_trimmed() {
    let database = Database::new().await;
    let store = database.store().await;
    let selector = serde_json::to_string(&Selector::fields([("channel", "C1")])).unwrap();
    let many = format!(
        "UPDATE log_end SET seq = 20000; INSERT INTO changes (seq, tenant, selector, forget)
        SELECT seq, 'acme', '{selector}', 'keys' FROM generate_series(9000, 20000) AS seq"
    );
    execute(&mut database.raw().await, &many).await;
    store.announce(&change("C1")).await.unwrap();
    let all = store.changes(Some(10_001), 20_000).await.unwrap();
    assert_eq!((all.changes.len(), all.upto, all.gap), (10_000, 20_001, false));
    assert!(store.changes(Some(10_000), 20_000).await.unwrap().gap, "what was dropped is a gap");
}

// A dropped call leaves a row old or new, and nothing behind that another call could fall over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_calls_leave_nothing_half_done() {
    let database = Database::new().await;
    let store = database.store_with(&PostgresOptions::default().max_connections(1)).await;
    let fresh = database.store().await;
    store.insert_tenant(&tenant("acme")).await.unwrap();
    let mut dropped = 0;
    for round in 0..120_u32 {
        let (old, new) =
            (key("acme", &format!("C{round}"), 2 * round), key("acme", &format!("C{round}"), 2 * round + 1));
        let patience = Duration::from_micros(u64::from(round) * 40);
        let announced = Change { forget: Forget::Sealing, ..change("C1") };
        let calls = async {
            store.insert_active(&old).await.unwrap();
            store.succeed(&old.key_id, &new).await.unwrap();
            store.announce(&announced).await.unwrap();
        };
        dropped += u32::from(tokio::time::timeout(patience, calls).await.is_err());
        // The next call on the same connection is not swallowed by a transaction that nobody ends.
        let name = format!("T{round}");
        store.insert_tenant(&tenant(&name)).await.unwrap();
        assert!(
            fresh.tenant(&tenant(&name).tenant).await.unwrap().is_some(),
            "round {round}: said to be written, but is not"
        );
        let keys = fresh.keys(&old.tenant, None, 1000).await.unwrap();
        let states: Vec<_> = keys.iter().filter(|k| k.scope == old.scope).map(|k| (k.key_id, k.state)).collect();
        let possible: [&[_]; 3] = [
            &[],
            &[(old.key_id, KeyState::Active)],
            &[(old.key_id, KeyState::Deactivated), (new.key_id, KeyState::Active)],
        ];
        assert!(possible.contains(&states.as_slice()), "round {round}: {states:?}");
    }
    assert!(dropped > 0, "the test did not test what it should");
}
