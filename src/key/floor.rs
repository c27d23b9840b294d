//! Floors: rules in a tenant's row that hold for all keys made before an epoch. They outlast the records that they are about,
//! so that a record put back from before does not get around them.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::key::id::KeyId;
use crate::key::json::objects;
use crate::key::period::PeriodLabel;
use crate::key::record::KeyRecord;
use crate::key::revocation::Selector;
use crate::key::scope::Scope;

/// Most floors of one kind in a tenant's row, after those that others include are merged.
pub(crate) const MAX_FLOORS: usize = 10_000;

objects! {
    /// The keys that `selector` covers and that were made before `before`.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct Floor {
        /// Which keys.
        pub selector: Selector,
        /// Made under an epoch of the tenant below this one.
        pub before: u64,
    }
}

impl Floor {
    pub(crate) fn covers(&self, record: &KeyRecord) -> bool {
        record.made_epoch < self.before && self.selector.covers_record(record)
    }

    /// As [`Self::covers`], of a key whose record is not at hand.
    pub(crate) fn covers_key(
        &self,
        scope: &Scope,
        period: Option<&PeriodLabel>,
        key_id: &KeyId,
        made_epoch: u64,
    ) -> bool {
        made_epoch < self.before && self.selector.covers(scope, period, Some(key_id))
    }

    fn includes(&self, other: &Self) -> bool {
        self.before >= other.before && self.selector.includes(&other.selector)
    }
}

/// Adds `floor` unless one of `floors` includes it; takes out those that it includes.
///
/// # Errors
/// `Limit` if there are too many that none includes.
pub(crate) fn add(floors: &mut Vec<Floor>, floor: Floor) -> Result<()> {
    if floors.iter().any(|it| it.includes(&floor)) {
        return Ok(());
    }
    floors.retain(|it| !floor.includes(it));
    if floors.len() >= MAX_FLOORS {
        return Err(Error::limit(
            "a tenant's row holds at most 10 000 rules about erased or compromised keys; use broader ones",
        ));
    }
    floors.push(floor);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broader_floors_replace_narrower_ones() {
        let floor = |channel: Option<&str>, before| Floor {
            selector: channel.map_or_else(Selector::everything, |c| Selector::fields([("channel", c)])),
            before,
        };
        let mut floors = Vec::new();
        for (channel, before) in [(Some("C1"), 3), (Some("C2"), 5), (Some("C1"), 2), (Some("C1"), 4)] {
            add(&mut floors, floor(channel, before)).unwrap();
        }
        assert_eq!(floors, [floor(Some("C2"), 5), floor(Some("C1"), 4)]);
        add(&mut floors, floor(None, 4)).unwrap();
        assert_eq!(floors, [floor(Some("C2"), 5), floor(None, 4)]);
        add(&mut floors, floor(None, 9)).unwrap();
        assert_eq!(floors, [floor(None, 9)]);
    }

    #[test]
    fn it_binds_by_the_epoch_a_key_was_made_under() {
        let floor = Floor { selector: Selector::everything(), before: 3 };
        let mut record = crate::key::record::tests::record();
        for (made, covered) in [(1, true), (2, true), (3, false), (4, false)] {
            record.made_epoch = made;
            record.wrapped_epoch = 9;
            assert_eq!(floor.covers(&record), covered, "{made}");
        }
    }
}
