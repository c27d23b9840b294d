//! Erasures: crypto-shredding in two steps, with a waiting time in which it can be undone.

use serde::Serialize;

use crate::key::json::objects;
use crate::key::revocation::Selector;

objects! {
    /// Keys that wait to be erased: until then they neither seal nor open, and the erasure can be undone.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct Erasure {
        /// Names it: 16 hexadecimal digits.
        pub id: String,
        /// What is erased.
        pub selector: Selector,
        /// Since when it waits, in Unix milliseconds.
        pub requested_at: i64,
        /// From when on it can be carried out, in Unix milliseconds.
        pub due_at: i64,
        /// Since when it is being carried out, in Unix milliseconds: from then on it cannot be undone.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::key::json::present")]
        pub carried_out_since: Option<i64>,
    }
}
