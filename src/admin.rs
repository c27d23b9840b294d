//! Floor 5, the control plane: enrolling tenants, rotating, revoking and restoring keys.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::format::context::Field;
use crate::key::id::{KeyId, TenantId};
use crate::key::policy::TenantPolicy;
use crate::key::record::KeyRecord;
use crate::key::revocation::{Revocation, Selector};
use crate::key::scope::Scope;
use crate::key::tenant::TenantRecord;
use crate::keyring::Keyring;

/// The control plane of a room. Another handle than the data plane's, for other hands.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # use strongroom::*;
/// # let kms = LocalKms::in_memory();
/// # let region = Region::new("eu-central-1")?;
/// # let kek = kms.create_kek("acme", region.clone())?;
/// # let room = Strongroom::builder().serving(["eu-central-1"]).key_store(MemoryKeyStore::default()).kms(kms).build()?;
/// let admin = room.admin();
/// admin.enroll("acme", TenantPolicy::new(kek, region).scope_by(["channel"])).await?;
/// let channel = room.tenant("acme").await?.scope([("channel", "C9")])?;
/// let old = channel.seal(&[], b"before").await?;
/// admin.rotate("acme", &[("channel", "C9")]).await?;
/// assert_eq!(&*channel.open(&[], &old).await?, b"before"); // what was sealed still opens
///
/// let this_channel = Selector::fields([("channel", "C9")]);
/// admin.revoke("acme", this_channel.clone()).await?;
/// assert_eq!(channel.open(&[], &old).await.unwrap_err().kind(), ErrorKind::Revoked);
/// admin.restore("acme", this_channel).await?;
/// assert!(channel.open(&[], &old).await.is_ok());
/// # Ok::<(), Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Admin {
    keyring: Arc<Keyring>,
}

/// Tries of a read-change-write that others got in between of.
const TRIES: usize = 16;

impl Admin {
    pub(crate) fn new(keyring: Arc<Keyring>) -> Self {
        Self { keyring }
    }

    /// Enrols a tenant. Its KEKs are asked for first: each must be enabled and in the policy's home region.
    ///
    /// # Errors
    /// `InvalidArgument` for a wrong name or policy, or a KEK whose scheme no KMS answers for; `Region` if the home region
    /// is not served here or a KEK is elsewhere; `Denied` or `Unavailable` if a KEK cannot be asked for; `Conflict` if the
    /// tenant is enrolled already.
    pub async fn enroll(&self, tenant: &str, policy: TenantPolicy) -> Result<()> {
        let run = async {
            let tenant = TenantId::new(tenant)?;
            self.check_policy(&tenant, &policy).await?;
            let enrolled_at = self.keyring.clock.unix_millis();
            let row = TenantRecord { tenant, policy, revocations: Vec::new(), enrolled_at, revision: 1 };
            self.keyring.store.insert_tenant(&row).await
        };
        run.await.map_err(|e| explain(e, "enroll", tenant))
    }

    /// Replaces a tenant's policy. It counts for new data keys from the next load on; records that exist stay as they are.
    ///
    /// # Errors
    /// As [`Self::enroll`], and `UnknownTenant`.
    pub async fn set_policy(&self, tenant: &str, policy: TenantPolicy) -> Result<()> {
        let run = async {
            let id = TenantId::new(tenant)?;
            self.check_policy(&id, &policy).await?;
            self.change(&id, |row| {
                row.policy = policy.clone();
                Ok(true)
            })
            .await?;
            // Sealing keys that the old policy chose are asked for again.
            self.keyring.purge(&id, &Selector::everything());
            Ok(())
        };
        run.await.map_err(|e: Error| explain(e, "set policy", tenant))
    }

    /// A tenant's row: its policy and what is revoked.
    ///
    /// # Errors
    /// `UnknownTenant` or `Unavailable`.
    pub async fn tenant(&self, tenant: &str) -> Result<TenantRecord> {
        let run = async { self.keyring.tenant(&TenantId::new(tenant)?).await };
        run.await.map_err(|e| explain(e, "read tenant", tenant))
    }

    /// Gives a scope a new data key now and returns its id. The old one opens what it sealed and seals no more: at once in
    /// this process, in others when they next load the scope's key, at the latest after the policy's cache time to live.
    ///
    /// # Errors
    /// As sealing under a new key.
    pub async fn rotate(&self, tenant: &str, scope: &[Field<'_>]) -> Result<KeyId> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let scope = Scope::new(scope)?;
            let key_id = self.keyring.rotate(&id, &scope).await?;
            self.keyring.stop_sealing(&id, &scope);
            tracing::info!(tenant = %id, %scope, %key_id, "rotated a data key on demand");
            Ok(key_id)
        };
        run.await.map_err(|e: Error| explain(e, "rotate", tenant))
    }

    /// Suspends the keys that `selector` covers, and keeps new ones from being made, until [`Self::restore`]. Cached keys
    /// go at once in this process; in others they end with the policy's cache time to live.
    ///
    /// # Errors
    /// `InvalidArgument` if the selector names a field that no scope of the tenant has; `UnknownTenant`; `Unavailable` if
    /// the store does not answer: then it is not known whether the revocation stands, and only this process's keys are gone.
    pub async fn revoke(&self, tenant: &str, selector: Selector) -> Result<()> {
        let run = async {
            let id = TenantId::new(tenant)?;
            // First here, so that a store that is down does not keep this process opening.
            self.keyring.purge(&id, &selector);
            let since = self.keyring.clock.unix_millis();
            self.change(&id, |row| {
                selector.check(row.policy.scope_fields())?;
                if row.revocations.iter().any(|r| r.selector == selector) {
                    return Ok(false);
                }
                row.revocations.push(Revocation { selector: selector.clone(), since });
                Ok(true)
            })
            .await?;
            let purged = self.keyring.purge(&id, &selector);
            tracing::info!(tenant = %id, ?selector, purged, "revoked");
            Ok(())
        };
        run.await.map_err(|e: Error| explain(e, "revoke", tenant))
    }

    /// Lifts a revocation. What other revocations cover stays revoked.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no such revocation; `UnknownTenant` or `Unavailable`.
    pub async fn restore(&self, tenant: &str, selector: Selector) -> Result<()> {
        let run = async {
            let id = TenantId::new(tenant)?;
            self.change(&id, |row| {
                let before = row.revocations.len();
                row.revocations.retain(|r| r.selector != selector);
                if row.revocations.len() == before {
                    return Err(Error::invalid("there is no such revocation; list them with Admin::tenant"));
                }
                Ok(true)
            })
            .await?;
            tracing::info!(tenant = %id, ?selector, "restored");
            Ok(())
        };
        run.await.map_err(|e: Error| explain(e, "restore", tenant))
    }

    /// Takes all of a tenant's keys out of this process's memory at once; they are loaded again when next needed, if the
    /// KMS and the store still allow it. Returns how many there were.
    ///
    /// # Errors
    /// `InvalidArgument` if that is no tenant's name.
    pub fn purge(&self, tenant: &str) -> Result<usize> {
        let id = TenantId::new(tenant).map_err(|e| explain(e, "purge", tenant))?;
        Ok(self.keyring.purge(&id, &Selector::everything()))
    }

    /// A tenant's key records in the order of their ids, at most `limit`, after the id `after`.
    ///
    /// # Errors
    /// `Unavailable` or `Malformed` as the store has it.
    pub async fn keys(&self, tenant: &str, after: Option<&KeyId>, limit: u32) -> Result<Vec<KeyRecord>> {
        let run = async { self.keyring.store.keys(&TenantId::new(tenant)?, after, limit).await };
        run.await.map_err(|e| explain(e, "list keys", tenant))
    }

    async fn check_policy(&self, tenant: &TenantId, policy: &TenantPolicy) -> Result<()> {
        policy.check()?;
        let home = policy.home_region();
        self.keyring.check_served(home.as_str())?;
        for kek in policy.keks() {
            let description = self.keyring.kms.describe(tenant, kek).await?;
            if description.region != *home {
                let message = format!("the KEK is in {}, the tenant's home region is {home}", description.region);
                return Err(Error::new(ErrorKind::Region, message).with_kek(kek.as_str()).with_region(home.as_str()));
            }
            if !description.enabled {
                let disabled = Error::new(ErrorKind::Denied, "the KEK is disabled; its owner can enable it");
                return Err(disabled.with_kek(kek.as_str()));
            }
        }
        Ok(())
    }

    /// Reads a tenant's row, changes it, and writes it if nobody else did meanwhile; else again. `change` says whether
    /// there is anything to write.
    async fn change(&self, tenant: &TenantId, change: impl Fn(&mut TenantRecord) -> Result<bool>) -> Result<()> {
        for _ in 0..TRIES {
            let mut row = self.keyring.tenant(tenant).await?;
            if !change(&mut row)? {
                return Ok(());
            }
            row.revision += 1;
            match self.keyring.store.update_tenant(&row).await {
                Err(e) if e.kind() == ErrorKind::Conflict => {}
                written => return written,
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the tenant's row is being changed over and over; retry"))
    }
}

fn explain(e: Error, operation: &'static str, tenant: &str) -> Error {
    e.with_operation(operation).with_tenant(tenant)
}
