//! Rewrapping: other KEKs, or a KEK's new version, for every data key of a tenant. Data is never touched.
//!
//! Each record goes through three steps, and every crash leaves it readable: the new wrapping is written beside the old one
//! (`pending`); the row is read back and the new wrapping opened and compared with the key's id; only then does it take the
//! old one's place. Every write is a compare-and-set on the record's revision, so two walks at once do no harm.

use futures_util::stream::{StreamExt, iter};

use crate::admin::decide::Decided;
use crate::admin::walk::{Pace, Pages, WalkOptions, Walked};
use crate::admin::{Admin, explain};
use crate::error::{Error, ErrorKind, Result};
use crate::key::id::{KeyId, TenantId};
use crate::key::journal::Decision;
use crate::key::kek_expression::KekExpression;
use crate::key::record::KeyRecord;
use crate::key::rewrap::RewrapOrder;
use crate::key::tenant::TenantRecord;
use crate::key::wrapped_key::{Pending, WrappedKey, Wrapping};
use crate::keyring::rows::{KeyRow, TenantRow};

/// So many pages, and so many records, in a row of which the KMS answered for none are a reason to stop. Records that fail for
/// themselves are passed over, however many there are: else those behind them would never have their turn.
const HOPELESS: (u64, u64) = (3, 100);

impl Admin {
    /// Wraps every data key of the tenant for `to`: another KEK (at another KMS, in another allowed region), more or fewer
    /// KEKs, or the same KEK again so that its newest version wraps. New data keys are wrapped for `to` from now on.
    ///
    /// Whatever was wrapped before this call is wrapped anew, by an earlier rewrap for the same `to` as well: the KEK may have
    /// another version since. The order stands on the tenant's row until every record is done: after a crash, or with failures,
    /// go on with [`Self::resume_rewrap`], here or elsewhere. Wraps inside the KMS where one KMS has both KEKs and can; the
    /// proof afterwards unwraps here.
    ///
    /// # Errors
    /// As [`Self::enroll`] for `to`; `Conflict` if a rewrap to other KEKs was ordered meanwhile: that one counts. If a record
    /// could not be done, or does not read, all others are done first: then an error of that failure's kind names it and carries
    /// [`Walked`], and the old KEKs are still needed. Stops early only if the KMS does not answer for page after page.
    pub async fn rewrap(&self, tenant: &str, to: impl Into<KekExpression>, options: &WalkOptions) -> Result<Walked> {
        let to = to.into();
        let run = async {
            let id = TenantId::new(tenant)?;
            let row = self.order_rewrap(&id, &to).await?;
            Box::pin(self.carry_out_rewrap(&id, row, options)).await
        };
        run.await.map_err(|e: Error| explain(e, "rewrap", tenant))
    }

    /// Goes on with the rewrap that stands on the tenant's row; `None` if there is none.
    ///
    /// # Errors
    /// As [`Self::rewrap`].
    pub async fn resume_rewrap(&self, tenant: &str, options: &WalkOptions) -> Result<Option<Walked>> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let row = self.keyring.tenant(&id).await?;
            if row.rewrap.is_none() {
                return Ok(None);
            }
            Box::pin(self.carry_out_rewrap(&id, row, options)).await.map(Some)
        };
        run.await.map_err(|e: Error| explain(e, "resume rewrap", tenant))
    }

    /// Carries out the order that stands on `row`, to its end.
    pub(crate) async fn carry_out_rewrap(
        &self,
        id: &TenantId,
        mut row: TenantRow,
        options: &WalkOptions,
    ) -> Result<Walked> {
        let again = options.restarted();
        let mut walked: Option<Walked> = None;
        while let Some(order) = row.rewrap.clone() {
            let options = if walked.is_some() { &again } else { options };
            let more = self.walk_rewrap(&row, &order, options).await?;
            let before = walked.take().unwrap_or_else(|| Walked { seen: more.seen, ..Walked::default() });
            let so_far = Walked { done: before.done + more.done, seen: before.seen, ..more };
            if so_far.failed > 0 {
                tracing::warn!(tenant = %id, to = %order.to, done = so_far.done, failed = so_far.failed, "not all is rewrapped");
                return so_far.finished();
            }
            // What another walk had in hand, and lost or left useless, is still due: look again until nothing is.
            let standing = self.still_ordered(id, &order).await?;
            let due = match &standing {
                Some(standing) => {
                    standing.rewrap.as_ref() != Some(&order) || self.is_any_due(id, &order, &again).await?
                }
                None => false,
            };
            walked = Some(so_far);
            let Some(standing) = standing.filter(|_| due) else {
                self.finish_rewrap(id, &order).await?;
                break;
            };
            row = standing;
        }
        let walked = walked.unwrap_or_default();
        tracing::info!(tenant = %id, done = walked.done, "rewrapped");
        Ok(walked)
    }

    /// Puts the order on the tenant's row, and `to` into its policy, in one write. From then on no data key comes into being
    /// that is wrapped otherwise: the store refuses keys made under an earlier epoch.
    async fn order_rewrap(&self, id: &TenantId, to: &KekExpression) -> Result<TenantRow> {
        let row = self.keyring.tenant(id).await?;
        self.check_policy(id, &row.policy.clone().wrapped_by(to.clone())).await?;
        let since = self.keyring.clock.unix_millis();
        self.change(id, |row| {
            row.policy = row.policy.clone().wrapped_by(to.clone());
            row.policy.check()?;
            row.rewrap = Some(RewrapOrder { to: to.clone(), epoch: row.epoch + 1, since });
            Ok(Some(Decided::quiet(Decision::new("rewrap").with("to", to))))
        })
        .await
    }

    async fn is_any_due(&self, id: &TenantId, order: &RewrapOrder, options: &WalkOptions) -> Result<bool> {
        let mut pages = Pages::new(self, id, options);
        while let Some(page) = pages.next().await? {
            if page.iter().any(|record| order.is_due(record)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The tenant's row on which the order stands, or a later one for the same KEKs; `None` if another walk finished it.
    ///
    /// # Errors
    /// `Conflict` if an order for other KEKs took its place.
    async fn still_ordered(&self, id: &TenantId, order: &RewrapOrder) -> Result<Option<TenantRow>> {
        let row = self.keyring.tenant(id).await?;
        match &row.rewrap {
            Some(standing) if standing.to == order.to => Ok(Some(row)),
            None if *row.policy.keks() == order.to => Ok(None),
            _ => Err(Error::new(
                ErrorKind::Conflict,
                "another rewrap, to other KEKs, took this one's place; what this one did is done again there",
            )),
        }
    }

    async fn finish_rewrap(&self, id: &TenantId, order: &RewrapOrder) -> Result<()> {
        self.change(id, |row| {
            if row.rewrap.as_ref() != Some(order) {
                return Ok(None);
            }
            row.rewrap = None;
            // Nothing is wrapped as before: a record that says so is one that was put back.
            row.keks.rewrapped(order.epoch);
            Ok(Some(Decided::quiet(
                Decision::new("finish-rewrap").with("to", &order.to).with("ordered-at-epoch", order.epoch),
            )))
        })
        .await
        .map(|_| ())
    }

    async fn walk_rewrap(&self, row: &TenantRecord, order: &RewrapOrder, options: &WalkOptions) -> Result<Walked> {
        let mut pages = Pages::new(self, &row.tenant, options);
        let mut unanswered = (0, 0);
        while let Some(page) = pages.next().await? {
            // After the page was read: whatever an order that comes later than this does to its records, the compare-and-set
            // on their digests sees.
            let standing = self.still_ordered(&row.tenant, order).await.map_err(|e| pages.walked.stopped_by(e))?;
            if standing.is_none_or(|standing| standing.rewrap.as_ref() != Some(order)) {
                return Ok(pages.walked);
            }
            let outcome = self.rewrap_page(row, order, page, options.at_once(), &mut pages).await?;
            unanswered = match outcome {
                Outcome { done: 0, answered: 0, unanswered: more } if more > 0 => {
                    (unanswered.0 + 1, unanswered.1 + more)
                }
                Outcome { done: 0, answered: 0, .. } => unanswered,
                _ => (0, 0),
            };
            if unanswered.0 >= HOPELESS.0
                && unanswered.1 >= HOPELESS.1
                && let Some(e) = pages.walked.first_failure.clone()
            {
                return Err(pages.walked.stopped_by(e));
            }
        }
        Ok(pages.walked)
    }

    /// The three steps, each for the whole page, so that a page costs two transactions.
    async fn rewrap_page(
        &self,
        row: &TenantRecord,
        order: &RewrapOrder,
        page: Vec<KeyRow>,
        at_once: usize,
        pages: &mut Pages<'_>,
    ) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let due: Vec<KeyRow> = page.into_iter().filter(|record| order.is_due(record)).collect();
        if due.is_empty() {
            return Ok(outcome);
        }
        let (pace, walked) = (&pages.pace, &mut pages.walked);
        let (waiting, fresh): (Vec<_>, Vec<_>) = due.into_iter().partition(|record| order.is_pending(record));
        let wrapping = fresh.into_iter().map(|record| async move {
            (record.key_id, pace.unhurried(|| self.wrap_anew(row, order, &record, pace)).await)
        });
        let wrapped = outcome.settle(iter(wrapping).buffer_unordered(at_once).collect().await, walked);
        let written = self.keyring.put_keys(&wrapped).await.map_err(|e| walked.stopped_by(e))?;
        let written = wrapped.into_iter().zip(written).filter(|(_, written)| *written).map(|((old, _), _)| old.key_id);
        let waiting = waiting.iter().map(|record| (record.key_id, Wrapped::Earlier));
        let written: Vec<_> = waiting.chain(written.map(|key_id| (key_id, Wrapped::Now))).collect();
        let proving = written.into_iter().map(|(key_id, when)| async move {
            (key_id, pace.unhurried(|| self.prove_pending(row, order, (key_id, when), pace)).await)
        });
        let proven = outcome.settle(iter(proving).buffer_unordered(at_once).collect().await, walked);
        let promoted = self.keyring.put_keys(&proven).await.map_err(|e| walked.stopped_by(e))?;
        outcome.done = promoted.iter().filter(|done| **done).count() as u64;
        walked.done += outcome.done;
        Ok(outcome)
    }

    async fn wrap_anew(
        &self,
        row: &TenantRecord,
        order: &RewrapOrder,
        old: &KeyRow,
        pace: &Pace,
    ) -> Result<(KeyRow, KeyRecord)> {
        row.check_record(old)?;
        let mut record = old.record.clone();
        let context = record.encryption_context()?;
        let inside = match (&record.wrapped, &order.to) {
            (Some(WrappedKey::One(from)), KekExpression::One(to)) if from.kek.scheme() == to.scheme() => {
                row.policy.check_kek_region(&from.kek)?;
                row.policy.check_kek_region(to)?;
                pace.turn(1).await;
                let wrapped = self.keyring.kms.rewrap(&row.tenant, from, to, &context).await?;
                wrapped.map(|wrapped| WrappedKey::One(Wrapping { kek: to.clone(), wrapped }))
            }
            _ => None,
        };
        let wrapped = if let Some(wrapped) = inside {
            wrapped
        } else {
            let from = record.wrapped.as_ref().map_or(0, |wrapped| wrapped.expression().calls_to_unwrap());
            pace.turn(from).await;
            let data_key = self.keyring.unwrap(row, &record).await?;
            pace.turn(order.to.calls_to_wrap()).await;
            self.keyring.wrap(row, &order.to, None, &context, &data_key).await?
        };
        record.pending = Some(Pending { wrapped, epoch: order.epoch });
        Ok((old.clone(), record))
    }

    /// Reads the row back, opens every pending wrapping and compares; gives the row with them in the old one's place.
    async fn prove_pending(
        &self,
        row: &TenantRecord,
        order: &RewrapOrder,
        (key_id, when): (KeyId, Wrapped),
        pace: &Pace,
    ) -> Result<(KeyRow, KeyRecord)> {
        let read = self.keyring.key_row(&row.tenant, &key_id).await?;
        let ours = read.filter(|record| order.is_pending(record)).and_then(|read| {
            let mut record = read.record.clone();
            record.pending.take().map(|pending| (read, record, pending))
        });
        let Some((read, mut record, pending)) = ours else {
            return Err(Error::new(ErrorKind::Conflict, "another walk is at this record"));
        };
        pace.turn(order.to.calls_to_wrap()).await;
        if let Err(e) = self.keyring.prove(row, &read, &pending.wrapped).await {
            // A wrapping that gives no key, or another one, never will give it.
            if matches!(e.kind(), ErrorKind::KeyMismatch | ErrorKind::Denied) {
                self.keyring.put_keys(&[(read, record)]).await?;
                if when == Wrapped::Earlier {
                    return Err(Error::new(ErrorKind::Conflict, "what another walk left is gone; to be wrapped anew"));
                }
            }
            return Err(e);
        }
        record.wrapped = Some(pending.wrapped);
        record.wrapped_epoch = pending.epoch;
        Ok((read, record))
    }
}

/// When a wrapping that waits for its proof was made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrapped {
    /// By a walk that did not come to prove it. If it is worth nothing, this walk wraps anew.
    Earlier,
    /// In this walk: if it is worth nothing, the KMS is to blame, and trying at once again would try for ever.
    Now,
}

/// What became of a page's records that were due.
#[derive(Default)]
struct Outcome {
    done: u64,
    /// Failed, whatever the KMS said of them.
    answered: u64,
    /// Failed because it did not answer, or asked to slow down.
    unanswered: u64,
}

impl Outcome {
    /// The records that went well; failures are counted, but for lost races and what others left: those are looked at again.
    fn settle(
        &mut self,
        results: Vec<(KeyId, Result<(KeyRow, KeyRecord)>)>,
        walked: &mut Walked,
    ) -> Vec<(KeyRow, KeyRecord)> {
        let mut records = Vec::new();
        for (key_id, result) in results {
            match result {
                Ok(record) => records.push(record),
                Err(e) if e.kind() == ErrorKind::Conflict => {}
                Err(e) => {
                    let no_answer = matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Throttled);
                    *(if no_answer { &mut self.unanswered } else { &mut self.answered }) += 1;
                    walked.fail_key(key_id, e);
                }
            }
        }
        records
    }
}
