//! Sequences of life-cycle operations, four bytes each, on two nodes of one store, against the model that
//! `tests/lifecycle_model.rs` also goes by: seal, open, rotate, revoke, erase, rewrap, migrate and so on end as it says.
//!
//! The model decides, here are only the bytes. How openings ended is printed: sequences that open nothing prove nothing.
#![no_main]

#[path = "../../tests/lifecycle_model/model.rs"]
mod model;
#[path = "../../tests/lifecycle_model/operation.rs"]
mod operation;
#[path = "../../tests/lifecycle_model/pair.rs"]
mod pair;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libfuzzer_sys::{Corpus, fuzz_target};
use strongroom::{KeyStore, MemoryKeyStore};
use tokio::runtime::{Builder, Runtime};

use model::{EXPRESSIONS, KEKS, Kind, Place};
use operation::{Deed, Edit, Operation, Target};
use pair::{Endings, Pair};

/// Longer sequences say little more, take long, and let more time pass than the pair counts on (`pair::TTL`).
const LONGEST: usize = 24;

/// A runtime for each input: what rooms left running goes with it. Else libFuzzer, which counts allocations, looks for leaks
/// after every run, and that takes a hundred times as long as the run.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

static ENDINGS: Endings = Endings::new(std::collections::BTreeMap::new());
static RUNS: AtomicU64 = AtomicU64::new(0);
static OPERATIONS: AtomicU64 = AtomicU64::new(0);
/// Runs from one line to the next.
const TELL: u64 = 1 << 10;

fn place(byte: u8) -> Place {
    if byte & 1 == 0 { Place::Eu } else { Place::Us }
}

fn target(kind: u8, rest: u8) -> Target {
    let (channel, back, many) = (rest % 3, i64::from(rest / 3 % 4), i64::from(rest / 12 % 3));
    match kind % 8 {
        0 => Target::Everything,
        1..=3 => Target::Channel(channel),
        4 | 5 => Target::Hours { back, many },
        _ => Target::HourOfChannel(channel, back),
    }
}

fn edit(kind: u8, value: u8) -> Edit {
    match kind % 8 {
        0 | 1 => Edit::Keks(usize::from(value) % EXPRESSIONS),
        2 | 3 => Edit::Period([Kind::None, Kind::Hour, Kind::Day][usize::from(value) % 3]),
        4 => Edit::OtherSuite,
        5 => Edit::Home(place(value)),
        6 => Edit::Allow(place(value)),
        _ => Edit::Disallow(place(value)),
    }
}

fn operation([what, a, b, node]: [u8; 4]) -> Operation {
    let (wide, channel, keks) = (usize::from(a), a % 3, usize::from(b) % EXPRESSIONS);
    let deed = match what % 32 {
        0..=6 => Deed::Seal(channel),
        7..=9 => Deed::Open(wide),
        10..=12 => Deed::Reseal(wide),
        13 => Deed::Rotate(channel),
        14 => Deed::RotateAll(target(a, b)),
        15 => Deed::Revoke(target(a, b)),
        16 | 17 => Deed::Restore(wide),
        18 => Deed::Erase(target(a, b), if node & 2 == 0 { 0 } else { 90 }),
        19 => Deed::Undo(wide),
        20 => Deed::CarryOut(wide),
        21 | 22 => Deed::Rewrap(keks),
        23 | 24 => Deed::SetPolicy(edit(a, b)),
        25 => Deed::Migrate(place(a), keks),
        26 => Deed::Finish(place(a)),
        27 => [Deed::Purge, Deed::PurgeAll][wide % 2].clone(),
        28 => Deed::Disable(wide % KEKS),
        29 | 30 => Deed::Enable(wide % KEKS),
        _ => Deed::Advance(if a.is_multiple_of(4) { 244 } else { 61 }),
    };
    Operation { node: usize::from(node & 1), deed }
}

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let (operations, _) = bytes.as_chunks();
    let operations: Vec<_> = operations.iter().copied().map(operation).collect();
    if operations.len() > LONGEST {
        return Corpus::Reject;
    }
    runtime().block_on(async {
        let store: Arc<dyn KeyStore> = Arc::new(MemoryKeyStore::default());
        let mut pair = Pair::new([Arc::clone(&store), store], &ENDINGS).await;
        for operation in &operations {
            pair.perform(operation).await;
        }
        pair.check_everything().await;
    });
    let done = OPERATIONS.fetch_add(operations.len() as u64, Ordering::Relaxed);
    let runs = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
    if runs.is_multiple_of(TELL) {
        eprintln!("{runs} sequences, {done} operations; opening ended: {:?}", ENDINGS.lock().unwrap());
    }
    Corpus::Keep
});
