//! Sealing a stream of `Bytes`, for HTTP bodies and object stores.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::Stream;

use crate::file::seal_writer::copy;
use crate::file::sealer::SEAL;
use crate::file::whose::Whose;
use crate::format::stream::StreamSealer;

/// The sealed file of a stream of plaintext, in pieces of about 64 KiB. It is whole when the stream has ended without an
/// error; if the plaintext's stream fails, it ends with that error and the file is cut short, and will be refused as
/// such.
pub struct SealStream<S> {
    state: State,
    whose: Whose,
    plaintext: S,
    /// Plaintext that found no space yet.
    piece: Bytes,
}

enum State {
    Sealing(Box<StreamSealer>),
    /// Sealed to the end, or failed.
    Over,
}

impl<S> SealStream<S> {
    pub(crate) fn new(sealer: StreamSealer, whose: Whose, plaintext: S) -> Self {
        Self { state: State::Sealing(Box::new(sealer)), whose, plaintext, piece: Bytes::new() }
    }
}

impl<S, E> SealStream<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Takes plaintext until there is output, or the plaintext has ended (`None`).
    fn poll_seal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let State::Sealing(sealer) = &mut self.state else {
            return Poll::Ready(Ok(None));
        };
        loop {
            if sealer.space().is_empty() {
                let out = Bytes::copy_from_slice(sealer.output());
                sealer.take(out.len());
                return Poll::Ready(Ok(Some(out)));
            }
            if self.piece.is_empty() {
                match ready!(Pin::new(&mut self.plaintext).poll_next(cx)) {
                    None => return Poll::Ready(Ok(None)),
                    Some(Err(e)) => return Poll::Ready(Err(io::Error::other(e))),
                    Some(Ok(piece)) => self.piece = piece,
                }
            }
            let len = copy(&self.piece, sealer.space());
            self.piece.advance(len);
            sealer.fill(len).map_err(|e| self.whose.name(e, SEAL))?;
        }
    }
}

impl<S, E> Stream for SealStream<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        match ready!(self.poll_seal(cx)) {
            Ok(Some(out)) => return Poll::Ready(Some(Ok(out))),
            Err(e) => {
                self.state = State::Over;
                return Poll::Ready(Some(Err(e)));
            }
            Ok(None) => {}
        }
        match std::mem::replace(&mut self.state, State::Over) {
            State::Sealing(sealer) => {
                let end = match sealer.finish() {
                    Ok(end) => end,
                    Err(e) => return Poll::Ready(Some(Err(self.whose.name(e, SEAL).into()))),
                };
                Poll::Ready(Some(Ok(Bytes::copy_from_slice(end.output()))))
            }
            State::Over => Poll::Ready(None),
        }
    }
}
