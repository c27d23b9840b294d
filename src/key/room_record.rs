//! The room's row: under which keys a fleet's rows are authenticated, wrapped under the operator's root.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::key::incarnation::Incarnation;
use crate::key::json::objects;
use crate::key::room_name::RoomName;
use crate::key::row_digest::RowDigest;

/// The least and only format of rows that this version writes.
pub(crate) const ROW_FORMAT: u32 = 1;

/// Most generations that a room keeps: one more with each eviction.
pub(crate) const MAX_GENERATIONS: usize = 1000;

objects! {
    /// One generation of a room's keys.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub(crate) struct Generation {
        /// Its number, from 1.
        #[allow(clippy::struct_field_names)] // FORMAT.md calls the member so
        pub(crate) generation: u32,
        /// The least format of rows that readers take.
        pub(crate) least_row_format: u32,
        /// The control plane's Ed25519 public key, in hexadecimal digits.
        pub(crate) control: String,
        /// The row key, wrapped under the root in a context that names everything above: hexadecimal digits.
        pub(crate) row_key: String,
        /// The control plane's Ed25519 seed, wrapped under the root with another purpose: hexadecimal digits.
        pub(crate) control_seed: String,
    }
}

objects! {
    /// The stored row of a room.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub(crate) struct RoomRecord {
        /// Its name.
        pub(crate) name: RoomName,
        /// Which life of that name.
        pub(crate) incarnation: Incarnation,
        /// Counts the changes of the row. A new row has 1.
        pub(crate) epoch: u64,
        /// The row of the epoch before; `None` for a new one.
        #[serde(deserialize_with = "crate::key::json::nullable")]
        pub(crate) predecessor: Option<RowDigest>,
        /// When the room was created, in Unix milliseconds.
        pub(crate) created_at: i64,
        /// The generations of its keys, the earliest first. The last is the present one.
        pub(crate) generations: Vec<Generation>,
    }
}

impl RoomRecord {
    /// # Errors
    /// `Malformed` if no control plane wrote such a row.
    pub(crate) fn check_stored(&self) -> Result<()> {
        let numbered = self.generations.iter().zip(1..).all(|(it, number)| it.generation == number);
        // Evictions alone change the row, and each adds a generation that the root has to wrap.
        if self.epoch == 0
            || usize::try_from(self.epoch) != Ok(self.generations.len())
            || (self.epoch == 1) != self.predecessor.is_none()
            || self.generations.len() > MAX_GENERATIONS
            || !numbered
        {
            return Err(Error::malformed("the room's stored row has no epoch, no predecessor or no generation"));
        }
        if self.generations.iter().any(|it| it.least_row_format > ROW_FORMAT) {
            return Err(Error::malformed("a later version of strongroom wrote the room's row: update this one"));
        }
        Ok(())
    }
}
