//! After a compromise: keys that somebody else may know seal no more, whatever the store shows.

use strongroom::{ErrorKind, KeyState, RowKey};

use crate::world::{World, channel, key_id, kind, tenant, walk};

#[tokio::test]
async fn a_key_that_was_given_up_never_seals_again() {
    let world = World::new().await;
    let sealed = world.seal(&world.node, "acme", "C9").await.unwrap();
    let (_, before) = world.record("acme", key_id(&sealed));
    let walked = world.admin().rotate_after_compromise("acme", channel("C9"), &walk()).await.unwrap();
    assert_eq!(walked.done, 1);
    let next = world.seal(&world.node, "acme", "C9").await.unwrap();
    assert_ne!(key_id(&next), key_id(&sealed));
    world.open(&world.node, "acme", "C9", &sealed).await.unwrap();
    // Its record of before in its successor's place, Active.
    let (_, successor) = world.record("acme", key_id(&next));
    world.store.raw_put(&successor.0, None, None);
    world.store.raw_put(&before.0, Some(before.1.clone()), before.2.clone());
    for watermark in [true, false] {
        let node = world.fresh(watermark).await;
        let anew = world.seal(&node, "acme", "C9").await.unwrap();
        assert_ne!(key_id(&anew), key_id(&sealed), "a key that was given up sealed again");
        world.open(&node, "acme", "C9", &sealed).await.unwrap();
        world.store.raw_put(&RowKey::Key(tenant("acme"), key_id(&anew)), None, None);
        world.store.raw_put(&before.0, Some(before.1.clone()), before.2.clone());
    }
    let listed = world.admin().keys("acme", None, 10).await.unwrap().keys;
    let state = listed.iter().find(|key| key.key_id == key_id(&sealed)).unwrap().state;
    assert_eq!(state, KeyState::Compromised);
}

/// Wrapped anew by an honest rewrap, it is still the key that was given up.
#[tokio::test]
async fn a_rewrap_does_not_wash_a_key_that_was_given_up() {
    let world = World::new().await;
    let sealed = world.seal(&world.node, "globex", "C9").await.unwrap();
    let (_, before) = world.record("globex", key_id(&sealed));
    world.admin().rotate_after_compromise("globex", channel("C9"), &walk()).await.unwrap();
    world.store.raw_put(&before.0, Some(before.1), before.2);
    let new = world.local.create_kek("globex-2027", crate::world::region()).unwrap();
    world.admin().rewrap("globex", &new, &walk()).await.unwrap();
    let (record, _) = world.record("globex", key_id(&sealed));
    assert_eq!((record.state, record.made_epoch), (KeyState::Active, 1), "a rewrap moves neither");
    for watermark in [true, false] {
        let node = world.fresh(watermark).await;
        assert_ne!(key_id(&world.seal(&node, "globex", "C9").await.unwrap()), key_id(&sealed));
    }
}

/// `rotate` is hygiene: the store's writer can take it back. It says so.
#[tokio::test]
async fn a_rotation_is_only_as_good_as_the_store() {
    let world = World::new().await;
    let sealed = world.seal(&world.node, "globex", "C9").await.unwrap();
    let (_, before) = world.record("globex", key_id(&sealed));
    world.admin().rotate_all("globex", channel("C9"), &walk()).await.unwrap();
    world.store.raw_put(&before.0, Some(before.1), before.2);
    let node = world.fresh(true).await;
    assert_eq!(key_id(&world.seal(&node, "globex", "C9").await.unwrap()), key_id(&sealed));
}

#[tokio::test]
async fn a_selector_that_covers_nothing_gives_up_nothing() {
    let world = World::new().await;
    let nothing = strongroom::Selector::fields::<String, String>([]);
    let admin = world.admin();
    assert_eq!(kind(admin.rotate_after_compromise("acme", nothing, &walk()).await), ErrorKind::InvalidArgument);
}
