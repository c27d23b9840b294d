//! Nodes that tell each other by NOTIFY.

use std::sync::Arc;
use std::time::{Duration, Instant};

use strongroom::{
    Change, ErrorKind, Forget, KeyStore, LocalKms, Period, Region, ScopeHandle, Selector, Strongroom, TenantPolicy,
};
use tokio::time::timeout;

use crate::change;
use crate::cluster::{Database, execute};
use crate::through::Through;

/// What hangs is broken; no bound that anybody documents.
const HANGS: Duration = Duration::from_secs(30);
/// README: from a revocation to its effect on every node, where nodes are told.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

async fn told(store: &impl KeyStore) {
    timeout(HANGS, store.changed()).await.expect("nobody told of a change");
}

#[tokio::test]
async fn a_change_on_one_node_is_told_to_the_others() {
    let database = Database::new().await;
    let (one, other) = (database.store().await, database.store().await);
    told(&other).await; // it listens now
    for n in 0..20 {
        // Said while nobody waits for it, and while somebody does.
        let change = change("C1");
        let announced = one.announce(&change);
        if n % 2 == 0 {
            announced.await.unwrap();
            told(&other).await;
        } else {
            let ((), announced) = tokio::join!(told(&other), announced);
            announced.unwrap();
        }
    }
    // Nothing to forget is nothing to hear: what the next call hears is the last change.
    one.announce(&Change { forget: Forget::Nothing, ..change("C1") }).await.unwrap();
    one.announce(&change("C2")).await.unwrap();
    told(&other).await;
    let log = other.changes(Some(20), 10).await.unwrap();
    assert_eq!(log.changes, [change("C2")]);
}

#[tokio::test]
async fn a_change_that_is_rolled_back_is_told_to_nobody() {
    let database = Database::new().await;
    let (one, other) = (database.store().await, database.store().await);
    told(&other).await;
    let mut acme = crate::tenant("acme");
    one.insert_tenant(&acme).await.unwrap();
    acme.epoch = 5;
    assert!(one.update_tenant(&acme, &change("C1")).await.is_err());
    acme.epoch = 2;
    one.update_tenant(&acme, &change("C2")).await.unwrap();
    told(&other).await;
    assert_eq!(other.changes(Some(0), 10).await.unwrap().changes, [change("C2")]);
}

struct Fleet {
    database: Database,
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
        let policy = TenantPolicy::new(kek, region).scope_by(["channel"]).period(Period::Month);
        rooms[0].admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
        Self { database, rooms }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listener_comes_back_by_itself_and_says_so() {
    let fleet = Fleet::new().await;
    let mut db = fleet.database.raw().await;
    let (one, other) = (fleet.database.store().await, fleet.database.store().await);
    told(&other).await;
    for _ in 0..3 {
        let listeners = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE query LIKE 'LISTEN%' AND datname = current_database()";
        execute(&mut db, listeners).await;
        told(&other).await; // it listens again: what was said meanwhile is missed, so it says that it may have been
        one.announce(&change("C1")).await.unwrap();
        told(&other).await;
    }
    fleet.revoked_within("C2").await;
}

#[tokio::test]
async fn a_store_that_is_closed_tells_nothing_and_leaves_no_connection() {
    let database = Database::new().await;
    let mut db = database.raw().await;
    let mut others =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            .to_owned();
    others.push_str(" AND backend_type = 'client backend'");
    for close in [true, false] {
        let store = database.store().await;
        told(&store).await;
        if close {
            store.close().await;
            let refused = store.announce(&change("C1")).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unavailable);
            assert!(futures_util::FutureExt::now_or_never(store.changed()).is_none());
        }
        drop(store);
        let gone = async {
            while sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(others.as_str())).fetch_one(&mut db).await.unwrap()
                > 0
            {
                tokio::task::yield_now().await;
            }
        };
        timeout(HANGS, gone).await.expect("connections were left behind");
    }
}
