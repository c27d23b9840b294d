//! A rewrap of very many records: how fast, in how much memory, and how much of it is done twice when it is killed.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use futures_util::stream::{StreamExt, iter};
use strongroom::testing::Failpoints;
use strongroom::{KeyRecord, Period, WalkOptions};

use crate::grounds::{EU, Grounds, TENANT, asked, channel, keks, records, serving_both, wait_for};

const WALKER: &str = "scale::process_that_rewraps";
const PAGE: u32 = 200;

/// Not a test: rewraps, counts the wraps in a file, and says how much memory it took.
#[test]
#[ignore = "started by the tests of this file"]
fn process_that_rewraps() {
    let Some((grounds, way)) = Grounds::given() else { return };
    let wraps = OpenOptions::new().create(true).append(true).open(grounds.path("wraps")).unwrap();
    let hook = move |point: &'static str| {
        // A byte a wrap: what is in the file survives a kill.
        if matches!(point, "kms.rewrap.after" | "kms.wrap.after") {
            (&wraps).write_all(b".").unwrap();
        }
        Ok(())
    };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let kms = Failpoints::new(grounds.kms(), hook);
        let room = serving_both().key_store(grounds.store().await).kms(kms).open_under(&grounds.operator()).await;
        println!("\nready");
        let to = keks(EU, way.parse().unwrap());
        let (admin, options) = (room.admin("a test", "to test").unwrap(), WalkOptions::default().page(PAGE));
        // What a process that was killed had done is not done again.
        let walked = match admin.resume_rewrap(TENANT, &options).await.unwrap() {
            Some(walked) => walked,
            None => admin.rewrap(TENANT, to, &options).await.unwrap(),
        };
        assert_eq!(walked.failed, 0, "{:?}", walked.first_failure);
    });
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown");
    println!("\npeak {}", peak.trim());
}

struct Ledger {
    _folder: tempfile::TempDir,
    grounds: Grounds,
    sample: Vec<(String, Vec<u8>)>,
}

impl Ledger {
    /// A store of `records` data keys, each of a channel of its own, and a message of about one in a hundred of them.
    async fn of(records: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let grounds = Grounds::enrolled(folder.path(), Period::None).await;
        let room = grounds.room().await;
        let every = (records / 100).max(1);
        let seal = async |n: u32| {
            let name = format!("C{n}");
            let sealed = channel(&room, &name).await.seal(&[], name.as_bytes()).await.unwrap();
            n.is_multiple_of(every).then_some((name, sealed))
        };
        let sample = iter(0..records).map(seal).buffer_unordered(64).filter_map(std::future::ready).collect().await;
        Self { _folder: folder, grounds, sample }
    }

    /// Rewraps in a process to its end. Its time, its peak memory.
    fn rewrap(&self, way: u32) -> (Duration, String) {
        let mut process = self.grounds.start(WALKER, &way.to_string());
        let mut printed = wait_for(&mut process, "ready");
        let began = Instant::now();
        let mut out = String::new();
        printed.read_to_string(&mut out).unwrap();
        assert!(process.wait().unwrap().success(), "{out}");
        let peak = out.lines().find_map(|line| line.strip_prefix("peak ")).unwrap();
        (began.elapsed(), peak.to_owned())
    }

    /// Starts it and kills it after `time`.
    fn kill(&self, way: u32, time: Duration) -> bool {
        let mut process = self.grounds.start(WALKER, &way.to_string());
        let _printed = wait_for(&mut process, "ready");
        std::thread::sleep(time); // the random moment
        process.kill().unwrap();
        !process.wait().unwrap().success()
    }

    fn wraps(&self) -> u64 {
        std::fs::metadata(self.grounds.path("wraps")).map_or(0, |file| file.len())
    }

    /// Every record is wrapped as `way` says; the sample opens.
    async fn check(&self, way: u32) -> u64 {
        let room = self.grounds.room().await;
        let row = room.admin("a test", "to test").unwrap().tenant(TENANT).await.unwrap();
        assert_eq!(row.rewrap, None);
        let records: Vec<KeyRecord> = records(&room).await;
        for record in &records {
            assert_eq!(record.wrapped.as_ref().unwrap().expression(), keks(EU, way));
            assert_eq!(record.pending, None, "{} was not done", record.key_id);
        }
        for (name, sealed) in &self.sample {
            assert_eq!(&*channel(&room, name).await.open(&[], sealed).await.unwrap(), name.as_bytes());
        }
        records.len() as u64
    }
}

fn rewrap_killed(runtime: &tokio::runtime::Runtime, ledger: &Ledger, kills: u32, usual: Duration) {
    let (way, before) = (0, ledger.wraps());
    let mut killed = 0;
    for n in 0..kills {
        let part = (f64::from(n) * 0.618_034).fract() * 2.0 / f64::from(kills);
        killed += u32::from(ledger.kill(way, usual.mul_f64(part)));
    }
    ledger.rewrap(way);
    let records = runtime.block_on(ledger.check(way));
    let wraps = ledger.wraps() - before;
    println!("{records} records, killed {killed} times: {wraps} wraps, {} of them for a second time", wraps - records);
    assert!(killed > 0, "no process was killed");
    // A kill costs at most the page that was under way.
    assert!((records..=records + u64::from(killed * PAGE)).contains(&wraps));
}

#[test]
fn a_rewrap_killed_again_and_again_does_each_record_once_in_effect() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ledger = runtime.block_on(Ledger::of(450));
    let (usual, _) = ledger.rewrap(1);
    assert_eq!(runtime.block_on(ledger.check(1)), 450);
    rewrap_killed(&runtime, &ledger, 6, usual);
}

#[test]
#[ignore = "takes long; scripts/rewrap-scale runs it"]
fn rewrap_at_scale() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let all = asked("STRONGROOM_RECORDS", 100_000);
    for records in [all / 10, all] {
        let began = Instant::now();
        let ledger = runtime.block_on(Ledger::of(records));
        let made = began.elapsed();
        let (usual, peak) = ledger.rewrap(1);
        assert_eq!(runtime.block_on(ledger.check(1)), u64::from(records));
        let rate = f64::from(records) / usual.as_secs_f64();
        println!(
            "{records} records, made in {made:.0?}: rewrapped in {usual:.1?}, {rate:.0} a second, peak memory {peak}"
        );
        if records == all {
            rewrap_killed(&runtime, &ledger, 20, usual);
        }
    }
}
