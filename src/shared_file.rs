//! A small file that processes of one machine share: changed under a lock, replaced whole. It holds keys or marks, so that
//! neither a crash nor a full disk may leave it torn or lost.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// Says in the operator's log that others than its owner can read or write a file, in a way that `mask` names, which is not refused
/// because no key stands in it bare.
#[cfg(unix)]
pub(crate) fn warn_if_others(path: &Path, what: &str, mask: u32) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(mode) = fs::metadata(path).map(|meta| meta.permissions().mode() & 0o777) else { return };
    if mode & mask != 0 {
        let verb = if mode & mask & 0o022 == 0 { "read" } else { "write" };
        let mode = format!("{mode:o}");
        tracing::warn!(path = %path.display(), mode, "others than its owner can {verb} {what}: chmod 600 it");
    }
}

#[cfg(not(unix))]
pub(crate) fn warn_if_others(_: &Path, _: &str, _: u32) {}

/// As many links as Linux follows.
const MAX_LINKS: usize = 40;

/// Where such a file is. What stands in it is its owner's business.
pub(crate) struct SharedFile {
    path: PathBuf,
    /// For errors: `the KEK file`.
    what: &'static str,
}

impl SharedFile {
    /// The file at `path`, which need not be there yet.
    ///
    /// # Errors
    /// `InvalidArgument` if `path` names no file.
    pub(crate) fn new(path: &Path, what: &'static str) -> Result<Self> {
        // Absolute, so that it stays the same file if the process changes its working directory.
        match std::path::absolute(path) {
            Ok(path) if path.file_name().is_some() => Ok(Self { path, what }),
            _ => Err(Error::invalid(format!("{} names no file", path.display()))),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file, open for reading; `None` if there is nothing at the path.
    ///
    /// # Errors
    /// `InvalidArgument` for a pipe, a folder or anything else than a regular file; else as [`Self::failed`] says.
    pub(crate) fn open(&self) -> Result<Option<File>> {
        let opened = options().read(true).open(&self.path);
        let meta = match &opened {
            Ok(file) => file.metadata(),
            Err(_) => fs::metadata(&self.path),
        };
        match (opened, meta) {
            (_, Err(e)) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            (_, Ok(meta)) if !meta.is_file() => Err(self.not_a_file(&self.path)),
            (Ok(file), Ok(_)) => Ok(Some(file)),
            (Err(e), _) | (_, Err(e)) => Err(self.failed("open", e)),
        }
    }

    /// All of `file`, which is this one, opened; `None` if that is more than `most` bytes.
    pub(crate) fn read(&self, mut file: &File, most: u64) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let len = file.metadata().map_err(|e| self.failed("inspect", e))?.len();
        if len > most {
            return Ok(None);
        }
        // Reserved at once: a growing buffer would leave copies of keys behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1));
        (&mut file).take(most + 1).read_to_end(&mut bytes).map_err(|e| self.failed("read", e))?;
        Ok(Some(bytes).filter(|bytes| u64::try_from(bytes.len()).is_ok_and(|len| len <= most)))
    }

    /// # Errors
    /// `InvalidArgument` if others than its owner can read or write `file`.
    #[cfg(unix)]
    pub(crate) fn check_private(&self, file: &File) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let mode = file.metadata().map_err(|e| self.failed("inspect", e))?.permissions().mode();
        if mode & 0o077 == 0 {
            return Ok(());
        }
        Err(Error::invalid(format!("others can read {} {}: chmod 600 it", self.what, self.path.display())))
    }

    #[cfg(not(unix))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    pub(crate) fn check_private(&self, _: &File) -> Result<()> {
        Ok(())
    }

    /// Waits until no other process, and no other handle in this one, has the lock. It is a file of its own because the file
    /// itself is replaced.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub(crate) fn lock(&self) -> Result<Locked<'_>> {
        loop {
            let target = self.target()?;
            let lock = options()
                .write(true)
                .create(true)
                .open(beside(&target, "lock"))
                .and_then(|lock| lock.lock().map(|()| lock))
                .map_err(|e| self.failed("lock", e))?;
            // Somebody may have put another link there meanwhile.
            if self.target()? == target {
                return Ok(Locked { shared: self, target, _lock: lock });
            }
        }
    }

    /// Removes what a crash left behind, where this process may: otherwise whoever changes the file next does.
    pub(crate) fn tidy(&self) {
        let left_over = |target: PathBuf| beside(&target, "new").symlink_metadata().is_ok();
        if self.target().is_ok_and(left_over)
            && let Ok(locked) = self.lock()
        {
            let _ = locked.remove_leftover();
        }
    }

    /// The file itself.
    fn target(&self) -> Result<PathBuf> {
        let Some((target, meta)) = behind_links(&self.path).map_err(|e| self.failed("find", e))? else {
            return Err(Error::invalid(format!("{} is a link to a link, and so on without end", self.path.display())));
        };
        if meta.is_some_and(|meta| !meta.is_file()) {
            return Err(self.not_a_file(&target));
        }
        Ok(target)
    }

    fn not_a_file(&self, path: &Path) -> Error {
        Error::invalid(format!("{} cannot be {}: it is not a regular file", path.display(), self.what))
    }

    /// `Io` where somebody has to act, `Unavailable` for everything else.
    pub(crate) fn failed(&self, verb: &str, source: io::Error) -> Error {
        use io::ErrorKind as Is;
        let kind = match source.kind() {
            Is::StorageFull | Is::QuotaExceeded | Is::PermissionDenied | Is::ReadOnlyFilesystem => ErrorKind::Io,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, format!("cannot {verb} {} {}", self.what, self.path.display())).with_source(source)
    }
}

/// A shared file while nobody else changes it.
pub(crate) struct Locked<'a> {
    shared: &'a SharedFile,
    target: PathBuf,
    _lock: File,
}

impl Locked<'_> {
    /// Whether there is a file at present.
    pub(crate) fn exists(&self) -> Result<bool> {
        self.target.try_exists().map_err(|e| self.shared.failed("look for", e))
    }

    /// Puts `bytes` in the place of what is there, or creates the file, with mode 0600; returns it, open for writing. The new
    /// file is made whole and durable beside the old one before it takes its place.
    ///
    /// # Errors
    /// As [`SharedFile::failed`] says; then the file is as it was, unless only the last step failed, which makes durable that
    /// the new file is in the old one's place: to be sure, replace it again.
    pub(crate) fn replace(&self, bytes: &[u8]) -> Result<File> {
        let temporary = beside(&self.target, "new");
        let renamed = (|| {
            // A leftover of a crash, or a file that somebody else put there with wider permissions.
            self.remove_leftover()?;
            // Before the rename, so that behind it only the sync can fail.
            let folder = Folder::open(folder_of(&self.target))?;
            let mut file = options().write(true).create_new(true).open(&temporary)?;
            keep_owner(&file, &self.target);
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &self.target)?;
            Ok((file, folder))
        })();
        let (file, folder) = renamed.map_err(|e| {
            let _ = fs::remove_file(&temporary);
            self.shared.failed("write", e)
        })?;
        folder.sync().map_err(|e| self.shared.failed("make durable the new", e))?;
        Ok(file)
    }

    fn remove_leftover(&self) -> io::Result<()> {
        match fs::remove_file(beside(&self.target, "new")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

/// What `path` leads to, behind whatever links there are, and what is there: a rename over a link would replace the link, and lose
/// the file. `None` if it is a link to a link, and so on without end.
pub(crate) fn behind_links(path: &Path) -> io::Result<Option<(PathBuf, Option<Metadata>)>> {
    let mut target = path.to_owned();
    for _ in 0..MAX_LINKS {
        match target.symlink_metadata() {
            Ok(meta) if meta.is_symlink() => target = folder_of(&target).join(fs::read_link(&target)?),
            Ok(meta) => return Ok(Some((target, Some(meta)))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some((target, None))),
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// `PATH.SUFFIX`
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// How to open a file, which only its owner can read if it is made. A pipe does not block.
pub(crate) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    options
}

/// What root rewrites stays the file of whoever runs the server.
#[cfg(unix)]
fn keep_owner(new: &File, old: &Path) {
    use std::os::unix::fs::{MetadataExt, fchown};
    if let (Ok(new_meta), Ok(old_meta)) = (new.metadata(), old.metadata())
        && (new_meta.uid(), new_meta.gid()) != (old_meta.uid(), old_meta.gid())
    {
        // Only root may, and not on every file system.
        let _ = fchown(new, Some(old_meta.uid()), Some(old_meta.gid()));
    }
}

#[cfg(not(unix))]
fn keep_owner(_: &File, _: &Path) {}

/// A folder, whose entries are to be made durable.
pub(crate) struct Folder {
    #[cfg(unix)]
    open: File,
}

impl Folder {
    #[cfg(unix)]
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { open: File::open(path)? })
    }

    /// Elsewhere a folder cannot be opened as a file.
    #[cfg(not(unix))]
    #[allow(clippy::unnecessary_wraps)]
    pub(crate) fn open(_: &Path) -> io::Result<Self> {
        Ok(Self {})
    }

    /// Makes durable which names are in the folder, where the file system can do that for a folder.
    #[cfg(unix)]
    pub(crate) fn sync(&self) -> io::Result<()> {
        match self.open.sync_all() {
            Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
            synced => synced,
        }
    }

    #[cfg(not(unix))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Which version of a file it was. The file is kept open, so that no later one gets its inode.
pub(crate) struct Version {
    _file: File,
    meta: Metadata,
}

impl Version {
    pub(crate) fn of(file: File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self { _file: file, meta })
    }

    #[cfg(unix)]
    pub(crate) fn is(&self, now: &Metadata) -> bool {
        use std::os::unix::fs::MetadataExt;
        let what = |meta: &Metadata| (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len());
        what(&self.meta) == what(now)
    }

    /// Elsewhere nothing tells two versions apart for certain.
    #[cfg(not(unix))]
    pub(crate) fn is(&self, _: &Metadata) -> bool {
        let _ = &self.meta;
        false
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn at(path: &Path) -> SharedFile {
        SharedFile::new(path, "the test's file").unwrap()
    }

    fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
        at(path).lock()?.replace(bytes).map(drop)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_link_stays_a_link_and_the_file_behind_it_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("data/deep")).unwrap();
        fs::create_dir(at("etc")).unwrap();
        fs::write(at("data/deep/file"), "old").unwrap();
        // By way of a relative link, a link to a link, and a link to a folder.
        symlink("../data/deep/file", at("etc/relative")).unwrap();
        symlink(at("etc/relative"), at("absolute")).unwrap();
        symlink("data/deep", at("folder")).unwrap();
        for (i, path) in ["etc/relative", "absolute", "folder/file"].into_iter().enumerate() {
            let text = format!("new {i}");
            replace(&at(path), text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(at("data/deep/file")).unwrap(), text, "{path}");
            assert_eq!(at(path).symlink_metadata().unwrap().is_symlink(), path != "folder/file", "{path}");
        }
        // All took one lock, beside the file.
        assert_eq!(names(&at("data/deep")), ["file", "file.lock"]);
        assert_eq!(names(&at("etc")), ["relative"]);
        // A link to a file that is not there yet, as on the first start of a container.
        symlink("data/first", at("dangling")).unwrap();
        replace(&at("dangling"), b"made").unwrap();
        assert_eq!(fs::read_to_string(at("data/first")).unwrap(), "made");
        assert!(at("dangling").symlink_metadata().unwrap().is_symlink());
        symlink("round", at("round")).unwrap();
        assert_eq!(replace(&at("round"), b"").unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, link) = (folder.path().join("pipe"), folder.path().join("link"));
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
        symlink(&pipe, &link).unwrap();
        let (say, said) = mpsc::channel();
        let paths = [pipe.clone(), link, folder.path().to_owned(), PathBuf::from("/dev/null")];
        std::thread::spawn(move || {
            for path in paths {
                let refused = [at(&path).open().map(drop), replace(&path, b"x")];
                say.send((path, refused.map(|r| r.map_err(|e| e.kind())))).unwrap();
            }
        });
        for _ in 0..4 {
            let (path, refused) =
                said.recv_timeout(Duration::from_secs(10)).expect("it waits for the pipe's other end");
            assert_eq!(refused, [Err(ErrorKind::InvalidArgument); 2], "{}", path.display());
        }
        assert!(!pipe.symlink_metadata().unwrap().is_file(), "the pipe was replaced");
        // Nor does a pipe in the lock's place make anyone wait.
        let path = folder.path().join("file");
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("file.lock"), 0o600.into()).unwrap();
        assert!(replace(&path, b"x").is_err());
        assert!(SharedFile::new(Path::new("/"), "x").is_err() && SharedFile::new(Path::new(""), "x").is_err());
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_the_next_one_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        replace(&path, b"old").unwrap();
        fs::create_dir(folder.path().join("file.new")).unwrap(); // in the new file's place
        assert!(replace(&path, b"new").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        fs::remove_dir(folder.path().join("file.new")).unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn leftovers_of_a_crash_go_with_the_next_change_or_when_tidied() {
        let folder = tempfile::tempdir().unwrap();
        let (path, left) = (folder.path().join("file"), folder.path().join("file.new"));
        fs::write(&left, "half a fi").unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o666)).unwrap();
        replace(&path, b"whole").unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert!(!left.exists());
        fs::write(&left, "half a fi").unwrap();
        at(&path).tidy();
        assert!(!left.exists());
        assert_eq!(fs::read(&path).unwrap(), b"whole");
    }

    /// An operator's command, run as root, must not take the file from the server.
    #[test]
    fn what_root_rewrites_keeps_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        replace(&path, b"old").unwrap();
        let owner = path.metadata().unwrap().uid();
        // Only root can try this; for others the owner is the same one before and behind.
        let servers = std::os::unix::fs::chown(&path, Some(12_345), None).map_or(owner, |()| 12_345);
        replace(&path, b"new").unwrap();
        assert_eq!(path.metadata().unwrap().uid(), servers);
    }

    #[test]
    fn a_file_longer_than_allowed_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        replace(&path, b"12345").unwrap();
        let shared = at(&path);
        let file = shared.open().unwrap().unwrap();
        assert!(shared.read(&file, 4).unwrap().is_none());
        assert_eq!(**shared.read(&file, 5).unwrap().unwrap(), *b"12345");
        assert!(at(&folder.path().join("none")).open().unwrap().is_none());
    }

    /// A folder of /proc answers EINVAL.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_folder_that_cannot_be_synced_is_no_failure() {
        let refused = File::open("/proc/self").unwrap().sync_all().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        Folder::open(Path::new("/proc/self")).unwrap().sync().unwrap();
    }

    #[test]
    fn where_somebody_has_to_act_the_error_says_so() {
        let shared = at(Path::new("/x"));
        let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::PermissionDenied, io::ErrorKind::TimedOut];
        let kinds = kinds.map(|kind| shared.failed("write", kind.into()).kind());
        assert_eq!(kinds, [ErrorKind::Io, ErrorKind::Io, ErrorKind::Unavailable]);
    }

    /// A file system that gives out inodes again at once would else make two versions of one length and moment alike.
    #[test]
    fn no_later_version_is_taken_for_the_one_that_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let write = |text: &str| {
            fs::write(&path, text).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            file
        };
        let known = Version::of(write("one")).unwrap();
        assert!(known.is(&path.metadata().unwrap()));
        for _ in 0..100 {
            fs::remove_file(&path).unwrap();
            write("two");
            assert!(!known.is(&path.metadata().unwrap()));
        }
        fs::remove_file(&path).unwrap();
        let known = Version::of(write("one")).unwrap();
        write("three");
        assert!(!known.is(&path.metadata().unwrap()), "the length");
        File::options().write(true).open(&path).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
        let later = Version::of(File::open(&path).unwrap()).unwrap();
        write("three");
        assert!(!later.is(&path.metadata().unwrap()), "the time");
    }
}
