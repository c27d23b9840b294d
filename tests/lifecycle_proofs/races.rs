//! A node decides otherwise while another one is in the midst of a walk.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use strongroom::testing::Operator;
use strongroom::{
    ErrorKind, KeyState, MemoryKeyStore, Result, Selector, Strongroom, TenantPolicy, WalkOptions, Walked,
};

use crate::grounds::{EU, Grounds, TENANT, channel, keks, records, region, serving_both};

/// Two nodes on one store, with ten keys of ten channels.
async fn two_nodes() -> (Strongroom, Strongroom) {
    let (folder, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryKeyStore::default()));
    let kms = Grounds::lay(folder.path()).kms();
    let operator = Operator::default();
    let room = async || serving_both().key_store(Arc::clone(&store)).kms(kms.clone()).open_under(&operator).await;
    let (first, second) = (room().await, room().await);
    let policy = TenantPolicy::new(keks(EU, 2), region(EU)).scope_by(["channel"]).allow_unbound_messages();
    first.admin("a test", "to test").unwrap().enroll(TENANT, policy).await.unwrap();
    for n in 0..10 {
        channel(&first, &format!("C{n}")).await.seal(&[], b"text").await.unwrap();
    }
    (first, second)
}

/// A walk of small pages, in whose midst the other node does `other`, whole.
fn interrupted<F>(other: F) -> WalkOptions
where
    F: Future<Output = ()> + Send + 'static,
{
    let (other, runtime) = (Mutex::new(Some(other)), tokio::runtime::Handle::current());
    WalkOptions::default().page(3).on_progress(move |_| {
        if let Some(other) = other.lock().unwrap().take() {
            let runtime = runtime.clone();
            std::thread::spawn(move || runtime.block_on(other)).join().unwrap();
        }
    })
}

async fn in_time(walk: impl Future<Output = Result<Walked>>) -> Result<Walked> {
    tokio::time::timeout(Duration::from_secs(60), walk).await.expect("the walk does not end")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrap_that_another_one_supersedes_stops_and_undoes_nothing() {
    let (first, second) = two_nodes().await;
    let options = interrupted(async move {
        let walked = second
            .admin("a test", "to test")
            .unwrap()
            .rewrap(TENANT, keks(EU, 1), &WalkOptions::default())
            .await
            .unwrap();
        assert_eq!(walked.failed, 0);
    });
    let superseded = in_time(first.admin("a test", "to test").unwrap().rewrap(TENANT, keks(EU, 0), &options)).await;
    assert_eq!(superseded.unwrap_err().kind(), ErrorKind::Conflict);
    let row = first.admin("a test", "to test").unwrap().tenant(TENANT).await.unwrap();
    assert_eq!((row.policy.keks().clone(), row.rewrap), (keks(EU, 1), None));
    for record in records(&first).await {
        assert_eq!(record.wrapped.unwrap().expression(), keks(EU, 1), "wrapped under KEKs that nobody wants any more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_is_being_carried_out_cannot_be_undone() {
    let (first, second) = two_nodes().await;
    let erasure =
        first.admin("a test", "to test").unwrap().erase(TENANT, Selector::everything(), Duration::ZERO).await.unwrap();
    let id = erasure.id.clone();
    let options = interrupted(async move {
        let undone = second.admin("a test", "to test").unwrap().undo_erasure(TENANT, &id).await;
        assert_eq!(undone.unwrap_err().kind(), ErrorKind::Conflict, "undone, with some of its keys destroyed");
    });
    assert_eq!(
        in_time(first.admin("a test", "to test").unwrap().carry_out_erasure(TENANT, &erasure.id, &options))
            .await
            .unwrap()
            .done,
        10
    );
    assert!(records(&first).await.iter().all(|record| record.state == KeyState::Destroyed));
    assert!(first.admin("a test", "to test").unwrap().tenant(TENANT).await.unwrap().erasures.is_empty());
}
