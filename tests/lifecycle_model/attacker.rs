//! Random sieges of a key store (`siege`).

use proptest::prelude::*;

use crate::siege::{Attack, Outcome, Step, run};

fn step() -> impl Strategy<Value = Step> {
    let (of, channel, n) = (0..2_usize, 0..2_usize, 0..1_000_usize);
    let place = (of.clone(), channel.clone());
    let attack = prop_oneof![
        2 => Just(Attack::Remember),
        3 => n.clone().prop_map(Attack::PutBack),
        2 => n.clone().prop_map(Attack::Delete),
        4 => (n.clone(), n.clone()).prop_map(|(row, by)| Attack::Replace { row, by }),
        2 => (n.clone(), n.clone(), 0..4_usize).prop_map(|(row, to, state)| Attack::Move { row, to, state }),
        8 => (n.clone(), any::<u8>(), any::<bool>(), 0..3_u64)
            .prop_map(|(like, key, tagged, later)| Attack::Plant { like, key, tagged, later }),
        2 => (n.clone(), n.clone()).prop_map(|(row, bit)| Attack::Bend { row, bit }),
        1 => Just(Attack::DropLog),
        1 => Just(Attack::ForgeLog),
    ];
    prop_oneof![
        6 => (any::<bool>(), of, channel).prop_map(|(node, of, channel)| Step::Seal { node, of, channel }),
        6 => (any::<bool>(), n).prop_map(|(node, message)| Step::Open { node, message }),
        2 => place.clone().prop_map(|(of, channel)| Step::Revoke { of, channel }),
        1 => place.clone().prop_map(|(of, channel)| Step::Restore { of, channel }),
        1 => place.clone().prop_map(|(of, channel)| Step::Erase { of, channel }),
        1 => place.clone().prop_map(|(of, channel)| Step::GiveUp { of, channel }),
        1 => place.prop_map(|(of, channel)| Step::Suspend { of, channel }),
        1 => Just(Step::Evict),
        1 => any::<bool>().prop_map(|node| Step::Restart { node }),
        3 => Just(Step::Pass),
        12 => attack.prop_map(Step::Attack),
    ]
}

#[test]
fn an_attacker_who_writes_the_store_neither_reads_nor_opens() {
    let times: u32 = std::env::var(crate::TIMES).map_or(1, |times| times.parse().unwrap());
    let config = ProptestConfig {
        cases: 64 * times,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let steps = proptest::collection::vec(step(), 1..40);
    let whole = std::cell::Cell::new(Outcome::default());
    let ran = runner.run(&steps, |steps| {
        let (now, before) = (runtime.block_on(run(&steps)), whole.get());
        whole.set(Outcome {
            sealed: before.sealed + now.sealed,
            opened: before.opened + now.opened,
            planted: before.planted + now.planted,
        });
        Ok(())
    });
    ran.unwrap_or_else(|e| panic!("{e}"));
    let whole = whole.get();
    println!("{} sieges: {whole:?}", 64 * times);
    assert!(whole.sealed > 50 && whole.opened > 50 && whole.planted > 20, "{whole:?}");
}
