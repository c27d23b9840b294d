//! A key store that is counted, and whose log hangs on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use strongroom::{
    Error, KeyId, KeyStore, Log, LogEntry, MemoryKeyStore, PeriodLabel, Put, RowKey, Scope, TenantId, Write,
};

#[derive(Clone, Default)]
pub(crate) struct WatchedStore(Arc<State>);

#[derive(Default)]
struct State {
    inner: MemoryKeyStore,
    hangs: AtomicBool,
    reads: AtomicUsize,
}

impl WatchedStore {
    /// From now on its log hangs, or no more.
    pub(crate) fn hang(&self, hangs: bool) {
        self.0.hangs.store(hangs, Ordering::SeqCst);
    }

    /// How often a row was read.
    pub(crate) fn reads(&self) -> usize {
        self.0.reads.load(Ordering::SeqCst)
    }

    fn read(&self) -> &MemoryKeyStore {
        self.0.reads.fetch_add(1, Ordering::SeqCst);
        &self.0.inner
    }
}

#[async_trait::async_trait]
impl KeyStore for WatchedStore {
    async fn get(&self, key: &RowKey) -> Result<Option<Vec<u8>>, Error> {
        self.read().get(key).await
    }

    async fn active(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<(KeyId, Vec<u8>)>, Error> {
        self.read().active(tenant, scope, period).await
    }

    async fn tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<(TenantId, Vec<u8>)>, Error> {
        self.read().tenants(after, limit).await
    }

    async fn keys(&self, tenant: &TenantId, after: Option<&KeyId>, limit: u32) -> Result<Vec<(KeyId, Vec<u8>)>, Error> {
        self.read().keys(tenant, after, limit).await
    }

    async fn journal(&self, tenant: &TenantId, after: u64, limit: u32) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        self.read().journal(tenant, after, limit).await
    }

    async fn put(&self, writes: &[Write], entry: Option<LogEntry<'_>>) -> Result<Put, Error> {
        self.0.inner.put(writes, entry).await
    }

    async fn log(&self, after: Option<u64>, limit: u32) -> Result<Log, Error> {
        if self.0.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.0.inner.log(after, limit).await
    }

    async fn changed(&self) {
        self.0.inner.changed().await;
    }
}
