//! Opening through `std::io::Read`.

use std::io::{self, Read};

use crate::file::opener::OPEN;
use crate::file::seal_writer::copy;
use crate::file::whose::Whose;
use crate::format::stream::StreamOpener;

/// Opens a file as it is read.
///
/// Every byte it returns belongs to a verified chunk in its right place. That the file is *whole* is known only when
/// reading has ended, with `Ok(0)`; a truncated one ends with an error of kind `InvalidData` around
/// [`Unopenable`](crate::ErrorKind::Unopenable). Once refused, it returns nothing more.
pub struct OpenReader<R> {
    opener: StreamOpener,
    whose: Whose,
    chunks: R,
}

impl<R: Read> OpenReader<R> {
    pub(crate) fn new(opener: StreamOpener, whose: Whose, chunks: R) -> Self {
        Self { opener, whose, chunks }
    }

    /// Whether the end has been verified: then all that was read is the whole file.
    pub fn is_whole(&self) -> bool {
        self.opener.has_ended()
    }

    fn read_opened(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            let len = copy(self.opener.output()?, into);
            if len > 0 || self.opener.has_ended() {
                self.opener.take(len);
                return Ok(len);
            }
            match self.chunks.read(self.opener.space())? {
                0 => self.opener.end()?,
                len => self.opener.fill(len),
            }
        }
    }
}

impl<R: Read> Read for OpenReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.read_opened(into).map_err(|e| self.whose.name_io(e, OPEN))
    }
}
