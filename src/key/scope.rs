//! Scopes: what one data key covers.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::context::{CanonicalFields, Field};

/// Most bytes of a scope in canonical form: half of a context, so that messages have room for fields of their own.
pub const MAX_SCOPE: usize = 512;

/// What one data key covers: a few `field=value` pairs such as `workspace=W1`, `channel=C9`, in canonical order. The
/// period that the policy adds stands beside it. Cheap to clone; clones are compared without being read.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Vec<(String, String)>", into = "Vec<(String, String)>")]
pub struct Scope(Arc<CanonicalFields>);

impl Scope {
    /// A scope of these fields, in any order.
    ///
    /// # Errors
    /// `InvalidArgument` for a duplicate or empty name or an empty value, `Limit` beyond 512 bytes in canonical form.
    pub fn new(fields: &[Field<'_>]) -> Result<Self> {
        if fields.iter().any(|(_, value)| value.is_empty()) {
            return Err(Error::invalid("a scope field has no value"));
        }
        Self::checked(CanonicalFields::new(fields)?)
    }

    /// A scope as [`Self::to_bytes`] gave it.
    ///
    /// # Errors
    /// `Malformed` for any other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let scope = Self::checked(CanonicalFields::parse(bytes)?)
            .map_err(|e| Error::malformed("a scope is out of bounds").with_source(e))?;
        if scope.fields().any(|(_, value)| value.is_empty()) {
            return Err(Error::malformed("a scope field has no value"));
        }
        Ok(scope)
    }

    fn checked(fields: CanonicalFields) -> Result<Self> {
        if fields.to_bytes().len() > MAX_SCOPE {
            return Err(Error::limit("a scope has at most 512 bytes in canonical form"));
        }
        Ok(Self(Arc::new(fields)))
    }

    /// The canonical bytes (FORMAT.md, "Canonical context").
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    /// The fields in canonical order.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> + Clone {
        self.0.iter()
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)
    }

    pub(crate) fn canonical(&self) -> &CanonicalFields {
        &self.0
    }
}

impl From<Scope> for Vec<(String, String)> {
    fn from(scope: Scope) -> Self {
        scope.fields().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

impl TryFrom<Vec<(String, String)>> for Scope {
    type Error = Error;

    fn try_from(fields: Vec<(String, String)>) -> Result<Self> {
        let fields: Vec<Field<'_>> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Self::new(&fields)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.fields().enumerate() {
            write!(f, "{}{name}={value:?}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_have_up_to_512_bytes_and_read_back() {
        // The count, 3 bytes of lengths, 1 of the name.
        for (len, fits) in [(MAX_SCOPE - 6, true), (MAX_SCOPE - 5, true), (MAX_SCOPE - 4, false)] {
            let value = "v".repeat(len);
            let scope = Scope::new(&[("n", &value)]);
            assert_eq!(scope.is_ok(), fits, "{len}");
            if let Ok(scope) = scope {
                assert_eq!(Scope::from_bytes(&scope.to_bytes()).unwrap(), scope);
            }
        }
    }

    #[test]
    fn a_scope_is_shown_as_its_fields() {
        let scope = Scope::new(&[("workspace", "W1"), ("channel", "C\n9")]).unwrap();
        assert_eq!(scope.to_string(), r#"channel="C\n9" workspace="W1""#);
        assert_eq!(format!("{scope:?}"), r#"Scope(channel="C\n9" workspace="W1")"#);
        assert_eq!((scope.get("workspace"), scope.get("W1")), (Some("W1"), None));
    }
}
