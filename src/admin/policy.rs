//! Changing a tenant's policy: from the one that stands, and so that what was sealed still opens.

use crate::admin::decide::{Decided, digest_of};
use crate::admin::walk::{Pages, WalkOptions};
use crate::admin::{Admin, explain};
use crate::error::{Error, ErrorKind, Result};
use crate::key::id::TenantId;
use crate::key::journal::Decision;
use crate::key::policy::TenantPolicy;
use crate::key::revocation::Selector;
use crate::key::state::KeyState;
use crate::key::tenant::TenantRecord;
use crate::keyring::rows::{KeyRow, TenantRow};

impl Admin {
    /// Replaces the policy of `from`, a tenant's row as [`Self::tenant`] gave it. It counts for new data keys at once; records that
    /// exist stay as they are. Nodes forget cached keys as far as the new policy is narrower, within the revocation bound. What it
    /// does not say of where KEKs are (`TenantPolicy::kek_in`) stays as it was.
    ///
    /// If somebody else changed the policy since `from` was read, nothing is written: a form that was opened before a rewrap
    /// does not put the old KEK back. Repeated after its answer was lost, it finds it done.
    ///
    /// ```
    /// # async fn longer(admin: &strongroom::Admin) -> strongroom::Result<()> {
    /// let row = admin.tenant("acme").await?;
    /// let policy = row.policy.clone().cache_ttl(std::time::Duration::from_secs(60));
    /// admin.set_policy(&row, policy).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::enroll`], and as every verb ([`Admin`](crate::Admin#errors-of-every-verb)); `Conflict` if the policy is
    /// another one than that of `from`, if the new one names other KEKs while a rewrap is under way, or other scope fields
    /// than those of data keys that exist: nobody could name what they sealed.
    pub async fn set_policy(&self, from: &TenantRecord, policy: TenantPolicy) -> Result<()> {
        let id = &from.tenant;
        let run = async {
            let next = policy.keeping_kek_regions(&from.policy);
            self.check_policy(id, &next).await?;
            let other_fields = next.scope_fields() != from.policy.scope_fields();
            if other_fields {
                self.check_scope_fields(id, &next).await?;
            }
            self.swap_policy(from, &next).await?;
            if other_fields {
                // A key of the old fields may have come in between. From now on none does: so this look is the last word.
                match self.check_scope_fields(id, &next).await {
                    Err(e) if e.kind() == ErrorKind::Conflict => {
                        self.swap_policy(&TenantRecord { policy: next, ..from.clone() }, &from.policy).await?;
                        return Err(e);
                    }
                    checked => checked?,
                }
            }
            tracing::info!(tenant = %id, actor = self.by.actor(), reason = self.by.reason(), "policy set");
            Ok(())
        };
        run.await.map_err(|e: Error| explain(e, "set policy", id.as_str()))
    }

    /// Writes `next` in the place of the policy of `from`.
    async fn swap_policy(&self, from: &TenantRecord, next: &TenantPolicy) -> Result<TenantRow> {
        self.change(&from.tenant, |row| {
            if row.incarnation == from.incarnation && row.policy == *next {
                return Ok(None); // an earlier call got this far
            }
            if row.incarnation != from.incarnation || row.policy != from.policy {
                let message = format!(
                    "the policy was changed since epoch {}, from which this change was made; it is epoch {} now: read it again",
                    from.epoch, row.epoch
                );
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            if row.rewrap.is_some() && row.policy.keks() != next.keks() {
                let message = "a rewrap is under way: finish it, or rewrap to the KEKs that you want";
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            let decision = Decision::new("set-policy")
                .with("from", digest_of(&row.policy)?)
                .with("to", digest_of(next)?)
                .with("keks", next.keks());
            let forget = row.policy.forgotten_for(next);
            row.policy = next.clone();
            Ok(Some(Decided::forgetting(decision, &Selector::everything(), forget)))
        })
        .await
    }

    /// # Errors
    /// `Conflict` if a data key has a scope of other fields than `next` wants: no handle could be had of it any more.
    async fn check_scope_fields(&self, id: &TenantId, next: &TenantPolicy) -> Result<()> {
        let options = WalkOptions::default().page(1000);
        let mut pages = Pages::new(self, id, &options);
        while let Some(page) = pages.next().await? {
            let stands =
                |record: &KeyRow| record.state != KeyState::Destroyed && next.check_scope(&record.scope).is_err();
            if let Some(record) = page.iter().find(|record| stands(record)) {
                let message = format!(
                    "data keys that exist have other scope fields ({}), and what they sealed would open no more; keep the fields, \
                     or enrol another tenant and move its messages there",
                    record.scope
                );
                return Err(Error::new(ErrorKind::Conflict, message));
            }
        }
        Ok(())
    }
}
