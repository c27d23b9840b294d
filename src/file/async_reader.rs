//! Opening through tokio's `AsyncRead`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::file::opener::OPEN;
use crate::file::whose::Whose;
use crate::format::stream::StreamOpener;

/// Opens a file as it is read.
///
/// Every byte it returns belongs to a verified chunk in its right place. That the file is *whole* is known only when
/// reading has ended without an error; a truncated one ends with an error of kind `InvalidData` around
/// [`Unopenable`](crate::ErrorKind::Unopenable). Once refused, it returns nothing more.
pub struct AsyncOpenReader<R> {
    opener: StreamOpener,
    whose: Whose,
    chunks: R,
}

impl<R: AsyncRead + Unpin> AsyncOpenReader<R> {
    pub(crate) fn new(opener: StreamOpener, whose: Whose, chunks: R) -> Self {
        Self { opener, whose, chunks }
    }

    /// Whether the end has been verified: then all that was read is the whole file.
    pub fn is_whole(&self) -> bool {
        self.opener.has_ended()
    }

    fn poll_open(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self;
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let ready = this.opener.output()?;
            let len = ready.len().min(into.remaining());
            if len > 0 || this.opener.has_ended() {
                into.put_slice(this.opener.output()?.get(..len).unwrap_or_default());
                this.opener.take(len);
                return Poll::Ready(Ok(()));
            }
            let mut space = ReadBuf::new(this.opener.space());
            ready!(Pin::new(&mut this.chunks).poll_read(cx, &mut space))?;
            match space.filled().len() {
                0 => this.opener.end()?,
                len => this.opener.fill(len),
            }
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for AsyncOpenReader<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_open(cx, into).map_err(|e| self.whose.name_io(e, OPEN))
    }
}
