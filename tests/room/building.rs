//! What a room needs of the runtime that it is built on, and of its builder.

use std::time::Duration;

use strongroom::{ErrorKind, LocalKms, MemoryKeyStore, Strongroom, StrongroomBuilder, TenantPolicy};

use crate::{HOME, channel_of, kind, region};

fn builder(kms: &LocalKms) -> StrongroomBuilder {
    Strongroom::builder().serving([HOME]).key_store(MemoryKeyStore::default()).kms(kms.clone()).trusting_the_key_store()
}

#[test]
fn a_runtime_without_timers_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let e = runtime.block_on(builder(&LocalKms::in_memory()).build()).err().expect("refused");
    assert!(e.kind() == ErrorKind::InvalidArgument && e.to_string().contains("enable_time"), "{e}");
}

#[test]
fn a_room_that_was_built_on_a_runtime_that_idles_loads_its_keys_where_it_is_used() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (built_on, used_on) = (runtime(), runtime());
    let kms = LocalKms::in_memory();
    let kek = kms.create_kek("acme", region(HOME)).unwrap();
    let room = built_on.block_on(async {
        let room = builder(&kms).build().await.unwrap();
        let policy = TenantPolicy::new(kek, region(HOME)).scope_by(["channel"]).allow_unbound_messages();
        room.admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
        room
    });
    used_on.block_on(async {
        let seal = async { channel_of(&room, "acme", "C9").await.seal(&[], b"x").await };
        tokio::time::timeout(Duration::from_secs(10), seal).await.expect("waits for a runtime that idles").unwrap();
    });
}

#[tokio::test]
async fn a_cache_of_no_keys_is_refused() {
    let built =
        [builder(&LocalKms::in_memory()).cached_keys(0), builder(&LocalKms::in_memory()).cached_keys_per_tenant(0)];
    for builder in built {
        assert_eq!(kind(builder.build().await), ErrorKind::InvalidArgument);
    }
}

#[tokio::test]
async fn not_loaded_says_which_call_loads_the_key() {
    let kms = LocalKms::in_memory();
    let kek = kms.create_kek("acme", region(HOME)).unwrap();
    let room = builder(&kms).build().await.unwrap();
    let policy = TenantPolicy::new(kek, region(HOME)).scope_by(["channel"]).allow_unbound_messages();
    let admin = room.admin("a test", "to test").unwrap();
    admin.enroll("acme", policy).await.unwrap();
    let hot = channel_of(&room, "acme", "C9").await.hot().await.unwrap();
    let sealed = hot.seal(&[], b"x").unwrap();
    admin.purge("acme").unwrap();
    let told = [hot.seal(&[], b"x").err().unwrap(), hot.open(&[], &sealed).err().unwrap()].map(|e| e.to_string());
    assert!(told[0].contains("refresh") && told[1].contains("prepare"), "{told:?}");
}
