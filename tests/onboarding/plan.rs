//! The planner's numbers against a simulation: real rooms on one key store, a KMS that counts, a clock moved by hand, and a
//! seeded random load.

use std::sync::Arc;
use std::time::Duration;

use strongroom::testing::{FaultyKms, ManualClock, Operator};
use strongroom::{
    CallPlan, CallPlanner, ErrorKind, KekExpression, LocalKms, MemoryKeyStore, Period, ScopeHandle, Strongroom,
    TenantLoad, TenantPolicy,
};

use crate::records::{HOUR, region};

const EU: &str = "eu-central-1";
/// 2026-11-22T05:00:00Z, so that hours begin with the simulation.
const START: i64 = 1_795_323_600_000;

/// How far the plan may be off.
const MARGIN: f64 = 0.05;

struct Case {
    nodes: u32,
    scopes: u32,
    per_second: f64,
    hours: u32,
    ttl: u64,
    period: Period,
    keks: u8,
    verify: bool,
}

/// Uniform numbers from 0 to 1 (xorshift64*): the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = u32::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32).unwrap();
        (f64::from(bits) + 0.5) / 4_294_967_296.0
    }

    fn below(&mut self, bound: u32) -> usize {
        usize::try_from(whole(self.next() * f64::from(bound))).unwrap()
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 up, and far below 2^52")]
fn whole(number: f64) -> u64 {
    number as u64
}

struct Counted {
    calls: usize,
    generates: usize,
    /// In the first second of each hour.
    at_turns: usize,
    reads: f64,
}

fn keks(kms: &LocalKms, count: u8) -> KekExpression {
    let made: Vec<_> = (0..count).map(|n| kms.create_kek(&format!("k{n}"), region(EU)).unwrap()).collect();
    match made.as_slice() {
        [one] => one.into(),
        [one, two] => KekExpression::any_of([one, two]),
        _ => KekExpression::any_of([KekExpression::all_of(&made[..2]), KekExpression::One(made[2].clone())]),
    }
}

impl Case {
    fn policy(&self, kms: &LocalKms) -> TenantPolicy {
        TenantPolicy::new(keks(kms, self.keks), region(EU))
            .scope_by(["channel"])
            .allow_unbound_messages()
            .period(self.period)
            .cache_ttl(Duration::from_secs(self.ttl))
            .verify_new_keys(self.verify)
    }

    async fn simulate(&self, seed: u64) -> Counted {
        let local = LocalKms::in_memory();
        let policy = self.policy(&local);
        let kms = FaultyKms::new(local);
        let (store, clock) = (Arc::new(MemoryKeyStore::default()), ManualClock::at(START));
        let mut handles: Vec<Vec<ScopeHandle>> = Vec::new();
        let mut rooms: Vec<Strongroom> = Vec::new();
        let operator = Operator::default();
        for node in 0..self.nodes {
            let builder = Strongroom::builder().serving([EU]).key_store(Arc::clone(&store)).kms(kms.clone());
            // A task that looks once a second of real time makes nothing ahead at the pace of this clock.
            let builder = builder.clock(clock.clone()).revocation_bound(24 * HOUR).keys_ahead(false);
            let room = builder.open_under(&operator).await;
            if node == 0 {
                room.admin("a test", "to test").unwrap().enroll("acme", policy.clone()).await.unwrap();
            }
            let acme = room.tenant("acme").await.unwrap();
            let scope = |n: u32| acme.scope([("channel", &*format!("C{n}"))]).unwrap();
            handles.push((0..self.scopes).map(scope).collect());
            rooms.push(room);
        }
        let (before, mut random) = (kms.calls(), Random(seed));
        let (mut at, end) = (0.0_f64, f64::from(self.hours) * 3600.0);
        let (mut at_turns, mut passed) = (0, Duration::ZERO);
        loop {
            at += -random.next().ln() / self.per_second;
            if at >= end {
                break;
            }
            // In whole milliseconds, which is what the wall clock shows: rounding each step would make it fall behind.
            let now = Duration::from_millis(whole(at * 1000.0));
            clock.advance(now.checked_sub(passed).unwrap());
            passed = now;
            let asked = kms.calls();
            let handle = &handles[random.below(self.nodes)][random.below(self.scopes)];
            handle.seal(&[], b"text").await.unwrap();
            // Loads ahead of expiry run beside; in one thread, they are done when everybody else had their turn.
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
            if passed.as_millis() % 3_600_000 < 1000 {
                at_turns += kms.calls() - asked;
            }
        }
        Counted { calls: kms.calls() - before, generates: kms.generates(), at_turns, reads: end }
    }

    fn planned(&self) -> CallPlan {
        let load = TenantLoad::new("acme", self.policy(&LocalKms::in_memory()));
        let load = load.active("channel", self.scopes.into()).seals_per_second(self.per_second);
        CallPlanner::new(self.nodes).tenant(load).plan().unwrap()
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn off(planned: f64, counted: usize) -> f64 {
    planned / counted as f64 - 1.0
}

fn cases() -> Vec<Case> {
    let case = |nodes, scopes, per_second, hours, ttl, period, keks, verify| Case {
        nodes,
        scopes,
        per_second,
        hours,
        ttl,
        period,
        keks,
        verify,
    };
    vec![
        // Busy channels: loads by time to live count most.
        case(3, 5, 1.0, 6, 300, Period::Hour, 1, true),
        // Quiet channels on many nodes: nearly each message loads.
        case(6, 60, 0.2, 8, 60, Period::Hour, 1, true),
        // Long time to live: nearly only new keys.
        case(2, 40, 0.3, 6, 3600, Period::Hour, 1, false),
        // An escrow beside the KEK.
        case(4, 20, 0.5, 6, 300, Period::Hour, 2, true),
        // Dual control or an escrow; a data key a day.
        case(3, 10, 0.3, 24, 600, Period::Day, 3, true),
        // In between.
        case(4, 30, 0.5, 6, 120, Period::Hour, 1, true),
    ]
}

#[tokio::test]
async fn the_plan_is_what_a_simulation_counts() {
    let mut table = Vec::new();
    for (number, case) in (1..).zip(cases()) {
        let (planned, counted) = (case.planned(), case.simulate(0x5EED + number).await);
        let calls = planned.tenants[0].calls * counted.reads;
        table.push(format!(
            "case {number}: planned {calls:.0}, counted {} ({} generated), off by {:+.1} %",
            counted.calls,
            counted.generates,
            100.0 * off(calls, counted.calls)
        ));
        assert!(counted.calls > 200, "too few to compare: {}", counted.calls);
        assert!(off(calls, counted.calls).abs() < MARGIN, "{}", table.join("\n"));
    }
    println!("{}", table.join("\n"));
}

#[tokio::test]
async fn the_turn_of_the_hour_is_what_a_simulation_counts() {
    let case = Case {
        nodes: 4,
        scopes: 100,
        per_second: 40.0,
        hours: 3,
        ttl: 3600,
        period: Period::Hour,
        keks: 1,
        verify: true,
    };
    let counted = case.simulate(7).await;
    let planned = case.planned().tenants[0].calls_at_turn * f64::from(case.hours);
    println!("turns: planned {planned:.0}, counted {}", counted.at_turns);
    assert!(counted.at_turns > 100 && off(planned, counted.at_turns).abs() < 0.2, "{planned} {}", counted.at_turns);
}

fn busy() -> TenantLoad {
    let policy = TenantPolicy::new(crate::records::kek(), region(EU)).scope_by(["workspace", "channel"]);
    let load = TenantLoad::new("acme", policy.period(Period::Hour)).active("workspace", 100).active("channel", 40_000);
    load.seals_per_second(2_000.0).opens_per_second(20_000.0).history(50_000, 500.0)
}

#[test]
fn a_quota_exceeded_is_warned_of_with_what_would_help() {
    let plan = CallPlanner::new(20).tenant(busy()).plan().unwrap();
    assert!(!plan.is_within_quotas());
    let warning = plan.warnings.iter().find(|w| w.what.contains("exceeds the quota of 10000")).unwrap();
    for change in ["without \"channel\"", "not verified", "higher quota"] {
        assert!(warning.changes.iter().any(|c| c.contains(change)), "{change}: {warning:?}");
    }
    assert!(plan.warnings.iter().any(|w| w.what.contains("do not fit")), "{:?}", plan.warnings);
    let wide = CallPlanner::new(20).tenant(busy()).quota_in(region(EU), 100_000.0).cached_keys(1_000_000, 1_000_000);
    let plan = wide.plan().unwrap();
    assert!(plan.is_within_quotas() && plan.warnings.is_empty(), "{plan}");
}

#[test]
fn the_plan_adds_up_and_is_shown() {
    let plan = CallPlanner::new(6).tenant(busy()).tenant(busy()).price_per_10_000(0.5).plan().unwrap();
    let tenant = &plan.tenants[0];
    let calls = 2.0 * tenant.keys_made + tenant.keys_loaded + tenant.old_keys_loaded;
    let close = |a: f64, b: f64| (a - b).abs() < 1e-6 * b;
    assert!(close(tenant.calls, calls) && close(plan.keks[0].calls, 2.0 * calls), "{plan}");
    assert!(close(plan.cost_a_month, 2.0 * calls * 730.0 * 3600.0 / 10_000.0 * 0.5));
    assert!(close(plan.store_writes, 2.0 * tenant.keys_made));
    assert_eq!(plan.regions[0].region, Some(region(EU)));
    let (table, json) = (plan.to_string(), plan.to_json().unwrap());
    assert!(
        table.contains("KMS calls") && table.contains("at the turn") && json.contains("\"cost_a_month\""),
        "{table}"
    );
    let idle = TenantLoad::new("idle", TenantPolicy::new(crate::records::kek(), region(EU)));
    let idle = CallPlanner::new(1).tenant(idle).plan().unwrap();
    assert!(idle.calls_a_month.abs() < f64::EPSILON && idle.warnings.is_empty(), "{idle}");
}

#[test]
fn what_is_not_said_cannot_be_planned() {
    let policy = TenantPolicy::new(crate::records::kek(), region(EU)).scope_by(["channel"]);
    let load = TenantLoad::new("acme", policy);
    for (planner, says) in [
        (CallPlanner::new(1).tenant(load.clone()), "TenantLoad::active"),
        (CallPlanner::new(0), "at least one node"),
        (CallPlanner::new(1).tenant(load.clone().active("channel", 1).seals_per_second(-1.0)), "from 0 up"),
        (CallPlanner::new(1).tenant(load.active("channel", 1).opens_per_second(f64::NAN)), "from 0 up"),
    ] {
        let e = planner.plan().unwrap_err();
        assert!(e.kind() == ErrorKind::InvalidArgument && e.to_string().contains(says), "{says}: {e}");
    }
}
