//! The SQLite key store beyond the contract: rows that cannot be, rows that somebody changed, files of other versions.
#![cfg(feature = "sqlite")]

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};
use strongroom::{ErrorKind, LocalKms, Period, Region, ScopeHandle, SqliteKeyStore, Strongroom, TenantPolicy};

async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

/// What somebody with the file can do, constraints or not.
async fn tamper(path: &Path, statement: &str) {
    let mut db = raw(path).await;
    sqlx::raw_sql("PRAGMA ignore_check_constraints = ON").execute(&mut db).await.unwrap();
    let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut db).await.unwrap();
    assert!(done.rows_affected() > 0, "{statement} changed nothing");
}

struct Fixture {
    folder: tempfile::TempDir,
    room: Strongroom,
    scope: ScopeHandle,
    sealed: Vec<u8>,
}

impl Fixture {
    /// A tenant `acme` with two channels, one message sealed in each.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kms = LocalKms::in_memory();
        let region = Region::new("eu-central-1").unwrap();
        let kek = kms.create_kek("acme", region.clone()).unwrap();
        let room = Strongroom::builder()
            .serving(["eu-central-1", "eu-central-2"])
            .key_store(SqliteKeyStore::open(folder.path().join("keys.db")).await.unwrap())
            .kms(kms)
            .trusting_the_key_store()
            .build()
            .await
            .unwrap();
        let policy = TenantPolicy::new(kek, region)
            .scope_by(["channel"])
            .period(Period::Month)
            .allow_region(Region::new("eu-central-2").unwrap());
        room.admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
        let acme = room.tenant("acme").await.unwrap();
        acme.scope([("channel", "C8")]).unwrap().seal(&[], b"8").await.unwrap();
        let scope = acme.scope([("channel", "C9")]).unwrap();
        let sealed = scope.seal(&[], b"9").await.unwrap();
        room.admin("a test", "to test").unwrap().purge("acme").unwrap();
        Self { folder, room, scope, sealed }
    }

    async fn tamper(&self, statement: &str) {
        tamper(&self.folder.path().join("keys.db"), statement).await;
    }
}

#[tokio::test]
async fn rows_that_cannot_be_are_malformed() {
    for set in [
        "suite = 9",
        "suite = -1",
        "scope = x'ff'",
        "scope = x'0101610000'",
        "scope = x''",
        "period = 'minute=1'",
        "region = 'EU'",
        "region = ''",
        "state = 'happy'",
        "state = 'destroyed'",
        "state = 'destroyed', wrapped = NULL, pending = '{\"epoch\":1,\"key\":{\"kek\":\"local:a\",\"wrapped\":\"00\"}}'",
        "wrapped = ''",
        "wrapped = '[]'",
        "wrapped = NULL",
        "wrapped = '{\"kek\":\"local:acme\",\"wrapped\":\"\"}'",
        "wrapped = '{\"kek\":\"nope\",\"wrapped\":\"00\"}'",
        "wrapped = '{\"all_of\":[{\"kek\":\"local:acme\",\"wrapped\":\"00\"}]}'",
        "pending = '{}'",
        "wrapped_epoch = 0",
        "revision = 0",
        "revision = -5",
    ] {
        let f = Fixture::new().await;
        f.tamper(&format!("UPDATE data_keys SET {set} WHERE instr(scope, x'4339')")).await;
        let refused = f.scope.open(&[], &f.sealed).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Malformed, "{set}: {refused}");
        assert_eq!(
            f.room.admin("a test", "to test").unwrap().keys("acme", None, 10).await.unwrap_err().kind(),
            ErrorKind::Malformed,
            "{set}"
        );
    }
    for set in [
        "policy = '{}'",
        "policy = 'x'",
        "policy = json_set(policy, '$.cache_ttl_secs', 999999999)",
        "revocations = '{}'",
        "erasures = '{}'",
        "rewrap = '{}'",
        "epoch = -1",
    ] {
        let f = Fixture::new().await;
        f.tamper(&format!("UPDATE tenants SET {set}")).await;
        assert_eq!(f.scope.open(&[], &f.sealed).await.unwrap_err().kind(), ErrorKind::Malformed, "{set}");
        assert!(f.room.tenant("acme").await.is_err());
    }
}

// tink #672, CVE-2026-6550: what the store says is bound by the KMS or checked against the key itself.
#[tokio::test]
async fn rows_that_somebody_changed_open_nothing() {
    let other_channel = "(SELECT wrapped FROM data_keys WHERE instr(scope, x'4338'))";
    for (set, kind) in [
        ("region = 'eu-central-2'".to_owned(), ErrorKind::Denied),
        ("period = 'month=1999-01'".to_owned(), ErrorKind::Denied),
        ("suite = 2".to_owned(), ErrorKind::Denied),
        (format!("wrapped = {other_channel}"), ErrorKind::Denied),
        ("scope = x'01076368616e6e656c00024337'".to_owned(), ErrorKind::Denied),
        ("state = 'suspended'".to_owned(), ErrorKind::Revoked),
        ("state = 'destroyed', wrapped = NULL".to_owned(), ErrorKind::Erased),
    ] {
        let f = Fixture::new().await;
        f.tamper(&format!("UPDATE data_keys SET {set} WHERE instr(scope, x'4339')")).await;
        let refused = f.scope.open(&[], &f.sealed).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{set}: {refused}");
    }
    // The row of another key under this key's id, wrapped for exactly this scope: only the commitment can tell.
    let f = Fixture::new().await;
    f.room.admin("a test", "to test").unwrap().rotate("acme", &[("channel", "C9")]).await.unwrap();
    f.tamper(
        "UPDATE data_keys SET wrapped = (SELECT wrapped FROM data_keys WHERE state = 'active' AND instr(scope, x'4339'))
         WHERE state = 'deactivated'",
    )
    .await;
    assert_eq!(f.scope.open(&[], &f.sealed).await.unwrap_err().kind(), ErrorKind::KeyMismatch);
}

#[tokio::test]
async fn a_file_of_a_later_version_is_refused_untouched() {
    let f = Fixture::new().await;
    let path = f.folder.path().join("keys.db");
    sqlx::raw_sql("PRAGMA user_version = 99").execute(&mut raw(&path).await).await.unwrap();
    let refused = SqliteKeyStore::open(&path).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.to_string().contains("99"), "{refused}");
}

#[tokio::test]
async fn what_is_no_database_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    std::fs::write(&path, "this is not a database, and longer than a header would be".repeat(100)).unwrap();
    assert_eq!(SqliteKeyStore::open(&path).await.err().unwrap().kind(), ErrorKind::Unavailable);
    let nowhere = folder.path().join("no such folder/keys.db");
    assert_eq!(SqliteKeyStore::open(nowhere).await.err().unwrap().kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_open_a_new_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let opening: Vec<_> = (0..8).map(|_| tokio::spawn(SqliteKeyStore::open(folder.path().join("keys.db")))).collect();
    for opened in opening {
        opened.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_file_is_durable_and_strict() {
    let f = Fixture::new().await;
    let mut db = raw(&f.folder.path().join("keys.db")).await;
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut db).await.unwrap();
    assert_eq!(mode, "wal");
    let strict: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pragma_table_list WHERE name IN ('tenants', 'data_keys') AND strict")
            .fetch_one(&mut db)
            .await
            .unwrap();
    assert_eq!(strict, 2);
}
