//! The local KMS's KEK file: readable by its owner alone, replaced atomically, changed under a lock.
//!
//! ```json
//! {"format": 1, "keks": [{"name": "acme-2026", "region": "eu-central-1", "enabled": true,
//!                         "versions": [{"version": 1, "key": "64 hexadecimal digits"}]}]}
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, ErrorKind, Result};
use crate::key::region::Region;
use crate::kms::local::{Keks, LocalKek, take_kek};

const FORMAT: u32 = 1;
/// A KEK file larger than this is none.
const MAX_FILE: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: u32,
    keks: Vec<KekEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KekEntry {
    name: String,
    region: Region,
    enabled: bool,
    versions: Vec<VersionEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VersionEntry {
    version: u32,
    key: Zeroizing<String>,
}

/// Where the KEKs of a local KMS rest.
pub(crate) struct KekFile {
    path: PathBuf,
}

impl KekFile {
    /// The file at `path`, created empty if it does not exist.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = Self { path: path.to_owned() };
        let _lock = file.lock()?;
        if !file.path.try_exists().map_err(|e| file.failed("look for", e))? {
            file.replace(&Keks::new())?;
        }
        Ok(file)
    }

    /// The KEKs in the file.
    pub(crate) fn read(&self) -> Result<Keks> {
        let mut opened = File::open(&self.path).map_err(|e| self.failed("open", e))?;
        let meta = opened.metadata().map_err(|e| self.failed("inspect", e))?;
        self.check_private(&meta)?;
        if meta.len() > MAX_FILE {
            return Err(self.not_a_kek_file("it is larger than 64 MiB"));
        }
        // Reserved at once: a growing buffer would leave copies of keys behind.
        let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0) + 1));
        opened.read_to_end(&mut text).map_err(|e| self.failed("read", e))?;
        self.parse(&text)
    }

    fn parse(&self, text: &[u8]) -> Result<Keks> {
        // serde_json's message can quote the text; only the position is passed on.
        let content: Content = serde_json::from_slice(text)
            .map_err(|e| self.not_a_kek_file(&format!("line {}, column {}", e.line(), e.column())))?;
        if content.format != FORMAT {
            return Err(self.not_a_kek_file("unknown format; update strongroom"));
        }
        let mut keks = Keks::new();
        for entry in content.keks {
            let mut versions = BTreeMap::new();
            for v in entry.versions {
                let mut raw = Zeroizing::new([0_u8; 33]);
                let len = base16ct::mixed::decode(v.key.as_bytes(), &mut *raw).map_or(0, <[u8]>::len);
                let key = take_kek(raw.get_mut(..len).unwrap_or_default()).map_err(|e| e.with_kek(&entry.name))?;
                if versions.insert(v.version, key).is_some() {
                    return Err(self.not_a_kek_file("a KEK has a version twice"));
                }
            }
            if versions.is_empty() {
                return Err(self.not_a_kek_file("a KEK has no key; there is no default"));
            }
            let kek = LocalKek { region: entry.region, enabled: entry.enabled, versions };
            if keks.insert(entry.name, kek).is_some() {
                return Err(self.not_a_kek_file("two KEKs have one name"));
            }
        }
        Ok(keks)
    }

    /// Applies `change` to the file's present content under its lock, and returns what is in the file then.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Keks) -> Result<()>) -> Result<Keks> {
        let _lock = self.lock()?;
        let mut keks = self.read()?;
        change(&mut keks)?;
        self.replace(&keks)?;
        Ok(keks)
    }

    /// Writes a new file beside the old one, makes it durable, and renames it over the old one.
    fn replace(&self, keks: &Keks) -> Result<()> {
        let content = Content {
            format: FORMAT,
            keks: keks
                .iter()
                .map(|(name, kek)| KekEntry {
                    name: name.clone(),
                    region: kek.region.clone(),
                    enabled: kek.enabled,
                    versions: kek
                        .versions
                        .iter()
                        .map(|(version, key)| VersionEntry {
                            version: *version,
                            key: Zeroizing::new(base16ct::lower::encode_string(key.expose())),
                        })
                        .collect(),
                })
                .collect(),
        };
        let versions: usize = keks.values().map(|kek| kek.versions.len()).sum();
        // Reserved at once, as in `read`: about 110 bytes a version and 200 a KEK.
        let mut text = Zeroizing::new(Vec::with_capacity(1024 + 256 * keks.len() + 128 * versions));
        serde_json::to_writer_pretty(&mut *text, &content).map_err(|e| self.failed("encode", e.into()))?;
        let temporary = self.beside("new");
        let written = (|| {
            // A leftover of a crash, or a file that somebody else put there with wider permissions.
            fs::remove_file(&temporary)
                .or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
            let mut file = private().create_new(true).open(&temporary)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&temporary, &self.path)?;
            self.sync_folder()
        })();
        text.zeroize();
        written.map_err(|e| {
            let _ = fs::remove_file(&temporary);
            self.failed("write", e)
        })
    }

    /// Held while the file is changed, by whichever process. It is a file of its own because the KEK file is replaced.
    fn lock(&self) -> Result<File> {
        let lock = private().create(true).open(self.beside("lock")).map_err(|e| self.failed("lock", e))?;
        lock.lock().map_err(|e| self.failed("lock", e))?;
        Ok(lock)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(suffix);
        name.into()
    }

    #[cfg(unix)]
    fn sync_folder(&self) -> io::Result<()> {
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    #[cfg(not(unix))]
    fn sync_folder(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(unix)]
    fn check_private(&self, meta: &fs::Metadata) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        if meta.permissions().mode() & 0o077 == 0 {
            return Ok(());
        }
        Err(Error::invalid(format!("others can read the KEK file {}: chmod 600 it", self.path.display())))
    }

    #[cfg(not(unix))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    fn check_private(&self, _: &fs::Metadata) -> Result<()> {
        Ok(())
    }

    fn failed(&self, what: &str, source: io::Error) -> Error {
        Error::new(ErrorKind::Unavailable, format!("cannot {what} the KEK file {}", self.path.display()))
            .with_source(source)
    }

    fn not_a_kek_file(&self, why: &str) -> Error {
        Error::invalid(format!("{} is not a KEK file: {why}", self.path.display()))
    }
}

/// How to open a file for writing that only its owner can read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
