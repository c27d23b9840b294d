//! Incident mode: opening is suspended while sealing goes on, for a scope, a tenant or the whole fleet, until a stated time.

use crate::admin::decide::Decided;
use crate::admin::{Admin, explain};
use crate::error::{Error, ErrorKind, Result};
use crate::key::change::{Change, Forget};
use crate::key::fleet::FleetRecord;
use crate::key::id::TenantId;
use crate::key::journal::Decision;
use crate::key::revocation::Selector;
use crate::key::row_digest::RowDigest;
use crate::key::suspension::Suspension;
use crate::keyring::rollback::Versioned as _;
use crate::retry::Patience;
use crate::row::frame::Kind;
use crate::store::row::{Put, RowChange, RowKey, Write};
use crate::watermark::Subject;

impl Admin {
    /// Suspends opening under the keys that `selector` covers until `until` (Unix milliseconds): messages are sealed as before, and
    /// opening them is refused (`Suspended`) within the revocation bound, on every node, until the suspension ends by
    /// itself or [`Self::resume_opens`] lifts it. Repeated with the same selector it sets another end. Where 1000 stand already, it
    /// takes the place of the narrower ones, and ends no sooner than they would have.
    ///
    /// # Errors
    /// `InvalidArgument` if the selector could cover nothing, or `until` is past; `Limit` beyond 1000 at a time; as every
    /// verb ([`Admin`](crate::Admin#errors-of-every-verb)).
    pub async fn suspend_opens(&self, tenant: &str, selector: Selector, until: i64) -> Result<()> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let since = self.keyring.clock.unix_millis();
            check_end(until, since)?;
            self.check_rule(&id, &selector).await?;
            self.change(&id, |row| {
                row.suspend_opens(Suspension { selector: selector.clone(), since, until });
                let decision = Decision::new("suspend-opens").about(&selector).with("until", until);
                Ok(Some(Decided::forgetting(decision, &selector, Forget::Keys).always()))
            })
            .await?;
            tracing::warn!(tenant = %id, %selector, until, actor = self.by.actor(), reason = self.by.reason(), "opening suspended");
            Ok(())
        };
        run.await.map_err(|e: Error| explain(e, "suspend opens", tenant))
    }

    /// Lifts a suspension of opening before its end. What other suspensions cover stays suspended. Repeated, it finds it done.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no such suspension; as every verb ([`Admin`](crate::Admin#errors-of-every-verb)).
    pub async fn resume_opens(&self, tenant: &str, selector: Selector) -> Result<()> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let lifted = self
                .change(&id, |row| {
                    let before = row.suspensions.len();
                    row.suspensions.retain(|s| s.selector != selector);
                    if row.suspensions.len() == before {
                        return Err(Error::invalid("there is no such suspension; list them with Admin::tenant"));
                    }
                    let decision = Decision::new("resume-opens").about(&selector);
                    Ok(Some(Decided::quiet(decision)))
                })
                .await;
            self.unless_done(tenant, lifted, ["suspend-opens", "resume-opens"], &selector).await?;
            tracing::info!(tenant = %id, %selector, actor = self.by.actor(), reason = self.by.reason(), "opening resumed");
            Ok(())
        };
        run.await.map_err(|e: Error| explain(e, "resume opens", tenant))
    }

    /// Suspends opening for every tenant of the room until `until` (Unix milliseconds), on every node within the revocation
    /// bound. Stands in the fleet's row: where that is missing or not authentic, nothing opens.
    ///
    /// # Errors
    /// `InvalidArgument` if `until` is past, or the store is trusted (there is no room); as every verb
    /// ([`Admin`](crate::Admin#errors-of-every-verb)), for the fleet's row.
    pub async fn suspend_all_opens(&self, until: i64) -> Result<()> {
        let now = self.keyring.clock.unix_millis();
        let run = async {
            check_end(until, now)?;
            // Keys in hand go on sealing; nodes read the fleet's row with their lease, and open nothing.
            self.change_fleet(FleetChange::SuspendOpens(Some(until)), Forget::Nothing).await
        };
        run.await.map_err(|e: Error| e.with_operation("suspend all opens"))?;
        tracing::warn!(until, actor = self.by.actor(), reason = self.by.reason(), "opening suspended for every tenant");
        Ok(())
    }

    /// Lifts [`Self::suspend_all_opens`] before its end.
    ///
    /// # Errors
    /// As there.
    pub async fn resume_all_opens(&self) -> Result<()> {
        self.change_fleet(FleetChange::SuspendOpens(None), Forget::Nothing)
            .await
            .map_err(|e| e.with_operation("resume all opens"))?;
        tracing::info!(actor = self.by.actor(), reason = self.by.reason(), "opening resumed for every tenant");
        Ok(())
    }

    /// Until when opening is suspended for every tenant, in Unix milliseconds, if it is.
    ///
    /// # Errors
    /// `Unavailable`, `Throttled` or `StoreFault` as the store and the watermark say; `Tampered` or `RolledBack` if the
    /// fleet's row is missing or not authentic: then nothing opens.
    pub async fn all_opens_suspended_until(&self) -> Result<Option<i64>> {
        let fleet = self.keyring.believed_fleet().await?.ok_or_else(no_fleet)?;
        Ok(fleet.row.record.opens_suspended_until.filter(|until| *until > self.keyring.clock.unix_millis()))
    }

    pub(crate) async fn change_fleet(&self, change: FleetChange, forget: Forget) -> Result<()> {
        if self.keyring.source.is_none() {
            return Err(Error::invalid("a store that is trusted has no room, and no fleet's row"));
        }
        let _turn = self.keyring.turns.fleet.lock().await;
        let mut patience = Patience::default();
        while patience.tries_again().await {
            let (mark, expected, stands) = match self.keyring.believed_fleet().await {
                Ok(Some(before)) => {
                    if matches!(change, FleetChange::SignAnew)
                        && before.row.generation == self.keyring.authority.load().generation()
                    {
                        return Ok(()); // others did, or decided anew
                    }
                    let mark = self.keyring.settle(&Subject::Fleet, &before).await?;
                    (mark, Some(before.row.digest), before.row.record.opens_suspended_until)
                }
                Err(e) if matches!(change, FleetChange::SignAnew) => return Err(e),
                // Gone, or another one: the watermark says which was the last, and this decision comes after it.
                Err(e) if !matches!(e.kind(), ErrorKind::Tampered | ErrorKind::RolledBack | ErrorKind::Malformed) => {
                    return Err(e);
                }
                _ => {
                    let (mark, expected) = self.keyring.last_fleet().await?;
                    (mark, expected, None)
                }
            };
            let until = match change {
                FleetChange::SuspendOpens(until) => until,
                FleetChange::SignAnew => stands,
            };
            let last = mark.ok_or_else(no_fleet)?;
            let next = FleetRecord {
                room: last.incarnation,
                epoch: last.epoch + 1,
                predecessor: Some(last.digest),
                opens_suspended_until: until,
                actor: self.by.actor().to_owned(),
                reason: self.by.reason().to_owned(),
                at: self.keyring.clock.unix_millis(),
            };
            let control = self.keyring.control().await?;
            let authority = self.keyring.authority.load_full();
            let bytes = authority.sign(control.as_deref(), Kind::Fleet, &next)?;
            let digest = RowDigest::of(&bytes);
            let write = Write { key: RowKey::Fleet, expected, change: RowChange::Put(bytes, None) };
            if let Put::Conflict(_) = self.keyring.store.put(&[write], None).await? {
                continue;
            }
            if !self.keyring.raise(&Subject::Fleet, mark.as_ref(), &next.mark(digest)).await? {
                continue; // others have gone on from there: what they decided may be another thing
            }
            // Nodes read the fleet's row together with the log: what is in it makes them do so at once.
            let change = Change { tenant: None, selector: Selector::everything(), forget };
            self.keyring.announce(&change).await?;
            return self.keyring.hear().await;
        }
        Err(Error::new(ErrorKind::Unavailable, "the fleet's row is being changed over and over; retry"))
    }
}

/// What is decided about the fleet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FleetChange {
    /// Opening is suspended until then, in Unix milliseconds, or not.
    SuspendOpens(Option<i64>),
    /// What stands is signed by the present generation of the control plane.
    SignAnew,
}

fn check_end(until: i64, now: i64) -> Result<()> {
    if until > now && until < i64::MAX {
        return Ok(());
    }
    Err(Error::invalid("a suspension of opening ends at a time to come"))
}

fn no_fleet() -> Error {
    Error::new(ErrorKind::Tampered, "the fleet's row is missing from the key store, which was edited; restore it")
}
