//! Row digests: a stored row's version, by its bytes.

use std::fmt;

use crate::crypto::digest::sha256;
use crate::error::{Error, Result};
use crate::key::json::hex_text;

/// SHA-256 of a stored row's bytes: names one version of it. Public.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowDigest([u8; 32]);

hex_text!(RowDigest, 32, "a row's digest is 64 lower-case hexadecimal digits");

impl RowDigest {
    /// The digest of a row's bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha256(&[bytes]))
    }

    /// A digest as it was kept.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<RowDigest> for String {
    fn from(digest: RowDigest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for RowDigest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let mut bytes = [0; 32];
        match base16ct::lower::decode(&text, &mut bytes) {
            Ok(decoded) if decoded.len() == 32 => Ok(Self(bytes)),
            _ => Err(Error::invalid("a row's digest is 64 lower-case hexadecimal digits")),
        }
    }
}

impl fmt::Display for RowDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&base16ct::lower::encode_string(&self.0))
    }
}

impl fmt::Debug for RowDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowDigest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_go_through_text_in_one_spelling() {
        let digest = RowDigest::of(b"abc");
        let text = String::from(digest);
        assert_eq!(RowDigest::try_from(text.clone()).unwrap(), digest);
        assert_eq!((format!("{digest:.4}"), format!("{digest:?}")), ("ba78".to_owned(), format!("RowDigest({text})")));
        for bad in [text.to_uppercase(), text[1..].to_owned(), text.clone() + "00", String::new()] {
            assert!(RowDigest::try_from(bad).is_err());
        }
    }
}
