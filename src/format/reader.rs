//! A cursor over untrusted bytes: every read is checked, nothing is allocated, nothing panics.

use crate::error::{Error, Result};

/// Reads from the front of a byte slice.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

const TRUNCATED: &str = "the bytes end too early";

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| Error::malformed(TRUNCATED))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| Error::malformed(TRUNCATED))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| *byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(|bytes| u16::from_be_bytes(*bytes))
    }

    /// UTF-8 text of `len` bytes.
    pub(crate) fn str(&mut self, len: usize) -> Result<&'a str> {
        std::str::from_utf8(self.bytes(len)?).map_err(|_| Error::malformed("a text field is not UTF-8"))
    }

    /// Ends reading.
    ///
    /// # Errors
    /// `Malformed` if anything is left.
    pub(crate) fn finish(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Error::malformed("there are trailing bytes")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_has_to_be_read() {
        let mut reader = Reader::new(b"ab");
        reader.u8().unwrap();
        assert!(reader.finish().is_err());
        let mut reader = Reader::new(b"ab");
        reader.u16().unwrap();
        assert!(reader.finish().is_ok());
    }
}
