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
use crate::file::range_reader::{READ_RANGE, RangeReader, RangeSource};
use crate::file::seek_reader::SeekReader;
use crate::file::whose::Whose;
use crate::format::chunk::{Decryptor, plain_part};
use crate::format::file::FileHead;
use crate::format::layout::FileLayout;
use crate::format::stream::StreamOpener;
use crate::key::id::TenantId;

/// What errors of opening say was being done.
pub(crate) const OPEN: &str = "open file";

/// Opens the one file whose head it was made from.
///
/// Having one means: the file's head is authentic, and its key, tenant, scope, region and context are the caller's (the
/// commitment has been checked). Nothing is known yet of its chunks or its length; what each way of opening verifies
/// before it releases anything stands with its method. Everything from here on needs neither KMS nor store. It holds the
/// key of this file alone.
pub struct FileOpener {
    head: FileHead,
    decryptor: Decryptor,
    whose: Whose,
}

impl FileOpener {
    pub(crate) fn new(head: FileHead, decryptor: Decryptor) -> Self {
        Self { head, decryptor, whose: Whose::default() }
    }

    /// The same, whose errors name the tenant.
    pub(crate) fn of(self, tenant: &TenantId) -> Self {
        Self { whose: Whose::of(tenant, &self.head), ..self }
    }

    pub(crate) fn into_parts(self) -> (FileHead, Decryptor, Whose) {
        (self.head, self.decryptor, self.whose)
    }

    pub(crate) fn whose(&self) -> &Whose {
        &self.whose
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
        let another = || Error::unopenable_file().because("it starts with another head than the opener was made for");
        let run = || {
            let chunks = file.strip_prefix(self.head.as_bytes()).ok_or_else(another)?;
            let mut text = Plaintext::new(vec![0; plain_part(chunks.len())]);
            self.decryptor.open_all(chunks, text.bytes_mut())?;
            Ok(text)
        };
        run().map_err(|e| self.whose.name(e, OPEN))
    }

    /// Opens the file as it is read from `chunks`, which stands *behind* the head. A chunk is verified before it is
    /// released; that the file is whole is known only when reading ends without an error.
    pub fn reader<R: Read>(self, chunks: R) -> OpenReader<R> {
        let (opener, whose) = self.into_stream();
        OpenReader::new(opener, whose, chunks)
    }

    /// Opens the file as it is read from `chunks`, which stands *behind* the head. A chunk is verified before it is
    /// released; that the file is whole is known only when reading ends without an error.
    pub fn async_reader<R: AsyncRead + Unpin>(self, chunks: R) -> AsyncOpenReader<R> {
        let (opener, whose) = self.into_stream();
        AsyncOpenReader::new(opener, whose, chunks)
    }

    /// Opens the file as it comes from `chunks`, which starts *behind* the head. A chunk is verified before it is
    /// released; that the file is whole is known only when the stream ends without an error.
    pub fn stream<S, E>(self, chunks: S) -> OpenStream<S>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        let (opener, whose) = self.into_stream();
        OpenStream::new(opener, whose, chunks)
    }

    /// Opens any part of the file for reading and seeking. `file` holds the whole sealed file, head included, from its
    /// position 0 on. Chunks are verified as they are read, the length when reading or seeking gets to the end or on
    /// demand.
    ///
    /// # Errors
    /// `Malformed` if no sealed file has the length of `file`, `Io` if that cannot be found out.
    pub fn seekable<R: Read + Seek>(self, file: R) -> Result<SeekReader<R>> {
        let whose = self.whose.clone();
        SeekReader::new(self.head.layout(), self.decryptor, self.whose, file).map_err(|e| whose.name(e, OPEN))
    }

    /// Opens ranges of the file, fetching only the chunks that hold them. `sealed_len` is the length of the sealed file
    /// as its store tells it; it is verified on demand.
    ///
    /// # Errors
    /// `Malformed` if no sealed file has that length.
    pub fn ranges<S: RangeSource>(self, source: S, sealed_len: u64) -> Result<RangeReader<S>> {
        let whose = self.whose.clone();
        let ranges = RangeReader::new(self.head.layout(), self.decryptor, self.whose, source, sealed_len);
        ranges.map_err(|e| whose.name(e, READ_RANGE))
    }

    fn into_stream(self) -> (StreamOpener, Whose) {
        (StreamOpener::new(self.decryptor), self.whose)
    }
}
