//! The ciphers. This file alone names a cipher backend: RustCrypto, always there, and `aws-lc-rs`, a default feature
//! that does the bulk work several times faster. Both give identical bytes; the tests run every vector through both.

use aes_gcm::aead::{AeadInOut, KeyInit};
use chacha20poly1305::ChaCha20Poly1305 as RustChaCha;
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::secret::Secret;
use crate::crypto::stack::{self, Depth};

/// Bytes of a 96-bit AEAD nonce.
pub(crate) const NONCE_LEN: usize = 12;
/// Bytes of an AEAD tag.
pub(crate) const TAG_LEN: usize = 16;

/// An AEAD refused. It says nothing more on purpose (compare RustCrypto's `aead::Error`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// Who computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Portable Rust.
    #[cfg_attr(all(feature = "aws-lc-rs", not(any(test, feature = "testing"))), allow(dead_code))]
    RustCrypto,
    /// AWS-LC's assembly.
    #[cfg(feature = "aws-lc-rs")]
    AwsLc,
}

impl Backend {
    /// The fastest backend compiled in.
    #[cfg(feature = "aws-lc-rs")]
    pub(crate) const DEFAULT: Self = Self::AwsLc;
    /// The fastest backend compiled in.
    #[cfg(not(feature = "aws-lc-rs"))]
    pub(crate) const DEFAULT: Self = Self::RustCrypto;

    /// Every backend compiled in.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) const ALL: &'static [Self] = &[
        Self::RustCrypto,
        #[cfg(feature = "aws-lc-rs")]
        Self::AwsLc,
    ];
}

/// Which AEAD, both with a 256-bit key, a 96-bit nonce and a 128-bit tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// NIST SP 800-38D.
    Aes256Gcm,
    /// RFC 8439.
    ChaCha20Poly1305,
}

/// An expanded AEAD key.
pub(crate) struct AeadKey {
    repr: Repr,
    /// How deep the stack has to be swept after work with it.
    residue: Option<Depth>,
}

enum Repr {
    RustAes(Box<aes_gcm::Aes256Gcm>),
    /// Small, and made anew for each message of suite 2: not boxed.
    RustChaCha(RustChaCha),
    #[cfg(feature = "aws-lc-rs")]
    AwsLc(aws_lc_rs::aead::LessSafeKey),
}

impl AeadKey {
    /// Expands `key`. Fails only if the backend cannot allocate.
    #[cfg_attr(not(feature = "aws-lc-rs"), allow(clippy::unnecessary_wraps))] // RustCrypto cannot fail
    pub(crate) fn new(backend: Backend, algorithm: Algorithm, key: &[u8; 32]) -> Result<Self, Refused> {
        match backend {
            Backend::RustCrypto => Ok(Self::portable(algorithm, key)),
            #[cfg(feature = "aws-lc-rs")]
            Backend::AwsLc => Self::aws_lc(algorithm, key),
        }
    }

    // In functions of their own: in one, the compiler may fill what a variant of `Repr` does not use with what another one would
    // hold there, and it did, with seven bytes of the key.
    #[inline(never)]
    fn portable(algorithm: Algorithm, key: &[u8; 32]) -> Self {
        match algorithm {
            Algorithm::Aes256Gcm => {
                // The key schedule is made on the stack and moved. AES leaves blocks of plaintext.
                let expand = || Box::new(aes_gcm::Aes256Gcm::new(key.into()));
                let repr = Repr::RustAes(stack::swept(Depth::PortableAes, expand));
                Self { repr, residue: Some(Depth::PortableAes) }
            }
            // ChaCha20 leaves its key, too.
            Algorithm::ChaCha20Poly1305 => {
                Self { repr: Repr::RustChaCha(RustChaCha::new(key.into())), residue: Some(Depth::Cipher) }
            }
        }
    }

    #[cfg(feature = "aws-lc-rs")]
    #[inline(never)]
    fn aws_lc(algorithm: Algorithm, key: &[u8; 32]) -> Result<Self, Refused> {
        use aws_lc_rs::aead::{AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
        let (algorithm, residue) = match algorithm {
            Algorithm::Aes256Gcm => (&AES_256_GCM, None),
            // It works on a copy of the key.
            Algorithm::ChaCha20Poly1305 => (&CHACHA20_POLY1305, Some(Depth::Cipher)),
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| Refused)?;
        Ok(Self { repr: Repr::AwsLc(LessSafeKey::new(key)), residue })
    }

    /// Encrypts `in_out` in place and writes the tag. `nonce` must never repeat under this key.
    #[inline]
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Refused> {
        self.sweeping(|| self.seal_unswept(nonce, aad, in_out, tag))
    }

    /// As [`Self::seal`], for callers that sweep the stack themselves.
    #[inline]
    pub(crate) fn seal_unswept(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Refused> {
        let made = match &self.repr {
            Repr::RustAes(key) => key.encrypt_inout_detached(nonce.into(), aad, in_out.into()),
            Repr::RustChaCha(key) => key.encrypt_inout_detached(nonce.into(), aad, in_out.into()),
            #[cfg(feature = "aws-lc-rs")]
            Repr::AwsLc(key) => {
                use aws_lc_rs::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(*nonce);
                return key.seal_in_place_scatter(nonce, Aad::from(aad), in_out, &[], tag).map_err(|_| Refused);
            }
        };
        *tag = made.map_err(|_| Refused)?.into();
        Ok(())
    }

    /// Encrypts `from` into `to`, which is as long, and writes the tag: no copy where the backend needs none.
    #[inline]
    pub(crate) fn seal_from(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        from: &[u8],
        to: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Refused> {
        self.sweeping(|| self.seal_from_unswept(nonce, aad, from, to, tag))
    }

    /// As [`Self::seal_from`], for callers that sweep the stack themselves.
    #[inline]
    pub(crate) fn seal_from_unswept(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        from: &[u8],
        to: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Refused> {
        if from.len() != to.len() {
            return Err(Refused);
        }
        #[cfg(feature = "aws-lc-rs")]
        if let Repr::AwsLc(key) = &self.repr {
            use aws_lc_rs::aead::{Aad, Nonce};
            let nonce = Nonce::assume_unique_for_key(*nonce);
            return key.seal_out_of_place_scatter(nonce, Aad::from(aad), from, to, &[], tag).map_err(|_| Refused);
        }
        to.copy_from_slice(from);
        let sealed = self.seal_unswept(nonce, aad, to, tag);
        if sealed.is_err() {
            to.zeroize();
        }
        sealed
    }

    /// Verifies `from` and decrypts it into `to`, which is as long. When it refuses, `to` holds no plaintext.
    pub(crate) fn open_from(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        from: &[u8],
        to: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Refused> {
        if from.len() != to.len() {
            return Err(Refused);
        }
        #[cfg(feature = "aws-lc-rs")]
        if let Repr::AwsLc(key) = &self.repr {
            use aws_lc_rs::aead::{Aad, Nonce};
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let opened = self.sweeping(|| key.open_separate_gather(nonce, Aad::from(aad), from, tag, to));
            return wiped_if_refused(opened.is_ok(), to);
        }
        to.copy_from_slice(from);
        self.open(nonce, aad, to, tag)
    }

    /// Verifies and decrypts `in_out` in place. When it refuses, `in_out` holds no plaintext.
    #[inline]
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Refused> {
        self.sweeping(|| self.open_unswept(nonce, aad, in_out, tag))
    }

    /// As [`Self::open`], for callers that sweep the stack themselves.
    #[inline]
    pub(crate) fn open_unswept(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Refused> {
        let opened = match &self.repr {
            Repr::RustAes(key) => {
                key.decrypt_inout_detached(nonce.into(), aad, (&mut *in_out).into(), tag.into()).is_ok()
            }
            Repr::RustChaCha(key) => {
                key.decrypt_inout_detached(nonce.into(), aad, (&mut *in_out).into(), tag.into()).is_ok()
            }
            #[cfg(feature = "aws-lc-rs")]
            Repr::AwsLc(key) => {
                use aws_lc_rs::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(*nonce);
                key.open_in_place_separate_tag(nonce, Aad::from(aad), tag.as_slice(), in_out).is_ok()
            }
        };
        wiped_if_refused(opened, in_out)
    }

    /// Runs `work` with this key, and wipes what it leaves on the stack.
    #[inline]
    fn sweeping<T>(&self, work: impl FnOnce() -> T) -> T {
        match self.residue {
            Some(depth) => stack::swept(depth, work),
            None => work(),
        }
    }
}

/// Whatever a backend leaves behind, nothing unauthenticated leaves this file.
#[inline]
fn wiped_if_refused(opened: bool, text: &mut [u8]) -> Result<(), Refused> {
    if opened {
        return Ok(());
    }
    text.zeroize();
    Err(Refused)
}

/// The AES-256 block cipher, for the key derivation of XAES-256-GCM.
pub(crate) struct BlockKey(Box<aes::Aes256Enc>);

impl BlockKey {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(Box::new(<aes::Aes256Enc as aes::cipher::KeyInit>::new(key.into())))
    }

    /// Encrypts both blocks in place (two at once keep the AES unit busy).
    pub(crate) fn encrypt_two(&self, blocks: &mut [[u8; 16]; 2]) {
        use aes::cipher::BlockCipherEncrypt;
        self.0.encrypt_blocks(aes::Block::cast_slice_from_core_mut(blocks));
    }
}

/// HChaCha20 (draft-irtf-cfrg-xchacha-03 section 2.2): the subkey of `key` for the first 16 bytes of a 24-byte nonce. On
/// the stack, because suite 2 derives one for each message.
pub(crate) fn hchacha20(key: &Secret<32>, nonce: &[u8; 16]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(chacha20::hchacha::<chacha20::R20>(key.expose().into(), nonce.into()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> impl Iterator<Item = (Backend, Algorithm, AeadKey)> {
        let algorithms = [Algorithm::Aes256Gcm, Algorithm::ChaCha20Poly1305];
        let pairs = Backend::ALL.iter().flat_map(move |backend| algorithms.map(|algorithm| (*backend, algorithm)));
        pairs.map(|(backend, algorithm)| (backend, algorithm, AeadKey::new(backend, algorithm, &[7; 32]).unwrap()))
    }

    #[test]
    fn from_one_place_to_another_is_the_same_as_in_place() {
        let (nonce, aad) = ([3; NONCE_LEN], b"associated");
        for (backend, algorithm, key) in keys() {
            for len in [0, 1, 100, 5_000] {
                let text: Vec<u8> = (0..=250).cycle().take(len).collect();
                let (mut in_place, mut sealed) = (text.clone(), vec![0; len]);
                let (mut tag, mut other) = ([0; TAG_LEN], [0; TAG_LEN]);
                key.seal(&nonce, aad, &mut in_place, &mut tag).unwrap();
                key.seal_from(&nonce, aad, &text, &mut sealed, &mut other).unwrap();
                assert_eq!((&sealed, other), (&in_place, tag), "{backend:?} {algorithm:?} {len}");
                let mut opened = vec![9; len];
                assert_eq!(key.open_from(&nonce, aad, &sealed, &mut opened, &tag), Ok(()));
                assert_eq!(opened, text);
                // A refusal leaves nothing of what was there, nor of what it decrypted.
                let forged = tag.map(|byte| !byte);
                assert_eq!(key.open_from(&nonce, aad, &sealed, &mut opened, &forged), Err(Refused));
                assert_eq!(opened, vec![0; len]);
            }
        }
    }

    #[test]
    fn places_of_different_lengths_are_refused() {
        for (_, _, key) in keys() {
            for len in [0, 4, 6] {
                let sealed = key.seal_from(&[3; NONCE_LEN], b"", b"hello", &mut vec![0; len], &mut [0; TAG_LEN]);
                assert_eq!(sealed, Err(Refused));
                assert_eq!(
                    key.open_from(&[3; NONCE_LEN], b"", b"hello", &mut vec![0; len], &[0; TAG_LEN]),
                    Err(Refused)
                );
            }
        }
    }

    #[test]
    fn the_stack_is_swept_after_all_but_the_aes_of_aws_lc() {
        for (backend, algorithm, key) in keys() {
            let swept = backend == Backend::RustCrypto || algorithm == Algorithm::ChaCha20Poly1305;
            assert_eq!(key.residue.is_some(), swept, "{backend:?} {algorithm:?}");
        }
    }
}
