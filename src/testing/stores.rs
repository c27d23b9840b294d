//! Key stores for tests: there or made.

use std::path::Path;

use crate::error::ErrorKind;
use crate::store::sqlite::SqliteKeyStore;

/// The SQLite store at `path`; made if there is none, also where several processes come at once.
pub async fn sqlite(path: impl AsRef<Path> + Send) -> SqliteKeyStore {
    let path = path.as_ref().to_owned();
    match SqliteKeyStore::create(&path).await {
        Err(e) if e.kind() == ErrorKind::Conflict => SqliteKeyStore::open(&path).await.unwrap(),
        created => created.unwrap(),
    }
}
