//! Kill -9 at every failpoint and at any moment of every life-cycle operation: nothing is lost, and nothing comes back.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::grounds::asked;
use crate::killing::{Field, Moment};
use crate::operation::Operation;
use crate::verdict::Findings;

/// Kills on the same grounds, one after another; then fresh ones, so that what is judged each time stays small.
const ON_ONE_FIELD: u32 = 25;
/// Fields at once.
const AT_ONCE: u32 = 2;

/// Failpoints of an operation and how often it passes each; how long it takes.
type Rehearsed = BTreeMap<Operation, (Vec<(String, u32)>, Duration)>;

#[derive(Default)]
struct Tally {
    rows: BTreeMap<(Operation, String), Row>,
    kills: u32,
    findings: Findings,
}

#[derive(Default)]
struct Row {
    killed: u32,
    ran_to_its_end: u32,
    recovery: Duration,
}

/// Lets each operation run to its end once.
async fn rehearse(findings: &mut Findings) -> Rehearsed {
    let mut field = Field::new().await;
    let mut rehearsed = Rehearsed::new();
    for operation in Operation::ALL {
        let ended = field.kill(operation, &Moment::Never, Duration::ZERO, findings).await;
        assert!(!ended.was_killed && !ended.passed.is_empty(), "{operation} was not rehearsed");
        rehearsed.insert(operation, (ended.passed.into_iter().collect(), ended.ran));
    }
    rehearsed
}

/// Operation and moment of the `n`-th kill. Two of three are at failpoints, one after another; first each is passed once,
/// then more often. The third is at a random moment.
fn schedule(rehearsed: &Rehearsed, n: u32) -> (Operation, Moment) {
    if n % 3 == 2 {
        let operation = Operation::ALL[(n / 3) as usize % Operation::ALL.len()];
        // A golden-ratio sequence covers the time evenly in any number of steps.
        let part = (f64::from(n) * 0.618_034).fract() * 1200.0;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 1200
        return (operation, Moment::During(part as u32));
    }
    let points: Vec<_> = rehearsed.iter().flat_map(|(o, (points, _))| points.iter().map(move |p| (*o, p))).collect();
    let at = (n - n / 3) as usize;
    // A stride that meets every operation early, however few the kills, and every failpoint in the end.
    let stride = (37..=37 + points.len()).find(|stride| is_coprime(*stride, points.len())).unwrap();
    let (operation, (point, times)) = points[(at * stride) % points.len()];
    let round = u32::try_from(at / points.len()).unwrap();
    (operation, Moment::At(point.clone(), 1 + round % times))
}

fn is_coprime(a: usize, b: usize) -> bool {
    if b == 0 { a == 1 } else { is_coprime(b, a % b) }
}

/// Kills `wanted` processes.
fn kill(wanted: u32) -> Tally {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut tally = Tally::default();
    let rehearsed = runtime().block_on(rehearse(&mut tally.findings));
    let (tally, next) = (Mutex::new(tally), Mutex::new(0));
    let work = || {
        runtime().block_on(async {
            while tally.lock().unwrap().kills < wanted {
                let mut field = Field::new().await;
                for _ in 0..ON_ONE_FIELD {
                    let n = {
                        let mut next = next.lock().unwrap();
                        *next += 1;
                        *next - 1
                    };
                    if tally.lock().unwrap().kills >= wanted {
                        break;
                    }
                    let (operation, moment) = schedule(&rehearsed, n);
                    let mut findings = Findings::default();
                    let ended = field.kill(operation, &moment, rehearsed[&operation].1, &mut findings).await;
                    let name = match moment {
                        Moment::At(point, _) => point,
                        _ => "any moment".to_owned(),
                    };
                    tally.lock().unwrap().count((operation, name), ended.was_killed, ended.recovery, findings);
                }
            }
        });
    };
    std::thread::scope(|threads| (0..AT_ONCE).for_each(|_| drop(threads.spawn(work))));
    tally.into_inner().unwrap()
}

impl Tally {
    fn count(&mut self, at: (Operation, String), was_killed: bool, recovery: Duration, findings: Findings) {
        let row = self.rows.entry(at).or_default();
        row.killed += u32::from(was_killed);
        row.ran_to_its_end += u32::from(!was_killed);
        row.recovery = row.recovery.max(recovery);
        self.kills += u32::from(was_killed);
        self.findings.add(findings);
        if was_killed && self.kills.is_multiple_of(250) {
            println!("{} kills, {} findings", self.kills, self.findings.all().count());
        }
    }

    fn print(&self, took: Duration) {
        println!("{:<12} {:<30} {:>7} {:>9} {:>14}", "operation", "killed at", "kills", "too late", "max recovery");
        for ((operation, at), row) in &self.rows {
            println!(
                "{operation:<12} {at:<30} {:>7} {:>9} {:>11.1} ms",
                row.killed,
                row.ran_to_its_end,
                row.recovery.as_secs_f64() * 1e3
            );
        }
        let found = &self.findings;
        let recovery = self.rows.values().map(|row| row.recovery).max().unwrap_or_default();
        println!(
            "{} kills in {:.0} s: {} messages lost, {} opened that should not, {} keys lost, {} scopes without exactly one \
             Active key, {} not recovered; longest recovery {:.1} ms",
            self.kills,
            took.as_secs_f64(),
            found.messages_lost.len(),
            found.opened_wrongly.len(),
            found.keys_lost.len(),
            found.not_one_active.len(),
            found.not_recovered.len(),
            recovery.as_secs_f64() * 1e3
        );
    }
}

fn kill_and_judge(wanted: u32) {
    let _server = crate::stores::server();
    let began = Instant::now();
    let tally = kill(wanted);
    tally.print(began.elapsed());
    let found: Vec<_> = tally.findings.all().take(20).collect();
    assert!(found.is_empty(), "{found:#?}");
    let operations: std::collections::BTreeSet<_> =
        tally.rows.iter().filter(|(_, row)| row.killed > 0).map(|((operation, _), _)| operation).collect();
    assert_eq!(operations.len(), Operation::ALL.len(), "an operation was never killed");
}

#[test]
fn a_hundred_kills_lose_nothing_and_bring_nothing_back() {
    kill_and_judge(100);
}

#[test]
#[ignore = "takes long; scripts/kills runs it"]
fn as_many_kills_as_asked() {
    kill_and_judge(asked("STRONGROOM_KILLS", 2_000));
}
