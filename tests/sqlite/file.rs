//! Files: how they come into being, what is no store, and what happens to one that is open.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::Connection as _;
use strongroom::{
    Error, ErrorKind, KeyId, KeyIndex, KeyState, KeyStore, Result, RowChange, RowDigest, RowKey, Scope, SqliteKeyStore,
    StoreIdentity, TenantId, Write,
};
use tokio::time::timeout;

use crate::{Fixture, HANGS, is_written, put, raw, tenant};

fn refused(opened: Result<SqliteKeyStore>) -> Error {
    opened.err().expect("it was opened")
}

#[tokio::test]
async fn what_is_no_store_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let somebody_elses = sqlx::sqlite::SqliteConnectOptions::new().filename(path("else")).create_if_missing(true);
    let mut db = sqlx::ConnectOptions::connect(&somebody_elses).await.unwrap();
    sqlx::raw_sql("CREATE TABLE mine (n)").execute(&mut db).await.unwrap();
    db.close().await.unwrap();
    fs::write(path("empty"), "").unwrap();
    fs::write(path("text"), "this is not a database, and longer than a header would be".repeat(100)).unwrap();
    fs::create_dir(path("folder")).unwrap();
    assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    for (name, says) in [
        ("missing", "create it"),
        ("no such folder/keys.db", "create it"),
        ("else", "not a key store"),
        ("empty", "empty"),
        ("text", "not a key store"),
        ("folder", "not that of a file"),
        ("pipe", "not that of a file"),
        ("..", "names no file"),
    ] {
        let before = path(name).is_file().then(|| fs::read(path(name)).unwrap());
        let refused = refused(timeout(HANGS, SqliteKeyStore::open(path(name))).await.expect("hangs"));
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{name}: {refused}");
        assert!(refused.to_string().contains(says), "{name}: {refused}");
        assert_eq!(before, path(name).is_file().then(|| fs::read(path(name)).unwrap()), "{name} was changed");
    }
    let others = ["else", "empty", "folder", "pipe", "text"];
    assert_eq!(names(folder.path()), others, "something was left behind");
    // Names that SQLite or its drivers would not read as one of a file: nobody means a file that is called so.
    for name in [":memory:", "", "file:keys.db", "file::memory:?cache=shared", "sqlite://keys.db", "sqlite::memory:"] {
        for refused in [refused(SqliteKeyStore::open(name).await), refused(SqliteKeyStore::create(name).await)] {
            assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{name}: {refused}");
            assert!(refused.to_string().contains("names no file"), "{name}: {refused}");
        }
    }
    // Nor is any of these taken for a place where there is nothing.
    std::os::unix::fs::symlink("nowhere", path("link")).unwrap();
    for name in others.into_iter().chain(["link"]) {
        assert_eq!(refused(SqliteKeyStore::create(path(name)).await).kind(), ErrorKind::Conflict, "{name}");
    }
    let nowhere = refused(SqliteKeyStore::create(path("no such folder/keys.db")).await);
    assert_eq!(nowhere.kind(), ErrorKind::StoreFault);
    assert_eq!(names(folder.path()), ["else", "empty", "folder", "link", "pipe", "text"], "something was left behind");
}

fn names(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

// Who comes second finds a whole store, at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_create_a_file_one_does_and_the_others_open_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let creating: Vec<_> = (0..8)
        .map(|n| {
            let path = path.clone();
            tokio::spawn(async move {
                let (store, created) = match SqliteKeyStore::create(&path).await {
                    Ok(store) => (store, true),
                    Err(e) if e.kind() == ErrorKind::Conflict => (SqliteKeyStore::open(&path).await.unwrap(), false),
                    Err(e) => panic!("{e}"),
                };
                assert!(is_written(store.put(&[put(&tenant(&format!("T{n}")), None, b"1")], None).await));
                store.close().await;
                created
            })
        })
        .collect();
    let mut created = 0;
    for creating in creating {
        created += usize::from(creating.await.unwrap());
    }
    assert_eq!(created, 1);
    let store = SqliteKeyStore::open(&path).await.unwrap();
    assert_eq!(store.tenants(None, 10).await.unwrap().len(), 8);
    store.close().await;
    assert_eq!(names(folder.path()), ["keys.db"], "something was left behind");
}

#[tokio::test]
async fn a_creation_that_is_dropped_leaves_nothing_or_a_whole_store() {
    let folder = tempfile::tempdir().unwrap();
    let mut dropped = 0;
    for round in 0..40 {
        let path = folder.path().join(format!("{round}.db"));
        let patience = Duration::from_micros(round * 250);
        dropped += u32::from(timeout(patience, SqliteKeyStore::create(&path)).await.is_err());
        let store = match SqliteKeyStore::open(&path).await {
            Err(e) if e.kind() == ErrorKind::InvalidArgument => SqliteKeyStore::create(&path).await.unwrap(),
            opened => opened.unwrap(),
        };
        assert!(is_written(store.put(&[put(&tenant("acme"), None, b"1")], None).await));
    }
    assert!(dropped > 0, "the test did not test what it should");
}

#[tokio::test]
async fn a_file_of_a_later_version_is_refused_untouched() {
    let f = Fixture::new().await;
    sqlx::raw_sql("PRAGMA user_version = 99").execute(&mut raw(&f.path()).await).await.unwrap();
    let refused = refused(SqliteKeyStore::open(f.path()).await);
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.to_string().contains("99"), "{refused}");
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut raw(&f.path()).await).await.unwrap();
    assert_eq!(version, 99);
}

/// N beside N-1: what a later version only added keeps no process of this one from running and from starting.
#[tokio::test]
async fn a_process_goes_on_beside_a_later_schema_that_only_adds() {
    let f = Fixture::new().await;
    let later = |least: i64| {
        format!(
            "ALTER TABLE tenants ADD COLUMN later TEXT; ALTER TABLE data_keys ADD COLUMN later INTEGER NOT NULL DEFAULT 7;
             CREATE TABLE later (n INTEGER) STRICT; INSERT INTO migrations (version, least_known) VALUES (2, {least});
             PRAGMA user_version = 2"
        )
    };
    let mut db = raw(&f.path()).await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(later(1))).execute(&mut db).await.unwrap();
    let started = SqliteKeyStore::open(f.path()).await.unwrap();
    for (store, name) in [(&f.store, "running"), (&started, "started")] {
        assert!(is_written(store.put(&[put(&tenant(name), None, b"1")], Some(&|_| b"e".to_vec())).await));
        assert_eq!(store.get(&tenant(name)).await.unwrap().unwrap(), b"1");
    }
    // One that has to be known is refused, and says so.
    sqlx::raw_sql("UPDATE migrations SET least_known = 2 WHERE version = 2").execute(&mut db).await.unwrap();
    let refused = refused(SqliteKeyStore::open(f.path()).await);
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.to_string().contains("schema version 2") && refused.to_string().contains("update it"), "{refused}");
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut db).await.unwrap();
    assert_eq!(version, 2, "it was changed");
}

#[tokio::test]
async fn the_file_is_durable_and_strict() {
    let f = Fixture::new().await;
    let mut db = raw(&f.path()).await;
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut db).await.unwrap();
    assert_eq!(mode, "wal");
    let loose: Vec<String> =
        sqlx::query_scalar("SELECT name FROM pragma_table_list WHERE NOT strict AND name NOT LIKE 'sqlite%'")
            .fetch_all(&mut db)
            .await
            .unwrap();
    assert_eq!(loose, [""; 0]);
}

#[tokio::test]
async fn what_was_replaced_is_overwritten() {
    let f = Fixture::new().await;
    let acme = tenant("acme");
    let secret = b"a wrapping of an erased key ".repeat(20);
    assert!(is_written(f.store.put(&[put(&acme, None, &secret)], None).await));
    let is_there = |path: &Path| fs::read(path).unwrap().windows(28).any(|window| *window == secret[..28]);
    sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut raw(&f.path()).await).await.unwrap();
    assert!(is_there(&f.path()), "the test looks in the wrong place");
    assert!(is_written(f.store.put(&[put(&acme, Some(&secret), b"gone")], None).await));
    f.store.close().await;
    sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut raw(&f.path()).await).await.unwrap();
    assert!(!is_there(&f.path()));
}

async fn identity(store: &SqliteKeyStore) -> StoreIdentity {
    store.log(None, 0).await.unwrap().store
}

#[tokio::test]
async fn a_copy_is_another_store_and_the_same_file_is_not() {
    let f = Fixture::new().await;
    let (copy, new) = (f.folder.path().join("copy.db"), f.folder.path().join("new.db"));
    let mine = identity(&f.store).await;
    f.store.close().await;
    fs::copy(f.path(), &copy).unwrap();
    assert_eq!(identity(&SqliteKeyStore::open(f.path()).await.unwrap()).await, mine);
    let copied = identity(&SqliteKeyStore::open(&copy).await.unwrap()).await;
    assert_ne!(copied, mine);
    // They bear the same name inside; a new one does not.
    let name = |identity: &StoreIdentity| identity.0.split('/').next().unwrap().to_owned();
    assert_eq!(name(&copied), name(&mine));
    assert_ne!(name(&identity(&SqliteKeyStore::create(&new).await.unwrap()).await), name(&mine));
}

// A backup that is put in the place of the file of a running process: what it would go on with is a file without a name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_replaced_while_it_is_open_shows_and_is_the_one_that_is_used() {
    let f = Fixture::new().await;
    let (acme, other, backup) = (tenant("acme"), tenant("other"), f.folder.path().join("backup.db"));
    assert!(is_written(f.store.put(&[put(&acme, None, b"old")], Some(&|_| b"1".to_vec())).await));
    let quoted = format!("VACUUM INTO '{}'", backup.display());
    sqlx::raw_sql(sqlx::AssertSqlSafe(quoted)).execute(&mut raw(&f.path()).await).await.unwrap();
    for round in 0..3_u8 {
        assert!(is_written(f.store.put(&[put(&acme, Some(b"old"), b"new")], Some(&|_| b"2".to_vec())).await));
        // All connections have seen the file.
        let reads = (0..8).map(|_| f.store.get(&acme));
        for read in futures_util::future::join_all(reads).await {
            assert_eq!(read.unwrap().unwrap(), b"new");
        }
        let before = f.store.log(None, 0).await.unwrap();
        fs::copy(&backup, f.folder.path().join("restored")).unwrap();
        for beside in ["keys.db-wal", "keys.db-shm"] {
            fs::remove_file(f.folder.path().join(beside)).unwrap();
        }
        fs::rename(f.folder.path().join("restored"), f.path()).unwrap();
        let log = f.store.log(None, 0).await.unwrap();
        assert!(log.store != before.store, "round {round}: the other file does not show");
        assert_eq!((before.end, log.end), (2, 1), "read from the file that has no name any more");
        let reads = (0..8).map(|_| f.store.get(&acme));
        for read in futures_util::future::join_all(reads).await {
            assert_eq!(read.unwrap().unwrap(), b"old", "read from the file that has no name any more");
        }
        assert_eq!(f.store.get(&other).await.unwrap(), None);
    }
    assert!(is_written(f.store.put(&[put(&other, None, b"1")], None).await));
    assert_eq!(SqliteKeyStore::open(f.path()).await.unwrap().get(&other).await.unwrap().unwrap(), b"1");
    // And one that is gone is said to be gone.
    fs::remove_file(f.path()).unwrap();
    let refused = [f.store.get(&acme).await.err(), f.store.log(None, 0).await.err()];
    for refused in refused.map(Option::unwrap) {
        assert_eq!(refused.kind(), ErrorKind::StoreFault);
        assert!(refused.to_string().contains("check that it is there"), "{refused}");
    }
}

// What all writers wait for keeps no lease from being renewed, and nobody from reading.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_read_while_all_else_waits() {
    let f = Fixture::new().await;
    let store = Arc::new(f.store);
    let mut other = raw(&f.folder.path().join("keys.db")).await;
    let writing = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let mut waiting: Vec<_> = (0..12)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.put(&[put(&tenant(&format!("T{n}")), None, b"1")], None).await })
        })
        .collect();
    // One waits for the write lock, the others for its connection.
    assert!(timeout(Duration::from_millis(200), &mut waiting[0]).await.is_err(), "written beside another's lock");
    for _ in 0..3 {
        let began = Instant::now();
        store.log(Some(0), 10).await.unwrap();
        assert_eq!(store.get(&tenant("acme")).await.unwrap(), None);
        assert!(began.elapsed() < Duration::from_secs(3), "a reading waited for writers");
    }
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()), "the test did not test what it should");
    writing.rollback().await.unwrap();
    for waiting in waiting {
        assert!(is_written(waiting.await.unwrap()));
    }
}

// A call that is dropped while it waits leaves no connection behind that is in the middle of something.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_dropped_while_they_wait_leave_nothing_behind() {
    let f = Fixture::new().await;
    let mut other = raw(&f.path()).await;
    for round in 0..3 {
        let writing = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let names: Vec<_> = (0..8).map(|n| tenant(&format!("dropped-{round}-{n}"))).collect();
        let writes: Vec<_> = names.iter().map(|name| [put(name, None, b"1")]).collect();
        let waiting = futures_util::future::join_all(writes.iter().map(|writes| f.store.put(writes, None)));
        assert!(timeout(Duration::from_millis(50), waiting).await.is_err(), "they did not wait");
        writing.rollback().await.unwrap();
        let began = Instant::now();
        assert!(is_written(f.store.put(&[put(&tenant(&format!("kept-{round}")), None, b"1")], None).await));
        assert!(began.elapsed() < Duration::from_secs(10), "waited for what was dropped");
        for name in &names {
            assert_eq!(f.store.get(name).await.unwrap(), None, "a dropped call wrote without having begun");
        }
    }
}

fn log_of(path: &Path) -> Vec<u8> {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    fs::read(name).unwrap_or_default()
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

// SQLite writes over what is at the log's start, and leaves what is behind it.
#[tokio::test]
async fn an_erased_key_s_bytes_are_in_no_file_once_the_erasure_is_written() {
    let f = Fixture::new().await;
    let secret = b"a wrapping of an erased key ".repeat(20);
    let state = |state| KeyIndex { scope: Scope::new(&[("channel", "C1")]).unwrap(), period: None, state };
    let key = RowKey::Key(TenantId::new("acme").unwrap(), KeyId::from_bytes([1; 32]));
    let write = |old: Option<&[u8]>, bytes: &[u8], index| Write {
        key: key.clone(),
        expected: old.map(RowDigest::of),
        change: RowChange::Put(bytes.to_vec(), Some(index)),
    };
    assert!(is_written(f.store.put(&[write(None, &secret, state(KeyState::Active))], None).await));
    assert!(contains(&log_of(&f.path()), &secret[..28]), "the test looks in the wrong place");
    let erase = write(Some(&secret), b"gone", state(KeyState::Destroyed));
    assert!(is_written(f.store.put(std::slice::from_ref(&erase), None).await));
    assert!(!contains(&log_of(&f.path()), &secret[..28]), "in the log");
    assert!(!contains(&fs::read(f.path()).unwrap(), &secret[..28]), "in the file");
    // Who reads meanwhile keeps it there, and keeps nobody from writing; with the next write after that it is gone.
    assert!(is_written(f.store.put(&[write(Some(b"gone"), &secret, state(KeyState::Active))], None).await));
    let mut other = raw(&f.path()).await;
    let mut reading = other.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM data_keys").fetch_one(&mut *reading).await.unwrap();
    let began = Instant::now();
    assert!(is_written(f.store.put(&[erase], None).await));
    assert!(began.elapsed() < Duration::from_secs(10), "waited for a reader");
    assert!(contains(&log_of(&f.path()), &secret[..28]), "the test did not test what it should");
    reading.rollback().await.unwrap();
    assert!(is_written(f.store.put(&[put(&tenant("acme"), None, b"1")], None).await));
    assert!(!contains(&log_of(&f.path()), &secret[..28]), "in the log");
}

#[tokio::test]
async fn a_log_that_grew_beside_a_reader_is_short_again_after_it() {
    let f = Fixture::new().await;
    let mut other = raw(&f.path()).await;
    let mut reading = other.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM tenants").fetch_one(&mut *reading).await.unwrap();
    let row = vec![7; 60_000];
    let many: Vec<_> = (0..200).map(|n| put(&tenant(&format!("T{n}")), None, &row)).collect();
    for writes in many.chunks(20) {
        assert!(is_written(f.store.put(writes, None).await));
    }
    assert!(log_of(&f.path()).len() > 8 << 20, "the test did not test what it should");
    reading.rollback().await.unwrap();
    assert!(is_written(f.store.put(&[put(&tenant("after"), None, b"1")], None).await));
    assert!(log_of(&f.path()).len() < 1 << 20, "{} bytes", log_of(&f.path()).len());
}

// A copy of the file alone, while the store is open, had none of 50 messages' keys: they stood in the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_running_store_has_all_rows_and_replaces_nothing() {
    use std::os::unix::fs::PermissionsExt as _;
    let f = Fixture::new().await;
    for n in 0..50 {
        assert!(is_written(
            f.store.put(&[put(&tenant(&format!("T{n:02}")), None, b"1")], Some(&|_| b"e".to_vec())).await
        ));
    }
    let backup = f.folder.path().join("it's a \"backup\".db");
    // While somebody writes and somebody reads.
    let mut other = raw(&f.path()).await;
    let writing = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    timeout(HANGS, f.store.backup(&backup)).await.expect("waits for a writer").unwrap();
    writing.rollback().await.unwrap();
    other.close().await.unwrap();
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    let copy = SqliteKeyStore::open(&backup).await.unwrap();
    assert_eq!(copy.tenants(None, 100).await.unwrap(), f.store.tenants(None, 100).await.unwrap());
    assert_eq!(copy.log(Some(0), 100).await.unwrap().entries, f.store.log(Some(0), 100).await.unwrap().entries);
    assert!(is_written(copy.put(&[put(&tenant("new"), None, b"1")], None).await));
    copy.close().await;
    // What is there stays as it is: a backup, the store itself, a folder, a link to nowhere.
    let before = fs::read(&backup).unwrap();
    let [folder, link] = ["folder", "link"].map(|name| f.folder.path().join(name));
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    for taken in [&backup, &f.path(), &folder, &link] {
        assert_eq!(f.store.backup(taken).await.unwrap_err().kind(), ErrorKind::Conflict, "{}", taken.display());
    }
    assert_eq!(fs::read(&backup).unwrap(), before);
    for (path, kind) in [("no such folder/keys.db", ErrorKind::StoreFault), ("..", ErrorKind::InvalidArgument)] {
        assert_eq!(f.store.backup(f.folder.path().join(path)).await.unwrap_err().kind(), kind);
    }
    assert_eq!(f.store.backup(":memory:").await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    f.store.close().await;
    let expected = ["folder", "it's a \"backup\".db", "keys.db", "link"];
    assert_eq!(names(f.folder.path()), expected, "something was left behind");
}

// While another process keeps the file open, closing is not enough to empty the log: that is done before.
#[tokio::test]
async fn closing_leaves_all_rows_in_the_file() {
    let f = Fixture::new().await;
    let mut other = raw(&f.path()).await;
    sqlx::query("SELECT count(*) FROM tenants").fetch_one(&mut other).await.unwrap();
    assert!(is_written(f.store.put(&[put(&tenant("acme"), None, b"1")], None).await));
    f.store.close().await;
    let copy = f.folder.path().join("copy.db");
    fs::copy(f.path(), &copy).unwrap();
    let copy = SqliteKeyStore::open(&copy).await.unwrap();
    assert_eq!(copy.get(&tenant("acme")).await.unwrap().as_deref(), Some(&b"1"[..]));
    f.store.close().await; // no harm
}
