//! Measuring by turns: the contestants take short slices one after the other, over and over, so that a noisy machine is
//! noisy for all of them alike. A ratio is the median over the turns of two slices of the same turn.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;

/// About how long one contestant runs before it is the next one's turn: much less than a scheduler's time slice, so that
/// few of the measured ones were interrupted, and the medians were not.
const SLICE: Duration = Duration::from_micros(100);

struct Contestant {
    name: &'static str,
    /// Whom its ratio is to.
    against: &'static str,
    run: Box<dyn FnMut(u64) -> Duration>,
}

/// A few ways of doing comparable work.
pub(crate) struct Contest {
    pub(crate) title: String,
    contestants: Vec<Contestant>,
}

/// What a contestant showed.
pub(crate) struct Score {
    pub(crate) name: &'static str,
    pub(crate) nanos: f64,
    pub(crate) ratio: f64,
}

impl Contest {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), contestants: Vec::new() }
    }

    /// Adds a contestant: `run` does its work so many times and says how long that took.
    pub(crate) fn enter(
        &mut self,
        name: &'static str,
        against: &'static str,
        run: impl FnMut(u64) -> Duration + 'static,
    ) {
        self.contestants.push(Contestant { name, against, run: Box::new(run) });
    }

    /// Measures each contestant by itself with criterion, which keeps a history.
    pub(crate) fn by_criterion(&mut self, criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group(&self.title);
        for contestant in &mut self.contestants {
            group.bench_function(contestant.name, |b| b.iter_custom(|n| (contestant.run)(n)));
        }
        group.finish();
    }

    /// Measures all contestants by turns.
    pub(crate) fn by_turns(&mut self, turns: usize) -> Vec<Score> {
        let lengths: Vec<u64> = self.contestants.iter_mut().map(|c| iterations(&mut c.run)).collect();
        let mut nanos = vec![Vec::with_capacity(turns); self.contestants.len()];
        for _ in 0..turns {
            for ((contestant, length), nanos) in self.contestants.iter_mut().zip(&lengths).zip(&mut nanos) {
                (contestant.run)(1); // so that it does not pay for what the one before left in the caches
                #[allow(clippy::cast_precision_loss)]
                nanos.push((contestant.run)(*length).as_nanos() as f64 / *length as f64);
            }
        }
        let scores = self.contestants.iter().zip(&nanos).map(|(contestant, mine)| {
            let against = self.contestants.iter().position(|c| c.name == contestant.against).unwrap();
            let ratios = mine.iter().zip(&nanos[against]).map(|(mine, theirs)| mine / theirs).collect();
            Score { name: contestant.name, nanos: median(mine.clone()), ratio: median(ratios) }
        });
        scores.collect()
    }
}

/// How often `run` does its work in one slice.
fn iterations(run: &mut impl FnMut(u64) -> Duration) -> u64 {
    let mut n = 1;
    // The shortest of three: the others may have been interrupted.
    while (0..3).map(|_| run(n)).min() < Some(SLICE) {
        n *= 2;
    }
    n
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Work whose result is dropped within the measured time.
pub(crate) fn timed<R>(mut work: impl FnMut() -> R) -> impl FnMut(u64) -> Duration {
    move |n| {
        let start = Instant::now();
        for _ in 0..n {
            black_box(work());
        }
        start.elapsed()
    }
}

/// How many turns the command line asks for: none unless `cargo bench` itself runs us to measure (not `cargo test`,
/// which runs every bench once, nor `-- --list`), few with `--quick`.
pub(crate) fn turns() -> usize {
    let has = |flag: &str| std::env::args().any(|arg| arg == flag);
    match (has("--bench") && !["--test", "--list", "--profile-time"].into_iter().any(has), has("--quick")) {
        (false, _) => 0,
        (true, true) => 301,
        (true, false) => 1_001,
    }
}
