//! Suspensions of opening: the incident mode between working and revoked. Messages are still sealed; what is covered is not
//! opened until the suspension ends.

use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::key::json::objects;
use crate::key::revocation::Selector;

objects! {
    /// One suspension: its keys go on sealing, and open nothing until it ends or is lifted.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct Suspension {
        /// What opens nothing.
        pub selector: Selector,
        /// Since when, in Unix milliseconds.
        pub since: i64,
        /// Until when, in Unix milliseconds: then it has ended by itself.
        pub until: i64,
    }
}

/// The error of an open that has to wait until `until` (Unix milliseconds).
pub(crate) fn opens_suspended(until: Option<i64>) -> Error {
    let message = match until {
        Some(until) => {
            format!("opening is suspended until {until} (Unix milliseconds) or until it is lifted; retry then")
        }
        None => "opening is suspended: the fleet's row is missing or not authentic; its operator has to restore it"
            .to_owned(),
    };
    Error::new(ErrorKind::Suspended, message)
}
