//! The keyring: handles, finding keys among many, loading cold ones, pages, and two threads on one scope.
//!
//! `cargo bench --bench keyring`, as `message`, prints a table of what it measured by turns after criterion is through.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod contest;
mod room;

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::Criterion;
use strongroom::{HotScope, PageRow, Strongroom, Suite};
use tokio::runtime::Runtime;

use crate::contest::{Contest, median, timed, turns};
use crate::room::{CONTEXT, SCOPE, TENANT, ready, room, scope};

const PLAINTEXT: [u8; 256] = [5; 256];

/// A page as long as a screen that a client scrolls by.
const PAGE: usize = 50;

/// How long the threads of one measurement run.
const RUN: Duration = Duration::from_millis(50);

/// A room whose scope has had this many keys, all cached with their reader keys, and an envelope of each.
async fn with_keys(keys: usize) -> (Strongroom, Arc<Vec<Vec<u8>>>) {
    let room = room(Suite::default(), |builder| builder.cached_keys_per_tenant(20_000)).await;
    let channel = scope(&room).await;
    let mut sealed = Vec::new();
    for key in 0..keys {
        if key > 0 {
            room.admin().rotate(TENANT, &SCOPE).await.unwrap();
        }
        let envelope = channel.seal(&CONTEXT, &PLAINTEXT).await.unwrap();
        for _ in 0..3 {
            channel.open(&CONTEXT, &envelope).await.unwrap();
        }
        sealed.push(envelope);
    }
    assert_eq!(room.cached_keys(), keys);
    (room, Arc::new(sealed))
}

/// Opens the first `among` envelopes again and again, in an order that no prefetcher guesses.
fn opening(hot: HotScope, sealed: Arc<Vec<Vec<u8>>>, among: usize) -> impl FnMut(u64) -> Duration {
    let mut at = 0;
    timed(move || {
        at = (at + 7_919) % among;
        hot.open(&CONTEXT, &sealed[at]).unwrap()
    })
}

async fn finding() -> Contest {
    let mut contest = Contest::new("keyring, open 256 B by key id");
    let few = "100 keys cached";
    let (room, sealed) = with_keys(101).await;
    let hot = scope(&room).await.hot().await.unwrap();
    contest.enter(few, few, opening(hot.clone(), Arc::clone(&sealed), 100));
    let newest = sealed.last().unwrap().clone();
    contest.enter("the scope's sealing key", few, timed(move || hot.open(&CONTEXT, &newest).unwrap()));
    let (room, sealed) = with_keys(10_001).await;
    let hot = scope(&room).await.hot().await.unwrap();
    contest.enter("10 000 keys cached, 100 in use", few, opening(hot.clone(), Arc::clone(&sealed), 100));
    contest.enter("10 000 keys cached, all in use", few, opening(hot, sealed, 10_000));
    contest
}

async fn handles() -> Contest {
    let mut contest = Contest::new("keyring, handles");
    let room = room(Suite::default(), |builder| builder).await;
    let tenant = room.tenant(TENANT).await.unwrap();
    let kept = scope(&room).await.hot().await.unwrap();
    let cached = "handle of a cached scope";
    contest.enter(
        cached,
        cached,
        timed(move || {
            let _: &HotScope = &kept; // another handle, and the key
            tenant.scope(SCOPE).unwrap()
        }),
    );
    contest
}

/// Two scopes in a cache with room for one key: each open finds the other's key there, and loads.
fn cold(runtime: &Runtime) -> Contest {
    let mut contest = Contest::new("keyring, cold load");
    let handle = runtime.handle().clone();
    let scopes = runtime.block_on(async {
        let room = room(Suite::default(), |builder| builder.cached_keys(1)).await;
        let tenant = room.tenant(TENANT).await.unwrap();
        let mut scopes = Vec::new();
        for channel in ["C1", "C2"] {
            let channel = tenant.scope([("workspace", "W1"), ("channel", channel)]).unwrap();
            let sealed = channel.seal(&CONTEXT, &PLAINTEXT).await.unwrap();
            scopes.push((channel, sealed));
        }
        scopes
    });
    let cold = "2 opens, store in memory, local KMS";
    contest.enter(
        cold,
        cold,
        timed(move || {
            handle.block_on(async {
                for (channel, sealed) in &scopes {
                    black_box(channel.open(&CONTEXT, sealed).await.unwrap());
                }
            });
        }),
    );
    contest
}

/// A page of 50 envelopes of three keys.
async fn page() -> Contest {
    let mut contest = Contest::new("keyring, 50 envelopes of 3 keys");
    let (room, sealed) = with_keys(3).await;
    let channel = scope(&room).await;
    let (by, envelopes) = (channel.clone(), Arc::clone(&sealed));
    let single = "50 single opens";
    contest.enter(
        single,
        single,
        timed(move || {
            let open = |row: usize| ready(by.open(&CONTEXT, &envelopes[row % 3])).unwrap();
            (0..PAGE).map(open).collect::<Vec<_>>()
        }),
    );
    contest.enter(
        "open_page",
        single,
        timed(move || {
            let row = |row: usize| PageRow { context: &CONTEXT, envelope: &sealed[row % 3] };
            ready(channel.open_page(&(0..PAGE).map(row).collect::<Vec<_>>()))
        }),
    );
    contest
}

/// How often per second `threads` threads together do the work that `worker` makes for each of them.
fn rate<W: FnMut()>(threads: usize, worker: &(impl Fn() -> W + Sync)) -> f64 {
    let barrier = Barrier::new(threads);
    let run = || {
        let mut work = worker();
        (0..1_000).for_each(|_| work());
        barrier.wait();
        let (start, mut done) = (Instant::now(), 0_u32);
        while start.elapsed() < RUN {
            (0..100).for_each(|_| work());
            done += 100;
        }
        f64::from(done) / start.elapsed().as_secs_f64()
    };
    std::thread::scope(|s| {
        let running: Vec<_> = (0..threads).map(|_| s.spawn(run)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

/// What two threads do together, as a multiple of what one does; the median over the turns.
fn doubling<W: FnMut()>(turns: usize, worker: impl Fn() -> W + Sync) -> f64 {
    median((0..turns).map(|_| rate(1, &worker)).map(|one| rate(2, &worker) / one).collect())
}

async fn hot_scope() -> (HotScope, Vec<u8>) {
    let hot = scope(&room(Suite::default(), |builder| builder).await).await.hot().await.unwrap();
    let sealed = hot.seal(&CONTEXT, &PLAINTEXT).unwrap();
    (hot, sealed)
}

fn threads(runtime: &Runtime, turns: usize) {
    let (hot, sealed) = runtime.block_on(hot_scope());
    let bare = doubling(turns, || {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
        let mut text = PLAINTEXT;
        move || {
            let nonce = Nonce::assume_unique_for_key([9; 12]);
            let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut text).unwrap();
            assert_eq!(tag.as_ref().len(), 16);
        }
    });
    let seal = doubling(turns, || {
        || {
            black_box(hot.seal(&CONTEXT, &PLAINTEXT).unwrap());
        }
    });
    let open = doubling(turns, || {
        || {
            black_box(hot.open(&CONTEXT, &sealed).unwrap());
        }
    });
    println!("\ntwo threads, as a multiple of one (256 B, one hot scope)\n");
    println!("| {:34} | {bare:9.2} |", "bare cipher, a key each (control)");
    println!("| {:34} | {seal:9.2} |\n| {:34} | {open:9.2} |", "HotScope::seal", "HotScope::open");
}

fn main() {
    let runtime = Runtime::new().unwrap();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(40)
        .configure_from_args();
    let mut contests =
        [runtime.block_on(handles()), runtime.block_on(finding()), cold(&runtime), runtime.block_on(page())];
    for contest in &mut contests {
        contest.by_criterion(&mut criterion);
    }
    if turns() > 0 {
        println!("\nby turns, medians\n\n| {:34} |        ns |  ratio |\n|{:-<36}|----------:|-------:|", "", "");
        for contest in &mut contests {
            println!("| **{}** | | |", contest.title);
            for score in contest.by_turns(turns()) {
                println!("| {:34} | {:9.0} | {:6.2} |", score.name, score.nanos, score.ratio);
            }
        }
        threads(&runtime, turns() / 40);
    }
    criterion.final_summary();
}
