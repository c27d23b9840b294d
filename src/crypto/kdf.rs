//! Key derivation: HKDF-Expand with SHA-512 (RFC 5869 section 2.3), and what strongroom derives from a data key.
//!
//! The `hkdf` crate refuses pseudorandom keys shorter than the hash (64 bytes for SHA-512), while both our data keys and
//! c2sp.org/chunked-encryption use 32 uniformly random bytes. So the Expand step stands here, over the `hmac` crate, and
//! is checked against Wycheproof's HKDF vectors.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;
use zeroize::Zeroize;

use crate::crypto::secret::{DataKey, Secret};
use crate::crypto::stack::{self, Depth};
use crate::crypto::suite::Suite;
use crate::error::{Error, Result};

/// Bytes of one HMAC-SHA-512 output block.
const BLOCK: usize = 64;

/// HKDF-Expand-SHA-512: `T(i) = HMAC(prk, T(i-1) || info || i)`, concatenated and cut to `okm`'s length.
///
/// # Errors
/// `Limit` if more than 255 blocks (16 320 bytes) are asked for, as RFC 5869 says.
pub(crate) fn expand(prk: &[u8], info: &[&[u8]], okm: &mut [u8]) -> Result<()> {
    // HMAC's states, as good as the key, and its output are moved about by value.
    stack::swept(Depth::Derivation, || expand_here(prk, info, okm))
}

fn expand_here(prk: &[u8], info: &[&[u8]], okm: &mut [u8]) -> Result<()> {
    let Ok(keyed) = <Hmac<Sha512> as KeyInit>::new_from_slice(prk) else {
        return Err(Error::limit("HMAC takes no key of this length"));
    };
    let mut previous: Option<[u8; BLOCK]> = None;
    for (i, part) in okm.chunks_mut(BLOCK).enumerate() {
        let counter =
            u8::try_from(i + 1).map_err(|_| Error::limit("HKDF-Expand gives at most 255 blocks of 64 bytes"))?;
        let mut mac = keyed.clone();
        if let Some(t) = &previous {
            mac.update(t);
        }
        for piece in info {
            mac.update(piece);
        }
        mac.update(&[counter]);
        let mut block: [u8; BLOCK] = mac.finalize().into_bytes().into();
        for (to, from) in part.iter_mut().zip(block.iter()) {
            *to = *from;
        }
        if let Some(t) = previous.replace(block).as_mut() {
            t.zeroize();
        }
        block.zeroize();
    }
    if let Some(t) = previous.as_mut() {
        t.zeroize();
    }
    Ok(())
}

/// What a derived key is for. Separate labels, so that no derived key says anything about another (FORMAT.md, "Keys
/// derived from a data key").
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The 32-byte public name of the data key, which commits to it.
    KeyId,
    /// The XAES-256-GCM or XChaCha20-Poly1305 key of messages.
    Message,
    /// The chunked-encryption input key of files.
    File,
}

impl Purpose {
    const fn name(self) -> &'static str {
        match self {
            Self::KeyId => "/key-id",
            Self::Message => "/message",
            Self::File => "/file",
        }
    }
}

/// Derives the 32 bytes for `purpose` from a data key.
pub(crate) fn derive(data_key: &DataKey, suite: Suite, purpose: Purpose) -> Result<Secret<32>> {
    let info = ["strongroom/v1/", suite.name(), purpose.name()].map(str::as_bytes);
    Secret::filled_by(|into| expand(data_key.expose(), &info, into))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn purposes_and_suites_are_separated() {
        let key = DataKey::take(&mut b"0123456789abcdef0123456789abcdef".to_vec()).unwrap();
        let mut seen = HashSet::new();
        for suite in Suite::ALL {
            for purpose in [Purpose::KeyId, Purpose::Message, Purpose::File] {
                assert!(seen.insert(*derive(&key, suite, purpose).unwrap().expose()));
            }
        }
        assert!(!seen.contains(key.expose()));
    }

    #[test]
    fn length_limit_of_rfc_5869() {
        assert!(expand(&[1; 32], &[], &mut [0; 255 * 64]).is_ok());
        assert!(expand(&[1; 32], &[], &mut [0; 255 * 64 + 1]).is_err());
    }
}
