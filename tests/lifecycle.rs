//! The life cycle of keys, verb by verb, through the public API: two nodes on one key store, so that what one decides is seen
//! at the other.

#[path = "lifecycle/by_id.rs"]
mod by_id;
mod cluster;
#[path = "lifecycle/erase.rs"]
mod erase;
#[path = "lifecycle/keks.rs"]
mod keks;
#[path = "lifecycle/lost_answers.rs"]
mod lost_answers;
#[path = "lifecycle/migrate.rs"]
mod migrate;
#[path = "lifecycle/policies.rs"]
mod policies;
#[path = "lifecycle/procedures.rs"]
mod procedures;
#[path = "lifecycle/remove.rs"]
mod remove;
#[path = "lifecycle/reseal.rs"]
mod reseal;
#[path = "lifecycle/revoke.rs"]
mod revoke;
#[path = "lifecycle/rotate.rs"]
mod rotate;
#[path = "lifecycle/rules.rs"]
mod rules;
#[path = "lifecycle/walks.rs"]
mod walks;

use std::sync::Arc;
use std::time::Duration;

use strongroom::testing::{FaultyKms, ManualClock, Operator};
use strongroom::{
    Admin, Erasure, Error, ErrorKind, Header, KekUri, KeyId, KeyRecord, LocalKms, MemoryKeyStore, Region, ScopeHandle,
    Strongroom, TenantPolicy, TenantRecord, WalkOptions,
};

/// 2026-11-22T05:17:29.5Z
const NOW: i64 = 1_795_324_649_500;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const EU: &str = "eu-central-1";
const US: &str = "us-east-1";
/// Longer than anything that began to be sealed is under way.
const WRITERS: Duration = Duration::from_secs(25 * 3600);
const BOUND: Duration = Duration::from_secs(5);

/// A tenant `acme` scoped by channel, and two nodes that serve both regions.
struct Fleet {
    operator: Operator,
    node: Strongroom,
    other: Strongroom,
    local: LocalKms,
    kms: FaultyKms,
    clock: ManualClock,
    store: Arc<MemoryKeyStore>,
}

fn region(name: &str) -> Region {
    Region::new(name).unwrap()
}

impl Fleet {
    async fn with(edit: impl FnOnce(TenantPolicy) -> TenantPolicy) -> Self {
        let local = LocalKms::in_memory();
        let kms = FaultyKms::new(local.clone());
        let (store, clock) = (Arc::new(MemoryKeyStore::default()), ManualClock::at(NOW));
        let operator = Operator::default();
        let node = async || {
            let builder = Strongroom::builder().serving([EU, US]).key_store(Arc::clone(&store)).kms(kms.clone());
            builder.clock(clock.clone()).revocation_bound(BOUND).open_under(&operator).await
        };
        let (node, other) = (node().await, node().await);
        let kek = local.create_kek("acme", region(EU)).unwrap();
        let policy = edit(
            TenantPolicy::new(kek, region(EU)).scope_by(["channel"]).allow_unbound_messages().allow_unbound_files(),
        );
        node.admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
        Self { operator, node, other, local, kms, clock, store }
    }

    async fn new() -> Self {
        Self::with(|policy| policy).await
    }

    fn kek(&self, name: &str, at: &str) -> KekUri {
        self.local.create_kek(name, region(at)).unwrap()
    }

    /// Time passes until every node has heard, or knows that it has not.
    fn settle(&self) {
        self.clock.advance(BOUND);
    }

    async fn records(&self) -> Vec<KeyRecord> {
        self.node.admin("a test", "to test").unwrap().keys("acme", None, 1000).await.unwrap().keys
    }

    async fn record(&self, sealed: &[u8]) -> KeyRecord {
        let id = key_id(sealed);
        self.records().await.into_iter().find(|r| r.key_id == id).unwrap()
    }
}

async fn channel(node: &Strongroom, name: &str) -> ScopeHandle {
    node.tenant("acme").await.unwrap().scope([("channel", name)]).unwrap()
}

fn key_id(sealed: &[u8]) -> KeyId {
    KeyId::from_bytes(*Header::parse(sealed).unwrap().key_id())
}

fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    match result {
        Ok(_) => panic!("accepted"),
        Err(e) => e.kind(),
    }
}

fn gently() -> WalkOptions {
    WalkOptions::default().page(3).concurrency(2)
}

/// Changes the policy that stands.
async fn set_policy(admin: &Admin, edit: impl FnOnce(TenantPolicy) -> TenantPolicy) -> Result<(), Error> {
    let row = admin.tenant("acme").await?;
    set_policy_from(admin, &row, edit(row.policy.clone())).await
}

async fn set_policy_from(admin: &Admin, from: &TenantRecord, policy: TenantPolicy) -> Result<(), Error> {
    admin.set_policy(from, policy).await
}

async fn retained(admin: &Admin, wait: Duration) -> Result<Vec<Erasure>, Error> {
    admin.apply_retention("acme", wait, &gently()).await
}
