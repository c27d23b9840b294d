//! The turn of the hour: the next hour's keys are made ahead of it, for scopes that are in use, and under every rule that holds.

use std::time::{Duration, Instant};

use strongroom::testing::Fault;
use strongroom::{ErrorKind, KeyId, KeyRecord, Period, ScopeHandle, Selector, Strongroom, TenantPolicy};

use crate::{House, channel_of, key_id, kind};

/// From [`crate::NOW`], 05:17:29.5, to 20 seconds before the hour, and to 10: by then every scope in use has its turn.
const NEAR: Duration = Duration::from_millis(2_530_500);
const NEARER: Duration = Duration::from_secs(10);
/// What hangs is broken; no bound that anybody documents.
const HANGS: Duration = Duration::from_secs(60);

async fn hourly() -> House {
    House::with(|policy: TenantPolicy| policy.period(Period::Hour)).await
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < HANGS, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn records(house: &House) -> Vec<KeyRecord> {
    house.room.admin("a test", "to test").unwrap().keys("acme", None, 100).await.unwrap().keys
}

fn hour(record: &KeyRecord) -> String {
    record.period.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// A room whose only scope is in use, 10 seconds before the hour, with a key in memory for this hour and one for the next.
async fn before_the_turn() -> (House, ScopeHandle, KeyId) {
    let house = hourly().await;
    let scope = house.channel("acme", "C9").await;
    house.clock.advance(NEAR);
    let now = key_id(&scope.seal(&[], b"this hour's").await.unwrap());
    assert_eq!(house.room.cached_keys(), 1);
    house.clock.advance(NEARER);
    until("the next hour's key", async || house.room.cached_keys() == 2).await;
    (house, scope, now)
}

#[tokio::test]
async fn at_the_turn_messages_go_on_though_the_kms_is_down_and_hot_handles_by_themselves() {
    let (house, scope, before) = before_the_turn().await;
    let hot = scope.hot().await.unwrap();
    // Not before its hour, to the last millisecond.
    house.clock.advance(NEARER - Duration::from_millis(1));
    for _ in 0..20 {
        assert_eq!(key_id(&scope.seal(&[], b"still this hour's").await.unwrap()), before);
    }
    house.kms.set(Fault::Fails(ErrorKind::Unavailable));
    let calls = house.kms.calls();
    house.clock.advance(Duration::from_millis(1));
    let sealed = hot.seal(&[], b"the next hour's").unwrap();
    assert_ne!(key_id(&sealed), before);
    let also = scope.seal(&[], b"the next hour's").await.unwrap();
    assert_eq!((key_id(&also), house.kms.calls()), (key_id(&sealed), calls), "no KMS was asked");
    assert_eq!(&*scope.open(&[], &sealed).await.unwrap(), b"the next hour's");
    let mut hours: Vec<_> = records(&house).await.iter().map(hour).collect();
    hours.sort();
    assert_eq!(hours, ["hour=2026-11-22T05Z", "hour=2026-11-22T06Z"], "one Active key an hour");
}

#[tokio::test]
async fn a_scope_that_seals_nothing_gets_no_key_for_the_next_hour() {
    let house = hourly().await;
    house.clock.advance(NEAR);
    // In memory, but not in use: it was made, and then only opens.
    let idle = house.channel("acme", "idle").await;
    let old = idle.seal(&[], b"long ago").await.unwrap();
    house.room.admin("a test", "to test").unwrap().purge("acme").unwrap();
    assert!(idle.open(&[], &old).await.is_ok());
    let scope = house.channel("acme", "C9").await;
    scope.seal(&[], b"now").await.unwrap();
    assert_eq!(house.room.cached_keys(), 2);
    house.clock.advance(NEARER);
    until("the next hour's key", async || house.room.cached_keys() == 3).await;
    let next: Vec<_> = records(&house).await.into_iter().filter(|record| hour(record).ends_with("06Z")).collect();
    assert_eq!((next.len(), &next[0].scope), (1, scope.scope()));
}

#[tokio::test]
async fn what_is_decided_before_the_turn_holds_after_it() {
    let this_channel = || Selector::fields([("channel", "C9")]);
    // Revoked: gone from memory at once, and no key of the next hour seals.
    let (house, scope, _) = before_the_turn().await;
    let admin = house.room.admin("a test", "to test").unwrap();
    admin.revoke("acme", this_channel()).await.unwrap();
    assert_eq!(house.room.cached_keys(), 0);
    house.clock.advance(NEARER);
    assert_eq!(kind(scope.seal(&[], b"x").await), ErrorKind::Revoked);
    admin.restore("acme", this_channel()).await.unwrap();
    assert!(scope.seal(&[], b"x").await.is_ok());

    // Revoked by another node, which this one hears of: within the bound it seals no more.
    let (house, scope, _) = before_the_turn().await;
    let elsewhere = house.other_process().await;
    elsewhere.admin("a test", "to test").unwrap().revoke("acme", this_channel()).await.unwrap();
    until("the news", async || house.room.cached_keys() == 0).await;
    house.clock.advance(NEARER);
    assert_eq!(kind(scope.seal(&[], b"x").await), ErrorKind::Revoked);

    // Denied by the KMS for what is loaded meanwhile: the key that waits goes with the others.
    let (house, scope, _) = before_the_turn().await;
    house.kms.set(Fault::Fails(ErrorKind::Denied));
    assert_eq!(kind(house.channel("acme", "C8").await.seal(&[], b"x").await), ErrorKind::Denied);
    assert_eq!(house.room.cached_keys(), 0);
    house.clock.advance(NEARER);
    assert_eq!(kind(scope.seal(&[], b"x").await), ErrorKind::Denied);

    // Given up after a compromise: the key that waits was made before it, and another one takes its place.
    let (house, scope, _) = before_the_turn().await;
    let made: Vec<_> = records(&house).await.iter().map(|record| record.key_id).collect();
    let admin = house.room.admin("a test", "to test").unwrap();
    admin.rotate_after_compromise("acme", Selector::everything(), &strongroom::WalkOptions::default()).await.unwrap();
    house.clock.advance(NEARER);
    let sealed = key_id(&scope.seal(&[], b"x").await.unwrap());
    assert!(!made.contains(&sealed));

    // Another policy: what is sealed after the turn is under its rules.
    let (house, scope, _) = before_the_turn().await;
    let admin = house.room.admin("a test", "to test").unwrap();
    let row = admin.tenant("acme").await.unwrap();
    admin.set_policy(&row, row.policy.clone().bind(["message"])).await.unwrap();
    house.clock.advance(NEARER);
    assert_eq!(kind(scope.seal(&[], b"x").await), ErrorKind::InvalidArgument);
    assert!(scope.seal(&[("message", "M1")], b"x").await.is_ok());
}

#[tokio::test]
async fn a_purge_takes_the_key_that_waits() {
    let (house, scope, _) = before_the_turn().await;
    assert_eq!(house.room.admin("a test", "to test").unwrap().purge("acme").unwrap(), 2);
    house.kms.set(Fault::Fails(ErrorKind::Unavailable));
    house.clock.advance(NEARER);
    assert_eq!(kind(scope.seal(&[], b"x").await), ErrorKind::Unavailable);
    house.kms.set(Fault::None);
    until("the KMS", async || scope.seal(&[], b"x").await.is_ok()).await;
    assert_eq!(records(&house).await.len(), 2, "the key that was made is found");
}

#[tokio::test]
async fn two_nodes_make_one_key_for_the_next_hour() {
    let house = hourly().await;
    let other: Strongroom = house.other_process().await;
    let scopes = [house.channel("acme", "C9").await, channel_of(&other, "acme", "C9").await];
    house.clock.advance(NEAR);
    for scope in &scopes {
        scope.seal(&[], b"x").await.unwrap();
    }
    house.clock.advance(NEARER);
    until("both keys", async || house.room.cached_keys() == 2 && other.cached_keys() == 2).await;
    house.kms.set(Fault::Fails(ErrorKind::Unavailable));
    house.clock.advance(NEARER);
    let [here, there] = [&scopes[0], &scopes[1]].map(|scope| scope.seal(&[], b"x"));
    assert_eq!(key_id(&here.await.unwrap()), key_id(&there.await.unwrap()));
    assert_eq!(records(&house).await.len(), 2);
}

#[tokio::test]
async fn a_kms_that_fails_before_the_turn_is_nobody_s_concern_until_then() {
    let house = hourly().await;
    let scope = house.channel("acme", "C9").await;
    house.clock.advance(NEAR);
    scope.seal(&[], b"x").await.unwrap();
    house.kms.set(Fault::Fails(ErrorKind::Unavailable));
    let calls = house.kms.calls();
    house.clock.advance(NEARER);
    until("a try", async || {
        assert!(scope.seal(&[], b"x").await.is_ok(), "no caller notices");
        house.kms.calls() > calls
    })
    .await;
    assert_eq!(house.room.cached_keys(), 1);
    house.kms.set(Fault::None);
    house.clock.advance(NEARER);
    until("the KMS", async || scope.seal(&[], b"x").await.is_ok()).await;
}
