//! A key store in memory: for tests, and for processes whose keys need not outlive them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::error::Result;
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::record::KeyRecord;
use crate::key::scope::Scope;
use crate::key::state::KeyState;
use crate::key::tenant::TenantRecord;
use crate::store::{KEY_EXISTS, KeyStore, NOT_ACTIVE, Placed, STALE_KEY, STALE_TENANT, TENANT_EXISTS, conflict};

/// A key store that is gone with the process.
///
/// ```
/// let store = strongroom::MemoryKeyStore::default();
/// # let _ = store;
/// ```
#[derive(Default)]
pub struct MemoryKeyStore(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    tenants: BTreeMap<TenantId, TenantRecord>,
    keys: BTreeMap<(TenantId, KeyId), KeyRecord>,
}

impl Tables {
    fn active(&self, tenant: &TenantId, scope: &Scope, period: Option<&PeriodLabel>) -> Option<&KeyRecord> {
        self.keys.values().find(|k| {
            k.state == KeyState::Active && k.tenant == *tenant && k.scope == *scope && k.period.as_ref() == period
        })
    }

    fn insert(&mut self, record: &KeyRecord) -> Result<Placed> {
        let at = (record.tenant.clone(), record.key_id);
        if self.keys.contains_key(&at) || !self.tenants.contains_key(&record.tenant) {
            return Err(conflict(KEY_EXISTS));
        }
        self.keys.insert(at, record.clone());
        Ok(Placed::New)
    }
}

impl MemoryKeyStore {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    async fn update_tenant(&self, record: &TenantRecord) -> Result<()> {
        match self.tables().tenants.get_mut(&record.tenant) {
            Some(stored) if stored.revision.checked_add(1) == Some(record.revision) => {
                stored.clone_from(record);
                Ok(())
            }
            _ => Err(conflict(STALE_TENANT)),
        }
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
                active.revision += 1;
                tables.keys.insert((active.tenant.clone(), active.key_id), active);
                Ok(placed)
            }
        }
    }

    async fn update_key(&self, record: &KeyRecord) -> Result<()> {
        let mut tables = self.tables();
        let other_active = tables
            .active(&record.tenant, &record.scope, record.period.as_ref())
            .is_some_and(|active| active.key_id != record.key_id);
        if record.state == KeyState::Active && other_active {
            return Err(conflict(STALE_KEY));
        }
        match tables.keys.get_mut(&(record.tenant.clone(), record.key_id)) {
            Some(stored) if stored.revision.checked_add(1) == Some(record.revision) => {
                stored.state = record.state;
                stored.wrappings.clone_from(&record.wrappings);
                stored.revision = record.revision;
                Ok(())
            }
            _ => Err(conflict(STALE_KEY)),
        }
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
