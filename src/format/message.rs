//! The message envelope (FORMAT.md, "Message envelope"): `header | nonce 24 | ciphertext | tag 16`.

use crate::crypto::aead::TAG_LEN;
use crate::crypto::message::NONCE_LEN;
use crate::error::{Error, Result};
use crate::format::associated_data;
use crate::format::header::{Header, KEY_ID_LEN};

pub use crate::format::associated_data::MAX_TENANT;
pub(crate) use crate::format::associated_data::complete as associated_data;

/// Most bytes of a message's plaintext: 16 MiB. Larger things are files.
pub const MAX_MESSAGE: usize = 1 << 24;
/// Bytes that an envelope adds to a message, apart from the region's name.
pub const OVERHEAD: usize = 3 + KEY_ID_LEN + NONCE_LEN + TAG_LEN;

/// Starts the associated data of messages, and of nothing else.
const LABEL: &[u8] = b"strongroom/v1/message";

/// The part of the associated data that all messages of one tenant under one data key share: label, header, tenant.
///
/// # Errors
/// `Limit` if the tenant's name has more than 64 bytes.
pub(crate) fn associated_data_prefix(header: &[u8], tenant: &str) -> Result<Vec<u8>> {
    associated_data::prefix(LABEL, header, tenant)
}

/// A parsed message envelope, borrowing its bytes.
#[derive(Clone, Copy)]
pub(crate) struct Envelope<'a> {
    pub(crate) header: Header<'a>,
    /// The bytes that `header` was read from.
    pub(crate) header_bytes: &'a [u8],
    pub(crate) nonce: &'a [u8; NONCE_LEN],
    pub(crate) ciphertext: &'a [u8],
    pub(crate) tag: &'a [u8; TAG_LEN],
}

impl<'a> Envelope<'a> {
    /// Reads a whole message envelope. Allocates nothing.
    ///
    /// # Errors
    /// `Malformed` if it is none, or holds more than 16 MiB.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self> {
        const SHORT: &str = "a message envelope ends before its tag";
        let (header, len) = Header::read(bytes)?;
        let (header_bytes, body) = bytes.split_at_checked(len).ok_or_else(|| Error::malformed(SHORT))?;
        let (nonce, rest) = body.split_first_chunk().ok_or_else(|| Error::malformed(SHORT))?;
        let (ciphertext, tag) = rest.split_last_chunk().ok_or_else(|| Error::malformed(SHORT))?;
        if ciphertext.len() > MAX_MESSAGE {
            return Err(Error::malformed("a message envelope holds at most 16 MiB"));
        }
        Ok(Self { header, header_bytes, nonce, ciphertext, tag })
    }
}

/// # Errors
/// `Limit` if a message of `len` bytes is too long.
pub(crate) fn check_length(len: usize) -> Result<()> {
    if len > MAX_MESSAGE { Err(Error::limit("a message has at most 16 MiB; seal it as a file")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::suite::Suite;
    use crate::format::associated_data::{AssociatedData, MAX_LEN};
    use crate::format::context::CanonicalFields;

    #[test]
    fn overhead_is_75_bytes_and_the_region() {
        assert_eq!(OVERHEAD, 75);
        let header = Header::encode(Suite::Aes256Gcm, "eu", &[1; 32]).unwrap();
        let bytes = [&header[..], &[2; 24], &[3; 5], &[4; 16]].concat();
        assert_eq!(bytes.len(), OVERHEAD + 2 + 5);
        let envelope = Envelope::parse(&bytes).unwrap();
        assert_eq!((envelope.nonce, envelope.ciphertext, envelope.tag), (&[2; 24], &[3; 5][..], &[4; 16]));
        for len in 0..bytes.len() - 5 {
            assert!(Envelope::parse(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn associated_data_is_bounded_and_fits_its_largest() {
        let header = Header::encode(Suite::Aes256Gcm, &"r".repeat(32), &[1; 32]).unwrap();
        let prefix = associated_data_prefix(&header, &"t".repeat(64)).unwrap();
        let scope = CanonicalFields::new(&[("a", &"x".repeat(512))]).unwrap();
        let rest = "y".repeat(503);
        let mut aad = AssociatedData::new();
        associated_data(&mut aad, &prefix, &scope, &[("b", &rest)]).unwrap();
        assert_eq!(aad.len(), MAX_LEN);
        assert!(associated_data_prefix(&header, &"t".repeat(65)).is_err());
    }

    #[test]
    fn sixteen_mebibytes_and_no_more() {
        let header = Header::encode(Suite::Aes256Gcm, "eu", &[1; 32]).unwrap();
        let mut bytes = [&header[..], &vec![0; 24 + MAX_MESSAGE + 16]].concat();
        assert!(Envelope::parse(&bytes).is_ok());
        bytes.push(0);
        assert!(Envelope::parse(&bytes).is_err());
    }
}
