//! The message envelope (FORMAT.md, "Message envelope"): `header | nonce 24 | ciphertext | tag 16`.

use crate::crypto::aead::TAG_LEN;
use crate::crypto::message::NONCE_LEN;
use crate::error::{Error, Result};
use crate::format::binding::Binding;
use crate::format::context::CanonicalFields;
use crate::format::header::{Header, KEY_ID_LEN};

pub use crate::format::binding::MAX_TENANT;

/// Most bytes of a message's plaintext: 16 MiB. Larger things are files.
pub const MAX_MESSAGE: usize = 1 << 24;
/// Bytes that an envelope adds to a message, apart from the region's name.
pub const OVERHEAD: usize = 3 + KEY_ID_LEN + NONCE_LEN + TAG_LEN;

/// Starts what message keys are derived with, and nothing else that keys are derived with.
pub(crate) const LABEL: &[u8] = b"strongroom/v1/message";

/// What the message key of a data key is derived with, which binds it to version, suite, region, data key, tenant and scope.
pub(crate) fn key_info(binding: &Binding, scope: &CanonicalFields) -> Vec<u8> {
    [LABEL, binding.as_bytes(), &scope.to_bytes()].concat()
}

/// What stands behind the header of a message envelope, borrowing its bytes.
#[derive(Clone, Copy)]
pub(crate) struct Body<'a> {
    pub(crate) nonce: &'a [u8; NONCE_LEN],
    pub(crate) ciphertext: &'a [u8],
    pub(crate) tag: &'a [u8; TAG_LEN],
}

const SHORT: &str = "a message envelope ends before its tag";

/// Reads a whole message envelope. Allocates nothing.
///
/// # Errors
/// `Malformed` if it is none, or holds more than 16 MiB.
pub(crate) fn parse(envelope: &[u8]) -> Result<(Header<'_>, Body<'_>)> {
    let (header, len) = Header::read(envelope)?;
    let body = envelope.get(len..).ok_or_else(|| Error::malformed(SHORT))?;
    Ok((header, Body::parse(body)?))
}

impl<'a> Body<'a> {
    /// Reads what stands behind the header.
    ///
    /// # Errors
    /// `Malformed` if it is too short or holds more than 16 MiB.
    #[inline]
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let (nonce, rest) = bytes.split_first_chunk().ok_or_else(|| Error::malformed(SHORT))?;
        let (ciphertext, tag) = rest.split_last_chunk().ok_or_else(|| Error::malformed(SHORT))?;
        check_sealed_length(ciphertext.len())?;
        Ok(Self { nonce, ciphertext, tag })
    }
}

/// As [`Body`], to be opened where it stands. Nonce and tag are borrowed, not copied: a copy made in other pieces than it is
/// read in costs as much as a lock.
pub(crate) struct BodyMut<'a> {
    pub(crate) nonce: &'a [u8; NONCE_LEN],
    pub(crate) ciphertext: &'a mut [u8],
    pub(crate) tag: &'a [u8; TAG_LEN],
}

impl<'a> BodyMut<'a> {
    /// As [`Body::parse`].
    ///
    /// # Errors
    /// As [`Body::parse`].
    #[inline]
    pub(crate) fn parse(bytes: &'a mut [u8]) -> Result<Self> {
        let (nonce, rest) = bytes.split_first_chunk_mut().ok_or_else(|| Error::malformed(SHORT))?;
        let (ciphertext, tag) = rest.split_last_chunk_mut().ok_or_else(|| Error::malformed(SHORT))?;
        check_sealed_length(ciphertext.len())?;
        Ok(Self { nonce, ciphertext, tag })
    }
}

#[inline]
fn check_sealed_length(len: usize) -> Result<()> {
    if len > MAX_MESSAGE { Err(Error::malformed("a message envelope holds at most 16 MiB")) } else { Ok(()) }
}

/// Why an envelope that does not start with the key's header is refused: it is none, or it is another key's.
#[cold]
#[cfg(any(test, feature = "testing"))]
pub(crate) fn misnamed(envelope: &[u8]) -> Error {
    parse(envelope).err().unwrap_or_else(Error::unopenable)
}

/// The part of a message envelope that is its ciphertext; once it was opened in place, its plaintext.
///
/// # Errors
/// `Malformed` if it is no envelope.
#[inline]
pub(crate) fn opened_part(envelope: &mut [u8]) -> Result<&mut [u8]> {
    let start = envelope.get(2).map_or(0, |region| 3 + usize::from(*region) + KEY_ID_LEN + NONCE_LEN);
    let end = envelope.len().saturating_sub(TAG_LEN);
    envelope.get_mut(start..end).ok_or_else(|| Error::malformed(SHORT))
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

    #[test]
    fn overhead_is_75_bytes_and_the_region() {
        assert_eq!(OVERHEAD, 75);
        let header = Header::encode(Suite::Aes256Gcm, "eu", &[1; 32]).unwrap();
        let bytes = [&header[..], &[2; 24], &[3; 5], &[4; 16]].concat();
        assert_eq!(bytes.len(), OVERHEAD + 2 + 5);
        let (_, body) = parse(&bytes).unwrap();
        assert_eq!((body.nonce, body.ciphertext, body.tag), (&[2; 24], &[3; 5][..], &[4; 16]));
        for len in 0..bytes.len() - 5 {
            assert!(parse(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn a_message_key_is_derived_with_label_header_tenant_and_scope() {
        let scope = CanonicalFields::new(&[("channel", "C9")]).unwrap();
        let info = key_info(&Binding::new(b"HEADER", "acme").unwrap(), &scope);
        assert_eq!(info, b"strongroom/v1/messageHEADER\x04acme\x01\x07channel\x00\x02C9");
    }

    #[test]
    fn sixteen_mebibytes_and_no_more() {
        let header = Header::encode(Suite::Aes256Gcm, "eu", &[1; 32]).unwrap();
        let mut bytes = [&header[..], &vec![0; 24 + MAX_MESSAGE + 16]].concat();
        assert!(parse(&bytes).is_ok());
        bytes.push(0);
        assert!(parse(&bytes).is_err());
        assert!(check_length(MAX_MESSAGE).is_ok() && check_length(MAX_MESSAGE + 1).is_err());
    }
}
