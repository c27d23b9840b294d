//! Rewrapping: other KEKs, or a KEK's new version, for every data key of a tenant. Data is never touched.
//!
//! Each record goes through three steps, and every crash leaves it readable: the new wrapping is written beside the old one
//! (`pending`); the row is read back and the new wrapping opened and compared with the key's id; only then does it take the
//! old one's place. Every write is a compare-and-set on the record's revision, so two walks at once do no harm.

use futures_util::stream::{StreamExt, iter};

use crate::admin::decide::Decided;
use crate::admin::walk::{Pages, WalkOptions, Walked};
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

/// Pages in a row in which nothing but failures is a reason to stop: the KMS does not answer, or denies.
const HOPELESS: u64 = 3;

impl Admin {
    /// Wraps every data key of the tenant for `to`: another KEK (at another KMS, in another allowed region), more or fewer
    /// KEKs, or the same KEK again so that its newest version wraps. New data keys are wrapped for `to` from now on.
    ///
    /// The order stands on the tenant's row until every record is done: after a crash, or with failures, call it again with
    /// the same `to`, here or elsewhere, and it goes on; with another `to`, that counts from now on. Wraps inside the KMS
    /// where one KMS has both KEKs and can; the proof afterwards unwraps here.
    ///
    /// # Errors
    /// As [`Self::enroll`] for `to`; `Denied`, `Unavailable` and such if no record of three pages in a row could be done;
    /// `Conflict` if a rewrap to other KEKs was ordered meanwhile: that one counts. Single failures are counted in [`Walked`].
    pub async fn rewrap(&self, tenant: &str, to: impl Into<KekExpression>, options: &WalkOptions) -> Result<Walked> {
        let to = to.into();
        let run = async {
            let id = TenantId::new(tenant)?;
            let row = self.order_rewrap(&id, &to).await?;
            let order = row.rewrap.clone().ok_or_else(|| Error::invalid("the rewrap was finished by another node"))?;
            let mut walked = self.walk_rewrap(&row, &order, options).await?;
            // What another walk had in hand, and lost or left useless, is still due: look again until nothing is.
            let again = options.restarted();
            while walked.failed == 0
                && self.is_still_ordered(&id, &order).await?
                && self.is_any_due(&id, &order, &again).await?
            {
                let more = self.walk_rewrap(&row, &order, &again).await?;
                walked = Walked { done: walked.done + more.done, seen: walked.seen, ..more };
            }
            tracing::info!(tenant = %id, to = %order.to, done = walked.done, failed = walked.failed, "rewrapped");
            if walked.failed == 0 {
                self.finish_rewrap(&id, &order).await?;
            }
            Ok(walked)
        };
        run.await.map_err(|e: Error| explain(e, "rewrap", tenant))
    }

    /// Goes on with the rewrap that stands on the tenant's row; `None` if there is none.
    ///
    /// # Errors
    /// As [`Self::rewrap`].
    pub async fn resume_rewrap(&self, tenant: &str, options: &WalkOptions) -> Result<Option<Walked>> {
        match self.tenant(tenant).await?.rewrap {
            Some(order) => self.rewrap(tenant, order.to, options).await.map(Some),
            None => Ok(None),
        }
    }

    /// Puts the order on the tenant's row, and `to` into its policy, in one write. From then on no data key comes into being
    /// that is wrapped otherwise: the store refuses keys made under an earlier epoch.
    async fn order_rewrap(&self, id: &TenantId, to: &KekExpression) -> Result<TenantRow> {
        let row = self.keyring.tenant(id).await?;
        if row.rewrap.as_ref().is_some_and(|order| order.to == *to) {
            return Ok(row);
        }
        self.check_policy(id, &row.policy.clone().wrapped_by(to.clone())).await?;
        let since = self.keyring.clock.unix_millis();
        self.change(id, |row| {
            if row.rewrap.as_ref().is_some_and(|order| order.to == *to) {
                return Ok(None);
            }
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

    /// Whether the order stands; not if another walk finished it.
    ///
    /// # Errors
    /// `Conflict` if another order took its place.
    async fn is_still_ordered(&self, id: &TenantId, order: &RewrapOrder) -> Result<bool> {
        let row = self.keyring.tenant(id).await?;
        match &row.rewrap {
            Some(standing) if standing == order => Ok(true),
            None if *row.policy.keks() == order.to => Ok(false),
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
        let mut hopeless = 0;
        while let Some(page) = pages.next().await? {
            // After the page was read: whatever an order that comes later than this does to its records, the compare-and-set
            // on their digests sees.
            if !self.is_still_ordered(&row.tenant, order).await? {
                return Ok(pages.walked);
            }
            let before = (pages.walked.done, pages.walked.failed);
            self.rewrap_page(row, order, page, options.at_once(), &mut pages.walked).await?;
            let (done, failed) = (pages.walked.done - before.0, pages.walked.failed - before.1);
            hopeless = if done == 0 && failed > 0 { hopeless + 1 } else { 0 };
            if hopeless == HOPELESS
                && let Some(e) = pages.walked.first_failure.take()
            {
                return Err(e);
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
        walked: &mut Walked,
    ) -> Result<()> {
        let due: Vec<KeyRow> = page.into_iter().filter(|record| order.is_due(record)).collect();
        if due.is_empty() {
            return Ok(());
        }
        let (waiting, fresh): (Vec<_>, Vec<_>) = due.into_iter().partition(|record| order.is_pending(record));
        let wrapping = fresh.into_iter().map(|record| self.wrap_anew(row, order, record));
        let wrapped = settle(iter(wrapping).buffer_unordered(at_once).collect().await, walked);
        let written = self.keyring.put_keys(&wrapped).await?;
        let written = wrapped.into_iter().zip(written).filter(|(_, written)| *written).map(|((old, _), _)| old.key_id);
        let waiting = waiting.iter().map(|record| (record.key_id, Wrapped::Earlier));
        let written: Vec<_> = waiting.chain(written.map(|key_id| (key_id, Wrapped::Now))).collect();
        let proving = written.into_iter().map(|(key_id, when)| self.prove_pending(row, order, key_id, when));
        let proven = settle(iter(proving).buffer_unordered(at_once).collect().await, walked);
        let promoted = self.keyring.put_keys(&proven).await?;
        walked.done += promoted.iter().filter(|done| **done).count() as u64;
        Ok(())
    }

    async fn wrap_anew(&self, row: &TenantRecord, order: &RewrapOrder, old: KeyRow) -> Result<(KeyRow, KeyRecord)> {
        row.check_record(&old)?;
        let mut record = old.record.clone();
        let context = record.encryption_context()?;
        let inside = match (&record.wrapped, &order.to) {
            (Some(WrappedKey::One(from)), KekExpression::One(to)) => {
                row.policy.check_kek_region(&from.kek)?;
                row.policy.check_kek_region(to)?;
                let wrapped = self.keyring.kms.rewrap(&row.tenant, from, to, &context).await?;
                wrapped.map(|wrapped| WrappedKey::One(Wrapping { kek: to.clone(), wrapped }))
            }
            _ => None,
        };
        let wrapped = if let Some(wrapped) = inside {
            wrapped
        } else {
            let data_key = self.keyring.unwrap(row, &record).await?;
            self.keyring.wrap(row, &order.to, &context, &data_key).await?
        };
        record.pending = Some(Pending { wrapped, epoch: order.epoch });
        Ok((old, record))
    }

    /// Reads the row back, opens every pending wrapping and compares; gives the row with them in the old one's place.
    async fn prove_pending(
        &self,
        row: &TenantRecord,
        order: &RewrapOrder,
        key_id: KeyId,
        when: Wrapped,
    ) -> Result<(KeyRow, KeyRecord)> {
        let read = self.keyring.key_row(&row.tenant, &key_id).await?;
        let ours = read.filter(|record| order.is_pending(record)).and_then(|read| {
            let mut record = read.record.clone();
            record.pending.take().map(|pending| (read, record, pending))
        });
        let Some((read, mut record, pending)) = ours else {
            return Err(Error::new(ErrorKind::Conflict, "another walk is at this record"));
        };
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

/// The records that went well; failures are counted, but for lost races and what others left: those are looked at again.
fn settle(results: Vec<Result<(KeyRow, KeyRecord)>>, walked: &mut Walked) -> Vec<(KeyRow, KeyRecord)> {
    let mut records = Vec::new();
    for result in results {
        match result {
            Ok(record) => records.push(record),
            Err(e) if e.kind() == ErrorKind::Conflict => {}
            Err(e) => walked.fail(e),
        }
    }
    records
}
