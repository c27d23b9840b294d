//! The test kit (feature `testing`): contract suites for implementers of [`Kms`](crate::Kms) and
//! [`KeyStore`](crate::KeyStore), a KMS with faults, a clock moved by hand, stored rows without a database, and the
//! format without any room around it.
//!
//! Not for production: suites panic, and [`vectors`] takes nonces from outside.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc, clippy::indexing_slicing)]

mod clock;
mod failpoints;
mod faults;
mod file_keys;
mod kms_contract;
mod rows;
mod store_contract;
pub mod vectors;

pub use clock::ManualClock;
pub use failpoints::Failpoints;
pub use faults::{Fault, FaultyKms};
pub use file_keys::FileKeys;
pub use kms_contract::{encryption_context, kms_contract};
pub use rows::{ChangeRow, KeyRow, TenantRow};
pub use store_contract::store_contract;
