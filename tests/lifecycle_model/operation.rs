//! The operations of a sequence. Numbers that name a message, a rule and so on count among what there is at that moment, so
//! that a sequence still means something when parts of it are left out.

use proptest::prelude::*;

use crate::model::{EXPRESSIONS, KEKS, Kind, Place};

/// Which keys a decision is about; hours are counted back from now.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Everything,
    Channel(u8),
    Hours { back: i64, many: i64 },
    HourOfChannel(u8, i64),
}

/// A change of the policy.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Keks(usize),
    Period(Kind),
    OtherSuite,
    Home(Place),
    Allow(Place),
    Disallow(Place),
}

#[derive(Clone, Debug)]
pub(crate) enum Deed {
    Seal(u8),
    Open(usize),
    Reseal(usize),
    Rotate(u8),
    RotateAll(Target),
    Revoke(Target),
    Restore(usize),
    Erase(Target, i64),
    Undo(usize),
    CarryOut(usize),
    Rewrap(usize),
    SetPolicy(Edit),
    Migrate(Place, usize),
    Finish(Place),
    Purge,
    PurgeAll,
    Disable(usize),
    Enable(usize),
    Advance(i64),
}

/// Something done on one of the two nodes.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) node: usize,
    pub(crate) deed: Deed,
}

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
