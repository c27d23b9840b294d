//! A data key at work on files: the input key of chunked encryption and what every file under it is bound to.

use crate::crypto::aead::Backend;
use crate::crypto::chunked::{OpenKey, SealKey};
use crate::crypto::secret::Secret;
use crate::crypto::suite::Suite;
use crate::error::{Error, Result};
use crate::format::binding::Binding;
use crate::format::chunk::{Decryptor, Encryptor};
use crate::format::context::Field;
use crate::format::file::{self, FileHead};
use crate::key::context_rules::RequiredFields;
use crate::key::scope::Scope;

/// The file key of a data key, borrowed for as long as it takes to derive the key of one file from it; what seals or opens a
/// file holds that one alone.
pub(crate) struct FileKey<'k> {
    pub(crate) backend: Backend,
    pub(crate) suite: Suite,
    pub(crate) key: &'k Secret<32>,
    pub(crate) binding: &'k Binding,
    pub(crate) scope: &'k Scope,
    /// Which fields the context of every file of the data key has.
    pub(crate) required: &'k RequiredFields,
}

impl FileKey<'_> {
    /// What seals one new file, and the file's head.
    ///
    /// # Errors
    /// `InvalidArgument` if `context` lacks a field that the data key's files carry; as the canonical context's; `Unavailable`
    /// without randomness.
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
    ///
    /// # Errors
    /// `InvalidArgument` if `context` lacks a field that the data key's files carry; as the canonical context's.
    fn bound_to(&self, context: &[Field<'_>]) -> Result<Vec<u8>> {
        self.required.check_context("file", context)?;
        file::context(self.binding, self.scope.canonical(), context)
    }

    fn headed(&self, key: SealKey) -> Result<(FileHead, Encryptor)> {
        let encryptor = Encryptor::new(key);
        Ok((FileHead::of(self.binding.header(), &encryptor)?, encryptor))
    }

    /// What opens the file with this head. Having it means that key, tenant, scope and context are the file's.
    ///
    /// # Errors
    /// `Unopenable`, whatever the reason; `InvalidArgument`, or as the canonical context's, for a context that could not
    /// have been sealed under this key.
    pub(crate) fn opener(&self, head: &FileHead, context: &[Field<'_>]) -> Result<Decryptor> {
        // Suite, region and key id must be this key's: there is one candidate key and one suite, and no fallback.
        if head.header_bytes() != self.binding.header() {
            return Err(Error::unopenable_file().because("its suite or region is another than its key's"));
        }
        let context = self.bound_to(context)?;
        let prefix = head.prefix()?;
        OpenKey::verified(self.backend, self.suite, self.key, prefix.salt, prefix.commitment, &context)
            .map(Decryptor::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::format::header::Header;

    /// A file opens under the key, the header, the scope and the context that it was sealed under, and under no other.
    #[test]
    fn a_file_is_bound_to_all_that_names_its_key() {
        let keys = [Secret::take(&mut [7; 32]), Secret::take(&mut [8; 32])];
        let scopes = [Scope::new(&[("channel", "C9")]).unwrap(), Scope::new(&[("channel", "C8")]).unwrap()];
        for suite in Suite::ALL {
            let bound = |id, tenant| Binding::new(&Header::encode(suite, "eu", &[id; 32]).unwrap(), tenant).unwrap();
            let [binding, other_key_id, other_tenant] = [bound(9, "acme"), bound(1, "acme"), bound(9, "acmf")];
            let file_key = |n: usize, binding, of: usize| FileKey {
                backend: Backend::DEFAULT,
                suite,
                key: &keys[n],
                binding,
                scope: &scopes[of],
                required: &RequiredFields::Unbound,
            };
            let key = file_key(0, &binding, 0);
            let (head, encryptor) = key.sealer(&[("file", "F1")]).unwrap();
            let mut sealed = [&b"hello"[..], &[0; 16]].concat();
            encryptor.finish().seal(&mut sealed).unwrap();

            let opener = key.opener(&head, &[("file", "F1")]).unwrap();
            assert_eq!(opener.open_last(0, &mut sealed).unwrap(), 5);
            assert_eq!(sealed[..5], *b"hello");

            let refused = |key: &FileKey<'_>, context: &[Field<'_>]| key.opener(&head, context).err().map(|e| e.kind());
            for context in [&[][..], &[("file", "F2")], &[("life", "F1")]] {
                assert_eq!(refused(&key, context), Some(ErrorKind::Unopenable), "{context:?}");
            }
            for other in [
                file_key(1, &binding, 0),
                file_key(0, &other_key_id, 0),
                file_key(0, &other_tenant, 0),
                file_key(0, &binding, 1),
            ] {
                assert_eq!(refused(&other, &[("file", "F1")]), Some(ErrorKind::Unopenable));
            }
            assert_eq!(refused(&key, &[("channel", "C9")]), Some(ErrorKind::InvalidArgument));

            let required = &RequiredFields::named(["file"]);
            let strict = FileKey { required, ..file_key(0, &binding, 0) };
            assert!(strict.opener(&head, &[("file", "F1")]).is_ok());
            assert_eq!(refused(&strict, &[("file", "F2")]), Some(ErrorKind::Unopenable));
            for context in [&[][..], &[("life", "F1")], &[("file", "")]] {
                assert_eq!(refused(&strict, context), Some(ErrorKind::InvalidArgument), "{context:?}");
                assert_eq!(strict.sealer(context).err().map(|e| e.kind()), Some(ErrorKind::InvalidArgument));
            }
        }
    }
}
