//! Kinds of key stores. The one place that knows them: a URL names a store, `STRONGROOM_TEST_STORE` the kind.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use strongroom::{KeyStore, PostgresKeyStore, PostgresOptions};

use crate::cluster::Cluster;

/// Which kind of store the proofs run on: `sqlite` if it is not set, or `postgres`.
const KIND: &str = "STRONGROOM_TEST_STORE";

fn is_postgres() -> bool {
    match std::env::var(KIND).as_deref() {
        Err(_) | Ok("sqlite") => false,
        Ok("postgres") => true,
        Ok(kind) => panic!("{KIND}={kind}: no such kind of store"),
    }
}

/// What a proof holds as long as it runs: the server, where the kind of store has one.
pub(crate) fn server() -> Option<Arc<Cluster>> {
    is_postgres().then(Cluster::shared)
}

/// The URL of a store that is empty; whatever it needs on disk is in `folder`.
pub(crate) fn fresh(folder: &Path) -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    if is_postgres() {
        let schema = format!("proof_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        format!("{schema}@{}", Cluster::shared().url("postgres"))
    } else {
        format!("sqlite:{}", folder.join("keys.db").display())
    }
}

/// Opens the store that the URL names.
pub(crate) async fn open(url: &str) -> Arc<dyn KeyStore> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        return Arc::new(strongroom::testing::sqlite(path).await);
    }
    let (schema, url) = url.split_once('@').unwrap();
    let options = PostgresOptions::default().schema(schema).max_connections(4);
    Arc::new(PostgresKeyStore::connect_with(url, &options).await.unwrap())
}
