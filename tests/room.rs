//! What a room promises its embedders, through the public API alone.

#[path = "room/ahead.rs"]
mod ahead;
#[path = "room/building.rs"]
mod building;
mod captured_log;
#[path = "room/lost_record.rs"]
mod lost_record;
#[path = "room/members.rs"]
mod members;
#[path = "room/operators_log.rs"]
mod operators_log;
#[path = "room/queue.rs"]
mod queue;
#[path = "room/refusals.rs"]
mod refusals;
#[path = "room/store.rs"]
mod store;
#[path = "room/usage.rs"]
mod usage;
#[path = "room/waiting.rs"]
mod waiting;
#[path = "room/wall_clock.rs"]
mod wall_clock;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use strongroom::testing::{Failpoints, Fault, FaultyKms, ManualClock, Operator, TakenOverNode};
use strongroom::{
    Error, ErrorKind, Header, KekUri, KeyId, KeyRecord, KeyState, LocalKms, MemoryKeyStore, PageRow, Period, Region,
    RotationPolicy, RowKey, ScopeHandle, Selector, Strongroom, Suite, TenantPolicy,
};

/// 2026-11-22T05:17:29.5Z
const NOW: i64 = 1_795_324_649_500;
const HOME: &str = "eu-central-1";
const TTL: Duration = Duration::from_secs(300);

/// Two tenants, `acme` and `globex`, each with a KEK of its own, scoped by channel.
struct House {
    operator: Operator,
    room: Strongroom,
    store: Arc<MemoryKeyStore>,
    local: LocalKms,
    kms: FaultyKms,
    clock: ManualClock,
}

fn region(name: &str) -> Region {
    Region::new(name).unwrap()
}

impl House {
    async fn empty() -> Self {
        let local = LocalKms::in_memory();
        let kms = FaultyKms::new(local.clone());
        let (store, clock) = (Arc::new(MemoryKeyStore::default()), ManualClock::at(NOW));
        let operator = Operator::default();
        let room = Self::another_room(&operator, &store, &kms, &clock, [HOME]).await;
        Self { operator, room, store, local, kms, clock }
    }

    async fn another_room<const N: usize>(
        operator: &Operator,
        store: &Arc<MemoryKeyStore>,
        kms: &FaultyKms,
        clock: &ManualClock,
        serving: [&str; N],
    ) -> Strongroom {
        let builder = Strongroom::builder().serving(serving).key_store(Arc::clone(store)).kms(kms.clone());
        builder.clock(clock.clone()).open_under(operator).await
    }

    /// Another process on the same store and KMS.
    async fn other_process(&self) -> Strongroom {
        Self::another_room(&self.operator, &self.store, &self.kms, &self.clock, [HOME]).await
    }

    async fn with(edit: impl Fn(TenantPolicy) -> TenantPolicy) -> Self {
        let house = Self::empty().await;
        for tenant in ["acme", "globex"] {
            let kek = house.local.create_kek(tenant, region(HOME)).unwrap();
            let policy = edit(TenantPolicy::new(kek, region(HOME)).scope_by(["channel"]).allow_unbound_messages());
            house.room.admin("a test", "to test").unwrap().enroll(tenant, policy).await.unwrap();
        }
        house
    }

    async fn new() -> Self {
        Self::with(|policy| policy).await
    }

    async fn channel(&self, tenant: &str, channel: &str) -> ScopeHandle {
        channel_of(&self.room, tenant, channel).await
    }
}

async fn channel_of(room: &Strongroom, tenant: &str, channel: &str) -> ScopeHandle {
    room.tenant(tenant).await.unwrap().scope([("channel", channel)]).unwrap()
}

fn key_id(envelope: &[u8]) -> KeyId {
    KeyId::from_bytes(*Header::parse(envelope).unwrap().key_id())
}

fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    match result {
        Ok(_) => panic!("accepted"),
        Err(e) => e.kind(),
    }
}

#[tokio::test]
async fn seals_and_opens_on_both_suites_and_all_ways() {
    for suite in Suite::ALL {
        let house = House::with(|p| p.suite(suite)).await;
        let scope = house.channel("acme", "C9").await;
        let m77 = [("message", "M77")];
        for len in [0, 1, 15, 16, 17, 4096, 1 << 20] {
            let text = vec![0xA5; len];
            let mut sealed = scope.seal(&m77, &text).await.unwrap();
            assert_eq!(sealed.len(), scope.sealed_len(len));
            assert_eq!(&*scope.open(&m77, &sealed).await.unwrap(), text);
            let mut appended = b"prefix".to_vec();
            scope.seal_into(&m77, &text, &mut appended).await.unwrap();
            assert_eq!(&*scope.open(&m77, &appended[6..]).await.unwrap(), text);
            assert_eq!(scope.open_in_place(&m77, &mut sealed).await.unwrap(), text);
        }
        let hot = scope.hot().await.unwrap();
        let sealed = hot.seal(&m77, b"hot").unwrap();
        assert_eq!(&*hot.open(&m77, &sealed).unwrap(), b"hot");
        assert_eq!(&*scope.open(&m77, &sealed).await.unwrap(), b"hot");
        let header = Header::parse(&sealed).unwrap();
        assert_eq!((header.region(), header.suite()), (HOME, suite));
    }
}

#[tokio::test]
async fn a_stranger_another_channel_and_another_context_are_refused_alike() {
    let house = House::new().await;
    let scope = house.channel("acme", "C9").await;
    let sealed = scope.seal(&[("message", "M77")], b"secret").await.unwrap();
    let refusals = [
        house.channel("globex", "C9").await.open(&[("message", "M77")], &sealed).await,
        house.channel("acme", "C8").await.open(&[("message", "M77")], &sealed).await,
        scope.open(&[("message", "M78")], &sealed).await,
        scope.open(&[], &sealed).await,
    ];
    for refusal in refusals {
        let e = refusal.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unopenable);
        let told = e.to_string();
        assert!(told.contains("the envelope does not open under this tenant, scope and context"), "{told}");
        assert!(!told.contains("secret"));
    }
    assert_eq!(kind(scope.open(&[], b"plain text").await), ErrorKind::Malformed);
    assert_eq!(kind(scope.open(&[], b"").await), ErrorKind::Malformed);
}

#[tokio::test]
async fn every_bit_flip_and_truncation_is_refused_through_the_facade() {
    for suite in Suite::ALL {
        let house = House::with(|p| p.suite(suite)).await;
        let scope = house.channel("acme", "C9").await;
        let sealed = scope.seal(&[], b"see you at noon").await.unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refused = kind(scope.open(&[], &flipped).await);
            assert!(
                matches!(refused, ErrorKind::Unopenable | ErrorKind::Malformed | ErrorKind::Region),
                "bit {bit}: {refused:?}"
            );
        }
        for len in 0..sealed.len() {
            let refused = kind(scope.open(&[], &sealed[..len]).await);
            assert!(matches!(refused, ErrorKind::Unopenable | ErrorKind::Malformed), "{len} bytes: {refused:?}");
        }
    }
}

// aws-encryption-sdk-javascript #1665: N callers, N KMS calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_first_users_make_one_kms_call() {
    let house = House::with(|p| p.verify_new_keys(false)).await;
    let scope = house.channel("acme", "C9").await;
    let before = house.kms.calls();
    let users: Vec<_> = (0..10_000)
        .map(|_| {
            let scope = scope.clone();
            tokio::spawn(async move { scope.seal(&[], b"first").await })
        })
        .collect();
    let mut sealed = Vec::new();
    for user in users {
        sealed.push(user.await.unwrap().unwrap());
    }
    assert_eq!(house.kms.calls() - before, 1, "a new key: one generate");

    // And 10 000 first openers of the key that exists now, in another process.
    let elsewhere = channel_of(&house.other_process().await, "acme", "C9").await;
    let before = house.kms.calls();
    let users: Vec<_> = sealed
        .into_iter()
        .map(|sealed| {
            let scope = elsewhere.clone();
            tokio::spawn(async move { scope.open(&[], &sealed).await })
        })
        .collect();
    for user in users {
        assert_eq!(&*user.await.unwrap().unwrap(), b"first");
    }
    assert_eq!(house.kms.calls() - before, 1, "an existing key: one unwrap");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_is_verified_by_one_more_call_by_default() {
    let house = House::new().await;
    let scope = house.channel("acme", "C9").await;
    let users: Vec<_> = (0..1_000)
        .map(|_| {
            let scope = scope.clone();
            tokio::spawn(async move { scope.seal(&[], b"first").await })
        })
        .collect();
    for user in users {
        user.await.unwrap().unwrap();
    }
    assert_eq!((house.kms.generates(), house.kms.unwraps()), (1, 1));
}

// aws-encryption-sdk #899: runtime deadlock when concurrency exceeds cores.
#[tokio::test(flavor = "current_thread")]
async fn many_cold_scopes_on_one_thread_do_not_deadlock() {
    let house = House::new().await;
    let mut users = Vec::new();
    for i in 0..200 {
        let scope = house.channel("acme", &format!("C{}", i % 50)).await;
        users.push(tokio::spawn(async move { scope.seal(&[], b"x").await }));
    }
    for user in users {
        user.await.unwrap().unwrap();
    }
    assert_eq!(house.kms.generates(), 50);
}

#[tokio::test]
async fn callers_share_a_failure_and_the_next_one_tries_again() {
    let house = House::new().await;
    let scope = house.channel("acme", "C9").await;
    house.kms.set(Fault::Fails(ErrorKind::Throttled));
    let before = house.kms.calls();
    let tries = (0..100).map(|_| scope.seal(&[], b"x"));
    let results = futures_util::future::join_all(tries).await;
    for result in results {
        let e = result.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Throttled);
        assert!(e.is_retryable());
        assert_eq!((e.tenant(), e.kek(), e.region()), (Some("acme"), Some("local:acme"), Some(HOME)));
    }
    assert_eq!(house.kms.calls() - before, 1);
    house.kms.set(Fault::None);
    scope.seal(&[], b"x").await.unwrap();
}

// CVE-2020-8897, CVE-2025-14760: a wrapped key that unwraps to another key must not open or seal a byte.
#[tokio::test]
async fn a_lying_kms_is_caught_before_a_byte_is_sealed_or_opened() {
    let house = House::new().await;
    let scope = house.channel("acme", "C9").await;
    for (fault, caught) in [(Fault::WrongKey, ErrorKind::KeyMismatch), (Fault::EmptyWrapping, ErrorKind::Unavailable)] {
        house.kms.set(fault);
        assert_eq!(kind(scope.seal(&[], b"x").await), caught, "{fault:?} while creating");
        assert!(
            house.room.admin("a test", "to test").unwrap().keys("acme", None, 10).await.unwrap().keys.is_empty(),
            "a bad key was stored"
        );
    }
    house.kms.set(Fault::None);
    let sealed = scope.seal(&[], b"x").await.unwrap();
    house.room.admin("a test", "to test").unwrap().purge("acme").unwrap();
    for fault in [Fault::WrongKey, Fault::ShortKey] {
        house.kms.set(fault);
        assert_eq!(kind(scope.open(&[], &sealed).await), ErrorKind::KeyMismatch, "{fault:?}");
        assert_eq!(kind(scope.seal(&[], b"x").await), ErrorKind::KeyMismatch, "{fault:?}");
        assert_eq!(house.room.cached_keys(), 0);
    }
    house.kms.set(Fault::None);
    assert_eq!(&*scope.open(&[], &sealed).await.unwrap(), b"x");
}

// tink-go #4: a wrapped key not bound to its tenant. asherah #252: cross-tenant decrypt.
#[tokio::test]
async fn another_tenants_wrapped_key_does_not_unwrap_even_under_one_kek() {
    let house = House::empty().await;
    let kek = house.local.create_kek("shared", region(HOME)).unwrap();
    for tenant in ["acme", "globex"] {
        let policy = TenantPolicy::new(kek.clone(), region(HOME))
            .scope_by(["channel"])
            .allow_unbound_messages()
            .share_kek(kek.clone());
        house.room.admin("a test", "to test").unwrap().enroll(tenant, policy).await.unwrap();
    }
    let acme = house.channel("acme", "C9").await;
    let sealed = acme.seal(&[], b"acme's").await.unwrap();
    // A tampered store: acme's record under globex's name.
    let record = house.room.admin("a test", "to test").unwrap().keys("acme", None, 1).await.unwrap().keys.remove(0);
    let (_, bytes, index) =
        house.store.raw_rows().into_iter().find(|(key, ..)| matches!(key, RowKey::Key(..))).unwrap();
    let stolen = RowKey::Key("globex".parse().unwrap(), record.key_id);
    house.store.raw_put(&stolen, Some(bytes), index.clone());
    let globex = house.channel("globex", "C9").await;
    assert_eq!(kind(globex.open(&[], &sealed).await), ErrorKind::Tampered);
    assert_eq!(kind(globex.seal(&[], b"x").await), ErrorKind::Tampered);
    // As a node that was taken over would do it: the KMS has bound the key to acme.
    let moved = KeyRecord { tenant: "globex".parse().unwrap(), ..record.clone() };
    house.store.raw_put(&stolen, Some(TakenOverNode::of(&house.room).tag(&moved).unwrap()), index.clone());
    assert_eq!(kind(globex.open(&[], &sealed).await), ErrorKind::Tampered, "of another incarnation");
    let row = house.room.admin("a test", "to test").unwrap().tenant("globex").await.unwrap();
    let moved = KeyRecord { incarnation: row.incarnation, ..moved };
    house.store.raw_put(&stolen, Some(TakenOverNode::of(&house.room).tag(&moved).unwrap()), index);
    assert_eq!(kind(globex.open(&[], &sealed).await), ErrorKind::Denied);
    assert_eq!(kind(globex.seal(&[], b"x").await), ErrorKind::Denied);
}

/// A node that was taken over moves a record to another scope of its tenant: the KMS has bound the key to the one it was made for.
#[tokio::test]
async fn a_record_moved_to_another_scope_does_not_unwrap() {
    let house = House::new().await;
    let sealed = house.channel("acme", "C9").await.seal(&[], b"C9's").await.unwrap();
    let record = house.room.admin("a test", "to test").unwrap().keys("acme", None, 1).await.unwrap().keys.remove(0);
    let (key, _, index) = house.store.raw_rows().into_iter().find(|(key, ..)| matches!(key, RowKey::Key(..))).unwrap();
    let other = channel_of(&house.other_process().await, "acme", "C8").await;
    let moved = KeyRecord { scope: other.scope().clone(), ..record };
    let mut index = index.unwrap();
    index.scope = moved.scope.clone();
    house.store.raw_put(&key, Some(TakenOverNode::of(&house.room).tag(&moved).unwrap()), Some(index));
    assert_eq!(kind(other.open(&[], &sealed).await), ErrorKind::Denied);
    assert_eq!(kind(other.seal(&[], b"x").await), ErrorKind::Denied);
}

#[tokio::test]
async fn regions_are_checked_before_any_call() {
    let house = House::new().await;
    let scope = house.channel("acme", "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    // Another process serves another region of the same store.
    let us = House::another_room(&house.operator, &house.store, &house.kms, &house.clock, ["us-east-1"]).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    // Reading the log of changes goes on by itself and asks for no key.
    let counting = Failpoints::new(Arc::clone(&house.store), move |point| {
        counter.fetch_add(usize::from(!(point.contains("store.log") || point.contains("store.get"))), Ordering::SeqCst);
        Ok(())
    });
    let us_counting = Strongroom::builder()
        .serving(["us-east-1"])
        .key_store(counting)
        .kms(house.kms.clone())
        .open_under(&house.operator)
        .await;
    let scope = channel_of(&us_counting, "acme", "C9").await;
    let (kms_calls, store_calls) = (house.kms.calls(), asked.load(Ordering::SeqCst));
    let mut copy = sealed.clone();
    for refusal in [
        scope.seal(&[], b"x").await.map(|_| ()),
        scope.open(&[], &sealed).await.map(|_| ()),
        scope.open_in_place(&[], &mut copy).await.map(|_| ()),
        scope.open_page(&[PageRow { context: &[], envelope: &sealed }]).await.remove(0).map(|_| ()),
        scope.hot().await.map(|_| ()),
    ] {
        let e = refusal.unwrap_err();
        assert_eq!((e.kind(), e.region()), (ErrorKind::Region, Some(HOME)), "{e}");
    }
    assert_eq!(
        (house.kms.calls(), asked.load(Ordering::SeqCst)),
        (kms_calls, store_calls),
        "a call was made all the same"
    );

    // A KEK in another region than the tenant's home is refused at enrolment, and so is a home that is not served.
    let kek = house.local.create_kek("us", region("us-east-1")).unwrap();
    let admin = house.room.admin("a test", "to test").unwrap();
    let mixed = TenantPolicy::new(kek.clone(), region(HOME));
    assert_eq!(kind(admin.enroll("mixed", mixed).await), ErrorKind::Region);
    assert_eq!(kind(admin.enroll("us", TenantPolicy::new(kek.clone(), region("us-east-1"))).await), ErrorKind::Region);
    assert!(
        us.admin("a test", "to test").unwrap().enroll("us", TenantPolicy::new(kek, region("us-east-1"))).await.is_ok()
    );
}

#[tokio::test]
async fn enrolment_checks_policy_kek_and_name() {
    let house = House::new().await;
    let admin = house.room.admin("a test", "to test").unwrap();
    let policy = |kek: &str| TenantPolicy::new(KekUri::new(kek).unwrap(), region(HOME));
    assert_eq!(kind(admin.enroll("acme", policy("local:acme")).await), ErrorKind::Conflict);
    assert_eq!(kind(admin.enroll("", policy("local:acme")).await), ErrorKind::InvalidArgument);
    assert_eq!(kind(admin.enroll("new", policy("local:nope")).await), ErrorKind::Denied);
    assert_eq!(kind(admin.enroll("new", policy("aws-kms:x")).await), ErrorKind::InvalidArgument);
    assert_eq!(kind(admin.enroll("new", policy("local:acme").scope_by(["hour"])).await), ErrorKind::InvalidArgument);
    house.local.disable_kek("acme").unwrap();
    assert_eq!(kind(admin.enroll("new", policy("local:acme")).await), ErrorKind::Denied);
    assert_eq!(kind(house.room.tenant("nobody").await), ErrorKind::UnknownTenant);
    let acme = house.room.tenant("acme").await.unwrap();
    assert_eq!(kind(acme.scope([])), ErrorKind::InvalidArgument);
    assert_eq!(kind(acme.scope([("chanel", "C9")])), ErrorKind::InvalidArgument);
    assert_eq!(kind(acme.scope([("channel", "")])), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn rotation_on_demand_by_age_by_count_and_by_period() {
    let house = House::with(|p| {
        p.period(Period::Day).rotation(RotationPolicy::default().max_messages(10).max_age(Duration::from_secs(3600)))
    })
    .await;
    let scope = house.channel("acme", "C9").await;
    let mut sealed = vec![scope.seal(&[], b"1").await.unwrap()];
    let key_id = |sealed: &[u8]| *Header::parse(sealed).unwrap().key_id();
    let rotated = house.room.admin("a test", "to test").unwrap().rotate("acme", &[("channel", "C9")]).await.unwrap();
    sealed.push(scope.seal(&[], b"1").await.unwrap());
    assert_eq!(key_id(&sealed[1]), *rotated.as_bytes());

    house.clock.advance(Duration::from_secs(3599));
    sealed.push(scope.seal(&[], b"1").await.unwrap());
    assert_eq!(key_id(&sealed[2]), key_id(&sealed[1]), "not due yet");
    house.clock.advance(Duration::from_secs(1));
    sealed.push(scope.seal(&[], b"1").await.unwrap());
    assert_ne!(key_id(&sealed[3]), key_id(&sealed[2]), "by age");

    for _ in 0..9 {
        sealed.push(scope.seal(&[], b"1").await.unwrap());
        assert_eq!(key_id(sealed.last().unwrap()), key_id(&sealed[3]));
    }
    sealed.push(scope.seal(&[], b"1").await.unwrap());
    assert_ne!(key_id(sealed.last().unwrap()), key_id(&sealed[3]), "by count");

    house.clock.advance(Duration::from_secs(24 * 3600));
    sealed.push(scope.seal(&[], b"1").await.unwrap());
    let keys = house.room.admin("a test", "to test").unwrap().keys("acme", None, 100).await.unwrap().keys;
    let last = keys.iter().find(|k| k.key_id.as_bytes() == &key_id(sealed.last().unwrap())).unwrap();
    assert_eq!(last.period.as_ref().unwrap().as_str(), "day=2026-11-23");
    for sealed in &sealed {
        assert_eq!(&*scope.open(&[], sealed).await.unwrap(), b"1");
    }
    for day in ["day=2026-11-22", "day=2026-11-23"] {
        let of_day = keys.iter().filter(|k| k.period.as_ref().unwrap().as_str() == day);
        assert_eq!(of_day.filter(|k| k.state == KeyState::Active).count(), 1, "one Active key for {day}");
    }
}

// A key near its end is counted on: what one load sealed, the next one does not forget.
#[tokio::test]
async fn the_message_limit_counts_across_reloads() {
    let house = House::with(|p| p.rotation(RotationPolicy::default().max_messages(10))).await;
    let scope = house.channel("acme", "C9").await;
    let mut ids = std::collections::BTreeMap::new();
    for _ in 0..30 {
        let sealed = scope.seal(&[], b"x").await.unwrap();
        *ids.entry(*Header::parse(&sealed).unwrap().key_id()).or_insert(0) += 1;
        house.clock.advance(TTL);
    }
    assert!(ids.values().all(|n| *n == 10), "{ids:?}");
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn the_time_to_live_runs_from_the_unwrap_and_is_never_extended() {
    let house = House::new().await;
    // The lease is renewed out of step with the key's life: or it would be the lease's end that ends it.
    house.channel("globex", "C1").await.seal(&[], b"x").await.unwrap();
    house.clock.advance(Duration::from_secs(2));
    let scope = house.channel("acme", "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    house.kms.set(Fault::Fails(ErrorKind::Unavailable));
    // Used all the time, with a failing KMS behind it, and with the wall clock set back a day: it ends all the same.
    house.clock.set_back(24 * 3_600_000);
    for second in 1..300 {
        house.clock.advance(Duration::from_secs(1));
        // Refreshes in the background fail meanwhile, and nobody with the key in hand is told.
        scope.open(&[], &sealed).await.unwrap_or_else(|e| panic!("after {second} s: {e:?}"));
        assert!(scope.seal(&[], b"y").await.is_ok());
    }
    house.clock.advance(Duration::from_secs(1));
    assert_eq!(kind(scope.open(&[], &sealed).await), ErrorKind::Unavailable);
    assert_eq!(kind(scope.seal(&[], b"y").await), ErrorKind::Unavailable);
    house.kms.set(Fault::None);
    assert!(scope.open(&[], &sealed).await.is_ok());
}

/// What a slow store or KMS takes is a part of it: else a key would live on by as much as a load can be drawn out.
#[tokio::test]
async fn what_a_load_takes_counts_for_the_time_to_live() {
    let house = House::new().await;
    let (clock, drawn_out) = (house.clock.clone(), AtomicUsize::new(0));
    let slow = Failpoints::new(Arc::clone(&house.store), move |point| {
        if point == "store.active.after" && drawn_out.fetch_add(1, Ordering::SeqCst) == 0 {
            clock.advance(TTL / 3);
        }
        Ok(())
    });
    let room = Strongroom::builder().serving([HOME]).key_store(slow).kms(house.kms.clone());
    let scope = channel_of(&room.clock(house.clock.clone()).open_under(&house.operator).await, "acme", "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    house.kms.set(Fault::Fails(ErrorKind::Unavailable));
    house.clock.advance(TTL * 2 / 3 - Duration::from_secs(1));
    assert!(scope.open(&[], &sealed).await.is_ok() && scope.seal(&[], b"y").await.is_ok());
    house.clock.advance(Duration::from_secs(1));
    assert_eq!(kind(scope.open(&[], &sealed).await), ErrorKind::Unavailable);
    assert_eq!(kind(scope.seal(&[], b"y").await), ErrorKind::Unavailable);
}

// aws-encryption-sdk-java #2177: a latency spike at the time to live.
#[tokio::test]
async fn a_key_in_use_is_loaded_again_before_it_expires() {
    let house = House::new().await;
    let scope = house.channel("acme", "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    let before = house.kms.unwraps();
    house.clock.advance(TTL * 4 / 5 - Duration::from_secs(1));
    scope.seal(&[], b"x").await.unwrap();
    assert_eq!(house.kms.unwraps(), before);
    house.clock.advance(Duration::from_secs(1));
    scope.seal(&[], b"x").await.unwrap();
    // The refresh runs in the background: nobody waits for it, so the test does, by yielding until it has landed.
    while house.kms.unwraps() == before {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    house.kms.set(Fault::Hangs);
    house.clock.advance(TTL / 2);
    assert!(scope.seal(&[], b"x").await.is_ok(), "the refreshed key serves on");
    assert!(scope.open(&[], &sealed).await.is_ok());
}

#[tokio::test]
async fn denied_is_not_down() {
    let house = House::new().await;
    let (c8, c9) = (house.channel("acme", "C8").await, house.channel("acme", "C9").await);
    let globex = house.channel("globex", "C9").await;
    let (sealed8, sealed9) = (c8.seal(&[], b"8").await.unwrap(), c9.seal(&[], b"9").await.unwrap());
    let theirs = globex.seal(&[], b"g").await.unwrap();
    let elsewhere = house.other_process().await;
    let cold = channel_of(&elsewhere, "acme", "C9").await;
    cold.open(&[], &sealed9).await.unwrap();
    assert_eq!(elsewhere.cached_keys(), 1);

    // Down: what is cached serves on.
    house.kms.set(Fault::Fails(ErrorKind::Unavailable));
    assert_eq!(kind(channel_of(&elsewhere, "acme", "C8").await.open(&[], &sealed8).await), ErrorKind::Unavailable);
    assert!(cold.open(&[], &sealed9).await.is_ok());

    // Denied, learnt by any load of the tenant: all its cached keys go at once. Other tenants' stay.
    house.kms.set(Fault::None);
    channel_of(&elsewhere, "globex", "C9").await.open(&[], &theirs).await.unwrap();
    house.local.disable_kek("acme").unwrap();
    assert_eq!(kind(channel_of(&elsewhere, "acme", "C8").await.open(&[], &sealed8).await), ErrorKind::Denied);
    assert_eq!(kind(cold.open(&[], &sealed9).await), ErrorKind::Denied);
    assert_eq!(elsewhere.cached_keys(), 1, "globex's key stays");
    house.local.enable_kek("acme").unwrap();
    assert!(cold.open(&[], &sealed9).await.is_ok());
}

// One tenant's in-flight limit blocks all.
#[tokio::test(start_paused = true)] // so that time passes only where everybody waits for it
async fn a_tenant_whose_kms_hangs_does_not_delay_another() {
    let house = House::new().await;
    let kept = house.channel("globex", "C1").await;
    let sealed = kept.seal(&[], b"kept").await.unwrap();
    house.kms.set_for(&KekUri::new("local:acme").unwrap(), Fault::Hangs);
    let (mut hanging, before) = (Vec::new(), house.kms.generates());
    for i in 0..100 {
        let scope = house.channel("acme", &format!("C{i}")).await;
        hanging.push(tokio::spawn(async move { scope.seal(&[], b"x").await }));
    }
    // All of acme's places are taken, and stay taken: nothing recovers.
    while house.kms.generates() < before + 32 {
        tokio::task::yield_now().await;
    }
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(house.kms.generates(), before + 32, "no more than the tenant's limit at once");
    let began = tokio::time::Instant::now();
    for channel in 0..50 {
        house.channel("globex", &format!("C{channel}")).await.seal(&[], b"y").await.unwrap();
    }
    let elsewhere = house.other_process().await;
    channel_of(&elsewhere, "globex", "C1").await.open(&[], &sealed).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO, "globex waited for acme's KMS");
    let still = hanging.iter().filter(|h| !h.is_finished()).count();
    assert_eq!(still, 100, "acme's calls hang meanwhile");
    hanging.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_kms_that_never_answers_is_unavailable_after_the_deadline() {
    let house = House::new().await;
    let room = Strongroom::builder()
        .serving([HOME])
        .key_store(Arc::clone(&house.store))
        .kms(house.kms.clone())
        .kms_deadline(Duration::from_millis(20))
        .open_under(&house.operator)
        .await;
    let scope = channel_of(&room, "acme", "C9").await;
    house.kms.set(Fault::Hangs);
    let e = scope.seal(&[], b"x").await.unwrap_err();
    assert!(e.kind() == ErrorKind::Unavailable && e.is_retryable() && e.to_string().contains("20ms"), "{e}");
    house.kms.set(Fault::None);
    scope.seal(&[], b"x").await.unwrap();
}

#[tokio::test]
async fn revoke_takes_effect_at_once_and_restore_undoes_it() {
    let house = House::with(|p| p.period(Period::Hour)).await;
    let admin = house.room.admin("a test", "to test").unwrap();
    let (c8, c9) = (house.channel("acme", "C8").await, house.channel("acme", "C9").await);
    let (sealed8, sealed9) = (c8.seal(&[], b"8").await.unwrap(), c9.seal(&[], b"9").await.unwrap());
    let hot = c9.hot().await.unwrap();
    for (selector, c8_too) in [
        (Selector::fields([("channel", "C9")]), false),
        (Selector::fields([("hour", "2026-11-22T05Z")]), true),
        (Selector::everything(), true),
    ] {
        admin.revoke("acme", selector.clone()).await.unwrap();
        assert_eq!(kind(hot.open(&[], &sealed9)), ErrorKind::NotLoaded, "no key is left in hand");
        assert_eq!(kind(hot.seal(&[], b"x")), ErrorKind::NotLoaded);
        let e = c9.open(&[], &sealed9).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Revoked);
        assert!(e.to_string().contains("acme") && e.to_string().contains("restore"), "{e}");
        assert_eq!(kind(c9.seal(&[], b"x").await), ErrorKind::Revoked);
        assert_eq!(kind(admin.rotate("acme", &[("channel", "C9")]).await), ErrorKind::Revoked, "no new key either");
        let page = c9.open_page(&[PageRow { context: &[], envelope: &sealed9 }]).await.remove(0);
        assert_eq!(kind(page), ErrorKind::Revoked);
        assert_eq!(c8.open(&[], &sealed8).await.is_err(), c8_too);
        admin.revoke("acme", selector.clone()).await.unwrap();
        let slip = admin.restore("acme", Selector::fields([("channel", "C7")])).await;
        assert_eq!(kind(slip), ErrorKind::InvalidArgument, "never revoked");
        for _ in 0..2 {
            admin.restore("acme", selector.clone()).await.unwrap();
        }
        assert!(c9.open(&[], &sealed9).await.is_ok());
        assert!(c8.open(&[], &sealed8).await.is_ok());
        hot.refresh().await.unwrap();
        assert!(hot.open(&[], &sealed9).is_ok());
    }
    assert_eq!(
        kind(admin.revoke("acme", Selector::fields([("chanel", "C9")])).await),
        ErrorKind::InvalidArgument,
        "a rule that covers nothing"
    );
}

/// The tenant's own switch, without any of us: nobody revokes, and nothing asks the KMS while the key lives.
#[tokio::test]
async fn a_kek_that_is_disabled_at_the_kms_ends_opening_with_the_time_to_live() {
    let house = House::new().await;
    // Out of step with the key's life, so that it is not the lease's end that has the KMS asked.
    house.channel("globex", "C1").await.seal(&[], b"x").await.unwrap();
    house.clock.advance(Duration::from_secs(2));
    let scope = house.channel("acme", "C9").await;
    let sealed = scope.seal(&[], b"9").await.unwrap();
    house.local.disable_kek("acme").unwrap();
    let before = house.kms.calls();
    house.clock.advance(TTL * 3 / 4);
    scope.open(&[], &sealed).await.unwrap();
    assert_eq!(house.kms.calls(), before, "the test did not test what it should");
    house.clock.advance(TTL / 4 - Duration::from_secs(2));
    house.channel("globex", "C2").await.seal(&[], b"x").await.unwrap();
    house.clock.advance(Duration::from_secs(2));
    assert_eq!(kind(scope.open(&[], &sealed).await), ErrorKind::Denied);
    assert_eq!(kind(scope.seal(&[], b"y").await), ErrorKind::Denied);
}

#[tokio::test]
async fn another_process_stops_at_the_latest_after_the_time_to_live() {
    let house = House::new().await;
    let scope = house.channel("acme", "C9").await;
    let sealed = scope.seal(&[], b"9").await.unwrap();
    let elsewhere = channel_of(&house.other_process().await, "acme", "C9").await;
    elsewhere.open(&[], &sealed).await.unwrap();
    house.room.admin("a test", "to test").unwrap().revoke("acme", Selector::everything()).await.unwrap();
    house.clock.advance(TTL);
    assert_eq!(kind(elsewhere.open(&[], &sealed).await), ErrorKind::Revoked);
}

// A load that read the tenant's row before a revocation must not bring its key in after it.
#[tokio::test]
async fn a_load_under_way_does_not_survive_a_revocation() {
    let house = House::new().await;
    let scope = house.channel("acme", "C9").await;
    let sealed = scope.seal(&[], b"9").await.unwrap();
    house.room.admin("a test", "to test").unwrap().purge("acme").unwrap();
    house.kms.set(Fault::Slow(Duration::from_secs(1)));
    let before = house.kms.unwraps();
    let opening = {
        let (scope, sealed) = (scope.clone(), sealed.clone());
        tokio::spawn(async move { scope.open(&[], &sealed).await })
    };
    while house.kms.unwraps() == before {
        tokio::task::yield_now().await;
    }
    house.room.admin("a test", "to test").unwrap().revoke("acme", Selector::everything()).await.unwrap();
    assert_eq!(kind(opening.await.unwrap()), ErrorKind::Revoked);
    assert_eq!(house.room.cached_keys(), 0);
}

#[tokio::test]
async fn a_caller_who_gives_up_does_not_stop_the_load() {
    let house = House::new().await;
    let scope = house.channel("acme", "C9").await;
    house.kms.set(Fault::Slow(Duration::from_millis(500)));
    let impatient = tokio::time::timeout(Duration::from_millis(1), scope.seal(&[], b"x")).await;
    assert!(impatient.is_err());
    scope.seal(&[], b"x").await.unwrap();
    assert_eq!(house.kms.generates(), 1, "the second caller joined the first one's load");
}

#[tokio::test]
async fn a_page_loads_each_key_once_and_answers_row_by_row() {
    let house = House::new().await;
    let scope = house.channel("acme", "C9").await;
    let mut sealed = Vec::new();
    for n in 0..3 {
        for m in 0..10 {
            let id = format!("M{n}-{m}");
            sealed.push((id.clone(), scope.seal(&[("message", &id)], id.as_bytes()).await.unwrap()));
        }
        house.room.admin("a test", "to test").unwrap().rotate("acme", &[("channel", "C9")]).await.unwrap();
    }
    let mut bad = sealed[4].1.clone();
    *bad.last_mut().unwrap() ^= 1;
    house.room.admin("a test", "to test").unwrap().purge("acme").unwrap();
    let before = house.kms.calls();
    let contexts: Vec<_> = sealed.iter().map(|(id, _)| [("message", id.as_str())]).collect();
    let mut rows: Vec<_> =
        sealed.iter().zip(&contexts).map(|((_, envelope), context)| PageRow { context, envelope }).collect();
    rows.push(PageRow { context: &contexts[4], envelope: &bad });
    rows.push(PageRow { context: &[], envelope: b"old plaintext row" });
    let opened = scope.open_page(&rows).await;
    for (result, (id, _)) in opened.iter().zip(&sealed) {
        assert_eq!(&**result.as_ref().unwrap(), id.as_bytes());
    }
    assert_eq!(opened[30].as_ref().unwrap_err().kind(), ErrorKind::Unopenable);
    assert_eq!(opened[31].as_ref().unwrap_err().kind(), ErrorKind::Malformed);
    assert_eq!(opened.len(), 32);
    assert_eq!(house.kms.calls() - before, 3, "three distinct keys, three calls");
    scope.open_page(&rows).await;
    assert_eq!(house.kms.calls() - before, 3, "now cached");
}

#[tokio::test]
async fn any_of_several_keks_opens_and_all_of_them_denied_is_denied() {
    let house = House::empty().await;
    let (one, two) = ("one", "two");
    let keks: Vec<_> = [one, two].map(|name| house.local.create_kek(name, region(HOME)).unwrap()).into();
    let policy = TenantPolicy::new(keks[0].clone(), region(HOME)).or_kek(keks[1].clone()).allow_unbound_messages();
    house.room.admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
    let scope = house.room.tenant("acme").await.unwrap().scope([]).unwrap();
    let sealed = scope.seal(&[], b"x").await.unwrap();
    let opens = async || {
        house.room.admin("a test", "to test").unwrap().purge("acme").unwrap();
        scope.open(&[], &sealed).await.map(|_| ())
    };
    opens().await.unwrap();
    house.local.disable_kek(one).unwrap();
    opens().await.unwrap();
    house.local.disable_kek(two).unwrap();
    assert_eq!(kind(opens().await), ErrorKind::Denied);
    house.local.enable_kek(one).unwrap();
    opens().await.unwrap();
}

#[tokio::test]
async fn the_cache_is_bounded_for_all_and_for_each_tenant() {
    let house = House::empty().await;
    let room = Strongroom::builder()
        .serving([HOME])
        .key_store(Arc::clone(&house.store))
        .kms(house.kms.clone())
        .cached_keys(10)
        .cached_keys_per_tenant(4)
        .open_under(&house.operator)
        .await;
    for tenant in ["a", "b", "c", "d"] {
        let kek = house.local.create_kek(tenant, region(HOME)).unwrap();
        let policy = TenantPolicy::new(kek, region(HOME)).scope_by(["channel"]).allow_unbound_messages();
        room.admin("a test", "to test").unwrap().enroll(tenant, policy).await.unwrap();
        for channel in 0..20 {
            let scope = channel_of(&room, tenant, &channel.to_string()).await;
            let sealed = scope.seal(&[], b"x").await.unwrap();
            assert!(scope.open(&[], &sealed).await.is_ok());
            assert!(room.cached_keys() <= 10);
        }
        let before = house.kms.calls();
        for channel in 16..20 {
            channel_of(&room, tenant, &channel.to_string()).await.seal(&[], b"x").await.unwrap();
        }
        assert_eq!(house.kms.calls(), before, "the newest four are cached");
    }
    assert_eq!(room.cached_keys(), 10);
}

#[tokio::test]
async fn a_policy_change_counts_from_the_next_seal() {
    let house = House::new().await;
    let scope = house.channel("acme", "C9").await;
    let old = scope.seal(&[], b"x").await.unwrap();
    let admin = house.room.admin("a test", "to test").unwrap();
    let row = admin.tenant("acme").await.unwrap();
    admin.set_policy(&row, row.policy.clone().suite(Suite::ChaCha20Poly1305)).await.unwrap();
    let new = scope.seal(&[], b"x").await.unwrap();
    assert_eq!(Header::parse(&old).unwrap().suite(), Suite::Aes256Gcm);
    assert_eq!(Header::parse(&new).unwrap().suite(), Suite::ChaCha20Poly1305);
    for sealed in [&old, &new] {
        assert!(scope.open(&[], sealed).await.is_ok());
    }
}

#[tokio::test]
async fn building_says_what_is_missing() {
    let store = MemoryKeyStore::default;
    for (built, missing) in [
        (
            Strongroom::builder().serving([HOME]).kms(LocalKms::in_memory()).trusting_the_key_store().build().await,
            "key store",
        ),
        (
            Strongroom::builder().key_store(store()).kms(LocalKms::in_memory()).trusting_the_key_store().build().await,
            "region",
        ),
        (Strongroom::builder().serving([HOME]).key_store(store()).trusting_the_key_store().build().await, "KMS"),
        (
            Strongroom::builder()
                .serving(["EU!"])
                .key_store(store())
                .kms(LocalKms::in_memory())
                .trusting_the_key_store()
                .build()
                .await,
            "region",
        ),
        (
            Strongroom::builder()
                .serving([HOME])
                .key_store(store())
                .kms(LocalKms::in_memory())
                .kms(LocalKms::in_memory())
                .trusting_the_key_store()
                .build()
                .await,
            "scheme local",
        ),
    ] {
        let e = built.err().expect("refused");
        assert!(e.kind() == ErrorKind::InvalidArgument && e.to_string().contains(missing), "{e}");
    }
    let outside = std::thread::spawn(|| {
        let builder = Strongroom::builder().serving([HOME]).key_store(MemoryKeyStore::default());
        let build = builder.kms(LocalKms::in_memory()).trusting_the_key_store().build();
        futures_util::FutureExt::now_or_never(build).unwrap().err().map(|e| e.to_string())
    });
    assert!(outside.join().unwrap().is_some_and(|e| e.contains("Tokio runtime")));
}
