//! Floor 5: the call planner. How often the KMSs and the key store will be asked, and what it costs, before anybody is
//! enrolled. Arithmetic over tenant policies; it calls nobody. `model` says how often keys are made and loaded, `report`
//! what is shown.

pub(crate) mod model;
pub(crate) mod report;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::key::policy::TenantPolicy;
use crate::key::region::Region;
use crate::plan::report::CallPlan;
use crate::room::{CACHED_KEYS, CACHED_KEYS_PER_TENANT, REVOCATION_BOUND};

/// Price of 10 000 requests to AWS KMS in US dollars ("AWS Key Management Service pricing", symmetric keys, November 2026).
const PRICE_PER_10_000: f64 = 0.03;
/// Requests a second that AWS KMS takes for all symmetric keys together, in one account and region, in most regions
/// ("Request quotas", AWS KMS Developer Guide, November 2026). Some regions have 20 000 or 100 000; it can be raised.
const QUOTA: f64 = 10_000.0;

/// What a tenant's people do: how busy it is, and over how many scopes that spreads.
#[derive(Clone, Debug)]
#[must_use]
pub struct TenantLoad {
    pub(crate) name: String,
    pub(crate) policy: TenantPolicy,
    /// Scopes in use if only the fields up to this one made scopes.
    pub(crate) active: BTreeMap<String, u64>,
    pub(crate) seals: f64,
    pub(crate) opens: f64,
    pub(crate) old_keys: u64,
    pub(crate) old_opens: f64,
}

impl TenantLoad {
    /// A tenant with this policy that does nothing yet.
    pub fn new(name: impl Into<String>, policy: TenantPolicy) -> Self {
        Self { name: name.into(), policy, active: BTreeMap::new(), seals: 0.0, opens: 0.0, old_keys: 0, old_opens: 0.0 }
    }

    /// How many different values a scope field has among the messages of an hour or so, counted down to this field: with
    /// scopes by workspace and channel, `("workspace", 10)` and `("channel", 2000)` are 2000 channels in 10 workspaces. The
    /// last field's is needed; with the others', the plan can say what fewer scope fields would save.
    pub fn active(mut self, field: impl Into<String>, scopes: u64) -> Self {
        self.active.insert(field.into(), scopes);
        self
    }

    /// Messages sealed a second, over all scopes and nodes.
    pub fn seals_per_second(mut self, seals: f64) -> Self {
        self.seals = seals;
        self
    }

    /// Messages of the present period opened a second, over all scopes and nodes.
    pub fn opens_per_second(mut self, opens: f64) -> Self {
        self.opens = opens;
        self
    }

    /// Scrolling back: messages of earlier periods opened a second, and over how many data keys that spreads.
    pub fn history(mut self, keys: u64, opens_per_second: f64) -> Self {
        self.old_keys = keys;
        self.old_opens = opens_per_second;
        self
    }
}

/// Plans the calls of a fleet of nodes.
///
/// ```
/// use std::time::Duration;
/// use strongroom::{CallPlanner, KekUri, Period, Region, TenantLoad, TenantPolicy};
///
/// let region = Region::new("eu-central-1")?;
/// let kek = KekUri::new("aws-kms:arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")?;
/// let policy = TenantPolicy::new(kek, region).scope_by(["workspace", "channel"]).bind(["message"]).period(Period::Hour);
/// let acme = TenantLoad::new("acme", policy)
///     .active("workspace", 10)
///     .active("channel", 2000)
///     .seals_per_second(50.0)
///     .opens_per_second(400.0);
/// let plan = CallPlanner::new(6).tenant(acme).plan()?;
/// println!("{plan}");
/// assert!(plan.is_within_quotas());
/// # Ok::<(), strongroom::Error>(())
/// ```
///
/// # The model
///
/// Messages arrive independently of each other (Poisson), spread evenly over scopes and nodes. A node loads a scope's data
/// key with the first message, and again with the first one after four fifths of the cache's time to live; each period,
/// each scope's first message makes a new data key. Messages that are spread unevenly, as real ones are, need *fewer* calls;
/// so does a balancer that sends a scope to few nodes. Calls at the turn of a period are those of nodes that made no keys ahead
/// ([`StrongroomBuilder::keys_ahead`](crate::StrongroomBuilder::keys_ahead)): at most so many, where they did. Not counted:
/// keys made ahead for scopes that then stay quiet, two nodes that make one scope's key at the same moment
/// (the loser's call is lost), retries, and keys that leave a cache for lack of room (that is warned of).
#[derive(Clone, Debug)]
#[must_use]
pub struct CallPlanner {
    pub(crate) nodes: u32,
    pub(crate) tenants: Vec<TenantLoad>,
    pub(crate) price: f64,
    pub(crate) quota: f64,
    pub(crate) quotas: BTreeMap<Region, f64>,
    pub(crate) revocation_bound: Duration,
    pub(crate) cached_keys: u64,
    pub(crate) cached_keys_per_tenant: u64,
}

impl CallPlanner {
    /// A fleet of this many nodes, over which messages are spread evenly.
    pub fn new(nodes: u32) -> Self {
        Self {
            nodes,
            tenants: Vec::new(),
            price: PRICE_PER_10_000,
            quota: QUOTA,
            quotas: BTreeMap::new(),
            revocation_bound: REVOCATION_BOUND,
            cached_keys: CACHED_KEYS as u64,
            cached_keys_per_tenant: CACHED_KEYS_PER_TENANT as u64,
        }
    }

    /// Adds a tenant.
    pub fn tenant(mut self, tenant: TenantLoad) -> Self {
        self.tenants.push(tenant);
        self
    }

    /// What 10 000 KMS requests cost. Default: 0.03, AWS KMS's price in US dollars in November 2026. AWS bills the account
    /// that calls.
    pub fn price_per_10_000(mut self, price: f64) -> Self {
        self.price = price;
        self
    }

    /// Requests a second that the KMS takes in each region. Default: 10 000, AWS KMS's for symmetric keys in most regions in
    /// November 2026, shared by all that the *calling* account does with AWS KMS there, for whomever's keys. Whoever calls
    /// with a role in the tenant's account plans that tenant by itself.
    pub fn quota(mut self, per_second: f64) -> Self {
        self.quota = per_second;
        self
    }

    /// Another quota in one region.
    pub fn quota_in(mut self, region: Region, per_second: f64) -> Self {
        self.quotas.insert(region, per_second);
        self
    }

    /// As `StrongroomBuilder::revocation_bound`: says how often the store's log of changes is read.
    pub fn revocation_bound(mut self, bound: Duration) -> Self {
        self.revocation_bound = bound;
        self
    }

    /// As `StrongroomBuilder::cached_keys` and `cached_keys_per_tenant`.
    pub fn cached_keys(mut self, keys: u64, per_tenant: u64) -> Self {
        self.cached_keys = keys;
        self.cached_keys_per_tenant = per_tenant;
        self
    }

    /// The plan.
    ///
    /// # Errors
    /// `InvalidArgument` for a wrong policy, a rate or a price that is no number from 0 up, no node, or scope fields whose
    /// active values are not said.
    pub fn plan(&self) -> Result<CallPlan> {
        self.check().and_then(|()| report::plan(self)).map_err(|e| e.with_operation("plan calls"))
    }

    fn check(&self) -> Result<()> {
        let numbers = [self.price, self.quota];
        let rates = self.tenants.iter().flat_map(|t| [t.seals, t.opens, t.old_opens]);
        let all = numbers.into_iter().chain(self.quotas.values().copied()).chain(rates);
        if self.nodes == 0 || all.into_iter().any(|number| !number.is_finite() || number < 0.0) {
            return Err(Error::invalid("a plan needs at least one node, and rates, prices and quotas from 0 up"));
        }
        self.tenants.iter().try_for_each(|tenant| {
            let checked = tenant.policy.check().and_then(|()| tenant.scopes().map(|_| ()));
            checked.map_err(|e| e.with_tenant(&tenant.name))
        })
    }
}
