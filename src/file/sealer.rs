//! What seals one file.

use std::io::Write;

use bytes::Bytes;
use futures_util::Stream;
use tokio::io::AsyncWrite;

use crate::crypto::aead::TAG_LEN;
use crate::error::{Error, Result};
use crate::file::async_writer::AsyncSealWriter;
use crate::file::seal_stream::SealStream;
use crate::file::seal_writer::SealWriter;
use crate::format::chunk::Encryptor;
use crate::format::file::FileHead;
use crate::format::layout::{CHUNK_LEN, FileLayout, SEALED_CHUNK_LEN};
use crate::format::stream::StreamSealer;

/// Seals one file, of 0 bytes to 4 PiB - 1.
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
/// A sealed file is longer than its plaintext by 99 bytes, the region's name, and 16 bytes for each started 16 KiB.
pub struct FileSealer {
    head: FileHead,
    encryptor: Encryptor,
}

impl FileSealer {
    pub(crate) fn new((head, encryptor): (FileHead, Encryptor)) -> Self {
        Self { head, encryptor }
    }

    pub(crate) fn into_parts(self) -> (FileHead, Encryptor) {
        (self.head, self.encryptor)
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
    /// `Limit` if the sealed file does not fit into memory.
    pub fn seal_bytes(self, plaintext: &[u8]) -> Result<Vec<u8>> {
        let sealed_len = self.layout().sealed_len(plaintext.len() as u64)?;
        let sealed_len = usize::try_from(sealed_len).map_err(|_| Error::limit("the file does not fit into memory"))?;
        let mut encryptor = self.encryptor;
        let mut out = Vec::with_capacity(sealed_len);
        out.extend_from_slice(self.head.as_bytes());
        let mut chunks = plaintext.chunks_exact(CHUNK_LEN);
        for chunk in &mut chunks {
            encryptor.turn(1)?.seal(append(&mut out, chunk))?;
        }
        encryptor.finish().seal(append(&mut out, chunks.remainder()))?;
        Ok(out)
    }

    /// Seals what is written to the returned writer, and writes the sealed file to `writer`.
    pub fn writer<W: Write>(self, writer: W) -> SealWriter<W> {
        SealWriter::new(self.into_stream(), writer)
    }

    /// Seals what is written to the returned writer, and writes the sealed file to `writer`.
    pub fn async_writer<W: AsyncWrite + Unpin>(self, writer: W) -> AsyncSealWriter<W> {
        AsyncSealWriter::new(self.into_stream(), writer)
    }

    /// The sealed file of a stream of plaintext, as a stream: for HTTP bodies and object stores.
    pub fn stream<S, E>(self, plaintext: S) -> SealStream<S>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        SealStream::new(self.into_stream(), plaintext)
    }

    fn into_stream(self) -> StreamSealer {
        StreamSealer::new(self.encryptor, self.head.as_bytes())
    }
}

/// Appends `text` and room for its tag.
fn append<'o>(out: &'o mut Vec<u8>, text: &[u8]) -> &'o mut [u8] {
    let start = out.len();
    out.extend_from_slice(text);
    out.resize(start + text.len() + TAG_LEN, 0);
    out.get_mut(start..).unwrap_or_default()
}

const _: () = assert!(SEALED_CHUNK_LEN == CHUNK_LEN + TAG_LEN);
