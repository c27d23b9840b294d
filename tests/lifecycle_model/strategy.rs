//! Sequences as proptest draws them. (`fuzz/fuzz_targets/lifecycle.rs` reads them from bytes instead.)

use proptest::prelude::*;

use crate::model::{EXPRESSIONS, KEKS, Kind, Place};
use crate::operation::{Deed, Edit, Operation, Target};

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        1 => Just(Target::Everything),
        4 => (0..3_u8).prop_map(Target::Channel),
        2 => (0..4_i64, 0..3_i64).prop_map(|(back, many)| Target::Hours { back, many }),
        2 => (0..3_u8, 0..3_i64).prop_map(|(channel, back)| Target::HourOfChannel(channel, back)),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![Just(Place::Eu), Just(Place::Us)]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        2 => (0..EXPRESSIONS).prop_map(Edit::Keks),
        3 => prop_oneof![Just(Kind::None), Just(Kind::Hour), Just(Kind::Day)].prop_map(Edit::Period),
        1 => Just(Edit::OtherSuite),
        1 => place().prop_map(Edit::Home),
        3 => place().prop_map(Edit::Allow),
        1 => place().prop_map(Edit::Disallow),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    let rule = 0..8_usize;
    let many = 0..1000_usize;
    prop_oneof![
        12 => (0..3_u8).prop_map(Deed::Seal),
        6 => many.clone().prop_map(Deed::Open),
        5 => many.prop_map(Deed::Reseal),
        3 => (0..3_u8).prop_map(Deed::Rotate),
        1 => target().prop_map(Deed::RotateAll),
        2 => target().prop_map(Deed::Revoke),
        3 => rule.clone().prop_map(Deed::Restore),
        2 => (target(), prop_oneof![Just(0), Just(90)]).prop_map(|(target, minutes)| Deed::Erase(target, minutes)),
        2 => rule.clone().prop_map(Deed::Undo),
        2 => rule.prop_map(Deed::CarryOut),
        4 => (0..EXPRESSIONS).prop_map(Deed::Rewrap),
        4 => edit().prop_map(Deed::SetPolicy),
        2 => (place(), 0..EXPRESSIONS).prop_map(|(to, keks)| Deed::Migrate(to, keks)),
        1 => place().prop_map(Deed::Finish),
        1 => Just(Deed::Purge),
        1 => Just(Deed::PurgeAll),
        1 => (0..KEKS).prop_map(Deed::Disable),
        3 => (0..KEKS).prop_map(Deed::Enable),
        3 => prop_oneof![3 => Just(61), 1 => Just(244)].prop_map(Deed::Advance),
    ]
}

pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    (0..2_usize, deed()).prop_map(|(node, deed)| Operation { node, deed })
}
