//! A key store in memory: for tests, and for processes whose keys need not outlive them.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::error::Result;
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::scope::Scope;
use crate::key::state::KeyState;
use crate::store::StoreCapacity;
use crate::store::row::{self, KeyIndex, Log, Put, RowChange, RowKey, StoreIdentity, Write};
use crate::store::signal::Signal;
use crate::store::{KeyStore, LogEntry};

/// A key store that is gone with the process.
///
/// ```
/// let store = strongroom::MemoryKeyStore::default();
/// # let _ = store;
/// ```
#[derive(Default)]
pub struct MemoryKeyStore {
    tables: Mutex<Tables>,
    grown: Signal,
}

/// How many entries the log keeps.
const LOG: usize = 10_000;

#[derive(Clone)]
pub(crate) struct Tables {
    pub(crate) rows: BTreeMap<RowKey, Vec<u8>>,
    pub(crate) index: BTreeMap<(TenantId, KeyId), KeyIndex>,
    active: BTreeMap<Slot, KeyId>,
    pub(crate) log: VecDeque<(u64, Vec<u8>)>,
    /// The number of the newest entry that there ever was.
    pub(crate) end: u64,
    pub(crate) identity: StoreIdentity,
}

/// What has one Active key.
type Slot = (TenantId, Scope, Option<PeriodLabel>);

impl Default for Tables {
    fn default() -> Self {
        let random = RandomState::new().hash_one("a store's identity");
        Self {
            rows: BTreeMap::new(),
            index: BTreeMap::new(),
            active: BTreeMap::new(),
            log: VecDeque::new(),
            end: 0,
            identity: StoreIdentity(format!("memory:{random:016x}")),
        }
    }
}

fn slot(tenant: &TenantId, index: &KeyIndex) -> Option<Slot> {
    (index.state == KeyState::Active).then(|| (tenant.clone(), index.scope.clone(), index.period.clone()))
}

impl Tables {
    /// The places of writes that expect another version than there is.
    fn of_other_versions(&self, writes: &[Write]) -> Vec<usize> {
        let other = |write: &Write| row::version(self.rows.get(&write.key)) != write.expected;
        writes.iter().enumerate().filter(|(_, write)| other(write)).map(|(at, _)| at).collect()
    }

    /// The places of writes that would make a second Active key, done in their order.
    fn second_actives(&self, writes: &[Write]) -> Vec<usize> {
        let mut moved: BTreeMap<Slot, Option<KeyId>> = BTreeMap::new();
        let mut second = Vec::new();
        for (at, write) in writes.iter().enumerate() {
            let RowKey::Key(tenant, id) = &write.key else { continue };
            let index = match &write.change {
                RowChange::Put(_, index) => index.as_ref(),
                RowChange::Remove => None,
                RowChange::Keep => continue,
            };
            let before = self.index.get(&(tenant.clone(), *id)).and_then(|before| slot(tenant, before));
            if let Some(left) = before {
                moved.insert(left, None);
            }
            if let Some(taken) = index.and_then(|index| slot(tenant, index)) {
                let holder = moved.get(&taken).copied().unwrap_or_else(|| self.active.get(&taken).copied());
                if holder.is_some() {
                    second.push(at);
                } else {
                    moved.insert(taken, Some(*id));
                }
            }
        }
        second
    }

    /// Puts a row, or takes it away, whatever was there.
    pub(crate) fn set(&mut self, key: &RowKey, bytes: Option<Vec<u8>>, index: Option<KeyIndex>) {
        match bytes {
            Some(bytes) => self.rows.insert(key.clone(), bytes),
            None => self.rows.remove(key),
        };
        let RowKey::Key(tenant, id) = key else { return };
        let at = (tenant.clone(), *id);
        let left = self.index.remove(&at).and_then(|before| slot(tenant, &before));
        if let Some(left) = left.filter(|left| self.active.get(left) == Some(id)) {
            self.active.remove(&left);
        }
        if let Some(index) = index {
            self.active.extend(slot(tenant, &index).map(|taken| (taken, *id)));
            self.index.insert(at, index);
        }
    }

    fn after(&self, after: Bound<&RowKey>) -> impl Iterator<Item = (&RowKey, &Vec<u8>)> {
        self.rows.range::<RowKey, _>((after, Bound::Unbounded))
    }
}

impl MemoryKeyStore {
    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl KeyStore for MemoryKeyStore {
    /// Nothing here waits.
    fn capacity(&self) -> StoreCapacity {
        StoreCapacity::new(256, 256)
    }

    async fn get(&self, key: &RowKey) -> Result<Option<Vec<u8>>> {
        Ok(self.tables().rows.get(key).cloned())
    }

    async fn active(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<(KeyId, Vec<u8>)>> {
        let tables = self.tables();
        let active = tables.active.get(&(tenant.clone(), scope.clone(), period.cloned()));
        Ok(active.and_then(|id| Some((*id, tables.rows.get(&RowKey::Key(tenant.clone(), *id))?.clone()))))
    }

    async fn tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<(TenantId, Vec<u8>)>> {
        let after = after.map_or(RowKey::Fleet, |after| RowKey::Tenant(after.clone()));
        let tables = self.tables();
        let tenants = tables.after(Bound::Excluded(&after)).map_while(|(key, bytes)| match key {
            RowKey::Tenant(tenant) => Some((tenant.clone(), bytes.clone())),
            _ => None,
        });
        Ok(tenants.take(limit as usize).collect())
    }

    async fn keys(&self, tenant: &TenantId, after: Option<&KeyId>, limit: u32) -> Result<Vec<(KeyId, Vec<u8>)>> {
        let first = RowKey::Key(tenant.clone(), after.copied().unwrap_or(KeyId::from_bytes([0; 32])));
        let tables = self.tables();
        let keys = tables.after(after.map_or(Bound::Included(&first), |_| Bound::Excluded(&first)));
        let keys = keys.map_while(|(key, bytes)| match key {
            RowKey::Key(of, id) if of == tenant => Some((*id, bytes.clone())),
            _ => None,
        });
        Ok(keys.take(limit as usize).collect())
    }

    async fn journal(&self, tenant: &TenantId, after: u64, limit: u32) -> Result<Vec<(u64, Vec<u8>)>> {
        let after = RowKey::Journal(tenant.clone(), after);
        let tables = self.tables();
        let entries = tables.after(Bound::Excluded(&after)).map_while(|(key, bytes)| match key {
            RowKey::Journal(of, number) if of == tenant => Some((*number, bytes.clone())),
            _ => None,
        });
        Ok(entries.take(limit as usize).collect())
    }

    async fn put(&self, writes: &[Write], entry: Option<LogEntry<'_>>) -> Result<Put> {
        row::check(writes)?;
        let mut tables = self.tables();
        let mut against = tables.of_other_versions(writes);
        if against.is_empty() {
            against = tables.second_actives(writes);
        }
        if !against.is_empty() {
            return Ok(Put::Conflict(against));
        }
        let number = tables.end + 1;
        // Made before anything is written: it may fail.
        let entry = entry.map(|entry| entry(number));
        entry.iter().try_for_each(|entry| row::check_length(entry))?;
        for write in writes {
            match &write.change {
                RowChange::Put(bytes, index) => tables.set(&write.key, Some(bytes.clone()), index.clone()),
                RowChange::Remove => tables.set(&write.key, None, None),
                RowChange::Keep => {}
            }
        }
        let Some(entry) = entry else { return Ok(Put::Written(None)) };
        tables.end = number;
        tables.log.push_back((number, entry));
        let dropped = tables.log.len().saturating_sub(LOG);
        tables.log.drain(..dropped);
        self.grown.raise();
        Ok(Put::Written(Some(number)))
    }

    async fn log(&self, after: Option<u64>, limit: u32) -> Result<Log> {
        let tables = self.tables();
        let after = after.unwrap_or(u64::MAX);
        let entries = tables.log.range(tables.log.partition_point(|(number, _)| *number <= after)..);
        Ok(Log {
            entries: entries.take(limit as usize).cloned().collect(),
            end: tables.end,
            fleet: tables.rows.get(&RowKey::Fleet).cloned(),
            store: tables.identity.clone(),
        })
    }

    async fn changed(&self) {
        self.grown.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn who_waits_is_told_of_entries_and_of_nothing_else() {
        let store = MemoryKeyStore::default();
        let room = Write { key: RowKey::Room, expected: None, change: RowChange::Put(vec![1], None) };
        store.put(std::slice::from_ref(&room), None).await.unwrap();
        assert!(store.changed().now_or_never().is_none(), "a row is no entry");
        assert!(matches!(store.put(&[room], Some(&|_| vec![2])).await.unwrap(), Put::Conflict(_)));
        assert!(store.changed().now_or_never().is_none(), "nothing was written");
        store.put(&[], Some(&|_| vec![2])).await.unwrap();
        assert!(store.changed().now_or_never().is_some());
    }

    #[tokio::test]
    async fn an_entry_that_is_too_long_leaves_nothing_behind() {
        let store = MemoryKeyStore::default();
        let room = Write { key: RowKey::Room, expected: None, change: RowChange::Put(vec![1], None) };
        assert!(store.put(&[room], Some(&|_| vec![0; row::MAX_ROW + 1])).await.is_err());
        assert_eq!(store.get(&RowKey::Room).await.unwrap(), None);
        assert_eq!(store.log(Some(0), 10).await.unwrap().end, 0);
    }
}
