//! Changes: what every node's cache has to forget, in the order in which it was decided.

use serde::{Deserialize, Serialize};

use crate::key::id::TenantId;
use crate::key::revocation::Selector;

/// What nodes must forget of the keys that a change covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Forget {
    /// Nothing: what was allowed is allowed still, and more may be.
    Nothing,
    /// That they are Active: the next seal asks the store.
    Sealing,
    /// The keys.
    Keys,
}

/// One life-cycle decision, as nodes hear of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose keys.
    pub tenant: TenantId,
    /// Which of them.
    pub selector: Selector,
    /// What is to be forgotten of them.
    pub forget: Forget,
}

/// The changes since a place in the store's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// In the order in which they were decided.
    pub changes: Vec<Change>,
    /// The place behind the last of them: ask for what comes after it next.
    pub upto: u64,
    /// Some are missing: they were dropped from the log, or there were more than asked for. Forget everything.
    pub gap: bool,
}

impl Changes {
    /// How many changes a reader at the place `after` has to read of a log that ends at `upto`. `Err` is the whole answer where
    /// there is nothing to read: at the start, at the end, or across a gap.
    pub(crate) fn missed(after: Option<u64>, upto: u64, limit: u32) -> Result<u64, Self> {
        let behind = after.map_or(Some(0), |after| upto.checked_sub(after));
        match behind {
            Some(0) => Err(Self { upto, ..Self::default() }),
            Some(missed) if missed <= u64::from(limit) => Ok(missed),
            // More than asked for; or beyond the end: the store was restored from an older copy.
            _ => Err(Self { upto, gap: true, ..Self::default() }),
        }
    }

    /// The answer of a log of which `missed` changes were to be read: a gap if some were dropped meanwhile.
    pub(crate) fn read(changes: Vec<Change>, missed: u64, upto: u64) -> Self {
        if changes.len() as u64 == missed {
            return Self { changes, upto, gap: false };
        }
        Self { changes: Vec::new(), upto, gap: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_reads_what_it_missed_up_to_its_limit() {
        let whole = |upto, gap| Err(Changes { changes: Vec::new(), upto, gap });
        assert_eq!(Changes::missed(None, 7, 10), whole(7, false));
        assert_eq!(Changes::missed(Some(7), 7, 10), whole(7, false));
        assert_eq!([Changes::missed(Some(6), 7, 2), Changes::missed(Some(5), 7, 2)], [Ok(1), Ok(2)]);
        assert_eq!(Changes::missed(Some(4), 7, 2), whole(7, true));
        assert_eq!(Changes::missed(Some(8), 7, 10), whole(7, true), "the store was restored from an older copy");
    }

    #[test]
    fn a_log_that_lost_some_is_a_gap() {
        let tenant = TenantId::new("acme").unwrap();
        let change = Change { tenant, selector: Selector::everything(), forget: Forget::Keys };
        let changes = vec![change.clone(), change];
        assert_eq!(Changes::read(changes.clone(), 2, 7), Changes { changes: changes.clone(), upto: 7, gap: false });
        assert_eq!(Changes::read(changes, 3, 7), Changes { changes: Vec::new(), upto: 7, gap: true });
    }
}
