//! A key store that goes through others.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use strongroom::{
    Error, ErrorKind, KeyId, KeyStore, Log, LogEntry, PeriodLabel, PostgresKeyStore, Put, Result, RowKey, Scope,
    TenantId, Write,
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
    async fn get(&self, key: &RowKey) -> Result<Option<Vec<u8>>> {
        self.next().get(key).await
    }

    async fn active(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<(KeyId, Vec<u8>)>> {
        self.next().active(tenant, scope, period).await
    }

    async fn tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<(TenantId, Vec<u8>)>> {
        self.next().tenants(after, limit).await
    }

    async fn keys(&self, tenant: &TenantId, after: Option<&KeyId>, limit: u32) -> Result<Vec<(KeyId, Vec<u8>)>> {
        self.next().keys(tenant, after, limit).await
    }

    async fn journal(&self, tenant: &TenantId, after: u64, limit: u32) -> Result<Vec<(u64, Vec<u8>)>> {
        self.next().journal(tenant, after, limit).await
    }

    async fn put(&self, writes: &[Write], entry: Option<LogEntry<'_>>) -> Result<Put> {
        self.next().put(writes, entry).await
    }

    async fn log(&self, after: Option<u64>, limit: u32) -> Result<Log> {
        if self.deaf_to_polls && after.is_some() && !self.told.swap(false, Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "polled"));
        }
        self.next().log(after, limit).await
    }

    async fn changed(&self) {
        self.next().changed().await;
        self.told.store(true, Ordering::SeqCst);
    }
}
