//! Marks in a file on one machine.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::error::{Error, ErrorKind, Result};
use crate::shared_file::{self, SharedFile, Version};
use crate::watermark::text::{self, Marks};
use crate::watermark::{Mark, Subject, Watermark};

/// A file larger than this is none: some four hundred thousand tenants.
const MAX_FILE: u64 = 64 << 20;

/// A [`Watermark`] in a file, shared by the processes of one machine.
///
/// Put it where a restore of the key store does not reach: on another volume, outside its backups. Each advance writes the whole
/// file, some 120 bytes a tenant, and makes it durable: with tens of thousands of tenants, use another kind. It is changed under a lock
/// (a file of the same name with `.lock` behind it), so not over a network file system whose locks do not hold; an advance waits for as
/// long as another process has the lock. Clones are the same handle.
///
/// ```
/// use strongroom::FileWatermark;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("watermark");
/// FileWatermark::create(&path)?; // once, together with the room
/// let watermark = FileWatermark::open(&path)?; // at each start
/// # let _ = watermark;
/// # Ok::<(), strongroom::Error>(())
/// ```
#[derive(Clone)]
pub struct FileWatermark(Arc<Inner>);

struct Inner {
    file: SharedFile,
    /// What was read or written last. Not trusted before the file is seen to be the same still.
    known: Mutex<Option<Known>>,
    /// Lets one advance of this handle at the file, so that those that wait for it occupy no thread.
    turns: Arc<Semaphore>,
}

#[derive(Clone)]
struct Known {
    marks: Arc<Marks>,
    from: Arc<Version>,
}

impl FileWatermark {
    /// Makes the file, with no mark in it yet: mode 0600.
    ///
    /// # Errors
    /// `Conflict` if there is a file already; `InvalidArgument` if something else is there; `Io` or `Unavailable` if it cannot be
    /// written.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let file = shared(path.as_ref())?;
        let locked = file.lock()?;
        if locked.exists()? {
            let message = format!("there is a file at {}: open it, or name another path", file.path().display());
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        locked.replace(text::encode(&Marks::new()).as_bytes())?;
        drop(locked);
        Ok(Self::with(file))
    }

    /// Opens a file that [`Self::create`] made. It is never created here: a watermark that is missing is not one without marks.
    /// If others than its owner can write it, the operator's log says so.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no file, or something else than a file; `Malformed` if it is not a watermark, with the line
    /// that is not; `Io` or `Unavailable` if it cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let file = shared(path.as_ref())?;
        file.tidy();
        if file.open()?.is_none() {
            let message = format!("there is no watermark at {}: create it with the room", file.path().display());
            return Err(Error::invalid(message));
        }
        // Marks are no secret, but who lowers them can put the key store back.
        shared_file::warn_if_others(file.path(), "the watermark", 0o022);
        let opened = Self::with(file);
        opened.0.marks()?;
        Ok(opened)
    }

    fn with(file: SharedFile) -> Self {
        Self(Arc::new(Inner { file, known: Mutex::default(), turns: Arc::new(Semaphore::new(1)) }))
    }

    /// Runs `work`, which waits for files, on a thread that may.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = Arc::clone(&self.0);
        let ended_early = |e| Error::new(ErrorKind::Unavailable, "the watermark's thread ended early").with_source(e);
        tokio::task::spawn_blocking(move || work(&inner)).await.map_err(ended_early)?
    }
}

fn shared(path: &Path) -> Result<SharedFile> {
    SharedFile::new(path, "the watermark")
}

impl Inner {
    /// All marks at present.
    fn marks(&self) -> Result<Arc<Marks>> {
        if let (Some(known), Ok(now)) = (self.known(), self.file.path().metadata())
            && known.from.is(&now)
        {
            return Ok(known.marks);
        }
        let missing = || self.file.failed("open", io::ErrorKind::NotFound.into());
        let file = self.file.open()?.ok_or_else(missing)?;
        let bytes = self.file.read(&file, MAX_FILE)?.ok_or_else(|| self.malformed("it is larger than 64 MiB"))?;
        let marks = Arc::new(text::decode(&bytes).map_err(|why| self.malformed(&why))?);
        self.know(Arc::clone(&marks), file);
        Ok(marks)
    }

    fn advance(&self, subject: Subject, from: Option<&Mark>, to: Mark) -> Result<bool> {
        let locked = self.file.lock()?;
        let marks = self.marks()?;
        let present = marks.get(&subject);
        if present != from && present != Some(&to) {
            return Ok(false);
        }
        // Also where the mark is `to` already: whoever wrote it may not have been able to make it durable.
        let mut next = BTreeMap::clone(&marks);
        next.insert(subject, to);
        let text = text::encode(&next);
        if u64::try_from(text.len()).is_ok_and(|len| len > MAX_FILE) {
            return Err(Error::limit(
                "the watermark's file would be larger than 64 MiB: use another kind of watermark",
            ));
        }
        let written = locked.replace(text.as_bytes())?;
        self.know(Arc::new(next), written);
        Ok(true)
    }

    fn known(&self) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn know(&self, marks: Arc<Marks>, file: File) {
        let known = Version::of(file).ok().map(|from| Known { marks, from: Arc::new(from) });
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    fn malformed(&self, why: &str) -> Error {
        Error::new(ErrorKind::Malformed, format!("{} is not a watermark: {why}", self.file.path().display()))
    }
}

impl fmt::Debug for FileWatermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileWatermark").field("path", &self.0.file.path()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Watermark for FileWatermark {
    async fn read(&self, subject: &Subject) -> Result<Option<Mark>> {
        let subject = subject.clone();
        self.blocking(move |inner| Ok(inner.marks()?.get(&subject).copied())).await
    }

    async fn advance(&self, subject: &Subject, from: Option<&Mark>, to: &Mark) -> Result<bool> {
        let (subject, from, to) = (subject.clone(), from.copied(), *to);
        let gone = |e| Error::new(ErrorKind::Unavailable, "the watermark was closed").with_source(e);
        let turn = Arc::clone(&self.0.turns).acquire_owned().await.map_err(gone)?;
        self.blocking(move |inner| {
            let _turn = turn; // until the file is written, also if the caller gives up
            inner.advance(subject, from.as_ref(), to)
        })
        .await
    }
}
