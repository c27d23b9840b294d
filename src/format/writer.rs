//! Where bytes are written: a slice of fixed length on the hot path, a `Vec` elsewhere.

use crate::error::{Error, Result};

/// Writes `bytes` to the front of `room` and returns the room behind them.
///
/// # Errors
/// `Limit` if there is too little.
#[inline]
pub(crate) fn put<'r>(room: &'r mut [u8], bytes: &[u8]) -> Result<&'r mut [u8]> {
    let Some((front, behind)) = room.split_at_mut_checked(bytes.len()) else {
        return Err(Error::limit("tenant, scope and context together exceed 1024 bytes in canonical form"));
    };
    front.copy_from_slice(bytes);
    Ok(behind)
}

/// Writes `bytes` behind their length as one byte. The length is checked against `max` at most 255.
pub(crate) fn put_short(out: &mut Vec<u8>, bytes: &[u8], max: u8, refusal: &'static str) -> Result<()> {
    match u8::try_from(bytes.len()) {
        Ok(len) if len <= max => {
            out.push(len);
            out.extend_from_slice(bytes);
            Ok(())
        }
        _ => Err(Error::limit(refusal)),
    }
}
