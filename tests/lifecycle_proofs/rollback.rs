//! A key store restored from an older copy must not un-revoke, nor resurrect.

use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use strongroom::testing::{ManualClock, Operator};
use strongroom::{ErrorKind, LocalKms, Selector, Strongroom, TenantPolicy, WalkOptions};

use crate::grounds::{EU, TENANT, channel, region, serving_both};

async fn sql(file: &Path, statements: &str) {
    let mut db = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned())).execute(&mut db).await.unwrap();
}

async fn back_up(live: &Path, copy: &Path) {
    sql(live, &format!("VACUUM INTO '{}'", copy.display())).await;
}

/// Puts the copy's rows in place of the live ones, under the feet of whoever has the file open.
async fn restore(live: &Path, copy: &Path) {
    let table = |name: &str| format!("DELETE FROM {name}; INSERT INTO {name} SELECT * FROM copy.{name};");
    let tables: String = ["single_rows", "tenants", "data_keys", "journal", "keks", "changes"].map(table).concat();
    sql(live, &format!("ATTACH '{}' AS copy; BEGIN IMMEDIATE; {tables} COMMIT", copy.display())).await;
}

struct Nodes {
    folder: tempfile::TempDir,
    clock: ManualClock,
}

impl Nodes {
    async fn start(&self, watermark: bool) -> Strongroom {
        let path = |name: &str| self.folder.path().join(name);
        let builder = serving_both().clock(self.clock.clone()).kms(LocalKms::open(path("keks.json")).unwrap());
        let builder = builder.key_store(strongroom::testing::sqlite(&path("keys.db")).await);
        let operator = Operator::in_folder(self.folder.path());
        if watermark {
            return builder.open_under(&operator).await;
        }
        builder.room(Operator::ROOM).root(operator.root).without_rollback_protection().build().await.unwrap()
    }
}

async fn refused_after(decide: impl AsyncFn(&Strongroom), decided: ErrorKind) {
    let nodes = Nodes { folder: tempfile::tempdir().unwrap(), clock: ManualClock::at(1_795_324_649_500) };
    let kek = LocalKms::create(nodes.folder.path().join("keks.json")).unwrap().create_kek("acme", region(EU)).unwrap();
    let (live, copy) = (nodes.folder.path().join("keys.db"), nodes.folder.path().join("copy.db"));
    let node = nodes.start(true).await;
    node.admin("a test", "to test")
        .unwrap()
        .enroll(TENANT, TenantPolicy::new(kek, region(EU)).scope_by(["channel"]).allow_unbound_messages())
        .await
        .unwrap();
    let sealed = channel(&node, "C9").await.seal(&[], b"text").await.unwrap();
    let scope = channel(&node, "C9").await;
    back_up(&live, &copy).await;

    decide(&node).await;
    assert_eq!(scope.open(&[], &sealed).await.unwrap_err().kind(), decided);
    restore(&live, &copy).await;

    // A node that ran on: what it has cached ends with its lease, and it reads a log that is shorter than what it heard.
    nodes.clock.advance(Duration::from_secs(6));
    for _ in 0..2 {
        assert_eq!(scope.open(&[], &sealed).await.unwrap_err().kind(), ErrorKind::RolledBack);
        assert_eq!(scope.seal(&[], b"text").await.unwrap_err().kind(), ErrorKind::RolledBack);
    }
    let refused = node.admin("a test", "to test").unwrap().revoke(TENANT, Selector::everything()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::RolledBack, "nothing is decided on an older copy either");
    // A fresh one that has the watermark.
    let fresh = nodes.start(true).await;
    assert_eq!(fresh.tenant(TENANT).await.err().unwrap().kind(), ErrorKind::RolledBack);
    // A fresh one that has none cannot know: the limit that SECURITY.md states.
    let unaware = nodes.start(false).await;
    assert!(channel(&unaware, "C9").await.open(&[], &sealed).await.is_ok());
}

#[tokio::test]
async fn a_copy_from_before_a_revocation_is_refused() {
    let revoke = async |node: &Strongroom| {
        node.admin("a test", "to test").unwrap().revoke(TENANT, Selector::fields([("channel", "C9")])).await.unwrap();
    };
    refused_after(revoke, ErrorKind::Revoked).await;
}

#[tokio::test]
async fn a_copy_from_before_an_erasure_is_refused() {
    let erase = async |node: &Strongroom| {
        let erasure = node
            .admin("a test", "to test")
            .unwrap()
            .erase(TENANT, Selector::everything(), Duration::ZERO)
            .await
            .unwrap();
        node.admin("a test", "to test")
            .unwrap()
            .carry_out_erasure(TENANT, &erasure.id, &WalkOptions::default())
            .await
            .unwrap();
    };
    refused_after(erase, ErrorKind::Erased).await;
}
