//! The residency report: where a tenant's keys and envelopes are, under which KEKs, how old, and what is misplaced.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::admin::walk::{Pages, WalkOptions};
use crate::admin::{Admin, explain};
use crate::error::{Error, Result};
use crate::key::census::Census;
use crate::key::export::Export;
use crate::key::id::{KeyId, TenantId};
use crate::key::kek::KekUri;
use crate::key::kek_expression::KekExpression;
use crate::key::record::KeyRecord;
use crate::key::region::Region;
use crate::key::state::KeyState;
use crate::key::tenant::TenantRecord;
use crate::key::wrapped_key::WrappedKey;

/// Most misplaced keys that a report names one by one; it counts them all.
const NAMED: usize = 1000;

/// Keys of one region, KEK expression and state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ResidencyRow {
    /// The region in the keys' and their envelopes' tags.
    pub region: Region,
    /// The KEKs that unwrap them; `None` for destroyed keys.
    pub keks: Option<KekExpression>,
    /// Where the KEKs are, those of wrappings that wait for their proof included: as their URIs or the policy say, or else their
    /// KMS.
    pub kek_regions: BTreeSet<Region>,
    /// Their state.
    pub state: &'static str,
    /// How many keys.
    pub keys: u64,
    /// How many envelopes refer to them, as far as the census goes.
    pub envelopes: u64,
    /// When the oldest was created, in Unix milliseconds.
    pub oldest: i64,
    /// Whether region and KEKs are allowed.
    pub allowed: bool,
}

/// Where a tenant's keys and envelopes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ResidencyReport {
    /// Whose.
    pub tenant: TenantId,
    /// Its home region.
    pub home: Region,
    /// The regions allowed beside it.
    pub allowed: Vec<Region>,
    /// When the report was made, in Unix milliseconds.
    pub at: i64,
    /// Keys, by region, KEKs and state.
    pub rows: Vec<ResidencyRow>,
    /// Keys whose region or KEKs are not allowed: the first 1000.
    pub misplaced_keys: Vec<KeyId>,
    /// Envelopes whose region is not allowed, by region.
    pub misplaced_envelopes: BTreeMap<Region, u64>,
    /// Envelopes whose key the tenant does not have, or whose region tag is not their key's.
    pub foreign_envelopes: u64,
    /// Which KEKs data keys were exported to: the copies are wherever these are.
    pub exports: Vec<Export>,
    /// KEKs of which neither URI, policy nor KMS says where they are.
    pub unknown_keks: BTreeSet<KekUri>,
    /// Key records that are not authentic or do not read: nothing is known of them.
    pub unreadable: u64,
    /// Which they are: the first 100.
    pub unreadable_keys: Vec<KeyId>,
}

impl ResidencyReport {
    /// Whether everything is where it may be, as listed: no key, envelope or foreign export is misplaced or unknown.
    pub fn is_clean(&self) -> bool {
        self.misplaced_keys.is_empty()
            && self.misplaced_envelopes.is_empty()
            && self.foreign_envelopes == 0
            && self.unreadable == 0
            && self.unknown_keks.is_empty()
            && !self.exports.iter().any(|export| export.foreign)
    }

    /// The report as JSON.
    ///
    /// # Errors
    /// `InvalidArgument` if it cannot be encoded.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|e| Error::invalid("a report cannot be encoded").with_source(e))
    }
}

/// The report as a table.
impl fmt::Display for ResidencyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allowed: Vec<&str> = self.allowed.iter().map(Region::as_str).collect();
        writeln!(f, "tenant {}, home {}, also allowed: {}", self.tenant, self.home, list(&allowed))?;
        writeln!(f, "{:<16} {:<12} {:>8} {:>10} {:>9}  KEK", "region", "state", "keys", "envelopes", "age")?;
        for row in &self.rows {
            let days = self.at.saturating_sub(row.oldest).max(0) / 86_400_000;
            let keks = row.keks.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
            let mark = if row.allowed { "" } else { "  MISPLACED" };
            writeln!(
                f,
                "{:<16} {:<12} {:>8} {:>10} {:>7} d  {keks}{mark}",
                row.region.as_str(),
                row.state,
                row.keys,
                row.envelopes,
                days
            )?;
        }
        for (region, envelopes) in &self.misplaced_envelopes {
            writeln!(f, "MISPLACED: {envelopes} envelopes in {region}")?;
        }
        if self.foreign_envelopes > 0 {
            writeln!(f, "FOREIGN: {} envelopes of keys that the tenant does not have there", self.foreign_envelopes)?;
        }
        for key_id in &self.misplaced_keys {
            writeln!(f, "MISPLACED: key {key_id}")?;
        }
        for export in &self.exports {
            let mark = if export.foreign { "FOREIGN EXPORT" } else { "export" };
            writeln!(f, "{mark}: data keys left under {} (last at {} Unix milliseconds)", export.kek, export.last_at)?;
        }
        for kek in &self.unknown_keks {
            writeln!(f, "UNKNOWN: where {kek} is")?;
        }
        if self.unreadable > 0 {
            writeln!(f, "UNREADABLE: {} key records", self.unreadable)?;
        }
        for key_id in &self.unreadable_keys {
            writeln!(f, "UNREADABLE: key {key_id}")?;
        }
        Ok(())
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl Admin {
    /// Where the tenant's keys are and, as far as `census` counted them, its envelopes.
    ///
    /// # Errors
    /// As every verb ([`Admin`](crate::Admin#errors-of-every-verb)).
    pub async fn residency(&self, tenant: &str, census: &Census) -> Result<ResidencyReport> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let row = self.keyring.tenant(&id).await?;
            let mut tally = Tally::new(&row, census, self.keyring.clock.unix_millis());
            let options = WalkOptions::default().page(1000);
            let mut pages = Pages::new(self, &id, &options);
            while let Some(page) = pages.next().await? {
                for record in &page {
                    for kek in tally.unlocated(record) {
                        let described = self.keyring.kms.describe(&id, &kek).await;
                        tally.located.insert(kek, described.ok().map(|description| description.region));
                    }
                    tally.key(record);
                }
            }
            (tally.report.unreadable, tally.report.unreadable_keys) = (pages.walked.failed, pages.walked.failed_keys);
            Ok(tally.report())
        };
        run.await.map_err(|e: Error| explain(e, "report residency", tenant))
    }
}

/// What wraps a record's key, or is to.
fn keks_of(record: &KeyRecord) -> BTreeSet<KekUri> {
    let wrapped = record.wrapped.iter().chain(record.pending.as_ref().map(|pending| &pending.wrapped));
    let expressions: Vec<KekExpression> = wrapped.map(WrappedKey::expression).collect();
    expressions.iter().flat_map(KekExpression::keks).cloned().collect()
}

struct Tally<'a> {
    row: &'a TenantRecord,
    /// Where KEKs are that neither their URI nor the policy locates, as their KMS says; `None` if it does not.
    located: BTreeMap<KekUri, Option<Region>>,
    /// What the census counted, by key; what is left at the end is nobody's.
    counted: BTreeMap<(KeyId, Region), u64>,
    rows: BTreeMap<(Region, String, &'static str), ResidencyRow>,
    report: ResidencyReport,
}

impl<'a> Tally<'a> {
    fn new(row: &'a TenantRecord, census: &Census, at: i64) -> Self {
        let mut misplaced = BTreeMap::new();
        for (_, region, count) in census.counts().filter(|(_, region, _)| !row.policy.allows(region)) {
            *misplaced.entry(region.clone()).or_default() += count;
        }
        Self {
            row,
            located: BTreeMap::new(),
            counted: census.counts().map(|(id, region, count)| ((*id, region.clone()), count)).collect(),
            rows: BTreeMap::new(),
            report: ResidencyReport {
                tenant: row.tenant.clone(),
                home: row.policy.home_region().clone(),
                allowed: row.policy.allowed_regions().cloned().collect(),
                at,
                rows: Vec::new(),
                misplaced_keys: Vec::new(),
                misplaced_envelopes: misplaced,
                foreign_envelopes: 0,
                exports: row.exports.clone(),
                unknown_keks: BTreeSet::new(),
                unreadable: 0,
                unreadable_keys: Vec::new(),
            },
        }
    }

    /// The record's KEKs whose region has to be asked for.
    fn unlocated(&self, record: &KeyRecord) -> Vec<KekUri> {
        let unstated = |kek: &KekUri| self.row.policy.kek_region(kek).is_none() && !self.located.contains_key(kek);
        keks_of(record).into_iter().filter(unstated).collect()
    }

    fn key(&mut self, record: &KeyRecord) {
        let (policy, state) = (&self.row.policy, self.row.state_of(record));
        let keks = record.wrapped.as_ref().map(WrappedKey::expression);
        let mut kek_regions = BTreeSet::new();
        for kek in keks_of(record) {
            match policy.kek_region(&kek).or_else(|| self.located.get(&kek).cloned().flatten()) {
                Some(region) => drop(kek_regions.insert(region)),
                None => drop(self.report.unknown_keks.insert(kek)),
            }
        }
        let destroyed = state == KeyState::Destroyed;
        let allowed =
            destroyed || (policy.allows(&record.region) && kek_regions.iter().all(|region| policy.allows(region)));
        if !allowed && self.report.misplaced_keys.len() < NAMED {
            self.report.misplaced_keys.push(record.key_id);
        }
        let envelopes = self.counted.remove(&(record.key_id, record.region.clone())).unwrap_or(0);
        let at = (record.region.clone(), keks.iter().map(ToString::to_string).collect(), state.as_str());
        let row = self.rows.entry(at).or_insert_with(|| ResidencyRow {
            region: record.region.clone(),
            keks,
            kek_regions: BTreeSet::new(),
            state: state.as_str(),
            keys: 0,
            envelopes: 0,
            oldest: i64::MAX,
            allowed,
        });
        row.allowed &= allowed;
        row.kek_regions.extend(kek_regions);
        row.keys += 1;
        row.envelopes += envelopes;
        row.oldest = row.oldest.min(record.created_at);
    }

    fn report(mut self) -> ResidencyReport {
        self.report.rows = self.rows.into_values().collect();
        self.report.foreign_envelopes = self.counted.values().sum();
        self.report
    }
}
