//! The room's own rows: another room's under the same root, a second one, one that is gone, one of before, and racing creators.

use std::sync::Arc;

use strongroom::testing::{ManualClock, Operator};
use strongroom::{ErrorKind, LocalKms, MemoryKeyStore, RowKey, Strongroom, StrongroomBuilder, Subject};

use crate::world::{EU, NOW, World, kind};

fn builder(operator: &Operator, store: &Arc<MemoryKeyStore>, name: &str) -> StrongroomBuilder {
    let builder = Strongroom::builder().serving([EU]).key_store(Arc::clone(store)).kms(LocalKms::in_memory());
    let builder = builder.clock(ManualClock::at(NOW)).room(name).root(operator.root.clone());
    builder.watermark(Arc::clone(&operator.watermark))
}

#[tokio::test]
async fn building_never_creates_a_room() {
    let (operator, store) = (Operator::default(), Arc::new(MemoryKeyStore::default()));
    assert_eq!(kind(builder(&operator, &store, "chat").build().await), ErrorKind::InvalidArgument);
    assert!(store.raw_rows().is_empty());
    builder(&operator, &store, "chat").create_room("alice", "a start").await.unwrap();
    assert_eq!(kind(builder(&operator, &store, "chat").create_room("alice", "again").await), ErrorKind::Conflict);
    builder(&operator, &store, "chat").build().await.unwrap();
    // Neither by another name, nor without a root, nor under another one.
    assert_eq!(kind(builder(&operator, &store, "staging").build().await), ErrorKind::InvalidArgument);
    let trusting = Strongroom::builder().serving([EU]).key_store(Arc::clone(&store)).kms(LocalKms::in_memory());
    assert_eq!(kind(trusting.clone().trusting_the_key_store().build().await), ErrorKind::InvalidArgument);
    assert_eq!(kind(trusting.build().await), ErrorKind::InvalidArgument);
    let other = Operator { root: Operator::default().root, watermark: Arc::clone(&operator.watermark) };
    assert_eq!(kind(builder(&other, &store, "chat").build().await), ErrorKind::Denied);
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_finished() {
    let (operator, store) = (Operator::default(), Arc::new(MemoryKeyStore::default()));
    builder(&operator, &store, "chat").create_room("alice", "a start").await.unwrap();
    // As if it had ended before the watermark took note.
    let again = Operator { root: operator.root.clone(), ..Operator::default() };
    builder(&again, &store, "chat").create_room("alice", "again").await.unwrap();
    let mark = operator.watermark.read(&Subject::Room).await.unwrap();
    assert!(mark.is_some() && again.watermark.read(&Subject::Room).await.unwrap() == mark);
    builder(&again, &store, "chat").build().await.unwrap();
}

#[tokio::test]
async fn of_racing_creators_one_creates() {
    for _ in 0..20 {
        let (operator, store) = (Operator::default(), Arc::new(MemoryKeyStore::default()));
        let one = builder(&operator, &store, "chat");
        let racers: Vec<_> = (0..8)
            .map(|n| {
                let one = one.clone();
                tokio::spawn(async move { one.create_room(&format!("racer {n}"), "a race").await })
            })
            .collect();
        let mut won = 0;
        for racer in racers {
            match racer.await.unwrap() {
                Ok(()) => won += 1,
                Err(e) => assert!(matches!(e.kind(), ErrorKind::Conflict | ErrorKind::InvalidArgument), "{e}"),
            }
        }
        assert!(won >= 1);
        one.build().await.unwrap();
    }
}

/// Staging under the same root, by another name or, carelessly, by the same one.
#[tokio::test]
async fn another_room_s_row_is_not_this_one_s() {
    let world = World::new().await;
    for name in ["staging", Operator::ROOM] {
        let store = Arc::new(MemoryKeyStore::default());
        let staging = Operator { root: world.operator.root.clone(), ..Operator::default() };
        builder(&staging, &store, name).create_room("mallory", "staging").await.unwrap();
        let honest = world.store.snapshot();
        for key in [RowKey::Room, RowKey::Fleet] {
            let theirs = store.raw_rows().into_iter().find(|row| row.0 == key).unwrap().1;
            world.store.raw_put(&key, Some(theirs), None);
        }
        for watermark in [true, false] {
            let built = world.try_fresh(watermark).await;
            match (name == Operator::ROOM, watermark) {
                (false, _) => assert_eq!(kind(built), ErrorKind::InvalidArgument),
                (true, true) => assert_eq!(kind(built), ErrorKind::RolledBack),
                // The limit without a watermark: it starts, as staging's, and believes none of this room's rows.
                (true, false) => {
                    let node = built.unwrap();
                    assert_eq!(kind(world.seal(&node, "acme", "C9").await), ErrorKind::Tampered);
                }
            }
        }
        world.store.restore(&honest);
    }
}

#[tokio::test]
async fn a_room_s_row_that_is_gone_or_of_before_is_refused() {
    let world = World::new().await;
    let before = world.row(&RowKey::Room);
    world.admin().evict().await.unwrap();
    let after = world.row(&RowKey::Room);
    world.store.raw_put(&before.0, Some(before.1.clone()), None);
    assert_eq!(kind(world.try_fresh(true).await), ErrorKind::RolledBack);
    // Without a watermark a process believes the generation before, whose keys the evicted node has.
    assert!(world.try_fresh(false).await.is_ok());
    world.store.raw_put(&before.0, None, None);
    assert_eq!(kind(world.try_fresh(true).await), ErrorKind::RolledBack);
    assert_eq!(kind(world.try_fresh(false).await), ErrorKind::InvalidArgument);
    // Every bit of it counts.
    for bit in (0..after.1.len() * 8).step_by(97) {
        let mut edited = after.1.clone();
        edited[bit / 8] ^= 1 << (bit % 8);
        world.store.raw_put(&after.0, Some(edited), None);
        assert!(world.try_fresh(true).await.is_err() && world.try_fresh(false).await.is_err(), "bit {bit}");
    }
    world.store.raw_put(&after.0, Some(after.1), None);
    world.fresh(true).await;
}

/// An evicted control plane writes the room back to the generation that it knows, as the next version of its row.
#[tokio::test]
async fn an_evicted_control_plane_does_not_bring_its_generation_back() {
    use strongroom::testing::{TakenOverControlPlane, row_body};
    let world = World::new().await;
    let thief = TakenOverControlPlane::of(&world.node).await.unwrap();
    let before = world.row(&RowKey::Room);
    world.admin().evict().await.unwrap();
    let after = world.row(&RowKey::Room);
    let mut body = String::from_utf8(row_body(&before.0, &before.1).unwrap()).unwrap();
    let digest = strongroom::RowDigest::of(&after.1);
    body = body.replace("\"epoch\":1,\"predecessor\":null", &format!("\"epoch\":3,\"predecessor\":\"{digest}\""));
    assert!(body.contains("\"epoch\":3"));
    let forged = thief.sign_text(&before.0, &body).unwrap();
    world.store.raw_put(&RowKey::Room, Some(forged), None);
    for watermark in [true, false] {
        assert!(world.try_fresh(watermark).await.is_err(), "the watermark: {watermark}");
    }
    // Nodes that run have no lease on a store whose room they do not believe; and nobody is evicted in vain.
    assert!(world.admin().evict().await.is_err());
    world.store.raw_put(&RowKey::Room, Some(after.1), None);
    world.settle();
    world.seal(&world.node, "acme", "C9").await.unwrap();
}

/// The control plane needs a watermark: it would sign what an older copy says.
#[tokio::test]
async fn without_a_watermark_there_is_no_control_plane() {
    let world = World::new().await;
    assert_eq!(kind(world.fresh(false).await.admin("alice", "a test")), ErrorKind::InvalidArgument);
    for (actor, reason) in [("", "why"), ("who", ""), ("who\n", "why")] {
        assert_eq!(kind(world.node.admin(actor, reason)), ErrorKind::InvalidArgument);
    }
}
