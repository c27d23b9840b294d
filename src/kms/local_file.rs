//! The local KMS's KEK file: what stands in it, where it may stand, and what is refused.

use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::kms::local_content::Content;
use crate::shared_file::{Locked, SharedFile};

/// A KEK file larger than this is none.
const MAX_FILE: u64 = 64 << 20;

/// Where the KEKs of a local KMS rest.
pub(crate) struct KekFile(SharedFile);

impl KekFile {
    /// The file at `path`, created with `initial` if it does not exist.
    pub(crate) fn open(path: &Path, initial: &Content) -> Result<Self> {
        let file = Self(SharedFile::new(path, "the KEK file")?);
        let locked = file.0.lock()?;
        if !locked.exists()? {
            file.replace(&locked, initial)?;
        }
        drop(locked);
        file.0.tidy();
        Ok(file)
    }

    /// What is in the file.
    pub(crate) fn read(&self) -> Result<Content> {
        let missing = || self.0.failed("open", io::ErrorKind::NotFound.into());
        let opened = self.0.open()?.ok_or_else(missing)?;
        self.0.check_private(&opened)?;
        let text = self.0.read(&opened, MAX_FILE)?.ok_or_else(|| self.not_a_kek_file("it is larger than 64 MiB"))?;
        Content::from_json(&text).map_err(|why| self.not_a_kek_file(&why))
    }

    /// Applies `change` to the file's present content under its lock, and returns what is in the file then.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Content) -> Result<T>) -> Result<(Content, T)> {
        let locked = self.0.lock()?;
        let mut content = self.read()?;
        let made = change(&mut content)?;
        self.replace(&locked, &content)?;
        Ok((content, made))
    }

    fn replace(&self, locked: &Locked<'_>, content: &Content) -> Result<()> {
        let text = content.to_json().map_err(|e| self.0.failed("encode", e.into()))?;
        locked.replace(&text).map(drop)
    }

    fn not_a_kek_file(&self, why: &str) -> Error {
        Error::invalid(format!("{} is not a KEK file: {why}", self.0.path().display()))
    }
}
