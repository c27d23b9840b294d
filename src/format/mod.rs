//! Floor 1: wire bytes. Synchronous and pure; FORMAT.md is normative, this floor implements it.

pub(crate) mod associated_data;
pub(crate) mod chunk;
pub(crate) mod context;
pub(crate) mod file;
pub(crate) mod header;
pub(crate) mod layout;
pub(crate) mod message;
pub(crate) mod reader;
pub(crate) mod stream;
pub(crate) mod writer;

#[cfg(test)]
mod vectors;
