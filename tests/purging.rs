//! Purges and sweeps of very many keys, measured: how long they take, and how long they keep another task of the same runtime, of one
//! thread, from its turn. Not a test, but figures; run it with
//! `cargo test --release --all-features --test purging -- --ignored --nocapture --test-threads 1`.
//! `STRONGROOM_KEYS` says how many keys (100000).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may panic

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use strongroom::testing::{ManualClock, Operator};
use strongroom::{LocalKms, MemoryKeyStore, Region, ScopeHandle, Strongroom, TenantPolicy};
use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};

const TENANTS: usize = 20;

fn keys() -> usize {
    std::env::var("STRONGROOM_KEYS").map_or(100_000, |keys| keys.parse().unwrap())
}

struct Full {
    room: Strongroom,
    clock: ManualClock,
    scopes: Vec<ScopeHandle>,
}

impl Full {
    /// A room with so many keys in memory, each in the slot of a scope with a handle.
    async fn of(keys: usize) -> Self {
        let (kms, region) = (LocalKms::in_memory(), Region::new("eu-central-1").unwrap());
        let clock = ManualClock::at(1_795_324_649_500);
        let builder = Strongroom::builder().serving(["eu-central-1"]).key_store(MemoryKeyStore::default());
        let builder = builder.kms(kms.clone()).clock(clock.clone()).cached_keys(keys).cached_keys_per_tenant(keys);
        let room = builder.open_under(&Operator::default()).await;
        let mut scopes = Vec::with_capacity(keys);
        for tenant in (0..TENANTS).map(|n| format!("tenant-{n}")) {
            let kek = kms.create_kek(&tenant, region.clone()).unwrap();
            let policy = TenantPolicy::new(kek, region.clone()).scope_by(["channel"]).allow_unbound_messages();
            room.admin("a campaign", "purging").unwrap().enroll(&tenant, policy.verify_new_keys(false)).await.unwrap();
            let tenant = room.tenant(&tenant).await.unwrap();
            for channel in 0..keys / TENANTS {
                let scope = tenant.scope([("channel", &*channel.to_string())]).unwrap();
                scope.seal(&[], b"x").await.unwrap();
                scopes.push(scope);
            }
        }
        assert_eq!(room.cached_keys(), scopes.len());
        Self { room, clock, scopes }
    }
}

/// Takes its turn over and over. The longest time that it waited for one.
fn neighbour(stop: &Rc<Cell<bool>>) -> JoinHandle<Duration> {
    let stop = Rc::clone(stop);
    spawn_local(async move {
        let (mut longest, mut last) = (Duration::ZERO, Instant::now());
        while !stop.get() {
            yield_now().await;
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        longest
    })
}

async fn measured(what: &str, work: impl AsyncFnOnce(&Full)) {
    let full = Full::of(keys()).await;
    let stop = Rc::new(Cell::new(false));
    let neighbour = neighbour(&stop);
    yield_now().await;
    let began = Instant::now();
    work(&full).await;
    let took = began.elapsed();
    stop.set(true);
    let longest = neighbour.await.unwrap();
    assert_eq!(full.room.cached_keys(), 0);
    println!("{what} of {} keys: {took:?}; a neighbour waited {longest:?} at most", full.scopes.len());
}

#[tokio::test]
#[ignore = "figures"]
async fn purging_and_sweeping_very_many_keys() {
    LocalSet::new()
        .run_until(async {
            let purge = async |full: &Full| {
                full.room.admin("a campaign", "purging").unwrap().purge_all();
            };
            measured("purge", purge).await;
            let sweep = async |full: &Full| {
                full.clock.advance(Duration::from_secs(301));
                let began = Instant::now();
                while full.room.cached_keys() > 0 {
                    assert!(began.elapsed() < Duration::from_secs(60), "nothing is swept");
                    yield_now().await;
                }
            };
            measured("sweep (and the tick that it waits for)", sweep).await;
        })
        .await;
}
