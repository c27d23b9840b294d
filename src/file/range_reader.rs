//! Opening ranges of a file that lies where byte ranges can be fetched: an object store, an HTTP server.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};

use crate::crypto::secret::Plaintext;
use crate::error::{Error, ErrorKind, Result};
use crate::file::whose::Whose;
use crate::format::chunk::Decryptor;
use crate::format::layout::{CHUNK_LEN, FileLayout, SEALED_CHUNK_LEN};

/// What errors of reading ranges say was being done.
pub(crate) const READ_RANGE: &str = "read range";

/// Something that byte ranges of one sealed file can be fetched from.
///
/// # Contract
/// `fetch` returns exactly the bytes of `range`, which is never empty, or fails. It may be called concurrently. What it
/// returns is not trusted: wrong bytes are refused, wrong lengths as well.
#[async_trait]
pub trait RangeSource: Send + Sync {
    /// Fetches `range` of the sealed file.
    ///
    /// # Errors
    /// Whatever keeps it from doing so: `Unavailable` and `Throttled` are retryable, `Io` is not.
    async fn fetch(&self, range: Range<u64>) -> Result<Bytes>;
}

#[async_trait]
impl<S: RangeSource + ?Sized> RangeSource for Arc<S> {
    async fn fetch(&self, range: Range<u64>) -> Result<Bytes> {
        (**self).fetch(range).await
    }
}

#[async_trait]
impl<S: RangeSource + ?Sized> RangeSource for Box<S> {
    async fn fetch(&self, range: Range<u64>) -> Result<Bytes> {
        (**self).fetch(range).await
    }
}

/// A sealed file in memory.
#[async_trait]
impl RangeSource for Bytes {
    async fn fetch(&self, range: Range<u64>) -> Result<Bytes> {
        let at = |n: u64| usize::try_from(n).ok().filter(|n| *n <= self.len());
        match (at(range.start), at(range.end)) {
            (Some(start), Some(end)) if start <= end => Ok(self.slice(start..end)),
            _ => Err(Error::invalid("the range is not within the bytes")),
        }
    }
}

/// Most chunks that [`RangeReader::stream`] fetches at once: 1 MiB.
const STREAMED_CHUNKS: u64 = 64;

/// Opens ranges of a sealed file, fetching only the chunks that hold them.
///
/// Every byte it returns belongs to a verified chunk in its right place. The *length* of the file is what the store says
/// until it is verified: by [`verified_len`](Self::verified_len), and before a range is refused for ending behind the
/// file. A file that was cut short between two chunks is refused when a range needs what is missing or its end.
pub struct RangeReader<S> {
    source: S,
    decryptor: Decryptor,
    whose: Whose,
    layout: FileLayout,
    sealed_len: u64,
    plain_len: u64,
    len_verified: AtomicBool,
}

impl<S: RangeSource> RangeReader<S> {
    pub(crate) fn new(
        layout: FileLayout,
        decryptor: Decryptor,
        whose: Whose,
        source: S,
        sealed_len: u64,
    ) -> Result<Self> {
        let plain_len = layout.plain_len(sealed_len)?;
        Ok(Self { source, decryptor, whose, layout, sealed_len, plain_len, len_verified: AtomicBool::new(false) })
    }

    /// The length of the plaintext as the store claims it: not verified, and no request made.
    pub fn claimed_len(&self) -> u64 {
        self.plain_len
    }

    /// The length of the plaintext, proved by fetching and opening the last chunk, once.
    ///
    /// # Errors
    /// `Unopenable` if the file was cut short or its last chunk does not open; whatever the source fails with.
    pub async fn verified_len(&self) -> Result<u64> {
        self.verify_len().await.map_err(|e| self.whose.name(e, READ_RANGE))
    }

    async fn verify_len(&self) -> Result<u64> {
        if !self.len_verified.load(Ordering::Relaxed) {
            let (number, range) = self.layout.last_chunk(self.sealed_len)?;
            let mut chunk = Plaintext::new(self.fetch(range).await?);
            self.decryptor.open_last(number, chunk.bytes_mut())?;
            self.len_verified.store(true, Ordering::Relaxed);
        }
        Ok(self.plain_len)
    }

    /// The `len` bytes of plaintext from `offset` on: one request for the chunks that hold them, none if `len` is 0.
    /// The whole range stands in memory; see [`Self::stream`] for long ones.
    ///
    /// # Errors
    /// `InvalidArgument` if the file ends before the range does, or the source answers more than was asked for; `Unavailable` if
    /// it answers less; `Unopenable` if a chunk does not open or the file was
    /// cut short; whatever the source fails with.
    pub async fn read_range(&self, offset: u64, len: u64) -> Result<Plaintext> {
        let run = async { self.read_checked(self.check(offset, len).await?).await };
        run.await.map_err(|e| self.whose.name(e, READ_RANGE))
    }

    /// The same as a stream of pieces of at most 1 MiB, fetched one by one as they are asked for, each wiped once
    /// nobody holds it. It ends after the first error.
    pub fn stream(&self, offset: u64, len: u64) -> impl Stream<Item = Result<Bytes>> + Send + '_ {
        enum Next {
            Check,
            At(u64, u64),
            Over,
        }
        stream::unfold(Next::Check, move |mut next| async move {
            if let Next::Check = next {
                next = match self.check(offset, len).await {
                    Ok(range) => Next::At(range.start, range.end),
                    Err(e) => return Some((Err(e), Next::Over)),
                };
            }
            let Next::At(start, end) = next else { return None };
            if start == end {
                return None;
            }
            let boundary = (start / CHUNK_LEN as u64 + STREAMED_CHUNKS) * CHUNK_LEN as u64;
            let piece_end = boundary.min(end);
            match self.read_checked(start..piece_end).await {
                Ok(piece) => Some((Ok(Bytes::from_owner(piece)), Next::At(piece_end, end))),
                Err(e) => Some((Err(e), Next::Over)),
            }
        })
        .map(|piece| piece.map_err(|e| self.whose.name(e, READ_RANGE)))
    }

    /// The range, if it is within the file.
    async fn check(&self, offset: u64, len: u64) -> Result<Range<u64>> {
        match offset.checked_add(len) {
            Some(end) if end <= self.plain_len => Ok(offset..end),
            _ => {
                // Whether this is behind the end or the file was cut short is told only of a verified length.
                self.verify_len().await?;
                Err(Error::invalid("the range is not within the file"))
            }
        }
    }

    async fn read_checked(&self, range: Range<u64>) -> Result<Plaintext> {
        let (start, len) = (range.start, range.end - range.start);
        if len == 0 {
            return Ok(Plaintext::new(Vec::new()));
        }
        let chunks = self.layout.chunks(range.clone());
        let sealed = self.layout.sealed_range(range, self.sealed_len)?;
        let mut text = Plaintext::new(self.fetch(sealed).await?);
        let opened = self.open_chunks(chunks, text.bytes_mut())?;
        text.keep(0..opened);
        let at = usize::try_from(start % CHUNK_LEN as u64).unwrap_or(usize::MAX);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        text.keep(at..at.saturating_add(len));
        Ok(text)
    }

    /// Opens the chunks numbered `chunks` in place, moves their plaintext together, and returns its length.
    fn open_chunks(&self, chunks: Range<u64>, sealed: &mut [u8]) -> Result<usize> {
        let (last, _) = self.layout.last_chunk(self.sealed_len)?;
        let mut len = 0;
        for (i, number) in chunks.enumerate() {
            let start = i * SEALED_CHUNK_LEN;
            let end = sealed.len().min(start + SEALED_CHUNK_LEN);
            let chunk = sealed.get_mut(start..end).unwrap_or_default();
            let opened = if number == last {
                let opened = self.decryptor.open_last(number, chunk)?;
                self.len_verified.store(true, Ordering::Relaxed);
                opened
            } else {
                self.decryptor.open_block(number, chunk)?;
                CHUNK_LEN
            };
            sealed.copy_within(start..start + opened, len);
            len += opened;
        }
        Ok(len)
    }

    /// `range` of the sealed file in a buffer of our own.
    async fn fetch(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let bytes = self.source.fetch(range.clone()).await?;
        let (wanted, got) = (range.end - range.start, bytes.len() as u64);
        // Nothing was opened yet: this is no word about the file.
        if got < wanted {
            let message = format!("the source answered {got} of the {wanted} bytes that were asked for; retry");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        if got > wanted {
            return Err(Error::invalid(format!(
                "the source answered {got} bytes where {wanted} were asked for; it has to answer ranges"
            )));
        }
        Ok(Vec::from(bytes))
    }
}
