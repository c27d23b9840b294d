//! The turn of the hour, measured: how long the first message after it waits, of each of many scopes. Not a test, but figures; run it
//! with `cargo test --release --all-features --test turn -- --ignored --nocapture`. `STRONGROOM_SCOPES` says how many scopes (3000),
//! `STRONGROOM_LEAD` how many seconds before the hour they are in use (200), and with `STRONGROOM_AHEAD=0` no keys are made ahead.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may panic

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::stream::{StreamExt, iter};
use strongroom::testing::{Fault, FaultyKms, Operator};
use strongroom::{
    Clock, HotScope, LocalKms, Period, Region, ScopeHandle, SqliteKeyStore, Strongroom, SystemClock, TenantPolicy,
};

/// 2026-11-22T05:00:00Z
const HOUR: i64 = 1_795_323_600_000;
const KMS: Duration = Duration::from_millis(20);

/// The machine's clocks, with the date set so that an hour ends when it is to.
struct Shifted(i64);

impl Clock for Shifted {
    fn unix_millis(&self) -> i64 {
        SystemClock.unix_millis() + self.0
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }
}

fn asked(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// How long each message waited.
async fn seal_all(scopes: &[ScopeHandle], within: Duration) -> Vec<Duration> {
    let one = move |n: usize, scope: ScopeHandle| async move {
        let part = u32::try_from(n).unwrap().wrapping_mul(2_654_435_769);
        tokio::time::sleep(within.mul_f64(f64::from(part) / f64::from(u32::MAX))).await; // its moment
        let began = Instant::now();
        scope.seal(&[], b"the first message of the hour").await.unwrap();
        began.elapsed()
    };
    let tasks = scopes.iter().cloned().enumerate().map(|(n, scope)| tokio::spawn(one(n, scope)));
    let mut waits: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    waits.sort_unstable();
    waits
}

fn say(what: &str, waits: &[Duration], calls: usize) {
    let at = |part: usize| waits[(waits.len() - 1) * part / 1_000];
    println!("{what}: p50 {:?}, p99 {:?}, maximum {:?}; {calls} KMS calls", at(500), at(990), at(1_000));
}

async fn turn(what: &str, within: Duration) {
    let (scopes, lead) = (asked("STRONGROOM_SCOPES", 3_000), asked("STRONGROOM_LEAD", 200));
    let folder = tempfile::tempdir().unwrap();
    let (local, eu) = (LocalKms::in_memory(), Region::new("eu-central-1").unwrap());
    let kek = local.create_kek("acme", eu.clone()).unwrap();
    let kms = FaultyKms::new(local);
    let store = SqliteKeyStore::create(folder.path().join("keys.db")).await.unwrap();
    // The hour ends after the keys of this one are made, and the lead.
    let ends = Instant::now() + Duration::from_secs(lead + scopes / 100);
    let left = i64::try_from(ends.duration_since(Instant::now()).as_millis()).unwrap();
    let clock = Shifted(HOUR + 3_600_000 - left - SystemClock.unix_millis());
    let builder = Strongroom::builder().serving(["eu-central-1"]).key_store(store).kms(kms.clone()).clock(clock);
    let builder = builder.keys_ahead(asked("STRONGROOM_AHEAD", 1) != 0);
    let room = builder.open_under(&Operator::default()).await;
    let policy = TenantPolicy::new(kek, eu).scope_by(["channel"]).allow_unbound_messages().period(Period::Hour);
    room.admin("a campaign", "the turn of the hour").unwrap().enroll("acme", policy).await.unwrap();
    let tenant = room.tenant("acme").await.unwrap();
    let scope = |n: u64| tenant.scope([("channel", &*n.to_string())]).unwrap();
    let scopes: Vec<ScopeHandle> = (0..scopes).map(scope).collect();
    kms.set(Fault::Slow(KMS));
    let first = iter(&scopes).for_each_concurrent(64, async |scope| drop(scope.seal(&[], b"x").await.unwrap()));
    first.await;
    let hot: Vec<HotScope> = iter(&scopes[..100]).then(async |scope| scope.hot().await.unwrap()).collect().await;
    let before = kms.calls();
    // Until the hour ends, every scope goes on.
    while Instant::now() + Duration::from_secs(5) < ends {
        for scope in &scopes {
            scope.seal(&[], b"x").await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let ahead = kms.calls() - before;
    let not_loaded = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&not_loaded);
    let synchronous = std::thread::spawn(move || {
        while Instant::now() < ends + Duration::from_secs(2) {
            counted.fetch_add(hot.iter().filter(|hot| hot.seal(&[], b"x").is_err()).count(), Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    tokio::time::sleep_until((ends + Duration::from_millis(20)).into()).await;
    let before = kms.calls();
    let waits = seal_all(&scopes[100..], within).await;
    say(what, &waits, kms.calls() - before);
    synchronous.join().unwrap();
    println!(
        "  before the turn {ahead} KMS calls; 100 hot handles were refused {} times",
        not_loaded.load(Ordering::SeqCst)
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "figures; takes some minutes"]
async fn the_first_messages_after_the_hour_at_random_moments() {
    turn("at random moments of 3 s", Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "figures; takes some minutes"]
async fn the_first_messages_after_the_hour_all_at_once() {
    turn("all at once", Duration::ZERO).await;
}
