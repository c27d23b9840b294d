//! Incident mode: opening is suspended, sealing goes on.

use std::time::Duration;

use strongroom::{ErrorKind, RowKey, Selector};

use crate::world::{NOW, World, channel, kind, tenant};

const MINUTE: i64 = 60_000;

#[tokio::test]
async fn a_suspended_scope_seals_and_does_not_open_until_the_end() {
    let world = World::new().await;
    let other = world.fresh(true).await;
    let before = world.seal(&other, "acme", "C9").await.unwrap();
    let elsewhere = world.seal(&other, "acme", "C8").await.unwrap();
    world.admin().suspend_opens("acme", channel("C9"), NOW + 2 * MINUTE).await.unwrap();
    // Here at once, there within the bound, and on a node that starts now.
    assert_eq!(kind(world.open(&world.node, "acme", "C9", &before).await), ErrorKind::Suspended);
    world.settle();
    for node in [&world.node, &other, &world.fresh(true).await] {
        let meanwhile = world.seal(node, "acme", "C9").await.unwrap();
        for sealed in [&before, &meanwhile] {
            let refused = world.open(node, "acme", "C9", sealed).await.unwrap_err();
            assert_eq!((refused.kind(), refused.is_retryable()), (ErrorKind::Suspended, true), "{refused}");
        }
        world.open(node, "acme", "C8", &elsewhere).await.unwrap();
    }
    // It ends by itself.
    world.clock.advance(Duration::from_secs(120));
    for node in [&world.node, &other] {
        world.open(node, "acme", "C9", &before).await.unwrap();
    }
    // Or is lifted.
    world.admin().suspend_opens("acme", Selector::everything(), NOW + 60 * MINUTE).await.unwrap();
    world.settle();
    assert_eq!(kind(world.open(&other, "acme", "C8", &elsewhere).await), ErrorKind::Suspended);
    assert_eq!(kind(world.admin().resume_opens("acme", channel("C9")).await), ErrorKind::InvalidArgument);
    world.admin().resume_opens("acme", Selector::everything()).await.unwrap();
    for node in [&world.node, &other] {
        world.open(node, "acme", "C8", &elsewhere).await.unwrap();
    }
    // A suspension has an end that is to come.
    for until in [0, NOW, i64::MAX] {
        assert_eq!(kind(world.admin().suspend_opens("acme", channel("C9"), until).await), ErrorKind::InvalidArgument);
    }
}

#[tokio::test]
async fn the_whole_fleet_is_suspended_and_a_missing_row_means_suspended() {
    let world = World::new().await;
    let other = world.fresh(true).await;
    let mut sealed = Vec::new();
    for of in ["acme", "globex"] {
        sealed.push((of, world.seal(&other, of, "C9").await.unwrap()));
    }
    let open_all = async |expected: Option<ErrorKind>| {
        for node in [&world.node, &other] {
            for (of, envelope) in &sealed {
                let opened = world.open(node, of, "C9", envelope).await.err().map(|e| e.kind());
                assert_eq!(opened, expected, "{of}");
                world.seal(node, of, "C9").await.unwrap();
            }
        }
    };
    open_all(None).await;
    let free = world.row(&RowKey::Fleet);
    let now = NOW + MINUTE;
    world.admin().suspend_all_opens(now).await.unwrap();
    let suspended = world.row(&RowKey::Fleet);
    assert_eq!(world.admin().all_opens_suspended_until().await.unwrap(), Some(now));
    world.settle();
    open_all(Some(ErrorKind::Suspended)).await;
    // The row of before, another row, no row: none frees anybody.
    let acme = world.row(&RowKey::Tenant(tenant("acme"))).1;
    for bytes in [Some(free.1.clone()), Some(acme), Some(b"{}".to_vec()), None] {
        world.store.raw_put(&free.0, bytes, None);
        world.settle();
        open_all(Some(ErrorKind::Suspended)).await;
        let fresh = world.fresh(true).await;
        assert_eq!(kind(world.open(&fresh, "acme", "C9", &sealed[0].1).await), ErrorKind::Suspended);
    }
    world.store.raw_put(&free.0, Some(suspended.1.clone()), None);
    // It ends by itself.
    world.clock.advance(Duration::from_secs(60));
    open_all(None).await;
    // Removed afterwards it means suspended all the same.
    world.store.raw_put(&free.0, None, None);
    world.settle();
    open_all(Some(ErrorKind::Suspended)).await;
    world.store.raw_put(&free.0, Some(suspended.1), None);
    world.settle();
    open_all(None).await;
    world.admin().suspend_all_opens(NOW + 10 * MINUTE).await.unwrap();
    world.settle();
    open_all(Some(ErrorKind::Suspended)).await;
    world.admin().resume_all_opens().await.unwrap();
    world.settle();
    open_all(None).await;
}
