//! Where floors above let bytes be written: a bounded buffer on the stack for the hot path, a `Vec` elsewhere.

use arrayvec::ArrayVec;

use crate::error::{Error, Result};

/// Takes bytes, or refuses when full. What was written before a refusal is discarded by the caller.
pub(crate) trait Sink {
    fn put(&mut self, bytes: &[u8]) -> Result<()>;
}

impl<const N: usize> Sink for ArrayVec<u8, N> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.try_extend_from_slice(bytes)
            .map_err(|_| Error::limit("tenant, scope and context together exceed 1024 bytes in canonical form"))
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Writes `bytes` behind their length as one byte. The length is checked against `max` at most 255.
pub(crate) fn put_short(out: &mut impl Sink, bytes: &[u8], max: u8, refusal: &'static str) -> Result<()> {
    match u8::try_from(bytes.len()) {
        Ok(len) if len <= max => {
            out.put(&[len])?;
            out.put(bytes)
        }
        _ => Err(Error::limit(refusal)),
    }
}
