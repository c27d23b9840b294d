//! Every provider and every backend passes the one contract suite of its trait.

#[cfg(feature = "postgres")]
mod cluster;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(feature = "sqlite")]
use strongroom::SqliteKeyStore;
use strongroom::testing::{FaultyKms, kms_contract, store_contract, watermark_contract};
use strongroom::{
    FileWatermark, KekUri, KeyStore, Kms, LocalKms, LocalRoot, Mark, MemoryKeyStore, MemoryWatermark, Region, Result,
    Subject, TenantId, Watermark,
};

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
    check_local(LocalKms::create(folder.path().join("keks.json")).unwrap()).await;
}

#[tokio::test]
async fn local_kms_under_a_root_kek() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    let region = Region::new("eu-central-1").unwrap();
    let operator = LocalKms::in_memory();
    let root = operator.create_kek("root", region.clone()).unwrap();
    let open = || LocalKms::open_under(&path, Arc::new(operator.clone()), root.clone());
    let kms = LocalKms::create_under(&path, Arc::new(operator.clone()), root.clone()).await.unwrap();
    let kek = kms.add_kek("acme", region.clone()).await.unwrap();
    let other = kms.add_kek("other", region).await.unwrap();
    let unknown = KekUri::new("local:unknown").unwrap();
    kms_contract(&kms, &kek, &other, &unknown).await;
    assert_eq!(kms.add_version("acme").await.unwrap(), 2);
    kms_contract(&kms, &kek, &other, &unknown).await;
    kms_contract(&open().await.unwrap(), &kek, &other, &unknown).await;
}

/// It has one KEK: another one of its scheme is as unknown as any.
#[tokio::test]
async fn local_root() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.json");
    let [other, unknown] = ["local-root:other", "local-root:unknown"].map(|uri| KekUri::new(uri).unwrap());
    for root in [LocalRoot::in_memory().unwrap(), LocalRoot::create(&path).unwrap(), LocalRoot::open(&path).unwrap()] {
        kms_contract(&root, &root.kek(), &other, &unknown).await;
        root.rotate().unwrap();
        kms_contract(&root, &root.kek(), &other, &unknown).await;
    }
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
    assert_eq!((old.wrapped[..5].to_vec(), new[..5].to_vec()), (vec![2, 0, 0, 0, 1], vec![2, 0, 0, 0, 2]));
    let elsewhere = KekUri::new("aws-kms:alias/acme").unwrap();
    assert!(kms.rewrap(&kek, &elsewhere, &context, &new).await.unwrap().is_none());
    assert!(kms.rewrap(&elsewhere, &kek, &context, &new).await.unwrap().is_none());
}

/// What the suite wrote is there for who opens the store again.
async fn check_again(store: impl KeyStore) {
    let keys = store.keys(&TenantId::new("many").unwrap(), None, 1_000).await.unwrap();
    assert_eq!(keys.len(), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_key_store() {
    store_contract(Arc::new(MemoryKeyStore::default())).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_key_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    store_contract(Arc::new(SqliteKeyStore::create(&path).await.unwrap())).await;
    check_again(SqliteKeyStore::open(&path).await.unwrap()).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_key_store() {
    let database = cluster::Database::new().await;
    store_contract(Arc::new(database.store().await)).await;
    check_again(database.store().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_watermark() {
    watermark_contract(Arc::new(MemoryWatermark::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn file_watermark() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("watermark");
    watermark_contract(Arc::new(FileWatermark::create(&path).unwrap())).await;
    // What was written is there when the file is opened again.
    let again = FileWatermark::open(&path).unwrap();
    assert_eq!(again.read(&Subject::Log).await.unwrap().map(|mark| mark.epoch), Some(2));
}

/// Several handles of one thing, as several processes have them: each call goes to the next.
struct ByTurns<W>(Vec<W>, AtomicUsize);

impl<W> ByTurns<W> {
    fn next(&self) -> &W {
        &self.0[self.1.fetch_add(1, Ordering::SeqCst) % self.0.len()]
    }
}

#[async_trait::async_trait]
impl<W: Watermark> Watermark for ByTurns<W> {
    async fn read(&self, subject: &Subject) -> Result<Option<Mark>> {
        self.next().read(subject).await
    }
    async fn advance(&self, subject: &Subject, from: Option<&Mark>, to: &Mark) -> Result<bool> {
        self.next().advance(subject, from, to).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn file_watermark_from_two_handles() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("watermark");
    let handles = vec![FileWatermark::create(&path).unwrap(), FileWatermark::open(&path).unwrap()];
    watermark_contract(Arc::new(ByTurns(handles, AtomicUsize::new(0)))).await;
}

#[cfg(feature = "object-store")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn object_watermark() {
    let bucket = Arc::new(object_store::memory::InMemory::new());
    let open = || strongroom::ObjectWatermark::new(Arc::clone(&bucket), "rooms/test").unwrap();
    watermark_contract(Arc::new(ByTurns(vec![open(), open(), open()], AtomicUsize::new(0)))).await;
}
