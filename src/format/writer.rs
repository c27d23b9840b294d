//! Bytes behind their length.

use crate::error::{Error, Result};

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
