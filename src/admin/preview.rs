//! Previews: which data keys a selector covers, before anything is revoked, denied or erased by it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::admin::walk::{Pages, WalkOptions, Walked};
use crate::admin::{Admin, explain};
use crate::error::{Error, Result};
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::record::KeyRecord;
use crate::key::revocation::Selector;
use crate::key::tenant::TenantRecord;

/// Most keys that a preview names, and most rows that it has; it counts them all.
const NAMED: usize = 100;

/// Data keys of one scope, state and kind of period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PreviewRow {
    /// What they cover.
    pub scope: String,
    /// Their state.
    pub state: &'static str,
    /// How many.
    pub keys: u64,
    /// The first period among them, where there are periods.
    pub first: Option<PeriodLabel>,
    /// The last.
    pub last: Option<PeriodLabel>,
}

/// Which of a tenant's data keys a selector covers at present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// Whose.
    pub tenant: TenantId,
    /// The selector, in words.
    pub selector: String,
    /// When it was made, in Unix milliseconds.
    pub at: i64,
    /// How many key records it covers.
    pub covered: u64,
    /// Of how many.
    pub records: u64,
    /// Of those covered, how many are revoked already.
    pub revoked: u64,
    /// Whether data keys made later may be covered too. Not if the selector names keys by their ids, ends in the past, or names a
    /// field or a kind of period that new keys do not have.
    pub covers_new: bool,
    /// By scope, state and kind of period: the first 100.
    pub rows: Vec<PreviewRow>,
    /// How many of the keys covered are in none of these rows.
    pub more_keys: u64,
    /// The ids of the first 100 keys covered.
    pub keys: Vec<KeyId>,
    /// Key records that are not authentic or do not read: whether they are covered is not known.
    pub unreadable: u64,
    /// Which they are: the first 100.
    pub unreadable_keys: Vec<KeyId>,
}

impl Preview {
    /// The preview as JSON.
    ///
    /// # Errors
    /// `InvalidArgument` if it cannot be encoded.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|e| Error::invalid("a preview cannot be encoded").with_source(e))
    }
}

/// The preview as a table.
impl fmt::Display for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant, selector, covered, records, revoked, .. } = self;
        let new = if self.covers_new { "and keys to come" } else { "no key to come" };
        writeln!(
            f,
            "tenant {tenant}, {selector}: {covered} of {records} data keys ({revoked} revoked already), {new}"
        )?;
        writeln!(f, "{:<34} {:<12} {:>7}  periods", "scope", "state", "keys")?;
        for row in &self.rows {
            let scope = if row.scope.is_empty() { "(the whole tenant)" } else { &row.scope };
            write!(f, "{scope:<34} {:<12} {:>7}  ", row.state, row.keys)?;
            match (&row.first, &row.last) {
                (Some(first), Some(last)) if first != last => writeln!(f, "{first} to {last}")?,
                (Some(only), _) => writeln!(f, "{only}")?,
                _ => writeln!(f, "-")?,
            }
        }
        if self.more_keys > 0 {
            writeln!(f, "and {} keys of other scopes and states", self.more_keys)?;
        }
        if self.unreadable > 0 {
            writeln!(f, "UNREADABLE, perhaps covered: {} key records", self.unreadable)?;
        }
        for key_id in &self.unreadable_keys {
            writeln!(f, "UNREADABLE: key {key_id}")?;
        }
        Ok(())
    }
}

impl Admin {
    /// Which data keys `selector` covers now: what [`Self::revoke`], [`Self::erase`] or a denial in the tenant's
    /// own key policy would hit. Changes nothing.
    ///
    /// # Errors
    /// `InvalidArgument` if the selector could cover nothing; as every verb ([`Admin`](crate::Admin#errors-of-every-verb)).
    pub async fn preview(&self, tenant: &str, selector: &Selector) -> Result<Preview> {
        let run = async {
            let id = TenantId::new(tenant)?;
            self.check_rule(&id, selector).await?;
            let row = self.keyring.tenant(&id).await?;
            let mut tally = Tally::new(&row, selector, self.keyring.clock.unix_millis())?;
            let options = WalkOptions::default().page(1000);
            let mut pages = Pages::new(self, &id, &options);
            while let Some(page) = pages.next().await? {
                for record in &page {
                    tally.count(record);
                }
            }
            let Walked { failed, failed_keys, .. } = pages.walked;
            (tally.preview.unreadable, tally.preview.unreadable_keys) = (failed, failed_keys);
            Ok(tally.preview())
        };
        run.await.map_err(|e: Error| explain(e, "preview", tenant))
    }
}

struct Tally<'a> {
    row: &'a TenantRecord,
    selector: &'a Selector,
    rows: BTreeMap<(String, &'static str, String), PreviewRow>,
    preview: Preview,
}

impl<'a> Tally<'a> {
    fn new(row: &'a TenantRecord, selector: &'a Selector, at: i64) -> Result<Self> {
        let now = row.policy.key_period().label(at)?;
        // Keys to come are of the policy's kind of period, and of now or later: what names another kind, or ends before, covers none.
        let is_other = |label: &PeriodLabel| now.as_ref().is_none_or(|now| !now.same_kind(label));
        let ended = |label: &PeriodLabel| is_other(label) || now.as_ref().is_some_and(|now| label < now);
        let named = selector.conditions().filter_map(|(name, value)| PeriodLabel::new(&format!("{name}={value}")).ok());
        let (from, to) = selector.periods();
        let over = named.collect::<Vec<_>>().iter().chain(to).any(ended) || from.is_some_and(is_other);
        // A field that new keys do not have is asked for of old ones alone.
        let is_gone = |(name, _): (&str, &str)| !row.policy.names(name);
        let over = over || selector.conditions().any(is_gone);
        let preview = Preview {
            tenant: row.tenant.clone(),
            selector: selector.to_string(),
            at,
            covered: 0,
            records: 0,
            revoked: 0,
            covers_new: selector.key_ids().is_none() && !over,
            rows: Vec::new(),
            more_keys: 0,
            keys: Vec::new(),
            unreadable: 0,
            unreadable_keys: Vec::new(),
        };
        Ok(Self { row, selector, rows: BTreeMap::new(), preview })
    }

    fn count(&mut self, record: &KeyRecord) {
        let preview = &mut self.preview;
        preview.records += 1;
        if !self.selector.covers_record(record) {
            return;
        }
        preview.covered += 1;
        if self.row.check_not_revoked(&record.scope, record.period.as_ref(), Some(&record.key_id)).is_err() {
            preview.revoked += 1;
        }
        if preview.keys.len() < NAMED {
            preview.keys.push(record.key_id);
        }
        let (scope, state) = (record.scope.to_string(), self.row.state_of(record).as_str());
        // Hours and days have no order among each other.
        let kind = record.period.as_ref().map_or("", |period| period.field().0).to_owned();
        let row = self.rows.entry((scope.clone(), state, kind)).or_insert_with(|| PreviewRow {
            scope,
            state,
            keys: 0,
            first: record.period.clone(),
            last: record.period.clone(),
        });
        row.keys += 1;
        if record.period < row.first {
            row.first.clone_from(&record.period);
        }
        if record.period > row.last {
            row.last.clone_from(&record.period);
        }
        // However many scopes there are, no more rows are held than shown. What is taken out here does not come in again, because
        // the last of those held only moves forward: so the rows that stay have counted all of their keys.
        if self.rows.len() > NAMED {
            self.rows.pop_last();
        }
    }

    fn preview(mut self) -> Preview {
        self.preview.rows = self.rows.into_values().collect();
        self.preview.more_keys = self.preview.covered - self.preview.rows.iter().map(|row| row.keys).sum::<u64>();
        self.preview
    }
}
