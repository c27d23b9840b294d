//! What is the same for all that is sealed under one data key: its header, and whose it is (FORMAT.md, "Keys derived from a data
//! key"). A message's key is derived with it, and a file's.

use crate::error::Result;
use crate::format::writer::put_short;

/// Most bytes of a tenant's name.
pub const MAX_TENANT: u8 = 64;

/// `header | tenant length 1 | tenant`. The canonical scope goes behind it.
pub(crate) struct Binding {
    bytes: Box<[u8]>,
    header_len: usize,
}

impl Binding {
    /// # Errors
    /// `Limit` if the tenant's name has more than 64 bytes.
    pub(crate) fn new(header: &[u8], tenant: &str) -> Result<Self> {
        let mut bytes = Vec::with_capacity(header.len() + 1 + tenant.len());
        bytes.extend_from_slice(header);
        put_short(&mut bytes, tenant.as_bytes(), MAX_TENANT, "a tenant's name has at most 64 bytes")?;
        Ok(Self { bytes: bytes.into(), header_len: header.len() })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The header that every message of the data key starts with and every file of it carries; it names suite, region and key id.
    #[inline]
    pub(crate) fn header(&self) -> &[u8] {
        self.bytes.get(..self.header_len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_is_header_and_tenant() {
        let binding = Binding::new(b"HEADER", "acme").unwrap();
        assert_eq!((binding.header(), binding.as_bytes()), (&b"HEADER"[..], &b"HEADER\x04acme"[..]));
        let longest = "t".repeat(MAX_TENANT.into());
        assert!(Binding::new(b"", &longest).is_ok());
        let longer = Binding::new(b"", &format!("{longest}t"));
        assert_eq!(longer.err().map(|e| e.kind()), Some(crate::ErrorKind::Limit));
    }
}
