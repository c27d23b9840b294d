//! The local KMS's KEK file: readable by its owner alone, replaced atomically, changed under a lock.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, ErrorKind, Result};
use crate::kms::local_content::Content;

/// A KEK file larger than this is none.
const MAX_FILE: u64 = 64 << 20;

/// Where the KEKs of a local KMS rest.
pub(crate) struct KekFile {
    path: PathBuf,
}

impl KekFile {
    /// The file at `path`, created with `initial` if it does not exist.
    pub(crate) fn open(path: &Path, initial: &Content) -> Result<Self> {
        let file = Self { path: path.to_owned() };
        let _lock = file.lock()?;
        if !file.path.try_exists().map_err(|e| file.failed("look for", e))? {
            file.replace(initial)?;
        }
        Ok(file)
    }

    /// What is in the file.
    pub(crate) fn read(&self) -> Result<Content> {
        let mut opened = File::open(&self.path).map_err(|e| self.failed("open", e))?;
        let meta = opened.metadata().map_err(|e| self.failed("inspect", e))?;
        self.check_private(&meta)?;
        if meta.len() > MAX_FILE {
            return Err(self.not_a_kek_file("it is larger than 64 MiB"));
        }
        // Reserved at once: a growing buffer would leave copies of keys behind.
        let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0) + 1));
        opened.read_to_end(&mut text).map_err(|e| self.failed("read", e))?;
        Content::from_json(&text).map_err(|why| self.not_a_kek_file(&why))
    }

    /// Applies `change` to the file's present content under its lock, and returns what is in the file then.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Content) -> Result<T>) -> Result<(Content, T)> {
        let _lock = self.lock()?;
        let mut content = self.read()?;
        let made = change(&mut content)?;
        self.replace(&content)?;
        Ok((content, made))
    }

    /// Writes a new file beside the old one, makes it durable, and renames it over the old one.
    fn replace(&self, content: &Content) -> Result<()> {
        let mut text = content.to_json().map_err(|e| self.failed("encode", e.into()))?;
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
