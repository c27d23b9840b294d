//! Retiring: destroying data keys that nothing refers to any more, on proof.

use std::time::Duration;

use crate::admin::{Admin, explain};
use crate::error::{Error, ErrorKind, Result};
use crate::key::census::Census;
use crate::key::erasure::Erasure;
use crate::key::id::{KeyId, TenantId};
use crate::key::revocation::Selector;
use crate::key::state::KeyState;

impl Admin {
    /// A census for [`Self::retire`], begun now. Feed it the headers of all of one tenant's envelopes.
    pub fn census(&self) -> Census {
        Census::begin(self.keyring.clock.unix_millis())
    }

    /// Puts data keys to wait to be erased, if the census proves that no envelope refers to them: each is Deactivated since
    /// before the census began (and so long that no node still sealed under it), and was counted zero times.
    ///
    /// # Errors
    /// `Conflict` naming a key that is Active, was deactivated too lately, or is referred to, and how often;
    /// `InvalidArgument` for a key that the tenant does not have; else as [`Self::erase`].
    pub async fn retire(&self, tenant: &str, keys: &[KeyId], census: &Census, wait: Duration) -> Result<Erasure> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let ttl = self.keyring.tenant(&id).await?.policy.key_cache_ttl();
            let ttl = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
            for key_id in keys {
                let since = self.deactivated_since(&id, key_id).await?;
                if since.saturating_add(ttl) > census.began_at() {
                    let message = format!(
                        "key {key_id} was deactivated after the census began, or less than the cache time to live before: \
                         count again"
                    );
                    return Err(Error::new(ErrorKind::Conflict, message));
                }
                let references = census.references(key_id);
                if references > 0 {
                    let message = format!("{references} envelopes still refer to key {key_id}: reseal them first");
                    return Err(Error::new(ErrorKind::Conflict, message));
                }
            }
            self.erase(tenant, Selector::keys(keys.iter().copied()), wait).await
        };
        run.await.map_err(|e: Error| explain(e, "retire", tenant))
    }

    /// [`Self::retire`] without proof: whatever these keys sealed is lost when the erasure is carried out. Said loudly in the
    /// log.
    ///
    /// # Errors
    /// `Conflict` for a key that is Active; `InvalidArgument` for one that the tenant does not have; else as [`Self::erase`].
    pub async fn force_retire_losing_data(&self, tenant: &str, keys: &[KeyId], wait: Duration) -> Result<Erasure> {
        let run = async {
            let id = TenantId::new(tenant)?;
            for key_id in keys {
                self.deactivated_since(&id, key_id).await?;
            }
            tracing::warn!(
                tenant,
                keys = keys.len(),
                "FORCED: keys are erased without proof that nothing refers to them"
            );
            self.erase(tenant, Selector::keys(keys.iter().copied()), wait).await
        };
        run.await.map_err(|e: Error| explain(e, "force retire", tenant))
    }

    async fn deactivated_since(&self, id: &TenantId, key_id: &KeyId) -> Result<i64> {
        let record = self.keyring.key_row(id, key_id).await?;
        match record {
            Some(record) if record.state == KeyState::Active => {
                Err(Error::new(ErrorKind::Conflict, format!("key {key_id} is Active: rotate it first")))
            }
            Some(record) => Ok(record.state_since),
            None => Err(Error::invalid(format!("the tenant has no key {key_id}"))),
        }
    }
}
