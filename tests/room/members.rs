//! New data keys while a member of `any_of` does not answer.

use std::time::Duration;

use strongroom::testing::Fault;
use strongroom::{Admin, ErrorKind, TenantPolicy, WalkOptions};
use tokio::time::Instant;

use crate::waiting::{Two, two, two_with};
use crate::{channel_of, kind};

/// `far` is down, or busy.
const OUTAGES: [Fault; 3] = [Fault::Fails(ErrorKind::Unavailable), Fault::Fails(ErrorKind::Throttled), Fault::Hangs];
/// Expressions, and what is left of them without `far`.
const WITHOUT_FAR: [(&str, &str); 4] = [
    ("any_of(far:acme, local:acme)", "local:acme"),
    ("any_of(local:acme, far:acme)", "local:acme"),
    ("any_of(far:acme, local:acme, local:other)", "any_of(local:acme, local:other)"),
    ("all_of(any_of(far:acme, local:acme), local:other)", "all_of(local:acme, local:other)"),
];

fn one_is_enough(policy: TenantPolicy) -> TenantPolicy {
    policy.new_key_members(1)
}

fn admin(two: &Two) -> Admin {
    two.room.admin("a test", "to test").unwrap()
}

/// What the tenant's keys are wrapped for.
async fn wrapped_for(two: &Two) -> Vec<String> {
    let page = admin(two).keys("acme", None, 100).await.unwrap();
    assert!(page.unreadable.is_empty(), "{:?}", page.unreadable);
    let wrapped = |key: strongroom::KeyRecord| key.wrapped.unwrap().expression().to_string();
    page.keys.into_iter().map(wrapped).collect()
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_made_without_members_that_do_not_answer_where_the_policy_says_so() {
    for outage in OUTAGES {
        for (expression, left) in WITHOUT_FAR {
            let two = two_with(expression, one_is_enough).await;
            two.far.set(outage);
            let mut sealed = Vec::new();
            let began = Instant::now();
            for channel in ["C1", "C2", "C3", "C4"] {
                let scope = channel_of(&two.room, "acme", channel).await;
                sealed.push((scope.seal(&[], b"x").await.unwrap(), scope));
            }
            // A deadline once, and a tenth of it with each further key.
            assert!(began.elapsed() < Duration::from_secs(8), "{expression}, {outage:?}: {:?}", began.elapsed());
            assert_eq!(wrapped_for(&two).await, [left; 4], "{expression}, {outage:?}");
            // From there they open, and after a rewrap wherever they ought to.
            admin(&two).purge("acme").unwrap();
            for (sealed, scope) in &sealed {
                scope.open(&[], sealed).await.unwrap();
            }
            two.far.set(Fault::None);
            let keks: strongroom::KekExpression = expression.parse().unwrap();
            admin(&two).rewrap("acme", keks, &WalkOptions::default()).await.unwrap();
            assert_eq!(wrapped_for(&two).await, [expression; 4]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_key_needs_every_member_unless_the_policy_says_otherwise() {
    for (expression, _) in WITHOUT_FAR {
        for outage in OUTAGES {
            let all = two(expression).await;
            all.far.set(outage);
            let refused = kind(channel_of(&all.room, "acme", "C1").await.seal(&[], b"x").await);
            assert!(matches!(refused, ErrorKind::Unavailable | ErrorKind::Throttled), "{expression}: {refused:?}");
            let as_many = two_with(expression, |policy| policy.new_key_members(8)).await;
            as_many.far.set(outage);
            assert_eq!(kind(channel_of(&as_many.room, "acme", "C1").await.seal(&[], b"x").await), refused);
        }
    }
    let three = two_with("any_of(far:acme, far:other, local:acme)", |policy| policy.new_key_members(2)).await;
    three.far.set(Fault::Fails(ErrorKind::Unavailable));
    assert_eq!(kind(channel_of(&three.room, "acme", "C1").await.seal(&[], b"x").await), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_member_that_denies_is_not_left_out() {
    for (expression, _) in WITHOUT_FAR {
        let two = two_with(expression, one_is_enough).await;
        two.far.set(Fault::Fails(ErrorKind::Denied));
        let refused = kind(channel_of(&two.room, "acme", "C1").await.seal(&[], b"x").await);
        assert_eq!(refused, ErrorKind::Denied, "{expression}");
    }
}

#[tokio::test]
async fn a_rewrap_leaves_no_member_out() {
    let two = two_with("any_of(far:acme, local:acme)", one_is_enough).await;
    channel_of(&two.room, "acme", "C1").await.seal(&[], b"x").await.unwrap();
    two.far.set(Fault::Fails(ErrorKind::Unavailable));
    let to: strongroom::KekExpression = "any_of(far:acme, local:other)".parse().unwrap();
    let ended = admin(&two).rewrap("acme", to, &WalkOptions::default()).await;
    assert_eq!(kind(ended), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_number_of_members_that_cannot_be_is_refused() {
    let two = two("any_of(far:acme, local:acme)").await;
    let row = admin(&two).tenant("acme").await.unwrap();
    for members in [0, 9, u8::MAX] {
        let policy = row.policy.clone().new_key_members(members);
        assert_eq!(kind(admin(&two).set_policy(&row, policy).await), ErrorKind::InvalidArgument);
    }
}
