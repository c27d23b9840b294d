//! Incarnations: which life of a name. A tenant that is deleted and enrolled anew, or a room that is made anew, is another one.

use std::fmt;

use crate::crypto::random;
use crate::error::{Error, Result};
use crate::key::json::hex_text;

/// 16 random bytes, drawn when a tenant is enrolled or a room is created. Public.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation([u8; 16]);

hex_text!(Incarnation, 16, "an incarnation is 32 lower-case hexadecimal digits");

impl Incarnation {
    /// A new one.
    ///
    /// # Errors
    /// `Unavailable` if the operating system gives no randomness.
    pub(crate) fn draw() -> Result<Self> {
        let mut bytes = [0; 16];
        random::from_os(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// One as it was kept.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl From<Incarnation> for String {
    fn from(incarnation: Incarnation) -> Self {
        incarnation.to_string()
    }
}

impl TryFrom<String> for Incarnation {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let mut bytes = [0; 16];
        match base16ct::lower::decode(&text, &mut bytes) {
            Ok(decoded) if decoded.len() == 16 => Ok(Self(bytes)),
            _ => Err(Error::invalid("an incarnation is 32 lower-case hexadecimal digits")),
        }
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&base16ct::lower::encode_string(&self.0))
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incarnation({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_alike_and_each_has_one_spelling() {
        let [one, other] = [(); 2].map(|()| Incarnation::draw().unwrap());
        assert_ne!(one, other);
        assert_eq!(Incarnation::try_from(String::from(one)).unwrap(), one);
        for bad in ["", "00", "0G", &"0A".repeat(16), &"0".repeat(33)] {
            assert!(Incarnation::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
