//! A map that is read without a lock and copied on write, in shards.
//!
//! Reads take no lock and touch no shared counter; a removed value is dropped (and so wiped) as soon as the last reader
//! that found it leaves, not at some later epoch. A write copies one shard's table of pointers, which is nothing beside the
//! KMS call that it follows.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use crate::sync::ArcSwap;

/// 128 shards: a write among 100 000 keys copies some 800 pointers.
const SHARDS: usize = 128;

/// A value that says itself what it is found by.
pub(crate) trait Keyed {
    type Key<'a>: Hash
    where
        Self: 'a;

    fn found_by(&self) -> Self::Key<'_>;

    /// Whether it is found by `key`.
    fn is_found_by(&self, key: &Self::Key<'_>) -> bool;
}

/// Values by the hash of their keys, which also chose the shard: each lookup hashes once.
type Table<V> = HashTable<Arc<V>>;

pub(crate) struct CowMap<V> {
    hasher: RandomState,
    shards: Box<[ArcSwap<Table<V>>]>,
    /// Pointers that writes copied.
    #[cfg(test)]
    pub(crate) copied: std::sync::atomic::AtomicUsize,
}

/// Bits 32 to 38 choose: the table uses the lowest and the highest ones.
fn shard_number(hash: u64) -> usize {
    usize::try_from((hash >> 32) % SHARDS as u64).unwrap_or(0)
}

impl<V: Keyed> CowMap<V> {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| ArcSwap::from_pointee(Table::new())).collect(),
            #[cfg(test)]
            copied: std::sync::atomic::AtomicUsize::default(),
        }
    }

    fn shard(&self, hash: u64) -> Option<&ArcSwap<Table<V>>> {
        self.shards.get(shard_number(hash))
    }

    /// Runs `read` on the value that is found by `key`. Clones nothing.
    pub(crate) fn with<R>(&self, key: &V::Key<'_>, read: impl FnOnce(&Arc<V>) -> R) -> Option<R> {
        let hash = self.hasher.hash_one(key);
        self.shard(hash)?.load().find(hash, |value| value.is_found_by(key)).map(read)
    }

    /// Puts `value` in, in the place of one with the same key. Only one thread may write at a time: the cache's book is locked
    /// around it.
    pub(crate) fn insert(&self, value: Arc<V>) {
        let hash = self.hasher.hash_one(value.found_by());
        if let Some(shard) = self.shard(hash) {
            let mut table = Table::clone(&shard.load());
            #[cfg(test)]
            self.count_copied(&table);
            match table.find_mut(hash, |other| other.is_found_by(&value.found_by())) {
                Some(entry) => *entry = value,
                None => drop(table.insert_unique(hash, value, |value| self.hasher.hash_one(value.found_by()))),
            }
            shard.store(Arc::new(table));
        }
    }

    /// Which shard a value is in.
    pub(crate) fn shard_of(&self, key: &V::Key<'_>) -> usize {
        shard_number(self.hasher.hash_one(key))
    }

    /// Takes out these very values, all of one shard, whose table is copied once. As [`Self::insert`].
    pub(crate) fn remove_all(&self, values: &[Arc<V>]) {
        let Some(first) = values.first() else { return };
        let Some(shard) = self.shard(self.hasher.hash_one(first.found_by())) else { return };
        let mut table = Table::clone(&shard.load());
        #[cfg(test)]
        self.count_copied(&table);
        for value in values {
            let hash = self.hasher.hash_one(value.found_by());
            if let Ok(entry) = table.find_entry(hash, |other| Arc::ptr_eq(other, value)) {
                drop(entry.remove());
            }
        }
        shard.store(Arc::new(table));
    }

    #[cfg(test)]
    fn count_copied(&self, table: &Table<V>) {
        self.copied.fetch_add(table.len(), std::sync::atomic::Ordering::Relaxed);
    }

    /// As [`Self::insert`].
    #[cfg(test)]
    pub(crate) fn remove(&self, key: &V::Key<'_>) -> Option<Arc<V>> {
        let hash = self.hasher.hash_one(key);
        let shard = self.shard(hash)?;
        let mut table = Table::clone(&shard.load());
        #[cfg(test)]
        self.count_copied(&table);
        let (removed, _) = table.find_entry(hash, |value| value.is_found_by(key)).ok()?.remove();
        shard.store(Arc::new(table));
        Some(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A value, and a counter of those that were dropped.
    struct Counted<'c>(u32, u32, &'c AtomicUsize);

    impl Keyed for Counted<'_> {
        type Key<'a>
            = u32
        where
            Self: 'a;

        fn found_by(&self) -> u32 {
            self.0
        }

        fn is_found_by(&self, key: &u32) -> bool {
            self.0 == *key
        }
    }

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.2.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_removed_value_is_dropped_at_once_or_with_its_last_reader() {
        let dropped = AtomicUsize::new(0);
        let map = CowMap::new();
        let put = |key| map.insert(Arc::new(Counted(key, 0, &dropped)));
        (0..1_000).for_each(put);
        put(7);
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
        assert_eq!((0..1_000).filter(|key| map.with(key, |value| value.0) == Some(*key)).count(), 998);
    }

    #[test]
    fn readers_see_a_value_whole_while_others_write() {
        let dropped = AtomicUsize::new(0);
        let map = CowMap::new();
        let put = |key, value| map.insert(Arc::new(Counted(key, value, &dropped)));
        put(1, 1);
        std::thread::scope(|s| {
            let reader = s.spawn(|| (0..20_000).all(|_| map.with(&1, |value| value.1).is_some_and(|value| value >= 1)));
            for n in 0..2_000 {
                put(n % 50 + 2, n);
                put(1, n + 1);
            }
            assert!(reader.join().unwrap(), "the value was missing for a moment");
        });
    }
}
