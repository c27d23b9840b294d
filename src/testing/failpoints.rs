//! Failpoints: a hook before and after every call to a key store or a KMS.

use std::sync::Arc;

use async_trait::async_trait;

use crate::crypto::secret::DataKey;
use crate::error::Result;
use crate::key::encryption_context::EncryptionContext;
use crate::key::id::{KeyId, TenantId};
use crate::key::kek::KekUri;
use crate::key::period::PeriodLabel;
use crate::key::scope::Scope;
use crate::kms::{GeneratedKey, KekDescription, Kms};
use crate::store::row::{Log, Put, RowChange, RowKey, Write};
use crate::store::{KeyStore, LogEntry};

type Hook = Arc<dyn Fn(&'static str) -> Result<()> + Send + Sync>;

/// A key store or a KMS with a hook: it is called with the failpoint's name, such as `store.get.key.before` or `kms.wrap.after`, and
/// may count, fail the call, or end the process. An error after a call loses the answer, not the work.
///
/// A `put` bears the name of what it writes: `store.put.tenant.before`. That is `room`, `fleet`, `tenant`, `new_key` (one at
/// least that was not there), `key`, `kek` or `journal`, of several the first of these, and `log` where it writes no row.
///
/// ```
/// use strongroom::MemoryKeyStore;
/// use strongroom::testing::Failpoints;
/// let store = Failpoints::new(MemoryKeyStore::default(), |point| {
///     if point == "store.put.key.after" { std::process::abort() }
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

/// The names around a `get`, by what it reads.
fn get_points(key: &RowKey) -> [&'static str; 2] {
    macro_rules! points {
        ($what:literal) => {
            [concat!("store.get.", $what, ".before"), concat!("store.get.", $what, ".after")]
        };
    }
    match key {
        RowKey::Room => points!("room"),
        RowKey::Fleet => points!("fleet"),
        RowKey::Tenant(_) => points!("tenant"),
        RowKey::Key(..) => points!("key"),
        RowKey::Journal(..) => points!("journal"),
        RowKey::Kek(_) => points!("kek"),
    }
}

/// The names around a `put`, by what it writes.
macro_rules! put_points {
    ($what:literal) => {
        [concat!("store.put.", $what, ".before"), concat!("store.put.", $what, ".after")]
    };
}

/// One `put` writes rows of several kinds: it is named after the first of these that it writes.
fn put_points(writes: &[Write]) -> [&'static str; 2] {
    let written = |kind: fn(&Write) -> bool| writes.iter().any(|w| w.change != RowChange::Keep && kind(w));
    if written(|w| w.key == RowKey::Room) {
        put_points!("room")
    } else if written(|w| w.key == RowKey::Fleet) {
        put_points!("fleet")
    } else if written(|w| matches!(w.key, RowKey::Tenant(_))) {
        put_points!("tenant")
    } else if written(|w| matches!(w.key, RowKey::Key(..)) && w.expected.is_none()) {
        put_points!("new_key")
    } else if written(|w| matches!(w.key, RowKey::Key(..))) {
        put_points!("key")
    } else if written(|w| matches!(w.key, RowKey::Kek(_))) {
        put_points!("kek")
    } else if written(|w| matches!(w.key, RowKey::Journal(..))) {
        put_points!("journal")
    } else {
        put_points!("log")
    }
}

#[async_trait]
impl<S: KeyStore> KeyStore for Failpoints<S> {
    async fn get(&self, key: &RowKey) -> Result<Option<Vec<u8>>> {
        let [before, after] = get_points(key);
        (self.hook)(before)?;
        let answer = self.inner.get(key).await;
        (self.hook)(after)?;
        answer
    }

    async fn active(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<(KeyId, Vec<u8>)>> {
        around!(self, "store", active(tenant, scope, period))
    }

    async fn tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<(TenantId, Vec<u8>)>> {
        around!(self, "store", tenants(after, limit))
    }

    async fn keys(&self, tenant: &TenantId, after: Option<&KeyId>, limit: u32) -> Result<Vec<(KeyId, Vec<u8>)>> {
        around!(self, "store", keys(tenant, after, limit))
    }

    async fn journal(&self, tenant: &TenantId, after: u64, limit: u32) -> Result<Vec<(u64, Vec<u8>)>> {
        around!(self, "store", journal(tenant, after, limit))
    }

    async fn put(&self, writes: &[Write], entry: Option<LogEntry<'_>>) -> Result<Put> {
        let [before, after] = put_points(writes);
        (self.hook)(before)?;
        let answer = self.inner.put(writes, entry).await;
        (self.hook)(after)?;
        answer
    }

    async fn log(&self, after: Option<u64>, limit: u32) -> Result<Log> {
        around!(self, "store", log(after, limit))
    }

    async fn changed(&self) {
        self.inner.changed().await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    use crate::error::{Error, ErrorKind};
    use crate::key::state::KeyState;
    use crate::store::memory::MemoryKeyStore;
    use crate::store::row::KeyIndex;

    fn write(key: RowKey, old: Option<&[u8]>, bytes: &[u8]) -> Write {
        let scope = Scope::new(&[("channel", "C1")]).unwrap();
        let index = KeyIndex { scope, period: None, state: KeyState::Deactivated };
        let index = matches!(key, RowKey::Key(..)).then_some(index);
        let expected = old.map(crate::key::row_digest::RowDigest::of);
        Write { key, expected, change: RowChange::Put(bytes.to_vec(), index) }
    }

    #[tokio::test]
    async fn a_put_is_named_after_what_it_writes_and_an_error_after_it_loses_only_the_answer() {
        let passed: Arc<Mutex<Vec<&str>>> = Arc::default();
        let seen = Arc::clone(&passed);
        let store = Failpoints::new(MemoryKeyStore::default(), move |point| {
            let mut seen = seen.lock().unwrap();
            seen.push(point);
            let lost = point == "store.put.kek.after" || point == "store.put.journal.before";
            if lost { Err(Error::new(ErrorKind::Unavailable, point)) } else { Ok(()) }
        });
        let acme = TenantId::new("acme").unwrap();
        let [tenant, journal] = [RowKey::Tenant(acme.clone()), RowKey::Journal(acme.clone(), 1)];
        let [one, other] = [1, 2].map(|n| RowKey::Key(acme.clone(), KeyId::from_bytes([n; 32])));
        let kek = RowKey::Kek(KekUri::new("local:a").unwrap());
        let kept = |key: &RowKey| Write { change: RowChange::Keep, ..write(key.clone(), Some(b"1"), b"") };
        let puts = [
            (vec![write(RowKey::Room, None, b"1"), write(RowKey::Fleet, None, b"1")], "room"),
            (vec![write(RowKey::Fleet, Some(b"1"), b"2")], "fleet"),
            (vec![write(one.clone(), None, b"1"), write(tenant.clone(), None, b"1")], "tenant"),
            (vec![kept(&tenant), write(one.clone(), Some(b"1"), b"2"), write(other, None, b"1")], "new_key"),
            (vec![kept(&tenant), write(one, Some(b"2"), b"3")], "key"),
            (vec![write(kek.clone(), None, b"1")], "kek"),
            (vec![write(journal.clone(), None, b"1")], "journal"),
            (vec![], "log"),
        ];
        for (writes, name) in puts {
            let put = store.put(&writes, None).await;
            let points = std::mem::take(&mut *passed.lock().unwrap());
            let expected = ["before", "after"].map(|end| format!("store.put.{name}.{end}"));
            let reached = if name == "journal" { 1 } else { 2 };
            assert_eq!(points, expected[..reached], "{name}");
            assert_eq!(put.is_err(), name == "kek" || name == "journal");
        }
        assert_eq!(store.inner.get(&kek).await.unwrap().unwrap(), b"1", "an error after a call undid it");
        assert_eq!(
            store.inner.get(&journal).await.unwrap(),
            None,
            "an error before a call did not keep it from being made"
        );
    }
}
