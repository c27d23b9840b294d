//! Retention: the data keys of periods that ended long ago are put to wait to be erased.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::admin::walk::{Pages, WalkOptions};
use crate::admin::{Admin, explain};
use crate::error::{Error, ErrorKind, Result};
use crate::key::erasure::Erasure;
use crate::key::id::TenantId;
use crate::key::period::{Period, PeriodLabel};
use crate::key::revocation::Selector;
use crate::key::state::KeyState;
use crate::key::tenant::{MAX_RULES, TenantRecord};
use crate::retry::Patience;

/// Two erasures of one kind of period are at least this part of the wait apart.
const PART_OF_THE_WAIT: i64 = 256;

impl Admin {
    /// Puts to wait, for `wait`, the data keys of periods that ended longer ago than the policy retains
    /// (`TenantPolicy::retain_for`), whatever period the policy has by now: an erasure for each span of periods, and none where
    /// nothing is due. Call it as often as periods end. What waits already is in no second erasure, so that each can be undone by
    /// itself; what was undone is due again with the next run. A span follows the one before by a 256th of the wait at the
    /// earliest, so that however long the wait, some 256 wait at a time, and the tenant's own erasures find room.
    ///
    /// # Errors
    /// `InvalidArgument` if the policy retains everything; `Limit` if 500 erasures wait; else as [`Self::erase`].
    pub async fn apply_retention(&self, tenant: &str, wait: Duration, options: &WalkOptions) -> Result<Vec<Erasure>> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let mut made = Vec::new();
            let mut patience = Patience::default();
            while patience.tries_again().await {
                match self.retain_once(&id, wait, options, &mut made).await {
                    Err(e) if e.kind() == ErrorKind::Conflict => {}
                    done => return done.map(|()| made),
                }
            }
            Err(Error::new(ErrorKind::Unavailable, "the tenant's erasures are being changed over and over; retry"))
        };
        run.await.map_err(|e: Error| explain(e, "apply retention", tenant))
    }

    /// # Errors
    /// `Conflict` if others changed meanwhile what waits.
    async fn retain_once(
        &self,
        id: &TenantId,
        wait: Duration,
        options: &WalkOptions,
        made: &mut Vec<Erasure>,
    ) -> Result<()> {
        let row = self.keyring.tenant(id).await?;
        let retention = row.policy.retention();
        let retention = retention.ok_or_else(|| Error::invalid("the tenant's policy retains all keys"))?;
        let now = self.keyring.clock.unix_millis();
        let cutoff = now.saturating_sub(millis(retention));
        let ended: Vec<PeriodLabel> = [Period::Hour, Period::Day, Period::Month]
            .into_iter()
            // Before the calendar began nothing ended.
            .filter_map(|kind| kind.ended_before(cutoff).ok().flatten())
            .collect();
        let due = self.due(id, &row, &ended, options).await?;
        let lately = now.saturating_sub(millis(wait) / PART_OF_THE_WAIT);
        let mut seen = row.erasures.clone();
        for last in &ended {
            let spans = spans_of(&seen);
            let is_early = |(of, requested_at): &(Span, i64)| of.is_of(last) && *requested_at > lately;
            if spans.iter().any(is_early) {
                continue;
            }
            let spans: Vec<Span> = spans.into_iter().map(|(span, _)| span).filter(|span| span.is_of(last)).collect();
            for span in between(&due, &spans, last) {
                if seen.len() >= MAX_RULES / 2 {
                    let message = "500 erasures wait already, and the rest is kept for the tenant's own: carry out those that are due";
                    return Err(Error::limit(message));
                }
                let wanted = self.wanted(span.selector(), wait)?;
                let unchanged = |row: &TenantRecord| {
                    let message = "what waits to be erased was changed meanwhile";
                    if row.erasures == seen { Ok(()) } else { Err(Error::new(ErrorKind::Conflict, message)) }
                };
                let erasure = self.put_to_wait(id, &wanted, unchanged).await?;
                seen.push(erasure.clone());
                made.push(erasure);
            }
        }
        Ok(())
    }

    /// The periods, up to those in `ended`, of keys that are there and do not wait.
    async fn due(
        &self,
        id: &TenantId,
        row: &TenantRecord,
        ended: &[PeriodLabel],
        options: &WalkOptions,
    ) -> Result<BTreeSet<PeriodLabel>> {
        let whole = options.whole();
        let mut pages = Pages::new(self, id, &whole);
        let mut due = BTreeSet::new();
        while let Some(page) = pages.next().await? {
            for record in page {
                let Some(period) = &record.period else { continue };
                let is_over = ended.iter().any(|last| last.same_kind(period) && period <= last);
                let waits = || row.erasures.iter().any(|e| e.selector.covers_record(&record));
                if is_over && record.state != KeyState::Destroyed && !due.contains(period) && !waits() {
                    due.insert(period.clone());
                }
            }
        }
        Ok(due)
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Periods of one kind, from one to another; without an end on one side, all before or after it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    from: Option<PeriodLabel>,
    to: Option<PeriodLabel>,
}

impl Span {
    fn is_of(&self, kind: &PeriodLabel) -> bool {
        self.from.as_ref().or(self.to.as_ref()).is_some_and(|end| end.same_kind(kind))
    }

    fn ends_before(&self, period: &PeriodLabel) -> bool {
        self.to.as_ref().is_some_and(|to| to < period)
    }

    fn begins_after(&self, period: &PeriodLabel) -> bool {
        self.from.as_ref().is_some_and(|from| from > period)
    }

    fn selector(&self) -> Selector {
        let from = self.from.iter().cloned().fold(Selector::everything(), Selector::from);
        self.to.iter().cloned().fold(from, Selector::to)
    }
}

/// The erasures of whole spans among those that wait, and when each was asked for.
fn spans_of(waiting: &[Erasure]) -> Vec<(Span, i64)> {
    let span_of = |erasure: &Erasure| {
        let (from, to) = erasure.selector.periods();
        let span = Span { from: from.cloned(), to: to.cloned() };
        (span.selector() == erasure.selector).then_some((span, erasure.requested_at))
    };
    waiting.iter().filter_map(span_of).collect()
}

/// What is due of the kind of `last` and up to it, in spans that touch none of those that wait. Where none waits on a side, the span has no
/// end there but `last`: so it also covers keys that the store does not show at present.
fn between(due: &BTreeSet<PeriodLabel>, waiting: &[Span], last: &PeriodLabel) -> Vec<Span> {
    let mut spans: Vec<(PeriodLabel, PeriodLabel)> = Vec::new();
    for period in due.iter().filter(|period| period.same_kind(last)) {
        match spans.last_mut() {
            Some((_, to)) if !waiting.iter().any(|span| !span.ends_before(to) && !span.begins_after(period)) => {
                *to = period.clone();
            }
            _ => spans.push((period.clone(), period.clone())),
        }
    }
    let count = spans.len();
    let ended = |(at, (from, to)): (usize, (PeriodLabel, PeriodLabel))| Span {
        from: (at > 0 || waiting.iter().any(|span| span.ends_before(&from))).then_some(from),
        to: Some(if at + 1 < count || waiting.iter().any(|span| span.begins_after(&to)) { to } else { last.clone() }),
    };
    spans.into_iter().enumerate().map(ended).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(n: i64) -> PeriodLabel {
        Period::Hour.label(n * 3_600_000).unwrap().unwrap()
    }

    fn span(from: Option<i64>, to: Option<i64>) -> Span {
        Span { from: from.map(hour), to: to.map(hour) }
    }

    #[test]
    fn what_is_due_is_split_around_what_waits() {
        let due = |hours: &[i64]| hours.iter().map(|n| hour(*n)).collect::<BTreeSet<_>>();
        let last = hour(20);
        for (hours, waiting, expected) in [
            (&[][..], vec![], vec![]),
            (&[3, 4, 9], vec![], vec![span(None, Some(20))]),
            (&[9], vec![span(None, Some(8))], vec![span(Some(9), Some(20))]),
            (&[3, 4], vec![span(Some(5), Some(8))], vec![span(None, Some(4))]),
            (&[3, 4, 9, 11], vec![span(Some(5), Some(8))], vec![span(None, Some(4)), span(Some(9), Some(20))]),
            (
                &[3, 5, 7],
                vec![span(Some(4), Some(4)), span(Some(6), Some(6))],
                vec![span(None, Some(3)), span(Some(5), Some(5)), span(Some(7), Some(20))],
            ),
        ] {
            assert_eq!(between(&due(hours), &waiting, &last), expected, "{hours:?} around {waiting:?}");
        }
        let days = BTreeSet::from([Period::Day.label(0).unwrap().unwrap()]);
        assert_eq!(between(&days, &[], &last), []);
    }

    #[test]
    fn only_whole_spans_are_taken_for_such() {
        let waits =
            |selector| Erasure { id: "E".into(), selector, requested_at: 7, due_at: 9, carried_out_since: None };
        let whole = Selector::everything().from(hour(1)).to(hour(2));
        let of_channel = Selector::fields([("channel", "C9")]).to(hour(2));
        let spans = spans_of(&[waits(whole), waits(of_channel), waits(Selector::everything())]);
        let whole: Vec<&Span> = spans.iter().map(|(span, _)| span).filter(|span| span.is_of(&hour(0))).collect();
        assert_eq!(whole, [&span(Some(1), Some(2))]);
    }
}
