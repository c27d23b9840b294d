//! kill -9 at random moments while marks are advanced: what was acknowledged is there, and nothing is torn.
//!
//! The test binary starts itself again as the processes that are killed, two at a time on one file.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use strongroom::{FileWatermark, Subject, Watermark};

use super::{mark, tenant};

const JOB: &str = "STRONGROOM_TEST_JOB";
const NAMES: [&str; 2] = ["a", "b"];

/// Not a test: a process to kill. It advances a tenant's mark that is its own, and the fleet's, and says what was acknowledged.
#[test]
#[ignore = "started by the tests of this file"]
fn child() {
    let Ok(job) = std::env::var(JOB) else { return };
    let (path, name) = job.split_once('\n').unwrap();
    let digest = name.as_bytes()[0];
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let watermark = FileWatermark::open(path).unwrap();
        loop {
            for (subject, what) in [(tenant(name), "tenant"), (Subject::Fleet, "fleet")] {
                let from = watermark.read(&subject).await.unwrap();
                let to = mark(from.map_or(1, |mark| mark.epoch + 1), digest);
                let advanced = watermark.advance(&subject, from.as_ref(), &to).await.unwrap();
                assert!(advanced || what == "fleet", "somebody else advanced {subject:?}");
                if advanced {
                    println!("\n{what} {}", to.epoch);
                }
            }
        }
    });
}

struct Process {
    process: Child,
    said: Receiver<String>,
}

impl Process {
    fn start(path: &Path, name: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "kill::child", "--nocapture"])
            .env(JOB, format!("{}\n{name}", path.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (say, said) = mpsc::channel();
        std::thread::spawn(move || {
            let lines = lines.map_while(Result::ok);
            let _ = lines
                .filter(|line| line.starts_with("tenant ") || line.starts_with("fleet "))
                .try_for_each(|line| say.send(line));
        });
        Self { process, said }
    }

    /// Kills it, and gives all that it had acknowledged.
    fn kill(mut self, first: String) -> Vec<String> {
        assert!(self.process.try_wait().unwrap().is_none(), "it ended by itself");
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::iter::once(first).chain(self.said).collect()
    }
}

async fn epoch(watermark: &FileWatermark, subject: &Subject) -> u64 {
    watermark.read(subject).await.unwrap().map_or(0, |mark| mark.epoch)
}

async fn kill(times: u32) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("watermark");
    drop(FileWatermark::create(&path).unwrap());
    let (mut fleet, mut acknowledged, mut left_over) = (HashSet::new(), 0, 0);
    for round in 0..times {
        let processes = NAMES.map(|name| Process::start(&path, name));
        let processes = processes.map(|process| {
            let first = process.said.recv_timeout(Duration::from_secs(30)).expect("it acknowledges nothing");
            (process, first)
        });
        // The moment is what is varied: a golden-ratio sequence covers the time of some advances evenly.
        std::thread::sleep(Duration::from_secs_f64(0.05 * (f64::from(round) * 0.618_034).fract()));
        let said = processes.map(|(process, first)| process.kill(first));
        left_over += u32::from(folder.path().join("watermark.new").exists());

        // Opening reads every line: a torn one would be refused.
        let watermark = FileWatermark::open(&path).unwrap();
        assert!(!folder.path().join("watermark.new").exists());
        for (name, said) in NAMES.iter().zip(said) {
            let epochs = |what| said.iter().filter_map(move |line| line.strip_prefix(what)?.parse::<u64>().ok());
            acknowledged += said.len();
            let now = epoch(&watermark, &tenant(name)).await;
            if let Some(last) = epochs("tenant ").next_back() {
                assert!(now == last || now == last + 1, "{name} has {now}, {last} was acknowledged (kill {round})");
            }
            for step in epochs("fleet ") {
                assert!(fleet.insert(step), "step {step} of the fleet's mark was acknowledged twice");
            }
        }
        // Each of the two may have written one that it did not live to acknowledge, one behind the other.
        let (now, last) = (epoch(&watermark, &Subject::Fleet).await, fleet.iter().max().copied().unwrap_or(0));
        assert!((last..=last + 2).contains(&now), "the fleet has {now}, {last} was acknowledged (kill {round})");
        fleet.insert(now);
    }
    println!(
        "{times} times two kills: {acknowledged} advances acknowledged, {left_over} half-made files left and removed"
    );
    assert!(acknowledged >= 2 * times as usize);
}

#[tokio::test]
async fn thirty_kills_lose_no_mark_and_tear_none() {
    kill(30).await;
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn a_thousand_kills_lose_no_mark_and_tear_none() {
    kill(1_000).await;
}
