//! A data key as it rests: wrapped, in the shape of a KEK expression.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::key::json::objects;
use crate::key::kek::KekUri;
use crate::key::kek_expression::KekExpression;

/// Most bytes of a wrapped data key: AWS KMS takes and gives up to 6144.
pub const MAX_WRAPPED: usize = 6144;

/// A data key, or a component of one, wrapped by one KEK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapping {
    /// The KEK that unwraps it.
    pub kek: KekUri,
    /// What the KMS gave: opaque, 1 to 6144 bytes.
    pub wrapped: Vec<u8>,
}

/// A wrapped data key, in the shape of the [`KekExpression`] that it was wrapped for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredKey", into = "StoredKey")]
pub enum WrappedKey {
    /// Wrapped by one KEK.
    One(Wrapping),
    /// The same key, wrapped several times: any one of these unwraps it.
    AnyOf(Vec<WrappedKey>),
    /// The key's components (NIST SP 800-133 rev. 2, section 6.3, method 2), each wrapped on its own: all of them together
    /// give it.
    AllOf(Vec<WrappedKey>),
}

objects! {
    /// A data key wrapped anew, not proven yet.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct Pending {
        /// The new wrapping.
        pub wrapped: WrappedKey,
        /// The epoch of the rewrap order it was made for.
        pub epoch: u64,
    }
}

/// `{"kek": URI, "wrapped": hex}`, `{"any_of": […]}` or `{"all_of": […]}`.
#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum StoredKey {
    One { kek: KekUri, wrapped: String },
    AnyOf { any_of: Vec<StoredKey> },
    AllOf { all_of: Vec<StoredKey> },
}

impl From<WrappedKey> for StoredKey {
    fn from(key: WrappedKey) -> Self {
        let each = |of: Vec<WrappedKey>| of.into_iter().map(Self::from).collect();
        match key {
            WrappedKey::One(w) => Self::One { kek: w.kek, wrapped: base16ct::lower::encode_string(&w.wrapped) },
            WrappedKey::AnyOf(of) => Self::AnyOf { any_of: each(of) },
            WrappedKey::AllOf(of) => Self::AllOf { all_of: each(of) },
        }
    }
}

impl TryFrom<StoredKey> for WrappedKey {
    type Error = Error;

    fn try_from(stored: StoredKey) -> Result<Self> {
        let each = |of: Vec<StoredKey>| of.into_iter().map(Self::try_from).collect::<Result<_>>();
        match stored {
            StoredKey::One { kek, wrapped } => {
                let wrapped = base16ct::lower::decode_vec(&wrapped)
                    .map_err(|_| Error::malformed("a wrapped key is not lower-case hexadecimal"))?;
                Ok(Self::One(Wrapping { kek, wrapped }))
            }
            StoredKey::AnyOf { any_of } => each(any_of).map(Self::AnyOf),
            StoredKey::AllOf { all_of } => each(all_of).map(Self::AllOf),
        }
    }
}

impl WrappedKey {
    /// The KEKs it takes.
    pub fn expression(&self) -> KekExpression {
        match self {
            Self::One(wrapping) => KekExpression::One(wrapping.kek.clone()),
            Self::AnyOf(of) => KekExpression::AnyOf(of.iter().map(Self::expression).collect()),
            Self::AllOf(of) => KekExpression::AllOf(of.iter().map(Self::expression).collect()),
        }
    }

    /// The wrappings in it, from left to right.
    pub fn wrappings(&self) -> Box<dyn Iterator<Item = &Wrapping> + Send + '_> {
        match self {
            Self::One(wrapping) => Box::new(std::iter::once(wrapping)),
            Self::AnyOf(of) | Self::AllOf(of) => Box::new(of.iter().flat_map(Self::wrappings)),
        }
    }

    /// # Errors
    /// `Malformed` if a store cannot have been given it.
    pub(crate) fn check(&self) -> Result<()> {
        self.expression().check().map_err(|e| Error::malformed("a key record's KEKs cannot be").with_source(e))?;
        if self.wrappings().all(|w| (1..=MAX_WRAPPED).contains(&w.wrapped.len())) {
            return Ok(());
        }
        Err(Error::malformed("a key record's wrapped key has not 1 to 6144 bytes"))
    }
}
