//! Sealing and opening paths: parallel over the cores, atomic, in bounded memory.

use std::fs::{File, Metadata};
use std::io::{Read, Write};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::file::atomic_file::AtomicFile;
use crate::file::failure::While;
use crate::file::opener::{FileOpener, OPEN};
use crate::file::pipeline::{self, BLOCK_CHUNKS, Block};
use crate::file::progress::{CancelOnDrop, FileOptions, Progress};
use crate::file::sealer::{FileSealer, SEAL};
use crate::format::chunk::{Decryptor, Encryptor, LastTurn, Turn};
use crate::format::file::FileHead;
use crate::format::layout::{CHUNK_LEN, SEALED_CHUNK_LEN};
use crate::shared_file;

const NOT_OPENED: &str = "the source file could not be opened";
/// For the operator's log.
const NO_LENGTH: &str = "no sealed file has its length: it was cut short";

/// # Errors
/// `InvalidArgument` for a pipe, a folder or anything else than a regular file.
fn open_source(path: &Path) -> Result<(File, Metadata)> {
    let file = shared_file::options().read(true).open(path).doing(NOT_OPENED)?;
    let metadata = file.metadata().doing(NOT_OPENED)?;
    if metadata.is_file() {
        return Ok((file, metadata));
    }
    Err(Error::invalid("the source path names no regular file"))
}

/// What is sealed is the source as it stood when it was opened, or nothing: half an old file and half a new one would be
/// authentic from then on.
///
/// # Errors
/// `Io` if other than the `read` bytes stand there now, or it was written to since.
fn check_unchanged(file: &File, opened: &Metadata, read: u64) -> Result<()> {
    let now = file.metadata().doing("the source file could not be read")?;
    let times = (opened.modified().ok(), now.modified().ok());
    if read == opened.len() && now.len() == read && times.0 == times.1 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Io, "the source file was changed while it was being sealed; seal it again"))
}

/// A block to seal.
struct ToSeal {
    full: Turn,
    last: Option<LastTurn>,
}

/// A block to open.
struct ToOpen {
    first: u64,
    is_last: bool,
}

/// Seals `source` into `target`, apart from the head, and returns how many bytes it had.
pub(crate) fn seal_blocks(
    encryptor: Encryptor,
    mut source: impl Read + Send,
    mut target: impl Write + Send,
    options: &FileOptions,
    total: u64,
) -> Result<u64> {
    let mut encryptor = Some(encryptor);
    let mut done = 0;
    pipeline::run(
        options.worker_count(),
        |block| {
            options.cancel.check()?;
            let Some(mut sealing) = encryptor.take() else { return Ok(None) };
            let len = block.read_plain(&mut source)?;
            let (full, rest) = (len / CHUNK_LEN, len % CHUNK_LEN);
            let turn = sealing.turn(full)?;
            let mut sealed_len = full * SEALED_CHUNK_LEN;
            let last = if full == BLOCK_CHUNKS {
                encryptor = Some(sealing);
                None
            } else {
                sealed_len += rest + (SEALED_CHUNK_LEN - CHUNK_LEN);
                Some(sealing.finish())
            };
            block.set_sealed_len(sealed_len);
            Ok(Some(ToSeal { full: turn, last }))
        },
        |job, block| {
            let sealed = block.sealed_mut();
            let full = sealed.len() / SEALED_CHUNK_LEN * SEALED_CHUNK_LEN;
            let (full, rest) = sealed.split_at_mut_checked(full).unwrap_or_default();
            job.full.seal(full)?;
            job.last.map_or(Ok(()), |last| last.seal(rest))
        },
        |block| {
            block.write_sealed(&mut target)?;
            tell(options, &mut done, block.plain_len(), total);
            Ok(())
        },
    )?;
    Ok(done)
}

/// Opens the chunks of `source`, of which `read` was read before them, into `target`. Only if it succeeds has all that was written been verified as a whole.
pub(crate) fn open_blocks(
    decryptor: &Decryptor,
    mut source: impl Read + Send,
    mut target: impl Write + Send,
    options: &FileOptions,
    read: Progress,
) -> Result<()> {
    let mut next = Some(0);
    let Progress { mut done, total } = read;
    pipeline::run(
        options.worker_count(),
        |block| {
            options.cancel.check()?;
            let Some(first) = next.take() else { return Ok(None) };
            block.read_sealed(&mut source)?;
            let is_last = !block.is_full();
            if !is_last {
                next = Some(first + BLOCK_CHUNKS as u64);
            }
            Ok(Some(ToOpen { first, is_last }))
        },
        |job, block| open_block(decryptor, &job, block),
        |block| {
            block.write_plain(&mut target)?;
            tell(options, &mut done, block.sealed_len(), total);
            Ok(())
        },
    )
}

fn open_block(decryptor: &Decryptor, job: &ToOpen, block: &mut Block) -> Result<()> {
    let sealed = block.sealed_mut();
    let full = sealed.len() / SEALED_CHUNK_LEN;
    let (blocks, rest) = sealed.split_at_mut_checked(full * SEALED_CHUNK_LEN).unwrap_or_default();
    decryptor.open_block(job.first, blocks)?;
    if job.is_last {
        decryptor.open_last(job.first + full as u64, rest)?;
    }
    Ok(())
}

fn tell(options: &FileOptions, done: &mut u64, more: usize, total: u64) {
    *done += more as u64;
    if let Some(callback) = &options.progress {
        callback(Progress { done: *done, total });
    }
}

impl FileSealer {
    /// Seals what `source` reads to its end into `target`, on all cores, with 1 MiB for each, whatever the size. Blocks
    /// the calling thread. `options` report bytes of `source`, with a total of 0.
    ///
    /// # Errors
    /// `Io` if reading or writing fails, `Cancelled` by the options' flag, `Limit` beyond 4 PiB - 1 or after a day
    /// ([`FILE_SEALING_LIMIT`](crate::FILE_SEALING_LIMIT)), `Unavailable` in a copy of the process. The target keeps what it was given
    /// by then: a file that is cut short, and is refused as such.
    pub fn pipe_blocking(
        self,
        source: impl Read + Send,
        mut target: impl Write + Send,
        options: &FileOptions,
    ) -> Result<()> {
        let (head, encryptor, whose) = self.into_parts();
        let written = target.write_all(head.as_bytes()).doing("the target could not be written");
        written
            .and_then(|()| seal_blocks(encryptor, source, &mut target, options, 0).map(|_| ()))
            .and_then(|()| target.flush().doing("the target could not be written"))
            .map_err(|e| whose.name(e, SEAL))
    }

    /// Seals the file `source` into `target`, replacing what is there. Blocks the calling thread; see
    /// [`seal_path`](Self::seal_path).
    ///
    /// The target appears whole or not at all: it is written beside its place, made durable and renamed. A target that is a
    /// symbolic link stays one: the file behind it is replaced. It gets the permissions of the source. Works on all cores, with 1 MiB for each, whatever the size.
    ///
    /// # Errors
    /// `Io` if reading or writing fails, there is no room or the source is changed meanwhile, `Cancelled` by the options' flag, `Limit` beyond 4 PiB - 1 or after a day
    /// ([`FILE_SEALING_LIMIT`](crate::FILE_SEALING_LIMIT)), `Unavailable` in a copy of the process, `InvalidArgument` if `source` is no
    /// regular file. The target is as it was, and nothing is left beside it; only where the last step failed, which the error says,
    /// is the whole file in its place, and may be gone after a crash of the machine.
    pub fn seal_path_blocking(self, source: &Path, target: &Path, options: &FileOptions) -> Result<()> {
        let whose = self.whose().clone();
        self.seal_paths(source, target, options).map_err(|e| whose.name(e, SEAL))
    }

    fn seal_paths(self, source: &Path, target: &Path, options: &FileOptions) -> Result<()> {
        let (file, metadata) = open_source(source)?;
        let mut sealed = AtomicFile::create(target, self.layout().sealed_len(metadata.len())?)?;
        let (head, encryptor, _) = self.into_parts();
        sealed.writer().write_all(head.as_bytes()).doing("the target file could not be written")?;
        let read = seal_blocks(encryptor, &file, sealed.writer(), options, metadata.len())?;
        check_unchanged(&file, &metadata, read)?;
        options.cancel.check()?;
        sealed.commit(&metadata)
    }

    /// Seals the file `source` into `target`, on threads of their own; otherwise as
    /// [`seal_path_blocking`](Self::seal_path_blocking). Dropping the future cancels it; what was written is removed
    /// shortly after.
    ///
    /// # Errors
    /// As [`seal_path_blocking`](Self::seal_path_blocking).
    pub async fn seal_path(self, source: &Path, target: &Path, options: FileOptions) -> Result<()> {
        let (source, target) = (source.to_owned(), target.to_owned());
        blocking(options, move |options| self.seal_path_blocking(&source, &target, options)).await
    }
}

impl FileOpener {
    /// Opens what `chunks`, which stands *behind* the head, reads to its end into `target`, on all cores, with 1 MiB
    /// for each, whatever the size. Blocks the calling thread. A block of 64 chunks is verified
    /// before it is written; that what was written is the whole file is known only when this succeeds.
    ///
    /// # Errors
    /// `Unopenable` if it is not the file that the opener was made for, whole and unchanged; `Io` if reading or writing
    /// fails, `Cancelled` by the options' flag. The target keeps what it was given by then: verified chunks, perhaps not all.
    pub fn pipe_blocking(
        self,
        chunks: impl Read + Send,
        mut target: impl Write + Send,
        options: &FileOptions,
    ) -> Result<()> {
        let (_, decryptor, whose) = self.into_parts();
        open_blocks(&decryptor, chunks, &mut target, options, Progress { done: 0, total: 0 })
            .and_then(|()| target.flush().doing("the target could not be written"))
            .map_err(|e| whose.name(e, OPEN))
    }

    /// Opens the sealed file `source` into `target`, replacing what is there. Blocks the calling thread; see
    /// [`open_path`](Self::open_path).
    ///
    /// Nothing appears at the target before the last chunk is verified; until then the plaintext is in a file beside it
    /// that only its owner can read, on Linux one without a name, which goes with the process. A target that is a symbolic link
    /// stays one: the file behind it is replaced. The target gets the permissions of the source. Works on all cores, with 1 MiB
    /// for each, whatever the size.
    ///
    /// # Errors
    /// `Unopenable` if it is not the file that the opener was made for, whole and unchanged; `Io` if reading or writing
    /// fails or there is no room, `Cancelled` by the options' flag, `InvalidArgument` if `source` is no regular file.
    /// The target is as it was, and nothing is left beside it; only where the last step failed, which the error says, is the whole
    /// file in its place, and may be gone after a crash of the machine.
    pub fn open_path_blocking(self, source: &Path, target: &Path, options: &FileOptions) -> Result<()> {
        let whose = self.whose().clone();
        self.open_paths(source, target, options).map_err(|e| whose.name(e, OPEN))
    }

    fn open_paths(self, source: &Path, target: &Path, options: &FileOptions) -> Result<()> {
        let (mut file, metadata) = open_source(source)?;
        if FileHead::read_from(&mut file)? != *self.head() {
            return Err(Error::unopenable_file().because("it starts with another head than the opener was made for"));
        }
        // A length that no sealed file has is refused before anything is written.
        let plain_len =
            self.layout().plain_len(metadata.len()).map_err(|_| Error::unopenable_file().because(NO_LENGTH))?;
        let mut opened = AtomicFile::create(target, plain_len)?;
        let (head, decryptor, _) = self.into_parts();
        let read = Progress { done: head.as_bytes().len() as u64, total: metadata.len() };
        open_blocks(&decryptor, &file, opened.writer(), options, read)?;
        options.cancel.check()?;
        opened.commit(&metadata)
    }

    /// Opens the sealed file `source` into `target`, on threads of their own; otherwise as
    /// [`open_path_blocking`](Self::open_path_blocking). Dropping the future cancels it; what was written is removed
    /// shortly after.
    ///
    /// # Errors
    /// As [`open_path_blocking`](Self::open_path_blocking).
    pub async fn open_path(self, source: &Path, target: &Path, options: FileOptions) -> Result<()> {
        let (source, target) = (source.to_owned(), target.to_owned());
        blocking(options, move |options| self.open_path_blocking(&source, &target, options)).await
    }
}

impl FileHead {
    /// Reads the head of the file at `path`, on a thread where that may block.
    ///
    /// # Errors
    /// `Malformed` if it is no sealed file, `Io` if it cannot be read.
    pub async fn read_path(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        blocking(FileOptions::new(), move |_| Self::read_from(&mut open_source(&path)?.0)).await
    }
}

/// Runs `work` where it may block, and cancels it when the future is dropped.
async fn blocking<T: Send + 'static>(
    options: FileOptions,
    work: impl FnOnce(&FileOptions) -> Result<T> + Send + 'static,
) -> Result<T> {
    let guard = CancelOnDrop::new(options.cancel.clone());
    let done = tokio::task::spawn_blocking(move || work(&options)).await;
    guard.disarm();
    match done {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(crate::error::Error::new(
                crate::error::ErrorKind::Cancelled,
                "the runtime is shutting down; the file was not begun",
            )),
        },
    }
}
