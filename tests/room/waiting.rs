//! How long callers wait where a store or a KMS is slow, hangs or refuses, and what it is asked meanwhile.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use strongroom::testing::{Fault, FaultyKms, ManualClock, Operator};
use strongroom::{ErrorKind, LocalKms, MemoryKeyStore, Strongroom, TenantPolicy};
use tokio::time::Instant;

use crate::store::WatchedStore;
use crate::{HOME, House, NOW, channel_of, kind, region};

fn purge(house: &House, tenant: &str) {
    house.room.admin("a test", "to test").unwrap().purge(tenant).unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_log_that_hangs_waits_one_bound_whoever_else_waits() {
    let (store, clock, bound) = (WatchedStore::default(), ManualClock::at(NOW), Duration::from_secs(1));
    let local = LocalKms::in_memory();
    let kek = local.create_kek("acme", region(HOME)).unwrap();
    let builder = Strongroom::builder().serving([HOME]).key_store(store.clone()).kms(local).clock(clock.clone());
    let room = builder.revocation_bound(bound).open_under(&Operator::default()).await;
    let policy = TenantPolicy::new(kek, region(HOME)).scope_by(["channel"]).allow_unbound_messages();
    room.admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
    let scope = channel_of(&room, "acme", "C9").await;
    scope.seal(&[], b"x").await.unwrap();
    store.hang(true);
    clock.advance(bound);
    let began = Instant::now();
    let waited = join_all((0..8).map(|_| async { (kind(scope.seal(&[], b"x").await), began.elapsed()) })).await;
    for (kind, waited) in waited {
        assert_eq!(kind, ErrorKind::Unavailable);
        assert!(waited <= bound + Duration::from_millis(10), "waited {waited:?}");
    }
    store.hang(false);
    // A reading that hung is still waited for, by the clock that is paused here.
    let again = async { while scope.seal(&[], b"x").await.is_err() {} };
    tokio::time::timeout(3 * bound, again).await.expect("it seals again");
}

#[tokio::test]
async fn a_tenant_that_is_denied_or_down_is_not_asked_for_with_every_call() {
    for fault in [ErrorKind::Denied, ErrorKind::Unavailable] {
        let (store, clock, operator) = (WatchedStore::default(), ManualClock::at(NOW), Operator::default());
        let local = LocalKms::in_memory();
        let kms = FaultyKms::new(local.clone());
        let builder = Strongroom::builder().serving([HOME]).key_store(store.clone()).kms(kms.clone());
        let room = builder.clock(clock.clone()).open_under(&operator).await;
        let admin = room.admin("a test", "to test").unwrap();
        let kek = local.create_kek("acme", region(HOME)).unwrap();
        let policy = TenantPolicy::new(kek, region(HOME)).scope_by(["channel"]).allow_unbound_messages();
        admin.enroll("acme", policy.clone()).await.unwrap();
        let scope = channel_of(&room, "acme", "C9").await;
        let sealed = scope.seal(&[], b"x").await.unwrap();
        admin.purge("acme").unwrap();
        kms.set(Fault::Fails(fault));
        let (calls, reads) = (kms.calls(), store.reads());
        for _ in 0..1_000 {
            let e = scope.open(&[], &sealed).await.err().unwrap();
            assert_eq!((e.kind(), e.tenant()), (fault, Some("acme")));
        }
        assert!(kms.calls() - calls <= 5, "{} KMS calls", kms.calls() - calls);
        assert!(store.reads() - reads <= 30, "{} store reads", store.reads() - reads);
        // It is remembered for a moment.
        kms.set(Fault::None);
        clock.advance(Duration::from_secs(1));
        scope.open(&[], &sealed).await.unwrap();
        // A decision about the tenant ends the moment.
        admin.purge("acme").unwrap();
        kms.set(Fault::Fails(fault));
        for _ in 0..10 {
            assert_eq!(kind(scope.open(&[], &sealed).await), fault);
        }
        kms.set(Fault::None);
        assert_eq!(kind(scope.open(&[], &sealed).await), fault, "remembered");
        let row = admin.tenant("acme").await.unwrap();
        admin.set_policy(&row, policy.cache_ttl(Duration::from_secs(60))).await.unwrap();
        scope.open(&[], &sealed).await.unwrap();
    }
}

/// One failure, or two, is not remembered: who tries again at once is not told what was true a moment ago.
#[tokio::test]
async fn a_failure_that_passes_is_not_remembered() {
    let house = House::new().await;
    let scope = house.channel("acme", "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    for _ in 0..5 {
        purge(&house, "acme");
        house.kms.set(Fault::Fails(ErrorKind::Unavailable));
        assert_eq!(kind(scope.open(&[], &sealed).await), ErrorKind::Unavailable);
        house.kms.set(Fault::None);
        scope.open(&[], &sealed).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_turn_at_a_kms_that_answers_is_no_outage() {
    let local = LocalKms::in_memory();
    let kms = FaultyKms::new(local.clone());
    let builder = Strongroom::builder().serving([HOME]).key_store(MemoryKeyStore::default()).kms(kms.clone());
    let room = builder.kms_deadline(Duration::from_millis(100)).kms_calls_per_tenant(4);
    let room = room.clock(ManualClock::at(NOW)).open_under(&Operator::default()).await;
    let kek = local.create_kek("acme", region(HOME)).unwrap();
    let policy = TenantPolicy::new(kek, region(HOME)).scope_by(["channel"]).allow_unbound_messages();
    room.admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
    let scopes = join_all((0..100).map(|c| channel_of(&room, "acme", Box::leak(c.to_string().into_boxed_str())))).await;
    let sealed = join_all(scopes.iter().map(|scope| scope.seal(&[], b"x"))).await;
    room.admin("a test", "to test").unwrap().purge("acme").unwrap();
    kms.set(Fault::Slow(Duration::from_millis(20)));
    // 25 turns of 20 ms: five times the deadline.
    let opened = join_all(scopes.iter().zip(&sealed).map(|(scope, sealed)| {
        let sealed = sealed.as_ref().unwrap();
        async move { scope.open(&[], sealed).await.map(|_| ()) }
    }));
    for opened in opened.await {
        opened.unwrap();
    }
    // A KMS that hangs costs everybody behind it two deadlines at most, and the error says which of them it was.
    room.admin("a test", "to test").unwrap().purge("acme").unwrap();
    kms.set(Fault::Hangs);
    let began = Instant::now();
    let refused = join_all(scopes.iter().zip(&sealed).map(|(scope, sealed)| {
        let sealed = sealed.as_ref().unwrap();
        async move { scope.open(&[], sealed).await.err().unwrap() }
    }));
    let refused = refused.await;
    assert!(began.elapsed() <= Duration::from_millis(210), "{:?}", began.elapsed());
    assert!(refused.iter().all(|e| e.kind() == ErrorKind::Unavailable));
    let behind = refused.iter().filter(|e| e.to_string().contains("waiting for a turn")).count();
    assert!(behind >= 90, "{behind} were told that they waited for a turn: {}", refused[99]);
}

/// Two KMSs: one of scheme `local`, one that only has another scheme.
struct Renamed(FaultyKms);

#[async_trait::async_trait]
impl strongroom::Kms for Renamed {
    fn scheme(&self) -> &'static str {
        "far"
    }

    async fn describe(&self, kek: &strongroom::KekUri) -> strongroom::Result<strongroom::KekDescription> {
        self.0.describe(&near(kek)).await
    }

    async fn wrap(
        &self,
        kek: &strongroom::KekUri,
        context: &strongroom::EncryptionContext,
        data_key: &strongroom::DataKey,
    ) -> strongroom::Result<Vec<u8>> {
        self.0.wrap(&near(kek), context, data_key).await
    }

    async fn unwrap(
        &self,
        kek: &strongroom::KekUri,
        context: &strongroom::EncryptionContext,
        wrapped: &[u8],
    ) -> strongroom::Result<strongroom::DataKey> {
        self.0.unwrap(&near(kek), context, wrapped).await
    }
}

fn near(kek: &strongroom::KekUri) -> strongroom::KekUri {
    kek.as_str().replacen("far:", "local:", 1).parse().unwrap()
}

pub(crate) struct Two {
    pub(crate) room: Strongroom,
    pub(crate) far: FaultyKms,
}

/// acme's KEKs are `expression`, of `far:acme`, `local:acme` and `local:other`.
pub(crate) async fn two(expression: &str) -> Two {
    two_with(expression, |policy| policy).await
}

/// As [`two`], with more in the policy.
pub(crate) async fn two_with(expression: &str, more: impl Fn(TenantPolicy) -> TenantPolicy) -> Two {
    let (here, there) = (LocalKms::in_memory(), LocalKms::in_memory());
    for name in ["acme", "other"] {
        here.create_kek(name, region(HOME)).unwrap();
        there.create_kek(name, region(HOME)).unwrap();
    }
    let far = FaultyKms::new(there);
    let builder = Strongroom::builder().serving([HOME]).key_store(Arc::new(MemoryKeyStore::default()));
    let room = builder.kms(here).kms(Renamed(far.clone())).clock(ManualClock::at(NOW));
    let room = room.open_under(&Operator::default()).await;
    let keks: strongroom::KekExpression = expression.parse().unwrap();
    let policy = TenantPolicy::new(keks, region(HOME)).scope_by(["channel"]).allow_unbound_messages();
    room.admin("a test", "to test").unwrap().enroll("acme", more(policy)).await.unwrap();
    Two { room, far }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_hangs_costs_one_wait_and_not_one_with_each_key() {
    for expression in ["any_of(far:acme, local:acme)", "all_of(any_of(far:acme, local:acme), local:other)"] {
        let two = two(expression).await;
        let mut sealed = Vec::new();
        for channel in ["C1", "C2", "C3", "C4", "C5"] {
            let scope = channel_of(&two.room, "acme", channel).await;
            sealed.push((scope.seal(&[], b"x").await.unwrap(), scope));
        }
        two.room.admin("a test", "to test").unwrap().purge("acme").unwrap();
        two.far.set(Fault::Hangs);
        let began = Instant::now();
        for (sealed, scope) in &sealed {
            scope.open(&[], sealed).await.unwrap();
        }
        // A tenth of the deadline of 5 s, once.
        assert!(began.elapsed() < Duration::from_secs(1), "{expression}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_member_that_gives_another_key_keeps_no_expression_from_opening() {
    for expression in [
        "any_of(far:acme, local:acme)",
        "all_of(any_of(far:acme, local:acme), local:other)",
        "any_of(all_of(any_of(far:acme, local:acme), local:other), far:other)",
    ] {
        let two = two(expression).await;
        let scope = channel_of(&two.room, "acme", "C1").await;
        let sealed = scope.seal(&[], b"x").await.unwrap();
        two.room.admin("a test", "to test").unwrap().purge("acme").unwrap();
        two.far.set(Fault::WrongKey);
        assert!(scope.open(&[], &sealed).await.is_ok(), "{expression}");
        two.room.admin("a test", "to test").unwrap().purge("acme").unwrap();
        two.far.set(Fault::ShortKey);
        assert!(scope.open(&[], &sealed).await.is_ok(), "{expression}, a short one");
    }
    // Where no combination gives the key, nothing opens.
    let two = two("all_of(any_of(far:acme, far:other), local:other)").await;
    let scope = channel_of(&two.room, "acme", "C1").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    two.room.admin("a test", "to test").unwrap().purge("acme").unwrap();
    two.far.set(Fault::WrongKey);
    assert_eq!(kind(scope.open(&[], &sealed).await), ErrorKind::KeyMismatch);
}
