//! Moving a tenant to another region: new keys there at once, old records rewrapped, data resealed by its owner, and at every
//! moment everything opens where the policy allows it.

use crate::admin::decide::Decided;
use crate::admin::walk::{Pages, WalkOptions, Walked};
use crate::admin::{Admin, explain};
use crate::error::{Error, ErrorKind, Result};
use crate::key::census::CompleteCensus;
use crate::key::change::Forget;
use crate::key::id::TenantId;
use crate::key::journal::Decision;
use crate::key::kek_expression::KekExpression;
use crate::key::region::Region;
use crate::key::revocation::Selector;
use crate::key::rewrap::RewrapOrder;

/// The verb that ends a migration, as the journal has it.
const FINISH: &str = "finish-migration";

impl Admin {
    /// Makes `to` the tenant's home region and `keks` its KEKs. New data keys, and so new envelopes, are there at once, on
    /// every node within the revocation bound; the old home stays allowed, so that what was sealed there opens. Then rewraps
    /// every record for `keks`, as [`Self::rewrap`] does: repeat it after a crash. Repeated when all is done, it does nothing.
    ///
    /// Afterwards reseal the tenant's tables ([`Self::reseal`]), take what was Active in the old home out of use
    /// ([`Self::rotate_all`]), and, on a census, end with [`Self::finish_migration`], [`Self::retire`] the old home's keys and, when
    /// the wait is over, [`Self::carry_out_erasure`]: then the residency report is clean. Until the last call it names these keys as
    /// misplaced.
    ///
    /// # Errors
    /// `Region` if this process does not serve `to` or the KEKs are neither there nor in a region already allowed; else as
    /// [`Self::rewrap`].
    pub async fn migrate_region(
        &self,
        tenant: &str,
        to: Region,
        keks: impl Into<KekExpression>,
        options: &WalkOptions,
    ) -> Result<Walked> {
        let keks = keks.into();
        let order = async {
            let id = TenantId::new(tenant)?;
            let row = self.keyring.tenant(&id).await?;
            let moved = row.policy.clone().moved_to(to.clone()).wrapped_by(keks.clone());
            if row.policy == moved && (row.rewrap.is_some() || row.keks.is_settled()) {
                return Ok((id, row)); // an earlier call got this far, or to the end
            }
            self.check_policy(&id, &moved).await?;
            let since = self.keyring.clock.unix_millis();
            let ordered = self.change(&id, |row| {
                let moved = row.policy.clone().moved_to(to.clone()).wrapped_by(keks.clone());
                moved.check()?;
                let forget = row.policy.forgotten_for(&moved);
                row.policy = moved;
                row.rewrap = Some(RewrapOrder { to: keks.clone(), epoch: row.epoch + 1, since });
                let decision = Decision::new("migrate-region").with("to", &to).with("keks", &keks);
                Ok(Some(Decided::forgetting(decision, &Selector::everything(), forget.max(Forget::Sealing))))
            });
            let row = ordered.await?;
            tracing::info!(tenant = %id, region = %to, keks = %keks, "migrating to another region");
            Ok((id, row))
        };
        let run = async {
            let (id, row) = order.await?;
            Box::pin(self.carry_out_rewrap(&id, row, options)).await
        };
        run.await.map_err(|e: Error| explain(e, "migrate region", tenant))
    }

    /// Ends a migration: `from` is no longer allowed, and what is still sealed there opens no more. Refused while the census
    /// counts an envelope there, or if its cutoff ([`Self::cutoff`]) is of before [`Self::migrate_region`]. Repeated when it is
    /// done, it finds that.
    ///
    /// # Errors
    /// `Conflict` saying what is still in `from`, that the tenant was still at home there at the cutoff, or that the rewrap
    /// is not finished; `InvalidArgument` if it is the home, or no region of the tenant's, or for a census without this
    /// tenant's cutoff; as every verb ([`Admin`](crate::Admin#errors-of-every-verb)).
    pub async fn finish_migration(&self, tenant: &str, from: &Region, census: &CompleteCensus) -> Result<()> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let row = self.keyring.tenant(&id).await?;
            if *from == *row.policy.home_region() {
                return Err(Error::invalid(format!("{from} is the tenant's home region")));
            }
            if !row.policy.allows(from) {
                return self.check_was_there(&id, from).await;
            }
            if census.cutoff(&id)?.home() == from {
                let message =
                    format!("{from} was still the tenant's home at the census's cutoff: begin with another one");
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            let envelopes = census.in_region(from);
            if envelopes > 0 {
                let message = format!("{envelopes} envelopes are still in {from}: reseal them first");
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            self.change(&id, |row| {
                if row.rewrap.is_some() {
                    return Err(Error::new(ErrorKind::Conflict, "the rewrap is not finished: resume it first"));
                }
                let narrowed = row.policy.clone().disallow_region(from);
                narrowed.check()?;
                let forget = row.policy.forgotten_for(&narrowed);
                row.policy = narrowed;
                let decision = Decision::new(FINISH).with("from", from);
                Ok(Some(Decided::forgetting(decision, &Selector::everything(), forget)))
            })
            .await?;
            tracing::info!(tenant = %id, region = %from, "region no longer allowed");
            Ok(())
        };
        run.await.map_err(|e: Error| explain(e, "finish migration", tenant))
    }

    /// A region that is not allowed is one that a migration was finished from if the journal says so, or data keys of the tenant were
    /// there; else it is misspelt, and the one that was meant stays allowed.
    ///
    /// # Errors
    /// `InvalidArgument` if none was.
    async fn check_was_there(&self, id: &TenantId, from: &Region) -> Result<()> {
        let is_it = |decision: &Decision| {
            decision.verb == FINISH
                && decision.details.iter().any(|(name, value)| name == "from" && value == from.as_str())
        };
        if self.last_decision(id.as_str(), is_it).await?.is_some() {
            return Ok(());
        }
        let options = WalkOptions::default().page(1000);
        let mut pages = Pages::new(self, id, &options);
        while let Some(page) = pages.next().await? {
            if page.iter().any(|record| record.region == *from) {
                return Ok(());
            }
        }
        Err(Error::invalid(format!("{from} is neither allowed for the tenant nor a region that its keys were in")))
    }
}
