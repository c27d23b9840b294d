//! The log of changes: what is taken out of it, forged into it, or put back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use strongroom::testing::{Failpoints, TakenOverControlPlane};
use strongroom::{Change, ErrorKind, Forget, KeyStore, Selector, Strongroom};

use crate::world::{BOUND, EU, World, channel, kind};

/// What has not happened by then never will.
const HANGS: Duration = Duration::from_secs(60);

/// The newest entries are taken out. With a watermark the log has to reach what it counts: no lease, no open.
#[tokio::test]
async fn a_dropped_change_does_not_outlast_the_bound() {
    let world = World::new().await;
    world.admin().revoke("acme", channel("C8")).await.unwrap();
    let other = world.fresh(true).await;
    let sealed = world.seal(&other, "acme", "C9").await.unwrap();
    let before = world.store.log(Some(0), 1000).await.unwrap();
    world.admin().revoke("acme", channel("C9")).await.unwrap();
    world.store.raw_log_set(before.entries.clone());
    // The other node has the key in hand and has heard nothing.
    world.settle();
    assert_eq!(kind(world.open(&other, "acme", "C9", &sealed).await), ErrorKind::RolledBack);
    // An authentic entry, the revocation of another channel, in the place of the one that was dropped is not at its place.
    let filler = before.entries.last().unwrap().1.clone();
    let end = before.end + 1;
    world.store.raw_log_set([before.entries.clone(), vec![(end, filler)]].concat());
    assert_eq!(kind(world.open(&other, "acme", "C9", &sealed).await), ErrorKind::Revoked);
}

/// Forged entries make nodes forget, once within each bound, and nothing else.
#[tokio::test]
async fn forged_purges_are_rate_limited() {
    let world = World::new().await;
    let readings = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&readings);
    let counting = Failpoints::new(Arc::clone(&world.store), move |point| {
        counted.fetch_add(u32::from(point == "store.log.after"), Ordering::SeqCst);
        Ok(())
    });
    let builder = Strongroom::builder().serving([EU]).key_store(counting).kms(world.kms.clone());
    let builder = builder.clock(world.clock.clone()).revocation_bound(BOUND);
    let node = world.operator.equip(builder).build().await.unwrap();
    let sealed = world.seal(&node, "acme", "C9").await.unwrap();
    world.settle();
    let (unwraps, mut opened) = (world.kms.unwraps(), 0);
    // Twenty forged entries, one each second; the node hears of each at once, and not only when its lease ends.
    for _ in 0..20 {
        let before = readings.load(Ordering::SeqCst);
        world.store.put(&[], Some(&|_| b"forged".to_vec())).await.unwrap();
        world.clock.advance(Duration::from_secs(1));
        let heard = async {
            while readings.load(Ordering::SeqCst) == before {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(HANGS, heard).await.expect("the node does not read the log when it grows");
        opened += u32::from(world.open(&node, "acme", "C9", &sealed).await.is_ok());
    }
    let loads = (world.kms.unwraps() - unwraps) / 2; // two holders
    assert!(opened >= 16, "{opened} of 20 opened");
    assert!(loads <= 5, "{loads} loads within four bounds");
}

/// What a control plane that was taken over adds to the log narrows, as everybody's entries do.
#[tokio::test]
async fn the_log_only_narrows() {
    let world = World::new().await;
    let sealed = world.seal(&world.node, "acme", "C9").await.unwrap();
    world.admin().revoke("acme", channel("C9")).await.unwrap();
    let thief = TakenOverControlPlane::of(&world.node).await.unwrap();
    for forget in [Forget::Nothing, Forget::Sealing, Forget::Keys] {
        for tenant in [None, Some("acme".parse().unwrap())] {
            let change = Change { tenant, selector: Selector::everything(), forget };
            world.store.put(&[], Some(&|number| thief.sign_change(number, &change))).await.unwrap();
            world.settle();
            assert_eq!(kind(world.open(&world.node, "acme", "C9", &sealed).await), ErrorKind::Revoked);
        }
    }
}

/// The store is another one: what seals is looked up again, and a key whose record is gone seals no more.
#[tokio::test]
async fn a_store_that_changes_identity_is_noticed() {
    let world = World::new().await;
    let empty = world.store.snapshot();
    let sealed = world.seal(&world.node, "globex", "C9").await.unwrap();
    // Its record is looked up once more and stands: from now on nothing but the store's identity has it looked up again.
    world.settle();
    world.open(&world.node, "globex", "C9", &sealed).await.unwrap();
    world.store.restore(&empty);
    world.store.raw_identity_set("a standby that was promoted");
    world.settle();
    assert_eq!(kind(world.seal(&world.node, "globex", "C9").await), ErrorKind::StoreInconsistent);
    world.open(&world.node, "globex", "C9", &sealed).await.unwrap();
}

/// Found by the model of an attacker: he empties the log, and the next honest decision takes the number, and with it the place, of the
/// one that he took out.
#[tokio::test]
async fn an_honest_decision_does_not_take_the_place_of_one_that_was_dropped() {
    let world = World::new().await;
    let other = world.fresh(true).await;
    let sealed = world.seal(&other, "acme", "C9").await.unwrap();
    world.admin().revoke("acme", channel("C9")).await.unwrap();
    world.store.raw_log_set(Vec::new());
    let walk = crate::world::walk();
    let decided = world.admin().rotate_after_compromise("acme", channel("C8"), &walk).await;
    assert_eq!(kind(decided), ErrorKind::RolledBack);
    world.settle();
    assert_eq!(kind(world.open(&other, "acme", "C9", &sealed).await), ErrorKind::Revoked);
}

/// A control plane that was evicted signs an entry that says nothing, in the place of a revocation.
#[tokio::test]
async fn an_evicted_control_plane_s_entry_counts_for_nothing() {
    let world = World::new().await;
    let other = world.fresh(true).await;
    let thief = TakenOverControlPlane::of(&world.node).await.unwrap();
    world.admin().evict().await.unwrap();
    let sealed = world.seal(&other, "acme", "C9").await.unwrap();
    world.settle();
    world.open(&other, "acme", "C9", &sealed).await.unwrap();
    world.admin().revoke("acme", channel("C9")).await.unwrap();
    let mut entries = world.store.log(Some(0), 1000).await.unwrap().entries;
    let (number, entry) = entries.last_mut().unwrap();
    let nothing = Change { tenant: None, selector: Selector::everything(), forget: Forget::Nothing };
    *entry = thief.sign_change(*number, &nothing);
    world.store.raw_log_set(entries);
    world.settle();
    assert_eq!(kind(world.open(&other, "acme", "C9", &sealed).await), ErrorKind::Revoked);
}

/// Found by fuzzing: he adds entries, which make nodes forget everything and go on, and takes them out again. The next honest
/// decision takes a number that nodes have heard of.
#[tokio::test]
async fn a_decision_in_the_place_of_a_forged_entry_is_heard() {
    for (forged, back) in [(1, false), (3, false), (3, true)] {
        let world = World::new().await;
        let other = world.fresh(true).await;
        let sealed = world.seal(&other, "acme", "C9").await.unwrap();
        let before = world.store.log(Some(0), 1000).await.unwrap();
        for _ in 0..forged {
            world.store.put(&[], Some(&|_| b"forged".to_vec())).await.unwrap();
        }
        let with_forged = world.store.log(Some(0), 1000).await.unwrap();
        world.settle();
        world.open(&other, "acme", "C9", &sealed).await.unwrap(); // it has heard of them, and has the key in hand again
        world.store.raw_log_set(before.entries.clone());
        world.admin().revoke("acme", channel("C9")).await.unwrap();
        if back {
            // All but the one whose number the decision took stand there as before.
            let mut entries = world.store.log(Some(0), 1000).await.unwrap().entries;
            entries.extend(with_forged.entries.into_iter().skip(entries.len()));
            world.store.raw_log_set(entries);
        }
        world.settle();
        assert_eq!(kind(world.open(&other, "acme", "C9", &sealed).await), ErrorKind::Revoked, "{forged} {back}");
    }
}
