//! Where things are in a sealed file (FORMAT.md, "File envelope"): pure arithmetic between lengths and ranges of the
//! plaintext and those of the sealed file.

use std::ops::Range;

use crate::crypto::aead::TAG_LEN;
use crate::error::{Error, Result};
use crate::format::file::head_len;
use crate::format::header::is_region_name;

/// Bytes of plaintext in every chunk but the last: 16 KiB. The last has fewer, perhaps none.
pub const CHUNK_LEN: usize = 1 << 14;
/// Bytes of a sealed chunk, the last one excepted: the ciphertext and its tag.
pub const SEALED_CHUNK_LEN: usize = CHUNK_LEN + TAG_LEN;
/// Most chunks of a file: 2^38.
pub const MAX_CHUNKS: u64 = 1 << 38;
/// Most bytes of a file's plaintext: 4 PiB - 1.
pub const MAX_FILE: u64 = MAX_CHUNKS * CHUNK_LEN as u64 - 1;

const CHUNK: u64 = CHUNK_LEN as u64;
const SEALED_CHUNK: u64 = SEALED_CHUNK_LEN as u64;
const TAG: u64 = TAG_LEN as u64;

/// The arithmetic of a sealed file. It depends on nothing but the length of the region's name, which is part of the head.
///
/// An HTTP server that holds a sealed file answers a `Range` request for plaintext by fetching [`Self::sealed_range`] of
/// it and opening those chunks; [`RangeReader`](crate::RangeReader) does both.
///
/// ```
/// let layout = strongroom::FileLayout::of_region("eu-central-1")?;
/// assert_eq!(layout.head_len(), 111);
/// assert_eq!(layout.sealed_len(0)?, 111 + 16); // one empty chunk
/// assert_eq!(layout.sealed_len(16_384)?, 111 + 16_400 + 16); // a full chunk and an empty one
/// assert_eq!(layout.plain_len(111 + 16_400 + 16)?, 16_384);
/// assert_eq!(layout.chunks(16_383..16_385), 0..2);
/// let sealed_len = layout.sealed_len(20_000)?;
/// assert_eq!(layout.sealed_range(16_384..16_385, sealed_len)?, 16_511..sealed_len);
/// # Ok::<(), strongroom::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLayout {
    head_len: u64,
}

impl FileLayout {
    /// Of the files of a region, whose name has 1 to 32 bytes.
    ///
    /// # Errors
    /// `InvalidArgument` if `region` is not a region's name.
    pub fn of_region(region: &str) -> Result<Self> {
        if is_region_name(region.as_bytes()) {
            Ok(Self::after(head_len(region.len())))
        } else {
            Err(Error::invalid("a region's name has 1 to 32 of a-z, 0-9 and '-'"))
        }
    }

    /// Of a file whose head has `head_len` bytes.
    pub(crate) fn after(head_len: usize) -> Self {
        Self { head_len: head_len as u64 }
    }

    /// Bytes before the first chunk: 99 and the region's name.
    pub fn head_len(self) -> u64 {
        self.head_len
    }

    /// Bytes of the sealed file of `plain_len` bytes of plaintext.
    ///
    /// # Errors
    /// `Limit` beyond 4 PiB - 1.
    pub fn sealed_len(self, plain_len: u64) -> Result<u64> {
        check_length(plain_len)?;
        Ok(self.head_len + plain_len + TAG * (plain_len / CHUNK + 1))
    }

    /// Bytes of plaintext in a sealed file of `sealed_len` bytes: what that length *claims*. Only opening the last chunk
    /// proves it.
    ///
    /// # Errors
    /// `Malformed` if no sealed file has this length, which always means that it was truncated or appended to; `Limit`
    /// beyond 4 PiB - 1 of plaintext.
    pub fn plain_len(self, sealed_len: u64) -> Result<u64> {
        const NO_FILE: &str = "no sealed file has this length: it was truncated or appended to";
        let body = sealed_len.checked_sub(self.head_len).ok_or_else(|| Error::malformed(NO_FILE))?;
        let last = (body % SEALED_CHUNK).checked_sub(TAG).ok_or_else(|| Error::malformed(NO_FILE))?;
        let plain_len = body / SEALED_CHUNK * CHUNK + last;
        check_length(plain_len)?;
        Ok(plain_len)
    }

    /// The numbers of the chunks that hold the plaintext `range`; none for an empty one.
    pub fn chunks(self, range: Range<u64>) -> Range<u64> {
        if range.is_empty() {
            let at = range.start / CHUNK;
            return at..at;
        }
        range.start / CHUNK..(range.end - 1) / CHUNK + 1
    }

    /// The bytes of a sealed file of `sealed_len` bytes that hold the plaintext `range`: whole sealed chunks.
    ///
    /// # Errors
    /// As [`Self::plain_len`]; `InvalidArgument` if `range` ends behind the plaintext that `sealed_len` claims, or before
    /// it starts.
    pub fn sealed_range(self, range: Range<u64>, sealed_len: u64) -> Result<Range<u64>> {
        let plain_len = self.plain_len(sealed_len)?;
        if range.start > range.end || range.end > plain_len {
            return Err(Error::invalid("the range is not within the file"));
        }
        let chunks = self.chunks(range);
        let at = |chunk: u64| (self.head_len + chunk * SEALED_CHUNK).min(sealed_len);
        Ok(at(chunks.start)..at(chunks.end))
    }

    /// The bytes of the last chunk of a sealed file of `sealed_len` bytes, and its number.
    ///
    /// # Errors
    /// As [`Self::plain_len`].
    pub fn last_chunk(self, sealed_len: u64) -> Result<(u64, Range<u64>)> {
        let number = self.plain_len(sealed_len)? / CHUNK;
        Ok((number, self.head_len + number * SEALED_CHUNK..sealed_len))
    }
}

/// # Errors
/// `Limit` if a file of `plain_len` bytes is too long.
pub(crate) fn check_length(plain_len: u64) -> Result<()> {
    if plain_len > MAX_FILE { Err(Error::limit("a file has at most 4 PiB - 1 of plaintext")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use proptest::prelude::*;

    const LAYOUT: FileLayout = FileLayout { head_len: 101 };

    #[test]
    fn only_lengths_of_sealed_files_are_taken() {
        let valid: std::collections::HashMap<u64, u64> =
            (0..50_000).map(|plain| (LAYOUT.sealed_len(plain).unwrap(), plain)).collect();
        for sealed in 0..50_000 {
            assert_eq!(LAYOUT.plain_len(sealed).ok(), valid.get(&sealed).copied(), "{sealed}");
        }
    }

    #[test]
    fn four_pebibytes_and_no_more() {
        let most = LAYOUT.sealed_len(MAX_FILE).unwrap();
        assert_eq!(LAYOUT.plain_len(most).unwrap(), (1 << 52) - 1);
        for over in [MAX_FILE + 1, u64::MAX] {
            assert_eq!(LAYOUT.sealed_len(over).unwrap_err().kind(), ErrorKind::Limit);
        }
        // 2^38 full chunks and an empty one; and the largest number there is.
        for over in [101 + MAX_CHUNKS * SEALED_CHUNK + 16, u64::MAX] {
            assert_eq!(LAYOUT.plain_len(over).unwrap_err().kind(), ErrorKind::Limit, "{over}");
        }
    }

    #[test]
    fn ranges_outside_the_file_are_refused() {
        let sealed = LAYOUT.sealed_len(10).unwrap();
        #[expect(clippy::reversed_empty_ranges)]
        for range in [0..11, 11..11, 3..2, u64::MAX..u64::MAX, 0..u64::MAX] {
            assert_eq!(LAYOUT.sealed_range(range, sealed).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        assert_eq!(LAYOUT.sealed_range(10..10, sealed).unwrap(), 101..101);
    }

    proptest! {
        #[test]
        fn a_range_lies_within_its_chunks(plain in 1..1_000_000_u64, a: u64, b: u64) {
            let (a, b) = (a % plain, b % plain);
            let range = a.min(b)..a.max(b) + 1;
            let sealed_len = LAYOUT.sealed_len(plain).unwrap();
            let chunks = LAYOUT.chunks(range.clone());
            prop_assert!(chunks.start * CHUNK <= range.start && range.start < (chunks.start + 1) * CHUNK);
            prop_assert!((chunks.end - 1) * CHUNK < range.end && range.end <= chunks.end * CHUNK);
            let sealed = LAYOUT.sealed_range(range, sealed_len).unwrap();
            prop_assert_eq!(sealed.start, 101 + chunks.start * SEALED_CHUNK);
            prop_assert!(sealed.end <= sealed_len);
            let (last, at) = LAYOUT.last_chunk(sealed_len).unwrap();
            prop_assert_eq!((last, at.end), (plain / CHUNK, sealed_len));
            if chunks.end == last + 1 {
                prop_assert_eq!(sealed.end, sealed_len);
            }
        }

        #[test]
        fn lengths_round_trip(plain in 0..=MAX_FILE) {
            prop_assert_eq!(LAYOUT.plain_len(LAYOUT.sealed_len(plain).unwrap()).unwrap(), plain);
        }
    }

    #[test]
    fn chunks_of_a_range_and_the_last_one() {
        assert_eq!(LAYOUT.head_len(), 101);
        for (range, chunks) in [
            (0..1, 0..1),
            (0..CHUNK, 0..1),
            (0..CHUNK + 1, 0..2),
            (CHUNK - 1..CHUNK, 0..1),
            (CHUNK..2 * CHUNK, 1..2),
            (3 * CHUNK + 5..7 * CHUNK + 1, 3..8),
            (2 * CHUNK..2 * CHUNK, 2..2),
        ] {
            assert_eq!(LAYOUT.chunks(range.clone()), chunks, "{range:?}");
        }
        for (plain, number, len) in [(0, 0, TAG), (5, 0, 5 + TAG), (3 * CHUNK, 3, TAG), (3 * CHUNK + 5, 3, 5 + TAG)] {
            let sealed = LAYOUT.sealed_len(plain).unwrap();
            assert_eq!(LAYOUT.last_chunk(sealed).unwrap(), (number, sealed - len..sealed), "{plain}");
        }
    }
}
