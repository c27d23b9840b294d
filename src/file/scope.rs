//! Files of a scope: where the key comes from.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::file::opener::{FileOpener, OPEN};
use crate::file::progress::FileOptions;
use crate::file::sealer::{FileSealer, SEAL};
use crate::file::whose::Whose;
use crate::format::context::Field;
use crate::format::file::FileHead;
use crate::key::id::KeyId;
use crate::keyring::cache::CachedKey;
use crate::keyring::hands::Held;
use crate::sealer::{InHand, ScopeHandle};

/// Files. What a sealer or an opener is made of is looked up here, once; from then on a file needs neither KMS nor store.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # use strongroom::*;
/// # let kms = LocalKms::in_memory();
/// # let region = Region::new("eu-central-1")?;
/// # let kek = kms.create_kek("acme", region.clone())?;
/// # let room = Strongroom::builder().serving(["eu-central-1"]).key_store(MemoryKeyStore::default()).kms(kms).trusting_the_key_store().build().await?;
/// # room.admin("ops@example.com", "an example")?.enroll("acme", TenantPolicy::new(kek, region).scope_by(["channel"]).bind_files(["file"])).await?;
/// let channel = room.tenant("acme").await?.scope([("channel", "C9")])?;
/// let sealed = channel.file_sealer(&[("file", "F1")]).await?.seal_bytes(b"a picture")?;
///
/// let head = FileHead::parse(&sealed)?;
/// let opener = channel.file_opener(&[("file", "F1")], &head).await?;
/// assert_eq!(&*opener.open_bytes(&sealed)?, b"a picture");
/// assert!(channel.file_opener(&[("file", "F2")], &head).await.is_err());
/// # Ok::<(), Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl ScopeHandle {
    /// What seals one new file under the scope's Active key. `context` is authenticated, not stored, and has to be given
    /// again to open. With the key cached: no I/O.
    ///
    /// # Errors
    /// `Region` if the tenant's home region is not served here; as every load of a key
    /// ([`ScopeHandle`](crate::ScopeHandle#errors-of-loading-a-key)) if it is not in hand; `Limit` or `InvalidArgument` for a
    /// context beyond its limits, one that lacks a field that the policy binds files to ([`TenantPolicy::bind_files`]), or
    /// names one twice.
    ///
    /// [`TenantPolicy::bind_files`]: crate::TenantPolicy::bind_files
    pub async fn file_sealer(&self, context: &[Field<'_>]) -> Result<FileSealer> {
        let make = |held: &mut Held, _| {
            held.key().note_sealing();
            InHand::Done(held.key().key.file_key().sealer(context).map(FileSealer::new))
        };
        let sealer = match self.with_sealing_key_in_hand(0, make) {
            InHand::Done(sealer) => sealer,
            InHand::Missing => self.file_sealer_loading(context).await,
        };
        let limited = sealer.map(|sealer| sealer.limited(Arc::clone(&self.keyring.clock)).of(self.tenant()));
        limited.map_err(|e| self.explain(e, SEAL))
    }

    async fn file_sealer_loading(&self, context: &[Field<'_>]) -> Result<FileSealer> {
        let key = self.load_sealing().await?;
        if self.keyring.now() < key.seals_until {
            key.note_sealing();
            return key.key.file_key().sealer(context).map(FileSealer::new);
        }
        Err(Error::new(ErrorKind::Unavailable, "the KMS took longer than the policy's cache time to live; retry"))
    }

    /// What opens the file with this head; `context` is the one it was sealed with. With the key cached: no I/O.
    ///
    /// # Errors
    /// `Region` if the file's region is not served here (before any KMS or store call); `InvalidArgument` or `Limit` for a
    /// context with which nothing is sealed under its key; `Unopenable` if it does not open here, whatever the reason; as
    /// every load of a key ([`ScopeHandle`](crate::ScopeHandle#errors-of-loading-a-key)) if it is not in hand.
    pub async fn file_opener(&self, context: &[Field<'_>], head: &FileHead) -> Result<FileOpener> {
        self.make_opener(context, head).await.map_err(|e| Whose::of(self.tenant(), head).name(e, OPEN))
    }

    async fn make_opener(&self, context: &[Field<'_>], head: &FileHead) -> Result<FileOpener> {
        // Warm or cold, the same.
        self.keyring.check_served(head.header().region())?;
        let key_id = KeyId::from_bytes(*head.header().key_id());
        let open = |key: &Arc<CachedKey>| {
            if self.is_of_scope(key) {
                return key.key.file_key().opener(head, context);
            }
            Err(Error::unopenable_file().because("its scope is another one"))
        };
        let decryptor = match self.with_key_id_in_hand(&key_id, open) {
            InHand::Done(made) => made?,
            InHand::Missing => open(&self.load_opening(&key_id).await?)?,
        };
        Ok(FileOpener::new(head.clone(), decryptor).of(self.tenant()))
    }

    /// Seals the file `source` into `target`, replacing what is there, whole or not at all; see
    /// [`FileSealer::seal_path`]. Dropping the future cancels it.
    ///
    /// # Errors
    /// As [`Self::file_sealer`] and [`FileSealer::seal_path_blocking`].
    pub async fn seal_file(
        &self,
        context: &[Field<'_>],
        source: impl AsRef<Path>,
        target: impl AsRef<Path>,
        options: FileOptions,
    ) -> Result<()> {
        let sealer = self.file_sealer(context).await?;
        sealer.seal_path(source.as_ref(), target.as_ref(), options).await.map_err(|e| self.explain(e, SEAL))
    }

    /// Opens the sealed file `source` into `target`, replacing what is there, whole or not at all; see
    /// [`FileOpener::open_path`]. Dropping the future cancels it.
    ///
    /// # Errors
    /// `Malformed` if `source` is no sealed file; as [`Self::file_opener`] and [`FileOpener::open_path_blocking`].
    pub async fn open_file(
        &self,
        context: &[Field<'_>],
        source: impl AsRef<Path>,
        target: impl AsRef<Path>,
        options: FileOptions,
    ) -> Result<()> {
        let (source, target) = (source.as_ref(), target.as_ref());
        let head = FileHead::read_path(source).await.map_err(|e| self.explain(e, OPEN))?;
        let opener = self.file_opener(context, &head).await?;
        opener.open_path(source, target, options).await.map_err(|e| self.explain(e, OPEN))
    }
}
