//! KEKs of the local KMS at rest under a root KEK: the operator's own, of any KMS.
//!
//! The file then holds wrapped keys alone. The root KEK wraps each version of each KEK by itself, told by the encryption
//! context which one it is, so that the root's own trail and policy name the tenants' KEKs one by one. All are unwrapped at
//! start and not at first use: a root KEK that is missing or denied shows at the start, where somebody looks, and an outage
//! of the root KMS later on stops no tenant.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use zeroize::Zeroizing;

use crate::crypto::aead::{Backend, Refused, TAG_LEN};
use crate::crypto::random;
use crate::crypto::secret::{DataKey, Secret};
use crate::crypto::xaes::{NONCE_LEN, XaesKey};
use crate::error::{Error, ErrorKind, Result};
use crate::key::encryption_context::EncryptionContext;
use crate::key::kek::KekUri;
use crate::key::region::Region;
use crate::kms::Kms;
use crate::kms::local::{HeldKey, Keks, LocalKms, Medium, check_root, in_hand, no_such_kek, take_brought_kek, uri};
use crate::kms::local_content::{Content, StoredImport, StoredKey, StoredTransport};
use crate::kms::local_file::KekFile;
use crate::kms::root::Root;

/// Most calls to the root KMS at once, at start.
const CALLS_AT_ONCE: usize = 16;

/// What the root KEK is told when it wraps a version of a KEK.
fn kek_context(name: &str, version: u32, region: &Region) -> Result<EncryptionContext> {
    let version = version.to_string();
    EncryptionContext::of_root("local-kek", &[("kek", name), ("version", &version), ("region", region.as_str())])
}

/// What the root KEK is told when it wraps the key that an import's private keys are sealed under.
fn import_context(id: &str, name: &str, region: &Region, expires_at: i64) -> Result<EncryptionContext> {
    let expires_at = expires_at.to_string();
    EncryptionContext::of_root(
        "local-kek-import",
        &[("kek", name), ("region", region.as_str()), ("import", id), ("expires-at", &expires_at)],
    )
}

/// What rests under the root.
impl Root {
    /// Says what the root KEK was wanted for; the source says why it did not.
    fn failed(&self, verb: &str, what: &str, source: Error) -> Error {
        let hint = match source.kind() {
            ErrorKind::Denied => {
                "; it must be enabled, its policy must let this process wrap and unwrap with it, and the KEK file must be \
                 as it was written"
            }
            _ => "",
        };
        Error::new(source.kind(), format!("the root KEK did not {verb} {what}{hint}"))
            .with_kek(self.kek().as_str())
            .with_source(source)
    }

    /// Wraps `key`, and unwraps it again: what cannot be unwrapped must never be all that is left of a key.
    async fn wrap(&self, what: &str, context: &EncryptionContext, key: &Secret<32>) -> Result<Arc<[u8]>> {
        let key = DataKey::of_kek(key)?;
        let wrapped = self.kms().wrap(self.kek(), context, &key).await.map_err(|e| self.failed("wrap", what, e))?;
        if !self.unwrap(what, context, &wrapped).await?.ct_eq(&key) {
            let message = format!("the root KEK wrapped {what} and unwrapped another key");
            return Err(Error::new(ErrorKind::KeyMismatch, message).with_kek(self.kek().as_str()));
        }
        Ok(wrapped.into())
    }

    async fn must_answer(&self) -> Result<()> {
        self.kms().describe(self.kek()).await.map(drop).map_err(|e| self.failed("answer for", "the KEK file", e))
    }

    async fn unwrap(&self, what: &str, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey> {
        self.kms().unwrap(self.kek(), context, wrapped).await.map_err(|e| self.failed("unwrap", what, e))
    }

    async fn wrap_kek(&self, name: &str, version: u32, region: &Region, key: Arc<Secret<32>>) -> Result<HeldKey> {
        let what = format!("version {version} of local:{name}");
        let wrapped = self.wrap(&what, &kek_context(name, version, region)?, &key).await?;
        Ok(HeldKey { key, wrapped: Some(wrapped) })
    }

    async fn unwrap_kek(&self, name: &str, version: u32, region: &Region, wrapped: Arc<[u8]>) -> Result<HeldKey> {
        let what = format!("version {version} of local:{name}");
        let key = self.unwrap(&what, &kek_context(name, version, region)?, &wrapped).await?;
        Ok(HeldKey { key: Arc::new(key.into_kek()), wrapped: Some(wrapped) })
    }

    /// Seals an import's private keys under a fresh key, which the root KEK wraps.
    async fn seal_import(&self, context: &EncryptionContext, private_keys: &[u8]) -> Result<StoredTransport> {
        let key = DataKey::random()?.into_kek();
        let wrapped = self.wrap("the wrapping keys of an import", context, &key).await?;
        let mut sealed = vec![0; NONCE_LEN + private_keys.len() + TAG_LEN];
        let refused = || Error::new(ErrorKind::Unavailable, "the cipher backend refused to seal");
        let (nonce, rest) = sealed.split_first_chunk_mut::<NONCE_LEN>().ok_or_else(refused)?;
        let (body, tag) = rest.split_last_chunk_mut::<TAG_LEN>().ok_or_else(refused)?;
        random::from_os(nonce)?;
        XaesKey::new(Backend::DEFAULT, &key)
            .seal_from(nonce, &context.to_bytes(), private_keys, body, tag)
            .map_err(|Refused| refused())?;
        Ok(StoredTransport::Wrapped { wrapped, sealed: sealed.into() })
    }

    async fn open_import(
        &self,
        context: &EncryptionContext,
        wrapped: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        let altered = || Error::new(ErrorKind::Denied, "the KEK file was altered: an import's keys do not open");
        let key = self.unwrap("the wrapping keys of an import", context, wrapped).await?.into_kek();
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(altered)?;
        let (body, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or_else(altered)?;
        let mut private_keys = Zeroizing::new(vec![0; body.len()]);
        XaesKey::new(Backend::DEFAULT, &key)
            .open_from(nonce, &context.to_bytes(), body, &mut private_keys, tag)
            .map_err(|Refused| altered())?;
        Ok(private_keys)
    }
}

/// An import as it rests under `root`, or bare without one.
pub(crate) async fn store_import(
    root: Option<&Root>,
    id: &str,
    (name, region, expires_at): (&str, &Region, i64),
    private_keys: Arc<Zeroizing<Vec<u8>>>,
) -> Result<StoredImport> {
    let key = match root {
        None => StoredTransport::Bare(private_keys),
        Some(root) => root.seal_import(&import_context(id, name, region, expires_at)?, &private_keys).await?,
    };
    Ok(StoredImport { name: name.to_owned(), region: region.clone(), expires_at, key })
}

/// Undoes [`store_import`].
pub(crate) async fn load_import(
    root: Option<&Root>,
    id: &str,
    import: &StoredImport,
) -> Result<Arc<Zeroizing<Vec<u8>>>> {
    match (&import.key, root) {
        (StoredTransport::Bare(key), _) => Ok(Arc::clone(key)),
        (StoredTransport::Wrapped { wrapped, sealed }, Some(root)) => {
            let context = import_context(id, &import.name, &import.region, import.expires_at)?;
            root.open_import(&context, wrapped, sealed).await.map(Arc::new)
        }
        (StoredTransport::Wrapped { .. }, None) => Err(Error::invalid("an import is wrapped and there is no root KEK")),
    }
}

impl LocalKms {
    /// Makes the file of a KMS whose KEKs rest under the operator's `root_kek`, a KEK of `root`, with no KEK in it yet: mode
    /// 0600. See [`Self::open_under`].
    ///
    /// # Errors
    /// `Conflict` if there is a file already; else as [`Self::open_under`].
    pub async fn create_under(path: impl AsRef<Path>, root: Arc<dyn Kms>, root_kek: KekUri) -> Result<Self> {
        let asked = Root::shared(Arc::clone(&root), root_kek.clone())?;
        asked.must_answer().await?;
        let empty = Content { root: Some(root_kek.clone()), ..Content::default() };
        KekFile::create(path.as_ref(), &empty)?;
        Self::open_under(path, root, root_kek).await
    }

    /// A KMS whose KEKs rest in a file that [`Self::create_under`] made, each wrapped under the operator's `root_kek`, a KEK of
    /// `root`. A file that holds no KEK yet is made one under that root. Every KEK is unwrapped now; later only a new one asks
    /// the root KMS. What another process changes in the file counts with the next call here, as for [`Self::open`].
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use std::sync::Arc;
    /// use strongroom::{LocalKms, Region};
    ///
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("keks.json");
    /// let operator = LocalKms::in_memory(); // in production: your own AWS KMS
    /// let region = Region::new("eu-central-1")?;
    /// let root_kek = operator.create_kek("root", region.clone())?;
    ///
    /// let kms = LocalKms::create_under(&path, Arc::new(operator), root_kek).await?; // once; then `open_under`
    /// kms.add_kek("acme-2026", region).await?;
    /// assert!(std::fs::read_to_string(&path).unwrap().contains(r#""wrapped""#));
    /// # Ok::<(), strongroom::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `Denied` if the root KEK refuses, or the file was altered; `Unavailable` or `Throttled` if its KMS does not answer, or
    /// the file cannot be read; `InvalidArgument` if there is no file, or it can be read by others, is not a KEK file, holds bare
    /// KEKs ([`Self::adopt_root`] wraps them) or rests under another root KEK; `RolledBack` if it lacks the newest version that a
    /// KEK had: restore its newest copy.
    pub async fn open_under(path: impl AsRef<Path>, root: Arc<dyn Kms>, root_kek: KekUri) -> Result<Self> {
        let root = Root::shared(root, root_kek)?;
        let file = KekFile::open(path.as_ref())?;
        let (mut content, version) = file.read()?;
        if content.root.is_none() && content.keks.is_empty() && content.imports.is_empty() {
            (content, ()) = file.change(|content| {
                if content.keks.is_empty() && content.imports.is_empty() {
                    content.root.get_or_insert_with(|| root.kek().clone());
                }
                Ok(())
            })?;
        }
        check_root(&content, Some(root.kek()))?;
        if content.keks.is_empty() {
            // With nothing to unwrap, a root KEK that is not there would show only when it is too late.
            root.must_answer().await?;
        }
        let keks = unwrap_all(&root, &content, &Keks::new()).await?;
        tracing::info!(path = %path.as_ref().display(), keks = keks.len(), root = %root.kek(), "KEKs rest under a root KEK");
        file.took(version);
        Ok(Self::with(keks, Medium::File(Arc::new(file)), Some(root)))
    }

    /// Wraps everything in the file under `root_kek`, a KEK of `root`, and returns the KMS to go on with: for a file of bare
    /// KEKs, and for moving to another root KEK. The file is replaced at once or not at all. This handle, its clones and
    /// other processes still wrap and unwrap, and refuse to change anything until they are opened under the new root.
    ///
    /// The bytes of the old file stay on the disk until the file system reuses them: where somebody might read that, rotate
    /// the KEKs that rested bare.
    ///
    /// # Errors
    /// As [`Self::open_under`]; `Conflict` if another process changed the file meanwhile: call it again; `InvalidArgument`
    /// for a KMS in memory, of which nothing rests.
    pub async fn adopt_root(&self, root: Arc<dyn Kms>, root_kek: KekUri) -> Result<Self> {
        let root = Arc::new(Root::shared(root, root_kek)?);
        if let Medium::Memory(_) = &*self.medium.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(Error::invalid("KEKs that live in memory alone do not rest under a root KEK"));
        }
        let before = self.content()?;
        let mut held = in_hand(&before, &self.write(), None);
        if let Some(old) = &self.root {
            held = unwrap_all(old, &before, &held).await?;
        }
        let root_kek = Some(root.kek().clone());
        let mut after = Content { root: root_kek, destroyed: before.destroyed.clone(), ..Content::default() };
        let mut keks = Keks::new();
        for (name, mut kek) in held {
            let mut stored = before.keks.get(&name).ok_or_else(|| no_such_kek(&name))?.clone();
            for (version, key) in &mut kek.versions {
                *key = root.wrap_kek(&name, *version, &kek.region, Arc::clone(&key.key)).await?;
                stored.versions.insert(*version, key.stored());
            }
            after.keks.insert(name.clone(), stored);
            keks.insert(name, kek);
        }
        for (id, import) in &before.imports {
            let private_keys = load_import(self.root.as_deref(), id, import).await?;
            let whose = (import.name.as_str(), &import.region, import.expires_at);
            after.imports.insert(id.clone(), store_import(Some(&root), id, whose, private_keys).await?);
        }
        // Not by `self.change`: this handle keeps the keys that it has in hand.
        let mut medium = self.medium.lock().unwrap_or_else(PoisonError::into_inner);
        medium.change(|content| {
            if !content.same_as(&before) {
                return Err(Error::new(ErrorKind::Conflict, "another process changed the KEK file meanwhile"));
            }
            *content = after;
            Ok(())
        })?;
        drop(medium);
        tracing::info!(keks = keks.len(), root = %root.kek(), "the KEK file was wrapped under a root KEK");
        Ok(Self {
            keks: Arc::new(RwLock::new(keks)),
            medium: Arc::clone(&self.medium),
            root: Some(root),
            file: self.file.clone(),
            fetching: Arc::default(),
        })
    }

    /// Creates a KEK from the operating system's randomness, and has the root KEK wrap it if there is one.
    ///
    /// # Errors
    /// `Conflict` if there is one of that name; `InvalidArgument` for a name that is not 1 to 64 of `A-Z a-z 0-9 . _ -`;
    /// else as [`Self::open_under`].
    pub async fn add_kek(&self, name: &str, region: Region) -> Result<KekUri> {
        self.add(name, region, Secret::filled_by(|into| random::from_os(into))?).await
    }

    /// Takes a raw 256-bit KEK that the tenant brought, wipes `raw`, whether it is accepted or not, and has the root KEK
    /// wrap it if there is one.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not 32 bytes long, its bytes are all equal, or all printable text; else as [`Self::add_kek`].
    pub async fn add_raw_kek(&self, name: &str, region: Region, raw: &mut [u8]) -> Result<KekUri> {
        self.add(name, region, take_brought_kek(raw)?).await
    }

    async fn add(&self, name: &str, region: Region, key: Secret<32>) -> Result<KekUri> {
        let uri = uri(name)?;
        // Known before the root KMS is asked, and checked again when it counts.
        let version = self.content()?.first_version(name)?;
        let held = self.at_rest(name, version, &region, key).await?;
        self.change(Some((name, version, &held)), |content| content.insert(name, region, version, held.stored()))?;
        Ok(uri)
    }

    /// `key` as it will rest.
    pub(crate) async fn at_rest(&self, name: &str, version: u32, region: &Region, key: Secret<32>) -> Result<HeldKey> {
        match &self.root {
            None => Ok(HeldKey::bare(key)),
            Some(root) => root.wrap_kek(name, version, region, Arc::new(key)).await,
        }
    }

    /// Gives a KEK a new version, as [`Self::rotate_kek`] does, and has the root KEK wrap it if there is one.
    ///
    /// # Errors
    /// `Denied` if there is no such KEK; `Conflict` if somebody else rotated it meanwhile; else as [`Self::open_under`].
    pub async fn add_version(&self, name: &str) -> Result<u32> {
        let mut content = self.content()?;
        let (kek, version) = content.next_version(name)?;
        let key = Secret::filled_by(|into| random::from_os(into))?;
        let held = self.at_rest(name, version, &kek.region, key).await?;
        self.change(Some((name, version, &held)), |content| {
            let (kek, next) = content.next_version(name)?;
            if next != version {
                return Err(Error::new(ErrorKind::Conflict, "somebody else rotated the KEK meanwhile"));
            }
            kek.add(version, held.stored());
            Ok(version)
        })
    }

    /// Reads the file again, as [`Self::reload`] does, and has the root KEK unwrap what another process added.
    ///
    /// # Errors
    /// As [`Self::open_under`]; the KEKs stay as they were.
    pub async fn refresh(&self) -> Result<()> {
        let mut failed = self.fetching.lock().await;
        let fetched = self.fetch_all().await;
        *failed = fetched.as_ref().err().map(|e| (Instant::now(), e.clone()));
        fetched
    }

    pub(crate) async fn fetch_all(&self) -> Result<()> {
        let Some(root) = &self.root else { return self.reload() };
        let content = self.content()?;
        let known = in_hand(&content, &self.write(), None);
        let all = unwrap_all(root, &content, &known).await?;
        *self.write() = all;
        self.reload() // for what changed while the root KMS was asked
    }
}

/// All KEKs of `content`: those not `known` are unwrapped.
async fn unwrap_all(root: &Root, content: &Content, known: &Keks) -> Result<Keks> {
    let mut keks = in_hand(content, known, None);
    let mut missing = Vec::new();
    for (name, kek) in &content.keks {
        for (version, key) in &kek.versions {
            let held = keks.get(name).is_some_and(|kek| kek.versions.contains_key(version));
            if let (StoredKey::Wrapped(wrapped), false) = (key, held) {
                missing.push((name.clone(), *version, kek.region.clone(), Arc::clone(wrapped)));
            }
        }
    }
    let calls = missing.into_iter().map(|(name, version, region, wrapped)| async move {
        let key = root.unwrap_kek(&name, version, &region, wrapped).await?;
        Ok::<_, Error>((name, version, key))
    });
    let mut unwrapped = stream::iter(calls).buffer_unordered(CALLS_AT_ONCE);
    while let Some((name, version, key)) = unwrapped.try_next().await? {
        if let Some(kek) = keks.get_mut(&name) {
            kek.versions.insert(version, key);
        }
    }
    Ok(keks)
}
