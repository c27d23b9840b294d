//! A data key at work on files: the input key of chunked encryption and what every file under it is bound to.

use crate::crypto::aead::Backend;
use crate::crypto::chunked::{OpenKey, SealKey};
use crate::crypto::kdf::{self, Purpose};
use crate::crypto::secret::{DataKey, Secret};
use crate::crypto::suite::Suite;
use crate::error::{Error, Result};
use crate::format::associated_data::Binding;
use crate::format::chunk::{Decryptor, Encryptor};
use crate::format::context::Field;
use crate::format::file::{self, FileHead};
use crate::format::header::Header;
use crate::key::record::KeyRecord;
use crate::key::scope::Scope;

/// The file key of a data key. It is used only to derive a key for each file; what seals or opens a file holds that one
/// alone.
pub(crate) struct FileKey {
    backend: Backend,
    suite: Suite,
    key: Secret<32>,
    /// Every file of this key carries it; it names suite, region and key id.
    header: Box<[u8]>,
    binding: Binding,
    scope: Scope,
}

impl FileKey {
    /// Of a data key that has been proved to be the one `record` names.
    pub(crate) fn new(backend: Backend, data_key: &DataKey, record: &KeyRecord) -> Result<Self> {
        let header = Header::encode(record.suite, record.region.as_str(), record.key_id.as_bytes())?;
        Ok(Self {
            backend,
            suite: record.suite,
            key: kdf::derive(data_key, record.suite, Purpose::File)?,
            binding: file::binding(&header, record.tenant.as_str(), record.scope.canonical())?,
            header: header.into(),
            scope: record.scope.clone(),
        })
    }

    /// What seals one new file, and the file's head.
    ///
    /// # Errors
    /// As the canonical context's; `Unavailable` without randomness.
    pub(crate) fn sealer(&self, context: &[Field<'_>]) -> Result<(FileHead, Encryptor)> {
        let context = self.bound_to(context)?;
        self.headed(SealKey::draw(self.backend, self.suite, &self.key, &context)?)
    }

    /// The same under a salt of the caller's: for vectors only.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn sealer_with_salt(&self, context: &[Field<'_>], salt: [u8; 24]) -> Result<(FileHead, Encryptor)> {
        let context = self.bound_to(context)?;
        self.headed(SealKey::with_salt(self.backend, self.suite, &self.key, salt, &context)?)
    }

    /// The context input of chunked encryption.
    fn bound_to(&self, context: &[Field<'_>]) -> Result<Vec<u8>> {
        self.binding.with(self.scope.canonical(), context, <[u8]>::to_vec)
    }

    fn headed(&self, key: SealKey) -> Result<(FileHead, Encryptor)> {
        let encryptor = Encryptor::new(key);
        Ok((FileHead::of(&self.header, &encryptor)?, encryptor))
    }

    /// What opens the file with this head. Having it means that key, tenant, scope and context are the file's.
    ///
    /// # Errors
    /// `Unopenable`, whatever the reason; as the canonical context's for a context that could not have been sealed.
    pub(crate) fn opener(&self, head: &FileHead, context: &[Field<'_>]) -> Result<Decryptor> {
        // Suite, region and key id must be this key's: there is one candidate key and one suite, and no fallback.
        if *head.header_bytes() != *self.header {
            return Err(Error::unopenable());
        }
        let context = self.bound_to(context)?;
        let prefix = head.prefix()?;
        OpenKey::verified(self.backend, self.suite, &self.key, prefix.salt, prefix.commitment, &context)
            .map(Decryptor::new)
    }
}
