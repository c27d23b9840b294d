//! Reading the head of a sealed file from where files come from.

use std::io::Read;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::{Error, Result};
use crate::file::failure::While;
use crate::file::range_reader::RangeSource;
use crate::format::file::FileHead;

const SHORT: &str = "the file ends before its first chunk";
const FAILED: &str = "the head of the file could not be read";

impl FileHead {
    /// Reads the head and not a byte more, so that `reader` stands at the first chunk.
    ///
    /// # Errors
    /// `Malformed` if no sealed file starts there, `Io` if reading fails.
    pub fn read_from(reader: &mut (impl Read + ?Sized)) -> Result<Self> {
        let mut start = Vec::with_capacity(Self::MAX_LEN);
        loop {
            let more = Self::needed(&start)?.saturating_sub(start.len());
            if more == 0 {
                return Self::parse(&start);
            }
            if reader.take(more as u64).read_to_end(&mut start).doing(FAILED)? < more {
                return Err(Self::needed(&start).err().unwrap_or_else(|| Error::malformed(SHORT)));
            }
        }
    }

    /// Reads the head and not a byte more, so that `reader` stands at the first chunk.
    ///
    /// # Errors
    /// `Malformed` if no sealed file starts there, `Io` if reading fails.
    pub async fn read_from_async(reader: &mut (impl AsyncRead + Unpin + ?Sized)) -> Result<Self> {
        let mut start = Vec::with_capacity(Self::MAX_LEN);
        loop {
            let more = Self::needed(&start)?.saturating_sub(start.len());
            if more == 0 {
                return Self::parse(&start);
            }
            if (&mut *reader).take(more as u64).read_to_end(&mut start).await.doing(FAILED)? < more {
                return Err(Self::needed(&start).err().unwrap_or_else(|| Error::malformed(SHORT)));
            }
        }
    }

    /// Fetches the head of a sealed file of `sealed_len` bytes: at most 131 bytes, in one request.
    ///
    /// # Errors
    /// `Malformed` if no sealed file starts there; whatever `source` fails with.
    pub async fn fetch_from(source: &(impl RangeSource + ?Sized), sealed_len: u64) -> Result<Self> {
        Self::parse(&source.fetch(0..sealed_len.min(Self::MAX_LEN as u64)).await?)
    }
}
