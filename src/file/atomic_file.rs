//! A file that appears at its place whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::crypto::random;
use crate::error::{Error, ErrorKind, Result};
use crate::file::failure::{While, from_io};
use crate::file::write_behind::WriteBehind;
use crate::shared_file::{Folder, folder_of};

/// A file being written beside its final place, in the same directory and so on the same file system, readable by its
/// owner only. Dropping it removes it; committing puts it to its place.
///
/// A process that is killed leaves `.strongroom-*.tmp` behind, never a file that could be taken for the target.
pub(crate) struct AtomicFile {
    file: WriteBehind,
    temporary: TemporaryPath,
    target: PathBuf,
}

/// Removed when dropped, unless it has become the target.
struct TemporaryPath {
    path: PathBuf,
    armed: bool,
}

impl Drop for TemporaryPath {
    fn drop(&mut self) {
        if self.armed {
            // Nobody is left to tell; the next thing that fails on this directory will.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn temporary_name() -> Result<String> {
    let mut random = [0; 8];
    random::from_os(&mut random)?;
    Ok(format!(".strongroom-{}.tmp", base16ct::lower::encode_string(&random)))
}

impl AtomicFile {
    /// Begins a file that will replace `target`, with room for `len` bytes.
    ///
    /// # Errors
    /// `Io` if the directory cannot be written to or has no room, `InvalidArgument` if `target` names no file.
    pub(crate) fn create(target: &Path, len: u64) -> Result<Self> {
        if target.file_name().is_none() {
            return Err(Error::invalid("the target path names no file"));
        }
        let directory = folder_of(target);
        check_free_space(directory, len)?;
        loop {
            let path = directory.join(temporary_name()?);
            match open_new(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(from_io(e, "no file could be created in the target's directory")),
                Ok(file) => {
                    let temporary = TemporaryPath { path, armed: true };
                    return Ok(Self { file: WriteBehind::new(file), temporary, target: target.to_owned() });
                }
            }
        }
    }

    pub(crate) fn writer(&mut self) -> &mut WriteBehind {
        &mut self.file
    }

    /// Gives the file the permissions of `source`, makes it durable, and puts it to its place, replacing what was there.
    ///
    /// # Errors
    /// `Io`. Then the target is as it was, unless only the last step failed: making the new name itself durable.
    pub(crate) fn commit(mut self, source: &fs::Metadata) -> Result<()> {
        let file = self.file.file();
        keep_permissions(file, source).doing("the permissions could not be kept")?;
        file.sync_all().doing("the target file could not be made durable")?;
        let folder = Folder::open(folder_of(&self.target)).doing("the target's directory could not be opened")?;
        fs::rename(&self.temporary.path, &self.target).doing("the target file could not be put to its place")?;
        self.temporary.armed = false;
        folder.sync().doing("the target's directory could not be made durable")
    }
}

#[cfg(unix)]
fn open_new(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn open_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Read, write and execute for owner, group and others; not set-user-id and its like, since the owner may be another.
#[cfg(unix)]
fn keep_permissions(file: &File, source: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(source.permissions().mode() & 0o777))
}

#[cfg(not(unix))]
fn keep_permissions(file: &File, source: &fs::Metadata) -> io::Result<()> {
    file.set_permissions(source.permissions())
}

/// Better refused now than after hours of writing.
#[cfg(unix)]
fn check_free_space(directory: &Path, len: u64) -> Result<()> {
    let system = rustix::fs::statvfs(directory)
        .map_err(|e| from_io(e.into(), "the free space of the target's file system could not be read"))?;
    if system.f_bavail.saturating_mul(system.f_frsize) >= len {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Io, "the target's file system has no room for the file")
        .with_source(io::Error::from(io::ErrorKind::StorageFull)))
}

/// Elsewhere writing tells.
#[cfg(not(unix))]
fn check_free_space(_: &Path, _: u64) -> Result<()> {
    Ok(())
}
