//! Every provider and every backend passes the one contract suite of its trait.

#[cfg(feature = "postgres")]
mod cluster;

use std::sync::Arc;

use strongroom::testing::{FaultyKms, kms_contract, store_contract};
use strongroom::{KekUri, Kms, LocalKms, MemoryKeyStore, Region, SqliteKeyStore};

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

#[tokio::test]
async fn local_kms_under_a_root_kek() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    let region = Region::new("eu-central-1").unwrap();
    let operator = LocalKms::in_memory();
    let root = operator.create_kek("root", region.clone()).unwrap();
    let open = || LocalKms::open_under(&path, Arc::new(operator.clone()), root.clone());
    let kms = open().await.unwrap();
    let kek = kms.add_kek("acme", region.clone()).await.unwrap();
    let other = kms.add_kek("other", region).await.unwrap();
    let unknown = KekUri::new("local:unknown").unwrap();
    kms_contract(&kms, &kek, &other, &unknown).await;
    assert_eq!(kms.add_version("acme").await.unwrap(), 2);
    kms_contract(&kms, &kek, &other, &unknown).await;
    kms_contract(&open().await.unwrap(), &kek, &other, &unknown).await;
}

/// The newest version wraps after a rewrap, and a KEK of another KMS is for the caller.
#[tokio::test]
async fn local_kms_rewraps_to_the_newest_version() {
    let kms = LocalKms::in_memory();
    let kek = kms.create_kek("acme", Region::new("eu-central-1").unwrap()).unwrap();
    let context = strongroom::testing::encryption_context("acme", "eu-central-1");
    let old = kms.generate(&kek, &context).await.unwrap();
    kms.rotate_kek("acme").unwrap();
    let new = kms.rewrap(&kek, &kek, &context, &old.wrapped).await.unwrap().expect("inside the local KMS");
    assert_eq!((old.wrapped[..5].to_vec(), new[..5].to_vec()), (vec![1, 0, 0, 0, 1], vec![1, 0, 0, 0, 2]));
    let elsewhere = KekUri::new("aws-kms:alias/acme").unwrap();
    assert!(kms.rewrap(&kek, &elsewhere, &context, &new).await.unwrap().is_none());
    assert!(kms.rewrap(&elsewhere, &kek, &context, &new).await.unwrap().is_none());
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
