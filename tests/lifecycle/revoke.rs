use std::sync::Arc;
use std::time::Duration;

use strongroom::testing::{Failpoints, Fault, Operator, TakenOverControlPlane};
use strongroom::{Error, ErrorKind, FileHead, KeyStore, PageRow, Period, PeriodLabel, Selector, Strongroom};

use crate::{EU, Fleet, HOUR, channel, kind};

fn hour(label: &str) -> PeriodLabel {
    PeriodLabel::new(&format!("hour=2026-11-22T{label}Z")).unwrap()
}

#[tokio::test]
async fn a_revocation_reaches_every_node_within_the_bound_and_names_who_restores() {
    let fleet = Fleet::with(|p| p.contact("keys@acme.example")).await;
    let (here, there) = (channel(&fleet.node, "C9").await, channel(&fleet.other, "C9").await);
    let other_channel = channel(&fleet.other, "C8").await;
    let sealed = here.seal(&[], b"x").await.unwrap();
    let others = other_channel.seal(&[], b"y").await.unwrap();
    there.open(&[], &sealed).await.unwrap();
    let this = Selector::fields([("channel", "C9")]);
    fleet.node.admin("a test", "to test").unwrap().revoke("acme", this.clone()).await.unwrap();
    let calls = fleet.kms.calls();
    assert_eq!(kind(here.open(&[], &sealed).await), ErrorKind::Revoked, "here at once");
    fleet.settle();
    let refused = there.open(&[], &sealed).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Revoked);
    assert!(refused.to_string().contains("keys@acme.example"), "{refused}");
    assert_eq!(kind(there.seal(&[], b"x").await), ErrorKind::Revoked);
    let page = there.open_page(&[PageRow { context: &[], envelope: &sealed }]).await;
    assert_eq!(kind(page.into_iter().next().unwrap()), ErrorKind::Revoked);
    other_channel.open(&[], &others).await.unwrap();
    assert_eq!(fleet.kms.calls(), calls, "neither the refusals nor the other channel asked the KMS");
    fleet.other.admin("a test", "to test").unwrap().restore("acme", this).await.unwrap();
    here.open(&[], &sealed).await.unwrap();
    there.open(&[], &sealed).await.unwrap();
}

#[tokio::test]
async fn hours_from_and_to_are_revoked_and_no_others() {
    let fleet = Fleet::with(|p| p.period(Period::Hour)).await;
    let scope = channel(&fleet.node, "C9").await;
    let mut sealed = Vec::new();
    for _ in 0..6 {
        sealed.push(scope.seal(&[], b"x").await.unwrap());
        fleet.clock.advance(HOUR);
    }
    let span = Selector::fields([("channel", "C9")]).from(hour("06")).to(hour("08"));
    fleet.node.admin("a test", "to test").unwrap().revoke("acme", span.clone()).await.unwrap();
    fleet.settle();
    let there = channel(&fleet.other, "C9").await;
    let mut opens = Vec::new();
    for sealed in &sealed {
        opens.push(there.open(&[], sealed).await.is_ok());
    }
    assert_eq!(opens, [true, false, false, false, true, true]);
    there.seal(&[], b"this hour").await.unwrap();
    let backwards = Selector::everything().from(hour("08")).to(hour("06"));
    assert_eq!(
        kind(fleet.node.admin("a test", "to test").unwrap().revoke("acme", backwards).await),
        ErrorKind::InvalidArgument
    );
    fleet.node.admin("a test", "to test").unwrap().restore("acme", span).await.unwrap();
    assert!(there.open(&[], &sealed[2]).await.is_ok());
}

#[tokio::test]
async fn without_hearing_from_the_store_nothing_cached_is_used_beyond_the_bound() {
    let fleet = Fleet::new().await;
    let down = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_down = std::sync::Arc::clone(&down);
    let store = Failpoints::new(std::sync::Arc::clone(&fleet.store), move |_| {
        if is_down.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "the database is away"));
        }
        Ok(())
    });
    let builder = Strongroom::builder().serving([EU]).key_store(store).kms(fleet.kms.clone());
    let node = builder.clock(fleet.clock.clone()).open_under(&fleet.operator).await;
    let scope = channel(&node, "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    let file = scope.file_sealer(&[]).await.unwrap().seal_bytes(b"x").unwrap();
    let head = FileHead::parse(&file).unwrap();
    let calls = fleet.kms.calls();
    down.store(true, std::sync::atomic::Ordering::SeqCst);
    fleet.clock.advance(crate::BOUND - Duration::from_nanos(1));
    scope.open(&[], &sealed).await.unwrap();
    fleet.clock.advance(Duration::from_nanos(1));
    assert_eq!(kind(scope.open(&[], &sealed).await), ErrorKind::Unavailable);
    assert_eq!(kind(scope.seal(&[], b"x").await), ErrorKind::Unavailable);
    assert_eq!(kind(scope.file_opener(&[], &head).await), ErrorKind::Unavailable);
    assert_eq!(kind(scope.file_sealer(&[]).await), ErrorKind::Unavailable);
    down.store(false, std::sync::atomic::Ordering::SeqCst);
    scope.open(&[], &sealed).await.unwrap();
    assert_eq!(fleet.kms.calls(), calls, "the keys were still in hand");
}

#[tokio::test]
async fn a_node_that_missed_too_much_forgets_everything() {
    let fleet = Fleet::new().await;
    let scope = channel(&fleet.other, "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    // A thousand and one decisions at once, about another channel.
    let change = strongroom::Change {
        tenant: Some("acme".parse().unwrap()),
        selector: Selector::fields([("channel", "C1")]),
        forget: strongroom::Forget::Keys,
    };
    let control = TakenOverControlPlane::of(&fleet.node).await.unwrap();
    for _ in 0..1001 {
        fleet.store.put(&[], Some(&|number| control.sign_change(number, &change))).await.unwrap();
    }
    fleet.settle();
    let unwraps = fleet.kms.unwraps();
    scope.open(&[], &sealed).await.unwrap();
    assert_eq!(fleet.kms.unwraps(), unwraps + 1);
}

#[tokio::test]
async fn the_kill_switch_takes_everything_at_once() {
    let fleet = Fleet::new().await;
    for n in 0..5 {
        channel(&fleet.node, &n.to_string()).await.seal(&[], b"x").await.unwrap();
    }
    assert_eq!(fleet.node.admin("a test", "to test").unwrap().purge_all(), 5);
    assert_eq!(fleet.node.cached_keys(), 0);
}

#[tokio::test]
async fn a_store_restored_from_an_older_copy_is_refused() {
    let fleet = Fleet::new().await;
    let scope = channel(&fleet.node, "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    let fresh = async |protected: bool| {
        let builder = Strongroom::builder().serving([EU]).key_store(Arc::clone(&fleet.store)).kms(fleet.kms.clone());
        let builder = builder.clock(fleet.clock.clone());
        if protected {
            return builder.open_under(&fleet.operator).await;
        }
        let builder = builder.room(Operator::ROOM).root(fleet.operator.root.clone());
        builder.without_rollback_protection().build().await.unwrap()
    };
    let before = fleet.store.snapshot();
    fleet.node.admin("a test", "to test").unwrap().revoke("acme", Selector::everything()).await.unwrap();
    for protected in [true, false] {
        assert_eq!(kind(channel(&fresh(protected).await, "C9").await.seal(&[], b"x").await), ErrorKind::Revoked);
    }
    fleet.store.restore(&before);
    let refused = fresh(true).await.tenant("acme").await.map(|_| ()).unwrap_err();
    assert_eq!((refused.kind(), refused.is_retryable()), (ErrorKind::RolledBack, false));
    assert!(refused.to_string().contains("older copy"), "{refused}");
    // Nodes that run know it, too, by the watermark or by what they saw.
    assert_eq!(kind(fleet.node.tenant("acme").await), ErrorKind::RolledBack);
    // The limit: a node that never saw the newer epoch and has no watermark believes the copy.
    let believing = fresh(false).await;
    assert!(channel(&believing, "C9").await.open(&[], &sealed).await.is_ok());
    fleet.kms.set(Fault::None);
}
