//! Failpoints: a hook before and after every call to a key store or a KMS.

use std::sync::Arc;

use async_trait::async_trait;

use crate::crypto::secret::DataKey;
use crate::error::Result;
use crate::key::change::{Change, Changes};
use crate::key::encryption_context::EncryptionContext;
use crate::key::id::{KeyId, TenantId};
use crate::key::kek::KekUri;
use crate::key::period::PeriodLabel;
use crate::key::record::KeyRecord;
use crate::key::scope::Scope;
use crate::key::tenant::TenantRecord;
use crate::kms::{GeneratedKey, KekDescription, Kms};
use crate::store::{KeyStore, Placed};

type Hook = Arc<dyn Fn(&'static str) -> Result<()> + Send + Sync>;

/// A key store or a KMS with a hook: it is called with the failpoint's name, such as `store.insert_active.before` or
/// `kms.wrap.after`, and may count, fail the call, or end the process. An error after a call loses the answer, not the work.
///
/// ```
/// use strongroom::MemoryKeyStore;
/// use strongroom::testing::Failpoints;
/// let store = Failpoints::new(MemoryKeyStore::default(), |point| {
///     if point == "store.update_keys.after" { std::process::abort() }
///     Ok(())
/// });
/// # let _ = store;
/// ```
pub struct Failpoints<T> {
    inner: T,
    hook: Hook,
}

impl<T> Failpoints<T> {
    /// `inner` with `hook` around every call.
    pub fn new(inner: T, hook: impl Fn(&'static str) -> Result<()> + Send + Sync + 'static) -> Self {
        Self { inner, hook: Arc::new(hook) }
    }
}

/// The names around one call.
macro_rules! around {
    ($self:ident, $layer:literal, $call:ident ( $($argument:expr),* )) => {{
        ($self.hook)(concat!($layer, ".", stringify!($call), ".before"))?;
        let answer = $self.inner.$call($($argument),*).await;
        ($self.hook)(concat!($layer, ".", stringify!($call), ".after"))?;
        answer
    }};
}

#[async_trait]
impl<S: KeyStore> KeyStore for Failpoints<S> {
    async fn tenant(&self, tenant: &TenantId) -> Result<Option<TenantRecord>> {
        around!(self, "store", tenant(tenant))
    }

    async fn insert_tenant(&self, record: &TenantRecord) -> Result<()> {
        around!(self, "store", insert_tenant(record))
    }

    async fn update_tenant(&self, record: &TenantRecord, change: &Change) -> Result<()> {
        around!(self, "store", update_tenant(record, change))
    }

    async fn tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<TenantRecord>> {
        around!(self, "store", tenants(after, limit))
    }

    async fn announce(&self, change: &Change) -> Result<()> {
        around!(self, "store", announce(change))
    }

    async fn changes(&self, after: Option<u64>, limit: u32) -> Result<Changes> {
        around!(self, "store", changes(after, limit))
    }

    async fn changed(&self) {
        self.inner.changed().await;
    }

    async fn key(&self, tenant: &TenantId, key_id: &KeyId) -> Result<Option<KeyRecord>> {
        around!(self, "store", key(tenant, key_id))
    }

    async fn active_key(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<KeyRecord>> {
        around!(self, "store", active_key(tenant, scope, period))
    }

    async fn insert_active(&self, record: &KeyRecord) -> Result<Placed> {
        around!(self, "store", insert_active(record))
    }

    async fn succeed(&self, old: &KeyId, successor: &KeyRecord) -> Result<Placed> {
        around!(self, "store", succeed(old, successor))
    }

    async fn update_keys(&self, records: &[KeyRecord]) -> Result<Vec<bool>> {
        around!(self, "store", update_keys(records))
    }

    async fn keys(&self, tenant: &TenantId, after: Option<&KeyId>, limit: u32) -> Result<Vec<KeyRecord>> {
        around!(self, "store", keys(tenant, after, limit))
    }
}

#[async_trait]
impl<K: Kms> Kms for Failpoints<K> {
    fn scheme(&self) -> &str {
        self.inner.scheme()
    }

    async fn describe(&self, kek: &KekUri) -> Result<KekDescription> {
        around!(self, "kms", describe(kek))
    }

    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, data_key: &DataKey) -> Result<Vec<u8>> {
        around!(self, "kms", wrap(kek, context, data_key))
    }

    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey> {
        around!(self, "kms", unwrap(kek, context, wrapped))
    }

    async fn generate(&self, kek: &KekUri, context: &EncryptionContext) -> Result<GeneratedKey> {
        around!(self, "kms", generate(kek, context))
    }

    async fn rewrap(
        &self,
        from: &KekUri,
        to: &KekUri,
        context: &EncryptionContext,
        wrapped: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        around!(self, "kms", rewrap(from, to, context, wrapped))
    }
}
