//! Writing that reaches the disk while it goes on.

use std::fs::File;
use std::io::{self, IoSlice, Write};

/// How much is written before the kernel is asked to begin with it.
const STEP: u64 = 4 << 20;

/// A new file, written from its start to its end. The kernel would keep what is written in memory until it is made
/// durable at the end, when nothing is left to do meanwhile.
pub(crate) struct WriteBehind {
    file: File,
    written: u64,
    /// How much of that the kernel has been asked to write.
    begun: u64,
}

impl WriteBehind {
    pub(crate) fn new(file: File) -> Self {
        Self { file, written: 0, begun: 0 }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    fn wrote(&mut self, len: usize) {
        self.written += len as u64;
        if self.written - self.begun >= STEP {
            begin_writing(&self.file, self.begun, self.written - self.begun);
            self.begun = self.written;
        }
    }
}

impl Write for WriteBehind {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.file.write(bytes)?;
        self.wrote(len);
        Ok(len)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = self.file.write_vectored(parts)?;
        self.wrote(len);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// "Not needed" starts writing dirty pages without waiting for them, and drops only those that are clean. It is advice:
/// a file system that does not take it makes the file durable at the end.
#[cfg(target_os = "linux")]
fn begin_writing(file: &File, from: u64, len: u64) {
    let _ = rustix::fs::fadvise(file, from, len.try_into().ok(), rustix::fs::Advice::DontNeed);
}

/// Elsewhere the kernel decides.
#[cfg(not(target_os = "linux"))]
fn begin_writing(_: &File, _: u64, _: u64) {}
