//! A data key at work on files: the input key of chunked encryption and what every file under it is bound to.

use crate::crypto::aead::Backend;
use crate::crypto::chunked::{OpenKey, SealKey};
use crate::crypto::secret::Secret;
use crate::crypto::suite::Suite;
use crate::error::{Error, Result};
use crate::format::associated_data::Binding;
use crate::format::chunk::{Decryptor, Encryptor};
use crate::format::context::Field;
use crate::format::file::FileHead;
use crate::key::scope::Scope;

/// The file key of a data key, borrowed for as long as it takes to derive the key of one file from it; what seals or opens a
/// file holds that one alone.
pub(crate) struct FileKey<'k> {
    pub(crate) backend: Backend,
    pub(crate) suite: Suite,
    pub(crate) key: &'k Secret<32>,
    /// What every file of the data key is bound to.
    pub(crate) binding: Binding,
    pub(crate) scope: &'k Scope,
}

impl FileKey<'_> {
    /// What seals one new file, and the file's head.
    ///
    /// # Errors
    /// As the canonical context's; `Unavailable` without randomness.
    pub(crate) fn sealer(&self, context: &[Field<'_>]) -> Result<(FileHead, Encryptor)> {
        let context = self.bound_to(context)?;
        self.headed(SealKey::draw(self.backend, self.suite, self.key, &context)?)
    }

    /// The same under a salt of the caller's: for vectors only.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn sealer_with_salt(&self, context: &[Field<'_>], salt: [u8; 24]) -> Result<(FileHead, Encryptor)> {
        let context = self.bound_to(context)?;
        self.headed(SealKey::with_salt(self.backend, self.suite, self.key, salt, &context)?)
    }

    /// The context input of chunked encryption.
    fn bound_to(&self, context: &[Field<'_>]) -> Result<Vec<u8>> {
        self.binding.with(self.scope.canonical(), context, None, |bytes| Ok(bytes.to_vec()))
    }

    fn headed(&self, key: SealKey) -> Result<(FileHead, Encryptor)> {
        let encryptor = Encryptor::new(key);
        Ok((FileHead::of(self.binding.header(), &encryptor)?, encryptor))
    }

    /// What opens the file with this head. Having it means that key, tenant, scope and context are the file's.
    ///
    /// # Errors
    /// `Unopenable`, whatever the reason; as the canonical context's for a context that could not have been sealed.
    pub(crate) fn opener(&self, head: &FileHead, context: &[Field<'_>]) -> Result<Decryptor> {
        // Suite, region and key id must be this key's: there is one candidate key and one suite, and no fallback.
        if head.header_bytes() != self.binding.header() {
            return Err(Error::unopenable());
        }
        let context = self.bound_to(context)?;
        let prefix = head.prefix()?;
        OpenKey::verified(self.backend, self.suite, self.key, prefix.salt, prefix.commitment, &context)
            .map(Decryptor::new)
    }
}
