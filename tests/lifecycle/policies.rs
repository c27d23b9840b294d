//! Changes of policies: each is made from one that stands, none locks messages in, and what is left out loosens nothing.

use strongroom::testing::Failpoints;
use strongroom::{Error, ErrorKind, Period, Strongroom, TenantPolicy};

use crate::{EU, Fleet, US, channel, gently, kind, region, set_policy, set_policy_from};

#[tokio::test]
async fn a_policy_made_from_one_that_stands_no_more_is_a_conflict() {
    let fleet = Fleet::new().await;
    let scope = channel(&fleet.node, "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let form = admin.tenant("acme").await.unwrap();
    let new = fleet.kek("acme-2027", EU);
    admin.rewrap("acme", &new, &gently()).await.unwrap();
    let stale = set_policy_from(&admin, &form, form.policy.clone().contact("ops@acme.example")).await;
    assert_eq!(kind(stale), ErrorKind::Conflict);
    assert_eq!(admin.tenant("acme").await.unwrap().policy.keks(), &new.into(), "a form put the old KEK back");
    // What changed beside the policy is not in its way, and a repeat finds it done.
    let form = admin.tenant("acme").await.unwrap();
    admin.revoke("acme", strongroom::Selector::fields([("channel", "C1")])).await.unwrap();
    let next = form.policy.clone().contact("ops@acme.example");
    set_policy_from(&admin, &form, next.clone()).await.unwrap();
    set_policy_from(&admin, &form, next.clone()).await.unwrap();
    assert_eq!(admin.tenant("acme").await.unwrap().policy, next);
    scope.open(&[], &sealed).await.unwrap();
}

#[tokio::test]
async fn scope_fields_are_not_changed_under_messages() {
    let fleet = Fleet::new().await;
    let admin = fleet.node.admin("a test", "to test").unwrap();
    // Nothing is sealed yet.
    set_policy(&admin, |p| p.scope_by(["team"])).await.unwrap();
    set_policy(&admin, |p| p.scope_by(["channel"])).await.unwrap();
    let sealed = channel(&fleet.node, "C9").await.seal(&[], b"x").await.unwrap();
    for fields in [vec!["workspace", "channel"], vec!["chanel"], vec![]] {
        let refused = set_policy(&admin, |p| p.scope_by(fields.clone())).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{fields:?}");
        assert!(refused.to_string().contains("channel"), "{refused}");
    }
    set_policy(&admin, |p| p.scope_by(["channel"]).period(Period::Day)).await.unwrap();
    channel(&fleet.other, "C9").await.open(&[], &sealed).await.unwrap();
}

/// A tenant that leaves the US: one KEK of its is there, and the policy says so.
#[tokio::test]
async fn where_a_kek_is_is_not_forgotten_by_leaving_it_out() {
    let fleet = Fleet::new().await;
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let (there, home) = (fleet.kek("there", US), fleet.kek("home", EU));
    set_policy(&admin, |p| p.allow_region(region(US)).kek_in(there.clone(), region(US)).wrapped_by(&there))
        .await
        .unwrap();
    let scope = channel(&fleet.node, "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    let without = TenantPolicy::new(&home, region(EU)).scope_by(["channel"]).allow_unbound_messages();
    let form = admin.tenant("acme").await.unwrap();
    set_policy_from(&admin, &form, without.allow_unbound_files()).await.unwrap();
    assert_eq!(kind(scope.open(&[], &sealed).await), ErrorKind::Region);
}

#[tokio::test]
async fn saying_that_a_kek_is_elsewhere_reaches_cached_keys_within_the_bound() {
    let fleet = Fleet::new().await;
    let (here, there) = (channel(&fleet.node, "C9").await, channel(&fleet.other, "C9").await);
    let sealed = here.seal(&[], b"x").await.unwrap();
    there.open(&[], &sealed).await.unwrap();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let new = fleet.kek("acme-2027", EU);
    let old: strongroom::KekUri = "local:acme".parse().unwrap();
    set_policy(&admin, |p| p.wrapped_by(&new).kek_in(old.clone(), region(US))).await.unwrap();
    fleet.settle();
    for scope in [&here, &there] {
        assert_eq!(kind(scope.open(&[], &sealed).await), ErrorKind::Region);
    }
}

#[tokio::test]
async fn an_enrolment_whose_answer_was_lost_may_be_repeated() {
    let fleet = Fleet::new().await;
    let lost = std::sync::atomic::AtomicBool::new(false);
    let store = Failpoints::new(std::sync::Arc::clone(&fleet.store), move |point| {
        if point == "store.put.tenant.after" && !lost.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "the answer is lost"));
        }
        Ok(())
    });
    let builder = Strongroom::builder().serving([EU]).key_store(store).kms(fleet.kms.clone());
    let node = builder.clock(fleet.clock.clone()).open_under(&fleet.operator).await;
    let policy = TenantPolicy::new(fleet.kek("globex", EU), region(EU));
    let enroll = async |actor: &str, policy: &TenantPolicy| {
        node.admin(actor, "a new customer").unwrap().enroll("globex", policy.clone()).await
    };
    assert_eq!(kind(enroll("alice", &policy).await), ErrorKind::Unavailable);
    enroll("alice", &policy).await.unwrap();
    // Another's, or of another policy, is no repeat.
    assert_eq!(kind(enroll("bob", &policy).await), ErrorKind::Conflict);
    assert_eq!(kind(enroll("alice", &policy.clone().period(Period::Day)).await), ErrorKind::Conflict);
    assert_eq!(node.admin("alice", "to see").unwrap().journal("globex").await.unwrap().len(), 1);
}
