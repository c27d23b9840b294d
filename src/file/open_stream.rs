//! Opening a stream of `Bytes`, for HTTP bodies and object stores.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::Stream;

use crate::crypto::secret::Plaintext;
use crate::file::opener::OPEN;
use crate::file::seal_writer::copy;
use crate::file::whose::Whose;
use crate::format::stream::StreamOpener;

/// The plaintext of a stream of sealed chunks, a piece for each chunk.
///
/// Every piece belongs to a verified chunk in its right place. That the file is *whole* is known only when the stream has
/// ended without an error; a truncated one ends with an error of kind `InvalidData` around
/// [`Unopenable`](crate::ErrorKind::Unopenable), and nothing after it.
pub struct OpenStream<S> {
    opener: StreamOpener,
    whose: Whose,
    chunks: S,
    /// Sealed bytes that found no space yet.
    piece: Bytes,
    failed: bool,
}

impl<S> OpenStream<S> {
    pub(crate) fn new(opener: StreamOpener, whose: Whose, chunks: S) -> Self {
        Self { opener, whose, chunks, piece: Bytes::new(), failed: false }
    }

    /// Whether the end has been verified: then all that came is the whole file.
    pub fn is_whole(&self) -> bool {
        self.opener.has_ended()
    }
}

impl<S, E> OpenStream<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            // Wiped once nobody holds it.
            let out = Bytes::from_owner(Plaintext::new(self.opener.output()?.to_vec()));
            if !out.is_empty() {
                self.opener.take(out.len());
                return Poll::Ready(Ok(Some(out)));
            }
            if self.opener.has_ended() {
                return Poll::Ready(Ok(None));
            }
            if self.piece.is_empty() {
                match ready!(Pin::new(&mut self.chunks).poll_next(cx)) {
                    None => {
                        self.opener.end()?;
                        continue;
                    }
                    Some(Err(e)) => return Poll::Ready(Err(io::Error::other(e))),
                    Some(Ok(piece)) => self.piece = piece,
                }
            }
            let len = copy(&self.piece, self.opener.space());
            self.piece.advance(len);
            self.opener.fill(len);
        }
    }
}

impl<S, E> Stream for OpenStream<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.failed {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_open(cx)).map_err(|e| self.whose.name_io(e, OPEN));
        self.failed = next.is_err();
        Poll::Ready(next.transpose())
    }
}
