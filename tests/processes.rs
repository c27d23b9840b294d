//! Several processes on one key store and one KEK file.
#![cfg(feature = "sqlite")]

#[cfg(feature = "postgres")]
mod cluster;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use strongroom::testing::Operator;
use strongroom::{KeyState, KeyStore, LocalKms, Period, Region, Strongroom, TenantPolicy};

const FOLDER: &str = "STRONGROOM_TEST_FOLDER";
/// A PostgreSQL URL, or the path of a SQLite file.
const STORE: &str = "STRONGROOM_TEST_STORE";
const ROUNDS: &str = "STRONGROOM_TEST_ROUNDS";

async fn open(store: &str) -> Arc<dyn KeyStore> {
    #[cfg(feature = "postgres")]
    if store.starts_with("postgres://") {
        return Arc::new(strongroom::PostgresKeyStore::connect(store).await.unwrap());
    }
    Arc::new(strongroom::testing::sqlite(store).await)
}

async fn room(folder: &Path, store: &str) -> Strongroom {
    Strongroom::builder()
        .serving(["eu-central-1"])
        .key_store(open(store).await)
        .kms(LocalKms::open(folder.join("keks.json")).unwrap())
        .open_under(&Operator::in_folder(folder))
        .await
}

/// Nanoseconds of a clock that all processes share.
fn now() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(t.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap()
}

/// One of the racing processes: creates, uses, rotates and uses each scope, as fast as it can.
#[test]
#[ignore = "a process of the tests below"]
fn racer() {
    let [folder, store, rounds] =
        [FOLDER, STORE, ROUNDS].map(|name| std::env::var(name).expect("started by a test below"));
    let rounds: usize = rounds.parse().unwrap();
    let folder = Path::new(&folder);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let room = room(folder, &store).await;
        let acme = room.tenant("acme").await.unwrap();
        let mut out = File::create(folder.join(format!("sealed-{}", std::process::id()))).unwrap();
        for round in 0..rounds {
            println!("\nat {round}");
            std::io::stdin().lock().read_line(&mut String::new()).unwrap(); // until the other one is there
            let channel = format!("C{round}");
            let fields = [("channel", channel.as_str())];
            let scope = acme.scope(fields).unwrap();
            for step in ["created", "rotated"] {
                let began = now();
                if step == "rotated" {
                    room.admin("a test", "to test").unwrap().rotate("acme", &fields).await.unwrap();
                }
                let sealed = scope.seal(&[("step", step)], channel.as_bytes()).await.unwrap();
                let sealed = base16ct::lower::encode_string(&sealed);
                writeln!(out, "{channel} {step} {began} {} {sealed}", now()).unwrap();
            }
        }
    });
}

// asherah #401: intermittent failures around rotation from time-stamped versions.
#[test]
fn two_processes_race_to_create_rotate_and_use_a_scope_a_thousand_times() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("keys.db");
    race(folder.path(), store.to_str().unwrap(), 1_000);
}

#[cfg(feature = "postgres")]
#[test]
fn two_processes_race_on_postgresql() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(cluster::Database::new());
    race(folder.path(), &database.url, 300);
}

fn race(folder: &Path, store: &str, rounds: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let kms = LocalKms::create(folder.join("keks.json")).unwrap();
    let region = Region::new("eu-central-1").unwrap();
    let kek = kms.create_kek("acme", region.clone()).unwrap();
    let policy = TenantPolicy::new(kek, region).scope_by(["channel"]).period(Period::Month);
    runtime.block_on(async {
        room(folder, store).await.admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
    });

    let mut racers: Vec<_> = (0..2)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "racer", "--ignored", "--nocapture"])
                .env(FOLDER, folder)
                .env(STORE, store)
                .env(ROUNDS, rounds.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut lines: Vec<_> =
        racers.iter_mut().map(|racer| BufReader::new(racer.stdout.take().unwrap()).lines()).collect();
    for round in 0..rounds {
        let at = format!("at {round}");
        for lines in &mut lines {
            assert!(lines.any(|line| line.unwrap() == at), "a racer ended before round {round}");
        }
        for racer in &mut racers {
            writeln!(racer.stdin.as_mut().unwrap(), "go").unwrap();
        }
    }
    // Read on, so that no racer blocks on a full pipe.
    for lines in lines {
        std::thread::spawn(move || lines.for_each(drop));
    }
    for racer in &mut racers {
        assert!(racer.wait().unwrap().success(), "a racer failed");
    }

    runtime.block_on(async {
        let room = room(folder, store).await;
        let acme = room.tenant("acme").await.unwrap();
        let mut opened = 0;
        let mut times: BTreeMap<(String, String), Vec<(u64, u64)>> = BTreeMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if !path.file_name().unwrap().to_string_lossy().starts_with("sealed-") {
                continue;
            }
            for line in BufReader::new(File::open(path).unwrap()).lines() {
                let line = line.unwrap();
                let [channel, step, began, ended, sealed] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
                let time = (began.parse().unwrap(), ended.parse().unwrap());
                times.entry((channel.to_owned(), step.to_owned())).or_default().push(time);
                let sealed = base16ct::lower::decode_vec(sealed).unwrap();
                let scope = acme.scope([("channel", channel)]).unwrap();
                assert_eq!(&*scope.open(&[("step", step)], &sealed).await.unwrap(), channel.as_bytes());
                opened += 1;
            }
        }
        assert_eq!(opened, 2 * 2 * rounds);
        // They raced: in many rounds both were at the same scope at the same time.
        let met = |of: &Vec<(u64, u64)>| matches!(of[..], [a, b] if a.0 < b.1 && b.0 < a.1);
        let met = times.values().filter(|of| met(of)).count();
        println!("the racers met {met} times in {} steps", times.len());
        assert!(met > rounds / 4, "the racers met {met} times only in {} steps", times.len());

        let mut active = BTreeMap::new();
        let mut after = None;
        loop {
            let page = room.admin("a test", "to test").unwrap().keys("acme", after.as_ref(), 500).await.unwrap().keys;
            let Some(last) = page.last() else { break };
            after = Some(last.key_id);
            for key in page {
                assert!(matches!(key.state, KeyState::Active | KeyState::Deactivated));
                *active.entry((key.scope.to_bytes(), key.period)).or_insert(0) +=
                    usize::from(key.state == KeyState::Active);
            }
        }
        // A race over the turn of a month makes two periods of a scope.
        assert!((rounds..=2 * rounds).contains(&active.len()));
        assert!(active.values().all(|n| *n == 1), "one Active key per scope and period");
    });
}
