//! The room that is measured: a local KMS, a store in memory, one tenant with scopes of workspace and channel.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use strongroom::testing::Operator;
use strongroom::{
    Field, KekUri, LocalKms, MemoryKeyStore, Region, ScopeHandle, Strongroom, StrongroomBuilder, Suite, TenantPolicy,
};

pub(crate) const REGION: &str = "eu-central-1";
pub(crate) const TENANT: &str = "acme";
pub(crate) const SCOPE: [Field<'static>; 2] = [("workspace", "W1"), ("channel", "C9")];
pub(crate) const CONTEXT: [Field<'static>; 1] = [("message", "M77")];

/// A room whose keys outlast the measurement.
pub(crate) async fn room(suite: Suite, build: impl FnOnce(StrongroomBuilder) -> StrongroomBuilder) -> Strongroom {
    enrolled(suite, build(builder()).open_under(&Operator::default()).await).await
}

/// The same, except that it believes its key store.
#[allow(dead_code)] // not every bench compares with it
pub(crate) async fn trusting_room(
    suite: Suite,
    build: impl FnOnce(StrongroomBuilder) -> StrongroomBuilder,
) -> Strongroom {
    enrolled(suite, build(builder()).trusting_the_key_store().build().await.unwrap()).await
}

fn builder() -> StrongroomBuilder {
    let kms = LocalKms::in_memory();
    assert_eq!(kms.create_kek(TENANT, region()).unwrap(), kek());
    let builder = Strongroom::builder().serving([REGION]).key_store(MemoryKeyStore::default()).kms(kms);
    // No runtime is driven while calls are measured, so nobody reads the log of changes.
    builder.revocation_bound(Duration::from_hours(24))
}

async fn enrolled(suite: Suite, room: Strongroom) -> Strongroom {
    room.admin("a test", "to test").unwrap().enroll(TENANT, policy(suite)).await.unwrap();
    room
}

pub(crate) fn policy(suite: Suite) -> TenantPolicy {
    TenantPolicy::new(kek(), region())
        .share_kek(kek())
        .scope_by(["workspace", "channel"])
        .bind(["message"])
        .suite(suite)
        .cache_ttl(Duration::from_hours(24))
}

fn kek() -> KekUri {
    KekUri::new(&format!("local:{TENANT}")).unwrap()
}

fn region() -> Region {
    Region::new(REGION).unwrap()
}

pub(crate) async fn scope(room: &Strongroom) -> ScopeHandle {
    room.tenant(TENANT).await.unwrap().scope(SCOPE).unwrap()
}

/// Envelopes of one data key by as many writers: a key that is taken out of memory and loaded again starts a new one.
#[allow(dead_code)] // not every bench opens those
pub(crate) async fn by_fresh_writers(room: &Strongroom, plaintext: &[u8], writers: usize) -> Vec<Vec<u8>> {
    let mut sealed = Vec::new();
    for _ in 0..writers {
        room.admin("a test", "to test").unwrap().purge(TENANT).unwrap();
        sealed.push(scope(room).await.seal(&CONTEXT, plaintext).await.unwrap());
    }
    sealed
}

/// Polls once. With the key cached a call is ready at once, so no runtime takes part and none is measured. Nor is moving the call
/// in here, which whoever awaits it does not do: so this is inlined.
#[inline(always)]
#[allow(clippy::inline_always)]
pub(crate) fn ready<T>(call: impl Future<Output = T>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("the key was not in hand"),
    }
}
