//! Sealing through `std::io::Write`.

use std::io::{self, Write};

use crate::format::stream::StreamSealer;

/// Seals what is written to it, and writes the sealed file to `W` in pieces of about 64 KiB.
///
/// [`finish`](Self::finish) seals the last chunk. Without it the file is cut short, and will be refused as such.
#[must_use = "a file is whole only after `finish`"]
pub struct SealWriter<W> {
    sealer: StreamSealer,
    writer: W,
}

impl<W: Write> SealWriter<W> {
    pub(crate) fn new(sealer: StreamSealer, writer: W) -> Self {
        Self { sealer, writer }
    }

    /// Seals the last chunk, writes what is left, flushes, and returns the writer.
    ///
    /// # Errors
    /// Whatever the writer fails with.
    pub fn finish(mut self) -> io::Result<W> {
        let mut end = self.sealer.finish()?;
        while !end.output().is_empty() {
            let len = write_some(&mut self.writer, end.output())?;
            end.take(len);
        }
        self.writer.flush()?;
        Ok(self.writer)
    }

    fn put_out(&mut self) -> io::Result<()> {
        while !self.sealer.output().is_empty() {
            let len = write_some(&mut self.writer, self.sealer.output())?;
            self.sealer.take(len);
        }
        Ok(())
    }
}

fn write_some(writer: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    match writer.write(bytes) {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(0),
        other => other,
    }
}

impl<W: Write> Write for SealWriter<W> {
    fn write(&mut self, plaintext: &[u8]) -> io::Result<usize> {
        if self.sealer.space().is_empty() {
            self.put_out()?;
        }
        let len = copy(plaintext, self.sealer.space());
        self.sealer.fill(len)?;
        Ok(len)
    }

    /// Writes all full chunks. Plaintext behind the last full chunk stays until more comes or [`Self::finish`] is called:
    /// a short chunk is always the last.
    fn flush(&mut self) -> io::Result<()> {
        self.put_out()?;
        self.writer.flush()
    }
}

/// Copies as much as fits, and says how much.
pub(crate) fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let len = from.len().min(to.len());
    if let (Some(from), Some(to)) = (from.get(..len), to.get_mut(..len)) {
        to.copy_from_slice(from);
    }
    len
}
