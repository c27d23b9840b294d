//! What a wall clock that is far off does to the keys that are made meanwhile.

use std::time::Duration;

use strongroom::ErrorKind;

use crate::{House, NOW, key_id};

/// 2099-01-01
const FAR_AHEAD: i64 = 4_070_908_800_000;

#[tokio::test]
async fn a_key_that_was_made_while_the_clock_was_far_ahead_is_rotated_once_it_is_right() {
    let house = House::new().await;
    house.clock.set_back(NOW - FAR_AHEAD);
    let made = house.channel("acme", "C9").await.seal(&[], b"x").await.unwrap();
    house.clock.set_back(FAR_AHEAD - NOW);
    house.clock.advance(Duration::from_secs(300));
    let scope = house.channel("acme", "C9").await;
    assert_ne!(key_id(&scope.seal(&[], b"x").await.unwrap()), key_id(&made));
    assert!(scope.open(&[], &made).await.is_ok());
}

#[tokio::test]
async fn nodes_whose_clocks_differ_by_minutes_do_not_replace_each_other_s_keys() {
    let house = House::new().await;
    let made = house.channel("acme", "C9").await.seal(&[], b"x").await.unwrap();
    house.clock.set_back(10 * 60 * 1000);
    house.room.admin("a test", "to test").unwrap().purge("acme").unwrap();
    let scope = house.channel("acme", "C9").await;
    assert_eq!(key_id(&scope.seal(&[], b"x").await.unwrap()), key_id(&made));
}

#[tokio::test]
async fn no_key_is_made_before_the_clock_is_set() {
    let house = House::new().await;
    house.clock.set_back(NOW);
    let e = house.channel("acme", "C9").await.seal(&[], b"x").await.err().unwrap();
    assert!(e.kind() == ErrorKind::Unavailable && e.to_string().contains("clock"), "{e}");
    assert_eq!(house.kms.generates(), 0);
    house.clock.set_back(-NOW);
    house.channel("acme", "C9").await.seal(&[], b"x").await.unwrap();
}
