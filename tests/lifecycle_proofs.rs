//! What the key life cycle promises of processes that are killed, that race, or that hear of a decision late.
//!
//! The test binary starts itself again as the processes. Each proof has a short form that runs with the other tests, and a
//! long one that a script of `scripts/` runs.

#![cfg(all(unix, feature = "sqlite", feature = "postgres"))]

#[path = "lifecycle_proofs/bound.rs"]
mod bound;
#[path = "cluster/mod.rs"]
mod cluster;
#[path = "lifecycle_proofs/fleet.rs"]
mod fleet;
#[path = "lifecycle_proofs/grounds.rs"]
mod grounds;
#[path = "lifecycle_proofs/killing.rs"]
mod killing;
#[path = "lifecycle_proofs/kills.rs"]
mod kills;
#[path = "lifecycle_proofs/operation.rs"]
mod operation;
#[path = "lifecycle_proofs/races.rs"]
mod races;
#[path = "lifecycle_proofs/rollback.rs"]
mod rollback;
#[path = "lifecycle_proofs/scale.rs"]
mod scale;
#[path = "lifecycle_proofs/stores.rs"]
mod stores;
#[path = "lifecycle_proofs/table.rs"]
mod table;
#[path = "lifecycle_proofs/verdict.rs"]
mod verdict;
