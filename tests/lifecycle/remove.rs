//! Removing the records of destroyed keys: what is removed, what is not, and what is put back opens nothing.

use std::sync::Arc;
use std::time::Duration;

use strongroom::testing::{Failpoints, TakenOverNode};
use strongroom::{Error, ErrorKind, KeyState, RowKey, Selector, Strongroom, TenantId, Walked};

use crate::{DAY, EU, Fleet, HOUR, channel, gently, key_id, kind};

fn row_of(id: strongroom::KeyId) -> RowKey {
    RowKey::Key(TenantId::new("acme").unwrap(), id)
}

async fn erase(fleet: &Fleet, name: &str) {
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let this = Selector::fields([("channel", name)]);
    let erasure = admin.erase("acme", this, Duration::ZERO).await.unwrap();
    assert_eq!(admin.carry_out_erasure("acme", &erasure.id, &gently()).await.unwrap().done, 1);
}

#[tokio::test]
async fn records_of_destroyed_keys_go_after_their_time_and_no_others() {
    let fleet = Fleet::new().await;
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let mut sealed = Vec::new();
    for name in ["erased", "late", "revoked", "rotated", "active"] {
        sealed.push(channel(&fleet.node, name).await.seal(&[], b"x").await.unwrap());
    }
    admin.revoke("acme", Selector::fields([("channel", "revoked")])).await.unwrap();
    admin.rotate("acme", &[("channel", "rotated")]).await.unwrap();
    erase(&fleet, "erased").await;
    fleet.clock.advance(2 * DAY - HOUR);
    erase(&fleet, "late").await;
    fleet.clock.advance(HOUR);
    let too_soon = admin.remove_destroyed("acme", DAY - Duration::from_millis(1), &gently()).await;
    assert_eq!(kind(too_soon), ErrorKind::InvalidArgument);
    assert_eq!(admin.remove_destroyed("acme", 2 * DAY + HOUR, &gently()).await.unwrap().done, 0);
    assert_eq!(admin.remove_destroyed("acme", DAY, &gently()).await.unwrap().done, 1);
    let left: Vec<_> = fleet.records().await.iter().map(|record| record.key_id).collect();
    assert!(!left.contains(&key_id(&sealed[0])), "the one that was erased two days ago");
    assert!(sealed[1..].iter().all(|sealed| left.contains(&key_id(sealed))), "and no other");
    // It says who, why and which, and is found done.
    let journal = admin.journal("acme").await.unwrap();
    let last = journal.last().unwrap();
    assert_eq!(
        (last.decision.verb.as_str(), last.decision.keys.as_slice()),
        ("remove-destroyed", &[key_id(&sealed[0])][..])
    );
    let epoch = admin.tenant("acme").await.unwrap().epoch;
    assert_eq!(admin.remove_destroyed("acme", DAY, &gently()).await.unwrap().done, 0);
    assert_eq!(admin.tenant("acme").await.unwrap().epoch, epoch, "nothing to say");
    // The scope goes on, where its key was known as the Active one and anew.
    fleet.settle();
    for node in [&fleet.node, &fleet.other] {
        let scope = channel(node, "erased").await;
        assert_eq!(kind(scope.open(&[], &sealed[0]).await), ErrorKind::Unopenable, "as under a key that never was");
        let new = scope.seal(&[], b"goes on").await.unwrap();
        assert_ne!(key_id(&new), key_id(&sealed[0]));
    }
    channel(&fleet.other, "active").await.open(&[], &sealed[4]).await.unwrap();
    channel(&fleet.other, "rotated").await.open(&[], &sealed[3]).await.unwrap();
}

#[tokio::test]
async fn a_removed_record_that_is_put_back_opens_and_seals_nothing() {
    let fleet = Fleet::new().await;
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let scope = channel(&fleet.node, "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    let id = key_id(&sealed);
    let of = |id| fleet.store.raw_rows().into_iter().find(|(key, ..)| *key == row_of(id)).unwrap();
    let active = of(id);
    erase(&fleet, "C9").await;
    let destroyed = of(id);
    fleet.clock.advance(DAY);
    assert_eq!(admin.remove_destroyed("acme", DAY, &gently()).await.unwrap().done, 1);
    for (key, bytes, index) in [active, destroyed] {
        fleet.store.raw_put(&key, Some(bytes), index);
        fleet.settle();
        for node in [&fleet.node, &fleet.other] {
            let scope = channel(node, "C9").await;
            assert_eq!(kind(scope.open(&[], &sealed).await), ErrorKind::Erased);
            let listed = admin.keys("acme", None, 10).await.unwrap().keys;
            assert_eq!(listed.iter().find(|key| key.key_id == id).unwrap().state, KeyState::Destroyed);
            if let Ok(new) = scope.seal(&[], b"y").await {
                assert_ne!(key_id(&new), id, "sealed under a key that was erased");
            }
        }
    }
    // Whatever was put back and says Destroyed goes with the next call.
    fleet.clock.advance(DAY);
    let removed = admin.remove_destroyed("acme", DAY, &gently()).await.unwrap();
    assert!(removed.done <= 1 && removed.failed == 0, "{removed:?}");
}

/// A node in other hands says Destroyed of a key that nobody erased: nothing in the tenant's row would keep its old record from opening.
#[tokio::test]
async fn what_only_a_record_calls_destroyed_is_not_removed() {
    let fleet = Fleet::new().await;
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let sealed = channel(&fleet.node, "C9").await.seal(&[], b"x").await.unwrap();
    let id = key_id(&sealed);
    let mut record = fleet.record(&sealed).await;
    (record.state, record.wrapped) = (KeyState::Destroyed, None);
    let last = record.transitions.last_mut().unwrap();
    last.state = KeyState::Destroyed;
    let (_, _, index) = fleet.store.raw_rows().into_iter().find(|(key, ..)| *key == row_of(id)).unwrap();
    let mut index = index.unwrap();
    index.state = KeyState::Destroyed;
    fleet.store.raw_put(&row_of(id), Some(TakenOverNode::of(&fleet.node).tag(&record).unwrap()), Some(index));
    fleet.clock.advance(2 * DAY);
    let refused = admin.remove_destroyed("acme", DAY, &gently()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert_eq!(Walked::of(&refused).unwrap().failed_keys, [id]);
    assert_eq!(fleet.records().await.len(), 1);
}

#[tokio::test]
async fn a_removal_that_failed_half_way_is_finished_by_the_next_call() {
    let fleet = Fleet::new().await;
    for n in 0..7 {
        channel(&fleet.node, &n.to_string()).await.seal(&[], b"x").await.unwrap();
    }
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let erasure = admin.erase("acme", Selector::everything(), Duration::ZERO).await.unwrap();
    admin.carry_out_erasure("acme", &erasure.id, &gently()).await.unwrap();
    fleet.clock.advance(DAY);
    let puts = std::sync::atomic::AtomicU32::new(0);
    let store = Failpoints::new(Arc::clone(&fleet.store), move |point| {
        if point == "store.put.key.before" && puts.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1 {
            return Err(Error::new(ErrorKind::Unavailable, "the database is away"));
        }
        Ok(())
    });
    let builder = Strongroom::builder().serving([EU]).key_store(store).kms(fleet.kms.clone());
    let node = builder.clock(fleet.clock.clone()).open_under(&fleet.operator).await;
    let cut_short =
        node.admin("a test", "to test").unwrap().remove_destroyed("acme", DAY, &gently()).await.unwrap_err();
    assert_eq!((cut_short.kind(), Walked::of(&cut_short).unwrap().done), (ErrorKind::Unavailable, 3));
    assert_eq!(fleet.records().await.len(), 4);
    assert_eq!(admin.remove_destroyed("acme", DAY, &gently()).await.unwrap().done, 4);
    assert_eq!(fleet.records().await, []);
}
