//! File keys without a KMS or a store, for tests, benches and fuzzing.

use std::fmt;
use std::sync::Arc;

use crate::crypto::aead::Backend;
use crate::crypto::allotment::Budget;
use crate::crypto::secret::DataKey;
use crate::crypto::suite::Suite;
use crate::error::Result;
use crate::file::opener::FileOpener;
use crate::file::sealer::FileSealer;
use crate::format::context::Field;
use crate::format::file::FileHead;
use crate::key::data_key::LoadedKey;
use crate::key::id::{KeyId, TenantId};
use crate::key::record::KeyRecord;
use crate::key::region::Region;
use crate::key::scope::Scope;

/// Seals and opens files under a data key that the test hands in.
pub struct FileKeys(LoadedKey);

impl FileKeys {
    /// Of tenant `acme`, region `eu-central-1`, scope `workspace=W1`, `channel=C9`.
    ///
    /// # Errors
    /// `KeyMismatch` if the bytes of `data_key` are all equal.
    pub fn new(suite: Suite, data_key: [u8; 32]) -> Result<Self> {
        Self::on(Backend::DEFAULT, suite, data_key)
    }

    /// The same on the portable backend.
    ///
    /// # Errors
    /// `KeyMismatch` if the bytes of `data_key` are all equal.
    pub fn portable(suite: Suite, data_key: [u8; 32]) -> Result<Self> {
        Self::on(Backend::RustCrypto, suite, data_key)
    }

    pub(crate) fn on(backend: Backend, suite: Suite, mut data_key: [u8; 32]) -> Result<Self> {
        let data_key = DataKey::take(&mut data_key)?;
        let record = KeyRecord::bare(
            TenantId::new("acme")?,
            KeyId::of(&data_key, suite)?,
            suite,
            Scope::new(&[("workspace", "W1"), ("channel", "C9")])?,
            Region::new("eu-central-1")?,
        );
        LoadedKey::on(backend, &data_key, &record, Arc::new(Budget::new(0))).map(Self)
    }

    /// What seals one file.
    ///
    /// # Errors
    /// As the canonical context's.
    pub fn sealer(&self, context: &[Field<'_>]) -> Result<FileSealer> {
        self.0.file_key().sealer(context).map(FileSealer::new)
    }

    /// What seals one file under a salt of the caller's. A salt used twice gives everything away: vectors only.
    ///
    /// # Errors
    /// As the canonical context's.
    pub fn sealer_with_salt(&self, context: &[Field<'_>], salt: [u8; 24]) -> Result<FileSealer> {
        self.0.file_key().sealer_with_salt(context, salt).map(FileSealer::new)
    }

    /// What opens the file with this head.
    ///
    /// # Errors
    /// `Unopenable` if it is another key's or context's.
    pub fn opener(&self, head: &FileHead, context: &[Field<'_>]) -> Result<FileOpener> {
        Ok(FileOpener::new(head.clone(), self.0.file_key().opener(head, context)?))
    }
}

impl fmt::Debug for FileKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileKeys")
    }
}
