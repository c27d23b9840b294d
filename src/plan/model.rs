//! How often a tenant's data keys are made and loaded.
//!
//! One node sees messages of one scope at the rate `a`. It loads the scope's key with the first one, and from then on with
//! the first one after `d`, four fifths of the time to live (`CachedKey::wants_refresh`): loads are `d` plus an exponential
//! wait of mean `1/a` apart. What is wanted is how many fall into a key's life of length `L`.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::key::kek::KekUri;
use crate::key::kek_expression::KekExpression;
use crate::key::period::Period;
use crate::key::policy::TenantPolicy;
use crate::plan::TenantLoad;

/// Up to as many loads in a key's life are counted one by one; beyond, the limit of many serves.
const COUNTED: f64 = 400.0;

/// KMS calls by KEK.
pub(crate) type Calls = BTreeMap<KekUri, f64>;

/// What one tenant asks for, each second on average and in the first second of a period.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) scopes: f64,
    pub(crate) made: f64,
    pub(crate) loaded: f64,
    pub(crate) old_loaded: f64,
    pub(crate) calls: Calls,
    pub(crate) calls_at_turn: Calls,
    /// Data keys in one node's memory.
    pub(crate) cached: f64,
}

impl TenantLoad {
    /// How many scopes are in use.
    ///
    /// # Errors
    /// `InvalidArgument` if that was not said of the policy's last scope field.
    pub(crate) fn scopes(&self) -> Result<f64> {
        let Some(last) = self.policy.scope_fields().last() else { return Ok(1.0) };
        self.active
            .get(last)
            .map(|scopes| count(*scopes))
            .ok_or_else(|| Error::invalid(format!("say how many values of {last:?} are active: TenantLoad::active")))
    }

    pub(crate) fn rates(&self, nodes: u32) -> Result<Rates> {
        let (nodes, scopes, policy) = (f64::from(nodes), self.scopes()?, &self.policy);
        let ttl = policy.key_cache_ttl();
        let (ttl, delay) = (ttl.as_secs_f64(), TenantPolicy::refreshed_after(ttl).as_secs_f64());
        let (making, loading) = (making(policy), loading(policy.keks()));
        let mut rates = Rates { scopes, ..Rates::default() };
        let busy = self.seals + self.opens;
        if scopes > 0.0 && busy > 0.0 {
            let at_node = busy / scopes / nodes;
            let life = life(policy, self.seals / scopes / nodes);
            let made = 1.0 - (-at_node * nodes * life).exp();
            let loads = nodes * loads(at_node, life, delay);
            rates.made = scopes * made / life;
            rates.loaded = scopes * (loads - made).max(0.0) / life;
            rates.cached = scopes * resting(at_node, ttl, delay);
            if policy.key_period() != Period::None {
                let first = |rate: f64| 1.0 - (-rate).exp(); // in the first second
                let made = first(at_node * nodes);
                add(&mut rates.calls_at_turn, &making, scopes * made);
                add(&mut rates.calls_at_turn, &loading, scopes * (nodes * first(at_node) - made).max(0.0));
            }
        }
        if self.old_keys > 0 && self.old_opens > 0.0 {
            let keys = count(self.old_keys);
            let at_node = self.old_opens / keys / nodes;
            rates.old_loaded = keys * nodes / (delay + 1.0 / at_node);
            rates.cached += keys * resting(at_node, ttl, delay);
        }
        add(&mut rates.calls, &making, rates.made);
        add(&mut rates.calls, &loading, rates.loaded + rates.old_loaded);
        // What does not wait for the turn goes on in that second.
        let goes_on =
            if policy.key_period() == Period::None { rates.loaded + rates.old_loaded } else { rates.old_loaded };
        add(&mut rates.calls_at_turn, &loading, goes_on);
        if policy.key_period() == Period::None {
            add(&mut rates.calls_at_turn, &making, rates.made);
        }
        Ok(rates)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a plan's counts are estimates")]
fn count(number: u64) -> f64 {
    number as f64
}

/// Seconds that one data key of a scope seals: to the end of its period, its age, or what a node may seal under it.
fn life(policy: &TenantPolicy, seals_at_node: f64) -> f64 {
    const DAY: f64 = 86_400.0;
    let period = match policy.key_period() {
        Period::None => f64::INFINITY,
        Period::Month => 365.2425 / 12.0 * DAY,
        Period::Day => DAY,
        Period::Hour => 3600.0,
    };
    let rotation = policy.rotation_policy();
    let spent = count(rotation.messages()) / seals_at_node; // infinite if nothing is sealed
    period.min(rotation.age().as_secs_f64()).min(spent)
}

/// Expected loads of one node in a key's life.
fn loads(rate: f64, life: f64, delay: f64) -> f64 {
    if life / delay <= COUNTED {
        // The k-th load has happened once k messages came in the time not spent waiting for the time to live.
        let mut sum = 0.0;
        let mut before = 0;
        let mut left = life;
        while left > 0.0 {
            before += 1;
            sum += at_least(before, rate * left);
            left -= delay;
        }
        return sum;
    }
    // Renewal theory, many loads: as if the one before the first had ended just as the life began.
    let (wait, variance) = (delay + 1.0 / rate, 1.0 / (rate * rate));
    ((life + delay) / wait + (variance - wait * wait) / (2.0 * wait * wait)).max(0.0)
}

/// The chance that a Poisson number of this mean is at least `least`, which is at most a few hundred.
fn at_least(least: u32, mean: f64) -> f64 {
    if mean > f64::from(least) + 12.0 * mean.sqrt() || mean > 700.0 {
        return 1.0;
    }
    let mut term = (-mean).exp();
    let mut below = 0.0;
    for n in 0..least {
        below += term;
        term *= mean / f64::from(n + 1);
    }
    (1.0 - below).max(0.0)
}

/// The part of the time that a node has a key in memory: the time to live out of the time between two first loads.
fn resting(rate: f64, ttl: f64, delay: f64) -> f64 {
    (ttl / (delay + 1.0 / rate)).min(1.0)
}

/// KMS calls to make one data key: generate or wrap under every KEK, then unwrap every wrapping if the policy wants proof.
fn making(policy: &TenantPolicy) -> Calls {
    let each = if policy.verifies_new_keys() { 2.0 } else { 1.0 };
    policy.keks().keks().map(|kek| (kek.clone(), each)).collect()
}

/// KMS calls to load one data key: the first of `any_of` serves, `all_of` asks all.
fn loading(keks: &KekExpression) -> Calls {
    match keks {
        KekExpression::One(kek) => Calls::from([(kek.clone(), 1.0)]),
        KekExpression::AnyOf(of) => of.first().map(loading).unwrap_or_default(),
        KekExpression::AllOf(of) => of.iter().flat_map(loading).collect(),
    }
}

fn add(to: &mut Calls, calls: &Calls, times: f64) {
    for (kek, each) in calls {
        *to.entry(kek.clone()).or_default() += each * times;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(got: f64, expected: f64, margin: f64) {
        assert!((got - expected).abs() <= margin * expected.abs().max(1e-9), "{got} is not {expected}");
    }

    #[test]
    fn loads_in_a_life() {
        // Nearly always busy: one at the start, then every 0.8 time to live.
        close(loads(100.0, 3600.0, 240.0), 15.0, 0.01);
        // Nearly never: the messages themselves, rare as they are.
        close(loads(1e-6, 3600.0, 240.0), 0.0036, 0.01);
        // Where counting ends and the limit begins, both say the same.
        for rate in [0.001, 0.01, 0.1, 10.0] {
            close(loads(rate, 399.0 * 60.0, 60.0) / 399.0, loads(rate, 401.0 * 60.0, 60.0) / 401.0, 0.01);
        }
    }

    #[test]
    fn poisson_tails() {
        close(at_least(1, 0.5), 1.0 - (-0.5_f64).exp(), 1e-9);
        close(at_least(2, 1.0), 1.0 - 2.0 * (-1.0_f64).exp(), 1e-9);
        close(at_least(300, 900.0), 1.0, 1e-9);
        close(at_least(400, 400.0), 0.5, 0.05);
        assert!(at_least(300, 100.0) < 1e-12);
    }

    #[test]
    fn calls_of_an_expression() {
        let keks: KekExpression = "any_of(all_of(local:a, local:b), local:c)".parse().unwrap();
        let total = |calls: &Calls| calls.values().sum::<f64>();
        close(total(&loading(&keks)), 2.0, 1e-9);
        // As the walks count that pace themselves by it.
        assert_eq!((keks.calls_to_unwrap(), keks.calls_to_wrap()), (2, 3));
        let policy = TenantPolicy::new(keks, crate::key::region::Region::new("eu").unwrap());
        close(total(&making(&policy)), 6.0, 1e-9);
        close(total(&making(&policy.verify_new_keys(false))), 3.0, 1e-9);
    }
}
