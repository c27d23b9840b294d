//! Nodes that tell each other by NOTIFY.

use std::sync::Arc;
use std::time::{Duration, Instant};

use strongroom::{ErrorKind, KeyStore, LocalKms, Period, Region, ScopeHandle, Selector, Strongroom, TenantPolicy};
use tokio::time::timeout;

use crate::cluster::Database;
use crate::through::Through;

/// What hangs is broken; no bound that anybody documents.
const HANGS: Duration = Duration::from_secs(30);
/// README: from a revocation to its effect on every node, where nodes are told.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

async fn told(store: &impl KeyStore) {
    timeout(HANGS, store.changed()).await.expect("nobody told of a change");
}

struct Fleet {
    _database: Database,
    /// The first node decides; the second hears of it by notification only.
    rooms: [Strongroom; 2],
}

impl Fleet {
    async fn new() -> Self {
        let database = Database::new().await;
        let kms = Arc::new(LocalKms::in_memory());
        let region = Region::new("eu-central-1").unwrap();
        let kek = kms.create_kek("acme", region.clone()).unwrap();
        let room = async |store: Arc<dyn KeyStore>| {
            let room = Strongroom::builder().serving(["eu-central-1"]).key_store(store).kms(Arc::clone(&kms));
            room.revocation_bound(Duration::from_secs(60)).trusting_the_key_store().build().await.unwrap()
        };
        let deaf = Through::deaf_to_polls(database.store().await);
        told(&deaf).await;
        let rooms = [room(Arc::new(database.store().await)).await, room(Arc::new(deaf)).await];
        let policy =
            TenantPolicy::new(kek, region).scope_by(["channel"]).allow_unbound_messages().period(Period::Month);
        rooms[0].admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
        Self { _database: database, rooms }
    }

    async fn scope(&self, room: usize, channel: &str) -> ScopeHandle {
        self.rooms[room].tenant("acme").await.unwrap().scope([("channel", channel)]).unwrap()
    }

    /// How long a revocation on the first node takes to be obeyed on the second, which has the key cached.
    async fn revoked_within(&self, channel: &str) -> Duration {
        let (here, there) = (self.scope(0, channel).await, self.scope(1, channel).await);
        let sealed = here.seal(&[], b"hello").await.unwrap();
        there.open(&[], &sealed).await.unwrap();
        self.rooms[0]
            .admin("a test", "to test")
            .unwrap()
            .revoke("acme", Selector::fields([("channel", channel)]))
            .await
            .unwrap();
        let decided = Instant::now();
        let refused = timeout(HANGS, async {
            loop {
                match there.open(&[], &sealed).await {
                    Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                    Err(e) => return e,
                }
            }
        });
        let refused = refused.await.expect("never told");
        assert_eq!(refused.kind(), ErrorKind::Revoked, "{refused}");
        decided.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_on_one_node_is_obeyed_on_another_without_a_poll() {
    let fleet = Fleet::new().await;
    let took = fleet.revoked_within("C1").await;
    assert!(took < TOLD_WITHIN, "took {took:?}");
}
