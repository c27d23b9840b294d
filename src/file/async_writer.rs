//! Sealing through tokio's `AsyncWrite`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::file::seal_writer::copy;
use crate::file::sealer::SEAL;
use crate::file::whose::Whose;
use crate::format::stream::{SealedEnd, StreamSealer};

/// Seals what is written to it, and writes the sealed file to `W` in pieces of about 64 KiB.
///
/// Shutting it down (`AsyncWriteExt::shutdown`) seals the last chunk and shuts the writer down. Without that the file is
/// cut short, and will be refused as such.
pub struct AsyncSealWriter<W> {
    state: State,
    whose: Whose,
    writer: W,
}

enum State {
    Sealing(Box<StreamSealer>),
    Ending(SealedEnd),
    /// Sealed to the end, or failed there.
    Over,
}

impl<W: AsyncWrite + Unpin> AsyncSealWriter<W> {
    pub(crate) fn new(sealer: StreamSealer, whose: Whose, writer: W) -> Self {
        Self { state: State::Sealing(Box::new(sealer)), whose, writer }
    }

    /// The writer. Only after shutting down does it hold a whole file.
    pub fn into_inner(self) -> W {
        self.writer
    }
}

fn over() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the file has been sealed to its end")
}

/// Writes a piece of `bytes` and says how much.
fn poll_write_some(
    writer: &mut (impl AsyncWrite + Unpin),
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(writer).poll_write(cx, bytes)) {
        Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        other => Poll::Ready(other),
    }
}

fn poll_put_out(
    sealer: &mut StreamSealer,
    writer: &mut (impl AsyncWrite + Unpin),
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while !sealer.output().is_empty() {
        let len = ready!(poll_write_some(writer, cx, sealer.output()))?;
        sealer.take(len);
    }
    Poll::Ready(Ok(()))
}

impl<W: AsyncWrite + Unpin> AsyncWrite for AsyncSealWriter<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, plaintext: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let State::Sealing(sealer) = &mut this.state else {
            return Poll::Ready(Err(over()));
        };
        if sealer.space().is_empty() {
            ready!(poll_put_out(sealer, &mut this.writer, cx))?;
        }
        let len = copy(plaintext, sealer.space());
        sealer.fill(len).map_err(|e| this.whose.name(e, SEAL))?;
        Poll::Ready(Ok(len))
    }

    /// Writes all full chunks. Plaintext behind the last full chunk stays until more comes or the writer is shut down: a
    /// short chunk is always the last.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let State::Sealing(sealer) = &mut this.state {
            ready!(poll_put_out(sealer, &mut this.writer, cx))?;
        }
        Pin::new(&mut this.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let State::Sealing(_) = this.state
            && let State::Sealing(sealer) = std::mem::replace(&mut this.state, State::Over)
        {
            this.state = State::Ending(sealer.finish().map_err(|e| this.whose.name(e, SEAL))?);
        }
        if let State::Ending(end) = &mut this.state {
            while !end.output().is_empty() {
                let len = ready!(poll_write_some(&mut this.writer, cx, end.output()))?;
                end.take(len);
            }
            this.state = State::Over;
        }
        Pin::new(&mut this.writer).poll_shutdown(cx)
    }
}
