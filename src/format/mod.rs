//! Floor 1: wire bytes. Synchronous and pure; FORMAT.md is normative, this floor implements it.

pub(crate) mod associated_data;
#[cfg(feature = "testing")] // FORMAT.md, "Reserved"
pub(crate) mod audit_entry;
pub(crate) mod binding;
pub(crate) mod chunk;
pub(crate) mod context;
pub(crate) mod file;
pub(crate) mod header;
pub(crate) mod layout;
pub(crate) mod message;
#[cfg(feature = "testing")] // FORMAT.md, "Reserved"
pub(crate) mod padding;
pub(crate) mod reader;
pub(crate) mod stream;
pub(crate) mod writer;

#[cfg(test)]
mod vectors;
