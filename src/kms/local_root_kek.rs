//! The operator's root on one machine: a KEK of several versions in a file of its own (FORMAT.md, "The local root").

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::crypto::random;
use crate::crypto::secret::{DataKey, Secret};
use crate::error::{Error, ErrorKind, Result};
use crate::key::encryption_context::EncryptionContext;
use crate::key::kek::KekUri;
use crate::key::region::Region;
use crate::kms::local::take_kek;
use crate::kms::local_wrapping::{self, Wrapped, not_wrapped_here};
use crate::kms::root::Root;
use crate::kms::{KekDescription, Kms};
use crate::shared_file::SharedFile;

const SCHEME: &str = "local-root";
const NAME: &str = "root";
const FORMAT: u32 = 1;
/// Some ten thousand versions: no root has as many.
const MAX_FILE: u64 = 1 << 20;

type Versions = BTreeMap<u32, Arc<Secret<32>>>;

/// The operator's root for one machine: one KEK, `local-root:root`, in a file of its own or in memory. It serves as a
/// [`Root`] and as nothing else: a room takes no tenant's KEK of this scheme.
///
/// Who has the file can write rows that the room believes, so keep it apart from the key store and from the key store's backups;
/// who loses it loses the room. Whoever is able to, uses a KEK in a KMS or HSM instead. Cloning gives another handle to the same root.
///
/// ```
/// use strongroom::LocalRoot;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("root.json");
/// let root = LocalRoot::create(&path)?; // once
/// let same = LocalRoot::open(&path)?; // at each start
/// assert_eq!(same.kek().as_str(), "local-root:root");
/// # Ok::<(), strongroom::Error>(())
/// ```
#[derive(Clone)]
pub struct LocalRoot(Arc<Inner>);

struct Inner {
    kek: KekUri,
    region: Region,
    /// The newest one wraps.
    versions: RwLock<Versions>,
    file: Option<SharedFile>,
}

impl LocalRoot {
    /// Makes a new root and its file: mode 0600, written whole or not at all.
    ///
    /// # Errors
    /// `Conflict` if there is a file already; `Io` or `Unavailable` if it cannot be written.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let file = shared(path.as_ref())?;
        let locked = file.lock()?;
        if locked.exists()? {
            let message = format!("there is a file at {}: open it, or name another path", file.path().display());
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let versions = Versions::from([(1, fresh()?)]);
        locked.replace(&encode(&versions)?)?;
        drop(locked);
        Self::with(versions, Some(file))
    }

    /// Opens a root that [`Self::create`] made.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no file, or others than its owner can read it; `Malformed` if it is not the file of a root;
    /// `RolledBack` if it lacks the newest version that the root had: restore its newest copy;
    /// `Io` or `Unavailable` if it cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let file = shared(path.as_ref())?;
        file.tidy();
        Self::with(read(&file)?, Some(file))
    }

    /// A new root that ends with this process, and with it all that it wrapped. For tests.
    ///
    /// # Errors
    /// `Unavailable` if the operating system gives no randomness.
    pub fn in_memory() -> Result<Self> {
        Self::with(Versions::from([(1, fresh()?)]), None)
    }

    fn with(versions: Versions, file: Option<SharedFile>) -> Result<Self> {
        let kek = KekUri::new(&format!("{SCHEME}:{NAME}"))?;
        let inner = Inner { kek, region: Region::new("local")?, versions: RwLock::new(versions), file };
        Ok(Self(Arc::new(inner)))
    }

    /// Its one KEK, `local-root:root`.
    pub fn kek(&self) -> KekUri {
        self.0.kek.clone()
    }

    /// Adds a version and returns its number. From now on it wraps; what older versions wrapped still unwraps. Other handles
    /// and processes unwrap with it when they meet it, and wrap with it from then on.
    ///
    /// # Errors
    /// As [`Self::open`]; then the root is as it was.
    pub fn rotate(&self) -> Result<u32> {
        let Some(file) = &self.0.file else {
            let mut versions = self.0.versions.write().unwrap_or_else(PoisonError::into_inner);
            return add_version(&mut versions);
        };
        let locked = file.lock()?;
        let mut versions = read(file)?;
        let in_use = self.newest()?.0;
        if newest_of(&versions) < in_use {
            return Err(lacks_newest(file, in_use));
        }
        let newest = add_version(&mut versions)?;
        locked.replace(&encode(&versions)?)?;
        self.take(versions);
        Ok(newest)
    }

    /// Versions only ever come to it, so the longer list is the later one.
    fn take(&self, versions: Versions) {
        let mut held = self.0.versions.write().unwrap_or_else(PoisonError::into_inner);
        if versions.len() > held.len() {
            *held = versions;
        }
    }

    fn version(&self, version: u32) -> Option<Arc<Secret<32>>> {
        self.0.versions.read().unwrap_or_else(PoisonError::into_inner).get(&version).cloned()
    }

    fn newest(&self) -> Result<(u32, Arc<Secret<32>>)> {
        let versions = self.0.versions.read().unwrap_or_else(PoisonError::into_inner);
        let newest = versions.last_key_value().map(|(version, key)| (*version, Arc::clone(key)));
        newest.ok_or_else(|| self.no_such_kek(&self.0.kek))
    }

    /// Reads the file again, for a version that another process added.
    async fn reload(&self) -> Result<()> {
        let root = self.clone();
        let read = tokio::task::spawn_blocking(move || root.0.file.as_ref().map(read).transpose());
        let read = read.await.map_err(|e| {
            Error::new(ErrorKind::Unavailable, "the reading of the local root's file ended early").with_source(e)
        })?;
        if let Some(versions) = read? {
            self.take(versions);
        }
        Ok(())
    }

    fn must_be_mine(&self, kek: &KekUri) -> Result<()> {
        if *kek == self.0.kek { Ok(()) } else { Err(self.no_such_kek(kek)) }
    }

    fn no_such_kek(&self, kek: &KekUri) -> Error {
        Error::new(ErrorKind::Denied, format!("the local root has no other KEK than {}", self.0.kek))
            .with_kek(kek.as_str())
    }
}

impl From<LocalRoot> for Root {
    fn from(root: LocalRoot) -> Self {
        let kek = root.kek();
        Self::of(root, kek)
    }
}

impl fmt::Debug for LocalRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.0.file.as_ref().map(SharedFile::path);
        f.debug_struct("LocalRoot").field("kek", &self.0.kek).field("path", &path).finish_non_exhaustive()
    }
}

#[async_trait]
impl Kms for LocalRoot {
    fn scheme(&self) -> &'static str {
        SCHEME
    }

    /// Its region is `local`: it is wherever this machine is.
    async fn describe(&self, kek: &KekUri) -> Result<KekDescription> {
        self.must_be_mine(kek)?;
        let (version, _) = self.newest()?;
        Ok(KekDescription {
            region: self.0.region.clone(),
            enabled: true,
            version: version.to_string(),
            symmetric: true,
        })
    }

    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, data_key: &DataKey) -> Result<Vec<u8>> {
        self.must_be_mine(kek)?;
        let (version, key) = self.newest()?;
        local_wrapping::wrap(kek, version, &key, context, data_key)
    }

    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey> {
        self.must_be_mine(kek)?;
        let wrapped = Wrapped::parse(wrapped)?;
        let mut held = self.version(wrapped.version);
        if held.is_none() {
            self.reload().await?;
            held = self.version(wrapped.version);
        }
        let key = held.ok_or_else(not_wrapped_here)?;
        wrapped.unwrap(kek, &key, context)
    }
}

fn shared(path: &Path) -> Result<SharedFile> {
    SharedFile::new(path, "the local root's file")
}

fn fresh() -> Result<Arc<Secret<32>>> {
    Secret::filled_by(|into| random::from_os(into)).map(Arc::new)
}

fn newest_of(versions: &Versions) -> u32 {
    versions.last_key_value().map_or(0, |(version, _)| *version)
}

/// The file is not the newest: it has no `version`.
fn lacks_newest(file: &SharedFile, version: u32) -> Error {
    let message = format!(
        "the local root's file at {} lacks version {version}, the newest that the root had: it is an older copy, or was cut. Restore \
         the newest copy; what that version wrapped cannot be unwrapped without it",
        file.path().display()
    );
    Error::new(ErrorKind::RolledBack, message).with_kek("local-root:root")
}

fn add_version(versions: &mut Versions) -> Result<u32> {
    let next = newest_of(versions).checked_add(1).ok_or_else(|| Error::limit("the root has 2^32 - 1 versions"))?;
    versions.insert(next, fresh()?);
    Ok(next)
}

fn read(file: &SharedFile) -> Result<Versions> {
    let missing =
        || format!("there is no local root's file at {}: create it with LocalRoot::create", file.path().display());
    let opened = file.open()?.ok_or_else(|| Error::invalid(missing()))?;
    file.check_private(&opened)?;
    let text = file.read(&opened, MAX_FILE)?;
    let (newest, versions) = text.as_deref().ok_or("it is too large").and_then(|text| decode(text)).map_err(|why| {
        Error::new(ErrorKind::Malformed, format!("{} is not a local root's file: {why}", file.path().display()))
    })?;
    if newest_of(&versions) < newest {
        return Err(lacks_newest(file, newest));
    }
    Ok(versions)
}

#[derive(Serialize, Deserialize)]
struct FileEntry {
    format: u32,
    /// The number of the newest version, so that a file which was cut does not give it out again.
    newest: u32,
    versions: Vec<VersionEntry>,
}

#[derive(Serialize, Deserialize)]
struct VersionEntry {
    version: u32,
    key: Zeroizing<String>,
}

fn encode(versions: &Versions) -> Result<Zeroizing<Vec<u8>>> {
    encode_with(newest_of(versions), versions)
}

fn encode_with(newest: u32, versions: &Versions) -> Result<Zeroizing<Vec<u8>>> {
    let entry = |(version, key): (&u32, &Arc<Secret<32>>)| VersionEntry {
        version: *version,
        key: Zeroizing::new(base16ct::lower::encode_string(key.expose())),
    };
    let entry = FileEntry { format: FORMAT, newest, versions: versions.iter().map(entry).collect() };
    // Reserved at once: a growing buffer would leave copies of keys behind.
    let mut text = Zeroizing::new(Vec::with_capacity(96 + 112 * versions.len()));
    serde_json::to_writer(&mut *text, &entry)
        .map_err(|e| Error::new(ErrorKind::Unavailable, "the local root could not be encoded").with_source(e))?;
    text.push(b'\n');
    Ok(text)
}

/// # Errors
/// The number of the newest version, and the versions that are there.
///
/// # Errors
/// A sentence that says what is wrong with the text and quotes nothing of it.
fn decode(text: &[u8]) -> Result<(u32, Versions), &'static str> {
    let entry: FileEntry = serde_json::from_slice(text).map_err(|_| "it is not the JSON of one")?;
    if entry.format != FORMAT {
        return Err("unknown format; update strongroom");
    }
    let mut versions = Versions::new();
    for VersionEntry { version, key } in entry.versions {
        let mut raw = Zeroizing::new([0; 32]);
        if !base16ct::lower::decode(key.as_bytes(), &mut *raw).is_ok_and(|raw| raw.len() == 32) {
            return Err("a key is not 64 lower-case hexadecimal digits");
        }
        let key = take_kek(&mut *raw).map_err(|_| "the bytes of a key are all equal")?;
        versions.insert(version, Arc::new(key));
    }
    if versions.is_empty() || versions.contains_key(&0) {
        return Err("it has no version, or a version 0");
    }
    if newest_of(&versions) > entry.newest {
        return Err("it has a version above its newest");
    }
    // Whatever serde lets pass: unknown and repeated members, arrays for objects, other orders and spaces.
    match encode_with(entry.newest, &versions) {
        Ok(again) if again.ct_eq(text).into() => Ok((entry.newest, versions)),
        _ => Err("it is not spelled as FORMAT.md says"),
    }
}
