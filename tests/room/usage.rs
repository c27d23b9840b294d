//! How often a data key was used outlives whatever is cached of it.

use std::collections::HashMap;
use std::time::Duration;

use strongroom::{KeyId, RotationPolicy};

use crate::{HOME, House, TTL, channel_of, key_id, region};

/// How many messages each key sealed.
async fn sealed_under(house: &House, uses: &mut HashMap<KeyId, usize>, messages: usize) {
    for _ in 0..messages {
        // A handle for each request: no slot outlives its key in the cache.
        let sealed = house.channel("acme", "C9").await.seal(&[], b"x").await.unwrap();
        *uses.entry(key_id(&sealed)).or_default() += 1;
    }
}

async fn house_with_a_limit_of_100() -> House {
    House::with(|p| p.rotation(RotationPolicy::default().max_messages(100))).await
}

#[tokio::test(start_paused = true)]
async fn a_usage_limit_holds_over_expired_keys_and_handles_that_come_and_go() {
    let (house, mut uses) = (house_with_a_limit_of_100().await, HashMap::new());
    for _ in 0..9 {
        sealed_under(&house, &mut uses, 60).await;
        house.clock.advance(TTL);
        while house.room.cached_keys() > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await; // the clock is paused: until it was swept
        }
    }
    assert_eq!(uses.values().sum::<usize>(), 540);
    assert!(uses.values().all(|uses| *uses <= 100), "{uses:?}");
    assert_eq!(uses.len(), 6);
}

#[tokio::test]
async fn a_usage_limit_holds_over_purges() {
    let (house, mut uses) = (house_with_a_limit_of_100().await, HashMap::new());
    for _ in 0..30 {
        sealed_under(&house, &mut uses, 60).await;
        house.room.admin("a test", "to test").unwrap().purge("acme").unwrap();
    }
    assert!(uses.values().all(|uses| *uses <= 100), "{uses:?}");
    assert_eq!(uses.values().sum::<usize>(), 1_800);
}

#[tokio::test]
async fn a_usage_limit_holds_over_eviction() {
    let house = House::empty().await;
    let builder = strongroom::Strongroom::builder().serving([HOME]).key_store(std::sync::Arc::clone(&house.store));
    let room = builder.kms(house.kms.clone()).cached_keys(2).open_under(&house.operator).await;
    let kek = house.local.create_kek("acme", region(HOME)).unwrap();
    let policy = strongroom::TenantPolicy::new(kek, region(HOME)).scope_by(["channel"]).allow_unbound_messages();
    let policy = policy.rotation(RotationPolicy::default().max_messages(10));
    room.admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
    let mut uses: HashMap<KeyId, usize> = HashMap::new();
    for _ in 0..8 {
        for channel in ["C1", "C2", "C3", "C4"] {
            for _ in 0..4 {
                let sealed = channel_of(&room, "acme", channel).await.seal(&[], b"x").await.unwrap();
                *uses.entry(key_id(&sealed)).or_default() += 1;
            }
        }
    }
    assert!(uses.values().all(|uses| *uses <= 10), "{uses:?}");
}
