//! Single flight under all interleavings that the schedules find: whole rooms, seen through the public API, in which many
//! ask at once for a key that is not in hand, and others revoke and rotate meanwhile.

use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use shuttle::future::{block_on, spawn, yield_now};

use super::*;
use crate::crypto::secret::DataKey;
use crate::error::ErrorKind;
use crate::key::encryption_context::EncryptionContext;
use crate::key::kek::KekUri;
use crate::key::policy::TenantPolicy;
use crate::key::region::Region;
use crate::key::revocation::Selector;
use crate::kms::local::LocalKms;
use crate::kms::{KekDescription, Kms};
use crate::room::Strongroom;
use crate::sealer::ScopeHandle;
use crate::store::memory::MemoryKeyStore;
use crate::sync::explore;
use crate::testing::ManualClock;

const CALLERS: usize = 3;
/// Bytes of an envelope that say which key: version, suite, region, key id.
const HEADER: usize = 3 + 2 + 32;

/// The local KMS, over a network: others have their turn before and after each call.
struct Remote {
    local: LocalKms,
    unwraps: Arc<AtomicUsize>,
}

#[async_trait]
impl Kms for Remote {
    fn scheme(&self) -> &str {
        self.local.scheme()
    }

    async fn describe(&self, kek: &KekUri) -> Result<KekDescription> {
        self.local.describe(kek).await
    }

    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, data_key: &DataKey) -> Result<Vec<u8>> {
        self.local.wrap(kek, context, data_key).await
    }

    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey> {
        self.unwraps.fetch_add(1, Ordering::SeqCst);
        yield_now().await;
        let unwrapped = self.local.unwrap(kek, context, wrapped).await;
        yield_now().await;
        unwrapped
    }
}

/// A room with one tenant, and a message of one of its channels. No key is in hand.
struct World {
    room: Strongroom,
    channel: ScopeHandle,
    sealed: Vec<u8>,
    unwraps: Arc<AtomicUsize>,
}

impl World {
    async fn new() -> Self {
        let (local, unwraps) = (LocalKms::in_memory(), Arc::default());
        let region = Region::new("eu").unwrap();
        let kek = local.create_kek("acme", region.clone()).unwrap();
        let room = Strongroom::builder()
            .serving(["eu"])
            .key_store(MemoryKeyStore::default())
            .kms(Remote { local, unwraps: Arc::clone(&unwraps) })
            .clock(ManualClock::at(1_795_324_649_500))
            .trusting_the_key_store()
            .build()
            .await
            .unwrap();
        let policy =
            TenantPolicy::new(kek, region).scope_by(["channel"]).allow_unbound_messages().verify_new_keys(false);
        room.admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
        let channel = room.tenant("acme").await.unwrap().scope([("channel", "C1")]).unwrap();
        let sealed = channel.seal(&[], b"hello").await.unwrap();
        room.admin("a test", "to test").unwrap().purge_all();
        Self { room, channel, sealed, unwraps }
    }

    /// [`CALLERS`] tasks that open the message, at whatever time.
    fn openers(&self) -> Vec<shuttle::future::JoinHandle<Result<()>>> {
        let open = || {
            let (channel, sealed) = (self.channel.clone(), self.sealed.clone());
            async move { channel.open(&[], &sealed).await.map(drop) }
        };
        (0..CALLERS).map(|_| spawn(open())).collect()
    }
}

/// Explores `model`. The room asks for a runtime: its deadlines are set there, but nothing ever runs on it.
fn explore_rooms<F: Future<Output = ()>>(model: impl Fn(World) -> F + Copy + Send + Sync + 'static) {
    explore(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        block_on(async { model(World::new().await).await });
    });
}

#[test]
fn callers_who_miss_a_key_at_whatever_time_make_one_call() {
    explore_rooms(|world| async move {
        for opener in world.openers() {
            opener.await.unwrap().unwrap();
        }
        // Also who misses just before the flight lands, and comes to the board just after.
        assert_eq!(world.unwraps.load(Ordering::SeqCst), 1);
        assert!(world.room.cached_keys() == 1);
    });
}

#[test]
fn callers_who_seal_at_once_make_one_call_and_use_one_key() {
    explore_rooms(|world| async move {
        let seal = || {
            let channel = world.channel.clone();
            async move { channel.seal(&[], b"again").await }
        };
        let sealers: Vec<_> = (0..CALLERS).map(|_| spawn(seal())).collect();
        for sealer in sealers {
            let sealed = sealer.await.unwrap().unwrap();
            assert_eq!(sealed[..HEADER], world.sealed[..HEADER], "another key");
        }
        assert_eq!(world.unwraps.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_load_under_way_does_not_outlive_a_revocation() {
    explore_rooms(|world| async move {
        let openers = world.openers();
        let selector = Selector::fields([("channel", "C1")]);
        world.room.admin("a test", "to test").unwrap().revoke("acme", selector).await.unwrap();
        let after = world.channel.open(&[], &world.sealed).await;
        assert_eq!(after.unwrap_err().kind(), ErrorKind::Revoked);
        for opener in openers {
            // Those that began before it may have been served.
            let opened = opener.await.unwrap();
            assert!(opened.is_ok() || opened.is_err_and(|e| e.kind() == ErrorKind::Revoked));
        }
        assert_eq!(world.room.cached_keys(), 0, "a purged key came back");
    });
}

#[test]
fn what_is_sealed_after_a_rotation_is_sealed_under_the_new_key() {
    explore_rooms(|world| async move {
        let seal = || {
            let channel = world.channel.clone();
            async move { channel.seal(&[], b"again").await.unwrap() }
        };
        let sealers: Vec<_> = (0..CALLERS).map(|_| spawn(seal())).collect();
        world.room.admin("a test", "to test").unwrap().rotate("acme", &[("channel", "C1")]).await.unwrap();
        let after = seal().await;
        assert_ne!(after[..HEADER], world.sealed[..HEADER], "the old key");
        for sealer in sealers {
            let sealed = sealer.await.unwrap();
            assert!(sealed[..HEADER] == after[..HEADER] || sealed[..HEADER] == world.sealed[..HEADER], "a third key");
        }
        assert_eq!(seal().await[..HEADER], after[..HEADER]);
    });
}
