//! Kinds of key stores. The one place that knows them: a URL names a store, `STRONGROOM_TEST_STORE` the kind.

use std::path::Path;
use std::sync::Arc;

use strongroom::{KeyStore, SqliteKeyStore};

/// Which kind of store the proofs run on: `sqlite` if it is not set.
const KIND: &str = "STRONGROOM_TEST_STORE";

/// The URL of a store that is empty; whatever it needs on disk is in `folder`.
pub(crate) fn fresh(folder: &Path) -> String {
    match std::env::var(KIND).as_deref() {
        Err(_) | Ok("sqlite") => format!("sqlite:{}", folder.join("keys.db").display()),
        Ok(kind) => panic!("{KIND}={kind}: no such kind of store"),
    }
}

/// Opens the store that the URL names.
pub(crate) async fn open(url: &str) -> Arc<dyn KeyStore> {
    match url.split_once(':') {
        Some(("sqlite", path)) => Arc::new(SqliteKeyStore::open(path).await.unwrap()),
        _ => panic!("{url} names no kind of store"),
    }
}
