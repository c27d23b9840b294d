//! How often the hot path allocates: once for `seal` and `open`, never for `seal_into` with room and `open_in_place`.
//!
//! Only the calling thread's allocations are counted, so that the room's own tasks do not disturb.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use strongroom::testing::Operator;
use strongroom::{Field, HotScope, LocalKms, MemoryKeyStore, Region, ScopeHandle, Strongroom, Suite, TenantPolicy};

/// Enough calls for an allocation now and then to show, few enough for one writer.
const CALLS: u64 = 200;

const CONTEXTS: [&[Field<'static>]; 3] = [
    &[],
    &[("message", "M77")],
    &[("thread", "T5"), ("author", "U1"), ("message", "M77"), ("x", ""), ("edited", "2026-11-22T05:10:00Z")],
];

/// Polls once: with the key in hand a call is ready at once, and everything it does is done on this thread.
fn ready<T>(call: impl Future<Output = T>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("the key was not in hand"),
    }
}

async fn scope(suite: Suite) -> (ScopeHandle, HotScope) {
    let kms = LocalKms::in_memory();
    let region = Region::new("eu-central-1").unwrap();
    let kek = kms.create_kek("acme", region.clone()).unwrap();
    let room = Strongroom::builder().serving(["eu-central-1"]).key_store(MemoryKeyStore::default()).kms(kms);
    let room = room.open_under(&Operator::default()).await;
    let policy =
        TenantPolicy::new(kek, region).scope_by(["workspace", "channel"]).allow_unbound_messages().suite(suite);
    room.admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
    let scope = room.tenant("acme").await.unwrap().scope([("workspace", "W1"), ("channel", "C9")]).unwrap();
    let hot = scope.hot().await.unwrap();
    (scope, hot)
}

/// Asserts how often one call of `work` allocates, once it has run a few times: then the thread's state (its random
/// generator, its writer) is there, and the reader key is kept.
fn allocates(what: &str, times: u64, mut work: impl FnMut()) {
    (0..4).for_each(|_| work());
    let counted = measure(|| (0..CALLS).for_each(|_| work()));
    assert_eq!(counted.count_total, times * CALLS, "{what}: {counted:?} in {CALLS} calls");
    assert_eq!(counted.count_current, 0, "{what} leaks: {counted:?}");
}

fn hot_path(suite: Suite) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (scope, hot) = runtime.block_on(scope(suite));
    for context in CONTEXTS {
        for size in [0, 1, 64, 4_096] {
            let case = |verb: &str| format!("{suite:?} {verb} of {size} B with {} fields", context.len());
            let text = vec![7; size];
            let sealed = hot.seal(context, &text).unwrap();

            let once = || drop(black_box(ready(scope.seal(context, &text)).unwrap()));
            allocates(&case("ScopeHandle::seal"), 1, once);
            allocates(&case("HotScope::seal"), 1, || drop(black_box(hot.seal(context, &text).unwrap())));

            let mut out = Vec::with_capacity(scope.sealed_len(size)); // room for exactly one
            let mut into = |seal: &dyn Fn(&mut Vec<u8>)| {
                out.clear();
                seal(&mut out);
            };
            let seal = |out: &mut Vec<u8>| ready(scope.seal_into(context, &text, out)).unwrap();
            allocates(&case("ScopeHandle::seal_into"), 0, || into(&seal));
            let seal = |out: &mut Vec<u8>| hot.seal_into(context, &text, out).unwrap();
            allocates(&case("HotScope::seal_into"), 0, || into(&seal));

            // An empty plaintext's buffer is no allocation.
            let buffer = u64::from(size > 0);
            let open = || drop(black_box(ready(scope.open(context, &sealed)).unwrap()));
            allocates(&case("ScopeHandle::open"), buffer, open);
            allocates(&case("HotScope::open"), buffer, || drop(black_box(hot.open(context, &sealed).unwrap())));

            let mut copy = sealed.clone();
            let mut in_place = |open: &dyn Fn(&mut [u8])| {
                copy.copy_from_slice(&sealed);
                open(&mut copy);
            };
            let open = |copy: &mut [u8]| assert_eq!(ready(scope.open_in_place(context, copy)).unwrap(), text);
            allocates(&case("ScopeHandle::open_in_place"), 0, || in_place(&open));
            let open = |copy: &mut [u8]| assert_eq!(hot.open_in_place(context, copy).unwrap(), text);
            allocates(&case("HotScope::open_in_place"), 0, || in_place(&open));
        }
    }
}

#[test]
fn one_for_seal_and_open_none_for_seal_into_and_open_in_place() {
    for suite in Suite::ALL {
        hot_path(suite);
    }
}
