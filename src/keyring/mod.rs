//! Floor 4: the keyring. The only place where KMS, store and clock meet: the cache, loading keys into it, purging it.

pub(crate) mod admission;
pub(crate) mod ahead;
pub(crate) mod cache;
pub(crate) mod cow_map;
pub(crate) mod failures;
pub(crate) mod fair_queue;
pub(crate) mod flight;
pub(crate) mod hands;
pub(crate) mod hedge;
pub(crate) mod known;
pub(crate) mod loading;
pub(crate) mod members;
mod pausing;
pub(crate) mod rollback;
pub(crate) mod room_keys;
pub(crate) mod rows;
pub(crate) mod turns;
pub(crate) mod usage;
pub(crate) mod watch;
pub(crate) mod wrapping;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::clock::Clock;
use crate::crypto::generation::Process;
use crate::error::{Error, ErrorKind, Result};
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::region::Region;
use crate::key::revocation::Selector;
use crate::key::room_record::RoomRecord;
use crate::key::scope::Scope;
use crate::keyring::admission::Admission;
use crate::keyring::ahead::making_ahead;
use crate::keyring::cache::{CachedKey, KeyCache, Leaving, Slot, SlotRef};
use crate::keyring::failures::Failures;
use crate::keyring::flight::{Flights, Loaded, Stale, Waiting, Wanted, landing};
use crate::keyring::hedge::Hedge;
use crate::keyring::known::Known;
use crate::keyring::loading::When;
use crate::keyring::rollback::Seen;
use crate::keyring::room_keys::RoomSource;
use crate::keyring::rows::KnownRoom;
use crate::keyring::turns::Turns;
use crate::keyring::usage::Usage;
use crate::keyring::watch::{Watch, watching};
use crate::kms::router::KmsRouter;
use crate::retry::Patience;
use crate::row::Stored;
use crate::row::authority::{Authority, ControlKey};
use crate::store::KeyStore;
use crate::sync::ArcSwap;
use crate::watermark::Watermark;

/// How often expired keys are taken out of memory. They stop being used at their end, whenever that is.
const SWEEP: Duration = Duration::from_secs(1);

/// How long a load starts over because a purge or another node came in between, before its callers are told to retry.
const CHANGING: Duration = Duration::from_secs(5);

/// Keys in hand, and how to get more.
pub(crate) struct Keyring {
    pub(crate) store: Arc<dyn KeyStore>,
    pub(crate) kms: KmsRouter,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cache: Arc<KeyCache>,
    pub(crate) watch: Watch,
    pub(crate) admission: Admission,
    /// What verifies stored rows.
    pub(crate) authority: ArcSwap<Authority>,
    /// Where the room's keys come from; `None` where the store is trusted.
    pub(crate) source: Option<RoomSource>,
    pub(crate) watermark: Option<Arc<dyn Watermark>>,
    pub(crate) control: tokio::sync::Mutex<Option<Arc<ControlKey>>>,
    /// The room's row, as this process knows it.
    pub(crate) room: std::sync::Mutex<KnownRoom>,
    pub(crate) known: Known,
    pub(crate) turns: Turns,
    pub(crate) usage: Usage,
    pub(crate) seen: Seen,
    pub(crate) failures: Failures,
    pub(crate) hedge: Hedge,
    serving: BTreeSet<Region>,
    flights: Flights,
    runtime: Handle,
    /// Whose runtime that is.
    process: Process,
}

/// What a keyring is built from.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn KeyStore>,
    pub(crate) kms: KmsRouter,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cache: KeyCache,
    pub(crate) serving: BTreeSet<Region>,
    pub(crate) revocation_bound: Duration,
    pub(crate) authority: Authority,
    pub(crate) source: Option<RoomSource>,
    pub(crate) room: Option<Stored<RoomRecord>>,
    pub(crate) watermark: Option<Arc<dyn Watermark>>,
    pub(crate) runtime: Handle,
    pub(crate) keys_ahead: bool,
    pub(crate) process: Process,
}

impl Keyring {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let keyring = Arc::new(Self {
            admission: Admission::new(parts.store.capacity(), parts.kms.deadline(), parts.kms.calls_per_tenant()),
            store: parts.store,
            kms: parts.kms,
            clock: parts.clock,
            cache: Arc::new(parts.cache),
            watch: Watch::new(parts.revocation_bound),
            serving: parts.serving,
            authority: ArcSwap::from_pointee(parts.authority),
            source: parts.source,
            watermark: parts.watermark,
            control: tokio::sync::Mutex::default(),
            room: std::sync::Mutex::new(parts.room.map(KnownRoom::of).unwrap_or_default()),
            known: Known::default(),
            turns: Turns::default(),
            usage: Usage::default(),
            failures: Failures::default(),
            hedge: Hedge::default(),
            seen: Seen::default(),
            flights: Flights::default(),
            runtime: parts.runtime,
            process: parts.process,
        });
        keyring.runtime.spawn(sweeping(Arc::downgrade(&keyring)));
        keyring.runtime.spawn(watching(Arc::downgrade(&keyring)));
        if parts.keys_ahead {
            keyring.runtime.spawn(making_ahead(Arc::downgrade(&keyring)));
        }
        keyring
    }

    /// # Errors
    /// `Region` if this process does not serve `region`. Asked before any KMS or store call.
    pub(crate) fn check_served(&self, region: &str) -> Result<()> {
        if self.serving.iter().any(|served| served.as_str() == region) {
            return Ok(());
        }
        let served: Vec<&str> = self.serving.iter().map(Region::as_str).collect();
        let message = format!("this process serves {served:?}; ask one that serves the region");
        Err(Error::new(ErrorKind::Region, message).with_region(region))
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// The slot of a scope, for a handle.
    pub(crate) fn slot(&self, tenant: &TenantId, scope: &Scope) -> SlotRef {
        self.cache.slot(tenant, scope)
    }

    /// A scope's Active key, loaded into its slot unless one stands there that still seals.
    pub(crate) async fn sealing_key(self: &Arc<Self>, tenant: &TenantId, scope: &Scope) -> Loaded {
        self.check_loads()?;
        self.renew_lease().await?;
        let in_hand = || {
            let slot = self.slot(tenant, scope);
            let in_slot = || slot.slot().current().filter(|key| self.now() < key.seals_until && !key.key.is_spent());
            in_slot().or_else(|| if self.take_over(slot.slot()) { in_slot() } else { None })
        };
        self.load_unless_failing(Wanted::Sealing(tenant.clone(), scope.clone()), in_hand).await
    }

    /// Puts the key that was made ahead of time in the place of the one whose period is over, if it waits in the slot and its own has
    /// begun. No I/O. Never in a process that was forked off: the book's lock may be taken there for ever.
    #[cold]
    pub(crate) fn take_over(&self, slot: &Slot) -> bool {
        slot.next().is_some()
            && self.process.is_current()
            && self.cache.take_over(slot, self.now(), self.clock.unix_millis())
    }

    /// Loads the Active key of a scope in a period that is past, created if there is none: for sealing again what belongs
    /// there. It is kept among the opening keys.
    pub(crate) async fn resealing_key(self: &Arc<Self>, tenant: &TenantId, scope: &Scope, past: PeriodLabel) -> Loaded {
        self.check_loads()?;
        self.load_unless_failing(Wanted::Resealing(tenant.clone(), scope.clone(), past), || None).await
    }

    /// Loads a key to open with.
    pub(crate) async fn opening_key(self: &Arc<Self>, tenant: &TenantId, key_id: &KeyId) -> Loaded {
        self.check_loads()?;
        self.renew_lease().await?;
        self.check_fleet_opens()?;
        let in_hand = || self.cache.with_opening(tenant, key_id, self.now(), Arc::clone);
        self.load_unless_failing(Wanted::Opening(tenant.clone(), *key_id), in_hand).await
    }

    /// The key in hand, or else the load of it, joined or started; unless it failed over and over until a moment ago.
    async fn load_unless_failing(
        self: &Arc<Self>,
        wanted: Wanted,
        in_hand: impl FnOnce() -> Option<Arc<CachedKey>>,
    ) -> Loaded {
        match self.failures.of(&wanted, self.now()) {
            Some(failure) => in_hand().ok_or(failure),
            None => landing(self.start(wanted, false, in_hand)).await,
        }
    }

    /// Starts loading again a key that nears its end. Nobody waits for it.
    #[cold]
    pub(crate) fn refresh(self: &Arc<Self>, wanted: Wanted) {
        if self.check_loads().is_ok() {
            drop(self.start(wanted, true, || None));
        }
    }

    /// # Errors
    /// `Unavailable` in a process that was forked off after the room was built: the runtime's threads, which run the loads, were not
    /// copied, and locks that they held stay taken.
    fn check_loads(&self) -> Result<()> {
        if self.process.is_current() {
            return Ok(());
        }
        let what = "the room was built before this process was forked off and loads no keys here; build another one";
        Err(Error::new(ErrorKind::Unavailable, what))
    }

    fn start(
        self: &Arc<Self>,
        wanted: Wanted,
        is_ahead: bool,
        in_hand: impl FnOnce() -> Option<Arc<CachedKey>>,
    ) -> tokio::sync::watch::Receiver<Option<Loaded>> {
        let keyring = Arc::clone(self);
        let load = |wanted: Wanted, stale: Stale, waiting: Waiting| async move {
            let turn = match select(pin!(keyring.admission.loads.turn(wanted.tenant())), pin!(waiting.given_up())).await
            {
                Either::Left((turn, _)) => turn?,
                // Nobody hears it.
                Either::Right(_) => return Err(given_up()),
            };
            let loaded = keyring.load(&wanted, &stale).await;
            keyring.failures.note(&wanted, loaded.as_ref().err(), keyring.now());
            turn.ended(loaded.as_ref().err());
            loaded
        };
        self.flights.join(&self.loads_on(), wanted, is_ahead, in_hand, load)
    }

    /// Where loads run. A runtime of one thread may be idle, or blocked on another one: then nobody would drive them there.
    fn loads_on(&self) -> Handle {
        match self.runtime.runtime_flavor() {
            RuntimeFlavor::CurrentThread => Handle::try_current().unwrap_or_else(|_| self.runtime.clone()),
            _ => self.runtime.clone(),
        }
    }

    async fn load(&self, wanted: &Wanted, stale: &Stale) -> Loaded {
        let mut patience = Patience::within(CHANGING);
        while patience.tries_again().await {
            self.renew_lease().await?;
            stale.clear();
            let (loaded, slot) = match wanted {
                Wanted::Sealing(tenant, scope) => {
                    let slot = self.slot(tenant, scope);
                    (self.load_sealing(tenant, scope, When::Now).await, Some(slot))
                }
                Wanted::Resealing(tenant, scope, past) => {
                    (self.load_sealing(tenant, scope, When::Past(past)).await, None)
                }
                Wanted::Ahead(tenant, scope, next) => {
                    let slot = self.slot(tenant, scope);
                    (self.load_sealing(tenant, scope, When::Next(next)).await, Some(slot))
                }
                Wanted::Opening(tenant, key_id) => (self.load_opening(tenant, key_id).await, None),
            };
            let key = match loaded {
                // What it was made under was changed meanwhile: a policy, a revocation, the Active key.
                Err(e) if e.kind() == ErrorKind::Conflict => continue,
                loaded => Arc::new(loaded?),
            };
            if self.cache.insert(&key, slot.as_ref().map(SlotRef::slot), || !stale.is_stale()) {
                return Ok(key);
            }
        }
        Err(changing())
    }

    /// Takes the keys that `selector` covers out of this process at once, loads under way included.
    pub(crate) fn purge(&self, tenant: &TenantId, selector: &Selector) -> usize {
        self.failures.forget(Some(tenant));
        let may_be_covered = |wanted: &Wanted| wanted.sealing_scope().is_none_or(|scope| selector.may_cover(scope));
        self.cache.purge(tenant, |key| key.is_covered_by(selector), || self.flights.make_stale(tenant, may_be_covered))
    }

    /// Takes every key out of this process at once, loads under way included.
    pub(crate) fn purge_all(&self) -> usize {
        self.failures.forget(None);
        self.cache.purge_all(|| self.flights.make_all_stale())
    }

    /// Makes the next seal under the keys that `selector` covers ask the store which key is Active.
    pub(crate) fn stop_sealing(&self, tenant: &TenantId, selector: &Selector) -> usize {
        let may_be_covered = |wanted: &Wanted| wanted.sealing_scope().is_some_and(|scope| selector.may_cover(scope));
        self.cache.stop_sealing(
            tenant,
            |key| key.is_covered_by(selector),
            || self.flights.make_stale(tenant, may_be_covered),
        )
    }
}

fn given_up() -> Error {
    Error::new(ErrorKind::Unavailable, "nobody waited for the key any more when its turn came")
}

fn changing() -> Error {
    Error::new(ErrorKind::Unavailable, "the tenant's keys are being changed over and over; retry")
}

/// Takes expired keys out of memory until the keyring is gone.
async fn sweeping(keyring: Weak<Keyring>) {
    let mut tick = tokio::time::interval(SWEEP);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(keyring) = keyring.upgrade() else {
            return;
        };
        // In slices: of very many that end together others on this thread are not to notice.
        let (now, mut from, mut leaving) = (keyring.now(), Some(0), Leaving::default());
        while let Some(place) = from {
            from = keyring.cache.expired(place, now, &mut leaving);
            tokio::task::yield_now().await;
        }
        while keyring.cache.take_some(&mut leaving).is_some() {
            tokio::task::yield_now().await;
        }
    }
}
