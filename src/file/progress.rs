//! Watching and stopping long work.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// How far a file has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the source file that have been sealed or opened and written.
    pub done: u64,
    /// Bytes of the source file when the work began. It may grow meanwhile.
    pub total: u64,
}

/// Stops long work when asked to, from any thread. Clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the work to stop. It does within a few blocks of 1 MiB and fails with kind `Cancelled`. A target that is a path is left
    /// as it was; a writer keeps what it was given, which is cut short.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the work has been asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// # Errors
    /// `Cancelled` if asked to stop.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "cancelled by the caller"));
        }
        Ok(())
    }
}

/// Sets a flag when dropped, unless disarmed: dropping a future stops the thread that works for it.
pub(crate) struct CancelOnDrop(Option<CancelFlag>);

impl CancelOnDrop {
    pub(crate) fn new(flag: CancelFlag) -> Self {
        Self(Some(flag))
    }

    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(flag) = &self.0 {
            flag.cancel();
        }
    }
}

/// How to seal or open a path.
///
/// ```
/// use strongroom::{CancelFlag, FileOptions};
/// let stop = CancelFlag::new();
/// let options = FileOptions::new().on_progress(|p| println!("{} of {}", p.done, p.total)).cancelled_by(&stop);
/// # drop(options);
/// ```
#[derive(Clone, Default)]
pub struct FileOptions {
    pub(crate) progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    pub(crate) cancel: CancelFlag,
    threads: Option<NonZeroUsize>,
}

impl FileOptions {
    /// As many workers as the process has cores, no progress, nothing to cancel by.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `callback` after every written block of about 1 MiB, in order, on a thread of the operation's. It should be
    /// quick.
    pub fn on_progress(mut self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(callback));
        self
    }

    /// Stops when `flag` is set.
    pub fn cancelled_by(mut self, flag: &CancelFlag) -> Self {
        self.cancel = flag.clone();
        self
    }

    /// Works on so many threads, the calling one among them.
    pub fn workers(mut self, workers: NonZeroUsize) -> Self {
        self.threads = Some(workers);
        self
    }

    pub(crate) fn worker_count(&self) -> usize {
        self.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get)
    }
}

impl fmt::Debug for FileOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileOptions")
            .field("progress", &self.progress.is_some())
            .field("cancel", &self.cancel)
            .field("threads", &self.threads)
            .finish()
    }
}
