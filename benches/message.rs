//! Sealing and opening messages with the key cached, beside the bare aws-lc-rs cipher with a prebuilt key, in place.
//!
//! `cargo bench --bench message` lets criterion measure each by itself and then prints a table of ratios to the bare cipher
//! of the same run, measured by turns. `-- --quick` does both in less time. `benches/peers` measures the same beside other
//! crates.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bare;
mod contest;
mod copies;
mod messages;
mod room;

use std::time::Duration;

use criterion::Criterion;
use strongroom::Suite;
use tokio::runtime::Runtime;

use crate::contest::{Contest, Score, turns};
use crate::messages::SIZES;

async fn contest(suite: Suite, size: usize, title: &str) -> Contest {
    let mut contest = Contest::new(title);
    bare::enter(&mut contest, suite, size);
    messages::enter(&mut contest, suite, size).await;
    contest
}

fn print(suite: Suite, columns: &[Vec<Score>]) {
    println!("\nsuite {}: ratio to the bare cipher of the same turn (nanoseconds), medians\n", suite.byte());
    print!("| {:34} |", "");
    for (_, name) in SIZES {
        print!(" {name:>14} |");
    }
    println!("\n|{:-<36}|{}", "", format!("{:->15}:|", "").repeat(SIZES.len()));
    for row in 0..columns[0].len() {
        print!("| {:34} |", columns[0][row].name);
        for scores in columns {
            print!(" {:5.2} ({:6.0}) |", scores[row].ratio, scores[row].nanos);
        }
        println!();
    }
}

fn main() {
    let runtime = Runtime::new().unwrap();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(40)
        .configure_from_args();
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let mut contests: Vec<Contest> = SIZES
            .iter()
            .map(|(size, name)| runtime.block_on(contest(suite, *size, &format!("suite {}, {name}", suite.byte()))))
            .collect();
        for contest in &mut contests {
            contest.by_criterion(&mut criterion);
        }
        if turns() > 0 {
            let columns: Vec<Vec<Score>> = contests.iter_mut().map(|contest| contest.by_turns(turns())).collect();
            print(suite, &columns);
        }
    }
    criterion.final_summary();
}
