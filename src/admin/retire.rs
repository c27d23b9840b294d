//! Retiring: destroying data keys that nothing refers to any more, on proof. First it is seen which keys seal no more (the
//! cutoff); when every writer that began before has ended, envelopes are counted; keys that none refers to can go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::walk::{Pages, WalkOptions};
use crate::admin::{Admin, explain};
use crate::error::{Error, ErrorKind, Result};
use crate::file::sealer::FILE_SEALING_LIMIT;
use crate::key::census::{Census, CompleteCensus};
use crate::key::cutoff::Cutoff;
use crate::key::erasure::Erasure;
use crate::key::id::{KeyId, TenantId};
use crate::key::revocation::Selector;
use crate::key::state::KeyState;

impl Admin {
    /// Sees which of the tenant's data keys seal no more, and where its home is: where a proof of absence begins. Keep it, and
    /// this process, for a bit more than a day: until then a file may be sealed that was begun before
    /// ([`FILE_SEALING_LIMIT`], the policy's cache time to live and the revocation bound). Store what you seal within that time.
    ///
    /// # Errors
    /// As every verb ([`Admin`](crate::Admin#errors-of-every-verb)).
    pub async fn cutoff(&self, tenant: &str) -> Result<Cutoff> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let row = self.keyring.tenant(&id).await?;
            let mut closed = BTreeSet::new();
            let options = WalkOptions::default().page(1000);
            let mut pages = Pages::new(self, &id, &options);
            while let Some(page) = pages.next().await? {
                closed
                    .extend(page.iter().filter(|record| record.state != KeyState::Active).map(|record| record.key_id));
            }
            let ttl = row.policy.key_cache_ttl();
            let writers = FILE_SEALING_LIMIT.saturating_add(ttl).saturating_add(self.keyring.watch.bound());
            Ok(Cutoff::new(id, row.policy.home_region().clone(), closed, self.now(), writers))
        };
        run.await.map_err(|e: Error| explain(e, "see what seals no more", tenant))
    }

    /// A census for [`Self::retire`] and [`Self::finish_migration`], begun now. Feed it the headers of all of the tenant's
    /// envelopes, read from now on, and [complete](Census::complete) it.
    ///
    /// # Errors
    /// `Conflict` while what began before the cutoff may still be under way: it says for how long.
    pub fn census(&self, cutoff: &Cutoff) -> Result<Census> {
        cutoff.check_writers_ended(self.now()).map_err(|e| e.with_operation("begin census"))?;
        Ok(Census::after(Arc::new(cutoff.clone()), self.keyring.clock.unix_millis()))
    }

    /// Puts data keys to wait to be erased, if the census proves that no envelope refers to them: each sealed no more at the
    /// census's cutoff, and was counted zero times.
    ///
    /// # Errors
    /// `Conflict` naming a key that is Active, still sealed at the cutoff, or is referred to, and how often;
    /// `InvalidArgument` for a key that the tenant does not have, or a census without this tenant's cutoff; else as
    /// [`Self::erase`].
    pub async fn retire(
        &self,
        tenant: &str,
        keys: &[KeyId],
        census: &CompleteCensus,
        wait: Duration,
    ) -> Result<Erasure> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let cutoff = census.cutoff(&id)?;
            for key_id in keys {
                self.check_seals_no_more(&id, key_id).await?;
                if !cutoff.is_closed(key_id) {
                    let message =
                        format!("key {key_id} may still have sealed at the census's cutoff: begin with another one");
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
                self.check_seals_no_more(&id, key_id).await?;
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

    async fn check_seals_no_more(&self, id: &TenantId, key_id: &KeyId) -> Result<()> {
        match self.keyring.key_row(id, key_id).await? {
            Some(record) if record.state == KeyState::Active => {
                Err(Error::new(ErrorKind::Conflict, format!("key {key_id} is Active: rotate it first")))
            }
            Some(_) => Ok(()),
            None => Err(Error::invalid(format!("the tenant has no key {key_id}"))),
        }
    }
}
