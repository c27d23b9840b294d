//! How much a room takes, who waits for whom, and what a fail-over costs: with real servers and files.
//!
//! `scripts/capacity` prints the figures of the long forms, which are ignored here.

#![cfg(all(unix, feature = "sqlite", feature = "postgres"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may panic

#[path = "capacity/campaign.rs"]
mod campaign;
#[path = "cluster/mod.rs"]
mod cluster;
#[path = "capacity/fail_over.rs"]
mod fail_over;
#[path = "capacity/locked.rs"]
mod locked;
#[path = "capacity/storm.rs"]
mod storm;
#[path = "capacity/switch.rs"]
mod switch;

use std::sync::Arc;
use std::time::Duration;

use strongroom::testing::{FaultyKms, Operator};
use strongroom::{KeyId, KeyStore, LocalKms, Region, ScopeHandle, Strongroom, TenantPolicy};

/// What hangs is broken; no bound that anybody documents.
const HANGS: Duration = Duration::from_secs(120);
const HOME: &str = "eu-central-1";

/// An operator, a KMS with a KEK for each tenant, and the rooms that are opened with them.
struct House {
    operator: Operator,
    local: LocalKms,
    kms: FaultyKms,
    bound: Duration,
}

impl House {
    fn new(bound: Duration) -> Self {
        let local = LocalKms::in_memory();
        Self { operator: Operator::default(), kms: FaultyKms::new(local.clone()), local, bound }
    }

    async fn room(&self, store: Arc<dyn KeyStore>) -> Strongroom {
        let builder = Strongroom::builder().serving([HOME]).key_store(store).kms(self.kms.clone());
        builder.revocation_bound(self.bound).open_under(&self.operator).await
    }

    async fn enroll(&self, room: &Strongroom, tenant: &str) {
        let region = Region::new(HOME).unwrap();
        let kek = self.local.create_kek(tenant, region.clone()).unwrap();
        let policy = TenantPolicy::new(kek, region).scope_by(["channel"]).allow_unbound_messages();
        room.admin("a test", "to test").unwrap().enroll(tenant, policy).await.unwrap();
    }
}

async fn channel(room: &Strongroom, tenant: &str, channel: &str) -> ScopeHandle {
    room.tenant(tenant).await.unwrap().scope([("channel", channel)]).unwrap()
}

/// The data key of an envelope.
fn key_id(envelope: &[u8]) -> KeyId {
    let region = usize::from(envelope[2]);
    KeyId::from_bytes(envelope[3 + region..][..32].try_into().unwrap())
}

/// What a distribution of times looks like.
fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times.get(times.len() * percent / 100).or(times.last()).copied().unwrap_or_default()
}
