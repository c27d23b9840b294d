//! A map that is read without a lock and copied on write, in shards.
//!
//! Reads take no lock and touch no shared counter; a removed value is dropped (and so wiped) as soon as the last reader
//! that found it leaves, not at some later epoch. A write copies one shard's table of pointers, which is nothing beside the
//! KMS call that it follows.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::{Equivalent, HashTable};

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
