//! Several processes on one key store, and processes that are killed in the middle of their writing.
#![cfg(feature = "sqlite")]

#[cfg(feature = "postgres")]
mod cluster;

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use strongroom::{KeyStore, Put, RowChange, RowDigest, RowKey, SqliteKeyStore, TenantId, Write};

/// A PostgreSQL URL, or the path of a SQLite file.
const STORE: &str = "STRONGROOM_TEST_STORE";
const NAME: &str = "STRONGROOM_TEST_NAME";

async fn open(store: &str) -> Arc<dyn KeyStore> {
    #[cfg(feature = "postgres")]
    if store.starts_with("postgres://") {
        return Arc::new(strongroom::PostgresKeyStore::connect(store).await.unwrap());
    }
    Arc::new(SqliteKeyStore::open(store).await.unwrap())
}

fn put(key: RowKey, old: Option<&[u8]>, bytes: &[u8]) -> Write {
    Write { key, expected: old.map(RowDigest::of), change: RowChange::Put(bytes.to_vec(), None) }
}

fn counter() -> RowKey {
    RowKey::Tenant(TenantId::new("counter").unwrap())
}

fn of(name: &str, n: u64) -> RowKey {
    RowKey::Journal(TenantId::new(name).unwrap(), n)
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

/// Counts a row up, beside a row of its own and an entry that names it, until it is told to stop or killed.
#[test]
#[ignore = "a process of the tests below"]
fn counting() {
    let [store, name] = [STORE, NAME].map(|name| std::env::var(name).expect("started by a test below"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = open(&store).await;
        println!("\nready");
        let mut rounds = String::new();
        std::io::stdin().lock().read_line(&mut rounds).unwrap();
        for n in 1..=rounds.trim().parse::<u64>().unwrap() {
            loop {
                let is = store.get(&counter()).await.unwrap().unwrap();
                let next = (number(&is) + 1).to_be_bytes();
                let writes = [put(counter(), Some(&is), &next), put(of(&name, n), None, &next)];
                let entry = |_: u64| format!("{name} {n}").into_bytes();
                if let Put::Written(_) = store.put(&writes, Some(&entry)).await.unwrap() {
                    println!("\nwritten {n}");
                    break;
                }
            }
        }
    });
}

/// A process that counts, and what it says.
fn start(store: &str, name: &str) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "counting", "--ignored", "--nocapture"])
        .env(STORE, store)
        .env(NAME, name)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while line.trim() != "ready" {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "a process did not start");
    }
    (child, said)
}

/// What `written` lines say, up to the end.
fn acknowledged(said: BufReader<ChildStdout>) -> u64 {
    let lines = said.lines().map_while(Result::ok);
    let written = lines.filter_map(|line| line.strip_prefix("written ").and_then(|n| n.parse().ok()));
    written.last().unwrap_or(0)
}

/// Each row has its entry, the numbers of the counter come once each, and the log has no gap. Gives how many rows each has.
async fn check(store: &dyn KeyStore, names: &[String]) -> Vec<u64> {
    let total = number(&store.get(&counter()).await.unwrap().unwrap());
    let (mut seen, mut rows) = (Vec::new(), Vec::new());
    let mut entries = Vec::new();
    for name in names {
        let journal = store.journal(&TenantId::new(name).unwrap(), 0, u32::MAX).await.unwrap();
        seen.extend(journal.iter().map(|(_, bytes)| number(bytes)));
        entries.extend(journal.iter().map(|(n, _)| format!("{name} {n}").into_bytes()));
        rows.push(journal.len() as u64);
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=total).collect::<Vec<_>>(), "a number twice, or none");
    let log = store.log(Some(0), u32::MAX).await.unwrap();
    assert_eq!(log.entries.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (1..=total).collect::<Vec<_>>());
    let mut logged: Vec<_> = log.entries.into_iter().map(|(_, entry)| entry).collect();
    logged.sort();
    entries.sort();
    assert_eq!(logged, entries, "an entry without its row, or the reverse");
    rows
}

async fn race(store: &str) {
    const ROUNDS: u64 = 200;
    let here = open(store).await;
    here.put(&[put(counter(), None, &0_u64.to_be_bytes())], None).await.unwrap();
    let names = ["a", "b"].map(str::to_owned);
    let mut racers: Vec<_> = names.iter().map(|name| start(store, name)).collect();
    for (racer, _) in &mut racers {
        writeln!(racer.stdin.as_mut().unwrap(), "{ROUNDS}").unwrap();
    }
    for (mut racer, said) in racers {
        assert_eq!(acknowledged(said), ROUNDS);
        assert!(racer.wait().unwrap().success(), "a racer failed");
    }
    assert_eq!(check(&*here, &names).await, [ROUNDS, ROUNDS]);
}

/// Kills a process after some of its writes, again and again.
async fn kill(store: &str, kills: u64) {
    let here = open(store).await;
    here.put(&[put(counter(), None, &0_u64.to_be_bytes())], None).await.unwrap();
    let mut names = Vec::new();
    for round in 0..kills {
        let name = format!("killed-{round}");
        let (mut child, mut said) = start(store, &name);
        writeln!(child.stdin.as_mut().unwrap(), "1000000").unwrap();
        let mut line = String::new();
        while line.trim() != format!("written {}", 1 + round % 7) {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended by itself");
        }
        // In the middle of a later one, mostly.
        std::thread::sleep(std::time::Duration::from_micros(311 * round % 2_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let acknowledged = acknowledged(said).max(1 + round % 7);
        names.push(name);
        // What it was killed in may still be on its way to its end: who keeps the row waits for it.
        let fresh = open(store).await;
        let rows = loop {
            let is = fresh.get(&counter()).await.unwrap().unwrap();
            let same = [Write { change: RowChange::Keep, ..put(counter(), Some(&is), b"") }];
            if let Put::Written(_) = fresh.put(&same, None).await.unwrap() {
                break check(&*fresh, &names).await;
            }
        };
        let rows = *rows.last().unwrap();
        assert!(rows >= acknowledged, "round {round}: {acknowledged} were said to be written, {rows} are there");
    }
}

#[tokio::test]
async fn two_processes_race_on_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    SqliteKeyStore::create(&path).await.unwrap();
    race(path.to_str().unwrap()).await;
}

#[tokio::test]
async fn processes_are_killed_while_they_write_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    SqliteKeyStore::create(&path).await.unwrap();
    kill(path.to_str().unwrap(), 25).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn two_processes_race_on_postgresql() {
    let database = cluster::Database::new().await;
    race(&database.url).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn processes_are_killed_while_they_write_to_postgresql() {
    let database = cluster::Database::new().await;
    kill(&database.url, 15).await;
}
