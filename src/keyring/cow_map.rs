//! A map that is read without a lock and copied on write, in shards.
//!
//! Reads take no lock and touch no shared counter; a removed value is dropped (and so wiped) as soon as the last reader
//! that found it leaves, not at some later epoch. A write copies one shard's table of pointers, which is nothing beside the
//! KMS call that it follows.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use hashbrown::{Equivalent, HashTable};

use crate::sync::ArcSwap;

/// 128 shards: a write among 100 000 keys copies some 800 pointers.
const SHARDS: usize = 128;

/// Keys and values by the hash that also chose the shard: each lookup hashes once.
type Table<K, V> = HashTable<(K, Arc<V>)>;

pub(crate) struct CowMap<K, V> {
    hasher: RandomState,
    shards: Box<[ArcSwap<Table<K, V>>]>,
}

impl<K: Clone + Eq + Hash, V> CowMap<K, V> {
    pub(crate) fn new() -> Self {
        Self { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| ArcSwap::from_pointee(Table::new())).collect() }
    }

    fn shard(&self, hash: u64) -> Option<&ArcSwap<Table<K, V>>> {
        // Bits 32 to 38 choose: the table uses the lowest and the highest ones.
        self.shards.get(usize::try_from((hash >> 32) % SHARDS as u64).unwrap_or(0))
    }

    /// Runs `read` on the value of `key`, which may be a borrowed form of `K`. Clones nothing.
    pub(crate) fn with<Q: Hash + Equivalent<K>, R>(&self, key: &Q, read: impl FnOnce(&Arc<V>) -> R) -> Option<R> {
        let hash = self.hasher.hash_one(key);
        self.shard(hash)?.load().find(hash, |(k, _)| key.equivalent(k)).map(|(_, value)| read(value))
    }

    /// Only one thread may write at a time: the cache's book is locked around it.
    pub(crate) fn insert(&self, key: K, value: Arc<V>) {
        let hash = self.hasher.hash_one(&key);
        if let Some(shard) = self.shard(hash) {
            let mut table = Table::clone(&shard.load());
            match table.find_mut(hash, |(k, _)| *k == key) {
                Some(entry) => entry.1 = value,
                None => drop(table.insert_unique(hash, (key, value), |(k, _)| self.hasher.hash_one(k))),
            }
            shard.store(Arc::new(table));
        }
    }

    /// As [`Self::insert`].
    pub(crate) fn remove(&self, key: &K) -> Option<Arc<V>> {
        let hash = self.hasher.hash_one(key);
        let shard = self.shard(hash)?;
        let mut table = Table::clone(&shard.load());
        let ((_, removed), _) = table.find_entry(hash, |(k, _)| k == key).ok()?.remove();
        shard.store(Arc::new(table));
        Some(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Counted<'a>(&'a AtomicUsize);

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_removed_value_is_dropped_at_once_or_with_its_last_reader() {
        let dropped = AtomicUsize::new(0);
        let map = CowMap::new();
        for key in 0..1_000_u32 {
            map.insert(key, Arc::new(Counted(&dropped)));
        }
        map.insert(7, Arc::new(Counted(&dropped)));
        assert_eq!(dropped.load(Ordering::SeqCst), 1, "replaced");
        assert!(map.remove(&8).is_some());
        assert!(map.remove(&8).is_none());
        assert_eq!(dropped.load(Ordering::SeqCst), 2, "removed");
        map.with(&9, |_| {
            map.remove(&9);
            assert_eq!(dropped.load(Ordering::SeqCst), 2, "somebody reads it");
        });
        assert_eq!(dropped.load(Ordering::SeqCst), 3);
        assert!(map.with(&9, |_| ()).is_none());
        assert_eq!((0..1_000).filter(|key| map.with(key, |_| ()).is_some()).count(), 998);
    }

    #[test]
    fn readers_see_a_value_whole_while_others_write() {
        let map = CowMap::<u32, u32>::new();
        map.insert(1, Arc::new(1));
        std::thread::scope(|s| {
            let reader = s.spawn(|| (0..20_000).all(|_| map.with(&1, |v| **v).is_some_and(|v| v >= 1)));
            for n in 0..2_000 {
                map.insert(n % 50 + 2, Arc::new(n));
                map.insert(1, Arc::new(n + 1));
            }
            assert!(reader.join().unwrap(), "the value was missing for a moment");
        });
    }
}
