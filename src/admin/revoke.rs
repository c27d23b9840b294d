//! Revoking and restoring: what a tenant suspends, and lifts again.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::admin::decide::Decided;
use crate::admin::{Admin, explain};
use crate::error::{Error, Result};
use crate::key::change::{Change, Forget};
use crate::key::id::TenantId;
use crate::key::journal::Decision;
use crate::key::revocation::{Revocation, Selector};
use crate::key::tenant::MAX_RULES;

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
            let found = AtomicBool::new(false);
            self.change(&id, |row| {
                selector.check(row.policy.scope_fields())?;
                let stands = row.revocations.iter().any(|r| r.selector == selector);
                found.store(stands, Ordering::Relaxed);
                if stands {
                    return Ok(None);
                }
                if row.revocations.len() >= MAX_RULES {
                    // A broader rule says what the narrower ones said: so a rule for everything always has its place.
                    row.revocations.retain(|r| !selector.includes(&r.selector));
                }
                row.revocations.push(Revocation { selector: selector.clone(), since });
                let decision = Decision::new("revoke").about(&selector);
                Ok(Some(Decided::forgetting(decision, &selector, Forget::Keys).always()))
            })
            .await?;
            if found.load(Ordering::Relaxed) {
                // Whoever decided it may have ended before every node could hear of it.
                let change = Change { tenant: Some(id.clone()), selector: selector.clone(), forget: Forget::Keys };
                self.keyring.announce(&change).await?;
            }
            tracing::info!(tenant = %id, %selector, actor = self.by.actor(), reason = self.by.reason(), "revoked");
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
                Ok(Some(Decided::quiet(Decision::new("restore").about(&selector))))
            })
            .await?;
            tracing::info!(tenant = %id, %selector, actor = self.by.actor(), reason = self.by.reason(), "restored");
            Ok(())
        };
        run.await.map_err(|e: Error| explain(e, "restore", tenant))
    }
}
