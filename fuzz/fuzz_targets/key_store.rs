//! An attacker who writes the key store: steps of four bytes each, on two nodes with a room, a root and a watermark, against the
//! model that `tests/lifecycle_model.rs` also goes by. Nothing is sealed under a key that he knows, and nothing that was closed
//! opens.
//!
//! The model decides, here are only the bytes. What came of it is printed: sieges that seal and open nothing prove nothing.
#![no_main]

#[path = "../../tests/lifecycle_model/siege.rs"]
mod siege;

use std::sync::atomic::{AtomicU64, Ordering};

use libfuzzer_sys::{Corpus, fuzz_target};
use tokio::runtime::{Builder, Runtime};

use siege::{Attack, Step, run};

/// Longer sieges say little more.
const LONGEST: usize = 32;

/// A runtime for each input: what rooms left running goes with it. Else libFuzzer, which counts allocations, looks for leaks
/// after every run, and that takes a hundred times as long as the run.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

static RUNS: AtomicU64 = AtomicU64::new(0);
static DONE: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
/// Runs from one line to the next.
const TELL: u64 = 1 << 10;

fn attack(what: u8, a: u8, b: u8) -> Attack {
    let (row, by) = (usize::from(a), usize::from(b));
    match what {
        0 | 1 => Attack::Remember,
        2..=4 => Attack::PutBack(row),
        5 | 6 => Attack::Delete(row),
        7..=10 => Attack::Replace { row, by },
        11 | 12 => Attack::Move { row, to: by, state: by % 4 },
        13..=16 => Attack::Plant { like: row, key: b, tagged: b & 0x40 != 0, later: u64::from(b >> 7) },
        17 | 18 => Attack::Bend { row, bit: by * 37 + row },
        19 => Attack::DropLog,
        _ => Attack::ForgeLog,
    }
}

fn step([what, a, b, more]: [u8; 4]) -> Step {
    let (node, of, channel) = (more & 1 == 1, usize::from(a & 1), usize::from(b & 1));
    match what % 48 {
        0..=6 => Step::Seal { node, of, channel },
        7..=13 => Step::Open { node, message: a.into() },
        14 | 15 => Step::Revoke { of, channel },
        16 => Step::Restore { of, channel },
        17 => Step::Erase { of, channel },
        18 => Step::GiveUp { of, channel },
        19 => Step::Suspend { of, channel },
        20 => Step::Evict,
        21 => Step::Restart { node },
        22..=24 => Step::Pass,
        _ => Step::Attack(attack(more % 21, a, b)),
    }
}

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let (steps, _) = bytes.as_chunks();
    let steps: Vec<_> = steps.iter().copied().map(step).collect();
    if steps.len() > LONGEST {
        return Corpus::Reject;
    }
    let outcome = runtime().block_on(run(&steps));
    for (whole, part) in DONE.iter().zip([outcome.sealed, outcome.opened, outcome.planted]) {
        whole.fetch_add(part as u64, Ordering::Relaxed);
    }
    let runs = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
    if runs.is_multiple_of(TELL) {
        eprintln!("{runs} sieges; sealed, opened, planted: {DONE:?}");
    }
    Corpus::Keep
});
