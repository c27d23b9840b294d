//! Floor 2: the domain. Pure: no I/O, no clock of its own; `now` is handed in.

pub(crate) mod attribution;
pub(crate) mod census;
pub(crate) mod change;
pub(crate) mod context_rules;
pub(crate) mod data_key;
pub(crate) mod encryption_context;
pub(crate) mod erasure;
pub(crate) mod export;
pub(crate) mod file_key;
pub(crate) mod finding;
pub(crate) mod fleet;
pub(crate) mod floor;
pub(crate) mod id;
pub(crate) mod incarnation;
pub(crate) mod journal;
pub(crate) mod kek;
pub(crate) mod kek_expression;
pub(crate) mod kek_history;
pub(crate) mod period;
pub(crate) mod policy;
pub(crate) mod record;
pub(crate) mod region;
#[cfg(feature = "testing")] // FORMAT.md, "Reserved"
pub(crate) mod reserved;
pub(crate) mod revocation;
pub(crate) mod rewrap;
pub(crate) mod room_name;
pub(crate) mod room_record;
pub(crate) mod rotation;
pub(crate) mod row_digest;
pub(crate) mod scope;
pub(crate) mod state;
pub(crate) mod suspension;
pub(crate) mod tenant;
pub(crate) mod text;
pub(crate) mod wrapped_key;
