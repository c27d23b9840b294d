//! The file envelope (FORMAT.md, "File envelope"): `magic 8 | header | salt 24 | commitment 32 | chunks`. All but the
//! chunks is the *head*, which is readable without a key.

use std::fmt;

use arrayvec::{ArrayString, ArrayVec};

use crate::crypto::chunked::{COMMITMENT_LEN, SALT_LEN};
use crate::crypto::suite::Suite;
use crate::error::{Error, Result};
use crate::format::binding::Binding;
use crate::format::chunk::Encryptor;
use crate::format::context::{CanonicalFields, Field};
use crate::format::header::{Header, KEY_ID_LEN, MAX_REGION};
use crate::format::layout::FileLayout;
use crate::format::reader::Reader;

/// The first eight bytes of every sealed file. As in PNG's signature, the first is no ASCII and starts no UTF-8 text,
/// and the last is changed by whatever converts line ends. It differs from a message envelope's first byte.
pub(crate) const MAGIC: [u8; 8] = *b"\x8ESRFILE\n";

/// Starts the context of files, and of nothing else.
const LABEL: &[u8] = b"strongroom/v1/file";

/// Bytes of a header apart from the region's name.
const HEADER_LEN: usize = 3 + KEY_ID_LEN;
/// Bytes of salt and commitment.
const PREFIX_LEN: usize = SALT_LEN + COMMITMENT_LEN;
/// Where the length of the region's name stands.
const REGION_LEN_AT: usize = MAGIC.len() + 2;

/// Bytes of the head of a file whose region's name has `region_len` bytes.
pub(crate) const fn head_len(region_len: usize) -> usize {
    MAGIC.len() + HEADER_LEN + region_len + PREFIX_LEN
}

/// The context input of chunked encryption, which binds a file to version, suite, region, data key, tenant, scope and its `own`
/// fields.
///
/// # Errors
/// As the canonical context's.
pub(crate) fn context(binding: &Binding, scope: &CanonicalFields, own: &[Field<'_>]) -> Result<Vec<u8>> {
    Ok([LABEL, binding.as_bytes(), &scope.with_own(own)?].concat())
}

/// Salt and commitment: what chunked encryption itself puts before its chunks.
#[derive(Clone, Copy)]
pub(crate) struct Prefix<'a> {
    pub(crate) salt: &'a [u8; SALT_LEN],
    pub(crate) commitment: &'a [u8; COMMITMENT_LEN],
}

impl<'a> Prefix<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self> {
        Ok(Self { salt: reader.array()?, commitment: reader.array()? })
    }
}

/// The head of a sealed file: its first 100 to 131 bytes, in a copy of their own.
///
/// It says without any key which region and data key the file belongs to, so that a bucket can be checked for misplaced
/// files by fetching [`FileHead::MAX_LEN`] bytes of each. It is not authenticated until an opener has been made from it:
/// fit for finding misplaced files, not for deciding whom they belong to.
#[derive(Clone, PartialEq, Eq)]
pub struct FileHead {
    bytes: ArrayVec<u8, { Self::MAX_LEN }>,
    suite: Suite,
    region: ArrayString<MAX_REGION>,
    key_id: [u8; KEY_ID_LEN],
}

impl FileHead {
    /// Bytes of the longest head. Reading so many of a file, or all of a shorter one, is enough to parse it.
    pub const MAX_LEN: usize = head_len(MAX_REGION);

    /// Reads the head at the front of `file`, which may go on or end anywhere behind it. Allocates nothing.
    ///
    /// # Errors
    /// `Malformed` if the bytes do not start with the head of a sealed file.
    ///
    /// ```
    /// # let file = [b"\x8ESRFILE\n", &[0xF5, 1, 5][..], b"eu-de", &[9; 32], &[0; 56], b"chunks"].concat();
    /// let head = strongroom::FileHead::parse(&file)?;
    /// assert_eq!(head.header().region(), "eu-de");
    /// assert_eq!(head.as_bytes().len(), 104);
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    pub fn parse(file: &[u8]) -> Result<Self> {
        Self::read(file).map_err(|e| e.with_operation("parse file"))
    }

    fn read(file: &[u8]) -> Result<Self> {
        const TOO_LONG: &str = "the head of a file is too long";
        let rest = file.strip_prefix(&MAGIC).ok_or_else(not_a_file)?;
        let (header, header_len) = Header::read(rest)?;
        let prefix_at = MAGIC.len() + header_len;
        let mut reader = Reader::new(file.get(prefix_at..).unwrap_or_default());
        Prefix::read(&mut reader)?;
        let mut bytes = ArrayVec::new();
        let head = file.get(..prefix_at + PREFIX_LEN).unwrap_or_default();
        bytes.try_extend_from_slice(head).map_err(|_| Error::malformed(TOO_LONG))?;
        let region = ArrayString::from(header.region()).map_err(|_| Error::malformed(TOO_LONG))?;
        Ok(Self { bytes, suite: header.suite(), region, key_id: *header.key_id() })
    }

    /// How many bytes the head has that starts with `start`, or must be read to tell: always more than `start` has,
    /// unless that is enough.
    ///
    /// # Errors
    /// `Malformed` as soon as `start` cannot be the start of a sealed file.
    pub(crate) fn needed(start: &[u8]) -> Result<usize> {
        if !start.iter().zip(MAGIC).all(|(a, b)| *a == b) {
            return Err(not_a_file());
        }
        match start.get(REGION_LEN_AT) {
            None => Ok(REGION_LEN_AT + 1),
            Some(len) if usize::from(*len) > MAX_REGION => Err(Error::malformed("a region name has at most 32 bytes")),
            Some(len) => Ok(head_len(usize::from(*len))),
        }
    }

    /// What the file says of itself: suite, region and key id.
    pub fn header(&self) -> Header<'_> {
        Header::of(self.suite, &self.region, &self.key_id)
    }

    /// The bytes of the header, between magic and salt.
    pub(crate) fn header_bytes(&self) -> &[u8] {
        let end = self.bytes.len().saturating_sub(PREFIX_LEN);
        self.bytes.get(MAGIC.len()..end).unwrap_or_default()
    }

    /// Salt and commitment.
    pub(crate) fn prefix(&self) -> Result<Prefix<'_>> {
        let start = self.bytes.len().saturating_sub(PREFIX_LEN);
        Prefix::read(&mut Reader::new(self.bytes.get(start..).unwrap_or_default()))
    }

    /// The whole head, as it stands in the file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where things are in this file.
    pub fn layout(&self) -> FileLayout {
        FileLayout::after(self.bytes.len())
    }

    /// The head of the file that `encryptor` seals.
    ///
    /// # Errors
    /// `Malformed` if `header` is no header.
    pub(crate) fn of(header: &[u8], encryptor: &Encryptor) -> Result<Self> {
        let mut bytes = [&MAGIC, header].concat();
        bytes.extend(encryptor.prefix());
        Self::read(&bytes)
    }
}

impl fmt::Debug for FileHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileHead").field(&self.header()).finish()
    }
}

fn not_a_file() -> Error {
    Error::malformed("not a file sealed by strongroom (perhaps a plain one)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::header::VERSION;
    use proptest::prelude::*;

    fn head(region: &str) -> Vec<u8> {
        let header = Header::encode(Suite::Aes256Gcm, region, &[7; 32]).unwrap();
        [&MAGIC[..], &header, &[1; 24], &[2; 32]].concat()
    }

    #[test]
    fn the_magic_starts_neither_text_nor_a_message() {
        assert_ne!(MAGIC[0], VERSION);
        for len in 1..=MAGIC.len() {
            assert!(std::str::from_utf8(&MAGIC[..len]).is_err());
        }
        assert!(Header::parse(&head("eu")).is_err());
    }

    #[test]
    fn a_head_has_99_bytes_and_the_region() {
        assert_eq!(FileHead::MAX_LEN, 131);
        let bytes = head("eu");
        let parsed = FileHead::parse(&[&bytes[..], b"more"].concat()).unwrap();
        assert_eq!((parsed.as_bytes(), bytes.len()), (&bytes[..], 101));
        assert_eq!(parsed.header().region(), "eu");
        assert_eq!(format!("{parsed:?}"), format!("FileHead({:?})", parsed.header()));
        assert_eq!(parsed.header_bytes(), &bytes[8..45]);
        let prefix = parsed.prefix().unwrap();
        assert_eq!((prefix.salt, prefix.commitment), (&[1; 24], &[2; 32]));
        for len in 0..bytes.len() {
            assert!(FileHead::parse(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn a_file_context_is_label_header_tenant_and_all_fields() {
        let scope = CanonicalFields::new(&[("channel", "C9")]).unwrap();
        let binding = Binding::new(b"HEADER", "acme").unwrap();
        assert_eq!(
            context(&binding, &scope, &[("a", "b")]).unwrap(),
            b"strongroom/v1/fileHEADER\x04acme\x02\x01a\x00\x01b\x07channel\x00\x02C9"
        );
        assert!(context(&binding, &scope, &[("channel", "C8")]).is_err());
    }

    #[test]
    fn knows_how_much_to_read() {
        for region in ["e", "eu-central-1", &"r".repeat(32)] {
            let bytes = head(region);
            let mut have = 0;
            loop {
                let needed = FileHead::needed(&bytes[..have]).unwrap();
                assert!(needed <= bytes.len());
                if needed == have {
                    break;
                }
                assert!(needed > have);
                have = needed;
            }
            assert_eq!(have, bytes.len());
        }
        assert!(FileHead::needed(b"\x8ESRFILE\r").is_err());
        assert!(FileHead::needed(b"\x8ESRFILE\n\xF5\x01\x21").is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..160), start: bool) {
            if start {
                bytes.splice(..bytes.len().min(9), MAGIC.into_iter().chain([VERSION]));
            }
            let _ = FileHead::needed(&bytes);
            if let Ok(head) = FileHead::parse(&bytes) {
                prop_assert!(bytes.starts_with(head.as_bytes()));
                let _ = (head.header(), format!("{head:?}"));
            }
        }
    }
}
