//! Opening any part of a file through `Read` and `Seek`.

use std::io::{self, Read, Seek, SeekFrom};

use crate::crypto::wiped::Wiped;
use crate::error::{Error, Result};
use crate::file::failure::While;
use crate::file::opener::OPEN;
use crate::file::seal_writer::copy;
use crate::file::whose::Whose;
use crate::format::chunk::Decryptor;
use crate::format::layout::{CHUNK_LEN, FileLayout, SEALED_CHUNK_LEN};

/// Opens any part of a sealed file; reads and verifies only the chunks that are asked for, one at a time.
///
/// Every byte it returns belongs to a verified chunk in its right place. The *length* of the file is verified when first
/// needed: by [`verified_len`](Self::verified_len), by seeking relative to the end or to behind it, and before a read
/// says that the file has ended. A file that was cut short between two chunks thus reads correctly up to the cut, and
/// then with an error of kind `InvalidData`, never with an end. Seeking behind the end is refused.
pub struct SeekReader<R> {
    file: R,
    decryptor: Decryptor,
    whose: Whose,
    layout: FileLayout,
    sealed_len: u64,
    /// What the length of the sealed file claims.
    plain_len: u64,
    len_verified: bool,
    position: u64,
    chunk: Wiped,
    /// The number of the chunk whose plaintext stands in `chunk`, and its length.
    opened: Option<(u64, usize)>,
}

impl<R: Read + Seek> SeekReader<R> {
    pub(crate) fn new(layout: FileLayout, decryptor: Decryptor, whose: Whose, mut file: R) -> Result<Self> {
        let sealed_len = file.seek(SeekFrom::End(0)).doing("the length of the file could not be read")?;
        Ok(Self {
            file,
            decryptor,
            whose,
            layout,
            sealed_len,
            plain_len: layout.plain_len(sealed_len)?,
            len_verified: false,
            position: 0,
            chunk: Wiped::zeroed(SEALED_CHUNK_LEN),
            opened: None,
        })
    }

    /// The length of the plaintext, proved by opening the last chunk.
    ///
    /// # Errors
    /// `Unopenable` if the file was cut short or its last chunk does not open, `Io` if reading fails.
    pub fn verified_len(&mut self) -> Result<u64> {
        self.verify_len().map_err(|e| self.whose.name(e, OPEN))
    }

    fn verify_len(&mut self) -> Result<u64> {
        if !self.len_verified {
            self.open_chunk(self.plain_len / CHUNK_LEN as u64)?;
        }
        Ok(self.plain_len)
    }

    /// Has the plaintext of the chunk numbered `number` stand in `chunk`.
    fn open_chunk(&mut self, number: u64) -> Result<usize> {
        if let Some((opened, len)) = self.opened
            && opened == number
        {
            return Ok(len);
        }
        self.opened = None;
        let (last, last_range) = self.layout.last_chunk(self.sealed_len)?;
        let start = last_range.start - (last - number.min(last)) * SEALED_CHUNK_LEN as u64;
        let sealed = (last_range.end - start).min(SEALED_CHUNK_LEN as u64);
        let sealed = self.chunk.get_mut(..usize::try_from(sealed).unwrap_or(0)).unwrap_or_default();
        self.file.seek(SeekFrom::Start(start)).doing("seeking in the file failed")?;
        match self.file.read_exact(sealed) {
            // It has become shorter under our hands.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Error::unopenable_file().because("it became shorter while it was read"));
            }
            read => read.doing("the file could not be read")?,
        }
        let len = if number == last {
            self.decryptor.open_last(number, sealed)?
        } else {
            self.decryptor.open_block(number, sealed)?;
            CHUNK_LEN
        };
        self.len_verified |= number == last;
        self.opened = Some((number, len));
        Ok(len)
    }
}

impl<R: Read + Seek> Read for SeekReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        if self.position >= self.plain_len {
            self.verified_len()?;
            return Ok(0);
        }
        let opened = self.open_chunk(self.position / CHUNK_LEN as u64);
        let len = opened.map_err(|e| self.whose.name(e, OPEN))?;
        let at = usize::try_from(self.position % CHUNK_LEN as u64).unwrap_or(len);
        let copied = copy(self.chunk.get(at..len).unwrap_or_default(), into);
        self.position += copied as u64;
        Ok(copied)
    }
}

impl<R: Read + Seek> Seek for SeekReader<R> {
    /// Moves to a position from 0 to the length of the plaintext, that one included. Seeking relative to the end verifies
    /// the length first.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.verified_len()?.checked_add_signed(offset),
        };
        match target {
            Some(position) if position <= self.plain_len => {
                self.position = position;
                Ok(position)
            }
            _ => {
                // Whether this is behind the end or the file was cut short is told only of a verified length.
                self.verified_len()?;
                Err(self.whose.name(Error::invalid("the position is not within the file"), OPEN).into())
            }
        }
    }
}
