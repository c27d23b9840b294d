//! Resealing: an envelope under an old key becomes one under the Active key, and nobody sees the plaintext.

use std::cmp::Ordering;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{StreamExt, iter};

use crate::admin::walk::{Pace, WalkOptions, progress_of, stopped};
use crate::admin::{Admin, explain};
use crate::error::{Error, ErrorKind, Result};
use crate::format::context::Field;
use crate::format::message;
use crate::key::id::KeyId;
use crate::key::period::PeriodLabel;
use crate::keyring::hands::Held;
use crate::keyring::rows::{KeyRow, TenantRow};
use crate::sealer::{InHand, ScopeHandle, TenantHandle, seal_with};

impl ScopeHandle {
    /// Seals an envelope anew if its key is no longer the one to seal with: it was rotated, or is of another region, suite or
    /// context rules than the tenant's policy. `None` if it is. The new key is the Active one of the period that the old one
    /// belongs to, so that a message stays in its hour.
    ///
    /// Two reads of the key store, and KMS calls for keys that are not in hand.
    ///
    /// # Errors
    /// As [`ScopeHandle::open`] and [`ScopeHandle::seal`]: `InvalidArgument` too if `context` lacks what the policy binds
    /// messages to by now. Then the envelope stays under its old key, where it opens.
    pub async fn reseal(&self, context: &[Field<'_>], envelope: &[u8]) -> Result<Option<Vec<u8>>> {
        self.reseal_unexplained(context, envelope).await.map_err(|e| self.explain(e, "reseal"))
    }

    async fn reseal_unexplained(&self, context: &[Field<'_>], envelope: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.due(envelope).await? {
            Some((row, old)) => self.reseal_due(&row, old, context, envelope).await.map(Some),
            None => Ok(None),
        }
    }

    /// The tenant's row and the period of the envelope's key, if that is no longer the one to seal with.
    async fn due(&self, envelope: &[u8]) -> Result<Option<(TenantRow, Option<PeriodLabel>)>> {
        let (header, _) = message::parse(envelope)?;
        let key_id = KeyId::from_bytes(*header.key_id());
        self.keyring.check_served(header.region())?;
        let row = self.keyring.tenant_in_turn(self.tenant()).await?;
        let record = self.keyring.key_row(self.tenant(), &key_id).await?.ok_or_else(Error::unopenable)?.record;
        let is_current = self.keyring.may_seal(&row, &record)
            && row.check_not_revoked(&record.scope, record.period.as_ref(), Some(&key_id)).is_ok()
            && record.region == *row.policy.home_region()
            && record.suite == row.policy.key_suite()
            && record.context_rules == *row.policy.context_rules();
        Ok((!is_current).then_some((row, record.period)))
    }

    async fn reseal_due(
        &self,
        row: &TenantRow,
        old: Option<PeriodLabel>,
        context: &[Field<'_>],
        envelope: &[u8],
    ) -> Result<Vec<u8>> {
        let plaintext = self.open(context, envelope).await?;
        let period = row.policy.key_period().label(self.keyring.clock.unix_millis())?;
        let is_past = match (&old, &period) {
            (Some(old), Some(now)) => old.same_kind(now) && old != now,
            _ => false,
        };
        if is_past && let Some(old) = old {
            return self.seal_in(old, row, context, &plaintext).await;
        }
        self.seal(context, &plaintext).await
    }
}

impl ScopeHandle {
    /// Seals under the Active key of a period that is past.
    async fn seal_in(
        &self,
        past: PeriodLabel,
        row: &TenantRow,
        context: &[Field<'_>],
        plaintext: &[u8],
    ) -> Result<Vec<u8>> {
        let keyring = &self.keyring;
        let mut out = Vec::with_capacity(self.sealed_len(plaintext.len()));
        // In hand or not: after a migration the past period's Active key is one of the old region.
        let is_right = |active: &KeyRow| {
            keyring.may_seal(row, active)
                && active.region == *row.policy.home_region()
                && active.suite == row.policy.key_suite()
                && active.context_rules == *row.policy.context_rules()
        };
        let active = keyring.active_row(self.tenant(), &self.scope, Some(&past)).await?;
        if let Some(active) = active.filter(is_right) {
            let sealed = self.with_key_id_in_hand(&active.key_id, |key| {
                // Loaded to open, it has no messages to seal.
                let mut held = Held::new(Arc::clone(key));
                Ok(matches!(seal_with(&mut held, keyring.now(), context, plaintext, &mut out), InHand::Done(Ok(()))))
            });
            if matches!(sealed, InHand::Done(Ok(true))) {
                return Ok(out);
            }
        }
        let key = keyring.resealing_key(self.tenant(), &self.scope, past).await?;
        match seal_with(&mut Held::new(key), keyring.now(), context, plaintext, &mut out) {
            InHand::Done(sealed) => sealed.map(|()| out),
            InHand::Missing => Err(Error::new(ErrorKind::Unavailable, "the key that reseals was spent; retry")),
        }
    }
}

/// A row of the embedder's table: an envelope, and what it takes to open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeRow {
    /// Names the row; rows are paged in the order of these.
    pub id: String,
    /// The fields of its scope.
    pub scope: Vec<(String, String)>,
    /// The context it was sealed with.
    pub context: Vec<(String, String)>,
    /// The envelope.
    pub envelope: Vec<u8>,
}

/// A table of envelopes, as the embedder keeps them. [`Admin::reseal`] walks it.
#[async_trait]
pub trait EnvelopeTable: Send + Sync {
    /// How two different ids stand in the order in which [`Self::page`] gives them. `None`, the default: not stated; then all pages
    /// have to be in the order of the ids' bytes, or all in that of the numbers that they are. State it where a database orders by
    /// a collation.
    fn compare(&self, _one: &str, _other: &str) -> Option<Ordering> {
        None
    }

    /// Rows of the tenant in the order of their ids, at most `limit`, after the id `after`.
    async fn page(&self, after: Option<&str>, limit: u32) -> Result<Vec<EnvelopeRow>>;

    /// Compare-and-set: puts `envelope` into the row if it still has `row.envelope`, durably. Says whether it had; a row that
    /// was edited or deleted meanwhile is left alone.
    async fn replace(&self, row: &EnvelopeRow, envelope: &[u8]) -> Result<bool>;
}

/// How far the resealing of a table is. One that did not do all that was due ends with an error, of which [`Resealed::of`] gives
/// this.
#[derive(Clone, Debug, Default)]
pub struct Resealed {
    /// Rows looked at.
    pub seen: u64,
    /// Rows under the key to seal with. They were not opened: whether they open is not said.
    pub current: u64,
    /// Rows sealed anew.
    pub resealed: u64,
    /// Rows that somebody changed meanwhile. What they have now was sealed under the Active key, or a later walk finds it.
    pub changed: u64,
    /// Rows that could not be sealed anew; they are as they were.
    pub failed: u64,
    /// The id of the first of these, and why.
    pub first_failure: Option<(String, Error)>,
    /// The last row of the last page that was finished: where to go on after a crash.
    pub after: Option<String>,
}

enum Outcome {
    Current,
    Resealed,
    Changed,
}

impl Admin {
    /// Seals every row of `table` anew that is under an old key, in batches and concurrently as `options` say (its
    /// `on_progress` and `after` are for key records; `progress` and the argument `after` are for rows). Safe to repeat, to
    /// resume behind a row, and to run twice at once.
    ///
    /// # Errors
    /// What the table says; `InvalidArgument` if its pages have no order; as every verb ([`Admin`](crate::Admin#errors-of-every-verb)).
    /// If rows could not be sealed anew, all others are done first: of the first one's kind, as [`ScopeHandle::reseal`]. Each of these errors carries [`Resealed`].
    pub async fn reseal(
        &self,
        tenant: &str,
        table: &dyn EnvelopeTable,
        after: Option<&str>,
        options: &WalkOptions,
        mut progress: impl FnMut(&Resealed) + Send,
    ) -> Result<Resealed> {
        let run = async {
            let handle = self.tenant_handle(tenant).await?;
            let (pace, mut order) = (options.pace(), Order::default());
            let mut walked = Resealed { after: after.map(str::to_owned), ..Resealed::default() };
            loop {
                let page = table.page(walked.after.as_deref(), options.page_size()).await;
                let page = page.map_err(|e| walked.stopped_by(e))?;
                let Some(last) = page.last().map(|row| row.id.clone()) else {
                    return walked.finished();
                };
                order.check(table, walked.after.as_deref(), &page).map_err(|e| walked.stopped_by(e))?;
                let work = page.iter().map(|row| reseal_row(&handle, table, &pace, row));
                let outcomes: Vec<_> = iter(work).buffered(options.at_once()).collect().await;
                for (row, outcome) in page.iter().zip(outcomes) {
                    walked.count(row, outcome);
                }
                walked.after = Some(last);
                progress(&walked);
                pace.wait(walked.resealed + walked.failed).await;
            }
        };
        run.await.map_err(|e: Error| explain(e, "reseal", tenant))
    }
}

/// Which orders the ids of a walk were in so far.
struct Order {
    bytes: bool,
    numbers: bool,
}

impl Default for Order {
    fn default() -> Self {
        Self { bytes: true, numbers: true }
    }
}

impl Order {
    /// # Errors
    /// `InvalidArgument` if the rows are in no order behind `after`: what such pages leave out is not seen.
    fn check(&mut self, table: &dyn EnvelopeTable, after: Option<&str>, page: &[EnvelopeRow]) -> Result<()> {
        let ids = || after.into_iter().chain(page.iter().map(|row| row.id.as_str()));
        for (one, next) in ids().zip(ids().skip(1)) {
            let is_next = if let Some(order) = table.compare(one, next) {
                order == Ordering::Less
            } else {
                self.bytes &= one < next;
                self.numbers &= is_less_as_number(one, next);
                self.bytes || self.numbers
            };
            if !is_next {
                let message = format!(
                    "the table gave row {next:?} behind {one:?}: its pages are not in one order, or in one of their own; order them,                      or state theirs (EnvelopeTable::compare)"
                );
                return Err(Error::invalid(message));
            }
        }
        Ok(())
    }
}

fn is_less_as_number(one: &str, other: &str) -> bool {
    let is_number = |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    let [one_digits, other_digits] = [one, other].map(|id| id.trim_start_matches('0'));
    is_number(one) && is_number(other) && (one_digits.len(), one_digits) < (other_digits.len(), other_digits)
}

impl Resealed {
    /// How far the resealing was that ended with this error; `None` if the error is none of a resealing.
    pub fn of(e: &Error) -> Option<&Self> {
        progress_of(e)
    }

    fn stopped_by(&self, e: Error) -> Error {
        let message = format!("ended after {} rows, of which {} were sealed anew: {e}", self.seen, self.resealed);
        stopped(self.clone(), e, message)
    }

    /// # Errors
    /// Of the first failure's kind, if there were any.
    fn finished(self) -> Result<Self> {
        let Some((id, first)) = self.first_failure.clone() else {
            return Ok(self);
        };
        let message = format!(
            "{} rows could not be sealed anew, and {} were; the first, {id:?}: {first}",
            self.failed, self.resealed
        );
        Err(stopped(self, first, message))
    }

    fn count(&mut self, row: &EnvelopeRow, outcome: Result<Outcome>) {
        self.seen += 1;
        match outcome {
            Ok(Outcome::Current) => self.current += 1,
            Ok(Outcome::Resealed) => self.resealed += 1,
            Ok(Outcome::Changed) => self.changed += 1,
            Err(e) => {
                self.failed += 1;
                self.first_failure.get_or_insert((row.id.clone(), e));
            }
        }
    }
}

async fn reseal_row(
    tenant: &TenantHandle,
    table: &dyn EnvelopeTable,
    pace: &Pace,
    row: &EnvelopeRow,
) -> Result<Outcome> {
    let scope = tenant.scope(borrowed(&row.scope))?;
    let context = borrowed(&row.context);
    let explain = |e| scope.explain(e, "reseal");
    // What is current is passed over first: rows that are not to be done have no turn.
    let Some((of, period)) = scope.due(&row.envelope).await.map_err(explain)? else {
        return Ok(Outcome::Current);
    };
    let resealing = || async {
        pace.turn(1).await;
        scope.reseal_due(&of, period.clone(), &context, &row.envelope).await.map_err(explain)
    };
    let envelope = pace.unhurried(resealing).await?;
    if table.replace(row, &envelope).await? { Ok(Outcome::Resealed) } else { Ok(Outcome::Changed) }
}

fn borrowed(pairs: &[(String, String)]) -> Vec<Field<'_>> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}
