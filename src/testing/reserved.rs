//! What FORMAT.md reserves for later, as far as its vectors show it. No release writes or reads it.

use std::fmt;

use crate::crypto::secret::{DataKey, Secret};
use crate::crypto::suite::Suite;
use crate::error::{Error, Result};
use crate::format::audit_entry;
use crate::format::context::Field;
use crate::format::padding;
use crate::key::reserved::{self, Owned};
use crate::key::scope::Scope;

/// A data key of one tenant, region and scope.
pub struct ReservedKey(Owned);

impl ReservedKey {
    /// # Errors
    /// `KeyMismatch` for an impossible data key, `InvalidArgument` or `Limit` for a wrong scope.
    pub fn new(data_key: &[u8], suite: Suite, region: &str, tenant: &str, scope: &[Field<'_>]) -> Result<Self> {
        Ok(Self(Owned {
            data_key: DataKey::take(&mut data_key.to_vec())?,
            suite,
            region: region.to_owned(),
            tenant: tenant.to_owned(),
            scope: Scope::new(scope)?,
        }))
    }

    /// The key of indexes.
    ///
    /// # Errors
    /// `InvalidArgument` or `Limit` for a region or a tenant that is none.
    pub fn index_key(&self) -> Result<[u8; 32]> {
        Ok(*self.0.index_key()?.expose())
    }

    /// The key of derived data.
    ///
    /// # Errors
    /// As [`Self::index_key`]'s.
    pub fn derived_key(&self) -> Result<[u8; 32]> {
        Ok(*self.0.derived_key()?.expose())
    }

    /// Wraps a file data key under a nonce of the caller's.
    ///
    /// # Errors
    /// As the canonical context's; `KeyMismatch` for an impossible key.
    pub fn wrap(&self, file: &[u8], own: &[Field<'_>], nonce: &[u8; 24]) -> Result<Vec<u8>> {
        self.0.wrap(&DataKey::take(&mut file.to_vec())?, own, nonce)
    }

    /// Unwraps a file data key.
    ///
    /// # Errors
    /// `Unopenable`, `Malformed`; as the canonical context's.
    pub fn unwrap(&self, wrap: &[u8], own: &[Field<'_>]) -> Result<Vec<u8>> {
        self.0.unwrap(wrap, own).map(|key| key.expose().to_vec())
    }

    /// Seals a message that is padded to at least `least` bytes, under a nonce of the caller's.
    ///
    /// # Errors
    /// As the canonical context's.
    pub fn seal_padded(&self, own: &[Field<'_>], nonce: &[u8; 24], text: &[u8], least: usize) -> Result<Vec<u8>> {
        self.0.seal_padded(own, nonce, text, least)
    }

    /// Opens a padded message.
    ///
    /// # Errors
    /// `Unopenable`, `Malformed`; as the canonical context's.
    pub fn open_padded(&self, own: &[Field<'_>], envelope: &[u8]) -> Result<Vec<u8>> {
        self.0.open_padded(own, envelope)
    }
}

impl fmt::Debug for ReservedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReservedKey")
    }
}

/// Seals a short file under a data key of its own and a salt of the caller's.
///
/// # Errors
/// As the canonical context's; `KeyMismatch` for an impossible key.
pub fn seal_own_key_file(
    key: &[u8],
    suite: Suite,
    region: &str,
    own: &[Field<'_>],
    salt: [u8; 24],
    text: &[u8],
) -> Result<Vec<u8>> {
    reserved::seal_file(&DataKey::take(&mut key.to_vec())?, (suite, region), own, salt, text)
}

/// Opens a file with a data key of its own.
///
/// # Errors
/// `Unopenable`; as the canonical context's; `KeyMismatch` for an impossible key.
pub fn open_own_key_file(key: &[u8], suite: Suite, region: &str, own: &[Field<'_>], file: &[u8]) -> Result<Vec<u8>> {
    reserved::open_file(&DataKey::take(&mut key.to_vec())?, (suite, region), own, file)
}

/// The length up to which `len` bytes are padded.
pub fn padme(len: usize) -> usize {
    padding::padme(len)
}

/// `text`, padded to at least `least` bytes.
pub fn padded(text: &[u8], least: usize) -> Vec<u8> {
    padding::padded(text, least)
}

/// What was padded.
///
/// # Errors
/// `Unopenable` if it is not padded so.
pub fn unpadded(padded: &[u8]) -> Result<&[u8]> {
    padding::unpadded(padded)
}

/// An audit secret and a tenant's audit key under it.
pub struct Audit(Secret<32>);

impl Audit {
    /// The audit key of `tenant`.
    ///
    /// # Errors
    /// `Limit` if the tenant's name has more than 255 bytes.
    pub fn new(mut secret: [u8; 32], tenant: &str) -> Result<Self> {
        reserved::audit_key(&Secret::take(&mut secret), tenant).map(Self)
    }

    /// The audit key itself.
    pub fn key(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// What happened, in canonical form.
    ///
    /// # Errors
    /// `InvalidArgument` or `Limit`.
    pub fn body(pairs: &[Field<'_>]) -> Result<Vec<u8>> {
        audit_entry::body(pairs)
    }

    /// The entry, and what is sealed of it.
    ///
    /// # Errors
    /// None that is known.
    pub fn seal(&self, salt: &[u8; 32], body: &[u8], nonce: &[u8; 24]) -> Result<([u8; 32], Vec<u8>)> {
        reserved::seal_audit(&self.0, salt, body, nonce)
    }

    /// Salt and body of an entry.
    ///
    /// # Errors
    /// `Unopenable` if what is sealed is not the entry's.
    pub fn open(&self, entry: &[u8], sealed: &[u8]) -> Result<([u8; 32], Vec<u8>)> {
        reserved::open_audit(&self.0, entry.try_into().map_err(|_| Error::unopenable())?, sealed)
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Audit")
    }
}
