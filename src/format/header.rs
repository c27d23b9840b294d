//! The envelope header (FORMAT.md, "Header"): `version 1 | suite 1 | region length 1 | region | key id 32`.

use crate::crypto::suite::Suite;
use crate::error::{Error, Result};
use crate::format::reader::Reader;

/// The first byte of every envelope of version 1. Like 0xF6..=0xFF, kept for later versions, it occurs nowhere in UTF-8
/// text, so that a sealed row can be told from an old plaintext one.
pub(crate) const VERSION: u8 = 0xF5;
/// Bytes of a key id.
pub const KEY_ID_LEN: usize = 32;
/// Most bytes of a region's name (at least 1).
pub const MAX_REGION: usize = 32;

/// Whether `name` can name a region: 1 to 32 of `a-z`, `0-9` and `-`.
pub(crate) fn is_region_name(name: &[u8]) -> bool {
    (1..=MAX_REGION).contains(&name.len())
        && name.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// What an envelope says of itself, readable without any key.
///
/// It is not authenticated until the envelope has been opened: fit for finding misplaced envelopes in a bucket or a
/// table, not for deciding whom they belong to.
///
/// ```
/// # let envelope = [&[0xF5, 1, 5][..], b"eu-de", &[9; 32], &[0; 40]].concat();
/// let header = strongroom::Header::parse(&envelope)?;
/// assert_eq!(header.region(), "eu-de");
/// assert_eq!(header.key_id(), &[9; 32]);
/// # Ok::<(), strongroom::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    suite: Suite,
    region: &'a str,
    key_id: &'a [u8; KEY_ID_LEN],
}

impl<'a> Header<'a> {
    /// Reads the header at the front of `envelope`. Allocates nothing.
    ///
    /// # Errors
    /// `Malformed` if the bytes do not start with a header of a known version and suite.
    pub fn parse(envelope: &'a [u8]) -> Result<Self> {
        Self::read(envelope).map(|(header, _)| header).map_err(|e| e.with_operation("parse envelope"))
    }

    /// A header of parts that were parsed before.
    pub(crate) fn of(suite: Suite, region: &'a str, key_id: &'a [u8; KEY_ID_LEN]) -> Self {
        Self { suite, region, key_id }
    }

    /// The header and its length in bytes.
    pub(crate) fn read(envelope: &'a [u8]) -> Result<(Self, usize)> {
        let mut reader = Reader::new(envelope);
        match reader.u8()? {
            VERSION => {}
            0xF6..=0xFF => return Err(Error::malformed("an envelope of a later version: update strongroom")),
            _ => return Err(Error::malformed("not a strongroom envelope (perhaps plaintext)")),
        }
        let suite = Suite::from_byte(reader.u8()?).ok_or_else(|| Error::malformed("an unknown cipher suite"))?;
        let region_len = reader.u8()?.into();
        if region_len > MAX_REGION {
            return Err(Error::malformed("a region name has at most 32 bytes"));
        }
        let region = reader.str(region_len)?;
        if !is_region_name(region.as_bytes()) {
            return Err(Error::malformed("a region name consists of a-z, 0-9 and -"));
        }
        let key_id = reader.array()?;
        Ok((Self { suite, region, key_id }, envelope.len() - reader.rest().len()))
    }

    /// Which cipher suite sealed it.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Which region it belongs to.
    pub fn region(&self) -> &'a str {
        self.region
    }

    /// Which data key sealed it.
    pub fn key_id(&self) -> &'a [u8; KEY_ID_LEN] {
        self.key_id
    }

    /// The bytes of a header.
    ///
    /// # Errors
    /// `InvalidArgument` if `region` is not a region name.
    pub(crate) fn encode(suite: Suite, region: &str, key_id: &[u8; KEY_ID_LEN]) -> Result<Vec<u8>> {
        let len = u8::try_from(region.len()).ok().filter(|_| is_region_name(region.as_bytes()));
        let len = len.ok_or_else(|| Error::invalid("a region name has 1 to 32 of a-z, 0-9 and -"))?;
        Ok([&[VERSION, suite.byte(), len], region.as_bytes(), key_id].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_truncation_is_malformed() {
        let bytes = Header::encode(Suite::Aes256Gcm, "eu-central-1", &[7; 32]).unwrap();
        for len in 0..bytes.len() {
            assert!(Header::parse(&bytes[..len]).is_err(), "{len}");
        }
        assert!(Header::parse(&bytes).is_ok());
    }

    /// Whoever meets an envelope of the next version is told to update, and whoever meets plaintext that it is none.
    #[test]
    fn later_versions_are_told_from_what_is_no_envelope() {
        let refused = |first: u8| {
            let mut bytes = Header::encode(Suite::Aes256Gcm, "eu", &[7; 32]).unwrap();
            bytes[0] = first;
            Header::parse(&bytes).err().unwrap().to_string()
        };
        for first in VERSION + 1..=0xFF {
            assert!(refused(first).contains("later version"), "{first}");
        }
        for first in [0, b'{', VERSION - 1] {
            assert!(refused(first).contains("perhaps plaintext"), "{first}");
        }
    }

    #[test]
    fn never_the_start_of_utf_8_text() {
        for byte in VERSION..=0xFF {
            for tail in [&b""[..], &[0x80; 1], &[0x80; 2], &[0x80; 3], b"abc"] {
                assert!(std::str::from_utf8(&[&[byte], tail].concat()).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn parse_then_write_is_the_identity(suite in 1_u8..=2, region in "[a-z0-9-]{1,32}", id: [u8; 32], tail: Vec<u8>) {
            let suite = Suite::from_byte(suite).unwrap();
            let bytes = Header::encode(suite, &region, &id).unwrap();
            let all = [&bytes[..], &tail].concat();
            let (header, len) = Header::read(&all).unwrap();
            prop_assert_eq!((header.suite(), header.region(), header.key_id(), len), (suite, &*region, &id, bytes.len()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), start: bool) {
            if let (true, Some(first)) = (start, bytes.first_mut()) {
                *first = VERSION;
            }
            if let Ok((header, len)) = Header::read(&bytes) {
                prop_assert_eq!(Header::encode(header.suite(), header.region(), header.key_id()).unwrap(), &bytes[..len]);
            }
        }
    }
}
