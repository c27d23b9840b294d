//! Erasing: crypto-shredding in two steps. First the keys are put to wait, and seal and open no more; when their time has
//! come, and not before, a second call destroys their wrapped bytes. Until then it can be undone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::admin::decide::Decided;
use crate::admin::walk::{Pages, WalkOptions, Walked};
use crate::admin::{Admin, explain};
use crate::crypto::random;
use crate::error::{Error, ErrorKind, Result};
use crate::key::change::{Change, Forget};
use crate::key::erasure::Erasure;
use crate::key::floor::{self, Floor};
use crate::key::id::TenantId;
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
    /// Asked for again with the same selector and wait, it returns the erasure that waits already: so it may be repeated after its
    /// answer was lost.
    ///
    /// # Errors
    /// `InvalidArgument` if the selector could cover nothing; `Limit` beyond 1000 that wait; as every verb
    /// ([`Admin`](crate::Admin#errors-of-every-verb)).
    pub async fn erase(&self, tenant: &str, selector: Selector, wait: Duration) -> Result<Erasure> {
        let run = async {
            let id = TenantId::new(tenant)?;
            self.check_rule(&id, &selector).await?;
            let wanted = self.wanted(selector, wait)?;
            self.put_to_wait(&id, &wanted, |_| Ok(())).await
        };
        run.await.map_err(|e: Error| explain(e, "erase", tenant))
    }

    /// An erasure that would begin to wait now.
    pub(crate) fn wanted(&self, selector: Selector, wait: Duration) -> Result<Erasure> {
        let mut name = [0; 8];
        random::from_os(&mut name)?;
        let requested_at = self.keyring.clock.unix_millis();
        let due_at = requested_at.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        let id = base16ct::lower::encode_string(&name);
        Ok(Erasure { id, selector, requested_at, due_at, carried_out_since: None })
    }

    /// Adds an erasure to the tenant's row if `check` takes the row as it stands, and returns it; or the one that waits already.
    pub(crate) async fn put_to_wait(
        &self,
        id: &TenantId,
        wanted: &Erasure,
        check: impl Fn(&TenantRecord) -> Result<()>,
    ) -> Result<Erasure> {
        let waits_for = |e: &Erasure| e.due_at.saturating_sub(e.requested_at);
        let is_it = |e: &&Erasure| e.selector == wanted.selector && waits_for(e) == waits_for(wanted);
        let found = AtomicBool::new(false);
        let row = self
            .change(id, |row| {
                let waits = row.erasures.iter().any(|e| is_it(&e));
                found.store(waits, Ordering::Relaxed);
                if waits {
                    return Ok(None);
                }
                check(row)?;
                row.erasures.push(wanted.clone());
                let decision = Decision::new("erase")
                    .about(&wanted.selector)
                    .with("erasure", &wanted.id)
                    .with("due-at", wanted.due_at);
                Ok(Some(Decided::forgetting(decision, &wanted.selector, Forget::Keys)))
            })
            .await?;
        if found.load(Ordering::Relaxed) {
            // Whoever decided it may have ended before every node could hear of it.
            let selector = wanted.selector.clone();
            self.keyring.announce(&Change { tenant: Some(id.clone()), selector, forget: Forget::Keys }).await?;
        }
        let erasure = row.record.erasures.into_iter().find(|e| is_it(&e)).ok_or_else(no_such_erasure)?;
        let Erasure { id: name, selector, due_at, .. } = &erasure;
        tracing::warn!(tenant = %id, %selector, erasure = name, due_at, "keys wait to be erased");
        Ok(erasure)
    }

    /// Undoes an erasure that nobody began to carry out: its keys seal and open again. Repeated, it finds it done.
    ///
    /// # Errors
    /// `Conflict` if it is being carried out, or was; `InvalidArgument` if none of that id waits; as every verb
    /// ([`Admin`](crate::Admin#errors-of-every-verb)).
    pub async fn undo_erasure(&self, tenant: &str, erasure: &str) -> Result<()> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let undoing = self.change(&id, |row| {
                let undone = take_erasure(row, erasure)?;
                if undone.carried_out_since.is_some() {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        "the erasure is being carried out: some of its keys may be gone already, and the rest has to follow",
                    ));
                }
                let decision = Decision::new(UNDO).about(&undone.selector).with("erasure", erasure);
                Ok(Some(Decided::forgetting(decision, &undone.selector, Forget::Keys)))
            });
            match self.or_what_became_of_it(tenant, erasure, undoing.await).await? {
                Became::Carried(_) => {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        "the erasure was carried out; nothing is left of its keys",
                    ));
                }
                Became::Undone | Became::Now(_) => {}
            }
            tracing::info!(tenant = %id, erasure, "erasure undone");
            Ok(())
        };
        run.await.map_err(|e: Error| explain(e, "undo erasure", tenant))
    }

    /// Carries out an erasure whose waiting time is over: the wrapped bytes of every key that it covers are overwritten. After a
    /// crash call it again; once it was carried out, a repeat says how many keys it destroyed. Always the whole of them, whatever
    /// `options` say of where to begin. Take [`Self::receipt`] afterwards.
    ///
    /// # Errors
    /// `Conflict` before its time; `InvalidArgument` if none of that id waits; as every verb
    /// ([`Admin`](crate::Admin#errors-of-every-verb)).
    pub async fn carry_out_erasure(&self, tenant: &str, erasure: &str, options: &WalkOptions) -> Result<Walked> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let carried_out = self.carry_out(&id, erasure, options).await;
            match self.or_what_became_of_it(tenant, erasure, carried_out).await? {
                Became::Now(walked) => Ok(walked),
                Became::Carried(done) => Ok(Walked { done, ..Walked::default() }),
                Became::Undone => Err(Error::invalid("the erasure was undone; nothing of it waits")),
            }
        };
        run.await.map_err(|e: Error| explain(e, "carry out erasure", tenant))
    }

    async fn carry_out(&self, id: &TenantId, erasure: &str, options: &WalkOptions) -> Result<Walked> {
        let waiting = self.begin_to_carry_out(id, erasure).await?;
        let whole = options.whole();
        let mut destroyed = Vec::new();
        let mut pages = Pages::new(self, id, &whole);
        while let Some(page) = pages.next().await? {
            let now = self.keyring.clock.unix_millis();
            let due = |r: &KeyRecord| r.state != KeyState::Destroyed && waiting.selector.covers_record(r);
            let change = |r: KeyRecord| r.into_state(KeyState::Destroyed, now, &self.by);
            destroyed.extend(self.update_due(&mut pages.walked, page, due, change).await?);
        }
        let walked = pages.walked;
        destroyed.truncate(MAX_ENTRY_KEYS);
        self.change(id, |row| {
            let done = take_erasure(row, erasure)?;
            // From now on a rule says what was erased: a record that is put back, or was hidden meanwhile, opens nothing.
            let before = row.epoch + 1;
            floor::add(&mut row.erased, Floor { selector: done.selector.clone(), before })?;
            let decision = Decision::new(CARRY_OUT)
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
    }

    /// What was done now; or, where no such erasure waits, what became of it before: the journal tells a repeat, whose first
    /// answer was lost, from a slip.
    async fn or_what_became_of_it<T>(&self, tenant: &str, erasure: &str, done: Result<T>) -> Result<Became<T>> {
        let slip = match done {
            Err(e) if e.kind() == ErrorKind::InvalidArgument => e,
            done => return done.map(Became::Now),
        };
        let detail = |decision: &Decision, name: &str| {
            decision.details.iter().find(|(it, _)| it == name).map(|(_, value)| value.clone())
        };
        let ended = |decision: &Decision| {
            [UNDO, CARRY_OUT].contains(&decision.verb.as_str())
                && detail(decision, "erasure").as_deref() == Some(erasure)
        };
        match self.last_decision(tenant, ended).await? {
            Some(last) if last.verb == UNDO => Ok(Became::Undone),
            Some(last) => Ok(Became::Carried(detail(&last, "keys").and_then(|keys| keys.parse().ok()).unwrap_or(0))),
            None => Err(slip),
        }
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
}

/// The verbs that end an erasure, as the journal has them.
const UNDO: &str = "undo-erasure";
const CARRY_OUT: &str = "carry-out-erasure";

/// How an erasure ended.
enum Became<T> {
    /// By this very call.
    Now(T),
    /// It was undone before.
    Undone,
    /// It was carried out before, with so many keys.
    Carried(u64),
}

/// Takes an erasure off the tenant's row.
fn take_erasure(row: &mut TenantRecord, erasure: &str) -> Result<Erasure> {
    let at = row.erasures.iter().position(|e| e.id == erasure).ok_or_else(no_such_erasure)?;
    Ok(row.erasures.remove(at))
}

fn no_such_erasure() -> Error {
    Error::invalid("no erasure of that id waits; list them with Admin::tenant")
}
