//! Revoking and restoring: what a tenant suspends, and lifts again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::admin::decide::Decided;
use crate::admin::{Admin, explain};
use crate::error::{Error, Result};
use crate::key::change::{Change, Forget};
use crate::key::id::TenantId;
use crate::key::journal::Decision;
use crate::key::revocation::{Revocation, Selector};

/// How long the keys that a revocation covers are counted. It stands already: a kill switch does not wait for a long list.
const COUNTING: Duration = Duration::from_secs(2);

/// What a revocation covers at present. It covers keys to come as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Revoked {
    /// How many of the data keys that the store lists; `None` where they could not be counted within two seconds: ask
    /// [`Admin::preview`]. None at all may be a slip in a value.
    pub keys: Option<u64>,
}

impl Admin {
    /// Suspends the keys that `selector` covers, and keeps new ones from being made, until [`Self::restore`]. Cached keys
    /// go at once in this process, and within the revocation bound (`StrongroomBuilder::revocation_bound`) in others. A scope
    /// whose Active key alone is covered, by its id, gets a new one. Where 1000 revocations stand already, this one takes the
    /// place of the narrower ones, and lifting it lifts them.
    ///
    /// # Errors
    /// `InvalidArgument` if the selector could cover nothing: no condition, a name that neither the policy nor any key has, a
    /// period that is none; `Limit` beyond 1000 revocations that it does not include; else as every verb
    /// ([`Admin`](crate::Admin#errors-of-every-verb)): after any of these it is not known whether the revocation stands, and
    /// only this process's keys are gone.
    pub async fn revoke(&self, tenant: &str, selector: Selector) -> Result<Revoked> {
        let run = async {
            let id = TenantId::new(tenant)?;
            // First here, so that a store that is down does not keep this process opening.
            self.keyring.purge(&id, &selector);
            self.check_rule(&id, &selector).await?;
            let since = self.keyring.clock.unix_millis();
            let found = AtomicBool::new(false);
            self.change(&id, |row| {
                let stands = row.revocations.iter().any(|r| r.selector == selector);
                found.store(stands, Ordering::Relaxed);
                if stands {
                    return Ok(None);
                }
                row.revoke(Revocation { selector: selector.clone(), since });
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
            let counted = tokio::time::timeout(COUNTING, self.covered(&id, &selector)).await;
            Ok(Revoked { keys: counted.ok().and_then(Result::ok) })
        };
        run.await.map_err(|e: Error| explain(e, "revoke", tenant))
    }

    /// Lifts a revocation. What other revocations cover stays revoked. Repeated, it finds it done.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no such revocation; as every verb ([`Admin`](crate::Admin#errors-of-every-verb)).
    pub async fn restore(&self, tenant: &str, selector: Selector) -> Result<()> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let lifted = self
                .change(&id, |row| {
                    let before = row.revocations.len();
                    row.revocations.retain(|r| r.selector != selector);
                    if row.revocations.len() == before {
                        return Err(Error::invalid("there is no such revocation; list them with Admin::tenant"));
                    }
                    Ok(Some(Decided::quiet(Decision::new("restore").about(&selector))))
                })
                .await;
            self.unless_done(tenant, lifted, ["revoke", "restore"], &selector).await?;
            tracing::info!(tenant = %id, %selector, actor = self.by.actor(), reason = self.by.reason(), "restored");
            Ok(())
        };
        run.await.map_err(|e: Error| explain(e, "restore", tenant))
    }
}
