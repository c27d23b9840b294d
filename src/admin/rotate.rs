//! Rotation: new data keys before the old ones' time.

use crate::admin::decide::Decided;
use crate::admin::walk::{Pages, WalkOptions, Walked};
use crate::admin::{Admin, explain};
use crate::error::{Error, ErrorKind, Result};
use crate::format::context::Field;
use crate::key::change::Forget;
use crate::key::floor::{self, Floor};
use crate::key::id::{KeyId, TenantId};
use crate::key::journal::{Decision, MAX_ENTRY_KEYS};
use crate::key::record::KeyRecord;
use crate::key::revocation::Selector;
use crate::key::scope::Scope;
use crate::key::state::KeyState;
use crate::retry::Patience;

impl Admin {
    /// Gives a scope a new data key now and returns its id. The old one opens what it sealed and seals no more: at once in
    /// this process, within the revocation bound in others.
    ///
    /// # Errors
    /// As sealing under a new key; as every verb ([`Admin`](crate::Admin#errors-of-every-verb)); `Unavailable` if the store
    /// failed after the key was made: then it seals here, and in others after the policy's cache time to live at the latest.
    pub async fn rotate(&self, tenant: &str, scope: &[Field<'_>]) -> Result<KeyId> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let scope = Scope::new(scope)?;
            let mut patience = Patience::default();
            while patience.tries_again().await {
                match self.keyring.rotate(&id, &scope, &self.by).await {
                    Err(e) if e.kind() == ErrorKind::Conflict => {}
                    rotated => {
                        let key_id = rotated?;
                        let selector = of_scope(&scope);
                        let decision = Decision::new("rotate").about(&selector).changed([key_id]);
                        self.change(&id, |_| {
                            Ok(Some(Decided::forgetting(decision.clone(), &selector, Forget::Sealing)))
                        })
                        .await?;
                        tracing::info!(tenant = %id, %scope, %key_id, actor = self.by.actor(), "rotated a data key on demand");
                        return Ok(key_id);
                    }
                }
            }
            Err(Error::new(ErrorKind::Unavailable, "the tenant's keys are being changed over and over; retry"))
        };
        run.await.map_err(|e: Error| explain(e, "rotate", tenant))
    }

    /// Deactivates every Active data key that `selector` covers: each scope gets a new one with its next message. What they sealed
    /// still opens. Hygiene: whoever writes the key store can put a deactivated key's record back; after a compromise use
    /// [`Self::rotate_after_compromise`]. No KMS call. Repeat it after a failure: what is done stays done.
    ///
    /// # Errors
    /// `InvalidArgument` if the selector could cover nothing; as every verb ([`Admin`](crate::Admin#errors-of-every-verb)).
    /// If a record does not read, or could not be changed, all others are done first: then an error of that kind names it and
    /// carries [`Walked`].
    pub async fn rotate_all(&self, tenant: &str, selector: Selector, options: &WalkOptions) -> Result<Walked> {
        let run = async {
            let id = TenantId::new(tenant)?;
            self.check_rule(&id, &selector).await?;
            let mut changed = Vec::new();
            let mut pages = Pages::new(self, &id, options);
            while let Some(page) = pages.next().await? {
                let now = self.keyring.clock.unix_millis();
                let due = |r: &KeyRecord| r.state == KeyState::Active && selector.covers_record(r);
                let change = |r: KeyRecord| r.into_state(KeyState::Deactivated, now, &self.by);
                changed.extend(self.update_due(&mut pages.walked, page, due, change).await?);
            }
            let walked = pages.walked;
            let decision = Decision::new("rotate-all").about(&selector).with("keys", walked.done);
            let decision = decision.changed(changed.into_iter().take(MAX_ENTRY_KEYS));
            self.change(&id, |_| Ok(Some(Decided::forgetting(decision.clone(), &selector, Forget::Sealing)))).await?;
            tracing::info!(tenant = %id, %selector, keys = walked.done, actor = self.by.actor(), "rotated data keys on demand");
            walked.finished()
        };
        run.await.map_err(|e: Error| explain(e, "rotate", tenant))
    }

    /// Gives up every data key that `selector` covers and that was made so far: somebody else may know it. None of them seals any
    /// more, on any node within the revocation bound, whatever the key store shows: the rule stands in the tenant's row.
    /// Each scope gets a new key with its next message. What they sealed still opens; reseal it. Returns how many Active
    /// keys the store listed among them.
    ///
    /// # Errors
    /// `InvalidArgument` if the selector could cover nothing; `Limit` beyond 10 000 such rules that none includes; as every
    /// verb ([`Admin`](crate::Admin#errors-of-every-verb)). The rule stands before any record is looked at; of records as
    /// [`Self::rotate_all`].
    pub async fn rotate_after_compromise(
        &self,
        tenant: &str,
        selector: Selector,
        options: &WalkOptions,
    ) -> Result<Walked> {
        let run = async {
            let id = TenantId::new(tenant)?;
            self.check_rule(&id, &selector).await?;
            self.change(&id, |row| {
                let before = row.epoch + 1;
                floor::add(&mut row.compromised, Floor { selector: selector.clone(), before })?;
                let decision =
                    Decision::new("rotate-after-compromise").about(&selector).with("made-before-epoch", before);
                Ok(Some(Decided::forgetting(decision, &selector, Forget::Sealing).always()))
            })
            .await?;
            let mut pages = Pages::new(self, &id, options);
            while let Some(page) = pages.next().await? {
                let now = self.keyring.clock.unix_millis();
                let row = self.keyring.tenant(&id).await?;
                let due = |r: &KeyRecord| r.state == KeyState::Active && row.is_compromised(r);
                let change = |r: KeyRecord| r.into_state(KeyState::Compromised, now, &self.by);
                self.update_due(&mut pages.walked, page, due, change).await?;
            }
            let walked = pages.walked;
            tracing::warn!(tenant = %id, %selector, keys = walked.done, actor = self.by.actor(), "gave up data keys after a compromise");
            walked.finished()
        };
        run.await.map_err(|e: Error| explain(e, "rotate after compromise", tenant))
    }
}

/// The keys of one scope.
fn of_scope(scope: &Scope) -> Selector {
    if scope.fields().next().is_none() { Selector::everything() } else { Selector::fields(scope.fields()) }
}
