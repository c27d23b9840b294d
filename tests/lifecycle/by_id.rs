//! Keys that are revoked or erased one by one, by their ids: their scope goes on under another key.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use strongroom::testing::{ManualClock, Operator};
use strongroom::{
    ErrorKind, KeyId, KeyStore, LocalKms, MemoryKeyStore, Period, ScopeHandle, Selector, Strongroom, TenantPolicy,
    WalkOptions,
};

use crate::{BOUND, DAY, EU, Fleet, HOUR, NOW, channel, gently, key_id, kind, region};

/// A tenant with hourly keys on a store of any kind.
struct OnStore {
    store: Arc<dyn KeyStore>,
    kms: LocalKms,
    clock: ManualClock,
    operator: Operator,
}

impl OnStore {
    async fn new(store: Arc<dyn KeyStore>) -> (Self, Strongroom) {
        let (kms, clock) = (LocalKms::in_memory(), ManualClock::at(NOW));
        let world = Self { store, kms, clock, operator: Operator::default() };
        let node = world.node().await;
        let kek = world.kms.create_kek("acme", region(EU)).unwrap();
        let policy = TenantPolicy::new(kek, region(EU)).scope_by(["channel"]).period(Period::Hour);
        node.admin("a test", "to test").unwrap().enroll("acme", policy.allow_unbound_messages()).await.unwrap();
        (world, node)
    }

    async fn node(&self) -> Strongroom {
        let builder = Strongroom::builder().serving([EU]).key_store(Arc::clone(&self.store)).kms(self.kms.clone());
        builder.clock(self.clock.clone()).revocation_bound(BOUND).open_under(&self.operator).await
    }
}

/// How a key goes, and what opening its messages says from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    Revoked,
    Waiting,
    Erased,
}

/// What the key is at that moment.
#[derive(Clone, Copy, Debug)]
enum Is {
    Active,
    Deactivated,
    OfAnHourAgo,
}

async fn seal_ok(scope: &ScopeHandle, gone: KeyId, what: &str) {
    let sealed = scope.seal(&[], b"after").await.unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_ne!(key_id(&sealed), gone, "{what}");
    assert_eq!(&*scope.open(&[], &sealed).await.unwrap(), b"after", "{what}");
}

async fn one_key_goes_and_its_scope_goes_on(store: Arc<dyn KeyStore>) {
    let (world, node) = OnStore::new(store).await;
    let other = world.node().await;
    let admin = node.admin("a test", "to test").unwrap();
    let mut gone = Vec::new();
    for goes in [Goes::Revoked, Goes::Waiting, Goes::Erased] {
        for is in [Is::Active, Is::Deactivated, Is::OfAnHourAgo] {
            let (name, what) = (format!("{goes:?}-{is:?}"), format!("{goes:?}, {is:?}"));
            let scope = channel(&node, &name).await;
            let there = channel(&other, &name).await;
            let sealed = scope.seal(&[], b"before").await.unwrap();
            there.open(&[], &sealed).await.unwrap();
            let id = key_id(&sealed);
            match is {
                Is::Active => {}
                Is::Deactivated => drop(admin.rotate("acme", &[("channel", &name)]).await.unwrap()),
                Is::OfAnHourAgo => world.clock.advance(HOUR),
            }
            let this = Selector::keys([id]);
            match goes {
                Goes::Revoked => drop(admin.revoke("acme", this).await.unwrap()),
                Goes::Waiting => drop(admin.erase("acme", this, 300 * DAY).await.unwrap()),
                Goes::Erased => {
                    let erasure = admin.erase("acme", this, Duration::ZERO).await.unwrap();
                    admin.carry_out_erasure("acme", &erasure.id, &gently()).await.unwrap();
                }
            }
            seal_ok(&scope, id, &what).await;
            world.clock.advance(BOUND);
            seal_ok(&there, id, &format!("{what}, on another node")).await;
            gone.push((name, id, goes, sealed));
        }
    }
    let all_as_said = async |node: &Strongroom, when: &str| {
        for (name, id, goes, sealed) in &gone {
            let scope = channel(node, name).await;
            seal_ok(&scope, *id, &format!("{name}, {when}")).await;
            let expected = if *goes == Goes::Erased { ErrorKind::Erased } else { ErrorKind::Revoked };
            assert_eq!(kind(scope.open(&[], sealed).await), expected, "{name}, {when}");
        }
    };
    all_as_said(&world.node().await, "after a restart").await;
    admin.evict().await.unwrap();
    world.clock.advance(BOUND);
    all_as_said(&other, "after an eviction").await;
    all_as_said(&world.node().await, "after an eviction and a restart").await;
    world.clock.advance(HOUR);
    all_as_said(&node, "an hour later").await;
}

#[tokio::test]
async fn one_key_goes_and_its_scope_goes_on_in_memory() {
    one_key_goes_and_its_scope_goes_on(Arc::new(MemoryKeyStore::default())).await;
}

async fn sqlite(folder: &Path) -> Arc<dyn KeyStore> {
    Arc::new(strongroom::SqliteKeyStore::create(folder.join("keys.db")).await.unwrap())
}

#[tokio::test]
async fn one_key_goes_and_its_scope_goes_on_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    one_key_goes_and_its_scope_goes_on(sqlite(folder.path()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_goes_and_its_scope_goes_on_in_postgresql() {
    let database = crate::cluster::Database::new().await;
    one_key_goes_and_its_scope_goes_on(Arc::new(database.store().await)).await;
}

/// Each of the tenant's own decisions takes the Active key away, and each time the scope gets another one: they are no store that
/// loses keys.
#[tokio::test]
async fn decisions_about_a_scope_s_key_do_not_use_up_its_keys() {
    let fleet = Fleet::new().await;
    let admin = fleet.node.admin("a test", "to test").unwrap();
    for (name, there) in [("revoked", false), ("erased", false), ("rotated", false), ("rotated-there", true)] {
        let scope = channel(if there { &fleet.other } else { &fleet.node }, name).await;
        for round in 0..40 {
            let sealed = scope.seal(&[], b"x").await.unwrap_or_else(|e| panic!("{name}, round {round}: {e}"));
            let this = Selector::keys([key_id(&sealed)]);
            match name {
                "revoked" => drop(admin.revoke("acme", this).await.unwrap()),
                "erased" => {
                    let erasure = admin.erase("acme", this, Duration::ZERO).await.unwrap();
                    admin.carry_out_erasure("acme", &erasure.id, &WalkOptions::default()).await.unwrap();
                }
                _ => {
                    let this = Selector::fields([("channel", name)]);
                    assert_eq!(admin.rotate_all("acme", this, &gently()).await.unwrap().done, 1);
                    fleet.settle();
                }
            }
        }
    }
}

/// A message whose key is revoked by its id is not said to be under the key to seal with.
#[tokio::test]
async fn resealing_does_not_take_a_revoked_key_for_the_present_one() {
    let fleet = Fleet::new().await;
    let scope = channel(&fleet.node, "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    admin.revoke("acme", Selector::keys([key_id(&sealed)])).await.unwrap();
    assert_eq!(kind(scope.reseal(&[], &sealed).await), ErrorKind::Revoked);
}
