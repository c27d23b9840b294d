//! A key store that goes through others.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use strongroom::{
    Change, Changes, Error, ErrorKind, KeyId, KeyRecord, KeyStore, PeriodLabel, Placed, PostgresKeyStore, Result,
    Scope, TenantId, TenantRecord,
};

/// Each call goes to the next of several stores of one database, as if a balancer stood in front of a fleet.
#[derive(Default)]
pub(crate) struct Through {
    stores: Vec<PostgresKeyStore>,
    calls: AtomicUsize,
    /// Whether the log can be read without a notification before it.
    deaf_to_polls: bool,
    told: AtomicBool,
}

impl Through {
    pub(crate) fn in_turn(stores: Vec<PostgresKeyStore>) -> Self {
        Self { stores, ..Self::default() }
    }

    /// The log seems out of reach unless `changed` just resolved: what is heard was told, not polled.
    pub(crate) fn deaf_to_polls(store: PostgresKeyStore) -> Self {
        Self { stores: vec![store], deaf_to_polls: true, ..Self::default() }
    }

    fn next(&self) -> &PostgresKeyStore {
        &self.stores[self.calls.fetch_add(1, Ordering::Relaxed) % self.stores.len()]
    }
}

#[async_trait]
impl KeyStore for Through {
    async fn tenant(&self, tenant: &TenantId) -> Result<Option<TenantRecord>> {
        self.next().tenant(tenant).await
    }

    async fn insert_tenant(&self, record: &TenantRecord) -> Result<()> {
        self.next().insert_tenant(record).await
    }

    async fn update_tenant(&self, record: &TenantRecord, change: &Change) -> Result<()> {
        self.next().update_tenant(record, change).await
    }

    async fn tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<TenantRecord>> {
        self.next().tenants(after, limit).await
    }

    async fn announce(&self, change: &Change) -> Result<()> {
        self.next().announce(change).await
    }

    async fn changes(&self, after: Option<u64>, limit: u32) -> Result<Changes> {
        if self.deaf_to_polls && after.is_some() && !self.told.swap(false, Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "polled"));
        }
        self.next().changes(after, limit).await
    }

    async fn changed(&self) {
        self.next().changed().await;
        self.told.store(true, Ordering::SeqCst);
    }

    async fn key(&self, tenant: &TenantId, key_id: &KeyId) -> Result<Option<KeyRecord>> {
        self.next().key(tenant, key_id).await
    }

    async fn active_key(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<KeyRecord>> {
        self.next().active_key(tenant, scope, period).await
    }

    async fn insert_active(&self, record: &KeyRecord) -> Result<Placed> {
        self.next().insert_active(record).await
    }

    async fn succeed(&self, old: &KeyId, successor: &KeyRecord) -> Result<Placed> {
        self.next().succeed(old, successor).await
    }

    async fn update_keys(&self, records: &[KeyRecord]) -> Result<Vec<bool>> {
        self.next().update_keys(records).await
    }

    async fn keys(&self, tenant: &TenantId, after: Option<&KeyId>, limit: u32) -> Result<Vec<KeyRecord>> {
        self.next().keys(tenant, after, limit).await
    }
}
