//! A key store in memory: for tests, and for processes whose keys need not outlive them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::error::Result;
use crate::key::change::{Change, Changes, Forget};
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::record::KeyRecord;
use crate::key::scope::Scope;
use crate::key::state::KeyState;
use crate::key::tenant::TenantRecord;
use crate::store::{KEY_EXISTS, KeyStore, NOT_ACTIVE, Placed, STALE_EPOCH, STALE_TENANT, TENANT_EXISTS, conflict};

/// A key store that is gone with the process.
///
/// ```
/// let store = strongroom::MemoryKeyStore::default();
/// # let _ = store;
/// ```
#[derive(Default)]
pub struct MemoryKeyStore {
    tables: Mutex<Tables>,
    grown: Notify,
}

/// How many changes the log keeps.
const LOG: usize = 10_000;

#[derive(Default)]
struct Tables {
    tenants: BTreeMap<TenantId, TenantRecord>,
    keys: BTreeMap<(TenantId, KeyId), KeyRecord>,
    /// The Active key of each tenant, scope and period.
    active: BTreeMap<ActiveAt, KeyId>,
    log: VecDeque<Change>,
    /// How many changes there ever were.
    logged: u64,
}

type ActiveAt = (TenantId, Scope, Option<PeriodLabel>);

fn active_at(record: &KeyRecord) -> ActiveAt {
    (record.tenant.clone(), record.scope.clone(), record.period.clone())
}

impl Tables {
    fn active(&self, tenant: &TenantId, scope: &Scope, period: Option<&PeriodLabel>) -> Option<&KeyRecord> {
        let key_id = self.active.get(&(tenant.clone(), scope.clone(), period.cloned()))?;
        self.keys.get(&(tenant.clone(), *key_id))
    }

    fn log(&mut self, change: &Change) {
        if change.forget != Forget::Nothing {
            self.logged += 1;
            self.log.push_back(change.clone());
            self.log.drain(..self.log.len().saturating_sub(LOG));
        }
    }

    fn insert(&mut self, record: &KeyRecord) -> Result<Placed> {
        let at = (record.tenant.clone(), record.key_id);
        match self.tenants.get(&record.tenant) {
            Some(_) if self.keys.contains_key(&at) => return Err(conflict(KEY_EXISTS)),
            Some(tenant) if tenant.epoch != record.wrapped_epoch => return Err(conflict(STALE_EPOCH)),
            Some(_) => {}
            None => return Err(conflict(KEY_EXISTS)),
        }
        self.keys.insert(at, record.clone());
        self.active.insert(active_at(record), record.key_id);
        Ok(Placed::New)
    }
}

impl Tables {
    fn update(&mut self, record: &KeyRecord) -> bool {
        let active = self.active(&record.tenant, &record.scope, record.period.as_ref());
        let other_active = active.is_some_and(|active| active.key_id != record.key_id);
        if record.state == KeyState::Active && other_active {
            return false;
        }
        match self.keys.get_mut(&(record.tenant.clone(), record.key_id)) {
            Some(stored)
                if stored.revision.checked_add(1) == Some(record.revision) && stored.state != KeyState::Destroyed =>
            {
                stored.state = record.state;
                stored.state_since = record.state_since;
                stored.wrapped.clone_from(&record.wrapped);
                stored.pending.clone_from(&record.pending);
                stored.wrapped_epoch = record.wrapped_epoch;
                stored.revision = record.revision;
            }
            _ => return false,
        }
        if record.state == KeyState::Active {
            self.active.insert(active_at(record), record.key_id);
        } else if !other_active {
            self.active.remove(&active_at(record));
        }
        true
    }
}

impl MemoryKeyStore {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl KeyStore for MemoryKeyStore {
    async fn tenant(&self, tenant: &TenantId) -> Result<Option<TenantRecord>> {
        Ok(self.tables().tenants.get(tenant).cloned())
    }

    async fn insert_tenant(&self, record: &TenantRecord) -> Result<()> {
        let mut tables = self.tables();
        if tables.tenants.contains_key(&record.tenant) {
            return Err(conflict(TENANT_EXISTS));
        }
        tables.tenants.insert(record.tenant.clone(), record.clone());
        Ok(())
    }

    async fn update_tenant(&self, record: &TenantRecord, change: &Change) -> Result<()> {
        let mut tables = self.tables();
        match tables.tenants.get_mut(&record.tenant) {
            Some(stored) if stored.epoch.checked_add(1) == Some(record.epoch) => stored.clone_from(record),
            _ => return Err(conflict(STALE_TENANT)),
        }
        tables.log(change);
        self.grown.notify_waiters();
        Ok(())
    }

    async fn tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<TenantRecord>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let tables = self.tables();
        let rows = tables.tenants.range::<TenantId, _>((from, Bound::Unbounded));
        Ok(rows.take(limit as usize).map(|(_, record)| record.clone()).collect())
    }

    async fn announce(&self, change: &Change) -> Result<()> {
        self.tables().log(change);
        self.grown.notify_waiters();
        Ok(())
    }

    async fn changes(&self, after: Option<u64>, limit: u32) -> Result<Changes> {
        let tables = self.tables();
        let upto = tables.logged;
        Ok(Changes::missed(after, upto, limit).map_or_else(
            |answer| answer,
            |missed| {
                let kept = usize::try_from(missed).unwrap_or(usize::MAX).min(tables.log.len());
                Changes::read(tables.log.range(tables.log.len() - kept..).cloned().collect(), missed, upto)
            },
        ))
    }

    async fn changed(&self) {
        self.grown.notified().await;
    }

    async fn key(&self, tenant: &TenantId, key_id: &KeyId) -> Result<Option<KeyRecord>> {
        Ok(self.tables().keys.get(&(tenant.clone(), *key_id)).cloned())
    }

    async fn active_key(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<KeyRecord>> {
        Ok(self.tables().active(tenant, scope, period).cloned())
    }

    async fn insert_active(&self, record: &KeyRecord) -> Result<Placed> {
        let mut tables = self.tables();
        match tables.active(&record.tenant, &record.scope, record.period.as_ref()) {
            Some(existing) => Ok(Placed::Existing(Box::new(existing.clone()))),
            None => tables.insert(record),
        }
    }

    async fn succeed(&self, old: &KeyId, successor: &KeyRecord) -> Result<Placed> {
        let mut tables = self.tables();
        let active = tables.active(&successor.tenant, &successor.scope, successor.period.as_ref());
        match active.cloned() {
            None => Err(conflict(NOT_ACTIVE)),
            Some(active) if active.key_id != *old => Ok(Placed::Existing(Box::new(active))),
            Some(mut active) => {
                let placed = tables.insert(successor)?;
                active.state = KeyState::Deactivated;
                active.state_since = successor.created_at;
                active.revision += 1;
                tables.keys.insert((active.tenant.clone(), active.key_id), active);
                Ok(placed)
            }
        }
    }

    async fn update_keys(&self, records: &[KeyRecord]) -> Result<Vec<bool>> {
        records.iter().try_for_each(KeyRecord::check)?;
        let mut tables = self.tables();
        Ok(records.iter().map(|record| tables.update(record)).collect())
    }

    async fn keys(&self, tenant: &TenantId, after: Option<&KeyId>, limit: u32) -> Result<Vec<KeyRecord>> {
        let from = match after {
            Some(id) => Bound::Excluded((tenant.clone(), *id)),
            None => Bound::Included((tenant.clone(), KeyId::from_bytes([0; 32]))),
        };
        let tables = self.tables();
        let mine = tables.keys.range((from, Bound::Unbounded)).take_while(|((t, _), _)| t == tenant);
        Ok(mine.take(limit as usize).map(|(_, record)| record.clone()).collect())
    }
}
