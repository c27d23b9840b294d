//! What the tenant's administrator does to a KEK, and what the tenant's messages make of it.

use std::sync::Arc;

use aws_sdk_kms::types::KeyUsageType;
use strongroom::{ErrorKind, KekUri, Kms, MemoryKeyStore, Strongroom};

use crate::servers::Flaw;
use crate::world::{
    ACCOUNT, HOME, admin, admin_in, assert_fails, create_kek, enroll, generate, home, kms, open, room, seal, server,
    uri,
};

/// A room with the keys of C1 and C2 in its cache, an envelope of each, and one of C3 that only another process sealed.
struct Opened {
    room: Strongroom,
    store: Arc<MemoryKeyStore>,
    kek: KekUri,
    cached: Vec<u8>,
    not_cached: Vec<u8>,
}

async fn opened() -> Opened {
    let (kms, store) = (kms().await, Arc::new(MemoryKeyStore::default()));
    let kek = create_kek(&admin().await).await;
    let (room, other) = (self::room(&store, kms.clone()).await, self::room(&store, kms.clone()).await);
    enroll(&room, &kek).await;
    let cached = seal(&room, "C1", b"one").await.unwrap();
    seal(&room, "C2", b"two").await.unwrap();
    let not_cached = seal(&other, "C3", b"three").await.unwrap();
    assert_eq!(room.cached_keys(), 2);
    Opened { room, store, kek, cached, not_cached }
}

#[tokio::test]
async fn a_disabled_key_is_a_denial_and_the_cached_keys_go_at_once() {
    let Opened { room, kek, cached, not_cached, .. } = opened().await;
    admin().await.disable_key().key_id(kek.name()).send().await.unwrap();
    let e = assert_fails(open(&room, "C3", &not_cached).await, ErrorKind::Denied, "enable it");
    assert_eq!((e.tenant(), e.kek(), e.is_retryable()), (Some("acme"), Some(kek.as_str()), false));
    assert_eq!(room.cached_keys(), 0);
    assert_fails(open(&room, "C1", &cached).await, ErrorKind::Denied, "enable it");
    assert_fails(seal(&room, "C4", b"").await, ErrorKind::Denied, "enable it");
    assert!(!kms().await.describe(&kek).await.unwrap().enabled);

    admin().await.enable_key().key_id(kek.name()).send().await.unwrap();
    assert_eq!(open(&room, "C1", &cached).await.unwrap(), b"one");
    assert_eq!(open(&room, "C3", &not_cached).await.unwrap(), b"three");
}

#[tokio::test]
async fn a_key_scheduled_for_deletion_is_a_denial_until_that_is_cancelled() {
    let Opened { room, kek, cached, not_cached, .. } = opened().await;
    let admin = admin().await;
    admin.schedule_key_deletion().key_id(kek.name()).pending_window_in_days(7).send().await.unwrap();
    assert_fails(open(&room, "C3", &not_cached).await, ErrorKind::Denied, "CancelKeyDeletion");
    assert_eq!(room.cached_keys(), 0);
    let said = kms().await.describe_key(&kek).await.unwrap();
    assert_eq!(said.state, "PendingDeletion");
    assert!(said.deleted_at.is_some());

    admin.cancel_key_deletion().key_id(kek.name()).send().await.unwrap();
    admin.enable_key().key_id(kek.name()).send().await.unwrap();
    assert_eq!(open(&room, "C1", &cached).await.unwrap(), b"one");
}

#[tokio::test]
async fn a_moved_alias_denies_what_the_old_key_wrapped_until_it_is_moved_back() {
    let (kms, admin) = (kms().await, admin().await);
    let (first, second) = (create_kek(&admin).await, create_kek(&admin).await);
    // By key id: LocalStack does not take an ARN here.
    let [first_id, second_id] = [&first, &second].map(|kek| kek.name().rsplit('/').next().unwrap());
    let name = format!("alias/acme-{first_id}");
    admin.create_alias().alias_name(&name).target_key_id(first_id).send().await.unwrap();
    let alias = uri(&format!("arn:aws:kms:{HOME}:{ACCOUNT}:{name}"));
    assert_eq!(kms.resolve(&alias).await.unwrap(), first);

    let store = Arc::new(MemoryKeyStore::default());
    let room = room(&store, kms.clone()).await;
    enroll(&room, &alias).await;
    let sealed = seal(&room, "C1", b"one").await.unwrap();
    let version = kms.describe(&alias).await.unwrap().version;

    admin.update_alias().alias_name(&name).target_key_id(second_id).send().await.unwrap();
    assert_eq!(kms.resolve(&alias).await.unwrap(), second);
    assert_ne!(kms.describe(&alias).await.unwrap().version, version);
    room.admin("a test", "to test").unwrap().purge("acme").unwrap();
    let refused = open(&room, "C1", &sealed).await;
    if server().has(Flaw::UnwrapsToGarbage) {
        assert_fails(refused, ErrorKind::KeyMismatch, "");
    } else {
        assert_fails(refused, ErrorKind::Denied, "alias");
    }
    let new = seal(&room, "C2", b"two").await.unwrap();
    assert_eq!(open(&room, "C2", &new).await.unwrap(), b"two");

    admin.update_alias().alias_name(&name).target_key_id(first_id).send().await.unwrap();
    assert_eq!(open(&room, "C1", &sealed).await.unwrap(), b"one");
}

#[tokio::test]
async fn a_replica_in_another_region_unwraps() {
    let (kms, admin) = (kms().await, admin().await);
    let made = admin.create_key().multi_region(true).send().await.unwrap().key_metadata.unwrap();
    let primary = uri(made.arn.as_deref().unwrap());
    assert!(primary.name().contains("key/mrk-"), "{primary}");
    let replicate = admin.replicate_key().key_id(primary.name()).replica_region("eu-west-1");
    let replica = replicate.send().await.unwrap().replica_key_metadata.unwrap();
    let replica = uri(replica.arn.as_deref().unwrap());
    assert_eq!(replica.name(), primary.name().replace(HOME, "eu-west-1"));

    let (context, made) = generate(&kms, &primary).await;
    assert!(kms.unwrap(&replica, &context, &made.wrapped).await.unwrap().ct_eq(&made.data_key));
    let said = kms.describe_key(&replica).await.unwrap();
    assert_eq!((said.region.as_str(), said.account.as_str()), ("eu-west-1", ACCOUNT));
    assert_eq!(kms.describe_key(&primary).await.unwrap().region, home());

    // The replica's own switch is its own.
    admin_in("eu-west-1").await.disable_key().key_id(replica.name()).send().await.unwrap();
    assert_fails(kms.unwrap(&replica, &context, &made.wrapped).await, ErrorKind::Denied, "enable it");
    assert!(kms.unwrap(&primary, &context, &made.wrapped).await.is_ok());
}

#[tokio::test]
async fn rewrap_happens_inside_the_kms() {
    let (kms, admin) = (kms().await, admin().await);
    let (old, new) = (create_kek(&admin).await, create_kek(&admin).await);
    let (context, made) = generate(&kms, &old).await;
    let rewrapped = kms.rewrap(&old, &new, &context, &made.wrapped).await.unwrap();
    if server().has(Flaw::LacksReEncrypt) {
        assert_eq!(rewrapped, None);
    } else {
        let rewrapped = rewrapped.unwrap();
        assert!(kms.unwrap(&new, &context, &rewrapped).await.unwrap().ct_eq(&made.data_key));
        assert_fails(kms.unwrap(&old, &context, &rewrapped).await, ErrorKind::Denied, "another key");
        let wrong = kms.rewrap(&new, &old, &context, &made.wrapped).await;
        assert_fails(wrong, ErrorKind::Denied, "another key");
    }
    // Not between regions, nor to another KMS.
    let elsewhere = create_kek(&admin_in("eu-west-1").await).await;
    assert_eq!(kms.rewrap(&old, &elsewhere, &context, &made.wrapped).await.unwrap(), None);
    let local = KekUri::new("local:acme").unwrap();
    assert_eq!(kms.rewrap(&old, &local, &context, &made.wrapped).await.unwrap(), None);
}

#[tokio::test]
async fn a_key_is_described() {
    let (kms, admin) = (kms().await, admin().await);
    let kek = create_kek(&admin).await;
    let said = kms.describe_key(&kek).await.unwrap();
    assert_eq!((&said.kek, &said.region, said.is_enabled()), (&kek, &home(), true));
    let words = [said.state, said.manager, said.origin, said.spec, said.usage];
    assert_eq!(words, ["Enabled", "CUSTOMER", "AWS_KMS", "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"]);
    assert_eq!((said.multi_region, said.deleted_at, said.material_expires_at), (None, None, None));
    assert!(!kms.key_rotation(&kek).await.unwrap().enabled);
    admin.enable_key_rotation().key_id(kek.name()).send().await.unwrap();
    assert!(kms.key_rotation(&kek).await.unwrap().enabled);

    let signing = admin.create_key().key_usage(KeyUsageType::SignVerify).key_spec("ECC_NIST_P256".into());
    let signing = uri(signing.send().await.unwrap().key_metadata.unwrap().arn.as_deref().unwrap());
    assert_fails(kms.describe(&signing).await, ErrorKind::InvalidArgument, "ENCRYPT_DECRYPT");
}

#[tokio::test]
async fn another_process_sees_the_denial_of_its_own_load() {
    let Opened { store, kek, not_cached, .. } = opened().await;
    admin().await.disable_key().key_id(kek.name()).send().await.unwrap();
    let third = room(&store, kms().await).await;
    assert_fails(open(&third, "C3", &not_cached).await, ErrorKind::Denied, "enable it");
}
