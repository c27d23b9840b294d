//! A file that appears at its place whole or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::crypto::random;
use crate::error::{Error, ErrorKind, Result};
use crate::file::failure::{While, from_io};
use crate::file::write_behind::WriteBehind;
use crate::shared_file::{self, Folder, behind_links, folder_of};

/// What only the very last step says.
const NOT_DURABLE: &str = "the target was replaced by the whole file, but its directory could not be made durable";

/// A file being written for its final place, in the same directory and so on the same file system, readable by its owner only.
/// Dropping it removes it; committing puts it to its place.
///
/// Where the system can make files without a name (Linux, most file systems), it has none until it is whole, so that a process
/// that is killed leaves nothing. Elsewhere it leaves `.strongroom-*.tmp` behind, never a file that could be taken for the
/// target.
pub(crate) struct AtomicFile {
    file: WriteBehind,
    /// `None` while it has no name.
    temporary: Option<TemporaryPath>,
    /// Behind whatever links there are.
    target: PathBuf,
}

/// Removed when dropped, unless it has become the target.
struct TemporaryPath {
    path: PathBuf,
    armed: bool,
}

impl TemporaryPath {
    /// A new name in `directory`, under which `make` makes a file.
    fn make<T>(directory: &Path, make: impl Fn(&Path) -> io::Result<T>) -> Result<(Self, T)> {
        loop {
            let mut random = [0; 8];
            random::from_os(&mut random)?;
            let path = directory.join(format!(".strongroom-{}.tmp", base16ct::lower::encode_string(&random)));
            match make(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(from_io(e, "no file could be created in the target's directory")),
                Ok(made) => return Ok((Self { path, armed: true }, made)),
            }
        }
    }
}

impl Drop for TemporaryPath {
    fn drop(&mut self) {
        if self.armed {
            // Nobody is left to tell; the next thing that fails on this directory will.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl AtomicFile {
    /// Begins a file that will replace `target`, or the file that it is a link to, with room for `len` bytes.
    ///
    /// # Errors
    /// `Io` if the directory cannot be written to or has no room, `InvalidArgument` if `target` names no file.
    pub(crate) fn create(target: &Path, len: u64) -> Result<Self> {
        if target.file_name().is_none() {
            return Err(Error::invalid("the target path names no file"));
        }
        let found = behind_links(target).doing("the target could not be found")?;
        let Some((target, _)) = found else {
            return Err(Error::invalid("the target is a link to a link, and so on without end"));
        };
        let directory = folder_of(&target);
        check_free_space(directory, len)?;
        let (temporary, file) = if let Some(file) = nameless::create(directory) {
            (None, file)
        } else {
            let create = |path: &Path| shared_file::options().write(true).create_new(true).open(path);
            let (temporary, file) = TemporaryPath::make(directory, create)?;
            (Some(temporary), file)
        };
        Ok(Self { file: WriteBehind::new(file), temporary, target })
    }

    pub(crate) fn writer(&mut self) -> &mut WriteBehind {
        &mut self.file
    }

    /// Gives the file the permissions of `source`, makes it durable, and puts it to its place, replacing what was there.
    ///
    /// # Errors
    /// `Io`. Then the target is as it was, unless only the last step failed: making the new name itself durable.
    pub(crate) fn commit(self, source: &fs::Metadata) -> Result<()> {
        let file = self.file.file();
        keep_permissions(file, source).doing("the permissions could not be kept")?;
        file.sync_all().doing("the target file could not be made durable")?;
        let directory = folder_of(&self.target);
        let folder = Folder::open(directory).doing("the target's directory could not be opened")?;
        // It is whole by now. A name can be taken over by a rename alone, and a rename needs one to begin with.
        let mut temporary = match self.temporary {
            Some(temporary) => temporary,
            None => TemporaryPath::make(directory, |path| nameless::link(file, path))?.0,
        };
        fs::rename(&temporary.path, &self.target).doing("the target file could not be put to its place")?;
        temporary.armed = false;
        folder.sync().doing(NOT_DURABLE)
    }
}

/// Files without a name.
#[cfg(target_os = "linux")]
mod nameless {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};

    /// `None` if it cannot be made, or could not be given a name later on: not every file system can, and a name is given by way
    /// of /proc, which need not be there.
    pub(super) fn create(directory: &Path) -> Option<File> {
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        let file = File::from(open(directory, flags, Mode::RUSR | Mode::WUSR).ok()?);
        let (there, here) = (std::fs::metadata(by_number(&file)).ok()?, file.metadata().ok()?);
        ((there.dev(), there.ino()) == (here.dev(), here.ino())).then_some(file)
    }

    pub(super) fn link(file: &File, path: &Path) -> io::Result<()> {
        Ok(linkat(CWD, by_number(file), CWD, path, AtFlags::SYMLINK_FOLLOW)?)
    }

    fn by_number(file: &File) -> String {
        format!("/proc/self/fd/{}", file.as_raw_fd())
    }
}

#[cfg(not(target_os = "linux"))]
mod nameless {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    pub(super) fn create(_: &Path) -> Option<File> {
        None
    }

    pub(super) fn link(_: &File, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
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
    // A file system that cannot tell is written to, and then tells.
    let Ok(system) = rustix::fs::statvfs(directory) else { return Ok(()) };
    if has_room(system.f_blocks, system.f_bavail, system.f_frsize, len) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Io, "the target's file system has no room for the file")
        .with_source(io::Error::from(io::ErrorKind::StorageFull)))
}

/// Whether `len` bytes have room in `free` of `all` blocks of `block` bytes. A file system of no blocks at all does not know its
/// size, as some in user space and over networks.
#[cfg(unix)]
fn has_room(all: u64, free: u64, block: u64, len: u64) -> bool {
    all == 0 || block == 0 || free.saturating_mul(block) >= len
}

/// Elsewhere writing tells.
#[cfg(not(unix))]
fn check_free_space(_: &Path, _: u64) -> Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_does_not_know_its_size_refuses_no_file() {
        assert!(has_room(0, 0, 4096, 1), "no blocks at all");
        assert!(has_room(0, 0, 0, 1) && has_room(10, 10, 0, 1));
        assert!(has_room(10, 1, 4096, 4096) && !has_room(10, 1, 4096, 4097) && !has_room(10, 0, 4096, 1), "full");
        assert!(has_room(u64::MAX, u64::MAX, u64::MAX, u64::MAX));
    }

    /// Where no file without a name can be made: the one with a name goes too.
    #[test]
    fn a_file_that_is_given_up_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let count = || fs::read_dir(&folder).unwrap().count();
        let create = |path: &Path| shared_file::options().write(true).create_new(true).open(path);
        let (temporary, file) = TemporaryPath::make(folder.path(), create).unwrap();
        let file = WriteBehind::new(file);
        let source = folder.path().metadata().unwrap();
        assert_eq!(count(), 1);
        drop(AtomicFile { file, temporary: Some(temporary), target: folder.path().join("target") });
        assert_eq!(count(), 0);
        let (temporary, file) = TemporaryPath::make(folder.path(), create).unwrap();
        let file = AtomicFile {
            file: WriteBehind::new(file),
            temporary: Some(temporary),
            target: folder.path().join("target"),
        };
        file.commit(&source).unwrap();
        assert!(count() == 1 && folder.path().join("target").exists());
    }
}
