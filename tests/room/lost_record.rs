//! A key whose record is gone from the store seals no more once the lease is renewed: nobody could ever open what it seals.

use std::time::Duration;

use strongroom::{ErrorKind, RowKey, TenantId};

use crate::{House, key_id, kind};

const BOUND: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_deleted_record_stops_sealing_with_the_next_lease() {
    let house = House::new().await;
    let (scope, other) = (house.channel("acme", "C9").await, house.channel("acme", "C8").await);
    let (sealed, kept) = (scope.seal(&[], b"x").await.unwrap(), other.seal(&[], b"x").await.unwrap());
    let record = RowKey::Key(TenantId::new("acme").unwrap(), key_id(&sealed));
    house.store.raw_put(&record, None, None);
    house.clock.advance(BOUND);
    for _ in 0..3 {
        assert_eq!(kind(scope.seal(&[], b"lost").await), ErrorKind::StoreInconsistent);
    }
    assert_eq!(key_id(&other.seal(&[], b"x").await.unwrap()), key_id(&kept), "the others go on");
    assert!(scope.open(&[], &sealed).await.is_ok(), "in hand, it opens what it sealed");
}

#[tokio::test]
async fn a_record_that_was_edited_stops_sealing_with_the_next_lease() {
    let house = House::new().await;
    let scope = house.channel("acme", "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    let record = RowKey::Key(TenantId::new("acme").unwrap(), key_id(&sealed));
    let (_, mut bytes, index) = house.store.raw_rows().into_iter().find(|row| row.0 == record).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    house.store.raw_put(&record, Some(bytes), index);
    house.clock.advance(BOUND);
    assert_eq!(kind(scope.seal(&[], b"lost").await), ErrorKind::Tampered);
}

#[tokio::test]
async fn a_store_that_is_put_back_under_a_running_room_takes_no_more_messages_for_keys_it_lost() {
    let house = House::new().await;
    let before = house.store.snapshot();
    let scope = house.channel("acme", "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    house.store.restore(&before);
    house.clock.advance(BOUND);
    assert_eq!(kind(scope.seal(&[], b"lost").await), ErrorKind::StoreInconsistent);
    // Whoever starts anew knows nothing of the lost key.
    let other = house.other_process().await;
    let new = crate::channel_of(&other, "acme", "C9").await.seal(&[], b"x").await.unwrap();
    assert_ne!(key_id(&new), key_id(&sealed));
    // And the room that knew it goes on with the key that there is now.
    assert_eq!(key_id(&scope.seal(&[], b"x").await.unwrap()), key_id(&new));
}
