//! The local KMS: KEKs that this process holds, in a file or handed over by the embedder.
//!
//! For tenants who bring their key (BYOK), for development, and for tests. `local_wrapping` wraps data keys, `local_content`
//! and `local_file` say how KEKs rest, `local_lookup` finds a key, also one that another process made, `local_under_root` keeps
//! KEKs under a root KEK, `local_import` takes in a tenant's key.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use async_trait::async_trait;
use zeroize::Zeroize;

use crate::crypto::random;
use crate::crypto::secret::{DataKey, Secret, is_uniform};
use crate::error::{Error, ErrorKind, Result};
use crate::key::encryption_context::EncryptionContext;
use crate::key::kek::KekUri;
use crate::key::region::Region;
use crate::kms::local_content::{Content, StoredKek, StoredKey};
use crate::kms::local_file::KekFile;
use crate::kms::local_wrapping::{self, Wrapped};
use crate::kms::root::Root;
use crate::kms::{KekDescription, Kms};

const SCHEME: &str = "local";
/// Most bytes of a local KEK's name.
const MAX_NAME: usize = 64;

/// One KEK with the versions in hand; new data keys are wrapped under the newest.
pub(crate) struct LocalKek {
    pub(crate) region: Region,
    pub(crate) enabled: bool,
    /// The newest that rests, in hand or not.
    pub(crate) newest: u32,
    pub(crate) versions: BTreeMap<u32, HeldKey>,
}

/// A key in hand. Clones share it.
#[derive(Clone)]
pub(crate) struct HeldKey {
    pub(crate) key: Arc<Secret<32>>,
    /// As it rests, if it rests wrapped under a root KEK.
    pub(crate) wrapped: Option<Arc<[u8]>>,
}

impl HeldKey {
    pub(crate) fn bare(key: Secret<32>) -> Self {
        Self { key: Arc::new(key), wrapped: None }
    }

    pub(crate) fn stored(&self) -> StoredKey {
        match &self.wrapped {
            None => StoredKey::Bare(Arc::clone(&self.key)),
            Some(wrapped) => StoredKey::Wrapped(Arc::clone(wrapped)),
        }
    }
}

pub(crate) type Keks = BTreeMap<String, LocalKek>;

/// A key just made, and whose it is.
pub(crate) type Fresh<'a> = (&'a str, u32, &'a HeldKey);

/// What of `content` can be used at once: bare keys, wrapped ones that `known` has in hand already, and `fresh`.
pub(crate) fn in_hand(content: &Content, known: &Keks, fresh: Option<Fresh<'_>>) -> Keks {
    let find = |name: &str, version: u32, wrapped: &Arc<[u8]>| {
        let known = known.get(name).and_then(|kek| kek.versions.get(&version));
        let fresh = fresh.filter(|(n, v, _)| *n == name && *v == version).map(|(_, _, key)| key);
        known.into_iter().chain(fresh).find(|key| key.wrapped.as_ref() == Some(wrapped)).cloned()
    };
    let mut keks = Keks::new();
    for (name, StoredKek { region, enabled, newest, versions }) in &content.keks {
        let held = versions.iter().filter_map(|(version, key)| match key {
            StoredKey::Bare(key) => Some((*version, HeldKey { key: Arc::clone(key), wrapped: None })),
            StoredKey::Wrapped(wrapped) => Some((*version, find(name, *version, wrapped)?)),
        });
        let kek = LocalKek { region: region.clone(), enabled: *enabled, newest: *newest, versions: held.collect() };
        keks.insert(name.clone(), kek);
    }
    keks
}

/// Where the content of a local KMS is.
pub(crate) enum Medium {
    Memory(Content),
    File(Arc<KekFile>),
}

impl Medium {
    pub(crate) fn read(&self) -> Result<Content> {
        match self {
            Self::Memory(content) => Ok(content.clone()),
            Self::File(file) => file.read().map(|(content, _)| content),
        }
    }

    /// Applies `change` whole or not at all, and returns what is there then.
    pub(crate) fn change<T>(&mut self, change: impl FnOnce(&mut Content) -> Result<T>) -> Result<(Content, T)> {
        match self {
            Self::Memory(content) => {
                let mut next = content.clone();
                let made = change(&mut next)?;
                *content = next.clone();
                Ok((next, made))
            }
            Self::File(file) => file.change(change),
        }
    }
}

/// A KMS inside this process: `local:NAME`.
///
/// There is no default key: a KEK exists only if it was created or handed over here. Cloning gives another handle to the
/// same KEKs.
///
/// ```
/// use strongroom::{LocalKms, Region};
///
/// let kms = LocalKms::in_memory();
/// let mut raw = [0_u8; 32]; // what a customer brought
/// raw.iter_mut().zip(1..).for_each(|(byte, n)| *byte = n);
/// let kek = kms.import_kek("acme-2026", Region::new("eu-central-1")?, &mut raw)?;
/// assert_eq!(kek.as_str(), "local:acme-2026");
/// assert_eq!(raw, [0; 32]); // wiped
/// # Ok::<(), strongroom::Error>(())
/// ```
#[derive(Clone)]
pub struct LocalKms {
    pub(crate) keks: Arc<RwLock<Keks>>,
    /// Held over a change of medium and memory together, so that memory never falls behind.
    pub(crate) medium: Arc<Mutex<Medium>>,
    pub(crate) root: Option<Arc<Root>>,
    /// That of `medium`, to be looked at without waiting for who changes it.
    pub(crate) file: Option<Arc<KekFile>>,
    /// Lets one caller ask the root KEK for what another process made, and keeps the last failure for a moment.
    pub(crate) fetching: Arc<tokio::sync::Mutex<Option<Failed>>>,
}

/// Since when, and why.
pub(crate) type Failed = (Instant, Error);

impl LocalKms {
    /// A KMS whose KEKs live in memory alone. The embedder hands them over at each start.
    pub fn in_memory() -> Self {
        Self::with(Keks::new(), Medium::Memory(Content::default()), None)
    }

    pub(crate) fn with(keks: Keks, medium: Medium, root: Option<Root>) -> Self {
        let file = match &medium {
            Medium::Memory(_) => None,
            Medium::File(file) => Some(Arc::clone(file)),
        };
        Self {
            keks: Arc::new(RwLock::new(keks)),
            medium: Arc::new(Mutex::new(medium)),
            root: root.map(Arc::new),
            file,
            fetching: Arc::default(),
        }
    }

    /// Makes the file of a KMS whose KEKs rest in one, with no KEK in it yet: mode 0600. See [`Self::open`].
    ///
    /// # Errors
    /// `Conflict` if there is a file already; `Io` or `Unavailable` if it cannot be written.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        KekFile::create(path.as_ref(), &Content::default())?;
        Self::open(path)
    }

    /// A KMS whose KEKs rest in a file that [`Self::create`] made; it is replaced atomically. The KEKs stand in it
    /// unencrypted, so the file is worth as much as everything sealed under them; the start says so in the log. That is for
    /// development; [`LocalKms::open_under`] is for production.
    ///
    /// What another process changes in the file counts with the next call here. While the file does not read, calls go on with
    /// the KEKs as they were.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no file, it can be read by others than its owner, or is not a KEK file, or holds a weak
    /// key, or rests under a root KEK; `RolledBack` if it lacks the newest version that a KEK had: restore its newest copy; `Io` or `Unavailable` if it cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let file = KekFile::open(path.as_ref())?;
        let (content, version) = file.read()?;
        check_root(&content, None)?;
        let keks = in_hand(&content, &Keks::new(), None);
        file.took(version);
        tracing::warn!(path = %path.as_ref().display(), keks = keks.len(), "KEKs rest unencrypted in a file: protect it");
        Ok(Self::with(keks, Medium::File(Arc::new(file)), None))
    }

    /// Reads the file again, to see what another process changed, as each call does by itself if the file was replaced.
    /// Nothing to do in memory. Under a root KEK, keys that another process added are unwrapped when they are needed, or by
    /// [`LocalKms::refresh`].
    ///
    /// # Errors
    /// As [`Self::open`]; the KEKs stay as they were.
    pub fn reload(&self) -> Result<()> {
        let medium = self.medium.lock().unwrap_or_else(PoisonError::into_inner);
        self.take_over(&medium)
    }

    pub(crate) fn take_over(&self, medium: &Medium) -> Result<()> {
        let Medium::File(file) = medium else { return Ok(()) };
        let (content, version) = file.read()?;
        self.check(&content)?;
        let mut keks = self.write();
        *keks = in_hand(&content, &keks, None);
        file.took(version);
        Ok(())
    }

    /// Creates a KEK from the operating system's randomness. Not under a root KEK, which has to be asked: there,
    /// [`LocalKms::add_kek`].
    ///
    /// # Errors
    /// `Conflict` if there is one of that name; `InvalidArgument` for a name that is not 1 to 64 of `A-Z a-z 0-9 . _ -`,
    /// or if this KMS rests under a root KEK.
    pub fn create_kek(&self, name: &str, region: Region) -> Result<KekUri> {
        self.add_bare(name, region, Secret::filled_by(|into| random::from_os(into))?)
    }

    /// Takes a raw 256-bit KEK that the tenant brought, and wipes `raw`, whether it is accepted or not. Not under a root
    /// KEK: there, [`LocalKms::add_raw_kek`]. An import (feature `byok`) takes a KEK without its raw bytes ever being sent.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not 32 bytes long, its bytes are all equal, or all printable text; else as
    /// [`Self::create_kek`].
    pub fn import_kek(&self, name: &str, region: Region, raw: &mut [u8]) -> Result<KekUri> {
        self.add_bare(name, region, take_brought_kek(raw)?)
    }

    fn add_bare(&self, name: &str, region: Region, key: Secret<32>) -> Result<KekUri> {
        let uri = uri(name)?;
        self.must_be_bare("add_kek or add_raw_kek")?;
        let key = HeldKey::bare(key);
        self.change(None, |content| content.insert(name, region, content.first_version(name)?, key.stored()))?;
        Ok(uri)
    }

    /// Gives a KEK a new version from the operating system's randomness and returns its number. New data keys are wrapped
    /// under it; what older versions wrapped still unwraps. Not under a root KEK: there, [`LocalKms::add_version`].
    ///
    /// # Errors
    /// `Denied` if there is no such KEK; `InvalidArgument` if this KMS rests under a root KEK.
    pub fn rotate_kek(&self, name: &str) -> Result<u32> {
        self.must_be_bare("add_version")?;
        let key = HeldKey::bare(Secret::filled_by(|into| random::from_os(into))?);
        self.change(None, |content| {
            let (kek, version) = content.next_version(name)?;
            kek.add(version, key.stored());
            Ok(version)
        })
    }

    fn must_be_bare(&self, instead: &str) -> Result<()> {
        match &self.root {
            None => Ok(()),
            Some(root) => Err(Error::invalid(format!(
                "these KEKs rest under a root KEK, which has to be asked for each new one: await {instead} instead"
            ))
            .with_kek(root.kek().as_str())),
        }
    }

    /// Makes a KEK refuse to wrap and unwrap.
    ///
    /// # Errors
    /// `Denied` if there is no such KEK.
    pub fn disable_kek(&self, name: &str) -> Result<()> {
        self.change_kek(name, |kek| kek.enabled = false)
    }

    /// Undoes [`Self::disable_kek`].
    ///
    /// # Errors
    /// `Denied` if there is no such KEK.
    pub fn enable_kek(&self, name: &str) -> Result<()> {
        self.change_kek(name, |kek| kek.enabled = true)
    }

    /// Destroys a KEK with all its versions. What it wrapped never unwraps again, once no copy of the file is left: the bytes of
    /// the old file stay on the disk until the file system reuses them, and in backups. It has to be disabled before, so that
    /// who still needs it shows while it can be enabled again. Its name and the number of its newest version stay: a KEK that is
    /// made under that name later goes on counting there.
    ///
    /// # Errors
    /// `Denied` if there is no such KEK; `InvalidArgument` if it is enabled.
    pub fn destroy_kek(&self, name: &str) -> Result<()> {
        self.change(None, |content| {
            if content.keks.get(name).ok_or_else(|| no_such_kek(name))?.enabled {
                let message = "the KEK is enabled: disable it, and destroy it when nobody misses it";
                return Err(Error::invalid(message).with_kek(&format!("{SCHEME}:{name}")));
            }
            content.destroy(name);
            Ok(())
        })?;
        tracing::warn!(kek = name, "KEK destroyed");
        Ok(())
    }

    /// Destroys one version of a KEK, as [`Self::destroy_kek`] does the whole: after a rewrap under a newer one. The newest
    /// version stays, so that no number is given out twice.
    ///
    /// # Errors
    /// `Denied` if there is no such KEK or version; `InvalidArgument` if it is the newest.
    pub fn destroy_version(&self, name: &str, version: u32) -> Result<()> {
        self.change_kek_if(name, |kek| {
            if kek.newest == version {
                return Err(Error::invalid(
                    "the newest version of a KEK is not destroyed by itself: rotate the KEK before",
                ));
            }
            match kek.versions.remove(&version) {
                Some(_) => Ok(()),
                None => Err(Error::new(ErrorKind::Denied, "the KEK has no such version")),
            }
        })?;
        tracing::warn!(kek = name, version, "version of a KEK destroyed");
        Ok(())
    }

    fn change_kek(&self, name: &str, change: impl FnOnce(&mut StoredKek)) -> Result<()> {
        self.change_kek_if(name, |kek| {
            change(kek);
            Ok(())
        })
    }

    fn change_kek_if(&self, name: &str, change: impl FnOnce(&mut StoredKek) -> Result<()>) -> Result<()> {
        self.change(None, |content| {
            let done = change(content.keks.get_mut(name).ok_or_else(|| no_such_kek(name))?);
            done.map_err(|e| e.with_kek(&format!("{SCHEME}:{name}")))
        })
    }

    /// Changes the content: first where it rests, under a lock and from what is there at present, then in memory.
    pub(crate) fn change<T>(
        &self,
        fresh: Option<Fresh<'_>>,
        change: impl FnOnce(&mut Content) -> Result<T>,
    ) -> Result<T> {
        let mut medium = self.medium.lock().unwrap_or_else(PoisonError::into_inner);
        let (content, made) = medium.change(|content| {
            self.check(content)?;
            change(content)
        })?;
        let mut keks = self.write();
        *keks = in_hand(&content, &keks, fresh);
        Ok(made)
    }

    /// What rests at present.
    pub(crate) fn content(&self) -> Result<Content> {
        let content = self.medium.lock().unwrap_or_else(PoisonError::into_inner).read()?;
        self.check(&content)?;
        Ok(content)
    }

    /// # Errors
    /// `InvalidArgument` if `content` does not rest as here; `RolledBack` if it is older than what is in hand of it.
    fn check(&self, content: &Content) -> Result<()> {
        check_root(content, self.root_uri())?;
        let Some(file) = &self.file else { return Ok(()) };
        let keks = self.keks.read().unwrap_or_else(PoisonError::into_inner);
        for (name, kek) in keks.iter() {
            let present = content.keks.get(name).map(|present| present.newest);
            let newest = present.or_else(|| content.destroyed.get(name).copied());
            if newest.is_some_and(|newest| newest < kek.newest) {
                return Err(file.older(name, &format!("lacks version {} of this KEK, which is in use", kek.newest)));
            }
        }
        Ok(())
    }

    pub(crate) fn root_uri(&self) -> Option<&KekUri> {
        self.root.as_ref().map(|root| root.kek())
    }

    fn description(&self, kek: &KekUri) -> Option<KekDescription> {
        let keks = self.keks.read().unwrap_or_else(PoisonError::into_inner);
        let found = keks.get(kek.name())?;
        let (region, version) = (found.region.clone(), found.newest.to_string());
        Some(KekDescription { region, enabled: found.enabled, version, symmetric: true })
    }

    pub(crate) fn write(&self) -> std::sync::RwLockWriteGuard<'_, Keks> {
        self.keks.write().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn uri(name: &str) -> Result<KekUri> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(good) {
        return Err(Error::invalid("a local KEK's name has 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'"));
    }
    KekUri::new(&format!("{SCHEME}:{name}"))
}

pub(crate) fn no_such_kek(name: &str) -> Error {
    Error::new(ErrorKind::Denied, "the local KMS has no such KEK; create or import it")
        .with_kek(&format!("{SCHEME}:{name}"))
}

/// # Errors
/// `InvalidArgument` if `content` does not rest as `expected`.
pub(crate) fn check_root(content: &Content, expected: Option<&KekUri>) -> Result<()> {
    match (&content.root, expected) {
        (found, expected) if found.as_ref() == expected => Ok(()),
        (Some(found), None) => {
            Err(Error::invalid("the KEK file rests under a root KEK: open it with LocalKms::open_under")
                .with_kek(found.as_str()))
        }
        (Some(found), Some(_)) => {
            Err(Error::invalid("the KEK file rests under another root KEK: open it under this one")
                .with_kek(found.as_str()))
        }
        (None, _) => Err(Error::invalid(
            "the KEKs in the file rest unencrypted: LocalKms::open it and await adopt_root to wrap them",
        )),
    }
}

/// Takes a raw KEK that somebody brought. One of 32 printable characters is text that was to be decoded: as hexadecimal it
/// has half the bits. (Of random keys one in 10^13 looks like it.)
pub(crate) fn take_brought_kek(raw: &mut [u8]) -> Result<Secret<32>> {
    if raw.len() == 32 && raw.iter().fold(true, |all, b| all & (b' '..=b'~').contains(b)) {
        raw.zeroize();
        return Err(Error::invalid(
            "32 printable characters are text and no KEK: decode it to the 32 bytes it stands for",
        ));
    }
    take_kek(raw)
}

/// Takes a raw KEK and wipes its source.
pub(crate) fn take_kek(raw: &mut [u8]) -> Result<Secret<32>> {
    let uniform = is_uniform(raw);
    let taken = match <&mut [u8; 32]>::try_from(&mut *raw) {
        Ok(bytes) if !uniform => Ok(Secret::take(bytes)),
        Ok(_) => Err(Error::invalid("a KEK whose bytes are all equal is no key")),
        Err(_) => Err(Error::invalid("a KEK has exactly 32 bytes")),
    };
    raw.zeroize();
    taken
}

#[async_trait]
impl Kms for LocalKms {
    fn scheme(&self) -> &str {
        SCHEME
    }

    async fn describe(&self, kek: &KekUri) -> Result<KekDescription> {
        let looked = self.look();
        if let Some(description) = self.description(kek) {
            return Ok(description);
        }
        self.wait_for(looked?).await?;
        self.description(kek).ok_or_else(|| no_such_kek(kek.name()))
    }

    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, data_key: &DataKey) -> Result<Vec<u8>> {
        let (version, held) = self.key(kek, None).await?;
        local_wrapping::wrap(kek, version, &held.key, context, data_key)
    }

    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey> {
        let parsed = Wrapped::parse(wrapped)?;
        let (_, held) = self.key(kek, Some(parsed.version)).await?;
        parsed.unwrap(kek, &held.key, context)
    }

    /// Between KEKs of this KMS. The data key is in plaintext only inside this call.
    async fn rewrap(
        &self,
        from: &KekUri,
        to: &KekUri,
        context: &EncryptionContext,
        wrapped: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        if from.scheme() != SCHEME || to.scheme() != SCHEME {
            return Ok(None);
        }
        let data_key = self.unwrap(from, context, wrapped).await?;
        self.wrap(to, context, &data_key).await.map(Some)
    }
}
