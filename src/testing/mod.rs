//! The test kit (feature `testing`): contract suites for implementers of [`Kms`](crate::Kms),
//! [`KeyStore`](crate::KeyStore) and [`Watermark`](crate::Watermark), a KMS with faults, hooks around every call, a clock moved
//! by hand, an operator's root and watermark, a key store edited behind its back, rows in an attacker's hands, and the format
//! without any room around it.
//!
//! Not for production: suites panic, and [`vectors`] takes nonces from outside.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc, clippy::indexing_slicing)]

mod bare_room;
mod clock;
mod failpoints;
mod faults;
mod file_keys;
mod kms_contract;
mod operator;
pub mod reserved;
mod rows;
mod store_contract;
#[cfg(feature = "sqlite")]
mod stores;
mod tampering;
pub mod vectors;
mod watermark_contract;

pub use bare_room::BareRoom;
pub use clock::ManualClock;
pub use failpoints::Failpoints;
pub use faults::{Fault, FaultyKms};
pub use file_keys::FileKeys;
pub use kms_contract::{encryption_context, kms_contract};
pub use operator::Operator;
pub use rows::{TakenOverControlPlane, TakenOverNode, context_of, key_id_of, row_body, with_body};
pub use store_contract::store_contract;
#[cfg(feature = "sqlite")]
pub use stores::sqlite;
pub use tampering::MemorySnapshot;
pub use watermark_contract::watermark_contract;
