//! A key store edited behind its back: what somebody can do who writes where it rests.

use crate::store::memory::{MemoryKeyStore, Tables};
use crate::store::row::{KeyIndex, RowKey, StoreIdentity};

/// All of a [`MemoryKeyStore`] at one moment.
#[derive(Clone)]
pub struct MemorySnapshot(Tables);

/// Without any check, and without a word to who waits for changes.
impl MemoryKeyStore {
    /// Puts a row, or takes it away. Of two Active keys of one scope, the last one put is found.
    pub fn raw_put(&self, key: &RowKey, bytes: Option<Vec<u8>>, index: Option<KeyIndex>) {
        self.tables().set(key, bytes, index);
    }

    /// All rows.
    pub fn raw_rows(&self) -> Vec<(RowKey, Vec<u8>, Option<KeyIndex>)> {
        let tables = self.tables();
        let index = |key: &RowKey| match key {
            RowKey::Key(tenant, id) => tables.index.get(&(tenant.clone(), *id)).cloned(),
            _ => None,
        };
        tables.rows.iter().map(|(key, bytes)| (key.clone(), bytes.clone(), index(key))).collect()
    }

    /// Puts these entries in the place of the log; it ends with the last of them.
    pub fn raw_log_set(&self, entries: Vec<(u64, Vec<u8>)>) {
        let mut tables = self.tables();
        tables.end = entries.last().map_or(0, |(number, _)| *number);
        tables.log = entries.into();
    }

    /// Makes it another store, as a copy or a promoted standby is.
    pub fn raw_identity_set(&self, identity: &str) {
        self.tables().identity = StoreIdentity(identity.to_owned());
    }

    /// All of it as it is now.
    pub fn snapshot(&self) -> MemorySnapshot {
        MemorySnapshot(self.tables().clone())
    }

    /// Puts all of it back as it was, the log and the identity too.
    pub fn restore(&self, snapshot: &MemorySnapshot) {
        *self.tables() = snapshot.0.clone();
    }
}
