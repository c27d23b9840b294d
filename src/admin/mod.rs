//! Floor 5, the control plane: enrolling tenants; rotating, rewrapping, revoking, erasing and moving keys.

pub(crate) mod decide;
pub(crate) mod enroll;
pub(crate) mod erase;
pub(crate) mod evict;
pub(crate) mod export;
pub(crate) mod journal;
pub(crate) mod migrate;
pub(crate) mod policy;
pub(crate) mod preview;
pub(crate) mod probe;
pub(crate) mod receipt;
pub(crate) mod remove;
pub(crate) mod residency;
pub(crate) mod retention;
pub(crate) mod retire;
pub(crate) mod revoke;
pub(crate) mod rewrap;
pub(crate) mod rotate;
pub(crate) mod rules;
pub(crate) mod suspend;
pub(crate) mod walk;

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::key::attribution::Attribution;
use crate::key::id::{KeyId, TenantId};
use crate::key::policy::TenantPolicy;
use crate::key::record::KeyRecord;
use crate::key::revocation::Selector;
use crate::key::tenant::TenantRecord;
use crate::keyring::Keyring;
use crate::sealer::TenantHandle;

/// The control plane of a room. Another handle than the data plane's, for other hands.
///
/// # Errors of every verb
///
/// Beside what each says of itself, a verb of a tenant fails as `UnknownTenant`; as `RolledBack`, `Tampered` or `Malformed` if the
/// tenant's row, or one that it needs, is not believed, and then nothing is decided; as `Unavailable`, `Throttled` or `StoreFault` where
/// the key store or the watermark says so. One that decides also says what the root's KMS does when it first signs (`Denied`,
/// `Unavailable`, `Throttled`), `Conflict` if the room's keys were changed in between (repeat it), and `Limit` if the tenant's row would
/// be longer than 8 MiB. Every verb may be repeated after any of these.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # use strongroom::*;
/// # let kms = LocalKms::in_memory();
/// # let region = Region::new("eu-central-1")?;
/// # let kek = kms.create_kek("acme", region.clone())?;
/// # let room = Strongroom::builder().serving(["eu-central-1"]).key_store(MemoryKeyStore::default()).kms(kms).trusting_the_key_store().build().await?;
/// let admin = room.admin("ops@example.com", "an example")?;
/// admin.enroll("acme", TenantPolicy::new(kek, region).scope_by(["channel"]).bind(["message"])).await?;
/// let channel = room.tenant("acme").await?.scope([("channel", "C9")])?;
/// let message = [("message", "M77")];
/// let old = channel.seal(&message, b"before").await?;
/// admin.rotate("acme", &[("channel", "C9")]).await?;
/// assert_eq!(&*channel.open(&message, &old).await?, b"before"); // what was sealed still opens
///
/// let this_channel = Selector::fields([("channel", "C9")]);
/// admin.revoke("acme", this_channel.clone()).await?;
/// assert_eq!(channel.open(&message, &old).await.unwrap_err().kind(), ErrorKind::Revoked);
/// admin.restore("acme", this_channel).await?;
/// assert!(channel.open(&message, &old).await.is_ok());
/// # Ok::<(), Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Admin {
    keyring: Arc<Keyring>,
    by: Attribution,
}

/// Tenants, as the key store lists them. It may leave some out.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TenantPage {
    /// Their rows.
    pub tenants: Vec<TenantRecord>,
    /// Those whose rows are not authentic or do not read, and why.
    pub unreadable: Vec<(TenantId, Error)>,
    /// The last one listed: ask for what comes after it next. `None` at the end.
    pub last: Option<TenantId>,
}

/// A tenant's key records, as the key store lists them. It may leave some out.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct KeyPage {
    /// The records, their states as the tenant's row has them.
    pub keys: Vec<KeyRecord>,
    /// Those that are not authentic or do not read, and why.
    pub unreadable: Vec<(KeyId, Error)>,
    /// The last one listed: ask for what comes after it next. `None` at the end.
    pub last: Option<KeyId>,
}

/// The scheme of the operator's root on one machine, which no tenant's policy names.
const LOCAL_ROOT: &str = "local-root";

impl Admin {
    pub(crate) fn new(keyring: Arc<Keyring>, by: Attribution) -> Self {
        Self { keyring, by }
    }

    /// Who decides what this handle does, and why.
    pub fn attribution(&self) -> &Attribution {
        &self.by
    }

    /// A tenant's row: its policy and what is revoked.
    ///
    /// # Errors
    /// As every verb ([`Admin`](crate::Admin#errors-of-every-verb)).
    pub async fn tenant(&self, tenant: &str) -> Result<TenantRecord> {
        let run = async { Ok(self.keyring.tenant(&TenantId::new(tenant)?).await?.record) };
        run.await.map_err(|e| explain(e, "read tenant", tenant))
    }

    /// Takes all of a tenant's keys out of this process's memory at once; they are loaded again when next needed, if the
    /// KMS and the store still allow it. Returns how many there were. It takes some 5 to 10 microseconds a key, on the thread that calls.
    ///
    /// # Errors
    /// `InvalidArgument` if that is no tenant's name.
    pub fn purge(&self, tenant: &str) -> Result<usize> {
        let id = TenantId::new(tenant).map_err(|e| explain(e, "purge", tenant))?;
        Ok(self.keyring.purge(&id, &Selector::everything()))
    }

    /// The kill switch: takes every tenant's keys out of this process's memory at once. Returns how many there were. It takes as
    /// long, for each key, as [`Self::purge`].
    pub fn purge_all(&self) -> usize {
        self.keyring.purge_all()
    }

    /// Tenants in the order of their names, at most `limit`, after the name `after`: as the store lists them.
    ///
    /// # Errors
    /// `Unavailable`, `Throttled` or `StoreFault` as the store says. A row that is `RolledBack`, `Tampered` or `Malformed` is
    /// that row's answer ([`TenantPage::unreadable`]), and no other's.
    pub async fn tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<TenantPage> {
        let listed = self.keyring.store.tenants(after, limit).await.map_err(|e| e.with_operation("list tenants"))?;
        let mut page = TenantPage { last: listed.last().map(|(tenant, _)| tenant.clone()), ..TenantPage::default() };
        for (tenant, _) in listed {
            // Read again as any other row: what is listed may be put back.
            match self.keyring.tenant(&tenant).await {
                Ok(row) => page.tenants.push(row.record),
                Err(e) => page.unreadable.push((tenant, e)),
            }
        }
        Ok(page)
    }

    /// A tenant's key records in the order of their ids, at most `limit`, after the id `after`: as the store lists them. Their
    /// states are those that the tenant's row gives them: what is revoked is Suspended, what was given up is Compromised.
    ///
    /// # Errors
    /// As every verb ([`Admin`](crate::Admin#errors-of-every-verb)): where the tenant's row is an older one, no key is
    /// listed. A record that is not authentic or does not read is that record's answer ([`KeyPage::unreadable`]).
    pub async fn keys(&self, tenant: &str, after: Option<&KeyId>, limit: u32) -> Result<KeyPage> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let row = self.keyring.tenant(&id).await?;
            let listed = self.keyring.store.keys(&id, after, limit).await?;
            let mut page = KeyPage { last: listed.last().map(|(key_id, _)| *key_id), ..KeyPage::default() };
            for (key_id, bytes) in listed {
                let record = self.keyring.verified_key(&id, &key_id, &bytes).await;
                match record.and_then(|record| row.check_record(&record).map(|()| record.record)) {
                    Ok(record) => page.keys.push(KeyRecord { state: row.state_of(&record), ..record }),
                    Err(e) => page.unreadable.push((key_id, e)),
                }
            }
            Ok(page)
        };
        run.await.map_err(|e: Error| explain(e, "list keys", tenant))
    }

    /// The data plane of a tenant, for work on its data that an administrator starts.
    pub(crate) async fn tenant_handle(&self, tenant: &str) -> Result<TenantHandle> {
        let row = self.keyring.tenant(&TenantId::new(tenant)?).await?;
        Ok(TenantHandle::new(Arc::clone(&self.keyring), row))
    }

    /// Says in the operator's log that something was decided, by whom and why.
    fn log(&self, what: &'static str) {
        tracing::info!(actor = self.by.actor(), reason = self.by.reason(), "{what}");
    }

    pub(crate) fn now(&self) -> Duration {
        self.keyring.now()
    }

    async fn check_policy(&self, tenant: &TenantId, policy: &TenantPolicy) -> Result<()> {
        policy.check()?;
        self.keyring.check_served(policy.home_region().as_str())?;
        for kek in policy.keks().keks() {
            let is_root = self.keyring.source.as_ref().is_some_and(|source| source.root.kek() == kek);
            if is_root || kek.scheme() == LOCAL_ROOT {
                return Err(Error::invalid("a tenant's policy names the operator's root").with_kek(kek.as_str()));
            }
            let description = self.keyring.kms.describe(tenant, kek).await?;
            policy.check_region(&description.region).map_err(|e| e.with_kek(kek.as_str()))?;
            if !description.enabled {
                let disabled = Error::new(ErrorKind::Denied, "the KEK is disabled; its owner can enable it");
                return Err(disabled.with_kek(kek.as_str()));
            }
        }
        Ok(())
    }
}

pub(crate) fn explain(e: Error, operation: &'static str, tenant: &str) -> Error {
    e.with_operation(operation).with_tenant(tenant)
}
