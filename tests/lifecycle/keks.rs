use strongroom::testing::{Failpoints, Fault};
use strongroom::{
    Error, ErrorKind, ExportTo, KekExpression, KekUri, KeyId, LocalKms, Selector, Strongroom, TenantPolicy, Walked,
};

use crate::{EU, Fleet, US, channel, gently, key_id, kind, region, set_policy};

async fn fill(fleet: &Fleet, channels: usize) -> Vec<Vec<u8>> {
    let mut sealed = Vec::new();
    for n in 0..channels {
        sealed.push(channel(&fleet.node, &format!("C{n}")).await.seal(&[], b"x").await.unwrap());
    }
    sealed
}

async fn rewrap(node: &Strongroom, to: &KekUri) -> Result<Walked, Error> {
    node.admin("a test", "to test").unwrap().rewrap("acme", to, &gently()).await
}

async fn all_open(fleet: &Fleet, sealed: &[Vec<u8>]) {
    for node in [&fleet.node, &fleet.other] {
        node.admin("a test", "to test").unwrap().purge_all();
        for (n, sealed) in sealed.iter().enumerate() {
            assert_eq!(&*channel(node, &format!("C{n}")).await.open(&[], sealed).await.unwrap(), b"x");
        }
    }
}

#[tokio::test]
async fn a_rewrap_moves_every_record_and_the_old_kek_can_go() {
    let fleet = Fleet::new().await;
    let sealed = fill(&fleet, 10).await;
    let new = fleet.kek("acme-2027", EU);
    let walked = fleet.node.admin("a test", "to test").unwrap().rewrap("acme", &new, &gently()).await.unwrap();
    assert_eq!((walked.done, walked.failed), (10, 0));
    fleet.local.disable_kek("acme").unwrap();
    all_open(&fleet, &sealed).await;
    for record in fleet.records().await {
        assert_eq!((record.wrapped.unwrap().expression(), record.pending), (KekExpression::from(&new), None));
    }
    let row = fleet.node.admin("a test", "to test").unwrap().tenant("acme").await.unwrap();
    assert_eq!((row.policy.keks(), row.rewrap), (&KekExpression::from(&new), None));
    channel(&fleet.other, "fresh").await.seal(&[], b"x").await.unwrap();
}

#[tokio::test]
async fn a_rewrap_under_the_same_kek_takes_up_its_new_version() {
    let fleet = Fleet::new().await;
    let sealed = fill(&fleet, 4).await;
    let before = fleet.records().await;
    fleet.local.rotate_kek("acme").unwrap();
    let same = before[0].wrapped.clone().unwrap().expression();
    assert_eq!(
        fleet.node.admin("a test", "to test").unwrap().rewrap("acme", same.clone(), &gently()).await.unwrap().done,
        4
    );
    let after = fleet.records().await;
    assert!(before.iter().zip(&after).all(|(b, a)| b.key_id == a.key_id && b.wrapped != a.wrapped));
    all_open(&fleet, &sealed).await;
    assert!(fleet.node.admin("a test", "to test").unwrap().resume_rewrap("acme", &gently()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_rewrap_that_the_kms_interrupts_loses_nothing_and_goes_on() {
    let fleet = Fleet::new().await;
    let sealed = fill(&fleet, 12).await;
    let new = fleet.kek("acme-2027", EU);
    let admin = fleet.node.admin("a test", "to test").unwrap();
    for fault in [Fault::Fails(ErrorKind::Unavailable), Fault::WrongKey, Fault::EmptyWrapping] {
        // It fails after the order stands and the first pages are done.
        let kms = fleet.kms.clone();
        let options = gently().on_progress(move |walked| {
            if walked.seen >= 3 {
                kms.set(fault);
            }
        });
        let walked = admin.rewrap("acme", &new, &options).await;
        fleet.kms.set(Fault::None);
        assert!(Walked::of(&walked.unwrap_err()).is_some_and(|w| w.failed > 0), "{fault:?}");
        assert!(admin.tenant("acme").await.unwrap().rewrap.is_some());
        all_open(&fleet, &sealed).await;
        let elsewhere = fleet.kek(&format!("other-{fault:?}").replace(['(', ')'], "-"), EU);
        assert_eq!(kind(set_policy(&admin, |p| p.wrapped_by(elsewhere)).await), ErrorKind::Conflict);
    }
    fleet.other.admin("a test", "to test").unwrap().resume_rewrap("acme", &gently()).await.unwrap().unwrap();
    fleet.local.disable_kek("acme").unwrap();
    all_open(&fleet, &sealed).await;
}

/// Found by fuzzing (`kms_reply`): the walk after one that a lying KMS and a failing store had ended counted failures itself.
#[tokio::test]
async fn useless_wrappings_that_a_walk_left_are_made_anew_by_the_next() {
    let fleet = Fleet::new().await;
    let sealed = fill(&fleet, 4).await;
    let new = fleet.kek("acme-2027", EU);
    let store = Failpoints::new(std::sync::Arc::clone(&fleet.store), |point| match point {
        "store.get.key.before" => Err(Error::new(ErrorKind::Unavailable, "the database is away")),
        _ => Ok(()),
    });
    let builder = Strongroom::builder().serving([EU]).key_store(store).kms(fleet.kms.clone());
    let cut_off = builder.clock(fleet.clock.clone()).open_under(&fleet.operator).await;
    fleet.kms.set(Fault::WrongKey);
    let failed = Walked::of(&rewrap(&cut_off, &new).await.unwrap_err()).unwrap().failed;
    assert_eq!(failed, 4);
    assert!(fleet.records().await.iter().any(|record| record.pending.is_some()));
    let lied_to = fleet.node.admin("a test", "to test").unwrap().resume_rewrap("acme", &gently()).await.unwrap_err();
    let walked = Walked::of(&lied_to).unwrap();
    assert_eq!((walked.done, walked.failed), (0, 4), "the KMS still lies");

    let failed = Walked::of(&rewrap(&cut_off, &new).await.unwrap_err()).unwrap().failed;
    assert_eq!(failed, 4);
    fleet.kms.set(Fault::None);
    let resumed = fleet.node.admin("a test", "to test").unwrap().resume_rewrap("acme", &gently()).await;
    let walked = resumed.unwrap().unwrap();
    assert_eq!((walked.done, walked.failed), (4, 0));
    fleet.local.disable_kek("acme").unwrap();
    all_open(&fleet, &sealed).await;
}

#[tokio::test]
async fn keys_made_by_a_node_that_has_not_heard_of_the_rewrap_are_wrapped_for_it() {
    let fleet = Fleet::new().await;
    let sealed = fill(&fleet, 3).await;
    let new = fleet.kek("acme-2027", EU);
    // The other node holds a handle with the old policy in it.
    let handle = fleet.other.tenant("acme").await.unwrap();
    fleet.node.admin("a test", "to test").unwrap().rewrap("acme", &new, &gently()).await.unwrap();
    handle.scope([("channel", "late")]).unwrap().seal(&[], b"x").await.unwrap();
    assert!(fleet.records().await.iter().all(|r| r.wrapped.as_ref().unwrap().expression() == (&new).into()));
    all_open(&fleet, &sealed).await;
}

#[tokio::test]
async fn dual_control_takes_both_holders() {
    let fleet = Fleet::new().await;
    let sealed = fill(&fleet, 3).await;
    let (second, escrow) = (fleet.kek("second", EU), fleet.kek("escrow", EU));
    let both = KekExpression::any_of([
        KekExpression::all_of(["local:acme".parse::<KekExpression>().unwrap(), second.into()]),
        escrow.into(),
    ]);
    fleet.node.admin("a test", "to test").unwrap().rewrap("acme", both.clone(), &gently()).await.unwrap();
    assert_eq!(both.to_string(), "any_of(all_of(local:acme, local:second), local:escrow)");
    all_open(&fleet, &sealed).await;
    fleet.local.disable_kek("escrow").unwrap();
    all_open(&fleet, &sealed).await;
    for holder in ["acme", "second"] {
        fleet.local.disable_kek(holder).unwrap();
        fleet.node.admin("a test", "to test").unwrap().purge_all();
        let scope = channel(&fleet.node, "C0").await;
        assert_eq!(kind(scope.open(&[], &sealed[0]).await), ErrorKind::Denied, "without {holder}");
        fleet.local.enable_kek("escrow").unwrap();
        assert!(scope.open(&[], &sealed[0]).await.is_ok(), "the escrow opens alone");
        fleet.local.disable_kek("escrow").unwrap();
        fleet.local.enable_kek(holder).unwrap();
    }
    fleet.local.enable_kek("escrow").unwrap();
    // New keys are made here, of components, and wrapped by every KEK.
    let fresh = channel(&fleet.node, "fresh").await.seal(&[], b"x").await.unwrap();
    assert_eq!(fleet.record(&fresh).await.wrapped.unwrap().expression(), both);
}

#[tokio::test]
async fn one_denied_holder_takes_the_cached_keys_with_it() {
    let fleet = Fleet::new().await;
    let second = fleet.kek("second", EU);
    let both = KekExpression::all_of(["local:acme".parse::<KekExpression>().unwrap(), second.into()]);
    fleet.node.admin("a test", "to test").unwrap().rewrap("acme", both, &gently()).await.unwrap();
    let sealed = fill(&fleet, 3).await;
    assert_eq!(fleet.node.cached_keys(), 3);
    fleet.local.disable_kek("second").unwrap();
    // A key cannot be made; that says it of those that were.
    assert_eq!(kind(channel(&fleet.node, "fresh").await.seal(&[], b"x").await), ErrorKind::Denied);
    assert_eq!(fleet.node.cached_keys(), 0);
    assert_eq!(kind(channel(&fleet.node, "C0").await.open(&[], &sealed[0]).await), ErrorKind::Denied);
}

#[tokio::test]
async fn a_kek_elsewhere_is_refused_before_any_call() {
    let fleet = Fleet::new().await;
    let before = fleet.kms.calls();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let arn: strongroom::KekUri = "aws-kms:arn:aws:kms:us-east-1:111122223333:key/k".parse().unwrap();
    assert_eq!(kind(admin.rewrap("acme", &arn, &gently()).await), ErrorKind::Region);
    let stated = fleet.kek("stated", US);
    let moved = set_policy(&admin, |p| p.kek_in(stated.clone(), region(US)).wrapped_by(&stated)).await;
    assert_eq!(kind(moved), ErrorKind::Region);
    assert_eq!(
        kind(admin.export("acme", ExportTo::Foreign(arn.clone()), &gently(), |_| Ok(())).await),
        ErrorKind::Region
    );
    assert_eq!(fleet.kms.calls(), before);
    // Where nothing is stated the KMS is asked, and believed.
    assert_eq!(kind(admin.rewrap("acme", &fleet.kek("unstated", US), &gently()).await), ErrorKind::Region);
    assert!(admin.tenant("acme").await.unwrap().rewrap.is_none());
}

#[tokio::test]
async fn a_tenant_that_leaves_takes_its_keys_along_under_its_own_kek() {
    let fleet = Fleet::new().await;
    let sealed = fill(&fleet, 5).await;
    let own = fleet.kek("customer-s-own", EU);
    fleet.node.admin("a test", "to test").unwrap().revoke("acme", Selector::fields([("channel", "C4")])).await.unwrap();
    let mut keys = Vec::new();
    let (admin, options) = (fleet.node.admin("a test", "to test").unwrap(), gently());
    let export = admin.export("acme", ExportTo::Foreign(own.clone()), &options, |key| {
        keys.push(key);
        Ok(())
    });
    let part = export.await.unwrap_err();
    let walked = Walked::of(&part).unwrap();
    assert_eq!((walked.done, walked.failed, walked.failed_keys.clone()), (4, 1, vec![key_id(&sealed[4])]));
    assert_eq!(part.kind(), ErrorKind::Revoked, "a revoked key stays");
    assert!(keys.iter().all(|k| k.kek == own && k.encryption_context.contains(&("tenant".into(), "acme".into()))));
    let exported: Vec<KeyId> = keys.iter().map(|k| k.key_id).collect();
    assert!(sealed[..4].iter().all(|s| exported.contains(&key_id(s))));
    let json = serde_json::to_value(&keys[0]).unwrap();
    assert_eq!(json["kek"], own.as_str());
}

#[tokio::test]
async fn an_expression_that_the_kms_cannot_serve_is_refused_at_enrolment() {
    let fleet = Fleet::new().await;
    let kms = LocalKms::in_memory();
    let known = kms.create_kek("known", region(EU)).unwrap();
    for bad in ["any_of(local:acme, local:unknown)", "all_of(local:acme, vault:x)"] {
        let keks: KekExpression = bad.parse().unwrap();
        assert!(
            fleet
                .node
                .admin("a test", "to test")
                .unwrap()
                .enroll("globex", TenantPolicy::new(keks, region(EU)).allow_unbound_messages())
                .await
                .is_err()
        );
    }
    assert_eq!(known.as_str(), "local:known");
}

/// What documents say of KMS calls goes by the expression: each KEK wraps and proves, and to load it takes the first of `any_of` and all of
/// `all_of`.
#[tokio::test]
async fn kms_calls_are_those_that_the_expression_asks_for() {
    for (expression, to_make, to_load) in [
        ("local:acme", 2, 1),
        ("any_of(local:acme, local:b)", 4, 1),
        ("all_of(local:acme, local:b, local:c)", 6, 3),
        ("any_of(all_of(local:acme, local:b), local:c)", 6, 2),
    ] {
        let fleet = Fleet::new().await;
        for name in ["b", "c"] {
            fleet.kek(name, EU);
        }
        let admin = fleet.node.admin("a test", "to test").unwrap();
        admin.rewrap("acme", expression.parse::<strongroom::KekExpression>().unwrap(), &gently()).await.unwrap();
        let scope = channel(&fleet.node, "C9").await;
        let before = fleet.kms.calls();
        let first = scope.seal(&[], b"x").await.unwrap();
        assert_eq!(fleet.kms.calls() - before, to_make, "to make a key under {expression}");
        admin.rotate("acme", &[("channel", "C9")]).await.unwrap();
        let second = scope.seal(&[], b"x").await.unwrap();
        admin.purge("acme").unwrap();
        let before = fleet.kms.calls();
        let rows = [&first, &second, &first].map(|envelope| strongroom::PageRow { context: &[], envelope });
        assert!(scope.open_page(&rows).await.iter().all(Result::is_ok));
        assert_eq!(fleet.kms.calls() - before, 2 * to_load, "to load two keys under {expression}");
    }
}

#[tokio::test]
async fn a_key_that_is_another_one_is_said_to_be_of_which_keks() {
    for expression in ["local:acme", "all_of(local:acme, local:b)", "any_of(local:acme, local:b)"] {
        let fleet = Fleet::new().await;
        fleet.kek("b", EU);
        let admin = fleet.node.admin("a test", "to test").unwrap();
        admin.rewrap("acme", expression.parse::<strongroom::KekExpression>().unwrap(), &gently()).await.unwrap();
        let scope = channel(&fleet.node, "C9").await;
        let sealed = scope.seal(&[], b"x").await.unwrap();
        admin.purge("acme").unwrap();
        fleet.kms.set(Fault::WrongKey);
        let refused = scope.open(&[], &sealed).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::KeyMismatch, "{refused}");
        let named = refused.kek().unwrap_or_else(|| panic!("{expression}: names no KEK: {refused}"));
        assert!(expression.contains(named), "{expression}: {named}");
    }
}

/// What a synchronous handle says to await is what helps.
#[tokio::test]
async fn a_hot_handle_without_a_key_says_what_loads_that_key() {
    let fleet = Fleet::new().await;
    let scope = channel(&fleet.node, "C9").await;
    let old = scope.seal(&[], b"old").await.unwrap();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    admin.rotate("acme", &[("channel", "C9")]).await.unwrap();
    let hot = channel(&fleet.other, "C9").await.hot().await.unwrap();
    let refused = hot.open(&[], &old).map(|_| ()).unwrap_err();
    assert_eq!((refused.kind(), refused.is_retryable()), (ErrorKind::NotLoaded, false));
    assert!(refused.to_string().contains("`prepare`") && !refused.to_string().contains("`refresh`"), "{refused}");
    hot.refresh().await.unwrap();
    assert_eq!(
        hot.open(&[], &old).map(|_| ()).unwrap_err().kind(),
        ErrorKind::NotLoaded,
        "an older key is not refreshed"
    );
    hot.prepare(&old).await.unwrap();
    assert_eq!(&*hot.open(&[], &old).unwrap(), b"old");
    let mut in_place = old.clone();
    assert_eq!(hot.open_in_place(&[], &mut in_place).unwrap(), b"old");
    fleet.other.admin("a test", "to test").unwrap().purge("acme").unwrap();
    let mut out = Vec::new();
    for refused in [hot.seal(&[], b"x").map(|_| ()), hot.seal_into(&[], b"x", &mut out)] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotLoaded);
        assert!(refused.to_string().contains("`refresh`") && !refused.to_string().contains("`prepare`"), "{refused}");
    }
    hot.refresh().await.unwrap();
    hot.seal(&[], b"x").unwrap();
}
