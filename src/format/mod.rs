//! Floor 1: wire bytes. Synchronous and pure; FORMAT.md is normative, this floor implements it.

pub(crate) mod context;
pub(crate) mod header;
pub(crate) mod message;
pub(crate) mod reader;
pub(crate) mod writer;
