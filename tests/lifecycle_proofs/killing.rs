//! The process that is killed, by itself at a failpoint or by its parent at any moment; and one kill of it.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use strongroom::testing::Failpoints;
use strongroom::{Period, Strongroom};

use crate::grounds::{Grounds, serving_both, wait_for};
use crate::operation::{Journal, LASTING, Task};
use crate::table::{Message, Messages};
use crate::verdict::{Aftermath, Findings, Known};

const CHILD: &str = "killing::process_to_kill";

/// When a process is killed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// By itself, when it passes this failpoint for the n-th time.
    At(String, u32),
    /// By its parent, at this part of the time that the operation takes.
    During(u32),
    /// Not at all: it says how often it passed each failpoint.
    Never,
}

/// A part of the operation's time, in thousandths; a fifth longer, so that the end is met too.
const WHOLE: u32 = 1200;

/// Not a test: the process to kill.
#[test]
#[ignore = "started by the tests of this file"]
fn process_to_kill() {
    let Some((grounds, job)) = Grounds::given() else { return };
    let (job, at) = job.split_once('|').unwrap();
    let task = Task::parse(job);
    let at = at.split_once('#').map(|(point, n)| (point.to_owned(), n.parse::<u32>().unwrap()));
    let passed: Arc<Mutex<BTreeMap<&'static str, u32>>> = Arc::default();
    let ready = Arc::new(AtomicBool::new(false));
    let hook = {
        let (passed, ready) = (Arc::clone(&passed), Arc::clone(&ready));
        move |point: &'static str| {
            if !ready.load(Ordering::Relaxed) {
                return Ok(()); // opening the room is no part of the operation
            }
            let mut passed = passed.lock().unwrap();
            let times = passed.entry(point).or_default();
            *times += 1;
            if at.as_ref().is_some_and(|(fatal, n)| fatal == point && n == times) {
                kill_process(getpid(), Signal::KILL).unwrap();
            }
            Ok(())
        }
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (table, mut journal) = (grounds.messages().await, Journal::of(&grounds, task));
        let store = Failpoints::new(grounds.store().await, hook.clone());
        let kms = Failpoints::new(grounds.kms(), hook);
        let room = serving_both().clock(task.clock()).key_store(store).kms(kms).open_under(&grounds.operator()).await;
        ready.store(true, Ordering::Relaxed);
        println!("\nready");
        task.perform(&room, &table, &mut journal).await;
    });
    for (point, times) in &*passed.lock().unwrap() {
        println!("\npassed {point} {times}");
    }
}

/// Grounds on which one operation after another is killed.
pub(crate) struct Field {
    _folder: tempfile::TempDir,
    pub(crate) grounds: Grounds,
    table: Messages,
    known: Known,
    home: &'static str,
    step: u32,
}

/// What became of a process.
pub(crate) struct Ended {
    pub(crate) was_killed: bool,
    /// From the start of a fresh room to its first open.
    pub(crate) recovery: Duration,
    /// How long the operation ran.
    pub(crate) ran: Duration,
    /// How often it passed each failpoint, if it ran to its end.
    pub(crate) passed: BTreeMap<String, u32>,
}

impl Field {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let grounds = Grounds::enrolled(folder.path(), Period::Hour).await;
        let table = grounds.messages().await;
        let field =
            Self { _folder: folder, grounds, table, known: Known::default(), home: crate::grounds::EU, step: 0 };
        let room = field.grounds.room().await;
        for channel in LASTING {
            field.seal(&room, channel).await;
        }
        field
    }

    async fn seal(&self, room: &Strongroom, channel: &str) {
        let id = format!("00000-{channel}");
        let scope = crate::grounds::channel(room, channel).await;
        let envelope = scope.seal(&[("message", &id)], Message::text(&id).as_bytes()).await.unwrap();
        self.table.put(&Message { id, channel: channel.to_owned(), envelope }).await;
    }

    /// Lets a process perform `operation`, kills it, and judges what is left. `usual` is how long the operation takes.
    pub(crate) async fn kill(
        &mut self,
        operation: crate::operation::Operation,
        moment: &Moment,
        usual: Duration,
        findings: &mut Findings,
    ) -> Ended {
        self.step += 1;
        let task = Task { operation, step: self.step, home: self.home, passed: Box::leak(Box::default()) };
        task.prepare(&task.room(&self.grounds).await, &self.table).await;
        let (was_killed, ran, out) = run(&self.grounds, task, moment, usual);
        let place = format!("{operation} {moment:?}, step {} in {}", self.step, self.grounds.path("").display());
        let aftermath = Aftermath { grounds: &self.grounds, table: &self.table, task, place };
        let recovery = aftermath.settle(&mut self.known, findings).await;
        if operation == crate::operation::Operation::Migrate {
            self.home = task.destination();
        }
        let passed = out.lines().filter_map(|line| {
            let (point, times) = line.strip_prefix("passed ")?.split_once(' ')?;
            Some((point.to_owned(), times.parse().unwrap()))
        });
        Ended { was_killed, recovery, ran, passed: passed.collect() }
    }
}

fn run(grounds: &Grounds, task: Task, moment: &Moment, usual: Duration) -> (bool, Duration, String) {
    let at = if let Moment::At(point, n) = moment { format!("{point}#{n}") } else { String::new() };
    let mut process: Child = grounds.start(CHILD, &format!("{}|{at}", task.job()));
    let mut printed = wait_for(&mut process, "ready");
    let began = Instant::now();
    if let Moment::During(part) = moment {
        std::thread::sleep(usual * (part % WHOLE) / 1000); // the random moment
        process.kill().unwrap();
    }
    let mut out = String::new();
    printed.read_to_string(&mut out).unwrap();
    let status = process.wait().unwrap();
    let was_killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
    assert!(was_killed || status.success(), "{task:?} failed by itself, {moment:?}: {out}");
    (was_killed, began.elapsed(), out)
}
