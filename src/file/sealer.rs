//! What seals one file.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::io::AsyncWrite;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::file::async_writer::AsyncSealWriter;
use crate::file::seal_stream::SealStream;
use crate::file::seal_writer::SealWriter;
use crate::file::whose::Whose;
use crate::format::chunk::{Encryptor, End};
use crate::format::file::FileHead;
use crate::format::layout::{CHUNK_LEN, FileLayout, SEALED_CHUNK_LEN};
use crate::format::stream::StreamSealer;
use crate::key::id::TenantId;

/// What errors of sealing say was being done.
pub(crate) const SEAL: &str = "seal file";

/// How long a [`FileSealer`] seals after it was made. So a key that is out of use has no writer when that is over, on any node,
/// and can be retired ([`Admin::cutoff`](crate::Admin::cutoff)).
pub const FILE_SEALING_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Seals one file, of 0 bytes to 4 PiB - 1, within a day ([`FILE_SEALING_LIMIT`]): later it says `Limit`, and the file is cut short.
///
/// It has looked its key up and drawn the file's salt; everything from here on needs neither KMS nor store. It holds the
/// key of this file alone. Every method that seals consumes it, and it cannot be cloned, so that a salt serves one file:
///
/// ```compile_fail
/// fn twice(sealer: strongroom::FileSealer) { sealer.seal_bytes(b"one"); sealer.seal_bytes(b"two"); }
/// ```
/// ```compile_fail
/// fn fork(sealer: &strongroom::FileSealer) -> strongroom::FileSealer { sealer.clone() }
/// ```
///
/// In a process that is forked off ([`HotScope`](crate::HotScope)), and after [`Strongroom::reseed`](crate::Strongroom::reseed),
/// sealers and writers made before seal nothing more: they say `Unavailable`, and the file has to be sealed from its start.
///
/// A sealed file is longer than its plaintext by 99 bytes, the region's name, and 16 bytes for each chunk: of those of 16 KiB, and of
/// the last one, which is shorter and may be empty.
///
/// ```
/// # use strongroom::FileLayout;
/// for region in ["eu", "eu-central-1"] {
///     for plain in [0, 1, 16_383, 16_384, 16_385, 2 * 16_384, 1 << 40] {
///         let chunks = plain / 16_384 + 1; // the full ones, and the last
///         assert_eq!(FileLayout::of_region(region)?.sealed_len(plain)?, plain + 99 + region.len() as u64 + 16 * chunks);
///     }
/// }
/// # Ok::<(), strongroom::Error>(())
/// ```
pub struct FileSealer {
    head: FileHead,
    encryptor: Encryptor,
    whose: Whose,
}

impl FileSealer {
    pub(crate) fn new((head, encryptor): (FileHead, Encryptor)) -> Self {
        Self { head, encryptor, whose: Whose::default() }
    }

    /// The same, whose errors name the tenant.
    pub(crate) fn of(self, tenant: &TenantId) -> Self {
        Self { whose: Whose::of(tenant, &self.head), ..self }
    }

    /// The same, for as long as a file may take from now on.
    pub(crate) fn limited(self, clock: Arc<dyn Clock>) -> Self {
        let at = clock.monotonic().saturating_add(FILE_SEALING_LIMIT);
        Self { encryptor: self.encryptor.ending(End { clock, at }), ..self }
    }

    pub(crate) fn into_parts(self) -> (FileHead, Encryptor, Whose) {
        (self.head, self.encryptor, self.whose)
    }

    pub(crate) fn whose(&self) -> &Whose {
        &self.whose
    }

    /// The head that the file will have.
    pub fn head(&self) -> &FileHead {
        &self.head
    }

    /// The arithmetic of the file, for announcing its length before it is sealed.
    pub fn layout(&self) -> FileLayout {
        self.head.layout()
    }

    /// Seals a file that is wholly in memory.
    ///
    /// # Errors
    /// `Limit` if the sealed file does not fit into memory; `Unavailable` in a copy of the process.
    pub fn seal_bytes(self, plaintext: &[u8]) -> Result<Vec<u8>> {
        let whose = self.whose.clone();
        let run = || {
            let sealed_len = self.layout().sealed_len(plaintext.len() as u64)?;
            let sealed_len =
                usize::try_from(sealed_len).map_err(|_| Error::limit("the file does not fit into memory"))?;
            let mut out = vec![0; sealed_len];
            self.seal_to(plaintext, &mut out)?;
            Ok(out)
        };
        run().map_err(|e| whose.name(e, SEAL))
    }

    /// [`Self::seal_bytes`] into a buffer of the caller's, which has exactly the length of the sealed file
    /// ([`FileLayout::sealed_len`]).
    ///
    /// # Errors
    /// `InvalidArgument` if it has not; `Unavailable` in a copy of the process.
    pub fn seal_bytes_into(self, plaintext: &[u8], out: &mut [u8]) -> Result<()> {
        let whose = self.whose.clone();
        let run = || {
            if self.layout().sealed_len(plaintext.len() as u64)? != out.len() as u64 {
                return Err(Error::invalid("the buffer has another length than the sealed file"));
            }
            self.seal_to(plaintext, out)
        };
        run().map_err(|e| whose.name(e, SEAL))
    }

    fn seal_to(self, plaintext: &[u8], out: &mut [u8]) -> Result<()> {
        const LENGTH: &str = "the buffer has another length than the sealed file";
        let wrong = || Error::invalid(LENGTH);
        let mut encryptor = self.encryptor;
        let (head, chunks) = out.split_at_mut_checked(self.head.as_bytes().len()).ok_or_else(wrong)?;
        head.copy_from_slice(self.head.as_bytes());
        let full = plaintext.len() / CHUNK_LEN;
        let (full_text, last_text) = plaintext.split_at_checked(full * CHUNK_LEN).ok_or_else(wrong)?;
        let (full_chunks, last_chunk) = chunks.split_at_mut_checked(full * SEALED_CHUNK_LEN).ok_or_else(wrong)?;
        encryptor.turn(full)?.seal_from(full_text, full_chunks)?;
        encryptor.finish().seal_from(last_text, last_chunk)
    }

    /// Seals what is written to the returned writer, and writes the sealed file to `writer`.
    pub fn writer<W: Write>(self, writer: W) -> SealWriter<W> {
        let (sealer, whose) = self.into_stream();
        SealWriter::new(sealer, whose, writer)
    }

    /// Seals what is written to the returned writer, and writes the sealed file to `writer`.
    pub fn async_writer<W: AsyncWrite + Unpin>(self, writer: W) -> AsyncSealWriter<W> {
        let (sealer, whose) = self.into_stream();
        AsyncSealWriter::new(sealer, whose, writer)
    }

    /// The sealed file of a stream of plaintext, as a stream: for HTTP bodies and object stores.
    pub fn stream<S, E>(self, plaintext: S) -> SealStream<S>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        let (sealer, whose) = self.into_stream();
        SealStream::new(sealer, whose, plaintext)
    }

    fn into_stream(self) -> (StreamSealer, Whose) {
        (StreamSealer::new(self.encryptor, self.head.as_bytes()), self.whose)
    }
}
