//! The key schedule and the chunk cipher of chunked encryption (c2sp.org/chunked-encryption): with AES-256-GCM it is
//! Cobblestone-256, and the second suite is the same construction with `AEAD_CHACHA20_POLY1305`.
//!
//! Every file has an AEAD key, a base nonce and a commitment of its own, all three expanded from the file key, a salt and
//! a context. The salt "MUST NOT repeat": [`SealKey::draw`] draws it from the operating system, and nothing outside of
//! tests can choose one.

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::crypto::aead::{AeadKey, Algorithm, Backend, NONCE_LEN, Refused, TAG_LEN};
use crate::crypto::generation::{self, Generation};
use crate::crypto::kdf;
use crate::crypto::random;
use crate::crypto::secret::Secret;
use crate::crypto::suite::Suite;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a salt.
pub(crate) const SALT_LEN: usize = 24;
/// Bytes of a commitment.
pub(crate) const COMMITMENT_LEN: usize = 32;
/// Bytes of the key schedule's output: key, base nonce, commitment.
const SCHEDULE_LEN: usize = 32 + NONCE_LEN + COMMITMENT_LEN;

const LABEL: &[u8] = b"c2sp.org/chunked-encryption@v1+";

/// The AEAD of a suite and its name in the IANA registry.
const fn aead(suite: Suite) -> (Algorithm, &'static [u8]) {
    match suite {
        Suite::Aes256Gcm => (Algorithm::Aes256Gcm, b"AEAD_AES_256_GCM"),
        Suite::ChaCha20Poly1305 => (Algorithm::ChaCha20Poly1305, b"AEAD_CHACHA20_POLY1305"),
    }
}

/// The AEAD of one file, keyed, with its base nonce.
struct ChunkCipher {
    aead: AeadKey,
    base_nonce: Secret<NONCE_LEN>,
}

impl ChunkCipher {
    /// `key || base nonce || commitment = HKDF-Expand(prk = input key, info = "c2sp.org/chunked-encryption@v1+" || aead
    /// || 0x00 || salt || context)`
    fn derive(
        backend: Backend,
        suite: Suite,
        input_key: &Secret<32>,
        salt: &[u8; SALT_LEN],
        context: &[u8],
    ) -> Result<(Self, [u8; COMMITMENT_LEN])> {
        let (algorithm, name) = aead(suite);
        let info: [&[u8]; 5] = [LABEL, name, &[0], salt, context];
        let schedule: Secret<SCHEDULE_LEN> = Secret::filled_by(|into| kdf::expand(input_key.expose(), &info, into))?;
        let (key, rest) = schedule.expose().split_first_chunk::<32>().ok_or_else(Error::unopenable_file)?;
        let (nonce, commitment) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(Error::unopenable_file)?;
        let mut public = [0; COMMITMENT_LEN];
        public.copy_from_slice(commitment);
        let aead = AeadKey::new(backend, algorithm, key).map_err(|Refused| backend_failed())?;
        Ok((Self { aead, base_nonce: Secret::take(&mut { *nonce }) }, public))
    }

    /// "The XOR of the *base nonce* and the chunk number as a big-endian integer as wide as the *base nonce*."
    fn nonce(&self, chunk: u64) -> [u8; NONCE_LEN] {
        let mut nonce = *self.base_nonce.expose();
        for (to, from) in nonce.iter_mut().rev().zip(chunk.to_le_bytes()) {
            *to ^= from;
        }
        nonce
    }
}

fn backend_failed() -> Error {
    Error::limit("the cipher backend refused a key")
}

fn backend_refused() -> Error {
    Error::limit("the cipher backend refused to seal a chunk")
}

/// What seals one file. It has no `Clone`; who seals with it must give every chunk number once (`format::chunk` does). It is of no
/// use to a copy of the process, which would seal other chunks under the same numbers.
pub(crate) struct SealKey {
    cipher: ChunkCipher,
    salt: [u8; SALT_LEN],
    commitment: [u8; COMMITMENT_LEN],
    generation: Generation,
}

impl SealKey {
    /// The key of a new file, under a salt from the operating system.
    ///
    /// # Errors
    /// `Unavailable` if the operating system gives no randomness.
    pub(crate) fn draw(backend: Backend, suite: Suite, input_key: &Secret<32>, context: &[u8]) -> Result<Self> {
        let generation = generation::current()?;
        let mut salt = [0; SALT_LEN];
        random::from_os(&mut salt)?;
        Self::under(backend, suite, input_key, salt, context, generation)
    }

    /// Under a salt of the caller's: for vectors only.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn with_salt(
        backend: Backend,
        suite: Suite,
        input_key: &Secret<32>,
        salt: [u8; SALT_LEN],
        context: &[u8],
    ) -> Result<Self> {
        Self::under(backend, suite, input_key, salt, context, generation::current()?)
    }

    fn under(
        backend: Backend,
        suite: Suite,
        input_key: &Secret<32>,
        salt: [u8; SALT_LEN],
        context: &[u8],
        generation: Generation,
    ) -> Result<Self> {
        let (cipher, commitment) = ChunkCipher::derive(backend, suite, input_key, &salt, context)?;
        Ok(Self { cipher, salt, commitment, generation })
    }

    pub(crate) fn salt(&self) -> &[u8; SALT_LEN] {
        &self.salt
    }

    pub(crate) fn commitment(&self) -> &[u8; COMMITMENT_LEN] {
        &self.commitment
    }

    /// Encrypts the chunk numbered `chunk` from one place to another and writes its tag.
    ///
    /// # Errors
    /// As [`Self::seal`]'s.
    pub(crate) fn seal_from(&self, chunk: u64, from: &[u8], to: &mut [u8], tag: &mut [u8; TAG_LEN]) -> Result<()> {
        let nonce = self.nonce(chunk)?;
        self.cipher.aead.seal_from(&nonce, &[], from, to, tag).map_err(|Refused| backend_refused())
    }

    /// Encrypts the chunk numbered `chunk` in place and writes its tag. "The AEAD's AAD is not used and MUST be empty."
    ///
    /// # Errors
    /// `Unavailable` if the generation in which the salt was drawn has ended; `Limit` if the backend refuses.
    pub(crate) fn seal(&self, chunk: u64, in_out: &mut [u8], tag: &mut [u8; TAG_LEN]) -> Result<()> {
        let nonce = self.nonce(chunk)?;
        self.cipher.aead.seal(&nonce, &[], in_out, tag).map_err(|Refused| backend_refused())
    }

    fn nonce(&self, chunk: u64) -> Result<[u8; NONCE_LEN]> {
        if self.generation.is_current() {
            return Ok(self.cipher.nonce(chunk));
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the process was forked or reseeded since the file's sealer was made, and its parent or another copy may seal \
             under the same salt; seal the file again from its start",
        ))
    }
}

/// What opens one file. Having one means that the commitment was right: this file key and this context are the ones
/// that the salt was used with.
pub(crate) struct OpenKey(ChunkCipher);

impl OpenKey {
    /// "When decrypting, implementations MUST check the *commitment* matches the derived value before continuing."
    ///
    /// # Errors
    /// `Unopenable` if it does not.
    pub(crate) fn verified(
        backend: Backend,
        suite: Suite,
        input_key: &Secret<32>,
        salt: &[u8; SALT_LEN],
        commitment: &[u8; COMMITMENT_LEN],
        context: &[u8],
    ) -> Result<Self> {
        let (cipher, mut expected) = ChunkCipher::derive(backend, suite, input_key, salt, context)?;
        let equal: bool = expected.ct_eq(commitment).into();
        // The right commitment of a forged file is nobody's business.
        expected.zeroize();
        let another = || Error::unopenable_file().because("its context is another one, or its head was altered");
        if equal { Ok(Self(cipher)) } else { Err(another()) }
    }

    /// Verifies and decrypts the chunk numbered `chunk` from one place to another. When it refuses, `to` holds no
    /// plaintext.
    pub(crate) fn open_from(&self, chunk: u64, from: &[u8], to: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), Refused> {
        self.0.aead.open_from(&self.0.nonce(chunk), &[], from, to, tag)
    }

    /// Verifies and decrypts the chunk numbered `chunk` in place. When it refuses, `in_out` holds no plaintext.
    pub(crate) fn open(&self, chunk: u64, in_out: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), Refused> {
        self.0.aead.open(&self.0.nonce(chunk), &[], in_out, tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input() -> Secret<32> {
        Secret::take(&mut [7; 32])
    }

    fn key(suite: Suite, salt: u8, context: &[u8]) -> SealKey {
        SealKey::with_salt(Backend::DEFAULT, suite, &input(), [salt; SALT_LEN], context).unwrap()
    }

    #[test]
    fn salt_context_suite_and_key_all_change_the_commitment() {
        let mut seen = std::collections::HashSet::new();
        for suite in Suite::ALL {
            for salt in 0..2 {
                for context in [&b""[..], b"a"] {
                    assert!(seen.insert(*key(suite, salt, context).commitment()));
                }
            }
        }
        let other = Secret::take(&mut [8; 32]);
        let other = SealKey::with_salt(Backend::DEFAULT, Suite::Aes256Gcm, &other, [0; SALT_LEN], b"").unwrap();
        assert!(seen.insert(*other.commitment()));
    }

    #[test]
    fn salts_are_drawn_afresh() {
        let salts: std::collections::HashSet<_> = (0..100)
            .map(|_| *SealKey::draw(Backend::DEFAULT, Suite::Aes256Gcm, &input(), b"").unwrap().salt())
            .collect();
        assert_eq!(salts.len(), 100);
    }

    #[test]
    fn a_nonce_is_the_base_nonce_xor_the_chunk_number() {
        let key = key(Suite::Aes256Gcm, 1, b"");
        let base = key.cipher.nonce(0);
        assert_eq!(&base, key.cipher.base_nonce.expose());
        let far = key.cipher.nonce(0x3F_0102_0304);
        let difference: Vec<u8> = base.iter().zip(far).map(|(a, b)| a ^ b).collect();
        assert_eq!(difference, [0, 0, 0, 0, 0, 0, 0, 0x3F, 1, 2, 3, 4]);
    }

    #[test]
    fn a_wrong_commitment_gives_no_key() {
        for suite in Suite::ALL {
            let sealed = key(suite, 3, b"context");
            let verified = |commitment: &[u8; COMMITMENT_LEN], context: &[u8]| {
                OpenKey::verified(Backend::DEFAULT, suite, &input(), sealed.salt(), commitment, context).is_ok()
            };
            assert!(verified(sealed.commitment(), b"context"));
            assert!(!verified(sealed.commitment(), b"contexT"));
            for bit in 0..COMMITMENT_LEN * 8 {
                let mut flipped = *sealed.commitment();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(!verified(&flipped, b"context"));
            }
        }
    }

    #[test]
    fn a_salt_of_another_generation_seals_nothing() {
        generation::tests::in_its_own_process("crypto::chunked::tests::salts_by_generation");
    }

    #[test]
    #[ignore = "the process that the test above starts"]
    fn salts_by_generation() {
        for suite in Suite::ALL {
            let key = SealKey::draw(Backend::DEFAULT, suite, &input(), b"c").unwrap();
            let (mut text, mut tag) = (*b"hello", [0; TAG_LEN]);
            key.seal(0, &mut text, &mut tag).unwrap();
            generation::tests::advance();
            let mut to = [0; 5];
            let refused = [key.seal_from(1, b"again", &mut to, &mut tag), key.seal(1, &mut text, &mut tag)];
            assert_eq!(refused.map(|sealed| sealed.map_err(|e| e.kind())), [Err(ErrorKind::Unavailable); 2]);
            assert_eq!(to, [0; 5]);
        }
    }
}
