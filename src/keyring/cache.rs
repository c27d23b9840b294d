//! The key cache: bounded, with a quota for each tenant; filled only after an authenticated unwrap.
//!
//! What is read on the hot path is read without a lock: a scope's *slot* (its sealing key) and the map of opening keys.
//! Whatever changes them holds the *book*, a mutex that is never held across an await. A key that is taken out is dropped,
//! and so wiped, as soon as the last call that uses it ends.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use hashbrown::Equivalent;

use crate::crypto::allotment::Budget;
use crate::key::data_key::LoadedKey;
use crate::key::id::{KeyId, TenantId};
use crate::key::kek::KekUri;
use crate::key::period::PeriodLabel;
use crate::key::scope::Scope;
use crate::keyring::cow_map::CowMap;

/// An unwrapped data key and how long it may be used. All times are monotonic; none is ever extended.
pub(crate) struct CachedKey {
    pub(crate) tenant: TenantId,
    pub(crate) period: Option<PeriodLabel>,
    pub(crate) keks: Vec<KekUri>,
    pub(crate) key: LoadedKey,
    /// Opens until then: the time to live, counted from before the unwrap.
    pub(crate) opens_until: Duration,
    /// Seals until then: not beyond its period or its rotation age either.
    pub(crate) seals_until: Duration,
    /// When it is worth loading again, in nanoseconds; moves on with each try.
    refresh_at: AtomicU64,
    refresh_step: Duration,
    /// Its place in the book.
    place: AtomicU64,
}

impl CachedKey {
    pub(crate) fn new(
        tenant: TenantId,
        period: Option<PeriodLabel>,
        keks: Vec<KekUri>,
        key: LoadedKey,
        loaded: Duration,
        ttl: Duration,
        seals_for: Duration,
    ) -> Self {
        Self {
            tenant,
            period,
            keks,
            key,
            opens_until: loaded + ttl,
            seals_until: loaded + ttl.min(seals_for),
            refresh_at: AtomicU64::new(nanos(loaded + ttl * 4 / 5)),
            refresh_step: ttl / 20,
            place: AtomicU64::new(0),
        }
    }

    /// Whether the caller should start loading the key again, ahead of its end. Says so to one caller, and again after a
    /// twentieth of the time to live if that did not help.
    pub(crate) fn wants_refresh(&self, now: Duration) -> bool {
        let due = self.refresh_at.load(Ordering::Relaxed);
        nanos(now) >= due
            && self
                .refresh_at
                .compare_exchange(due, nanos(now + self.refresh_step), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Where the sealing key of one scope stands, shared by all handles of the scope. Emptying it takes the key from all.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) current: ArcSwapOption<CachedKey>,
    /// Message budgets outlive reloads of their key.
    budget: Mutex<Option<(KeyId, Arc<Budget>)>>,
}

impl Slot {
    /// The budget of `key_id`: the one it already draws from in this process, or a new one of `messages`.
    pub(crate) fn budget(&self, key_id: &KeyId, messages: u64) -> Arc<Budget> {
        let mut budget = lock(&self.budget);
        match &*budget {
            Some((id, budget)) if id == key_id => Arc::clone(budget),
            _ => {
                let fresh = Arc::new(Budget::new(messages));
                *budget = Some((*key_id, Arc::clone(&fresh)));
                fresh
            }
        }
    }
}

/// A handle's share of a slot. The slot goes with its key and its last handle.
pub(crate) struct SlotRef {
    cache: Arc<KeyCache>,
    at: SlotKey,
    slot: Arc<Slot>,
}

impl SlotRef {
    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }
}

impl Drop for SlotRef {
    fn drop(&mut self) {
        if self.slot.current.load().is_none() {
            let mut slots = lock(&self.cache.slots);
            // The map's and this one.
            if Arc::strong_count(&self.slot) == 2 {
                slots.remove(&self.at);
            }
        }
    }
}

type SlotKey = (TenantId, Scope);

/// Which cached key: another tenant's key of the same id is another key.
#[derive(Clone, PartialEq, Eq, Hash)]
struct OpenKey(TenantId, KeyId);

#[derive(Hash)]
struct OpenKeyRef<'a>(&'a TenantId, &'a KeyId);

impl Equivalent<OpenKey> for OpenKeyRef<'_> {
    fn equivalent(&self, key: &OpenKey) -> bool {
        *self.0 == key.0 && *self.1 == key.1
    }
}

impl CachedKey {
    fn open_key(&self) -> OpenKey {
        OpenKey(self.tenant.clone(), *self.key.key_id())
    }
}

/// See the module's page.
pub(crate) struct KeyCache {
    opening: CowMap<OpenKey, CachedKey>,
    slots: Mutex<HashMap<SlotKey, Arc<Slot>>>,
    book: Mutex<Book>,
    max_keys: usize,
    max_keys_per_tenant: usize,
}

/// Which keys there are, in the order in which they were loaded: they leave in that order, which is about the order in
/// which they expire.
#[derive(Default)]
struct Book {
    next: u64,
    order: BTreeMap<u64, Arc<CachedKey>>,
    of_tenant: BTreeSet<(TenantId, u64)>,
    count: HashMap<TenantId, usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KeyCache {
    pub(crate) fn new(max_keys: usize, max_keys_per_tenant: usize) -> Self {
        Self {
            opening: CowMap::new(),
            slots: Mutex::default(),
            book: Mutex::default(),
            max_keys: max_keys.max(1),
            max_keys_per_tenant: max_keys_per_tenant.max(1),
        }
    }

    /// The slot of a scope, shared with all other handles of the scope.
    pub(crate) fn slot(self: &Arc<Self>, tenant: &TenantId, scope: &Scope) -> SlotRef {
        let at = (tenant.clone(), scope.clone());
        let slot = Arc::clone(lock(&self.slots).entry(at.clone()).or_default());
        SlotRef { cache: Arc::clone(self), at, slot }
    }

    /// Runs `read` on a cached key that still opens at `now`.
    pub(crate) fn with_opening<R>(
        &self,
        tenant: &TenantId,
        key_id: &KeyId,
        now: Duration,
        read: impl FnOnce(&Arc<CachedKey>) -> R,
    ) -> Option<R> {
        let at = OpenKeyRef(tenant, key_id);
        self.opening.with(&at, |key| (now < key.opens_until).then(|| read(key))).flatten()
    }

    /// Puts a key in, and into its scope's slot if it is `sealing`; makes room if need be. `valid` is asked under the book's
    /// lock, so that a purge either finds the key here or is seen by `valid`.
    pub(crate) fn insert(&self, key: &Arc<CachedKey>, sealing: Option<&Slot>, valid: impl FnOnce() -> bool) -> bool {
        let mut book = lock(&self.book);
        if !valid() {
            return false;
        }
        if let Some(old) = self.opening.with(&key.open_key(), Arc::clone) {
            // Not `take`: the slot gets the new one in the same breath, and nobody finds it empty.
            book.forget(&old);
            if sealing.is_none() {
                self.replace_in_slot(&old, key);
            }
        }
        while let Some(victim) = book.too_many(self, &key.tenant) {
            self.take(&mut book, &victim);
        }
        book.enter(key);
        self.opening.insert(key.open_key(), Arc::clone(key));
        if let Some(slot) = sealing {
            slot.current.store(Some(Arc::clone(key)));
        }
        true
    }

    /// Takes out the keys of `tenant` that `which` names, and runs `meanwhile` under the same lock.
    pub(crate) fn purge(
        &self,
        tenant: &TenantId,
        which: impl Fn(&CachedKey) -> bool,
        meanwhile: impl FnOnce(),
    ) -> usize {
        let mut book = lock(&self.book);
        meanwhile();
        let named: Vec<_> = book.of(tenant).filter(|key| which(key)).collect();
        named.iter().for_each(|key| self.take(&mut book, key));
        named.len()
    }

    /// Takes out what is past its end at `now`.
    pub(crate) fn sweep(&self, now: Duration) -> usize {
        let mut book = lock(&self.book);
        let expired: Vec<_> = book.order.values().filter(|key| now >= key.opens_until).cloned().collect();
        expired.iter().for_each(|key| self.take(&mut book, key));
        expired.len()
    }

    /// Makes a scope find no sealing key in its slot, so that the next seal asks the store. What it sealed still opens.
    pub(crate) fn stop_sealing(&self, tenant: &TenantId, scope: &Scope, meanwhile: impl FnOnce()) {
        let _book = lock(&self.book);
        meanwhile();
        if let Some(slot) = lock(&self.slots).get(&(tenant.clone(), scope.clone())) {
            slot.current.store(None);
        }
    }

    /// How many keys are cached.
    pub(crate) fn len(&self) -> usize {
        lock(&self.book).order.len()
    }

    /// Takes one key out of the map, its slot and the book.
    fn take(&self, book: &mut Book, key: &Arc<CachedKey>) {
        book.forget(key);
        self.opening.remove(&key.open_key());
        let at = (key.tenant.clone(), key.key.scope().clone());
        let mut slots = lock(&self.slots);
        let Some(slot) = slots.get(&at) else {
            return;
        };
        if slot.holds(key) {
            slot.current.store(None);
        }
        if Arc::strong_count(slot) == 1 && slot.current.load().is_none() {
            slots.remove(&at);
        }
    }

    /// A key that was loaded again to open takes the old one's place in the slot too: every key in a slot is in the book.
    fn replace_in_slot(&self, old: &Arc<CachedKey>, new: &Arc<CachedKey>) {
        let at = (old.tenant.clone(), old.key.scope().clone());
        if let Some(slot) = lock(&self.slots).get(&at)
            && slot.holds(old)
        {
            slot.current.store(Some(Arc::clone(new)));
        }
    }
}

impl Slot {
    fn holds(&self, key: &Arc<CachedKey>) -> bool {
        self.current.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, key))
    }
}

impl Book {
    fn enter(&mut self, key: &Arc<CachedKey>) {
        self.next += 1;
        key.place.store(self.next, Ordering::Relaxed);
        self.order.insert(self.next, Arc::clone(key));
        self.of_tenant.insert((key.tenant.clone(), self.next));
        *self.count.entry(key.tenant.clone()).or_default() += 1;
    }

    fn forget(&mut self, key: &CachedKey) {
        let place = key.place.load(Ordering::Relaxed);
        if self.order.remove(&place).is_none() {
            return;
        }
        self.of_tenant.remove(&(key.tenant.clone(), place));
        if let Some(count) = self.count.get_mut(&key.tenant) {
            *count -= 1;
            if *count == 0 {
                self.count.remove(&key.tenant);
            }
        }
    }

    /// A tenant's keys, oldest first.
    fn of<'a>(&'a self, tenant: &TenantId) -> impl Iterator<Item = Arc<CachedKey>> + 'a {
        let all = (tenant.clone(), 0)..=(tenant.clone(), u64::MAX);
        self.of_tenant.range(all).filter_map(|(_, place)| self.order.get(place).cloned())
    }

    /// Whom to take out before one more key of `tenant` comes in: its own oldest at its quota, else the oldest of all.
    fn too_many(&self, cache: &KeyCache, tenant: &TenantId) -> Option<Arc<CachedKey>> {
        if self.count.get(tenant).is_some_and(|count| *count >= cache.max_keys_per_tenant) {
            return self.of(tenant).next();
        }
        if self.order.len() >= cache.max_keys {
            return self.order.values().next().cloned();
        }
        None
    }
}
