//! Measures strongroom beside the bare cipher and beside other published crates, in one process and by turns, prints the
//! table, and puts it and its plot where the crate's README has them. README.md here says how to run it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // as the crate's benches

// The bare cipher of the backend that strongroom is built with.
#[cfg_attr(feature = "aws-lc-rs", path = "../../bare/mod.rs")]
#[cfg_attr(not(feature = "aws-lc-rs"), path = "bare_portable.rs")]
mod bare;
#[allow(dead_code)] // criterion's part
#[path = "../../contest/mod.rs"]
mod contest;
#[path = "../../copies/mod.rs"]
mod copies;
#[path = "../../messages/mod.rs"]
mod messages;
#[path = "../../room/mod.rs"]
mod room;

mod goals;
#[cfg_attr(not(feature = "peers"), path = "no_peers.rs")]
mod peers;
mod place;
mod plot;
mod report;

use strongroom::Suite;
use tokio::runtime::Runtime;

use crate::contest::Contest;
use crate::messages::SIZES;
use crate::place::Place;
use crate::report::Table;

/// How many turns everybody takes.
const TURNS: usize = 1_001;
const QUICK: usize = 101;

/// Whether the command line asks for a smoke run.
fn quick() -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--quick"] => true,
        _ => panic!("the only argument is --quick"),
    }
}

/// Everything of one suite and size takes turns; the peers with suite 1.
fn contest(runtime: &Runtime, suite: Suite, size: usize) -> Contest {
    let mut contest = Contest::new("");
    bare::enter(&mut contest, suite, size);
    runtime.block_on(messages::enter(&mut contest, suite, size));
    if suite == Suite::Aes256Gcm {
        peers::enter(&mut contest, runtime, size);
    }
    contest
}

fn measure(runtime: &Runtime, suite: Suite, turns: usize) -> Table {
    let scores = SIZES.iter().map(|(size, name)| {
        eprintln!("{suite:?}, {name}");
        contest(runtime, suite, *size).by_turns(turns)
    });
    Table::of(suite, scores.collect())
}

fn main() {
    let quick = quick();
    let runtime = Runtime::new().unwrap();
    let turns = if quick { QUICK } else { TURNS };
    let place = Place::of(quick);
    let table = measure(&runtime, Suite::Aes256Gcm, turns);
    println!("{}", table.markdown());
    println!("{}", measure(&runtime, Suite::ChaCha20Poly1305, turns).markdown());
    println!("{}", table.verdict());
    place.table(&table.markdown());
    if cfg!(feature = "aws-lc-rs") {
        place.plot(&plot::svg(&table));
    }
}
