//! The contract of every KMS, and what a room makes of this one.

use std::sync::Arc;

use strongroom::testing::kms_contract;
use strongroom::{ErrorKind, Kms, MemoryKeyStore};

use crate::servers::Flaw;
use crate::world::{admin, assert_fails, context, create_kek, enroll, generate, kms, open, room, seal, server, uri};

#[tokio::test]
async fn the_contract_holds() {
    let (kms, admin) = (kms().await, admin().await);
    let (kek, other) = (create_kek(&admin).await, create_kek(&admin).await);
    let unknown = uri("arn:aws:kms:eu-central-1:000000000000:key/00000000-0000-0000-0000-000000000000");
    let run = tokio::spawn(async move { kms_contract(&kms, &kek, &other, &unknown).await }).await;
    let breach = run.err().map(|e| {
        let panic = e.into_panic();
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    });
    match (server().has(Flaw::UnwrapsToGarbage), breach) {
        (false, None) => {}
        (true, Some(found)) => assert!(found.contains("another KEK was accepted"), "{}: {found}", server().name),
        (known, found) => panic!("{}: is a breach known: {known}; the suite says {found:?}", server().name),
    }
}

#[tokio::test]
async fn seal_and_open_in_two_processes() {
    let (kms, admin) = (kms().await, admin().await);
    let kek = create_kek(&admin).await;
    let store = Arc::new(MemoryKeyStore::default());
    let (one, two) = (room(&store, kms.clone()).await, room(&store, kms.clone()).await);
    enroll(&one, &kek).await;
    let sealed = seal(&one, "C9", b"hello").await.unwrap();
    assert_eq!(open(&two, "C9", &sealed).await.unwrap(), b"hello");
    // The record says which key; its wrapping is what AWS gave.
    let keys = one.admin("a test", "to test").unwrap().keys("acme", None, 10).await.unwrap().keys;
    assert_eq!((keys.len(), keys[0].wrapped.as_ref().unwrap().expression()), (1, (&kek).into()));
}

#[tokio::test]
async fn a_tenant_moves_to_another_key_and_the_old_one_can_go() {
    let (kms, admin) = (kms().await, admin().await);
    let (old, new) = (create_kek(&admin).await, create_kek(&admin).await);
    let room = room(&Arc::new(MemoryKeyStore::default()), kms).await;
    enroll(&room, &old).await;
    let sealed = seal(&room, "C9", b"hello").await.unwrap();
    let walked = room
        .admin("a test", "to test")
        .unwrap()
        .rewrap("acme", &new, &strongroom::WalkOptions::default())
        .await
        .unwrap();
    assert_eq!((walked.done, walked.failed), (1, 0));
    admin.disable_key().key_id(old.name()).send().await.unwrap();
    room.admin("a test", "to test").unwrap().purge_all();
    assert_eq!(open(&room, "C9", &sealed).await.unwrap(), b"hello");
}

#[tokio::test]
async fn another_context_is_refused() {
    let (kms, admin) = (kms().await, admin().await);
    let kek = create_kek(&admin).await;
    let (mine, made) = generate(&kms, &kek).await;
    assert!(kms.unwrap(&kek, &mine, &made.wrapped).await.unwrap().ct_eq(&made.data_key));
    let refused = kms.unwrap(&kek, &context("C8").await, &made.wrapped).await;
    assert_fails(refused, ErrorKind::Denied, "encryption context");
    for impossible in [vec![], vec![7; 6145]] {
        assert_fails(kms.unwrap(&kek, &mine, &impossible).await, ErrorKind::Denied, "6144");
    }
}

// What the commitment is for: ministack "unwraps" under the wrong key, and the room still opens nothing with it.
#[tokio::test]
async fn a_key_that_another_kek_unwraps_is_never_used() {
    let (kms, admin) = (kms().await, admin().await);
    let (kek, other) = (create_kek(&admin).await, create_kek(&admin).await);
    let (mine, made) = generate(&kms, &kek).await;
    match kms.unwrap(&other, &mine, &made.wrapped).await {
        Err(e) => {
            assert!(!server().has(Flaw::UnwrapsToGarbage), "{e}");
            assert_eq!(e.kind(), ErrorKind::Denied, "{e}");
        }
        Ok(garbage) => assert!(server().has(Flaw::UnwrapsToGarbage) && !garbage.ct_eq(&made.data_key)),
    }
}
