//! The SQLite key store beyond the contract (tests/contracts.rs).
#![cfg(feature = "sqlite")]

#[cfg(unix)]
#[path = "../captured_log/mod.rs"]
mod captured_log;
#[cfg(target_os = "linux")]
mod disk;
mod file;
mod plaintext;
#[cfg(unix)]
mod private;
mod rows;

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};
use strongroom::{
    KeyId, KeyIndex, KeyState, Put, RowChange, RowDigest, RowKey, Scope, SqliteKeyStore, TenantId, Write,
};

/// What takes longer hangs.
const HANGS: Duration = Duration::from_secs(60);

struct Fixture {
    folder: tempfile::TempDir,
    store: SqliteKeyStore,
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteKeyStore::create(folder.path().join("keys.db")).await.unwrap();
        Self { folder, store }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("keys.db")
    }

    /// What somebody with the file can do, constraints or not.
    async fn tamper(&self, statement: &str) {
        let mut db = raw(&self.path()).await;
        let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut db).await.unwrap();
        assert!(done.rows_affected() > 0, "{statement} changed nothing");
    }
}

async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

fn tenant(name: &str) -> RowKey {
    RowKey::Tenant(TenantId::new(name).unwrap())
}

fn put(key: &RowKey, old: Option<&[u8]>, bytes: &[u8]) -> Write {
    Write { key: key.clone(), expected: old.map(RowDigest::of), change: RowChange::Put(bytes.to_vec(), None) }
}

fn active(of: &str, number: u8) -> Write {
    let scope = Scope::new(&[("channel", &format!("C{number}"))]).unwrap();
    let index = KeyIndex { scope, period: None, state: KeyState::Active };
    let key = RowKey::Key(TenantId::new(of).unwrap(), KeyId::from_bytes([number; 32]));
    Write { key, expected: None, change: RowChange::Put(vec![number], Some(index)) }
}

fn is_written(put: strongroom::Result<Put>) -> bool {
    matches!(put.unwrap(), Put::Written(_))
}
