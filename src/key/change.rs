//! Changes: what every node's cache has to forget, in the order in which it was decided.

use serde::Serialize;

use crate::key::id::TenantId;
use crate::key::json::{objects, words};
use crate::key::revocation::Selector;

/// What nodes must forget of the keys that a change covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Forget {
    /// Nothing: what was allowed is allowed still, and more may be.
    Nothing,
    /// That they are Active: the next seal asks the store.
    Sealing,
    /// The keys.
    Keys,
}

words!(Forget { Nothing = "nothing", Sealing = "sealing", Keys = "keys" });

objects! {
    /// One life-cycle decision, as nodes hear of it. It only ever narrows: whoever forges one makes nodes forget keys, and load them
    /// again.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct Change {
        /// Whose keys; `None` for every tenant's.
        #[serde(deserialize_with = "crate::key::json::nullable")]
        pub tenant: Option<TenantId>,
        /// Which of them.
        pub selector: Selector,
        /// What is to be forgotten of them.
        pub forget: Forget,
    }
}

objects! {
    /// An entry of the log of changes, as it is stored.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub(crate) struct LogRecord {
        /// Its number in the log: an entry that was moved is none.
        pub(crate) number: u64,
        /// What is to be forgotten.
        pub(crate) change: Change,
    }
}
