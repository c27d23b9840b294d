//! The local KMS's KEK file: what stands in it, where it may stand, and what is refused.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::kms::local_content::Content;
use crate::shared_file::{Locked, SharedFile, Version};

/// A KEK file larger than this is none.
const MAX_FILE: u64 = 64 << 20;

/// Where the KEKs of a local KMS rest.
pub(crate) struct KekFile {
    shared: SharedFile,
    /// Which version of it is in hand.
    taken: Mutex<Option<Version>>,
}

impl KekFile {
    /// Makes the file at `path`.
    ///
    /// # Errors
    /// `Conflict` if there is one.
    pub(crate) fn create(path: &Path, initial: &Content) -> Result<Self> {
        let file = Self::at(path)?;
        let locked = file.shared.lock()?;
        if locked.exists()? {
            let message = format!("there is a file at {}: open it, or name another path", file.shared.path().display());
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        file.replace(&locked, initial)?;
        drop(locked);
        Ok(file)
    }

    /// The file that is at `path`.
    ///
    /// # Errors
    /// `InvalidArgument` if there is none: a file that is missing is not one without KEKs.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = Self::at(path)?;
        file.shared.tidy();
        if file.shared.open()?.is_none() {
            let path = file.shared.path().display();
            return Err(Error::invalid(format!("there is no KEK file at {path}: create it, or restore it")));
        }
        Ok(file)
    }

    fn at(path: &Path) -> Result<Self> {
        Ok(Self { shared: SharedFile::new(path, "the KEK file")?, taken: Mutex::default() })
    }

    /// What is in the file, and which version of it that is.
    pub(crate) fn read(&self) -> Result<(Content, Version)> {
        let missing = || self.shared.failed("open", io::ErrorKind::NotFound.into());
        let opened = self.shared.open()?.ok_or_else(missing)?;
        self.shared.check_private(&opened)?;
        let text =
            self.shared.read(&opened, MAX_FILE)?.ok_or_else(|| self.not_a_kek_file("it is larger than 64 MiB"))?;
        let content = Content::from_json(&text).map_err(|why| self.not_a_kek_file(&why))?;
        if let Some((name, newest)) = content.lacking() {
            return Err(self.older(name, &format!("lacks version {newest} of this KEK, the newest that it had")));
        }
        Ok((content, Version::of(opened).map_err(|e| self.shared.failed("inspect", e))?))
    }

    /// Says that the KEKs of `version` are in hand.
    pub(crate) fn took(&self, version: Version) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(version);
    }

    /// Whether what is in hand is what is in the file. One look at its metadata.
    pub(crate) fn is_taken(&self) -> bool {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        matches!((&*taken, self.shared.path().metadata()), (Some(taken), Ok(now)) if taken.is(&now))
    }

    /// Applies `change` to the file's present content under its lock, and returns what is in the file then, which counts as in
    /// hand.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Content) -> Result<T>) -> Result<(Content, T)> {
        let locked = self.shared.lock()?;
        let (mut content, _) = self.read()?;
        let made = change(&mut content)?;
        self.replace(&locked, &content)?;
        Ok((content, made))
    }

    fn replace(&self, locked: &Locked<'_>, content: &Content) -> Result<()> {
        let text = content.to_json().map_err(|e| self.shared.failed("encode", e.into()))?;
        let written = locked.replace(&text)?;
        // Without it the file is read again, which does no harm.
        if let Ok(version) = Version::of(written) {
            self.took(version);
        }
        Ok(())
    }

    /// The file is not the newest: what it `lacks` of `local:NAME`.
    pub(crate) fn older(&self, name: &str, lacks: &str) -> Error {
        let path = self.shared.path().display();
        let message = format!(
            "the KEK file at {path} {lacks}: it is an older copy, or was cut. Restore the newest copy; without that version, what was \
             wrapped under it is lost"
        );
        Error::new(ErrorKind::RolledBack, message).with_kek(&format!("local:{name}"))
    }

    fn not_a_kek_file(&self, why: &str) -> Error {
        Error::invalid(format!("{} is not a KEK file: {why}", self.shared.path().display()))
    }
}
