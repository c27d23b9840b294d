//! What a local KMS keeps: KEKs and imports that are under way, bare or wrapped under a root KEK, and its JSON.
//!
//! Format 1 is a file of bare KEKs. Format 2 may name a root KEK, under which all its keys are then wrapped, and may hold
//! imports (FORMAT.md, "The KEK file").

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypto::secret::Secret;
use crate::error::{Error, ErrorKind, Result};
use crate::key::json::{Object, present};
use crate::key::kek::KekUri;
use crate::key::region::Region;
use crate::kms::local::{no_such_kek, take_kek, uri};

const BARE: u32 = 1;
const ROOTED: u32 = 2;
/// Most imports under way at once: the file stays small, and nobody fills it by asking.
pub(crate) const MAX_IMPORTS: usize = 64;

/// All that a local KMS keeps. Clones share the keys.
#[derive(Clone, Default)]
pub(crate) struct Content {
    /// Under which KEK all keys here are wrapped; `None`: they are bare.
    pub(crate) root: Option<KekUri>,
    pub(crate) keks: BTreeMap<String, StoredKek>,
    /// KEKs that were destroyed, by their names: the newest version that each had, so that no number is given out twice.
    pub(crate) destroyed: BTreeMap<String, u32>,
    /// By the SHA-256 of their tokens, in hexadecimal.
    pub(crate) imports: BTreeMap<String, StoredImport>,
}

#[derive(Clone)]
pub(crate) struct StoredKek {
    pub(crate) region: Region,
    pub(crate) enabled: bool,
    /// The newest version that it ever had.
    pub(crate) newest: u32,
    pub(crate) versions: BTreeMap<u32, StoredKey>,
}

#[derive(Clone)]
pub(crate) enum StoredKey {
    Bare(Arc<Secret<32>>),
    Wrapped(Arc<[u8]>),
}

/// An import that waits for its material.
#[derive(Clone)]
pub(crate) struct StoredImport {
    pub(crate) name: String,
    pub(crate) region: Region,
    /// In milliseconds since 1970.
    pub(crate) expires_at: i64,
    pub(crate) key: StoredTransport,
}

/// The private wrapping keys of an import.
#[derive(Clone)]
pub(crate) enum StoredTransport {
    Bare(Arc<Zeroizing<Vec<u8>>>),
    /// Too long for a KMS to wrap: `sealed` under a key of its own, which the root KEK wraps.
    Wrapped {
        wrapped: Arc<[u8]>,
        sealed: Arc<[u8]>,
    },
}

impl Content {
    /// Adds a KEK with its first version, whose number [`Self::first_version`] gave.
    ///
    /// # Errors
    /// `Conflict` if there is a KEK of that name, or one was made and destroyed since `version` was asked for.
    pub(crate) fn insert(&mut self, name: &str, region: Region, version: u32, key: StoredKey) -> Result<()> {
        if self.first_version(name)? != version {
            let message = "a KEK of that name was made and destroyed meanwhile: call it again";
            return Err(Error::new(ErrorKind::Conflict, message).with_kek(&format!("local:{name}")));
        }
        self.destroyed.remove(name);
        let versions = BTreeMap::from([(version, key)]);
        self.keks.insert(name.to_owned(), StoredKek { region, enabled: true, newest: version, versions });
        Ok(())
    }

    /// The number of the first version of a KEK that is yet to be made: 1, or what follows the versions of a destroyed one of
    /// that name.
    ///
    /// # Errors
    /// `Conflict` if there is a KEK of that name, `Limit` after 2^32 versions.
    pub(crate) fn first_version(&self, name: &str) -> Result<u32> {
        if self.keks.contains_key(name) {
            return Err(
                Error::new(ErrorKind::Conflict, "there is a KEK of that name").with_kek(&format!("local:{name}"))
            );
        }
        after(self.destroyed.get(name).copied().unwrap_or(0))
    }

    /// Takes a KEK out with all its versions, and remembers how far they went.
    pub(crate) fn destroy(&mut self, name: &str) {
        if let Some(kek) = self.keks.remove(name) {
            self.destroyed.insert(name.to_owned(), kek.newest);
        }
    }

    /// A KEK whose newest version is not here, and its number.
    pub(crate) fn lacking(&self) -> Option<(&str, u32)> {
        let lacks = |kek: &StoredKek| !kek.versions.contains_key(&kek.newest);
        self.keks.iter().find(|(_, kek)| lacks(kek)).map(|(name, kek)| (name.as_str(), kek.newest))
    }

    /// The KEK and the number that its next version will have.
    ///
    /// # Errors
    /// `Denied` if there is no such KEK, `Limit` after 2^32 versions.
    pub(crate) fn next_version(&mut self, name: &str) -> Result<(&mut StoredKek, u32)> {
        let kek = self.keks.get_mut(name).ok_or_else(|| no_such_kek(name))?;
        let next = after(kek.newest)?;
        Ok((kek, next))
    }

    /// Whether nothing differs.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        let same_kek = |(a, b): (&StoredKek, &StoredKek)| {
            a.region == b.region
                && a.enabled == b.enabled
                && a.newest == b.newest
                && a.versions.len() == b.versions.len()
                && a.versions.iter().zip(&b.versions).all(|((v, a), (w, b))| v == w && a.same_as(b))
        };
        self.root == other.root
            && self.destroyed == other.destroyed
            && self.keks.keys().eq(other.keks.keys())
            && self.keks.values().zip(other.keks.values()).all(same_kek)
            // An import never changes: it is there or not.
            && self.imports.keys().eq(other.imports.keys())
    }
}

fn after(newest: u32) -> Result<u32> {
    newest.checked_add(1).ok_or_else(|| Error::limit("the KEK has 2^32 versions"))
}

impl StoredKek {
    /// Adds what [`Content::next_version`] gave the number of.
    pub(crate) fn add(&mut self, version: u32, key: StoredKey) {
        self.newest = version;
        self.versions.insert(version, key);
    }
}

impl StoredKey {
    fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bare(a), Self::Bare(b)) => a.ct_eq(b),
            (Self::Wrapped(a), Self::Wrapped(b)) => a == b,
            _ => false,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    format: u32,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    root: Option<KekUri>,
    keks: Vec<Object<KekEntry>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    destroyed: Option<Vec<Object<DestroyedEntry>>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    imports: Option<Vec<Object<ImportEntry>>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KekEntry {
    name: String,
    region: Region,
    enabled: bool,
    newest: u32,
    versions: Vec<Object<VersionEntry>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DestroyedEntry {
    name: String,
    newest: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VersionEntry {
    version: u32,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    key: Option<Zeroizing<String>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    wrapped: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportEntry {
    id: String,
    name: String,
    region: Region,
    expires_at: i64,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    private_key: Option<Zeroizing<String>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    wrapped: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
}

impl Content {
    /// The file's text. Format 1 wherever it suffices, so that a file that uses nothing new stays readable by all.
    pub(crate) fn to_json(&self) -> serde_json::Result<Zeroizing<Vec<u8>>> {
        let format = if self.root.is_none() && self.imports.is_empty() { BARE } else { ROOTED };
        let imports: Vec<_> = self.imports.iter().map(|(id, import)| Object(import.to_entry(id))).collect();
        let destroyed =
            |(name, newest): (&String, &u32)| Object(DestroyedEntry { name: name.clone(), newest: *newest });
        let entry = FileEntry {
            format,
            root: self.root.clone(),
            keks: self.keks.iter().map(|(name, kek)| Object(kek.to_entry(name))).collect(),
            destroyed: Some(self.destroyed.iter().map(destroyed).collect()).filter(|it: &Vec<_>| !it.is_empty()),
            imports: Some(imports).filter(|imports| !imports.is_empty()),
        };
        // Reserved at once: a growing buffer would leave copies of keys behind.
        let mut text = Zeroizing::new(Vec::with_capacity(self.most_bytes()));
        serde_json::to_writer_pretty(&mut *text, &entry)?;
        Ok(text)
    }

    fn most_bytes(&self) -> usize {
        let keks = self.keks.values().flat_map(|kek| kek.versions.values()).map(|key| match key {
            StoredKey::Bare(_) => 192,
            StoredKey::Wrapped(wrapped) => 128 + 2 * wrapped.len(),
        });
        let imports = self.imports.values().map(|import| match &import.key {
            StoredTransport::Bare(key) => 512 + 2 * key.len(),
            StoredTransport::Wrapped { wrapped, sealed } => 512 + 2 * (wrapped.len() + sealed.len()),
        });
        2048 + 256 * (self.keks.len() + self.destroyed.len()) + keks.chain(imports).sum::<usize>()
    }

    /// # Errors
    /// A sentence that says what is wrong with the text and quotes nothing of it.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self, String> {
        // serde_json's message can quote the text; only the position is passed on.
        let Object(entry): Object<FileEntry> =
            serde_json::from_slice(text).map_err(|e| format!("line {}, column {}", e.line(), e.column()))?;
        match (entry.format, entry.root.is_some() || entry.imports.is_some()) {
            (BARE, false) | (ROOTED, true) => {}
            (BARE, true) => return Err("format 1 has neither a root nor imports".to_owned()),
            (ROOTED, false) => return Err("format 2 has a root or imports".to_owned()),
            _ => return Err("unknown format; update strongroom".to_owned()),
        }
        let imports = entry.imports.unwrap_or_default();
        if imports.len() > MAX_IMPORTS {
            return Err(format!("it has more than {MAX_IMPORTS} imports"));
        }
        let rooted = entry.root.is_some();
        let mut content = Self { root: entry.root, ..Self::default() };
        for Object(kek) in entry.keks {
            let (name, kek) = kek.into_stored(rooted)?;
            if content.keks.insert(name, kek).is_some() {
                return Err("two KEKs have one name".to_owned());
            }
        }
        for Object(DestroyedEntry { name, newest }) in entry.destroyed.unwrap_or_default() {
            check_name(&name)?;
            if newest == 0 {
                return Err("a destroyed KEK has a newest version 0; the first is 1".to_owned());
            }
            if content.keks.contains_key(&name) || content.destroyed.insert(name, newest).is_some() {
                return Err("two KEKs have one name".to_owned());
            }
        }
        for Object(import) in imports {
            let (id, import) = import.into_stored(rooted)?;
            if content.imports.insert(id, import).is_some() {
                return Err("two imports have one token".to_owned());
            }
        }
        Ok(content)
    }
}

impl StoredKek {
    fn to_entry(&self, name: &str) -> KekEntry {
        let version = |(version, key): (&u32, &StoredKey)| match key {
            StoredKey::Bare(key) => {
                VersionEntry { version: *version, key: Some(Zeroizing::new(hex(key.expose()))), wrapped: None }
            }
            StoredKey::Wrapped(wrapped) => VersionEntry { version: *version, key: None, wrapped: Some(hex(wrapped)) },
        };
        KekEntry {
            name: name.to_owned(),
            region: self.region.clone(),
            enabled: self.enabled,
            newest: self.newest,
            versions: self.versions.iter().map(version).map(Object).collect(),
        }
    }
}

impl KekEntry {
    fn into_stored(self, rooted: bool) -> Result<(String, StoredKek), String> {
        check_name(&self.name)?;
        let mut versions = BTreeMap::new();
        for Object(v) in self.versions {
            if v.version == 0 {
                return Err("a KEK has a version 0; the first is 1".to_owned());
            }
            let key = match (v.key, v.wrapped) {
                (Some(key), None) if !rooted => {
                    let mut raw = unhex(&key, "a KEK")?;
                    // The name is the operator's; `take_kek` says what is wrong and nothing of the key.
                    StoredKey::Bare(Arc::new(take_kek(&mut raw).map_err(|e| format!("KEK {}: {e}", self.name))?))
                }
                (None, Some(wrapped)) if rooted => StoredKey::Wrapped(unhex(&wrapped, "a wrapped KEK")?[..].into()),
                _ => return Err("under a root KEK all keys are wrapped, and without one none is".to_owned()),
            };
            if versions.insert(v.version, key).is_some() {
                return Err("a KEK has a version twice".to_owned());
            }
        }
        if versions.is_empty() {
            return Err("a KEK has no key; there is no default".to_owned());
        }
        if versions.last_key_value().is_some_and(|(version, _)| *version > self.newest) {
            return Err("a KEK has a version above its newest".to_owned());
        }
        let Self { name, region, enabled, newest, .. } = self;
        Ok((name, StoredKek { region, enabled, newest, versions }))
    }
}

impl StoredImport {
    fn to_entry(&self, id: &str) -> ImportEntry {
        let (private_key, wrapped, sealed) = match &self.key {
            StoredTransport::Bare(key) => (Some(Zeroizing::new(hex(key))), None, None),
            StoredTransport::Wrapped { wrapped, sealed } => (None, Some(hex(wrapped)), Some(hex(sealed))),
        };
        let (id, name, region) = (id.to_owned(), self.name.clone(), self.region.clone());
        ImportEntry { id, name, region, expires_at: self.expires_at, private_key, wrapped, sealed }
    }
}

impl ImportEntry {
    fn into_stored(self, rooted: bool) -> Result<(String, StoredImport), String> {
        check_name(&self.name)?;
        if self.id.len() != 64 || !self.id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err("an import's id is not 64 lower-case hexadecimal digits".to_owned());
        }
        let key = match (self.private_key, self.wrapped, self.sealed) {
            (Some(key), None, None) if !rooted => StoredTransport::Bare(Arc::new(unhex(&key, "an import's key")?)),
            (None, Some(wrapped), Some(sealed)) if rooted => StoredTransport::Wrapped {
                wrapped: unhex(&wrapped, "an import's wrapped key")?[..].into(),
                sealed: unhex(&sealed, "an import's sealed key")?[..].into(),
            },
            _ => return Err("under a root KEK all keys are wrapped, and without one none is".to_owned()),
        };
        Ok((self.id, StoredImport { name: self.name, region: self.region, expires_at: self.expires_at, key }))
    }
}

/// The name is not quoted: where it is wrong it may be anything.
fn check_name(name: &str) -> Result<(), String> {
    uri(name).map(drop).map_err(|_| "a KEK's name has not 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'".to_owned())
}

fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

/// Into a buffer that is wiped even if the text turns out to be wrong half-way.
fn unhex(text: &str, what: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes = Zeroizing::new(vec![0; text.len() / 2]);
    let len = base16ct::mixed::decode(text, &mut bytes).map_err(|_| format!("{what} is not hexadecimal"))?.len();
    bytes.truncate(len);
    Ok(bytes)
}
