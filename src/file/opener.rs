//! What opens one file.

use std::io::{Read, Seek};

use bytes::Bytes;
use futures_util::Stream;
use tokio::io::AsyncRead;

use crate::crypto::secret::Plaintext;
use crate::error::{Error, Result};
use crate::file::async_reader::AsyncOpenReader;
use crate::file::open_reader::OpenReader;
use crate::file::open_stream::OpenStream;
use crate::file::range_reader::{RangeReader, RangeSource};
use crate::file::seek_reader::SeekReader;
use crate::format::chunk::{Decryptor, plain_part};
use crate::format::file::FileHead;
use crate::format::layout::FileLayout;
use crate::format::stream::StreamOpener;

/// Opens the one file whose head it was made from.
///
/// Having one means: the file's head is authentic, and its key, tenant, scope, region and context are the caller's (the
/// commitment has been checked). Nothing is known yet of its chunks or its length; what each way of opening verifies
/// before it releases anything stands with its method. Everything from here on needs neither KMS nor store. It holds the
/// key of this file alone.
pub struct FileOpener {
    head: FileHead,
    decryptor: Decryptor,
}

impl FileOpener {
    pub(crate) fn new(head: FileHead, decryptor: Decryptor) -> Self {
        Self { head, decryptor }
    }

    pub(crate) fn into_parts(self) -> (FileHead, Decryptor) {
        (self.head, self.decryptor)
    }

    /// The head of the file; it is authentic.
    pub fn head(&self) -> &FileHead {
        &self.head
    }

    /// Where things are in the file.
    pub fn layout(&self) -> FileLayout {
        self.head.layout()
    }

    /// Opens a whole file in memory, head included. Returns nothing unless all of it is verified.
    ///
    /// # Errors
    /// `Unopenable` if it is not that file, whole and unchanged.
    pub fn open_bytes(self, file: &[u8]) -> Result<Plaintext> {
        let chunks = file.strip_prefix(self.head.as_bytes()).ok_or_else(Error::unopenable_file)?;
        let mut text = Plaintext::new(vec![0; plain_part(chunks.len())]);
        self.decryptor.open_all(chunks, text.bytes_mut())?;
        Ok(text)
    }

    /// Opens the file as it is read from `chunks`, which stands *behind* the head. A chunk is verified before it is
    /// released; that the file is whole is known only when reading ends without an error.
    pub fn reader<R: Read>(self, chunks: R) -> OpenReader<R> {
        OpenReader::new(self.into_stream(), chunks)
    }

    /// Opens the file as it is read from `chunks`, which stands *behind* the head. A chunk is verified before it is
    /// released; that the file is whole is known only when reading ends without an error.
    pub fn async_reader<R: AsyncRead + Unpin>(self, chunks: R) -> AsyncOpenReader<R> {
        AsyncOpenReader::new(self.into_stream(), chunks)
    }

    /// Opens the file as it comes from `chunks`, which starts *behind* the head. A chunk is verified before it is
    /// released; that the file is whole is known only when the stream ends without an error.
    pub fn stream<S, E>(self, chunks: S) -> OpenStream<S>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        OpenStream::new(self.into_stream(), chunks)
    }

    /// Opens any part of the file for reading and seeking. `file` holds the whole sealed file, head included, from its
    /// position 0 on. Chunks are verified as they are read, the length when reading or seeking gets to the end or on
    /// demand.
    ///
    /// # Errors
    /// `Malformed` if no sealed file has the length of `file`, `Io` if that cannot be found out.
    pub fn seekable<R: Read + Seek>(self, file: R) -> Result<SeekReader<R>> {
        SeekReader::new(self.head.layout(), self.decryptor, file)
    }

    /// Opens ranges of the file, fetching only the chunks that hold them. `sealed_len` is the length of the sealed file
    /// as its store tells it; it is verified on demand.
    ///
    /// # Errors
    /// `Malformed` if no sealed file has that length.
    pub fn ranges<S: RangeSource>(self, source: S, sealed_len: u64) -> Result<RangeReader<S>> {
        RangeReader::new(self.head.layout(), self.decryptor, source, sealed_len)
    }

    fn into_stream(self) -> StreamOpener {
        StreamOpener::new(self.decryptor)
    }
}
