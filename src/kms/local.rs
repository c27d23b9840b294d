//! The local KMS: KEKs that this process holds, in a file or handed over by the embedder.
//!
//! For tenants who bring a raw key (BYOK), for development, and for tests. Data keys are wrapped with AES-256-GCM, the
//! encryption context as associated data (FORMAT.md, "The local KMS").

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use zeroize::Zeroize;

use crate::crypto::aead::{AeadKey, Algorithm, Backend, NONCE_LEN, Refused, TAG_LEN};
use crate::crypto::random;
use crate::crypto::secret::{DataKey, Secret, is_uniform};
use crate::error::{Error, ErrorKind, Result};
use crate::key::encryption_context::EncryptionContext;
use crate::key::kek::KekUri;
use crate::key::region::Region;
use crate::kms::local_file::KekFile;
use crate::kms::{KekDescription, Kms};

const SCHEME: &str = "local";
const LABEL: &[u8] = b"strongroom/v1/local-kms";
/// First byte of wrapped bytes.
const WRAPPED_VERSION: u8 = 1;
/// Most bytes of a local KEK's name.
const MAX_NAME: usize = 64;

/// One KEK with its versions; new data keys are wrapped under the newest.
pub(crate) struct LocalKek {
    pub(crate) region: Region,
    pub(crate) enabled: bool,
    pub(crate) versions: BTreeMap<u32, Secret<32>>,
}

pub(crate) type Keks = BTreeMap<String, LocalKek>;

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
    keks: Arc<RwLock<Keks>>,
    /// Held over a change of file and memory together, so that memory never falls behind the file.
    file: Option<Arc<Mutex<KekFile>>>,
}

impl LocalKms {
    /// A KMS whose KEKs live in memory alone. The embedder hands them over at each start.
    pub fn in_memory() -> Self {
        Self { keks: Arc::default(), file: None }
    }

    /// A KMS whose KEKs rest in a file, which is created if it does not exist: mode 0600, replaced atomically. The KEKs
    /// stand in it unencrypted, so the file is worth as much as everything sealed under them; the start says so in the log.
    ///
    /// # Errors
    /// `InvalidArgument` if the file can be read by others than its owner, or is not a KEK file, or holds a weak key;
    /// `Unavailable` if it cannot be read or created.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let file = KekFile::open(path.as_ref())?;
        let keks = file.read()?;
        tracing::warn!(path = %path.as_ref().display(), keks = keks.len(), "KEKs rest unencrypted in a file: protect it");
        Ok(Self { keks: Arc::new(RwLock::new(keks)), file: Some(Arc::new(Mutex::new(file))) })
    }

    /// Reads the file again, to see what another process changed. Nothing to do in memory.
    ///
    /// # Errors
    /// As [`Self::open`]; the KEKs stay as they were.
    pub fn reload(&self) -> Result<()> {
        if let Some(file) = &self.file {
            let file = file.lock().unwrap_or_else(PoisonError::into_inner);
            let keks = file.read()?;
            *self.write() = keks;
        }
        Ok(())
    }

    /// Creates a KEK from the operating system's randomness.
    ///
    /// # Errors
    /// `Conflict` if there is one of that name; `InvalidArgument` for a name that is not 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub fn create_kek(&self, name: &str, region: Region) -> Result<KekUri> {
        self.add(name, region, Secret::filled_by(|into| random::from_os(into))?)
    }

    /// Takes a raw 256-bit KEK that the tenant brought, and wipes `raw`, whether it is accepted or not.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not 32 bytes long or its bytes are all equal; else as [`Self::create_kek`].
    pub fn import_kek(&self, name: &str, region: Region, raw: &mut [u8]) -> Result<KekUri> {
        self.add(name, region, take_kek(raw)?)
    }

    fn add(&self, name: &str, region: Region, key: Secret<32>) -> Result<KekUri> {
        let uri = uri(name)?;
        self.change(|keks| {
            if keks.contains_key(name) {
                return Err(Error::new(ErrorKind::Conflict, "there is a KEK of that name").with_kek(uri.as_str()));
            }
            let versions = BTreeMap::from([(1, key)]);
            keks.insert(name.to_owned(), LocalKek { region, enabled: true, versions });
            Ok(())
        })?;
        Ok(uri)
    }

    /// Gives a KEK a new version from the operating system's randomness and returns its number. New data keys are wrapped
    /// under it; what older versions wrapped still unwraps.
    ///
    /// # Errors
    /// `Denied` if there is no such KEK.
    pub fn rotate_kek(&self, name: &str) -> Result<u32> {
        let key = Secret::filled_by(|into| random::from_os(into))?;
        let mut made = 0;
        self.change_kek(name, |kek| {
            let newest = kek.versions.last_key_value().map_or(0, |(version, _)| *version);
            made = newest.checked_add(1).ok_or_else(|| Error::limit("the KEK has 2^32 versions"))?;
            kek.versions.insert(made, key);
            Ok(())
        })?;
        Ok(made)
    }

    /// Makes a KEK refuse to wrap and unwrap.
    ///
    /// # Errors
    /// `Denied` if there is no such KEK.
    pub fn disable_kek(&self, name: &str) -> Result<()> {
        self.change_kek(name, |kek| {
            kek.enabled = false;
            Ok(())
        })
    }

    /// Undoes [`Self::disable_kek`].
    ///
    /// # Errors
    /// `Denied` if there is no such KEK.
    pub fn enable_kek(&self, name: &str) -> Result<()> {
        self.change_kek(name, |kek| {
            kek.enabled = true;
            Ok(())
        })
    }

    fn change_kek(&self, name: &str, change: impl FnOnce(&mut LocalKek) -> Result<()>) -> Result<()> {
        self.change(|keks| change(keks.get_mut(name).ok_or_else(|| no_such_kek(name))?))
    }

    /// Changes the KEKs: first in the file, under its lock and from its present content, then in memory.
    fn change(&self, change: impl FnOnce(&mut Keks) -> Result<()>) -> Result<()> {
        match &self.file {
            None => change(&mut self.write()),
            Some(file) => {
                let file = file.lock().unwrap_or_else(PoisonError::into_inner);
                let changed = file.change(change)?;
                *self.write() = changed;
                Ok(())
            }
        }
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Keks> {
        self.keks.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on an enabled KEK. The lock is never held across an await: `work` is synchronous.
    fn with_enabled<T>(&self, kek: &KekUri, work: impl FnOnce(&LocalKek) -> Result<T>) -> Result<T> {
        let keks = self.keks.read().unwrap_or_else(PoisonError::into_inner);
        let found = keks.get(kek.name()).ok_or_else(|| no_such_kek(kek.name()))?;
        if !found.enabled {
            return Err(Error::new(ErrorKind::Denied, "the KEK is disabled; its owner can enable it"));
        }
        work(found)
    }
}

fn uri(name: &str) -> Result<KekUri> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(good) {
        return Err(Error::invalid("a local KEK's name has 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'"));
    }
    KekUri::new(&format!("{SCHEME}:{name}"))
}

fn no_such_kek(name: &str) -> Error {
    Error::new(ErrorKind::Denied, "the local KMS has no such KEK; create or import it")
        .with_kek(&format!("{SCHEME}:{name}"))
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

/// `"strongroom/v1/local-kms" || name length 1 || KEK name || KEK version 4 || canonical encryption context`
fn associated_data(kek: &KekUri, version: u32, context: &EncryptionContext) -> Result<Vec<u8>> {
    let name = kek.name().as_bytes();
    let len = u8::try_from(name.len()).map_err(|_| no_such_kek(kek.name()))?;
    Ok([LABEL, &[len], name, &version.to_be_bytes(), &context.to_bytes()].concat())
}

fn aead(key: &Secret<32>) -> Result<AeadKey> {
    AeadKey::new(Backend::DEFAULT, Algorithm::Aes256Gcm, key.expose())
        .map_err(|Refused| Error::new(ErrorKind::Unavailable, "the cipher backend could not expand the KEK"))
}

fn not_wrapped_here() -> Error {
    Error::new(ErrorKind::Denied, "the wrapped key does not unwrap under this KEK with this tenant, region and scope")
}

#[async_trait]
impl Kms for LocalKms {
    fn scheme(&self) -> &str {
        SCHEME
    }

    async fn describe(&self, kek: &KekUri) -> Result<KekDescription> {
        let keks = self.keks.read().unwrap_or_else(PoisonError::into_inner);
        let found = keks.get(kek.name()).ok_or_else(|| no_such_kek(kek.name()))?;
        let newest = found.versions.last_key_value().map_or(0, |(version, _)| *version);
        Ok(KekDescription { region: found.region.clone(), enabled: found.enabled, version: newest.to_string() })
    }

    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, data_key: &DataKey) -> Result<Vec<u8>> {
        self.with_enabled(kek, |found| {
            let (version, key) = found.versions.last_key_value().ok_or_else(|| no_such_kek(kek.name()))?;
            let mut nonce = [0; NONCE_LEN];
            random::from_os(&mut nonce)?;
            let mut body = *data_key.expose();
            let tag = aead(key)?.seal(&nonce, &associated_data(kek, *version, context)?, &mut body);
            let Ok(tag) = tag else {
                body.zeroize();
                return Err(Error::new(ErrorKind::Unavailable, "the cipher backend refused to wrap"));
            };
            Ok([&[WRAPPED_VERSION][..], &version.to_be_bytes(), &nonce, &body, &tag].concat())
        })
    }

    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey> {
        let parsed = Wrapped::parse(wrapped).ok_or_else(not_wrapped_here)?;
        self.with_enabled(kek, |found| {
            let key = found.versions.get(&parsed.version).ok_or_else(not_wrapped_here)?;
            let mut body = parsed.body;
            aead(key)?
                .open(&parsed.nonce, &associated_data(kek, parsed.version, context)?, &mut body, &parsed.tag)
                .map_err(|Refused| not_wrapped_here())?;
            DataKey::take(&mut body)
        })
    }
}

/// `0x01 || KEK version 4 || nonce 12 || ciphertext 32 || tag 16`
struct Wrapped {
    version: u32,
    nonce: [u8; NONCE_LEN],
    body: [u8; DataKey::LEN],
    tag: [u8; TAG_LEN],
}

impl Wrapped {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&[WRAPPED_VERSION])?;
        let (version, rest) = rest.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let (body, tag) = rest.split_first_chunk()?;
        Some(Self { version: u32::from_be_bytes(*version), nonce: *nonce, body: *body, tag: tag.try_into().ok()? })
    }
}
