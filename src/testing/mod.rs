//! For tests, benches and fuzzing only (feature `testing`).

mod file_keys;

pub use file_keys::FileKeys;
