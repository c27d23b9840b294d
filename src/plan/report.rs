//! The plan: rates, cost and warnings, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::key::kek::KekUri;
use crate::key::period::Period;
use crate::key::region::Region;
use crate::plan::model::{Calls, Rates};
use crate::plan::{CallPlanner, TenantLoad};

/// 730 hours.
const MONTH_SECS: f64 = 730.0 * 3600.0;
/// From which part of a quota on the plan warns.
const TIGHT: f64 = 0.7;
/// A change is worth proposing if it takes this part off.
const WORTH: f64 = 0.1;
/// KEKs that name no region are counted together.
const UNSTATED: &str = "not stated";

/// What one tenant asks for. Rates are a second's.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PlannedTenant {
    /// Which.
    pub tenant: String,
    /// Scopes in use.
    pub scopes: f64,
    /// Data keys made.
    pub keys_made: f64,
    /// Data keys loaded by nodes that did not make them, or again after their time to live.
    pub keys_loaded: f64,
    /// Data keys of earlier periods loaded.
    pub old_keys_loaded: f64,
    /// KMS calls, on average.
    pub calls: f64,
    /// KMS calls in the first second after all periods turn.
    pub calls_at_turn: f64,
    /// KMS calls a month of 730 hours.
    pub calls_a_month: f64,
    /// What they cost.
    pub cost_a_month: f64,
    /// Its data keys in one node's memory.
    pub cached_keys: f64,
}

/// What one KEK is asked for. Rates are a second's.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PlannedKek {
    /// Which.
    pub kek: KekUri,
    /// Calls, on average.
    pub calls: f64,
    /// Calls in the first second after all periods turn.
    pub calls_at_turn: f64,
}

/// What the KMS of one region is asked for. Rates are a second's.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PlannedRegion {
    /// Where; `None` for KEKs of which neither the URI nor a policy says.
    pub region: Option<Region>,
    /// Calls, on average.
    pub calls: f64,
    /// Calls in the first second after all periods turn.
    pub calls_at_turn: f64,
    /// Calls that it takes.
    pub quota: f64,
}

impl PlannedRegion {
    /// The busiest second.
    fn most(&self) -> f64 {
        self.calls.max(self.calls_at_turn)
    }
}

/// Something that will not do, and what would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlanWarning {
    /// What will not do.
    pub what: String,
    /// What to change, with what that leads to.
    pub changes: Vec<String>,
}

/// How often the KMSs and the key store will be asked. Rates are a second's.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CallPlan {
    /// How many nodes.
    pub nodes: u32,
    /// By tenant.
    pub tenants: Vec<PlannedTenant>,
    /// By KEK.
    pub keks: Vec<PlannedKek>,
    /// By region, against its quota.
    pub regions: Vec<PlannedRegion>,
    /// Key store: rows read, its log of changes included.
    pub store_reads: f64,
    /// Key store: rows written.
    pub store_writes: f64,
    /// KMS calls a month of 730 hours.
    pub calls_a_month: f64,
    /// What they cost, in the currency of the price.
    pub cost_a_month: f64,
    /// What will not do.
    pub warnings: Vec<PlanWarning>,
}

impl CallPlan {
    /// Whether the busiest second is within every region's quota.
    pub fn is_within_quotas(&self) -> bool {
        self.regions.iter().all(|region| region.most() <= region.quota)
    }

    /// The plan as JSON.
    ///
    /// # Errors
    /// `InvalidArgument` if it cannot be encoded.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|e| Error::invalid("a plan cannot be encoded").with_source(e))
    }
}

/// The plan as a table.
impl fmt::Display for CallPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} nodes; rates are a second's, costs a month's", self.nodes)?;
        let head = ["scopes", "made", "loaded", "old loaded", "KMS calls", "at the turn", "cost"];
        writeln!(f, "{:<24} {}", "tenant", head.map(|name| format!("{name:>11}")).join(" "))?;
        for t in &self.tenants {
            writeln!(
                f,
                "{:<24} {:>11.0} {:>11.3} {:>11.3} {:>11.3} {:>11.3} {:>11.1} {:>11.2}",
                t.tenant,
                t.scopes,
                t.keys_made,
                t.keys_loaded,
                t.old_keys_loaded,
                t.calls,
                t.calls_at_turn,
                t.cost_a_month
            )?;
        }
        for kek in &self.keks {
            writeln!(f, "KEK {}: {:.3} calls, {:.1} at the turn", kek.kek, kek.calls, kek.calls_at_turn)?;
        }
        for region in &self.regions {
            let name = region.region.as_ref().map_or(UNSTATED, Region::as_str);
            let (calls, turn, quota) = (region.calls, region.calls_at_turn, region.quota);
            writeln!(f, "region {name}: {calls:.3} calls, {turn:.1} at the turn, of {quota:.0}")?;
        }
        writeln!(f, "key store: {:.2} reads, {:.3} writes", self.store_reads, self.store_writes)?;
        writeln!(f, "a month: {:.0} KMS calls, {:.2}", self.calls_a_month, self.cost_a_month)?;
        for warning in &self.warnings {
            writeln!(f, "WARNING: {}", warning.what)?;
            for change in &warning.changes {
                writeln!(f, "  {change}")?;
            }
        }
        Ok(())
    }
}

/// Each tenant with its rates.
type Planned<'a> = Vec<(&'a TenantLoad, Rates)>;

pub(crate) fn plan(planner: &CallPlanner) -> Result<CallPlan> {
    let planned: Planned<'_> =
        planner.tenants.iter().map(|load| Ok((load, load.rates(planner.nodes)?))).collect::<Result<_>>()?;
    let cost = |calls: f64| calls / 10_000.0 * planner.price;
    let tenants: Vec<PlannedTenant> = planned
        .iter()
        .map(|(load, rates)| {
            let calls = total(&rates.calls);
            PlannedTenant {
                tenant: load.name.clone(),
                scopes: rates.scopes,
                keys_made: rates.made,
                keys_loaded: rates.loaded,
                old_keys_loaded: rates.old_loaded,
                calls,
                calls_at_turn: total(&rates.calls_at_turn),
                calls_a_month: calls * MONTH_SECS,
                cost_a_month: cost(calls * MONTH_SECS),
                cached_keys: rates.cached,
            }
        })
        .collect();
    let regions = regions(planner, &planned);
    let made: f64 = tenants.iter().map(|t| t.keys_made).sum();
    let loaded: f64 = tenants.iter().map(|t| t.keys_loaded + t.old_keys_loaded).sum();
    // The tenant's row and the key's, for each; and each node reads the log five times in the bound, at least each second.
    let polls = f64::from(planner.nodes) / (planner.revocation_bound.as_secs_f64() / 5.0).min(1.0);
    let calls_a_month = tenants.iter().map(|t| t.calls_a_month).sum();
    let mut warnings = over_quota(planner, &planned, &regions)?;
    warnings.extend(crowded(planner, &tenants));
    Ok(CallPlan {
        nodes: planner.nodes,
        keks: keks(&planned),
        regions,
        store_reads: 2.0 * (made + loaded) + polls,
        store_writes: made,
        calls_a_month,
        cost_a_month: cost(calls_a_month),
        warnings,
        tenants,
    })
}

fn total(calls: &Calls) -> f64 {
    calls.values().sum()
}

fn keks(planned: &Planned<'_>) -> Vec<PlannedKek> {
    let mut by_kek: BTreeMap<&KekUri, (f64, f64)> = BTreeMap::new();
    for (_, rates) in planned {
        for (kek, calls) in &rates.calls {
            by_kek.entry(kek).or_default().0 += calls;
        }
        for (kek, calls) in &rates.calls_at_turn {
            by_kek.entry(kek).or_default().1 += calls;
        }
    }
    let row =
        |(kek, (calls, calls_at_turn)): (&KekUri, (f64, f64))| PlannedKek { kek: kek.clone(), calls, calls_at_turn };
    by_kek.into_iter().map(row).collect()
}

fn regions(planner: &CallPlanner, planned: &Planned<'_>) -> Vec<PlannedRegion> {
    let mut by_region: BTreeMap<Option<Region>, (f64, f64)> = BTreeMap::new();
    for (load, rates) in planned {
        for (kek, calls) in &rates.calls {
            by_region.entry(load.policy.kek_region(kek)).or_default().0 += calls;
        }
        for (kek, calls) in &rates.calls_at_turn {
            by_region.entry(load.policy.kek_region(kek)).or_default().1 += calls;
        }
    }
    let row = |(region, (calls, calls_at_turn)): (Option<Region>, (f64, f64))| {
        let quota = region.as_ref().and_then(|r| planner.quotas.get(r)).copied().unwrap_or(planner.quota);
        PlannedRegion { region, calls, calls_at_turn, quota }
    };
    by_region.into_iter().map(row).collect()
}

/// A second's calls to one region.
fn share(load: &TenantLoad, rates: &Rates, region: Option<&Region>) -> f64 {
    let of = |calls: &Calls| -> f64 {
        calls.iter().filter(|(kek, _)| load.policy.kek_region(kek).as_ref() == region).map(|(_, calls)| calls).sum()
    };
    of(&rates.calls).max(of(&rates.calls_at_turn))
}

fn over_quota(planner: &CallPlanner, planned: &Planned<'_>, regions: &[PlannedRegion]) -> Result<Vec<PlanWarning>> {
    let mut warnings = Vec::new();
    for region in regions.iter().filter(|r| r.most() > TIGHT * r.quota) {
        let name = region.region.as_ref().map_or(UNSTATED, Region::as_str);
        let (most, quota) = (region.most(), region.quota);
        let how = if most > quota { "exceeds" } else { "comes near" };
        let what = format!("region {name}: {most:.0} KMS calls in the busiest second {how} the quota of {quota:.0}");
        let share_of = |(load, rates): &(&TenantLoad, Rates)| share(load, rates, region.region.as_ref());
        let heaviest = planned.iter().max_by(|a, b| share_of(a).total_cmp(&share_of(b)));
        let mut changes = Vec::new();
        if let Some((load, rates)) = heaviest {
            let now = share(load, rates, region.region.as_ref());
            for (change, instead) in alternatives(load) {
                let then = share(&instead, &instead.rates(planner.nodes)?, region.region.as_ref());
                if then < now * (1.0 - WORTH) {
                    changes.push(format!("{}: {change}: {:.0} instead of {most:.0}", load.name, most - now + then));
                }
            }
        }
        changes.push("ask the KMS for a higher quota, or call with a role in each tenant's own account".to_owned());
        warnings.push(PlanWarning { what, changes });
    }
    Ok(warnings)
}

/// What a tenant could do to be asked for less often.
fn alternatives(load: &TenantLoad) -> Vec<(String, TenantLoad)> {
    let policy = &load.policy;
    let with = |policy| TenantLoad { policy, ..load.clone() };
    let mut found = Vec::new();
    let longer = match policy.key_period() {
        Period::Hour => Some((Period::Day, "a data key a day")),
        Period::Day => Some((Period::Month, "a data key a month")),
        Period::Month => Some((Period::None, "no periods")),
        Period::None => None,
    };
    found
        .extend(longer.map(|(period, what)| (format!("a longer period, {what}"), with(policy.clone().period(period)))));
    let ttl = policy.key_cache_ttl();
    if ttl.as_secs() <= 6 * 3600 {
        let what =
            format!("a cache time to live of {} s (revocations at the KMS are heard as late)", 4 * ttl.as_secs());
        found.push((what, with(policy.clone().cache_ttl(4 * ttl))));
    }
    if let Some((last, fewer)) = policy.scope_fields().split_last() {
        let instead = with(policy.clone().scope_by(fewer.iter().cloned()));
        if instead.scopes().is_ok() {
            found.push((format!("scopes without {last:?}"), instead));
        }
    }
    if policy.verifies_new_keys() {
        let what = "new keys not verified (a KMS that hands out wrappings it cannot open is noticed too late)";
        found.push((what.to_owned(), with(policy.clone().verify_new_keys(false))));
    }
    found
}

/// Caches that are too small for the plan to hold.
fn crowded(planner: &CallPlanner, tenants: &[PlannedTenant]) -> Vec<PlanWarning> {
    #[expect(clippy::cast_precision_loss, reason = "a plan's counts are estimates")]
    let (room, room_each) = (planner.cached_keys as f64, planner.cached_keys_per_tenant as f64);
    let mut warnings = Vec::new();
    for tenant in tenants.iter().filter(|t| t.cached_keys > room_each) {
        warnings.push(PlanWarning {
            what: format!(
                "{}: {:.0} data keys do not fit into a node's {room_each:.0} for a tenant; there will be more calls than planned",
                tenant.tenant, tenant.cached_keys
            ),
            changes: vec!["raise StrongroomBuilder::cached_keys_per_tenant".to_owned()],
        });
    }
    let all: f64 = tenants.iter().map(|t| t.cached_keys).sum();
    if all > room {
        warnings.push(PlanWarning {
            what: format!(
                "{all:.0} data keys do not fit into a node's {room:.0}; there will be more calls than planned"
            ),
            changes: vec!["raise StrongroomBuilder::cached_keys, or send tenants to fewer nodes".to_owned()],
        });
    }
    warnings
}
