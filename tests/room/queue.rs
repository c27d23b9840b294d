//! Loads that wait for their turn in this process: in order, for a bounded time, and only as long as somebody waits for them.

use std::time::Duration;

use futures_util::future::join_all;
use strongroom::testing::{Fault, FaultyKms, ManualClock, Operator};
use strongroom::{ErrorKind, LocalKms, MemoryKeyStore, ScopeHandle, Selector, Strongroom, TenantPolicy};
use tokio::time::Instant;

use crate::{HOME, NOW, channel_of, region};

/// A room whose KMS is asked for one thing of a tenant's at once.
async fn one_at_once() -> (Strongroom, FaultyKms) {
    let local = LocalKms::in_memory();
    let kms = FaultyKms::new(local.clone());
    let builder = Strongroom::builder().serving([HOME]).key_store(MemoryKeyStore::default()).kms(kms.clone());
    let room = builder.kms_calls_per_tenant(1).clock(ManualClock::at(NOW)).open_under(&Operator::default()).await;
    for tenant in ["acme", "globex"] {
        let kek = local.create_kek(tenant, region(HOME)).unwrap();
        let policy = TenantPolicy::new(kek, region(HOME)).scope_by(["channel"]).allow_unbound_messages();
        let policy = policy.verify_new_keys(false);
        room.admin("a test", "to test").unwrap().enroll(tenant, policy).await.unwrap();
    }
    (room, kms)
}

async fn channels(room: &Strongroom, tenant: &str, count: usize) -> Vec<ScopeHandle> {
    let tenant = room.tenant(tenant).await.unwrap();
    (0..count).map(|n| tenant.scope([("channel", &*format!("C{n}"))]).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_for_a_turn_is_told_that_this_process_is_to_blame() {
    let (room, kms) = one_at_once().await;
    // It answers within its deadline, and slowly: forty loads are more than it does in two minutes.
    kms.set(Fault::Slow(Duration::from_secs(4)));
    let (scopes, other) = (channels(&room, "acme", 40).await, channel_of(&room, "globex", "C1").await);
    let began = Instant::now();
    let all = join_all(scopes.iter().map(|scope| scope.seal(&[], b"x")));
    let another = async {
        other.seal(&[], b"x").await.unwrap();
        began.elapsed()
    };
    let (all, another) = tokio::join!(all, another);
    assert!(another <= Duration::from_secs(5), "another tenant waited {another:?}");
    let (made, refused): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
    assert!((28..=31).contains(&made.len()), "{} were made", made.len());
    for refused in refused.into_iter().map(|refused| refused.unwrap_err()) {
        assert!(refused.kind() == ErrorKind::Overloaded && refused.is_retryable(), "{refused}");
        assert_eq!(refused.tenant(), Some("acme"));
        assert!(refused.to_string().contains("this process has too much to do"), "{refused}");
        assert!(refused.to_string().contains("Neither the key store nor a KMS is to blame"), "{refused}");
    }
    // Nor is it remembered as a failure of theirs.
    kms.set(Fault::None);
    for scope in &scopes {
        scope.seal(&[], b"x").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_before_his_turn_gives_it_up() {
    let (room, kms) = one_at_once().await;
    kms.set(Fault::Slow(Duration::from_secs(4)));
    let mut scopes = channels(&room, "acme", 30).await;
    let (first, last) = (scopes.remove(0), scopes.remove(28));
    let (before, began) = (kms.calls(), Instant::now());
    let first = tokio::spawn(async move { first.seal(&[], b"x").await.map(drop) });
    tokio::time::sleep(Duration::from_millis(1)).await;
    // Two callers for each: the second is who counts.
    let two = |scope: ScopeHandle| {
        [scope.clone(), scope].map(|it| tokio::spawn(async move { it.seal(&[], b"x").await.map(drop) }))
    };
    let gone: Vec<_> = scopes.into_iter().flat_map(two).collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let last = two(last);
    tokio::time::sleep(Duration::from_secs(1)).await;
    gone.iter().for_each(tokio::task::JoinHandle::abort);
    last[0].abort();
    let [_, last] = last;
    last.await.unwrap().unwrap();
    first.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(9), "it waited {:?} for who had gone", began.elapsed());
    assert_eq!(kms.calls() - before, 2, "keys were made that nobody waited for");
}

#[tokio::test(start_paused = true)]
async fn a_decision_waits_for_no_load_of_a_key() {
    let (room, kms) = one_at_once().await;
    kms.set(Fault::Hangs);
    let before = kms.calls();
    let loads: Vec<_> = channels(&room, "acme", 40)
        .await
        .into_iter()
        .map(|scope| tokio::spawn(async move { scope.seal(&[], b"x").await.map(drop) }))
        .collect();
    while kms.calls() == before {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    room.admin("a test", "to test").unwrap().revoke("acme", Selector::everything()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "it waited {:?}", began.elapsed());
    assert!(loads.iter().all(|load| !load.is_finished()), "the test did not test what it should");
    loads.iter().for_each(tokio::task::JoinHandle::abort);
}

// Sixteen tries without a pause: of thirty-two that rotated one scope at once, half lost each time and gave up.
#[tokio::test(start_paused = true)]
async fn rotations_of_one_scope_at_once_all_come_through() {
    let local = LocalKms::in_memory();
    let kms = FaultyKms::new(local.clone());
    let builder = Strongroom::builder().serving([HOME]).key_store(MemoryKeyStore::default()).kms(kms.clone());
    let room = builder.clock(ManualClock::at(NOW)).kms_calls_per_tenant(64).open_under(&Operator::default()).await;
    let kek = local.create_kek("acme", region(HOME)).unwrap();
    let policy = TenantPolicy::new(kek, region(HOME)).scope_by(["channel"]).allow_unbound_messages();
    let admin = room.admin("a test", "to test").unwrap();
    admin.enroll("acme", policy.verify_new_keys(false)).await.unwrap();
    channel_of(&room, "acme", "C1").await.seal(&[], b"x").await.unwrap();
    kms.set(Fault::Slow(Duration::from_millis(5)));
    let rotated = join_all((0..32).map(|_| admin.rotate("acme", &[("channel", "C1")])));
    let mut keys: Vec<_> = rotated.await.into_iter().map(|key| key.unwrap()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 32, "two rotations made one key");
}
