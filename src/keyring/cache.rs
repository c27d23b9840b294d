//! The key cache: bounded, with a quota for each tenant; filled only after an authenticated unwrap.
//!
//! What is read on the hot path is read without waiting for a lock: a scope's *slot* (its sealing key, held by the threads
//! that use it) and the map of opening keys. Whatever changes them holds the *book*, a mutex that is never held across an await. A key that is taken out is dropped,
//! and so wiped, as soon as the last call that uses it ends.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::key::data_key::LoadedKey;
use crate::key::id::{KeyId, TenantId};
use crate::key::kek_expression::KekExpression;
use crate::key::period::PeriodLabel;
use crate::key::policy::TenantPolicy;
use crate::key::revocation::Selector;
use crate::key::scope::Scope;
use crate::keyring::cow_map::{CowMap, Keyed};
use crate::keyring::hands::{Hands, Held};
use crate::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use crate::sync::{ArcSwapOption, Mutex, MutexGuard};

/// An unwrapped data key and how long it may be used. All times are monotonic; none is ever extended.
pub(crate) struct CachedKey {
    pub(crate) tenant: TenantId,
    pub(crate) period: Option<PeriodLabel>,
    pub(crate) keks: KekExpression,
    pub(crate) key: LoadedKey,
    /// In memory until then: the time to live, counted from before the unwrap.
    lives_until: Duration,
    /// Opens until then: as long as it lives, unless opening is suspended.
    pub(crate) opens_until: Duration,
    /// Seals until then: not beyond its period or its rotation age either.
    pub(crate) seals_until: Duration,
    /// Whether it is of the period that was still to come when it was loaded: it seals once it has taken over in its slot.
    pub(crate) is_ahead: bool,
    /// When it is worth loading again, in nanoseconds; moves on with each try.
    refresh_at: AtomicU64,
    refresh_step: Duration,
    /// Its place in the book.
    place: AtomicU64,
    /// [`LOOK_UP`] and [`IN_USE`].
    sealed: AtomicU8,
    /// When to care for the key of the period that comes next, in nanoseconds; moves on with each try.
    ahead_at: AtomicU64,
}

/// It sealed since its record was last looked up.
const LOOK_UP: u8 = 1;
/// It sealed since it came into memory, loaded again or not: its scope is in use.
const IN_USE: u8 = 2;

impl CachedKey {
    pub(crate) fn new(
        tenant: TenantId,
        period: Option<PeriodLabel>,
        keks: KekExpression,
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
            lives_until: loaded + ttl,
            opens_until: loaded + ttl,
            seals_until: loaded + ttl.min(seals_for),
            refresh_at: AtomicU64::new(nanos(loaded + TenantPolicy::refreshed_after(ttl))),
            refresh_step: ttl / 20,
            place: AtomicU64::new(0),
            is_ahead: false,
            sealed: AtomicU8::new(0),
            ahead_at: AtomicU64::new(0),
        }
    }

    /// Takes note that it seals. Mostly that is known already, and the line that all threads read is not written to.
    #[inline]
    pub(crate) fn note_sealing(&self) {
        if self.sealed.load(Ordering::Relaxed) != LOOK_UP | IN_USE {
            self.sealed.store(LOOK_UP | IN_USE, Ordering::Relaxed);
        }
    }

    /// Whether it sealed since it came into memory.
    pub(crate) fn is_in_use(&self) -> bool {
        self.sealed.load(Ordering::Relaxed) & IN_USE != 0
    }

    /// Takes the place of `old`, which is the same key loaded earlier.
    fn succeed(&self, old: &Self) {
        if old.is_in_use() {
            self.sealed.fetch_or(IN_USE, Ordering::Relaxed);
        }
    }

    /// Whether to care now for the key of the period that comes next. Then not before `again`.
    pub(crate) fn cares_ahead(&self, now: Duration, again: Duration) -> bool {
        let due = self.ahead_at.load(Ordering::Relaxed);
        let moved = || self.ahead_at.compare_exchange(due, nanos(again), Ordering::Relaxed, Ordering::Relaxed);
        nanos(now) >= due && moved().is_ok()
    }

    /// When to care for it next; `None`: not again.
    pub(crate) fn care_ahead_at(&self, at: Option<Duration>) {
        self.ahead_at.store(at.map_or(u64::MAX, nanos), Ordering::Relaxed);
    }

    /// Until when it is in memory.
    pub(crate) fn lives_until(&self) -> Duration {
        self.lives_until
    }

    /// How long it is, from before its unwrap.
    pub(crate) fn time_to_live(&self) -> Duration {
        self.refresh_step * 20
    }

    /// Whether it sealed to the end of its period: what ended it at `now` was neither its time to live nor a purge.
    fn has_ended_with_its_period(&self, now: Duration) -> bool {
        now >= self.seals_until && self.seals_until < self.lives_until
    }

    pub(crate) fn is_covered_by(&self, selector: &Selector) -> bool {
        selector.covers(self.key.scope(), self.period.as_ref(), Some(self.key.key_id()))
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

/// Saturates after 584 years.
#[inline]
pub(crate) fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into())
}

/// Where the sealing key of one scope stands, shared by all handles of the scope. Emptying it takes the key from all.
#[derive(Default)]
pub(crate) struct Slot {
    current: ArcSwapOption<CachedKey>,
    /// The key of the period that comes next, made ahead of time. Nobody seals with it here.
    next: ArcSwapOption<CachedKey>,
    hands: Hands,
}

impl Slot {
    /// The key that stands here.
    pub(crate) fn current(&self) -> Option<Arc<CachedKey>> {
        self.current.load_full()
    }

    /// The key that waits here for its period.
    pub(crate) fn next(&self) -> Option<Arc<CachedKey>> {
        self.next.load_full()
    }

    /// Runs `work` with the key that stands here, if any, held by the calling thread, to work on a message of `len` bytes.
    #[inline]
    pub(crate) fn with<R>(&self, len: usize, work: impl FnOnce(&mut Held) -> R) -> Option<R> {
        self.hands.with(len, || self.current(), work)
    }

    /// Puts `key` in the place of what stands here. Who holds the old one gets through with one message.
    fn set(&self, key: Option<Arc<CachedKey>>) {
        self.current.store(key);
        self.hands.empty();
    }

    fn is_empty(&self) -> bool {
        self.current.load().is_none() && self.next.load().is_none()
    }

    /// Takes `key` out, wherever it stands here.
    fn take_out(&self, key: &Arc<CachedKey>) -> bool {
        let (is_current, is_next) = (self.holds(key), is(&self.next, key));
        if is_current {
            self.set(None);
        }
        if is_next {
            self.next.store(None);
        }
        is_current || is_next
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

    /// Whose slot it is: clones of the tenant and the scope that all its handles and keys share.
    pub(crate) fn at(&self) -> &SlotKey {
        &self.at
    }
}

impl Drop for SlotRef {
    fn drop(&mut self) {
        if self.slot.is_empty() {
            let mut slots = lock(&self.cache.slots);
            // The map's and this one.
            if Arc::strong_count(&self.slot) == 2 {
                slots.remove(&self.at);
            }
        }
    }
}

/// By how many milliseconds the wall clock may be behind the monotonic one at a turn: one is corrected by at most 500 parts in a
/// million while a key is in hand, and both are read in steps of some milliseconds.
const DRIFT: i64 = 250;

/// How many slots are emptied under one lock. Keys are taken out a shard of the map at a time: of 100 000 some 800.
const SLICE: usize = 1_000;

/// How many keys a sweep takes out before others have their turn: less than a millisecond's work.
const FEW: usize = 64;

/// Keys that are to be taken out, by their shards of the map.
#[derive(Default)]
pub(crate) struct Leaving(Vec<Vec<Arc<CachedKey>>>);

pub(crate) type SlotKey = (TenantId, Scope);

/// By tenant and id: another tenant's key of the same id is another key.
impl Keyed for CachedKey {
    type Key<'a> = (&'a TenantId, &'a KeyId);

    fn found_by(&self) -> Self::Key<'_> {
        (&self.tenant, self.key.key_id())
    }

    fn is_found_by(&self, key: &Self::Key<'_>) -> bool {
        (*self.key.key_id(), &self.tenant) == (*key.1, key.0)
    }
}

/// See the module's page.
pub(crate) struct KeyCache {
    opening: CowMap<CachedKey>,
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
        let mut slots = lock(&self.slots);
        let entry = slots.entry((tenant.clone(), scope.clone()));
        let at = entry.key().clone();
        let slot = Arc::clone(entry.or_default());
        drop(slots);
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
        self.opening.with(&(tenant, key_id), |key| (now < key.opens_until).then(|| read(key))).flatten()
    }

    /// Puts a key in, and into its scope's slot if it is `sealing`, or to wait there if it is of the period that comes next; makes
    /// room if need be, which a key that waits does not get from a scope in use: then it is not kept. `valid` is asked under the book's
    /// lock, so that a purge either finds the key here or is seen by `valid`.
    pub(crate) fn insert(&self, key: &Arc<CachedKey>, sealing: Option<&Slot>, valid: impl FnOnce() -> bool) -> bool {
        let mut book = lock(&self.book);
        if !valid() {
            return false;
        }
        if let Some(old) = self.opening.with(&key.found_by(), Arc::clone) {
            // Not `take`: the slot gets the new one in the same breath, and nobody finds it empty.
            book.forget(&old);
            key.succeed(&old);
            if sealing.is_none() || key.is_ahead {
                self.replace_in_slot(&old, key);
            }
        }
        while let Some(victim) = book.too_many(self, &key.tenant) {
            if key.is_ahead && victim.is_in_use() && !victim.is_ahead {
                return true; // nothing that is needed now goes for what will be needed later
            }
            self.take(&mut book, &[victim]);
        }
        book.enter(key);
        self.opening.insert(Arc::clone(key));
        match sealing {
            Some(slot) if key.is_ahead => slot.next.store(Some(Arc::clone(key))),
            Some(slot) => {
                slot.set(Some(Arc::clone(key)));
                if slot.next.load().as_ref().is_some_and(|next| next.period == key.period) {
                    slot.next.store(None); // its period has come, and this is its Active key
                }
            }
            None => {}
        }
        true
    }

    /// Puts the key that waits in a slot in the place of the one whose period is over, if its own has begun at `unix_millis`. Under
    /// the book's lock, so that a purge finds it in one place or in the other.
    ///
    /// The two clocks of a machine drift apart a little between the load of one key and that of the other: where the one before
    /// has ended with its period by the monotonic clock, the wall clock may be [`DRIFT`] behind.
    pub(crate) fn take_over(&self, slot: &Slot, now: Duration, unix_millis: i64) -> bool {
        let _book = lock(&self.book);
        let Some(next) = slot.next() else { return false };
        let has_begun = |at: i64| next.period.as_ref().is_some_and(|period| period.is_at(at));
        let has_ended = || slot.current.load().as_ref().is_some_and(|current| current.has_ended_with_its_period(now));
        if now >= next.seals_until || !(has_begun(unix_millis) || has_begun(unix_millis + DRIFT) && has_ended()) {
            return false;
        }
        slot.next.store(None);
        slot.set(Some(next));
        true
    }

    /// Takes out the keys of `tenant` that `which` names, and runs `meanwhile` under the same lock.
    pub(crate) fn purge(
        &self,
        tenant: &TenantId,
        which: impl Fn(&CachedKey) -> bool,
        meanwhile: impl FnOnce(),
    ) -> usize {
        let book = lock(&self.book);
        meanwhile();
        let named = book.of(tenant).filter(|key| which(key)).collect();
        drop(book);
        self.take_all(named)
    }

    /// Adds to `leaving` what is past its end at `now` of some keys, in the order of loading, from the place `from` on. Where to go on,
    /// if there are more.
    pub(crate) fn expired(&self, from: u64, now: Duration, leaving: &mut Leaving) -> Option<u64> {
        self.look_at_some(from, |key| {
            if now >= key.lives_until {
                self.leaves(Arc::clone(key), leaving);
            }
        })
    }

    /// Takes some out that leave: few enough that nobody notices. How many there were; `None` if there are no more.
    pub(crate) fn take_some(&self, leaving: &mut Leaving) -> Option<usize> {
        let of_shard = leaving.0.iter_mut().find(|of_shard| !of_shard.is_empty())?;
        let some = of_shard.split_off(of_shard.len().saturating_sub(FEW));
        Some(self.take(&mut lock(&self.book), &some))
    }

    fn leaves(&self, key: Arc<CachedKey>, leaving: &mut Leaving) {
        let shard = self.opening.shard_of(&key.found_by());
        if leaving.0.len() <= shard {
            leaving.0.resize_with(shard + 1, Vec::new);
        }
        if let Some(of_shard) = leaving.0.get_mut(shard) {
            of_shard.push(key);
        }
    }

    /// All that is past its end at `now`, at once.
    #[cfg(test)]
    pub(crate) fn sweep(&self, now: Duration) -> usize {
        let (mut from, mut leaving) = (Some(0), Leaving::default());
        while let Some(place) = from {
            from = self.expired(place, now, &mut leaving);
        }
        std::iter::from_fn(|| self.take_some(&mut leaving)).sum()
    }

    /// Takes out everything, and runs `meanwhile` under the same lock.
    pub(crate) fn purge_all(&self, meanwhile: impl FnOnce()) -> usize {
        let book = lock(&self.book);
        meanwhile();
        let all = book.order.values().cloned().collect();
        drop(book);
        self.take_all(all)
    }

    /// Takes the keys of `tenant` that `which` names out of their scopes' slots, so that the next seal asks the store. What
    /// they sealed still opens.
    pub(crate) fn stop_sealing(
        &self,
        tenant: &TenantId,
        which: impl Fn(&CachedKey) -> bool,
        meanwhile: impl FnOnce(),
    ) -> usize {
        let book = lock(&self.book);
        meanwhile();
        // Every key in a slot is in the book.
        let named: Vec<_> = book.of(tenant).filter(|key| which(key)).collect();
        drop(book);
        self.empty_slots_of(&named)
    }

    /// As [`Self::stop_sealing`], of all tenants.
    pub(crate) fn stop_all_sealing(&self, meanwhile: impl FnOnce()) -> usize {
        let book = lock(&self.book);
        meanwhile();
        let all: Vec<_> = book.order.values().cloned().collect();
        drop(book);
        self.empty_slots_of(&all)
    }

    /// Takes keys out of their slots, in slices. What a load puts there meanwhile is newer, and stays.
    fn empty_slots_of(&self, keys: &[Arc<CachedKey>]) -> usize {
        let mut stopped = 0;
        for slice in keys.chunks(SLICE) {
            let _book = lock(&self.book);
            let slots = lock(&self.slots);
            for key in slice {
                if let Some(slot) = slots.get(&(key.tenant.clone(), key.key.scope().clone())) {
                    stopped += usize::from(slot.take_out(key));
                }
            }
        }
        stopped
    }

    /// Adds to `sealed` the keys that sealed since they were last asked for here, of some, in the order of loading, from the place
    /// `from` on. Where to go on, if there are more.
    pub(crate) fn take_sealed(&self, from: u64, sealed: &mut Vec<Arc<CachedKey>>) -> Option<u64> {
        self.look_at_some(from, |key| {
            if key.sealed.load(Ordering::Relaxed) & LOOK_UP != 0
                && key.sealed.fetch_and(!LOOK_UP, Ordering::Relaxed) & LOOK_UP != 0
            {
                sealed.push(Arc::clone(key));
            }
        })
    }

    /// Gives `look` the keys in the order of loading, from the place `from` on, as many as are looked at under one lock. Where to go
    /// on, if there are more.
    pub(crate) fn look_at_some(&self, from: u64, look: impl FnMut(&Arc<CachedKey>)) -> Option<u64> {
        let book = lock(&self.book);
        let mut rest = book.order.range(from..);
        rest.by_ref().take(SLICE).map(|(_, key)| key).for_each(look);
        rest.next().map(|(place, _)| *place)
    }

    /// How many keys are cached.
    pub(crate) fn len(&self) -> usize {
        lock(&self.book).order.len()
    }

    /// Takes keys out of the map, their slots and the book: shard by shard of the map, each of which is copied once, in slices, so
    /// that nobody waits long for the book. What was loaded anew meanwhile is another key, and stays. They are wiped here, outside
    /// of the locks.
    fn take_all(&self, keys: Vec<Arc<CachedKey>>) -> usize {
        let mut leaving = Leaving::default();
        for key in keys {
            self.leaves(key, &mut leaving);
        }
        leaving.0.into_iter().map(|of_shard| self.take(&mut lock(&self.book), &of_shard)).sum()
    }

    /// Takes keys of one shard of the map out of it, their slots and the book.
    fn take(&self, book: &mut Book, keys: &[Arc<CachedKey>]) -> usize {
        let mut taken = 0;
        for key in keys {
            taken += usize::from(book.forget(key));
        }
        self.opening.remove_all(keys);
        let mut slots = lock(&self.slots);
        for key in keys {
            let at = (key.tenant.clone(), key.key.scope().clone());
            let Some(slot) = slots.get(&at) else { continue };
            slot.take_out(key);
            if Arc::strong_count(slot) == 1 && slot.is_empty() {
                slots.remove(&at);
            }
        }
        taken
    }

    /// A key that was loaded again takes the old one's place in the slot too: every key in a slot is in the book. One that turns out
    /// to be of a period to come (the wall clock was set back) waits there.
    fn replace_in_slot(&self, old: &Arc<CachedKey>, new: &Arc<CachedKey>) {
        let at = (old.tenant.clone(), old.key.scope().clone());
        let slots = lock(&self.slots);
        let Some(slot) = slots.get(&at) else { return };
        if slot.holds(old) {
            slot.set((!new.is_ahead).then(|| Arc::clone(new)));
        }
        if is(&slot.next, old) {
            slot.next.store(Some(Arc::clone(new)));
        }
    }
}

impl Slot {
    fn holds(&self, key: &Arc<CachedKey>) -> bool {
        is(&self.current, key)
    }
}

fn is(place: &ArcSwapOption<CachedKey>, key: &Arc<CachedKey>) -> bool {
    place.load().as_ref().is_some_and(|there| Arc::ptr_eq(there, key))
}

impl Book {
    fn enter(&mut self, key: &Arc<CachedKey>) {
        self.next += 1;
        key.place.store(self.next, Ordering::Relaxed);
        self.order.insert(self.next, Arc::clone(key));
        self.of_tenant.insert((key.tenant.clone(), self.next));
        *self.count.entry(key.tenant.clone()).or_default() += 1;
    }

    /// Whether it was there.
    fn forget(&mut self, key: &CachedKey) -> bool {
        let place = key.place.load(Ordering::Relaxed);
        if self.order.remove(&place).is_none() {
            return false;
        }
        self.of_tenant.remove(&(key.tenant.clone(), place));
        if let Some(count) = self.count.get_mut(&key.tenant) {
            *count -= 1;
            if *count == 0 {
                self.count.remove(&key.tenant);
            }
        }
        true
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

#[cfg(all(test, shuttle))]
mod interleavings;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::crypto::allotment::Budget;
    use crate::crypto::secret::DataKey;
    use crate::crypto::suite::Suite;
    use crate::key::kek::KekUri;
    use crate::key::record::KeyRecord;
    use crate::key::region::Region;

    pub(in crate::keyring) const TTL: Duration = Duration::from_secs(300);

    pub(in crate::keyring) fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    pub(in crate::keyring) fn scope(channel: u8) -> Scope {
        Scope::new(&[("channel", &channel.to_string())]).unwrap()
    }

    pub(in crate::keyring) fn key(of: &str, channel: u8, loaded: Duration) -> Arc<CachedKey> {
        key_drawing_from(&Arc::new(Budget::new(100)), of, channel, loaded)
    }

    pub(in crate::keyring) fn key_drawing_from(
        budget: &Arc<Budget>,
        of: &str,
        channel: u8,
        loaded: Duration,
    ) -> Arc<CachedKey> {
        let mut bytes = [channel; 32];
        bytes[0] = !channel;
        bytes[1..=of.len()].copy_from_slice(of.as_bytes());
        let data_key = DataKey::take(&mut bytes).unwrap();
        let kek = KekUri::new("local:a").unwrap();
        let record = KeyRecord::bare(
            tenant(of),
            KeyId::of(&data_key, Suite::Aes256Gcm).unwrap(),
            Suite::Aes256Gcm,
            scope(channel),
            Region::new("eu").unwrap(),
        );
        let loaded_key = LoadedKey::verified(&data_key, &record, Arc::clone(budget)).unwrap();
        Arc::new(CachedKey::new(record.tenant, None, kek.into(), loaded_key, loaded, TTL, Duration::MAX))
    }

    fn put(cache: &Arc<KeyCache>, key: &Arc<CachedKey>) -> SlotRef {
        let slot = cache.slot(&key.tenant, key.key.scope());
        assert!(cache.insert(key, Some(slot.slot()), || true));
        slot
    }

    fn has(cache: &KeyCache, key: &CachedKey, now: Duration) -> bool {
        cache.with_opening(&key.tenant, key.key.key_id(), now, |_| ()).is_some()
    }

    #[test]
    fn nothing_of_a_key_is_left_when_it_is_taken_out() {
        let cache = Arc::new(KeyCache::new(10, 10));
        let keys: Vec<_> = (0..5).map(|c| key("acme", c, Duration::ZERO)).collect();
        let slots: Vec<_> = keys.iter().map(|k| put(&cache, k)).collect();
        assert_eq!(Arc::strong_count(&keys[0]), 4, "ours, the map's, the slot's, the book's");
        assert_eq!(cache.purge(&tenant("globex"), |_| true, || {}), 0);
        assert_eq!(cache.purge(&tenant("acme"), |k| *k.key.scope() == scope(0), || {}), 1);
        assert!(slots[0].slot().is_empty());
        assert!(!slots[1].slot().is_empty());
        assert_eq!(cache.sweep(TTL - Duration::from_nanos(1)), 0);
        assert_eq!(cache.sweep(TTL), 4);
        assert!(keys.iter().all(|k| Arc::strong_count(k) == 1), "somebody still holds a key");
        assert_eq!(cache.len(), 0);
        drop(slots);
        assert!(lock(&cache.slots).is_empty(), "empty slots stay behind");
        let book = lock(&cache.book);
        assert!(book.order.is_empty() && book.of_tenant.is_empty() && book.count.is_empty());
    }

    #[test]
    fn a_key_loaded_again_replaces_itself_everywhere() {
        let cache = Arc::new(KeyCache::new(10, 10));
        let (old, new) = (key("acme", 1, Duration::ZERO), key("acme", 1, TTL / 2));
        let slot = put(&cache, &old);
        assert!(cache.insert(&new, None, || true), "loaded again to open");
        assert!(slot.slot().holds(&new), "what is in a slot must be in the book");
        assert_eq!((Arc::strong_count(&old), cache.len()), (1, 1));
        assert!(has(&cache, &new, TTL));
        assert_eq!(cache.purge(&tenant("acme"), |_| true, || {}), 1);
        assert!(slot.slot().is_empty());
    }

    /// What is copied grows with the keys that are taken out, not with their square.
    #[test]
    fn taking_many_keys_out_copies_each_pointer_about_once() {
        let cache = Arc::new(KeyCache::new(100_000, 100_000));
        let many = || (0..=255).flat_map(|channel| ["a", "b", "c", "d"].map(|of| key(of, channel, Duration::ZERO)));
        let copied = || cache.opening.copied.swap(0, std::sync::atomic::Ordering::Relaxed);
        let ways: [fn(&KeyCache) -> usize; 3] = [
            |cache| cache.purge_all(|| {}),
            |cache| cache.sweep(TTL),
            |cache| ["a", "b", "c", "d"].map(|of| cache.purge(&tenant(of), |_| true, || {})).iter().sum(),
        ];
        for (way, most) in ways.iter().zip([1_024, 1_024, 4 * 1_024]) {
            let slots: Vec<_> = many().map(|key| put(&cache, &key)).collect();
            copied();
            assert_eq!((way(&cache), cache.len()), (1_024, 0));
            let copied = copied();
            assert!(copied <= most, "{copied} pointers copied");
            assert!(slots.iter().all(|slot| slot.slot().is_empty()));
        }
    }

    #[test]
    fn a_key_that_was_loaded_anew_while_others_are_taken_out_stays() {
        let cache = Arc::new(KeyCache::new(10, 10));
        let (old, new) = (key("acme", 1, Duration::ZERO), key("acme", 1, TTL));
        let slot = put(&cache, &old);
        put(&cache, &new);
        assert_eq!(cache.take_all(vec![Arc::clone(&old)]), 0);
        assert!(has(&cache, &new, TTL) && slot.slot().holds(&new));
        assert_eq!(cache.len(), 1);
        assert_eq!(cache.empty_slots_of(&[old]), 0);
        assert_eq!(cache.empty_slots_of(&[Arc::clone(&new)]), 1);
        assert!(has(&cache, &new, TTL), "it opens still");
    }

    #[test]
    fn quota_and_capacity_take_the_oldest() {
        let cache = Arc::new(KeyCache::new(5, 3));
        let mine: Vec<_> = (0..4).map(|c| key("acme", c, Duration::ZERO)).collect();
        let slots: Vec<_> = mine.iter().map(|k| put(&cache, k)).collect();
        assert_eq!(cache.len(), 3);
        assert!(!has(&cache, &mine[0], Duration::ZERO) && slots[0].slot().is_empty());
        let theirs: Vec<_> = (0..3).map(|c| key("globex", c, Duration::ZERO)).collect();
        let _slots: Vec<_> = theirs.iter().map(|k| put(&cache, k)).collect();
        assert_eq!(cache.len(), 5);
        assert!(!has(&cache, &mine[1], Duration::ZERO), "the oldest of all");
        assert!(theirs.iter().chain(&mine[2..]).all(|k| has(&cache, k, Duration::ZERO)));
    }

    #[test]
    fn an_expired_key_is_not_found_and_an_invalid_one_not_put_in() {
        let cache = Arc::new(KeyCache::new(5, 5));
        let key = key("acme", 1, Duration::ZERO);
        assert!(!cache.insert(&key, None, || false));
        assert_eq!(cache.len(), 0);
        put(&cache, &key);
        assert!(has(&cache, &key, TTL - Duration::from_nanos(1)));
        assert!(!has(&cache, &key, TTL));
        let globex = tenant("globex");
        assert!(cache.with_opening(&globex, key.key.key_id(), Duration::ZERO, |_| ()).is_none());
    }

    #[test]
    fn one_caller_at_a_time_is_told_to_refresh() {
        let key = key("acme", 1, Duration::ZERO);
        assert!(!key.wants_refresh(TTL * 4 / 5 - Duration::from_nanos(1)));
        assert!(key.wants_refresh(TTL * 4 / 5));
        assert!(!key.wants_refresh(TTL * 4 / 5));
        assert!(key.wants_refresh(TTL * 17 / 20));
    }

    #[test]
    fn handles_that_come_and_go_leave_no_slots_behind() {
        let cache = Arc::new(KeyCache::new(5, 5));
        for round in 0..100 {
            let one = cache.slot(&tenant("acme"), &scope(round));
            let two = cache.slot(&tenant("acme"), &scope(round));
            assert!(Arc::ptr_eq(&one.slot, &two.slot));
        }
        assert!(lock(&cache.slots).is_empty());
    }
}
