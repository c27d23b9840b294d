//! The operations of a sequence. Numbers that name a message, a rule and so on count among what there is at that moment, so
//! that a sequence still means something when parts of it are left out.

use crate::model::{Kind, Place};

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
