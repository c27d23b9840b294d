//! Random sequences of life-cycle operations on two nodes of one store, against a model that says of every message whether it
//! opens, and if not, why.

#![cfg(feature = "sqlite")]

#[path = "lifecycle_model/attacker.rs"]
mod attacker;
#[path = "lifecycle_model/model.rs"]
mod model;
#[path = "lifecycle_model/operation.rs"]
mod operation;
#[path = "lifecycle_model/pair.rs"]
mod pair;
#[path = "lifecycle_model/siege.rs"]
mod siege;
#[path = "lifecycle_model/strategy.rs"]
mod strategy;

use std::sync::Arc;

use proptest::collection::vec;
use proptest::test_runner::{Config, TestRunner};
use strongroom::{KeyStore, MemoryKeyStore};

use operation::Operation;
use pair::{Endings, Pair};
use strategy::operation;

/// How many sequences: a multiple of what the short form takes.
const TIMES: &str = "STRONGROOM_MODEL_TIMES";

fn check(cases: u32, on: impl Fn(&[Operation], &Endings)) {
    let endings = Endings::default();
    let times = std::env::var(TIMES).map_or(1, |times| times.parse().unwrap());
    let config = Config { cases: cases * times, failure_persistence: None, ..Config::default() };
    let ran = TestRunner::new(config).run(&vec(operation(), 1..60), |operations| {
        on(&operations, &endings);
        Ok(())
    });
    ran.unwrap_or_else(|e| panic!("{e}"));
    let endings = endings.into_inner().unwrap();
    println!("{} sequences; opening ended: {endings:?}", cases * times);
    for ending in ["opened", "revoked", "erased", "denied", "region"] {
        // Few sequences need not meet all of them.
        assert!(cases < 100 || endings.contains_key(ending), "no message ever ended {ending}");
    }
}

fn perform(operations: &[Operation], endings: &Endings, stores: impl AsyncFn() -> [Arc<dyn KeyStore>; 2]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut pair = Pair::new(stores().await, endings).await;
        for operation in operations {
            pair.perform(operation).await;
        }
        pair.check_everything().await;
    });
}

#[test]
fn two_nodes_do_as_the_model_in_memory() {
    check(400, |operations, endings| {
        perform(operations, endings, async || {
            let store: Arc<dyn KeyStore> = Arc::new(MemoryKeyStore::default());
            [Arc::clone(&store), store]
        });
    });
}

#[test]
fn two_nodes_do_as_the_model_on_sqlite() {
    check(20, |operations, endings| {
        let folder = tempfile::tempdir().unwrap();
        perform(operations, endings, async || {
            let open = async || {
                let store = strongroom::testing::sqlite(folder.path().join("keys.db")).await;
                let store: Arc<dyn KeyStore> = Arc::new(store);
                store
            };
            [open().await, open().await]
        });
    });
}
