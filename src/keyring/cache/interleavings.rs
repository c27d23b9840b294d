//! The key cache under all interleavings that the schedules find: slots, map and book agree, and a purge reaches every key.

use shuttle::thread;

use super::tests::{TTL, key, scope, tenant};
use super::*;
use crate::sync::atomic::AtomicBool;
use crate::sync::explore;

const QUOTA: usize = 2;
const MOST: usize = 3;

/// Every key in the book is in the map, every one of `keys` in the map is in the book, and so is every key in a slot; the
/// numbers are right.
fn assert_agreement(cache: &KeyCache, keys: &[Arc<CachedKey>]) {
    let book = lock(&cache.book);
    assert!(book.order.len() <= MOST && book.count.values().all(|count| (1..=QUOTA).contains(count)));
    assert_eq!(book.of_tenant.len(), book.order.len());
    assert_eq!(book.count.values().sum::<usize>(), book.order.len());
    let in_book = |key: &Arc<CachedKey>| book.order.values().any(|other| Arc::ptr_eq(other, key));
    for key in keys.iter().chain(book.order.values()) {
        let in_map = cache.opening.with(&key.found_by(), |found| Arc::ptr_eq(found, key)).unwrap_or(false);
        assert_eq!(in_map, in_book(key), "book and map differ");
    }
    for slot in lock(&cache.slots).values() {
        assert!(slot.current.load().as_ref().is_none_or(in_book), "a key in a slot that no purge reaches");
    }
}

fn quotas_hold(cache: &KeyCache) -> bool {
    let book = lock(&cache.book);
    book.order.len() <= MOST && book.count.values().all(|count| *count <= QUOTA)
}

fn put(cache: &Arc<KeyCache>, key: &Arc<CachedKey>, seals: bool) -> SlotRef {
    let slot = cache.slot(&key.tenant, key.key.scope());
    assert!(cache.insert(key, seals.then_some(slot.slot()), || true));
    slot
}

#[test]
fn slots_map_and_book_agree_whoever_comes_in_between() {
    explore(|| {
        let cache = Arc::new(KeyCache::new(MOST, QUOTA));
        // Two loads of one key, one early and one late, and others of two tenants: more than either may have.
        let keys: Arc<[_]> =
            [("acme", 1, 0), ("acme", 1, 1), ("acme", 2, 0), ("globex", 1, 0), ("globex", 3, 1), ("acme", 3, 1)]
                .map(|(tenant, channel, loaded)| key(tenant, channel, TTL * loaded))
                .into();
        let run = |work: fn(&Arc<KeyCache>, &[Arc<CachedKey>])| {
            let (cache, keys) = (Arc::clone(&cache), Arc::clone(&keys));
            thread::spawn(move || work(&cache, &keys))
        };
        let threads = [
            run(|cache, keys| {
                let held = put(cache, &keys[0], true);
                drop(put(cache, &keys[2], true));
                // A handle's slot is the one that the next handle gets, and that a purge empties.
                assert!(Arc::ptr_eq(&held.slot, &cache.slot(&keys[0].tenant, keys[0].key.scope()).slot));
            }),
            run(|cache, keys| {
                drop(put(cache, &keys[3], true));
                drop(put(cache, &keys[1], false));
                drop(put(cache, &keys[4], true));
                drop(put(cache, &keys[5], true));
            }),
            run(|cache, keys| {
                cache.stop_sealing(&tenant("acme"), |key| *key.key.scope() == scope(2), || {});
                cache.sweep(TTL);
                assert!(quotas_hold(cache));
                cache.purge(&tenant("globex"), |_| true, || {});
                drop(cache.slot(&keys[0].tenant, keys[0].key.scope()));
            }),
        ];
        for thread in threads {
            thread.join().unwrap();
        }
        assert_agreement(&cache, &keys);
        cache.purge_all(|| {});
        assert_agreement(&cache, &keys);
        assert_eq!(cache.len(), 0);
        assert!(keys.iter().all(|key| Arc::strong_count(key) == 1), "somebody still holds a key");
        assert!(lock(&cache.slots).is_empty(), "empty slots stay behind");
    });
}

#[test]
fn after_a_purge_no_key_that_it_covers_can_be_found() {
    explore(|| {
        let cache = Arc::new(KeyCache::new(MOST, QUOTA));
        let purged = Arc::new(AtomicBool::new(false));
        let keys: Arc<[_]> = [key("acme", 1, Duration::ZERO), key("acme", 1, TTL)].into();
        let slot = cache.slot(&tenant("acme"), &scope(1));
        let loads: Vec<_> = (0..2)
            .map(|n| {
                let (cache, keys, purged) = (Arc::clone(&cache), Arc::clone(&keys), Arc::clone(&purged));
                thread::spawn(move || {
                    let slot = cache.slot(&tenant("acme"), &scope(1));
                    let sealing = (n == 0).then_some(slot.slot());
                    cache.insert(&keys[n], sealing, || !purged.load(Ordering::SeqCst));
                })
            })
            .collect();
        cache.purge(&tenant("acme"), |key| *key.key.scope() == scope(1), || purged.store(true, Ordering::SeqCst));
        let found =
            |key: &CachedKey| cache.with_opening(&key.tenant, key.key.key_id(), Duration::ZERO, |_| ()).is_some();
        assert!(!keys.iter().any(|key| found(key)) && slot.slot().is_empty(), "right after");
        for load in loads {
            load.join().unwrap();
        }
        assert!(!keys.iter().any(|key| found(key)) && slot.slot().is_empty(), "ever after");
    });
}
