//! Sealing through `std::io::Write`.

use std::io::{self, Write};

use crate::file::sealer::SEAL;
use crate::file::whose::Whose;
use crate::format::stream::{SealedEnd, StreamSealer};

/// Seals what is written to it, and writes the sealed file to `W` in pieces of about 64 KiB.
///
/// [`finish`](Self::finish) or [`try_finish`](Self::try_finish) seals the last chunk. Without it the file is cut short, and will be
/// refused as such.
#[must_use = "a file is whole only after `finish`"]
pub struct SealWriter<W> {
    state: State,
    whose: Whose,
    writer: W,
}

enum State {
    Sealing(Box<StreamSealer>),
    Ending(SealedEnd),
    /// Failed while the last chunk was sealed.
    Failed,
}

fn over() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the file has been sealed to its end")
}

impl<W: Write> SealWriter<W> {
    pub(crate) fn new(sealer: StreamSealer, whose: Whose, writer: W) -> Self {
        Self { state: State::Sealing(Box::new(sealer)), whose, writer }
    }

    /// Seals the last chunk, writes what is left, flushes, and returns the writer.
    ///
    /// # Errors
    /// Whatever the writer fails with; the writer is lost then, and what it had not taken. Where it may say `WouldBlock`, call
    /// [`Self::try_finish`].
    pub fn finish(mut self) -> io::Result<W> {
        self.try_finish()?;
        Ok(self.writer)
    }

    /// Seals the last chunk, writes what is left and flushes. After an error it goes on where it was when it is called again.
    /// From the first call on nothing more can be written.
    ///
    /// # Errors
    /// Whatever the writer fails with; ours if the last chunk cannot be sealed, for good.
    pub fn try_finish(&mut self) -> io::Result<()> {
        if let State::Sealing(_) = self.state
            && let State::Sealing(sealer) = std::mem::replace(&mut self.state, State::Failed)
        {
            self.state = State::Ending(sealer.finish().map_err(|e| self.whose.name(e, SEAL))?);
        }
        let State::Ending(end) = &mut self.state else { return Err(over()) };
        while !end.output().is_empty() {
            let len = write_some(&mut self.writer, end.output())?;
            end.take(len);
        }
        self.writer.flush()
    }

    /// The writer.
    pub fn get_ref(&self) -> &W {
        &self.writer
    }

    /// The writer. What is written to it past this one is no part of the sealed file.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.writer
    }

    /// The writer. Only after [`Self::try_finish`] does it hold a whole file.
    pub fn into_inner(self) -> W {
        self.writer
    }
}

fn put_out(sealer: &mut StreamSealer, writer: &mut impl Write) -> io::Result<()> {
    while !sealer.output().is_empty() {
        let len = write_some(writer, sealer.output())?;
        sealer.take(len);
    }
    Ok(())
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
        let State::Sealing(sealer) = &mut self.state else { return Err(over()) };
        if sealer.space().is_empty() {
            put_out(sealer, &mut self.writer)?;
        }
        let len = copy(plaintext, sealer.space());
        sealer.fill(len).map_err(|e| self.whose.name(e, SEAL))?;
        Ok(len)
    }

    /// Writes all full chunks. Plaintext behind the last full chunk stays until more comes or [`Self::finish`] is called:
    /// a short chunk is always the last.
    fn flush(&mut self) -> io::Result<()> {
        if let State::Sealing(sealer) = &mut self.state {
            put_out(sealer, &mut self.writer)?;
        }
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
