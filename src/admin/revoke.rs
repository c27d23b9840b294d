//! Revoking and restoring: what a tenant suspends, and lifts again.

use crate::admin::{Admin, explain};
use crate::error::{Error, Result};
use crate::key::change::Forget;
use crate::key::id::TenantId;
use crate::key::revocation::{Revocation, Selector};

impl Admin {
    /// Suspends the keys that `selector` covers, and keeps new ones from being made, until [`Self::restore`]. Cached keys
    /// go at once in this process, and within the revocation bound (`StrongroomBuilder::revocation_bound`) in others.
    ///
    /// # Errors
    /// `InvalidArgument` if the selector could cover nothing; `UnknownTenant`; `Limit` beyond 1000 revocations; `Unavailable`
    /// if the store does not answer: then it is not known whether the revocation stands, and only this process's keys are
    /// gone.
    pub async fn revoke(&self, tenant: &str, selector: Selector) -> Result<()> {
        let run = async {
            let id = TenantId::new(tenant)?;
            // First here, so that a store that is down does not keep this process opening.
            self.keyring.purge(&id, &selector);
            let since = self.keyring.clock.unix_millis();
            self.change(&id, |row| {
                selector.check(row.policy.scope_fields())?;
                if row.revocations.iter().any(|r| r.selector == selector) {
                    return Ok(None);
                }
                row.revocations.push(Revocation { selector: selector.clone(), since });
                Ok(Some((selector.clone(), Forget::Keys)))
            })
            .await?;
            tracing::info!(tenant = %id, %selector, "revoked");
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
                Ok(Some((selector.clone(), Forget::Nothing)))
            })
            .await?;
            tracing::info!(tenant = %id, %selector, "restored");
            Ok(())
        };
        run.await.map_err(|e: Error| explain(e, "restore", tenant))
    }
}
