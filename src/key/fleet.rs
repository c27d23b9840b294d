//! The fleet's row: what holds for all tenants of a room.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::key::incarnation::Incarnation;
use crate::key::json::objects;
use crate::key::row_digest::RowDigest;

objects! {
    /// What holds for all tenants. Where it is missing or not authentic, opening is suspended.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub(crate) struct FleetRecord {
        /// The room's incarnation.
        pub(crate) room: Incarnation,
        /// Counts the changes of the row. A new row has 1.
        pub(crate) epoch: u64,
        /// The row of the epoch before; `None` for a new one.
        #[serde(deserialize_with = "crate::key::json::nullable")]
        pub(crate) predecessor: Option<RowDigest>,
        /// Until when all opening is suspended, in Unix milliseconds, if it is.
        #[serde(deserialize_with = "crate::key::json::nullable")]
        pub(crate) opens_suspended_until: Option<i64>,
        /// Who changed it last.
        pub(crate) actor: String,
        /// Why.
        pub(crate) reason: String,
        /// When, in Unix milliseconds.
        pub(crate) at: i64,
    }
}

impl FleetRecord {
    /// # Errors
    /// `Malformed` if no control plane wrote such a row.
    pub(crate) fn check_stored(&self) -> Result<()> {
        if self.epoch == 0 || (self.epoch == 1) != self.predecessor.is_none() {
            return Err(Error::malformed("the fleet's stored row has no epoch, or no predecessor"));
        }
        Ok(())
    }
}
