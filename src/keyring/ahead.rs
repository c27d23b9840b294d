//! Keys made ahead of time: near the end of a period, those of the next one, for scopes that are in use. So the turn of the hour is
//! no cold start, and a KMS that is down at that moment stops nobody.
//!
//! Such a key is the next period's Active key, made, verified and cached under the same rules as any other: what the tenant's row
//! and the room forbid is asked when it is loaded, and what is decided afterwards takes it out of memory as it does the present
//! one. It waits in its scope's slot ([`Slot::next`](crate::keyring::cache::Slot::next)) and seals nothing before its period. A
//! scope that sealed nothing while its present key was in memory gets none, so that records do not multiply.
//!
//! Loads are spread over the lead by a fraction that each process draws for each scope, so the first process makes the key and
//! the others find it. They are few at once, for a tenant and in all, so that callers' own loads find room. What fails is tried again
//! after a while, and nobody is told: at the turn the key is loaded as if it had never been tried.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::key::id::TenantId;
use crate::key::period::{Period, PeriodLabel};
use crate::key::scope::Scope;
use crate::keyring::Keyring;
use crate::keyring::cache::CachedKey;
use crate::keyring::failures::passes;
use crate::keyring::flight::{Loaded, Wanted, landing};

/// How often scopes are looked for whose time has come.
const TICK: Duration = Duration::from_secs(1);
/// How long before the turn the first keys are made: half the time to live, so that a key lives for as long in its own period, within
/// these bounds. A key that lives for less is made all the same, and loaded again shortly before the turn.
const SHORTEST_LEAD: Duration = Duration::from_secs(120);
const LONGEST_LEAD: Duration = Duration::from_secs(300);
/// The last tenth of the lead is for those that failed.
const FOR_RETRIES: f64 = 0.1;
/// How long a scope is left alone after a try.
const AGAIN: Duration = Duration::from_secs(15);
/// Most loads at once in all.
const AT_ONCE: usize = 64;
/// Most loads of a tenant at once, and most of the KMS calls that it may have under way: the others are its callers'.
const OF_TENANT_AT_ONCE: usize = 8;
const PART_OF_CALLS: usize = 4;
/// After a failure a tenant is left alone for this, twice as long after each further one, up to this.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A period that ends soon.
#[derive(Debug)]
struct Turn {
    ends: PeriodLabel,
    begins: PeriodLabel,
    /// After this.
    left: Duration,
}

/// The turns within the longest lead from `unix_millis` on.
fn turns_near(unix_millis: i64) -> Vec<Turn> {
    let turn = |kind: Period| {
        let left = kind.remaining(unix_millis).ok()??;
        let (ends, begins) = (kind.label(unix_millis).ok()??, kind.next(unix_millis).ok()??);
        (left <= LONGEST_LEAD).then_some(Turn { ends, begins, left })
    };
    [Period::Hour, Period::Day, Period::Month].into_iter().filter_map(turn).collect()
}

/// A scope whose next key is wanted.
#[derive(Debug)]
struct Due {
    scope: Scope,
    begins: PeriodLabel,
    turn: Duration,
    /// Where in the lead its turn comes.
    fraction: f64,
}

/// What the task remembers from one look to the next.
struct Making {
    /// Draws the fractions.
    hasher: RandomState,
    permits: Arc<Semaphore>,
    under_way: JoinSet<(TenantId, bool)>,
    tenants: HashMap<TenantId, Tenant>,
}

#[derive(Default)]
struct Tenant {
    is_under_way: bool,
    failed: u32,
    rests_until: Duration,
}

impl Default for Making {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            under_way: JoinSet::new(),
            tenants: HashMap::new(),
        }
    }
}

/// Makes keys ahead of time until the keyring is gone.
pub(crate) async fn making_ahead(keyring: Weak<Keyring>) {
    let mut making = Making::default();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(keyring) = keyring.upgrade() else {
            return;
        };
        making.look(&keyring).await;
    }
}

impl Making {
    async fn look(&mut self, keyring: &Arc<Keyring>) {
        let now = keyring.now();
        while let Some(ended) = self.under_way.try_join_next() {
            if let Ok((tenant, failed)) = ended {
                self.ended(tenant, failed, now);
            }
        }
        let turns = turns_near(keyring.clock.unix_millis());
        if turns.is_empty() {
            self.tenants.retain(|_, tenant| tenant.is_under_way);
            return;
        }
        for (tenant, due) in self.due(keyring, &turns, now).await {
            self.tenants.entry(tenant.clone()).or_default().is_under_way = true;
            self.under_way.spawn(of_tenant(Arc::downgrade(keyring), Arc::clone(&self.permits), tenant, due));
        }
    }

    fn ended(&mut self, tenant: TenantId, failed: bool, now: Duration) {
        let fraction = self.fraction(&(&tenant, now));
        let tenant = self.tenants.entry(tenant).or_default();
        tenant.is_under_way = false;
        if failed {
            let longest = SHORTEST_PAUSE.saturating_mul(1 << tenant.failed.min(10)).min(LONGEST_PAUSE);
            tenant.rests_until = now + longest.mul_f64(f64::midpoint(1.0, fraction));
            tenant.failed += 1;
        } else {
            tenant.failed = 0;
        }
    }

    /// From 0 to 1.
    fn fraction(&self, of: &impl std::hash::Hash) -> f64 {
        let [high, low, ..] = self.hasher.hash_one(of).to_be_bytes();
        f64::from(u16::from_be_bytes([high, low])) / f64::from(u16::MAX)
    }

    /// The scopes whose time has come. Between slices of the keys others have their turn.
    async fn due(&self, keyring: &Keyring, turns: &[Turn], now: Duration) -> HashMap<TenantId, Vec<Due>> {
        let mut due: HashMap<TenantId, Vec<Due>> = HashMap::new();
        let rests = |tenant: &TenantId| {
            self.tenants.get(tenant).is_some_and(|tenant| tenant.is_under_way || now < tenant.rests_until)
        };
        let mut from = Some(0);
        while let Some(place) = from {
            from = keyring.cache.look_at_some(place, |key| {
                if let Some(of) = self.is_due(key, turns, now)
                    && !rests(&key.tenant)
                    && key.cares_ahead(now, now + AGAIN)
                {
                    due.entry(key.tenant.clone()).or_default().push(of);
                }
            });
            tokio::task::yield_now().await;
        }
        due
    }

    fn is_due(&self, key: &CachedKey, turns: &[Turn], now: Duration) -> Option<Due> {
        let turn = turns.iter().find(|turn| key.period.as_ref() == Some(&turn.ends))?;
        if key.is_ahead || !key.is_in_use() || now >= key.seals_until {
            return None;
        }
        let fraction = self.fraction(&(&key.tenant, key.key.scope()));
        let lead = (key.time_to_live() / 2).clamp(SHORTEST_LEAD, LONGEST_LEAD);
        (turn.left <= part_of(lead, fraction)).then(|| Due {
            scope: key.key.scope().clone(),
            begins: turn.begins.clone(),
            turn: now + turn.left,
            fraction,
        })
    }
}

/// How long before the turn a scope's load begins.
fn part_of(lead: Duration, fraction: f64) -> Duration {
    lead.mul_f64(FOR_RETRIES + (1.0 - FOR_RETRIES) * fraction)
}

/// Loads the next keys of a tenant. Whether a KMS or a store failed: then the rest is left for later.
async fn of_tenant(
    keyring: Weak<Keyring>,
    permits: Arc<Semaphore>,
    tenant: TenantId,
    due: Vec<Due>,
) -> (TenantId, bool) {
    let failed = AtomicBool::new(false);
    let calls = keyring.upgrade().map_or(0, |keyring| keyring.kms.calls_per_tenant());
    let at_once = (calls / PART_OF_CALLS).clamp(1, OF_TENANT_AT_ONCE);
    let load = async |due: Due| {
        let Ok(_permit) = permits.acquire().await else { return };
        let Some(keyring) = keyring.upgrade().filter(|_| !failed.load(Ordering::Relaxed)) else { return };
        let Err(e) = keyring.make_ahead(&tenant, &due).await else { return };
        if passes(e.kind()) && !failed.swap(true, Ordering::Relaxed) {
            tracing::warn!(%tenant, error = %e, "keys of the next period cannot be made ahead of time yet");
        } else {
            tracing::debug!(%tenant, error = %e, "a key of the next period was not made ahead of time");
        }
    };
    stream::iter(due).for_each_concurrent(at_once, load).await;
    let failed = failed.into_inner();
    (tenant, failed)
}

impl Keyring {
    /// Loads a scope's key of the period that comes next, made if there is none, unless one waits that lives long enough.
    async fn make_ahead(self: &Arc<Self>, tenant: &TenantId, due: &Due) -> Loaded {
        let slot = self.slot(tenant, &due.scope);
        let waits = || slot.slot().next().filter(|next| next.lives_until() > due.turn);
        let wanted = Wanted::Ahead(tenant.clone(), due.scope.clone(), due.begins.clone());
        let key = landing(self.start(wanted, true, waits)).await?;
        if let Some(current) = slot.slot().current() {
            // A short-lived one is loaded again when half its life reaches into its period.
            let again = due.turn.saturating_sub(part_of(key.time_to_live() / 2, due.fraction));
            current.care_ahead_at((key.lives_until() <= due.turn).then_some(again.max(self.now() + TICK)));
        }
        Ok(key)
    }
}
