//! Who and which: tenants and data keys.

use std::fmt;

use crate::crypto::kdf::{self, Purpose};
use crate::crypto::secret::DataKey;
use crate::crypto::suite::Suite;
use crate::error::{Error, Result};
use crate::format::message::MAX_TENANT;
use crate::key::json::hex_text;
use crate::key::text::checked_text;

checked_text!(
    /// Names a tenant: 1 to 64 of `A-Z a-z 0-9 . _ : @ -`.
    TenantId,
    |text| (1..=usize::from(MAX_TENANT)).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:@-".contains(&b)),
    "a tenant's name has 1 to 64 of A-Z, a-z, 0-9, '.', '_', ':', '@' and '-'"
);

/// Names a data key and commits to it: 32 bytes derived from the key itself (FORMAT.md, "Keys derived from a data key").
///
/// Public. Prints as hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 32]);

hex_text!(KeyId, 32, "a key id is stored as 64 lower-case hexadecimal digits");

impl KeyId {
    /// The id of `data_key` used with `suite`.
    pub(crate) fn of(data_key: &DataKey, suite: Suite) -> Result<Self> {
        kdf::derive(data_key, suite, Purpose::KeyId).map(|id| Self(*id.expose()))
    }

    /// An id as an envelope's header or a stored row has it.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// An id from its 64 hexadecimal digits.
    ///
    /// # Errors
    /// `InvalidArgument` if `text` is anything else.
    pub fn from_hex(text: &str) -> Result<Self> {
        let mut bytes = [0; 32];
        match base16ct::mixed::decode(text, &mut bytes) {
            Ok(decoded) if decoded.len() == 32 => Ok(Self(bytes)),
            _ => Err(Error::invalid("a key id is 64 hexadecimal digits")),
        }
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Equality in time that does not depend on where ids differ.
    pub(crate) fn ct_eq(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        self.0.ct_eq(&other.0).into()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for KeyId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::from_hex(&text)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&base16ct::lower::encode_string(&self.0)) // so that {:.8} abbreviates
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_names() {
        for good in ["a", "acme", "T0:ACME@eu-1._", &"x".repeat(64)] {
            assert!(TenantId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "é", "a\0", &"x".repeat(65)] {
            assert!(TenantId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn key_ids_print_and_parse_as_hex() {
        let id = KeyId::from_bytes([0xAB; 32]);
        assert_eq!(KeyId::from_hex(&id.to_string()).unwrap(), id);
        for bad in ["", "ab", &"g".repeat(64), &"a".repeat(66)] {
            assert!(KeyId::from_hex(bad).is_err());
        }
    }

    #[test]
    fn key_ids_go_through_text() {
        let id = KeyId::from_bytes([0xAB; 32]);
        let text = "ab".repeat(32);
        assert_eq!((String::from(id), KeyId::try_from(text.clone()).unwrap()), (text.clone(), id));
        assert_eq!((format!("{id:.8}"), format!("{id:?}")), (text[..8].to_owned(), format!("KeyId({text})")));
    }
}
