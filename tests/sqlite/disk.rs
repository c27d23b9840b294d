//! Disks that are full, or can only be read. A process of its own has a small file system in memory, which nobody else sees.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use strongroom::{Error, ErrorKind, KeyStore, Put, SqliteKeyStore};
use tokio::time::timeout;

use crate::{HANGS, is_written, put, tenant};

const FOLDER: &str = "STRONGROOM_TEST_SMALL_DISK";

/// Runs one of the tests below on a file system of 2 MiB.
fn on_a_small_disk(test: &str) {
    let folder = tempfile::tempdir().unwrap();
    let is_allowed = |arguments: &[&str]| {
        let tried = Command::new("unshare").args(arguments).arg("true").stderr(Stdio::null()).status();
        tried.expect("unshare (util-linux) is missing").success()
    };
    let as_root: &[&str] = &["--mount"];
    let as_user: &[&str] = &["--user", "--map-root-user", "--mount"];
    let isolated = [as_root, as_user].into_iter().find(|arguments| is_allowed(arguments));
    let ran = Command::new("unshare")
        .args(isolated.expect("neither root nor user namespaces: no file system can be mounted"))
        .args(["sh", "-c", r#"mount -t tmpfs -o size=2m none "$0" && exec "$@""#])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = format!("{}\n{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

fn small_disk() -> PathBuf {
    std::env::var_os(FOLDER).expect("started by a test below").into()
}

fn fill(folder: &Path) -> PathBuf {
    let filler = folder.join("filler");
    let mut size = 1 << 20;
    let mut bytes = Vec::new();
    while size > 0 {
        bytes.resize(bytes.len() + size, 7);
        if fs::write(&filler, &bytes).is_err() {
            bytes.truncate(bytes.len() - size);
            size /= 2;
        }
    }
    fs::write(&filler, &bytes).unwrap();
    filler
}

fn says(refused: &Error, what: &str) {
    assert!(refused.kind() == ErrorKind::StoreFault && !refused.is_retryable(), "{refused}");
    assert!(refused.to_string().contains(what), "{refused}");
}

/// Puts rows until one is refused.
async fn until_refused(store: &SqliteKeyStore, round: u32) -> Error {
    for n in 0..10_000 {
        let row = put(&tenant(&format!("T{round}-{n}")), None, &[7; 2_000]);
        match timeout(HANGS, store.put(&[row], Some(&|_| b"entry".to_vec()))).await.expect("hangs") {
            Ok(put) => assert!(matches!(put, Put::Written(_))),
            Err(e) => return e,
        }
    }
    panic!("nothing was refused");
}

/// Each row that was said to be written is there with its entry, and none else.
async fn check(store: &SqliteKeyStore) {
    let (rows, log) = (store.tenants(None, 10_000).await.unwrap(), store.log(Some(0), 10_000).await.unwrap());
    assert!(!rows.is_empty());
    assert_eq!(rows.len(), log.entries.len(), "a row without its entry, or the reverse");
    assert_eq!(log.end, rows.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "on a small disk, by a test below"]
async fn full() {
    let folder = small_disk();
    let store = SqliteKeyStore::create(folder.join("keys.db")).await.unwrap();
    assert!(is_written(store.put(&[put(&tenant("acme"), None, b"1")], Some(&|_| b"entry".to_vec())).await));
    for round in 0..3 {
        let filler = fill(&folder);
        // On all connections, and more than once on each.
        for _ in 0..10 {
            let refused = until_refused(&store, round).await;
            says(&refused, "disk is full; make room");
        }
        check(&store).await; // it is still read
        let elsewhere = SqliteKeyStore::create(folder.join("other.db")).await;
        says(&elsewhere.err().expect("made on a full disk"), "full");
        assert!(!folder.join("other.db").exists() && fs::read_dir(&folder).unwrap().count() <= 4, "something was left");
        // Room is made: no restart is needed.
        fs::remove_file(filler).unwrap();
        let rows = store.tenants(None, 10_000).await.unwrap().len();
        let began = Instant::now();
        for n in 0..20 {
            let row = put(&tenant(&format!("after-{round}-{n}")), None, b"1");
            let put = store.put(&[row], Some(&|_| b"entry".to_vec())).await;
            assert!(is_written(put), "round {round}");
        }
        println!("20 writes, none refused, {:?} after there was room", began.elapsed());
        assert_eq!(store.tenants(None, 10_000).await.unwrap().len(), rows + 20);
        check(&store).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "on a small disk, by a test below"]
async fn read_only() {
    let folder = small_disk();
    let remount = |how: &str| {
        let done = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&folder).status().unwrap();
        assert!(done.success(), "mount failed");
    };
    let path = folder.join("keys.db");
    let store = SqliteKeyStore::create(&path).await.unwrap();
    assert!(is_written(store.put(&[put(&tenant("acme"), None, b"1")], Some(&|_| b"entry".to_vec())).await));
    store.close().await;
    remount("ro");
    let row = put(&tenant("other"), None, b"1");
    match SqliteKeyStore::open(&path).await {
        Err(refused) => says(&refused, "writable"),
        Ok(store) => says(&store.put(std::slice::from_ref(&row), None).await.unwrap_err(), "writable"),
    }
    remount("rw");
    let store = SqliteKeyStore::open(&path).await.unwrap();
    assert!(is_written(store.put(&[row], Some(&|_| b"entry".to_vec())).await));
    check(&store).await;
}

// Every write failed until the process was started again, with "begin_with at non-zero transaction depth".
#[test]
fn a_full_disk_that_gets_room_again_is_written_to_again() {
    on_a_small_disk("disk::full");
}

#[test]
fn a_disk_that_can_only_be_read_says_so() {
    on_a_small_disk("disk::read_only");
}
