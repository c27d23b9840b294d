//! Key derivation: HKDF with SHA-512 (RFC 5869), whole, and what strongroom derives from a data key with it.
//!
//! Everything but files' chunks is derived by extract and expand, so that the HKDF of any language's library does it.
//! [`expand`] alone stands here for c2sp.org/chunked-encryption (`crypto/chunked.rs`), which asks for it with a pseudorandom
//! key of 32 bytes, and for nothing else: the `hkdf` crate refuses pseudorandom keys shorter than the hash, 64 bytes. Both are
//! checked against Wycheproof's HKDF vectors.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;
use zeroize::Zeroize;

use crate::crypto::secret::{DataKey, Secret};
use crate::crypto::stack::{self, Depth};
use crate::crypto::suite::Suite;
use crate::error::{Error, Result};

/// Bytes of one HMAC-SHA-512 output block.
const BLOCK: usize = 64;

const TOO_LONG: &str = "HKDF-Expand gives at most 255 blocks of 64 bytes";

/// HKDF-SHA-512, extract and expand, of the concatenation of `info`.
///
/// # Errors
/// `Limit` if more than 255 blocks (16 320 bytes) are asked for, as RFC 5869 says.
pub(crate) fn hkdf(salt: &[u8], ikm: &[u8], info: &[&[u8]], okm: &mut [u8]) -> Result<()> {
    // The pseudorandom key and HMAC's states, as good as the key, are moved about by value.
    let derive = || {
        let (mut prk, hkdf) = Hkdf::<Sha512>::extract(Some(salt), ikm);
        prk.as_mut_slice().zeroize();
        hkdf.expand_multi_info(info, okm)
    };
    stack::swept(Depth::Derivation, derive).map_err(|_| Error::limit(TOO_LONG))
}

/// HKDF-Expand-SHA-512 alone: `T(i) = HMAC(prk, T(i-1) || info || i)`, concatenated and cut to `okm`'s length.
///
/// # Errors
/// `Limit` if more than 255 blocks (16 320 bytes) are asked for, as RFC 5869 says.
pub(crate) fn expand(prk: &[u8], info: &[&[u8]], okm: &mut [u8]) -> Result<()> {
    // As for `hkdf`.
    stack::swept(Depth::Derivation, || expand_here(prk, info, okm))
}

fn expand_here(prk: &[u8], info: &[&[u8]], okm: &mut [u8]) -> Result<()> {
    let Ok(keyed) = <Hmac<Sha512> as KeyInit>::new_from_slice(prk) else {
        return Err(Error::limit("HMAC takes no key of this length"));
    };
    let mut previous: Option<[u8; BLOCK]> = None;
    for (i, part) in okm.chunks_mut(BLOCK).enumerate() {
        let counter = u8::try_from(i + 1).map_err(|_| Error::limit(TOO_LONG))?;
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

/// What is derived from a data key for a suite, and bound to nothing else. Separate labels, so that no derived key says anything
/// about another (FORMAT.md, "Keys derived from a data key").
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The 32-byte public name of the data key, which commits to it.
    KeyId,
    /// The chunked-encryption input key of files.
    File,
}

impl Purpose {
    const fn name(self) -> &'static str {
        match self {
            Self::KeyId => "/key-id",
            Self::File => "/file",
        }
    }
}

/// Derives the 32 bytes for `purpose` from a data key.
pub(crate) fn derive(data_key: &DataKey, suite: Suite, purpose: Purpose) -> Result<Secret<32>> {
    derive_labelled(data_key, &["strongroom/v1/", suite.name(), purpose.name()].map(str::as_bytes))
}

/// Derives the 32 bytes for an `info` that starts with a label of its own from a data key.
pub(crate) fn derive_labelled(data_key: &DataKey, info: &[&[u8]]) -> Result<Secret<32>> {
    Secret::filled_by(|into| hkdf(&[], data_key.expose(), info, into))
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
            for purpose in [Purpose::KeyId, Purpose::File] {
                assert!(seen.insert(*derive(&key, suite, purpose).unwrap().expose()));
            }
        }
        for label in [&b"strongroom/v1/message"[..], b"strongroom/v1/"] {
            assert!(seen.insert(*derive_labelled(&key, &[label]).unwrap().expose()));
        }
        assert!(!seen.contains(key.expose()));
    }

    #[test]
    fn length_limit_of_rfc_5869() {
        for derive in [|okm: &mut [u8]| expand(&[1; 32], &[], okm), |okm: &mut [u8]| hkdf(&[], &[1; 32], &[], okm)] {
            assert!(derive(&mut [0; 255 * 64]).is_ok());
            let refused = derive(&mut [0; 255 * 64 + 1]).err().map(|e| e.kind());
            assert_eq!(refused, Some(crate::error::ErrorKind::Limit));
        }
    }
}
