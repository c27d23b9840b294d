//! The long forms: figures for the machine at hand, by `scripts/capacity`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use strongroom::testing::Fault;
use strongroom::{ErrorKind, MemoryKeyStore, PostgresOptions, Selector};

use crate::cluster::{Cluster, Database};
use crate::fail_over::{failed_over, file_put_back, revoked_behind_a_standby};
use crate::storm::{at_peace, storm};
use crate::{House, channel, percentile};

/// A line of the table that the script prints.
fn figure(what: &str, is: &str) {
    println!("figure | {what} | {is}");
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "figures, by scripts/capacity"]
async fn new_channels() {
    let channels = number("STRONGROOM_CHANNELS", 10_000);
    let database = Database::on(Arc::new(Cluster::start(&[])), "").await;
    let house = House::new(Duration::from_secs(5));
    let room = house.room(Arc::new(database.store_with(&PostgresOptions::default()).await)).await;
    for tenant in ["acme", "globex"] {
        house.enroll(&room, tenant).await;
    }
    let (mut hot, mut cold) = at_peace(&room, Duration::from_secs(10)).await;
    let (hot, cold) = (percentile(&mut hot, 99), percentile(&mut cold, 99));
    figure("another tenant at peace", &format!("hot open p99 {hot:?}, cold open p99 {cold:?}"));
    let mut storm = storm(&room, channels).await;
    let (made, failed, took) = (storm.made, storm.failures.len(), storm.took);
    figure(&format!("{channels} new channels on PostgreSQL"), &format!("{made} made, {failed} failed in {took:?}"));
    if let Some(failure) = storm.failures.first() {
        figure("  the first failure", failure);
    }
    let worst = storm.hot.iter().max().copied().unwrap_or_default();
    let (hot, cold) = (percentile(&mut storm.hot, 99), percentile(&mut storm.cold, 99));
    let (opens, loads, refused) = (storm.hot.len(), storm.cold.len(), storm.refused.len());
    figure(
        "another tenant meanwhile",
        &format!(
            "hot open p99 {hot:?}, longest {worst:?} ({opens}); cold open p99 {cold:?} ({loads}); {refused} refused"
        ),
    );
    if let Some(refusal) = storm.refused.first() {
        figure("  the first refusal", refusal);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "figures, by scripts/capacity"]
async fn standby_and_fail_over() {
    let bound = Duration::from_secs(5);
    let behind = revoked_behind_a_standby(bound).await;
    figure("last open after a revocation, at a standby that is behind (bound 5 s)", &format!("{:?}", behind.last_open));
    let lost = failed_over(bound).await;
    figure(
        "sealed under a missing key after a fail-over and one lease, PostgreSQL",
        &format!("{} of {}", lost.under_missing_keys, lost.sealed),
    );
    let lost = file_put_back(bound).await;
    figure(
        "the same after an older copy was put back, SQLite",
        &format!("{} of {}", lost.under_missing_keys, lost.sealed),
    );
}

/// Eight callers with a key in hand while the log hangs: the lock on `changes` is somebody else's.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "figures, by scripts/capacity"]
async fn convoy() {
    use sqlx::Connection as _;
    let (database, house) = (Database::new().await, House::new(Duration::from_secs(1)));
    let room = house.room(Arc::new(database.store().await)).await;
    house.enroll(&room, "acme").await;
    let scope = channel(&room, "acme", "C1").await;
    scope.seal(&[], b"x").await.unwrap();
    let mut other = database.raw().await;
    let mut locking = other.begin().await.unwrap();
    crate::cluster::execute(&mut locking, "LOCK TABLE changes").await;
    while scope.seal(&[], b"x").await.is_ok() {}
    let waited = join_all((0..8).map(|_| async {
        let began = Instant::now();
        let _ = scope.seal(&[], b"x").await;
        began.elapsed()
    }));
    figure("the log hangs, bound 1 s, 8 callers with a key in hand", &format!("{:?}", waited.await));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "figures, by scripts/capacity"]
async fn denied() {
    let house = House::new(Duration::from_secs(5));
    let room = house.room(Arc::new(MemoryKeyStore::default())).await;
    house.enroll(&room, "acme").await;
    let scope = channel(&room, "acme", "C1").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    room.admin("a test", "to test").unwrap().purge("acme").unwrap();
    house.kms.set(Fault::Fails(ErrorKind::Denied));
    let (before, began) = (house.kms.calls(), Instant::now());
    for _ in 0..1_000 {
        assert_eq!(scope.open(&[], &sealed).await.unwrap_err().kind(), ErrorKind::Denied);
    }
    let calls = house.kms.calls() - before;
    figure("1 000 opens of a denied tenant", &format!("{calls} KMS calls in {:?}", began.elapsed()));
}

/// How long the kill switch takes in the middle of a storm.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "figures, by scripts/capacity"]
async fn kill_switch() {
    let database = Database::on(Arc::new(Cluster::start(&[])), "").await;
    let house = House::new(Duration::from_secs(5));
    let room = house.room(Arc::new(database.store().await)).await;
    for tenant in ["acme", "globex"] {
        house.enroll(&room, tenant).await;
    }
    let storming = {
        let room = room.clone();
        tokio::spawn(async move { storm(&room, number("STRONGROOM_CHANNELS", 10_000) / 2).await })
    };
    let mut took = Vec::new();
    let admin = room.admin("a test", "to test").unwrap();
    let mut failed = 0;
    while !storming.is_finished() && took.len() < 200 {
        let name = format!("C{}", took.len());
        let began = Instant::now();
        failed += usize::from(admin.revoke("globex", Selector::fields([("channel", &*name)])).await.is_err());
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    storming.abort();
    let (count, worst) = (took.len(), took.iter().max().copied().unwrap_or_default());
    let p99 = percentile(&mut took, 99);
    figure(
        "revocations in the middle of a storm",
        &format!("p99 {p99:?}, longest {worst:?}, {failed} of {count} failed"),
    );
}
