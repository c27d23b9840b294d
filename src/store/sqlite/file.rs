//! The file: how it comes into being, how it is known for a store, and how it is noticed that another one stands in its place.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{ErrorKind as IoErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use sqlx::{ConnectOptions as _, Connection as _};

use crate::error::{Error, ErrorKind, Result};
use crate::shared_file;
use crate::store::row::draw_identity;
use crate::store::sqlite::schema::{self, APPLICATION_ID};
use crate::store::sqlite::session::{failed, settings};

/// # Errors
/// `InvalidArgument` if it cannot be the path of a file, or SQLite and its drivers read another meaning into it: who names a store
/// in memory does not mean a file that is called so. Absolute, because the process may change its folder.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    let is_url = path
        .to_str()
        .is_some_and(|text| text == ":memory:" || ["file:", "sqlite:"].iter().any(|s| text.starts_with(s)));
    if is_url {
        return Err(Error::invalid(
            "the key store's path names no file: give a path, not a URL; a store in memory is MemoryKeyStore",
        ));
    }
    match path.file_name() {
        Some(_) => std::path::absolute(path)
            .map_err(|e| Error::invalid("the key store's path cannot be made absolute").with_source(e)),
        None => Err(Error::invalid("the key store's path names no file")),
    }
}

fn cannot_be_made(e: std::io::Error) -> Error {
    let message = "the key store's file cannot be made; check its folder, its permissions and the room on its disk";
    Error::new(ErrorKind::StoreFault, message).with_source(e)
}

fn exists() -> Error {
    Error::new(ErrorKind::Conflict, "the key store's file exists; open it, or choose another path")
}

/// A file that is being made: gone when dropped, with what SQLite keeps beside it.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        for beside in ["", "-wal", "-shm", "-journal"] {
            let mut path = self.0.clone().into_os_string();
            path.push(beside);
            let _ = fs::remove_file(path); // mostly it is not there
        }
    }
}

/// Makes a store: under a name of its own, which is then given the path, so that nobody meets it half-made.
///
/// # Errors
/// `Conflict` if there is something at the path; `StoreFault` if the file cannot be made.
pub(super) async fn create(path: &Path) -> Result<()> {
    // Looked at first for the message only: what decides is the linking.
    if fs::symlink_metadata(path).is_ok() {
        return Err(exists());
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", draw_identity()?));
    let private = new_private(Path::new(&name))?;
    let made = Unfinished(name.into());
    schema::make(&made.0).await?;
    drop(private);
    place(made, path)
}

/// Copies the store at `from` into a new file at `to`, in the same way.
///
/// # Errors
/// `Conflict` if there is something at `to`; `InvalidArgument` if `to` is not UTF-8; else as [`failed`].
pub(super) async fn back_up(from: &Path, to: &Path) -> Result<()> {
    let taken = || Error::new(ErrorKind::Conflict, "there is a file at the backup's path; choose another");
    if fs::symlink_metadata(to).is_ok() {
        return Err(taken());
    }
    let name = to.to_str().ok_or_else(|| Error::invalid("the backup's path is not UTF-8, as SQLite wants it"))?;
    let name = format!("{name}.new-{}", draw_identity()?);
    let mut db = settings(from).connect().await.map_err(failed)?;
    let private = new_private(Path::new(&name))?;
    let made = Unfinished(name.clone().into());
    let not_written = |kind| Error::new(kind, "the backup cannot be written; check the room on its disk");
    let copied = sqlx::query("VACUUM INTO ?").bind(name).execute(&mut db).await;
    copied.map_err(|e| not_written(failed(e).kind()))?;
    db.close().await.map_err(failed)?;
    private.sync_all().map_err(|e| not_written(ErrorKind::StoreFault).with_source(e))?;
    place(made, to).map_err(|e| if e.kind() == ErrorKind::Conflict { taken() } else { e })
}

/// An empty file that only its owner can read, whatever the umask. SQLite fills it, and gives its mode to the files that it keeps
/// beside it; by itself it would make one that others can read.
fn new_private(path: &Path) -> Result<File> {
    shared_file::options().write(true).create_new(true).open(path).map_err(cannot_be_made)
}

/// Gives a file that is whole its name.
fn place(made: Unfinished, path: &Path) -> Result<()> {
    match fs::hard_link(&made.0, path) {
        Ok(()) => {}
        Err(e) if e.kind() == IoErrorKind::AlreadyExists => return Err(exists()),
        Err(_) => claim_and_rename(&made.0, path)?, // not every file system has hard links
    }
    drop(made);
    // So that the name survives a crash too. Where folders cannot be synced, the file system sees to it itself, or nobody does.
    if let Some(folder) = path.parent().and_then(|folder| File::open(folder).ok()) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Takes the name, which only one can, and puts the file in its place. For a moment an empty file is seen.
fn claim_and_rename(made: &Path, path: &Path) -> Result<()> {
    match shared_file::options().write(true).create_new(true).open(path) {
        Ok(_) => {}
        Err(e) if e.kind() == IoErrorKind::AlreadyExists => return Err(exists()),
        Err(e) => return Err(cannot_be_made(e)),
    }
    fs::rename(made, path).map_err(|e| {
        let _ = fs::remove_file(path); // the empty one
        cannot_be_made(e)
    })
}

/// The file of an open store.
pub(super) struct StoreFile {
    pub(super) path: PathBuf,
    seen: Mutex<Seen>,
}

/// What was last seen at the path, and since when.
#[derive(Clone, Copy)]
struct Seen {
    file: FileIdentity,
    since: Instant,
}

/// Tells one file from another. The number of one that is gone is given again; when it came into being, where the file system
/// knows that, is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    born: Option<SystemTime>,
}

impl fmt::Display for FileIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let born = self.born.and_then(|born| born.duration_since(SystemTime::UNIX_EPOCH).ok());
        write!(f, "{:x}:{:x}:{:x}", self.device, self.inode, born.map_or(0, |born| born.as_nanos()))
    }
}

impl FileIdentity {
    fn of(file: &Metadata) -> Self {
        #[cfg(unix)]
        let (device, inode) = (std::os::unix::fs::MetadataExt::dev(file), std::os::unix::fs::MetadataExt::ino(file));
        #[cfg(not(unix))]
        let (device, inode) = (0, 0);
        Self { device, inode, born: file.created().ok() }
    }
}

impl StoreFile {
    /// # Errors
    /// `InvalidArgument` if there is none, or it is no store; `StoreFault` if it cannot be read.
    pub(super) fn find(path: PathBuf) -> Result<Self> {
        let unreadable = |e| Error::new(ErrorKind::StoreFault, "the key store's file cannot be read").with_source(e);
        let metadata = fs::metadata(&path).map_err(|e| match e.kind() {
            IoErrorKind::NotFound => Error::invalid("there is no key store at the path; create it, or check the path"),
            _ => unreadable(e),
        })?;
        // Opening a named pipe would wait for somebody to write to it.
        if !metadata.is_file() {
            return Err(Error::invalid("the key store's path is not that of a file"));
        }
        let mut header = Vec::with_capacity(HEADER);
        File::open(&path).and_then(|file| file.take(HEADER as u64).read_to_end(&mut header)).map_err(unreadable)?;
        check_header(&header)?;
        let beside = |suffix: &str| {
            let mut name = path.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        for file in [path.clone(), beside("-wal"), beside("-shm")] {
            shared_file::warn_if_others(&file, "the key store's file", 0o077);
        }
        let seen = Seen { file: FileIdentity::of(&metadata), since: Instant::now() };
        Ok(Self { path, seen: Mutex::new(seen) })
    }

    /// The file that was last seen at the path.
    pub(super) fn seen(&self) -> FileIdentity {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).file
    }

    pub(super) fn at_path(&self) -> Option<FileIdentity> {
        fs::metadata(&self.path).ok().map(|file| FileIdentity::of(&file))
    }

    /// Whether a connection that was opened at `opened` is one to the file that stands at the path now.
    pub(super) fn is_current(&self, opened: Instant) -> bool {
        let Some(file) = self.at_path() else { return false };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.file != file {
            tracing::error!("the key store's file was replaced while it was open; going on with the new one");
            *seen = Seen { file, since: Instant::now() };
        }
        opened >= seen.since
    }
}

/// Bytes of a SQLite file's header.
const HEADER: usize = 100;

/// By its bytes: opened as a database, somebody else's file would be changed to our settings before it is known for what it is.
fn check_header(header: &[u8]) -> Result<()> {
    let is_ours = header.starts_with(b"SQLite format 3\0")
        && header.get(68..72).is_some_and(|id| *id == APPLICATION_ID.to_be_bytes());
    match (header, is_ours) {
        (_, true) => Ok(()),
        ([], false) => Err(Error::invalid("the key store's file is empty; remove it and create the store")),
        _ => Err(Error::invalid("the file is not a key store of strongroom; check the path")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_hard_links_a_name_is_still_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let [made, path] = ["made", "path"].map(|name| folder.path().join(name));
        fs::write(&made, "mine").unwrap();
        claim_and_rename(&made, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        fs::write(&made, "another").unwrap();
        assert_eq!(claim_and_rename(&made, &path).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        // What cannot be renamed leaves no empty file behind.
        let elsewhere = folder.path().join("elsewhere");
        let refused = claim_and_rename(&folder.path().join("not there"), &elsewhere).unwrap_err();
        assert_eq!((refused.kind(), elsewhere.exists()), (ErrorKind::StoreFault, false));
    }

    #[test]
    fn only_our_files_are_known_as_stores() {
        let mut header = [0; HEADER];
        header[..16].copy_from_slice(b"SQLite format 3\0");
        assert!(check_header(&header).is_err(), "somebody else's database");
        header[68..72].copy_from_slice(&APPLICATION_ID.to_be_bytes());
        assert!(check_header(&header).is_ok());
        assert!(check_header(&header[..71]).is_err(), "cut");
        header[0] = b's';
        assert!(check_header(&header).is_err(), "no database");
        assert!(check_header(&[]).unwrap_err().to_string().contains("empty"));
    }

    #[test]
    fn a_connection_to_a_replaced_file_is_not_current() {
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["keys.db", "other"].map(|name| folder.path().join(name));
        let mut header = [0; HEADER];
        header[..16].copy_from_slice(b"SQLite format 3\0");
        header[68..72].copy_from_slice(&APPLICATION_ID.to_be_bytes());
        for path in [&path, &other] {
            fs::write(path, header).unwrap();
        }
        let file = StoreFile::find(path.clone()).unwrap();
        let opened = Instant::now();
        let before = file.seen();
        assert!(file.at_path() == Some(before) && file.is_current(opened));
        fs::rename(&other, &path).unwrap();
        assert!(file.seen() == before && file.at_path() != Some(before), "replaced and not yet noticed");
        assert!(!file.is_current(opened) && !file.is_current(opened));
        assert!(file.is_current(Instant::now()));
        assert!(file.seen() != before && file.at_path() == Some(file.seen()));
        assert_ne!(file.seen().to_string(), before.to_string());
        fs::remove_file(&path).unwrap();
        assert!(!file.is_current(Instant::now()) && file.at_path().is_none());
    }
}
