//! Every provider and every backend passes the one contract suite of its trait.

#[cfg(feature = "postgres")]
mod cluster;

use std::sync::Arc;

use strongroom::testing::{FaultyKms, kms_contract, store_contract};
use strongroom::{KekUri, LocalKms, MemoryKeyStore, Region, SqliteKeyStore};

async fn check_local(kms: LocalKms) {
    let region = Region::new("eu-central-1").unwrap();
    let kek = kms.create_kek("acme", region.clone()).unwrap();
    let other = kms.create_kek("other", region).unwrap();
    let unknown = KekUri::new("local:unknown").unwrap();
    kms_contract(&kms, &kek, &other, &unknown).await;
    kms.rotate_kek("acme").unwrap();
    kms_contract(&kms, &kek, &other, &unknown).await;
    kms_contract(&FaultyKms::new(kms), &kek, &other, &unknown).await;
}

#[tokio::test]
async fn local_kms_in_memory() {
    check_local(LocalKms::in_memory()).await;
}

#[tokio::test]
async fn local_kms_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    check_local(LocalKms::open(folder.path().join("keks.json")).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_key_store() {
    store_contract(Arc::new(MemoryKeyStore::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_key_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    store_contract(Arc::new(SqliteKeyStore::open(&path).await.unwrap())).await;
    // What was written is there when the file is opened again.
    let again = SqliteKeyStore::open(&path).await.unwrap();
    let acme = strongroom::TenantId::new("acme").unwrap();
    assert!(strongroom::KeyStore::keys(&again, &acme, None, 100).await.unwrap().len() >= 6);
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_key_store() {
    let database = cluster::Database::new().await;
    store_contract(Arc::new(database.store().await)).await;
    // What was written is there when somebody else connects.
    let again = database.store().await;
    let acme = strongroom::TenantId::new("acme").unwrap();
    assert!(strongroom::KeyStore::keys(&again, &acme, None, 100).await.unwrap().len() >= 6);
}
