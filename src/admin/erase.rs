//! Erasing: crypto-shredding in two steps. First the keys are put to wait, and seal and open no more; when their time has
//! come, and not before, a second call destroys their wrapped bytes. Until then it can be undone.

use std::time::Duration;

use crate::admin::decide::Decided;
use crate::admin::walk::{Pages, WalkOptions, Walked};
use crate::admin::{Admin, explain};
use crate::crypto::random;
use crate::error::{Error, ErrorKind, Result};
use crate::key::change::Forget;
use crate::key::erasure::Erasure;
use crate::key::floor::{self, Floor};
use crate::key::id::{KeyId, TenantId};
use crate::key::journal::{Decision, MAX_ENTRY_KEYS};
use crate::key::record::KeyRecord;
use crate::key::revocation::Selector;
use crate::key::state::KeyState;
use crate::key::tenant::TenantRecord;

impl Admin {
    /// Puts the data keys that `selector` covers to wait to be erased. From now on they neither seal nor open, on every node
    /// within the revocation bound, and no new ones are made that it covers; after `wait`, [`Self::carry_out_erasure`] destroys
    /// them. What they sealed is then lost for good, backups of the envelopes included.
    ///
    /// # Errors
    /// `InvalidArgument` if the selector could cover nothing; `UnknownTenant`; `Limit` beyond 1000 that wait; `Unavailable`.
    pub async fn erase(&self, tenant: &str, selector: Selector, wait: Duration) -> Result<Erasure> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let mut name = [0; 8];
            random::from_os(&mut name)?;
            let requested_at = self.keyring.clock.unix_millis();
            let due_at = requested_at.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
            let erasure = Erasure {
                id: base16ct::lower::encode_string(&name),
                selector: selector.clone(),
                requested_at,
                due_at,
                carried_out_since: None,
            };
            self.change(&id, |row| {
                selector.check(row.policy.scope_fields())?;
                row.erasures.push(erasure.clone());
                let decision =
                    Decision::new("erase").about(&selector).with("erasure", &erasure.id).with("due-at", erasure.due_at);
                Ok(Some(Decided::forgetting(decision, &selector, Forget::Keys)))
            })
            .await?;
            tracing::warn!(tenant = %id, %selector, erasure = erasure.id, due_at, "keys wait to be erased");
            Ok(erasure)
        };
        run.await.map_err(|e: Error| explain(e, "erase", tenant))
    }

    /// Undoes an erasure that nobody began to carry out: its keys seal and open again.
    ///
    /// # Errors
    /// `Conflict` if it is being carried out; `InvalidArgument` if none of that id waits; `UnknownTenant` or `Unavailable`.
    pub async fn undo_erasure(&self, tenant: &str, erasure: &str) -> Result<()> {
        let run = async {
            let id = TenantId::new(tenant)?;
            self.change(&id, |row| {
                let undone = take_erasure(row, erasure)?;
                if undone.carried_out_since.is_some() {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        "the erasure is being carried out: some of its keys may be gone already, and the rest has to follow",
                    ));
                }
                let decision = Decision::new("undo-erasure").about(&undone.selector).with("erasure", erasure);
                Ok(Some(Decided::forgetting(decision, &undone.selector, Forget::Keys)))
            })
            .await?;
            tracing::info!(tenant = %id, erasure, "erasure undone");
            Ok(())
        };
        run.await.map_err(|e: Error| explain(e, "undo erasure", tenant))
    }

    /// Carries out an erasure whose waiting time is over: the wrapped bytes of every key that it covers are overwritten. After a
    /// crash call it again. Always the whole of them, whatever `options` say of where to begin. Take [`Self::receipt`]
    /// afterwards.
    ///
    /// # Errors
    /// `Conflict` before its time; `InvalidArgument` if none of that id waits; `UnknownTenant` or `Unavailable`.
    pub async fn carry_out_erasure(&self, tenant: &str, erasure: &str, options: &WalkOptions) -> Result<Walked> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let waiting = self.begin_to_carry_out(&id, erasure).await?;
            let whole = options.whole();
            let mut destroyed = Vec::new();
            let mut pages = Pages::new(self, &id, &whole);
            while let Some(page) = pages.next().await? {
                let now = self.keyring.clock.unix_millis();
                let due = |r: &KeyRecord| r.state != KeyState::Destroyed && waiting.selector.covers_record(r);
                let gone = self.update_due(page, due, |r| r.into_state(KeyState::Destroyed, now, &self.by)).await?;
                pages.walked.done += gone.len() as u64;
                destroyed.extend(gone);
            }
            let walked = pages.walked;
            destroyed.truncate(MAX_ENTRY_KEYS);
            self.change(&id, |row| {
                let done = take_erasure(row, erasure)?;
                // From now on a rule says what was erased: a record that is put back, or was hidden meanwhile, opens nothing.
                let before = row.epoch + 1;
                floor::add(&mut row.erased, Floor { selector: done.selector.clone(), before })?;
                let decision = Decision::new("carry-out-erasure")
                    .about(&done.selector)
                    .with("erasure", erasure)
                    .with("keys", walked.done)
                    .with("made-before-epoch", before)
                    .changed(destroyed.iter().copied());
                Ok(Some(Decided::forgetting(decision, &done.selector, Forget::Keys)))
            })
            .await?;
            tracing::warn!(tenant = %id, erasure, keys = walked.done, "erased data keys");
            Ok(walked)
        };
        run.await.map_err(|e: Error| explain(e, "carry out erasure", tenant))
    }

    /// Notes on the tenant's row that the erasure is being carried out, so that nobody is told that it was undone while its
    /// keys are being destroyed.
    async fn begin_to_carry_out(&self, id: &TenantId, erasure: &str) -> Result<Erasure> {
        let now = self.keyring.clock.unix_millis();
        let row = self
            .change(id, |row| {
                let waiting = row.erasures.iter_mut().find(|e| e.id == erasure).ok_or_else(no_such_erasure)?;
                if waiting.carried_out_since.is_some() {
                    return Ok(None); // an earlier call got this far
                }
                let left = waiting.due_at.saturating_sub(now);
                if left > 0 {
                    let message =
                        format!("the erasure can be carried out in {} s, and be undone until then", left / 1000 + 1);
                    return Err(Error::new(ErrorKind::Conflict, message));
                }
                waiting.carried_out_since = Some(now);
                let decision =
                    Decision::new("begin-carrying-out-erasure").about(&waiting.selector).with("erasure", erasure);
                Ok(Some(Decided::forgetting(decision, &waiting.selector, Forget::Keys)))
            })
            .await?;
        row.record.erasures.into_iter().find(|e| e.id == erasure).ok_or_else(no_such_erasure)
    }

    /// Puts to wait, for `wait`, the data keys of periods that ended longer ago than the policy retains
    /// (`TenantPolicy::retain_for`). Call it as often as periods end; what waits already is not put to wait twice.
    ///
    /// # Errors
    /// `InvalidArgument` if the policy retains everything; else as [`Self::erase`].
    pub async fn apply_retention(
        &self,
        tenant: &str,
        wait: Duration,
        options: &WalkOptions,
    ) -> Result<Option<Erasure>> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let row = self.keyring.tenant(&id).await?;
            let retention =
                row.policy.retention().ok_or_else(|| Error::invalid("the tenant's policy retains all keys"))?;
            let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
            let cutoff = self.keyring.clock.unix_millis().saturating_sub(retention);
            let Some(last) = row.policy.key_period().ended_before(cutoff)? else {
                return Ok(None);
            };
            let selector = Selector::everything().to(last);
            let waits = |r: &KeyRecord| row.erasures.iter().any(|e| e.selector.covers_record(r));
            let whole = options.whole();
            let mut pages = Pages::new(self, &id, &whole);
            while let Some(page) = pages.next().await? {
                let due = |r: &KeyRecord| r.state != KeyState::Destroyed && selector.covers_record(r) && !waits(r);
                if page.iter().any(|row| due(row)) {
                    return self.erase(tenant, selector.clone(), wait).await.map(Some);
                }
            }
            Ok(None)
        };
        run.await.map_err(|e: Error| explain(e, "apply retention", tenant))
    }

    /// The ids and times of the tenant's destroyed keys that `selector` covers.
    pub(crate) async fn destroyed(&self, id: &TenantId, selector: &Selector) -> Result<Vec<(KeyId, i64)>> {
        let options = WalkOptions::default().page(1000);
        let mut pages = Pages::new(self, id, &options);
        let mut gone = Vec::new();
        while let Some(page) = pages.next().await? {
            let destroyed = page.iter().filter(|r| r.state == KeyState::Destroyed && selector.covers_record(r));
            gone.extend(destroyed.map(|r| (r.key_id, r.state_since)));
        }
        Ok(gone)
    }
}

/// Takes an erasure off the tenant's row.
fn take_erasure(row: &mut TenantRecord, erasure: &str) -> Result<Erasure> {
    let at = row.erasures.iter().position(|e| e.id == erasure).ok_or_else(no_such_erasure)?;
    Ok(row.erasures.remove(at))
}

fn no_such_erasure() -> Error {
    Error::invalid("no erasure of that id waits; list them with Admin::tenant")
}
