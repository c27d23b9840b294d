//! The keyring: handles, finding keys among many and what they take in memory, loading cold ones, pages, and two threads on
//! one tenant and on 10 000.
//!
//! `cargo bench --bench keyring`, as `message`, prints a table of what it measured by turns after criterion is through. The
//! allocator counts, for all rows alike, which costs a few nanoseconds for each call that allocates.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod contest;
mod room;
mod table;

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::Criterion;
use strongroom::{HotScope, PageRow, Strongroom, Suite};
use tokio::runtime::{Builder, Runtime};

use crate::contest::{Contest, median, timed, turns};
use crate::room::{CONTEXT, SCOPE, TENANT, policy, ready, room, scope, trusting_room};

const PLAINTEXT: [u8; 256] = [5; 256];

/// A page as long as a screen that a client scrolls by.
const PAGE: usize = 50;

/// How long the threads of one measurement run.
const RUN: Duration = Duration::from_millis(50);

/// As many keys as a process keeps unless told otherwise.
const MANY: usize = 100_000;

/// [`MANY`] where `cargo bench` measures; `cargo test` runs every bench once, for which few will do.
fn many() -> usize {
    if std::env::args().any(|argument| argument == "--bench") { MANY } else { 200 }
}

/// How many tenants two threads go round.
const TENANTS: usize = 10_000;

/// What many cached keys take.
struct Memory {
    /// The keys of one scope, with their reader keys.
    of_one_scope: Bytes,
    /// A key for each of [`TENANTS`], sealing and opening, with its slot and a handle.
    of_tenants: Bytes,
}

/// What filling a cache took, for each key.
struct Bytes {
    /// Live allocations of this thread; not what AWS-LC allocates, in C, for its key schedules.
    allocated: f64,
    /// By how much the process has become larger, all included, where Linux says so. At least: memory that was freed before
    /// is used again first.
    resident: Option<f64>,
}

fn bytes_each(keys: usize, fill: impl FnOnce()) -> Bytes {
    let before = resident();
    let allocated = allocation_counter::measure(fill).bytes_current;
    let grown = resident().zip(before).map(|(after, before)| after - before);
    #[allow(clippy::cast_precision_loss)]
    let each = |bytes: i64| bytes as f64 / keys as f64;
    Bytes { allocated: each(allocated), resident: grown.map(each) }
}

/// The resident set of this process, in bytes.
fn resident() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1_024)
}

/// Opens each envelope so often that its reader key is kept.
async fn open_all(room: &Strongroom, sealed: &[Vec<u8>]) {
    let channel = scope(room).await;
    for envelope in sealed {
        for _ in 0..3 {
            channel.open(&CONTEXT, envelope).await.unwrap();
        }
    }
}

/// A room whose scope has had this many keys, an envelope of each, and what a cached key takes; all are cached, with their
/// reader keys. The room's loads run on `runtime`: on this thread, so that what they allocate is counted.
fn with_keys(runtime: &Runtime, keys: usize) -> (Strongroom, Arc<Vec<Vec<u8>>>, Bytes) {
    let (room, sealed) = runtime.block_on(async {
        let room = room(Suite::default(), |b| b.cached_keys(2 * MANY).cached_keys_per_tenant(2 * MANY)).await;
        let channel = scope(&room).await;
        let mut sealed = Vec::new();
        for key in 0..keys {
            if key > 0 {
                room.admin("a test", "to test").unwrap().rotate(TENANT, &SCOPE).await.unwrap();
            }
            if key % 100 == 0 {
                room.admin("a test", "to test").unwrap().purge_all(); // a rotation goes through what is cached
            }
            sealed.push(channel.seal(&CONTEXT, &PLAINTEXT).await.unwrap());
        }
        room.admin("a test", "to test").unwrap().purge_all();
        (room, sealed)
    });
    let bytes = bytes_each(keys, || runtime.block_on(open_all(&room, &sealed)));
    assert_eq!(room.cached_keys(), keys);
    (room, Arc::new(sealed), bytes)
}

/// A room of [`TENANTS`], a handle for each with its key cached, an envelope of each, and what each takes.
fn with_tenants(runtime: &Runtime) -> (Vec<HotScope>, Vec<Vec<u8>>, Bytes) {
    let name = |n: usize| format!("tenant-{n}");
    let (room, sealed) = runtime.block_on(async {
        let room = room(Suite::default(), |builder| builder).await;
        let mut sealed = Vec::new();
        for n in 0..TENANTS {
            room.admin("a test", "to test").unwrap().enroll(&name(n), policy(Suite::default())).await.unwrap();
            let channel = room.tenant(&name(n)).await.unwrap().scope(SCOPE).unwrap();
            sealed.push(channel.seal(&CONTEXT, &PLAINTEXT).await.unwrap());
        }
        room.admin("a test", "to test").unwrap().purge_all();
        (room, sealed)
    });
    let mut hot = Vec::with_capacity(TENANTS);
    let bytes = bytes_each(TENANTS, || {
        runtime.block_on(async {
            for (n, envelope) in sealed.iter().enumerate() {
                let channel = room.tenant(&name(n)).await.unwrap().scope(SCOPE).unwrap();
                hot.push(channel.hot().await.unwrap());
                for _ in 0..3 {
                    channel.open(&CONTEXT, envelope).await.unwrap();
                }
            }
        });
    });
    (hot, sealed, bytes)
}

/// Opens the first `among` envelopes again and again, in an order that no prefetcher guesses.
fn opening(hot: HotScope, sealed: Arc<Vec<Vec<u8>>>, among: usize) -> impl FnMut(u64) -> Duration {
    let mut at = 0;
    timed(move || {
        at = (at + 7_919) % among;
        hot.open(&CONTEXT, &sealed[at]).unwrap()
    })
}

/// What a lookup is compared with: so many bare keys in a row, each with a sealed text, all of which take their place in the
/// processor's caches too.
fn opening_bare(among: usize) -> impl FnMut(u64) -> Duration {
    let nonce = || Nonce::assume_unique_for_key([9; 12]);
    let sealed: Vec<_> = (0..among)
        .map(|_| {
            let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
            let mut text = PLAINTEXT.to_vec();
            key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut text).unwrap();
            (key, text)
        })
        .collect();
    let mut at = 0;
    timed(move || {
        at = (at + 7_919) % among;
        let (key, sealed) = &sealed[at];
        let mut text = sealed.clone();
        key.open_in_place(nonce(), Aad::empty(), &mut text).unwrap();
        text
    })
}

fn finding(runtime: &Runtime) -> (Contest, Bytes) {
    let mut contest = Contest::new("keyring, open 256 B by key id");
    let few_bare = "bare cipher, 100 keys (control)";
    contest.enter(few_bare, few_bare, opening_bare(100));
    contest.enter("bare cipher, 100 000 keys (control)", few_bare, opening_bare(many()));
    let few = "100 keys cached";
    let (room, sealed, _) = with_keys(runtime, 101);
    let hot = runtime.block_on(async { scope(&room).await.hot().await }).unwrap();
    contest.enter(few, few, opening(hot.clone(), Arc::clone(&sealed), 100));
    let newest = sealed.last().unwrap().clone();
    contest.enter("the scope's sealing key", few, timed(move || hot.open(&CONTEXT, &newest).unwrap()));
    let (room, sealed, bytes) = with_keys(runtime, many());
    let hot = runtime.block_on(async { scope(&room).await.hot().await }).unwrap();
    contest.enter("100 000 keys cached, 100 in use", few, opening(hot.clone(), Arc::clone(&sealed), 100));
    contest.enter("100 000 keys cached, all in use", few, opening(hot, sealed, many()));
    (contest, bytes)
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

/// Two scopes in a cache with room for one key: each open finds the other's key there, and loads. In a room, and where the store
/// is trusted: the difference is what authenticating two key records takes.
fn cold(runtime: &Runtime) -> Contest {
    let mut contest = Contest::new("keyring, cold load");
    let trusted = "2 opens, store in memory and trusted, local KMS";
    let rooms = runtime.block_on(async {
        let room = room(Suite::default(), |builder| builder.cached_keys(1)).await;
        let trusting = trusting_room(Suite::default(), |builder| builder.cached_keys(1)).await;
        [("2 opens, store in memory, local KMS", room), (trusted, trusting)]
    });
    for (name, room) in rooms {
        let scopes = runtime.block_on(async {
            let tenant = room.tenant(TENANT).await.unwrap();
            let mut scopes = Vec::new();
            for channel in ["C1", "C2"] {
                let channel = tenant.scope([("workspace", "W1"), ("channel", channel)]).unwrap();
                let sealed = channel.seal(&CONTEXT, &PLAINTEXT).await.unwrap();
                scopes.push((channel, sealed));
            }
            scopes
        });
        let handle = runtime.handle().clone();
        contest.enter(
            name,
            trusted,
            timed(move || {
                handle.block_on(async {
                    for (channel, sealed) in &scopes {
                        black_box(channel.open(&CONTEXT, sealed).await.unwrap());
                    }
                });
            }),
        );
    }
    contest
}

/// Envelopes of three keys by five writers: a key that is taken out of memory and loaded again starts a new writer.
async fn by_five_writers(room: &Strongroom) -> Vec<Vec<u8>> {
    let channel = scope(room).await;
    let mut sealed = Vec::new();
    for (key, writers) in [2, 2, 1].into_iter().enumerate() {
        if key > 0 {
            room.admin("a test", "to test").unwrap().rotate(TENANT, &SCOPE).await.unwrap();
        }
        for _ in 0..writers {
            room.admin("a test", "to test").unwrap().purge(TENANT).unwrap();
            sealed.push(channel.seal(&CONTEXT, &PLAINTEXT).await.unwrap());
        }
    }
    open_all(room, &sealed).await;
    sealed
}

/// A page of 50 envelopes.
async fn page() -> Contest {
    let mut contest = Contest::new("keyring, 50 envelopes of 5 writers and 3 keys");
    let room = room(Suite::default(), |builder| builder).await;
    let sealed = Arc::new(by_five_writers(&room).await);
    assert_eq!(room.cached_keys(), 3);
    let channel = scope(&room).await;
    let (by, envelopes) = (channel.clone(), Arc::clone(&sealed));
    let single = "50 single opens";
    contest.enter(
        single,
        single,
        timed(move || {
            let open = |row: usize| ready(by.open(&CONTEXT, &envelopes[row % 5])).unwrap();
            (0..PAGE).map(open).collect::<Vec<_>>()
        }),
    );
    contest.enter(
        "open_page",
        single,
        timed(move || {
            let row = |row: usize| PageRow { context: &CONTEXT, envelope: &sealed[row % 5] };
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

/// The two threads go round the tenants in an order that no prefetcher guesses, each from a place of its own.
fn round(places: &AtomicUsize) -> impl FnMut() -> usize + use<> {
    let mut at = places.fetch_add(TENANTS / 2, Ordering::Relaxed);
    move || {
        at = (at + 7_919) % TENANTS;
        at
    }
}

fn print_threads(runtime: &Runtime, tenants: &(Vec<HotScope>, Vec<Vec<u8>>), turns: usize) {
    let bare = doubling(turns, || {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
        let mut text = PLAINTEXT;
        move || {
            let nonce = Nonce::assume_unique_for_key([9; 12]);
            let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut text).unwrap();
            assert_eq!(tag.as_ref().len(), 16);
        }
    });
    let (hot, sealed) = runtime.block_on(hot_scope());
    let seal_one = doubling(turns, || || drop(black_box(hot.seal(&CONTEXT, &PLAINTEXT).unwrap())));
    let open_one = doubling(turns, || || drop(black_box(hot.open(&CONTEXT, &sealed).unwrap())));
    let ((hot, sealed), places) = (tenants, AtomicUsize::new(0));
    let seal_many = doubling(turns, || {
        let mut next = round(&places);
        move || drop(black_box(hot[next()].seal(&CONTEXT, &PLAINTEXT).unwrap()))
    });
    let open_many = doubling(turns, || {
        let mut next = round(&places);
        move || {
            let tenant = next();
            drop(black_box(hot[tenant].open(&CONTEXT, &sealed[tenant]).unwrap()));
        }
    });
    println!("\ntwo threads, as a multiple of one (256 B); goal: at least 1.9\n");
    for (what, times) in [
        ("bare cipher, a key each (control)", bare),
        ("HotScope::seal, one hot tenant", seal_one),
        ("HotScope::open, one hot tenant", open_one),
        ("HotScope::seal, 10 000 tenants", seal_many),
        ("HotScope::open, 10 000 tenants", open_many),
    ] {
        println!("| {what:36} | {times:9.2} |");
    }
}

fn print_memory(memory: &Memory) {
    println!("\nbytes for each cached key; goal: at most 1024\n");
    println!("| {:36} | allocated |  resident |\n|{:-<38}|----------:|----------:|", "", "");
    for (what, Bytes { allocated, resident }) in [
        ("100 000 keys of one scope", &memory.of_one_scope),
        ("10 000 tenants, with slot and handle", &memory.of_tenants),
    ] {
        let resident = resident.map_or_else(|| "unknown".to_owned(), |bytes| format!("{bytes:.0}"));
        println!("| {what:36} | {allocated:9.0} | {resident:>9} |");
    }
}

fn main() {
    let runtime = Runtime::new().unwrap();
    let on_this_thread = Builder::new_current_thread().enable_all().build().unwrap();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(40)
        .configure_from_args();
    let (finding, of_one_scope) = finding(&on_this_thread);
    let mut contests = [runtime.block_on(handles()), finding, cold(&runtime), runtime.block_on(page())];
    for contest in &mut contests {
        contest.by_criterion(&mut criterion);
    }
    if turns() > 0 {
        table::print(&mut contests, turns());
        let (hot, sealed, of_tenants) = with_tenants(&on_this_thread);
        print_memory(&Memory { of_one_scope, of_tenants });
        print_threads(&runtime, &(hot, sealed), turns() / 40);
    }
    criterion.final_summary();
}
