//! A tenant with thousands of new channels at once, and the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use strongroom::{PostgresOptions, ScopeHandle, Strongroom};

use crate::cluster::{Cluster, Database};
use crate::{HANGS, House, channel, percentile};

/// How a storm of new channels went.
pub(crate) struct Storm {
    pub(crate) made: usize,
    pub(crate) failures: Vec<String>,
    pub(crate) took: Duration,
    /// How long another tenant's opens with the key in hand, and its loads, took meanwhile.
    pub(crate) hot: Vec<Duration>,
    pub(crate) cold: Vec<Duration>,
    pub(crate) refused: Vec<String>,
}

/// What another tenant has sealed. It is there before the storm begins, so that all of its waiting is measured.
struct Visitor {
    room: Strongroom,
    here: (ScopeHandle, Vec<u8>),
    elsewhere: (ScopeHandle, Vec<u8>),
}

async fn visitor(room: &Strongroom) -> Visitor {
    let [here, elsewhere] = [channel(room, "globex", "C1").await, channel(room, "globex", "C2").await];
    let (sealed, other) = (here.seal(&[], b"x").await.unwrap(), elsewhere.seal(&[], b"x").await.unwrap());
    Visitor { room: room.clone(), here: (here, sealed), elsewhere: (elsewhere, other) }
}

/// Another tenant: opens with the key in hand all the time, and loads a key again and again.
async fn visits(visitor: Visitor, until: Arc<AtomicBool>) -> (Vec<Duration>, Vec<Duration>, Vec<String>) {
    let (mut hot, mut cold, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let Visitor { room, here: (scope, sealed), elsewhere: (elsewhere, other) } = visitor;
    while !until.load(Ordering::SeqCst) {
        let began = Instant::now();
        match scope.open(&[], &sealed).await {
            Ok(_) => hot.push(began.elapsed()),
            Err(e) => refused.push(format!("hot: {e}")),
        }
        scope.seal(&[], b"y").await.map_or_else(|e| refused.push(format!("hot seal: {e}")), drop);
        if hot.len() % 16 == 1 {
            room.admin("a test", "to test").unwrap().purge("globex").unwrap();
            let began = Instant::now();
            match elsewhere.open(&[], &other).await {
                Ok(_) => cold.push(began.elapsed()),
                Err(e) => refused.push(format!("cold: {e}")),
            }
            scope.open(&[], &sealed).await.map_or_else(|e| refused.push(format!("cold: {e}")), drop);
        }
        tokio::time::sleep(Duration::from_millis(2)).await; // its users are people
    }
    (hot, cold, refused)
}

pub(crate) async fn storm(room: &Strongroom, channels: usize) -> Storm {
    let until = Arc::new(AtomicBool::new(false));
    let visiting = tokio::spawn(visits(visitor(room).await, Arc::clone(&until)));
    let acme = room.tenant("acme").await.unwrap();
    let scopes: Vec<ScopeHandle> =
        (0..channels).map(|n| acme.scope([("channel", &*format!("new-{n}"))]).unwrap()).collect();
    let began = Instant::now();
    let made = scopes.into_iter().map(|scope| tokio::spawn(async move { scope.seal(&[], b"hello").await }));
    let made: Vec<_> = join_all(made).await.into_iter().map(Result::unwrap).collect();
    let took = began.elapsed();
    until.store(true, Ordering::SeqCst);
    let (hot, cold, refused) = visiting.await.unwrap();
    let failures: Vec<String> = made.iter().filter_map(|it| it.as_ref().err()).map(ToString::to_string).collect();
    Storm { made: channels - failures.len(), failures, took, hot, cold, refused }
}

/// How long the other tenant's calls take while nothing else happens: hot, cold.
pub(crate) async fn at_peace(room: &Strongroom, for_so_long: Duration) -> (Vec<Duration>, Vec<Duration>) {
    let until = Arc::new(AtomicBool::new(false));
    let visiting = tokio::spawn(visits(visitor(room).await, Arc::clone(&until)));
    tokio::time::sleep(for_so_long).await;
    until.store(true, Ordering::SeqCst);
    let (hot, cold, _) = visiting.await.unwrap();
    (hot, cold)
}

// Ten connections, ten thousand new channels: 5 were made and 9 995 failed after five seconds' wait for a connection, and another
// tenant's opens, with the key in hand, waited for the lease, whose look-ups waited behind all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_s_thousands_of_new_channels_are_all_made_and_no_other_tenant_waits_for_them() {
    let database = Database::on(Arc::new(Cluster::start(&["fsync=off"])), "").await;
    // A call waits for a connection for half a second at most, and there are too few by far.
    let options = PostgresOptions::default().max_connections(2).timeout(Duration::from_secs(1));
    let house = House::new(Duration::from_secs(2));
    let room = house.room(Arc::new(database.store_with(&options).await)).await;
    for tenant in ["acme", "globex"] {
        house.enroll(&room, tenant).await;
    }
    let mut storm = tokio::time::timeout(HANGS, storm(&room, 5_000)).await.expect("hangs");
    assert!(storm.failures.is_empty(), "{} failed: {}", storm.failures.len(), storm.failures[0]);
    assert_eq!(storm.made, 5_000);
    assert!(storm.refused.is_empty(), "another tenant: {}", storm.refused[0]);
    let (hot, cold) = (percentile(&mut storm.hot, 99), percentile(&mut storm.cold, 99));
    assert!(!storm.cold.is_empty() && hot.max(cold) < storm.took / 2, "hot {hot:?}, cold {cold:?} of {:?}", storm.took);
}
