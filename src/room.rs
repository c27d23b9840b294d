//! Floor 5: the room: what an embedder builds once and asks for handles.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::admin::Admin;
use crate::clock::{Clock, SystemClock};
use crate::crypto::generation;
use crate::error::{Error, Result};
use crate::key::attribution::Attribution;
use crate::key::id::TenantId;
use crate::key::region::Region;
use crate::key::room_name::RoomName;
use crate::keyring::cache::KeyCache;
use crate::keyring::room_keys::{RoomSource, no_watermark};
use crate::keyring::{Keyring, Parts};
use crate::kms::Kms;
use crate::kms::root::Root;
use crate::kms::router::KmsRouter;
use crate::row::authority::Authority;
use crate::sealer::TenantHandle;
use crate::store::KeyStore;
use crate::store::row::RowKey;
use crate::watermark::Watermark;

/// The builder's defaults that a plan of calls starts from, too.
pub(crate) const REVOCATION_BOUND: Duration = Duration::from_secs(5);
pub(crate) const CACHED_KEYS: usize = 100_000;
pub(crate) const CACHED_KEYS_PER_TENANT: usize = 10_000;

/// A strongroom: the keys of all tenants, as far as this process may touch them. Cheap to clone.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use strongroom::{LocalKms, MemoryKeyStore, Region, Strongroom, TenantPolicy};
///
/// let kms = LocalKms::in_memory();
/// let kek = kms.create_kek("acme-2026", Region::new("eu-central-1")?)?;
/// let room = Strongroom::builder()
///     .serving(["eu-central-1"])
///     .key_store(MemoryKeyStore::default())
///     .kms(kms)
///     .trusting_the_key_store().build().await?;
/// room.admin("ops@example.com", "an example")?.enroll("acme", TenantPolicy::new(kek, Region::new("eu-central-1")?).bind(["message"])).await?;
/// let acme = room.tenant("acme").await?;
/// # let _ = acme;
/// # Ok::<(), strongroom::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Strongroom {
    pub(crate) keyring: Arc<Keyring>,
}

impl Strongroom {
    /// Starts building a room.
    pub fn builder() -> StrongroomBuilder {
        StrongroomBuilder {
            serving: Vec::new(),
            store: None,
            providers: Vec::new(),
            clock: Arc::new(SystemClock),
            kms_deadline: Duration::from_secs(5),
            kms_calls_per_tenant: 32,
            revocation_bound: REVOCATION_BOUND,
            root: None,
            room: None,
            watermark: None,
            without_rollback_protection: false,
            trusting: false,
            cached_keys: CACHED_KEYS,
            cached_keys_per_tenant: CACHED_KEYS_PER_TENANT,
            keys_ahead: true,
        }
    }

    /// The data plane of a tenant. Reads the tenant's row.
    ///
    /// # Errors
    /// `UnknownTenant` if it is not enrolled, `InvalidArgument` if that is no tenant's name, `RolledBack`, `Tampered` or
    /// `Malformed` if its row is not believed, `Unavailable`, `Throttled` or `StoreFault` as the store and the watermark say; `Overloaded` if too many
    /// others wait for it.
    pub async fn tenant(&self, tenant: &str) -> Result<TenantHandle> {
        let row = match TenantId::new(tenant) {
            Ok(id) => self.keyring.tenant_in_turn(&id).await,
            Err(e) => Err(e),
        };
        let row = row.map_err(|e| e.with_operation("find tenant"))?;
        Ok(TenantHandle::new(Arc::clone(&self.keyring), row))
    }

    /// The control plane, for what `actor` does because of `reason`. Whoever holds it can change keys; hand it to nobody
    /// else. Actor and reason have 1 to 200 bytes on one line; they stand in the tenants' journals and in the log.
    ///
    /// ```
    /// # async fn revoke(room: &strongroom::Strongroom) -> strongroom::Result<()> {
    /// let admin = room.admin("alice@ops.example", "incident 4711: a device was lost")?;
    /// # drop(admin); Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` if actor or reason is empty, too long or not on one line, or the room has no watermark.
    pub fn admin(&self, actor: &str, reason: &str) -> Result<Admin> {
        let by = if self.keyring.source.is_some() && self.keyring.watermark.is_none() {
            Err(no_watermark())
        } else {
            Attribution::new(actor, reason)
        };
        let by = by.map_err(|e| e.with_operation("open the control plane"))?;
        Ok(Admin::new(Arc::clone(&self.keyring), by))
    }

    /// How many data keys are in this process's memory.
    pub fn cached_keys(&self) -> usize {
        self.keyring.cache.len()
    }

    /// Draws all random state of this process anew, of every room in it: for a virtual machine or a process that goes on from a
    /// snapshot or a checkpoint, which others may go on from too. A `fork` is noticed without this call.
    ///
    /// Calls that begin after it has returned use no nonce, prefix or salt that was drawn before. Those that begin earlier may: let
    /// no call begin in a copy until this has returned there. (A call that the snapshot caught midway does no harm: it seals the same
    /// message in each copy, to the same bytes.) Files half sealed, and file sealers not yet used, are refused with `Unavailable`
    /// and have to be sealed from their start.
    ///
    /// What is drawn comes from the operating system, whose own generator must have noticed the resumption: Linux does so from 5.18
    /// on, where the hypervisor offers a generation counter (`vmgenid`).
    ///
    /// # Errors
    /// `Unavailable` where a fork would go unnoticed too; then nothing is sealed here.
    ///
    /// ```
    /// use strongroom::Strongroom;
    ///
    /// /// What the hypervisor's agent, or the tool that restores checkpoints, calls in the copy before traffic comes.
    /// fn resumed() -> Result<(), strongroom::Error> {
    ///     Strongroom::reseed()
    /// }
    /// # resumed()?;
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    pub fn reseed() -> Result<()> {
        generation::advance().map_err(|e| e.with_operation("reseed"))
    }
}

/// Shortest revocation bound: below, nodes would do little else than read the log.
const SHORTEST_BOUND: Duration = Duration::from_millis(100);
/// Longest one: as long as the longest cache time to live. Beyond, no bound would bind.
const LONGEST_BOUND: Duration = Duration::from_secs(24 * 3600);

/// Builds a [`Strongroom`].
#[derive(Clone)]
#[must_use]
pub struct StrongroomBuilder {
    serving: Vec<String>,
    store: Option<Arc<dyn KeyStore>>,
    providers: Vec<Arc<dyn Kms>>,
    clock: Arc<dyn Clock>,
    kms_deadline: Duration,
    kms_calls_per_tenant: usize,
    revocation_bound: Duration,
    root: Option<Root>,
    room: Option<String>,
    watermark: Option<Arc<dyn Watermark>>,
    without_rollback_protection: bool,
    trusting: bool,
    cached_keys: usize,
    cached_keys_per_tenant: usize,
    keys_ahead: bool,
}

impl StrongroomBuilder {
    /// The regions whose keys and envelopes this process may touch. Everything else is refused before any call.
    pub fn serving<S: Into<String>>(mut self, regions: impl IntoIterator<Item = S>) -> Self {
        self.serving.extend(regions.into_iter().map(Into::into));
        self
    }

    /// Where tenants and key records rest.
    pub fn key_store(mut self, store: impl KeyStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Adds a KMS. Each answers for the KEK URIs of its scheme.
    pub fn kms(mut self, kms: impl Kms) -> Self {
        self.providers.push(Arc::new(kms));
        self
    }

    /// Another clock than the machine's: for tests and imports. Which period a message falls into is asked when a sealing
    /// key is loaded, and its end is then counted on the monotonic clock: a step of the wall clock counts from the next load
    /// on, at the latest after the policy's cache time to live, or at once after `Admin::purge`.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// How long a call to a KMS may take. Default: 5 s. Waiting for a turn ([`Self::kms_calls_per_tenant`]) comes before and is not
    /// counted; it ends when none of the tenant's calls was answered for as long.
    pub fn kms_deadline(mut self, deadline: Duration) -> Self {
        self.kms_deadline = deadline;
        self
    }

    /// How many KMS calls of one tenant may be under way at once, and how many loads of its keys, so that one tenant's slow KMS, or
    /// its thousand new channels, do not take everything. Default: 32. Further loads wait in order, without a deadline of the KMS
    /// or of the key store, for two minutes at most: then they are refused as [`ErrorKind::Overloaded`](crate::ErrorKind::Overloaded).
    pub fn kms_calls_per_tenant(mut self, calls: usize) -> Self {
        self.kms_calls_per_tenant = calls;
        self
    }

    /// How long after a revocation (or another life-cycle decision) on any node the last open may begin on this one.
    /// Default: 5 s; 100 ms to 24 hours. The store's log of changes is read five times in that time, at least every second; if
    /// the store does not answer for as long as the bound, cached keys are used no more until it does. So a longer bound
    /// outlasts a longer outage of the store. A denial by the KMS itself is heard at the next unwrap: the policy's cache time
    /// to live bounds that.
    pub fn revocation_bound(mut self, bound: Duration) -> Self {
        self.revocation_bound = bound;
        self
    }

    /// Names the room, 1 to 64 of `a-z 0-9 -`: one fleet's keys. Made once by [`Self::create_room`].
    pub fn room(mut self, name: &str) -> Self {
        self.room = Some(name.to_owned());
        self
    }

    /// The operator's root: the symmetric KEK under which the room's keys rest. Asked at the start, and when somebody was evicted.
    pub fn root(mut self, root: impl Into<Root>) -> Self {
        self.root = Some(root.into());
        self
    }

    /// What is remembered outside the key store, and shared by the fleet, so that a store that was put back to an earlier state is
    /// refused.
    pub fn watermark(mut self, watermark: impl Watermark) -> Self {
        self.watermark = Some(Arc::new(watermark));
        self
    }

    /// Goes without a watermark: a process of the data plane that believes an older copy of the key store, once started anew. The
    /// control plane needs one.
    pub fn without_rollback_protection(mut self) -> Self {
        self.without_rollback_protection = true;
        self
    }

    /// Takes what the key store says for true, without a room: nothing in it is authenticated. Whoever can write such a store
    /// can have new messages sealed under keys that they know (SECURITY.md, "The key store"). For stores in this process's
    /// own memory, and for tests.
    pub fn trusting_the_key_store(mut self) -> Self {
        self.trusting = true;
        self
    }

    /// How many data keys stay in memory at most, one at least; beyond, the oldest goes. Default: 100 000.
    pub fn cached_keys(mut self, keys: usize) -> Self {
        self.cached_keys = keys;
        self
    }

    /// How many of them may be one tenant's, one at least. Default: 10 000.
    pub fn cached_keys_per_tenant(mut self, keys: usize) -> Self {
        self.cached_keys_per_tenant = keys;
        self
    }

    /// Whether this process makes and loads keys of the next hour, day or month in the minutes before it, for scopes in use, so that
    /// the turn is no cold start. Default: true. A process that seals little, or lives for minutes, can go without.
    pub fn keys_ahead(mut self, keys_ahead: bool) -> Self {
        self.keys_ahead = keys_ahead;
        self
    }

    /// Creates the room in the key store, once: a call of the control plane. Its keys are drawn here and wrapped under the root;
    /// the watermark takes note of it. Repeated after its answer was lost, it finishes what it began. Needs the room's name, root,
    /// watermark and key store, and nothing else.
    ///
    /// # Errors
    /// `Conflict` if the store has a room already; `StoreInconsistent` if it has tenants and no room; `InvalidArgument` saying what is
    /// missing or wrong; what the root's KMS says.
    pub async fn create_room(&self, actor: &str, reason: &str) -> Result<()> {
        let create = async {
            let by = Attribution::new(actor, reason)?;
            let source = self.source()?.ok_or_else(|| Error::invalid("a store that is trusted has no room"))?;
            source.create(self.clock.unix_millis(), &by).await?;
            tracing::warn!(room = %source.name, actor, reason, "created a room");
            Ok(())
        };
        create.await.map_err(|e: Error| e.with_operation("create room"))
    }

    /// Builds the room. Call it inside a Tokio runtime with time enabled. Key loads run there; if it has one thread, which drives
    /// it only while something blocks on it, on the runtime of whoever asks. It never creates one.
    ///
    /// # Errors
    /// `InvalidArgument` saying what is missing or wrong; `RolledBack` or `Tampered` if the room's row is not believed; what the
    /// root's KMS and the store say; `Unavailable` where a fork of this process would go unnoticed.
    pub async fn build(self) -> Result<Strongroom> {
        let build = async {
            let store = Arc::clone(self.store.as_ref().ok_or_else(|| Error::invalid("a room needs a key store"))?);
            let serving = self.serving.iter().map(|name| Region::new(name)).collect::<Result<_>>()?;
            if self.serving.is_empty() {
                return Err(Error::invalid("a room serves at least one region"));
            }
            if self.providers.is_empty() {
                return Err(Error::invalid("a room needs at least one KMS"));
            }
            let runtime = Handle::try_current()
                .map_err(|e| Error::invalid("build the room inside a Tokio runtime").with_source(e))?;
            check_timers(&runtime)?;
            if self.cached_keys == 0 || self.cached_keys_per_tenant == 0 {
                return Err(Error::invalid("a room keeps at least one key in memory, also for each tenant"));
            }
            if !(SHORTEST_BOUND..=LONGEST_BOUND).contains(&self.revocation_bound) {
                return Err(Error::invalid("the revocation bound is 100 ms to 24 hours"));
            }
            let source = self.source()?;
            let kms = KmsRouter::new(self.providers, self.kms_deadline, self.kms_calls_per_tenant)?;
            let (authority, room) = match &source {
                Some(source) => {
                    let opened = source.open().await?;
                    (opened.authority, Some(opened.row))
                }
                None if store.get(&RowKey::Room).await?.is_some() => {
                    let message =
                        "the key store has a room: name it, its root and its watermark instead of trusting the store";
                    return Err(Error::invalid(message));
                }
                None => (Authority::trusting(), None),
            };
            Ok(Keyring::new(Parts {
                store,
                kms,
                clock: self.clock,
                cache: KeyCache::new(self.cached_keys, self.cached_keys_per_tenant),
                serving,
                revocation_bound: self.revocation_bound,
                authority,
                source,
                room,
                watermark: self.watermark,
                runtime,
                keys_ahead: self.keys_ahead,
                process: generation::process()?,
            }))
        };
        build.await.map(|keyring| Strongroom { keyring }).map_err(|e: Error| e.with_operation("build"))
    }

    /// Where the room's keys come from; `None` where the store is trusted.
    fn source(&self) -> Result<Option<RoomSource>> {
        let store = Arc::clone(self.store.as_ref().ok_or_else(|| Error::invalid("a room needs a key store"))?);
        let (root, name) = match (&self.root, &self.room, self.trusting) {
            (None, None, true) => return Ok(None),
            (Some(root), Some(name), false) => (root.clone(), RoomName::new(name)?),
            (_, _, true) => {
                return Err(Error::invalid("a room with a root does not trust the key store; say one of them"));
            }
            _ => {
                return Err(Error::invalid(
                    "a room needs a name and a root (room, root), or says that it goes without: trusting_the_key_store",
                ));
            }
        };
        if self.watermark.is_none() && !self.without_rollback_protection {
            return Err(Error::invalid(
                "a room needs a watermark, or says that it goes without: without_rollback_protection",
            ));
        }
        Ok(Some(RoomSource { name, root, store, watermark: self.watermark.clone() }))
    }
}

/// # Errors
/// `InvalidArgument` if the runtime has no timers: deadlines and leases need them, and Tokio has no other way to ask than to try.
fn check_timers(runtime: &Handle) -> Result<()> {
    let try_one = || {
        let _entered = runtime.enter();
        drop(tokio::time::sleep(Duration::ZERO));
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(try_one))
        .map_err(|_| Error::invalid("the Tokio runtime has no timers; build it with enable_time or enable_all"))
}
