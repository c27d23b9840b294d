//! The message format by itself: what vectors, reference implementations and fuzzers compare with.

use std::io::Read as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::crypto::aead::Backend;
use crate::crypto::allotment::{Budget, MAX_MESSAGES};
use crate::crypto::message::{NONCE_LEN, SealFailure};
use crate::crypto::secret::{DataKey, Plaintext};
use crate::crypto::suite::Suite;
use crate::error::{Error, ErrorKind, Result};
use crate::file::opener::FileOpener;
use crate::file::sealer::FileSealer;
use crate::format::context::{CanonicalFields, Field};
use crate::format::file::FileHead;
use crate::format::message;
use crate::format::stream::StreamOpener;
use crate::key::data_key::{Hand, LoadedKey};
use crate::key::id::{KeyId, TenantId};
use crate::key::record::KeyRecord;
use crate::key::region::Region;
use crate::key::scope::Scope;

/// One data key of one tenant, region and scope, without KMS or store, on one backend.
///
/// It holds what a thread holds beside a key from one message to the next, so that what one leaves behind meets the next.
pub struct BareKey(LoadedKey, Mutex<Hand>);

/// How many cipher backends are compiled in.
pub const BACKENDS: usize = Backend::ALL.len();

impl BareKey {
    /// A key on the `backend`-th backend: 0 is RustCrypto, 1, if compiled in, aws-lc-rs.
    ///
    /// # Errors
    /// `KeyMismatch` for an impossible data key, `InvalidArgument` for wrong names, `Limit` for a scope beyond its limits.
    pub fn new(
        backend: usize,
        data_key: &[u8],
        suite: Suite,
        region: &str,
        tenant: &str,
        scope: &[Field<'_>],
    ) -> Result<Self> {
        let data_key = DataKey::take(&mut data_key.to_vec())?;
        let record = KeyRecord::bare(
            TenantId::new(tenant)?,
            KeyId::of(&data_key, suite)?,
            suite,
            Scope::new(scope)?,
            Region::new(region)?,
        );
        LoadedKey::on(Backend::ALL[backend], &data_key, &record, Arc::new(Budget::new(MAX_MESSAGES)))
            .map(|key| Self(key, Mutex::default()))
    }

    /// The key's id.
    pub fn key_id(&self) -> KeyId {
        *self.0.key_id()
    }

    /// Opens an envelope.
    ///
    /// # Errors
    /// `Malformed` or `Unopenable`; `InvalidArgument` or `Limit` for a context that could not have been sealed.
    pub fn open(&self, context: &[Field<'_>], envelope: &[u8]) -> Result<Vec<u8>> {
        let (mut text, mut copy) = (Plaintext::empty(), envelope.to_vec());
        let misnamed = || Err(message::misnamed(envelope));
        let opened = self.0.open(None, envelope, context, &mut text).unwrap_or_else(misnamed);
        let opened = opened.map(|()| text.into_unwiped());
        let in_place = self.0.open_in_place(Some(&mut self.hand()), &mut copy, context).unwrap_or_else(misnamed);
        let in_place = in_place.and_then(|()| message::opened_part(&mut copy));
        assert_eq!(opened.as_deref().ok(), in_place.as_deref().ok(), "open and open_in_place differ");
        opened
    }

    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what the messages before left behind.
    pub fn forget(&self) {
        *self.hand() = Hand::default();
    }

    /// Seals as a room does: under a writer's nonce.
    ///
    /// # Errors
    /// `InvalidArgument` or `Limit` for a context or plaintext beyond its limits; `Unavailable` without randomness or after
    /// 2^40 messages.
    pub fn seal(&self, context: &[Field<'_>], plaintext: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let sealed = self.0.seal_into(&mut self.hand(), Duration::ZERO, context, plaintext, &mut out);
        sealed.map(|()| out).map_err(|failure| match failure {
            SealFailure::Failed(e) => e,
            SealFailure::Spent => Error::new(ErrorKind::Unavailable, "the key's messages are spent"),
        })
    }

    /// Seals under a nonce of the caller's.
    ///
    /// # Errors
    /// `InvalidArgument` or `Limit` for a context or plaintext beyond its limits.
    pub fn seal_with_nonce(&self, context: &[Field<'_>], nonce: &[u8; NONCE_LEN], plaintext: &[u8]) -> Result<Vec<u8>> {
        self.0.seal_with_nonce(context, nonce, plaintext)
    }
}

impl BareKey {
    /// Opens a whole sealed file.
    ///
    /// # Errors
    /// `Malformed` or `Unopenable`; `InvalidArgument` or `Limit` for a context that could not have been sealed.
    pub fn open_file(&self, context: &[Field<'_>], file: &[u8]) -> Result<Vec<u8>> {
        let head = FileHead::parse(file)?;
        let decryptor = self.0.file_key().opener(&head, context)?;
        FileOpener::new(head, decryptor).open_bytes(file).map(Plaintext::into_unwiped)
    }
}

/// Files too long to be made, from a chunk on that is far in them.
impl BareKey {
    /// What seals the end of a file, as if `first` full chunks stood before, under a salt of the caller's.
    ///
    /// # Errors
    /// `InvalidArgument` or `Limit` for a context beyond its limits.
    pub fn file_sealer_at(&self, context: &[Field<'_>], salt: [u8; 24], first: u64) -> Result<FileSealer> {
        let sealer = self.0.file_key().sealer_with_salt(context, salt);
        sealer.map(|(head, encryptor)| FileSealer::new((head, encryptor.at(first))))
    }

    /// What opens the file with this head.
    ///
    /// # Errors
    /// `Unopenable` if it is another key's or context's.
    pub fn file_opener(&self, context: &[Field<'_>], head: &FileHead) -> Result<FileOpener> {
        Ok(FileOpener::new(head.clone(), self.0.file_key().opener(head, context)?))
    }

    /// Opens the chunks at the end of a file as a stream, as if `first` full chunks stood before.
    ///
    /// # Errors
    /// `Unopenable`.
    pub fn open_file_from(
        &self,
        context: &[Field<'_>],
        head: &FileHead,
        first: u64,
        mut chunks: &[u8],
    ) -> Result<Vec<u8>> {
        let mut opener = StreamOpener::new(self.0.file_key().opener(head, context)?).at(first);
        let mut text = Vec::new();
        loop {
            let opened = opener.output()?;
            if !opened.is_empty() {
                text.extend_from_slice(opened);
                opener.take(usize::MAX);
            } else if opener.has_ended() {
                return Ok(text);
            } else if chunks.is_empty() {
                opener.end()?;
            } else {
                let read = chunks.read(opener.space()).unwrap_or_default();
                opener.fill(read);
            }
        }
    }
}

/// Whether two key ids are equal, compared as after an unwrap: in time that does not say where they differ.
pub fn same_key_id(one: &KeyId, other: &KeyId) -> bool {
    one.ct_eq(other)
}

/// The canonical form of a context.
///
/// # Errors
/// `InvalidArgument` or `Limit`.
pub fn canonical_context(context: &[Field<'_>]) -> Result<Vec<u8>> {
    CanonicalFields::new(context).map(|fields| fields.to_bytes())
}

/// Whether `bytes` parse as a message envelope.
///
/// # Errors
/// `Malformed` if not.
pub fn parse_envelope(bytes: &[u8]) -> Result<()> {
    message::parse(bytes).map(|_| ())
}

/// Whether `bytes` parse as a canonical context, and if so the bytes that it encodes to again.
///
/// # Errors
/// `Malformed` if not.
pub fn reencode_context(bytes: &[u8]) -> Result<Vec<u8>> {
    CanonicalFields::parse(bytes).map(|fields| fields.to_bytes())
}
