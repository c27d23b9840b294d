//! HMAC-SHA-512 (RFC 2104, FIPS 198-1), cut to 32 bytes: authenticates what is stored outside this process.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;
use subtle::ConstantTimeEq;

use crate::crypto::secret::Secret;

/// Bytes of a tag.
pub(crate) const TAG_LEN: usize = 32;

/// The tag of the parts, joined, under `key`.
pub(crate) fn tag(key: &Secret<32>, parts: &[&[u8]]) -> [u8; TAG_LEN] {
    under(key.expose(), parts)
}

/// The same under a key of any length, as vectors have them.
pub(super) fn under(key: &[u8], parts: &[&[u8]]) -> [u8; TAG_LEN] {
    let mut tag = [0; TAG_LEN];
    // HMAC takes keys of any length: nothing here is refused.
    if let Ok(mut mac) = <Hmac<Sha512> as KeyInit>::new_from_slice(key) {
        for part in parts {
            mac.update(part);
        }
        let whole = mac.finalize().into_bytes();
        for (to, from) in tag.iter_mut().zip(whole.iter()) {
            *to = *from;
        }
    }
    tag
}

/// Whether `claimed` is the tag of the parts, compared in constant time.
pub(crate) fn verifies(key: &Secret<32>, parts: &[&[u8]], claimed: &[u8; TAG_LEN]) -> bool {
    tag(key, parts).ct_eq(claimed).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wycheproof's vectors are in `crypto/vectors.rs`. Here: what joins.
    #[test]
    fn parts_are_joined_and_every_bit_counts() {
        let key = Secret::take(&mut [7; 32]);
        let good = tag(&key, &[b"ab", b"c"]);
        assert!(verifies(&key, &[b"a", b"bc"], &good));
        for bit in 0..256 {
            let mut other = good;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!verifies(&key, &[b"abc"], &other));
        }
        assert!(!verifies(&key, &[b"abd"], &good) && !verifies(&Secret::take(&mut [8; 32]), &[b"abc"], &good));
    }
}
