//! Rules about keys: what can cover nothing is refused, and what forbids one key does not forbid its scope.

use std::time::Duration;

use strongroom::{ErrorKind, Period, PeriodLabel, Selector, Strongroom};

use crate::{DAY, EU, Fleet, HOUR, NOW, channel, gently, key_id, kind, set_policy};

fn label(text: &str) -> PeriodLabel {
    PeriodLabel::new(text).unwrap()
}

/// Rules that cover no key of a tenant that is scoped by channel and has a key an hour, whatever is sealed.
fn impossible() -> Vec<Selector> {
    let hour = |value: &str| Selector::fields([("hour", value)]);
    let all = Selector::everything;
    let read = |json: &str| serde_json::from_str(json).unwrap();
    vec![
        hour("2026-11-22T5Z"),
        hour("2026-11-22T05"),
        hour("2026-11-22T05z"),
        hour("2026-11-22 05Z"),
        hour("2026-11-22T24Z"),
        hour("2026-13-22T05Z"),
        hour("2026-02-30T05Z"),
        hour("hour=2026-11-22T05Z"),
        hour(""),
        Selector::fields([("day", "2026-11-22")]),
        Selector::fields([("month", "2026-11")]),
        Selector::fields([("channel", "C9"), ("day", "2026-11-22")]),
        Selector::fields([("hour", "2026-11-22T05Z"), ("day", "2026-11-22")]),
        Selector::fields([("hour", "2026-11-22T05Z"), ("hour", "2026-11-22T06Z")]),
        Selector::fields([("channel", "C9"), ("channel", "C8")]),
        Selector::fields([("channel", "")]),
        Selector::fields([("channel", "C".repeat(513))]),
        Selector::fields([("chanel", "C9")]),
        all().from(label("day=2026-11-22")),
        all().to(label("month=2026-11")),
        all().to(label("hour=2026-11-31T05Z")),
        all().from(label("hour=2026-11-22T06Z")).to(label("hour=2026-11-22T05Z")),
        hour("2026-11-22T05Z").from(label("hour=2026-11-22T06Z")),
        hour("2026-11-22T05Z").to(label("hour=2026-11-22T04Z")),
        Selector::keys([]),
        Selector::fields::<&str, &str>([]),
        read("{}"),
        read(r#"{"fields":[]}"#),
    ]
}

#[tokio::test]
async fn a_rule_that_can_cover_no_key_is_refused_by_every_verb_that_takes_one() {
    let fleet = Fleet::with(|p| p.period(Period::Hour)).await;
    let scope = channel(&fleet.node, "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let before = admin.tenant("acme").await.unwrap();
    let mut accepted = Vec::new();
    for rule in impossible() {
        let tried = [
            ("revoke", admin.revoke("acme", rule.clone()).await.map(|_| ())),
            ("suspend", admin.suspend_opens("acme", rule.clone(), NOW + 60_000).await),
            ("erase", admin.erase("acme", rule.clone(), DAY).await.map(|_| ())),
            ("rotate all", admin.rotate_all("acme", rule.clone(), &gently()).await.map(|_| ())),
            ("compromise", admin.rotate_after_compromise("acme", rule.clone(), &gently()).await.map(|_| ())),
            ("preview", admin.preview("acme", &rule).await.map(|_| ())),
        ];
        for (verb, tried) in tried {
            if tried.map_err(|e| e.kind()) != Err(ErrorKind::InvalidArgument) {
                accepted.push(format!("{verb} of {rule} ({rule:?})"));
            }
        }
    }
    assert!(accepted.is_empty(), "{accepted:#?}");
    assert_eq!(admin.tenant("acme").await.unwrap(), before);
    scope.open(&[], &sealed).await.unwrap();
}

#[tokio::test]
async fn a_rule_about_keys_to_come_stands() {
    let fleet = Fleet::with(|p| p.period(Period::Hour)).await;
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let of_none = admin.revoke("acme", Selector::fields([("channel", "C7")])).await.unwrap();
    assert!(matches!(of_none.keys, Some(0) | None), "it says so: {of_none:?}");
    admin.revoke("acme", Selector::fields([("hour", "2026-11-22T06Z")])).await.unwrap();
    assert_eq!(kind(channel(&fleet.node, "C7").await.seal(&[], b"x").await), ErrorKind::Revoked);
    let other = channel(&fleet.node, "C8").await;
    other.seal(&[], b"x").await.unwrap();
    fleet.clock.advance(HOUR);
    assert_eq!(kind(other.seal(&[], b"x").await), ErrorKind::Revoked);
}

#[tokio::test]
async fn a_rule_may_be_about_the_periods_that_older_keys_have() {
    let fleet = Fleet::with(|p| p.period(Period::Hour)).await;
    let scope = channel(&fleet.node, "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    set_policy(&admin, |p| p.period(Period::Day)).await.unwrap();
    admin.revoke("acme", Selector::fields([("hour", "2026-11-22T05Z")])).await.unwrap();
    assert_eq!(kind(scope.open(&[], &sealed).await), ErrorKind::Revoked);
    scope.seal(&[], b"of the day").await.unwrap();
    assert_eq!(kind(admin.revoke("acme", Selector::fields([("month", "2026-11")])).await), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn a_scope_goes_on_sealing_when_one_of_its_keys_is_revoked_or_erased_by_its_id() {
    let fleet = Fleet::new().await;
    let (here, there) = (channel(&fleet.node, "C9").await, channel(&fleet.other, "C9").await);
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let first = here.seal(&[], b"first").await.unwrap();
    there.open(&[], &first).await.unwrap();
    let this = Selector::keys([key_id(&first)]);
    admin.revoke("acme", this.clone()).await.unwrap();
    fleet.settle();
    let second = there.seal(&[], b"second").await.unwrap();
    assert_ne!(key_id(&second), key_id(&first));
    for scope in [&here, &there] {
        assert_eq!(kind(scope.open(&[], &first).await), ErrorKind::Revoked);
        assert_eq!(&*scope.open(&[], &second).await.unwrap(), b"second");
        assert_eq!(key_id(&scope.seal(&[], b"x").await.unwrap()), key_id(&second));
    }
    admin.restore("acme", this).await.unwrap();
    assert_eq!(&*here.open(&[], &first).await.unwrap(), b"first");
    assert_eq!(key_id(&here.seal(&[], b"x").await.unwrap()), key_id(&second), "it was succeeded");

    let erasure = admin.erase("acme", Selector::keys([key_id(&second)]), HOUR).await.unwrap();
    fleet.settle();
    let third = here.seal(&[], b"third").await.unwrap();
    assert_ne!(key_id(&third), key_id(&second));
    fleet.clock.advance(HOUR);
    admin.carry_out_erasure("acme", &erasure.id, &gently()).await.unwrap();
    assert_eq!(kind(there.open(&[], &second).await), ErrorKind::Erased);
    assert_eq!(&*there.open(&[], &third).await.unwrap(), b"third");
    there.seal(&[], b"x").await.unwrap();
}

/// A room of its own on SQLite, where a commit takes its time.
#[cfg(feature = "sqlite")]
async fn on_disk(folder: &std::path::Path) -> Strongroom {
    let store = strongroom::SqliteKeyStore::create(folder.join("keys.db")).await.unwrap();
    let kms = strongroom::LocalKms::in_memory();
    let kek = kms.create_kek("acme", crate::region(EU)).unwrap();
    let node = Strongroom::builder().serving([EU]).key_store(store).kms(kms);
    let node = node.open_under(&strongroom::testing::Operator::default()).await;
    let policy = strongroom::TenantPolicy::new(kek, crate::region(EU)).scope_by(["channel"]);
    node.admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
    node
}

/// Takes a hundred decisions at once, and says which of them failed.
#[cfg(feature = "sqlite")]
async fn a_hundred<F: Future<Output = strongroom::Result<()>> + Send + 'static>(
    decide: impl Fn(u32) -> F,
) -> Vec<strongroom::Error> {
    let decisions: Vec<_> = (0..100).map(|n| tokio::spawn(decide(n))).collect();
    let mut failed = Vec::new();
    for decision in decisions {
        failed.extend(decision.await.unwrap().err());
    }
    failed
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_revocations_at_once_all_stand() {
    let folder = tempfile::tempdir().unwrap();
    let node = on_disk(folder.path()).await;
    let admin = node.admin("a test", "to test").unwrap();
    let failed = a_hundred(|n| {
        let (admin, channel) = (admin.clone(), Selector::fields([("channel", format!("C{n}"))]));
        async move { admin.revoke("acme", channel).await.map(|_| ()) }
    });
    let failed = failed.await;
    assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed.first());
    assert_eq!(admin.tenant("acme").await.unwrap().revocations.len(), 100);
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_suspensions_of_all_opening_at_once_all_stand() {
    let folder = tempfile::tempdir().unwrap();
    let node = on_disk(folder.path()).await;
    let admin = node.admin("a test", "to test").unwrap();
    let until = i64::MAX - 1;
    let failed = a_hundred(|_| {
        let admin = admin.clone();
        async move { admin.suspend_all_opens(until).await }
    });
    let failed = failed.await;
    assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed.first());
    assert_eq!(admin.all_opens_suspended_until().await.unwrap(), Some(until));
}

#[tokio::test]
async fn extreme_times_of_a_room_are_refused_and_none_panics() {
    let fleet = Fleet::new().await;
    let builder = || {
        let builder = Strongroom::builder().serving([EU]).key_store(std::sync::Arc::clone(&fleet.store));
        fleet.operator.equip(builder.kms(fleet.kms.clone()).clock(fleet.clock.clone()))
    };
    for bound in [Duration::MAX, Duration::from_secs(u64::MAX), DAY + Duration::from_nanos(1), Duration::ZERO] {
        let built = builder().revocation_bound(bound).build().await;
        assert_eq!(kind(built), ErrorKind::InvalidArgument, "{bound:?}");
    }
    let longest = builder().revocation_bound(DAY).kms_deadline(Duration::MAX).build().await.unwrap();
    channel(&longest, "C9").await.seal(&[], b"x").await.unwrap();
    // Kept for ever, that is: nothing is due.
    let admin = fleet.node.admin("a test", "to test").unwrap();
    set_policy(&admin, |p| p.period(Period::Hour).retain_for(Duration::MAX)).await.unwrap();
    channel(&fleet.node, "C9").await.seal(&[], b"x").await.unwrap();
    assert!(crate::retained(&admin, HOUR).await.unwrap().is_empty());
}
