//! Authentic rows of before, put back: tenants' rows, records, and the whole store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use strongroom::testing::Operator;
use strongroom::{Error, ErrorKind, KeyState, Mark, RowKey, Selector, Strongroom, Subject, Watermark};
use tokio::sync::Notify;

use crate::world::{BOUND, EU, World, channel, key_id, kind, tenant, walk};

/// Epoch 8 rolled back to 7, then an honest 8' by a control plane that never saw 8: refused, and so is 9'.
#[tokio::test]
async fn no_honest_write_launders_an_old_row() {
    let world = World::new().await;
    let sealed = world.seal(&world.node, "acme", "C9").await.unwrap();
    let before = world.store.snapshot();
    world.admin().revoke("acme", channel("C9")).await.unwrap();
    world.store.restore(&before);
    let naive = world.fresh(true).await;
    let admin = naive.admin("bob", "a test").unwrap();
    for _ in 0..2 {
        assert_eq!(kind(admin.revoke("acme", channel("C8")).await), ErrorKind::RolledBack);
        assert_eq!(kind(admin.rotate("acme", &[("channel", "C9")]).await), ErrorKind::RolledBack);
    }
    assert_eq!(kind(world.open(&naive, "acme", "C9", &sealed).await), ErrorKind::RolledBack);
    assert_eq!(kind(world.seal(&naive, "acme", "C9").await), ErrorKind::RolledBack);
}

/// A decision that was written and not confirmed: the store is put back in between, and another control plane decides.
#[tokio::test]
async fn a_decision_that_was_put_back_before_it_was_confirmed_is_not_confirmed() {
    let world = World::new().await;
    let (before, subject) = (world.store.snapshot(), strongroom::Subject::Tenant(tenant("acme")));
    let seven = world.operator.watermark.read(&subject).await.unwrap().unwrap();
    world.admin().revoke("acme", channel("C9")).await.unwrap();
    let eight = world.operator.watermark.read(&subject).await.unwrap().unwrap();
    assert_eq!((seven.epoch, eight.epoch), (1, 2));
    // As if the first had ended before it raised the watermark: the next one finds the row one ahead, and confirms it.
    assert!(world.operator.watermark.advance(&subject, Some(&eight), &seven).await.unwrap());
    let other = world.fresh(true).await;
    other.admin("bob", "a test").unwrap().revoke("acme", channel("C8")).await.unwrap();
    assert_eq!(other.admin("bob", "a test").unwrap().tenant("acme").await.unwrap().revocations.len(), 2);
    // And as if the store had been put back to before it.
    world.store.restore(&before);
    assert_eq!(kind(other.admin("bob", "a test").unwrap().revoke("acme", channel("C7")).await), ErrorKind::RolledBack);
}

/// The watermark that keeps a decision which was written waiting before it is confirmed, once.
struct Slow {
    watermark: Arc<dyn Watermark>,
    is_armed: AtomicBool,
    reached: Notify,
    goes_on: Notify,
}

#[async_trait::async_trait]
impl Watermark for Slow {
    async fn read(&self, subject: &Subject) -> Result<Option<Mark>, Error> {
        self.watermark.read(subject).await
    }

    async fn advance(&self, subject: &Subject, from: Option<&Mark>, to: &Mark) -> Result<bool, Error> {
        if matches!(subject, Subject::Tenant(_)) && self.is_armed.swap(false, Ordering::SeqCst) {
            self.reached.notify_one();
            self.goes_on.notified().await;
        }
        self.watermark.advance(subject, from, to).await
    }
}

/// The same while the first is still at it: the other one went on from the row of before, by two decisions, so that the watermark is
/// beyond the first one's. Who finds it there has to look whether his own decision is among them.
#[tokio::test]
async fn who_is_overtaken_confirms_only_what_stands() {
    for put_back in [false, true] {
        let world = World::new().await;
        let slow = Arc::new(Slow {
            watermark: Arc::clone(&world.operator.watermark),
            is_armed: AtomicBool::new(false),
            reached: Notify::new(),
            goes_on: Notify::new(),
        });
        let builder = Strongroom::builder().serving([EU]).key_store(Arc::clone(&world.store)).kms(world.kms.clone());
        let builder = builder.clock(world.clock.clone()).revocation_bound(BOUND).watermark(Arc::clone(&slow));
        let node = builder.room(Operator::ROOM).root(world.operator.root.clone()).build().await.unwrap();
        let before = world.store.snapshot();
        slow.is_armed.store(true, Ordering::SeqCst);
        let first =
            tokio::spawn(async move { node.admin("alice", "a test").unwrap().revoke("acme", channel("C9")).await });
        slow.reached.notified().await;
        if put_back {
            world.store.restore(&before);
        }
        let other = world.fresh(true).await;
        for name in ["C7", "C8"] {
            other.admin("bob", "a test").unwrap().revoke("acme", channel(name)).await.unwrap();
        }
        slow.goes_on.notify_one();
        let first = first.await.unwrap().map(drop).map_err(|e| e.kind());
        let stands = other.admin("bob", "a test").unwrap().tenant("acme").await.unwrap().revocations.len() == 3;
        assert_eq!((first, stands), if put_back { (Err(ErrorKind::RolledBack), false) } else { (Ok(()), true) });
    }
}

#[tokio::test]
async fn a_tenant_that_was_deleted_is_not_enrolled_over() {
    let world = World::new().await;
    world.store.raw_put(&RowKey::Tenant(tenant("acme")), None, None);
    let node = world.fresh(true).await;
    assert_eq!(kind(node.tenant("acme").await), ErrorKind::RolledBack);
    let policy = world.admin().tenant("globex").await.unwrap().policy;
    assert_eq!(kind(world.admin().enroll("acme", policy).await), ErrorKind::RolledBack);
    // Without a watermark a process that starts afresh has never heard of it.
    assert_eq!(kind(world.fresh(false).await.tenant("acme").await), ErrorKind::UnknownTenant);
}

/// Deleted and enrolled anew, under a new watermark: another incarnation, and no record of before is one of its keys.
#[tokio::test]
async fn a_tenant_enrolled_anew_opens_nothing_of_before() {
    let mut world = World::new().await;
    let sealed = world.seal(&world.node, "acme", "C9").await.unwrap();
    let (_, old) = world.record("acme", key_id(&sealed));
    for (key, ..) in world.rows() {
        let gone = match &key {
            RowKey::Tenant(of) | RowKey::Journal(of, _) => *of == tenant("acme"),
            _ => false,
        };
        if gone {
            world.store.raw_put(&key, None, None);
        }
    }
    // The operator means it: acme's mark is taken out of the watermark.
    let fresh = strongroom::testing::Operator { root: world.operator.root.clone(), ..Default::default() };
    for subject in
        [strongroom::Subject::Room, strongroom::Subject::Fleet, strongroom::Subject::Tenant(tenant("globex"))]
    {
        let mark = world.operator.watermark.read(&subject).await.unwrap().unwrap();
        assert!(fresh.watermark.advance(&subject, None, &mark).await.unwrap());
    }
    world.operator = fresh;
    let node = world.fresh(true).await;
    let keks: strongroom::KekExpression = "all_of(local:acme, local:second-holder)".parse().unwrap();
    let policy = strongroom::TenantPolicy::new(keks, crate::world::region()).scope_by(["channel"]);
    let admin = node.admin("alice", "they came back").unwrap();
    assert_eq!(kind(admin.enroll("acme", policy.clone()).await), ErrorKind::StoreInconsistent, "a key of it is left");
    admin.enroll_anew("acme", policy).await.unwrap();
    // It was taken away, and is put back.
    assert_eq!(world.rows().iter().filter(|row| row.0 == old.0).count(), 0);
    world.store.raw_put(&old.0, Some(old.1.clone()), old.2.clone());
    for watermark in [true, false] {
        let node = world.fresh(watermark).await;
        assert_eq!(kind(world.open(&node, "acme", "C9", &sealed).await), ErrorKind::Tampered);
    }
    // Its old Active key stands where the new tenant looks for one. It is not sealed under.
    assert_eq!(kind(world.seal(&node, "acme", "C9").await), ErrorKind::Tampered);
    world.store.raw_put(&old.0, None, None);
    assert_ne!(key_id(&world.seal(&node, "acme", "C9").await.unwrap()), key_id(&sealed));
}

/// An erased record put back, or hidden while the erasure walks.
#[tokio::test]
async fn what_was_erased_does_not_open_whatever_is_put_back() {
    for hidden in [false, true] {
        let world = World::new().await;
        let sealed = world.seal(&world.node, "acme", "C9").await.unwrap();
        let (_, row) = world.record("acme", key_id(&sealed));
        let admin = world.admin();
        let erasure = admin.erase("acme", channel("C9"), std::time::Duration::ZERO).await.unwrap();
        if hidden {
            world.store.raw_put(&row.0, None, None);
        }
        let walked = admin.carry_out_erasure("acme", &erasure.id, &walk()).await.unwrap();
        assert_eq!(walked.done, u64::from(!hidden));
        world.store.raw_put(&row.0, Some(row.1.clone()), row.2.clone());
        for watermark in [true, false] {
            let node = world.fresh(watermark).await;
            assert_eq!(kind(world.open(&node, "acme", "C9", &sealed).await), ErrorKind::Erased, "hidden: {hidden}");
            let anew = world.seal(&node, "acme", "C9").await.unwrap();
            assert_ne!(key_id(&anew), key_id(&sealed), "an erased key sealed again");
            world.store.raw_put(&RowKey::Key(tenant("acme"), key_id(&anew)), None, None);
            world.store.raw_put(&row.0, Some(row.1.clone()), row.2.clone());
        }
        // Lists say so, too.
        let listed = admin.keys("acme", None, 10).await.unwrap().keys;
        assert!(listed.iter().all(|key| key.key_id != key_id(&sealed) || key.state == KeyState::Destroyed));
    }
}

/// A record from before a rewrap says that the old KEKs unwrap it.
#[tokio::test]
async fn after_a_finished_rewrap_no_record_of_before_is_believed() {
    let world = World::new().await;
    let sealed = world.seal(&world.node, "globex", "C9").await.unwrap();
    let (_, before) = world.record("globex", key_id(&sealed));
    let new = world.local.create_kek("globex-2027", crate::world::region()).unwrap();
    assert_eq!(world.admin().rewrap("globex", &new, &walk()).await.unwrap().done, 1);
    world.store.raw_put(&before.0, Some(before.1), before.2);
    for watermark in [true, false] {
        let node = world.fresh(watermark).await;
        assert_eq!(kind(world.open(&node, "globex", "C9", &sealed).await), ErrorKind::Tampered);
        assert_eq!(kind(world.seal(&node, "globex", "C9").await), ErrorKind::Tampered);
    }
}

/// Rules that forbid are the tenant's row's: a record of before does not get around them.
#[tokio::test]
async fn a_revoked_key_s_old_record_does_not_open() {
    let world = World::new().await;
    let sealed = world.seal(&world.node, "acme", "C9").await.unwrap();
    let (_, row) = world.record("acme", key_id(&sealed));
    world.admin().revoke("acme", Selector::everything()).await.unwrap();
    world.store.raw_put(&row.0, Some(row.1), row.2);
    for watermark in [true, false] {
        let node = world.fresh(watermark).await;
        assert_eq!(kind(world.open(&node, "acme", "C9", &sealed).await), ErrorKind::Revoked);
        assert_eq!(kind(world.seal(&node, "acme", "C9").await), ErrorKind::Revoked);
    }
    let listed = world.admin().keys("acme", None, 10).await.unwrap().keys;
    assert_eq!(listed[0].state, KeyState::Suspended, "what is revoked lists as Suspended");
}

/// The Active key is hidden: a process that knows it makes no second one.
#[tokio::test]
async fn a_hidden_active_key_makes_no_second_one() {
    let world = World::new().await;
    let sealed = world.seal(&world.node, "globex", "C9").await.unwrap();
    let (_, row) = world.record("globex", key_id(&sealed));
    let generates = world.kms.generates();
    let mut deactivated = row.2.clone();
    deactivated.as_mut().unwrap().state = KeyState::Deactivated;
    // The whole row, or its place in the index alone.
    for (bytes, index) in [(None, None), (Some(row.1.clone()), deactivated)] {
        world.store.raw_put(&row.0, bytes, index);
        world.admin().purge("globex").unwrap();
        for _ in 0..1000 {
            assert_eq!(kind(world.seal(&world.node, "globex", "C9").await), ErrorKind::StoreInconsistent);
        }
        assert_eq!(world.kms.generates(), generates, "a second key was made");
    }
    world.store.raw_put(&row.0, Some(row.1), row.2);
    assert_eq!(key_id(&world.seal(&world.node, "globex", "C9").await.unwrap()), key_id(&sealed));
}

/// A process that knows none makes a bounded number of them, however often they are hidden.
#[tokio::test]
async fn a_scope_that_loses_its_key_over_and_over_costs_a_bounded_number_of_keys() {
    let world = World::new().await;
    let node = world.fresh(true).await;
    let (before, mut made) = (world.kms.generates(), 0);
    for _ in 0..1000 {
        // What is deactivated by an authentic record is no contradiction: a node that was taken over says so each time.
        if let Ok(sealed) = world.seal(&node, "globex", "C9").await {
            made += 1;
            let (record, row) = world.record("globex", key_id(&sealed));
            let mut gone = record.clone();
            gone.state = KeyState::Deactivated;
            gone.transitions.last_mut().unwrap().state = KeyState::Deactivated;
            let bytes = strongroom::testing::TakenOverNode::of(&node).tag(&gone).unwrap();
            let mut index = row.2.unwrap();
            index.state = KeyState::Deactivated;
            world.store.raw_put(&row.0, Some(bytes), Some(index));
            node.admin("alice", "a test").unwrap().purge("globex").unwrap();
        }
    }
    assert_eq!((world.kms.generates() - before, made), (16, 16));
}
