use strongroom::{KeyState, RotationPolicy, Selector};

use crate::{Fleet, channel, gently, key_id};

#[tokio::test]
async fn a_rotation_reaches_every_node_within_the_bound() {
    let fleet = Fleet::new().await;
    let (here, there) = (channel(&fleet.node, "C9").await, channel(&fleet.other, "C9").await);
    let before = here.seal(&[], b"before").await.unwrap();
    assert_eq!(key_id(&there.seal(&[], b"x").await.unwrap()), key_id(&before));
    let new = fleet.node.admin("a test", "to test").unwrap().rotate("acme", &[("channel", "C9")]).await.unwrap();
    assert_eq!(key_id(&here.seal(&[], b"x").await.unwrap()), new);
    fleet.settle();
    assert_eq!(key_id(&there.seal(&[], b"x").await.unwrap()), new);
    assert_eq!(&*there.open(&[], &before).await.unwrap(), b"before");
}

#[tokio::test]
async fn after_a_compromise_every_scope_gets_a_new_key_and_old_messages_open() {
    let fleet = Fleet::new().await;
    let mut old = Vec::new();
    for n in 0..8 {
        old.push(channel(&fleet.node, &format!("C{n}")).await.seal(&[], b"old").await.unwrap());
    }
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let walked = admin.rotate_all("acme", Selector::everything(), &gently()).await.unwrap();
    assert_eq!((walked.done, walked.seen, walked.failed), (8, 8, 0));
    let again = admin.rotate_all("acme", Selector::everything(), &gently()).await.unwrap();
    assert_eq!(again.done, 0, "what is done stays done");
    fleet.settle();
    for (n, old) in old.iter().enumerate() {
        for node in [&fleet.node, &fleet.other] {
            let scope = channel(node, &format!("C{n}")).await;
            assert_ne!(key_id(&scope.seal(&[], b"new").await.unwrap()), key_id(old));
            assert_eq!(&*scope.open(&[], old).await.unwrap(), b"old");
        }
    }
    let records = fleet.records().await;
    let count = |state| records.iter().filter(|r| r.state == state).count();
    assert_eq!((count(KeyState::Active), count(KeyState::Deactivated)), (8, 8));
}

#[tokio::test]
async fn age_and_count_rotate_by_themselves() {
    let policy = RotationPolicy::default().max_messages(3).max_age(crate::DAY);
    let fleet = Fleet::with(|p| p.rotation(policy)).await;
    let scope = channel(&fleet.node, "C9").await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(key_id(&scope.seal(&[], b"x").await.unwrap()));
    }
    ids.dedup();
    assert_eq!(ids.len(), 3, "3, 3 and 1 messages");
    fleet.clock.advance(crate::DAY);
    assert_ne!(key_id(&scope.seal(&[], b"x").await.unwrap()), ids[2]);
}
