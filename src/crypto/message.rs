//! The cipher of messages: one data key's message key with its writers, reader keys and message budget.

use std::sync::Arc;
use std::time::Duration;

use crate::crypto::aead::{self, AeadKey, Algorithm, Backend, Refused, TAG_LEN};
use crate::crypto::allotment::{Budget, Lot};
use crate::crypto::random;
use crate::crypto::reader_keys::ReaderKeys;
use crate::crypto::secret::Secret;
use crate::crypto::stack;
use crate::crypto::suite::Suite;
use crate::crypto::writer::{PREFIX_LIFE, Writer, Writers};
use crate::crypto::xaes::{self, XaesKey};
use crate::error::{Error, Result};

/// Bytes of a message nonce, in both suites.
pub(crate) const NONCE_LEN: usize = xaes::NONCE_LEN;

/// Why a message was not sealed.
pub(crate) enum SealFailure {
    /// The budget of the data key is spent: rotate it.
    Spent,
    /// No randomness, or the backend refused.
    Failed(Error),
}

/// Seals and opens messages under one data key.
pub(crate) struct MessageCipher {
    construction: Construction,
    writers: Writers,
    readers: ReaderKeys,
    budget: Arc<Budget>,
}

enum Construction {
    /// c2sp.org/XAES-256-GCM.
    Xaes(XaesKey),
    /// draft-irtf-cfrg-xchacha-03. Its 8-byte half of the nonce is too short to draw many at random under one subkey, so
    /// all 24 bytes are fresh for each message and a subkey is derived each time.
    XChaCha { backend: Backend, key: Secret<32> },
}

/// The subkey and the inner nonce of XChaCha20-Poly1305: `HChaCha20(key, nonce[..16])` and `0^4 || nonce[16..]`.
fn xchacha(backend: Backend, key: &Secret<32>, nonce: &[u8; NONCE_LEN]) -> Result<(AeadKey, [u8; 12]), Refused> {
    let mut head = [0; 16];
    head.copy_from_slice(&nonce[..16]);
    let mut tail = [0; 12];
    tail[4..].copy_from_slice(&nonce[16..]);
    let subkey = aead::hchacha20(key, &head);
    AeadKey::new(backend, Algorithm::ChaCha20Poly1305, &subkey).map(|key| (key, tail))
}

impl MessageCipher {
    /// A cipher that draws from `budget`, which outlives it: a key that is loaded again goes on counting.
    pub(crate) fn new(backend: Backend, suite: Suite, key: Secret<32>, budget: Arc<Budget>) -> Self {
        Self {
            construction: match suite {
                Suite::Aes256Gcm => Construction::Xaes(XaesKey::new(backend, &key)),
                Suite::ChaCha20Poly1305 => Construction::XChaCha { backend, key },
            },
            writers: Writers::new(),
            readers: ReaderKeys::new(),
            budget,
        }
    }

    /// Whether no more lots can be drawn.
    pub(crate) fn is_spent(&self) -> bool {
        self.budget.is_spent()
    }

    /// Encrypts `in_out` in place under a fresh nonce, which it writes to `nonce`, and returns the tag. `now` is
    /// monotonic time.
    pub(crate) fn seal(
        &self,
        now: Duration,
        aad: &[u8],
        nonce: &mut [u8; NONCE_LEN],
        in_out: &mut [u8],
    ) -> Result<[u8; TAG_LEN], SealFailure> {
        let current = self.writers.slot().load();
        if let Some(writer) = &*current
            && writer.admits(now)
        {
            return self.seal_by(writer, aad, nonce, in_out);
        }
        let writer = self.redraw(now)?;
        self.seal_by(&writer, aad, nonce, in_out)
    }

    fn seal_by(
        &self,
        writer: &Writer,
        aad: &[u8],
        nonce: &mut [u8; NONCE_LEN],
        in_out: &mut [u8],
    ) -> Result<[u8; TAG_LEN], SealFailure> {
        let sealed = match (&self.construction, &writer.key) {
            (Construction::Xaes(_), Some(key)) => {
                let rest = random::public_bytes().map_err(SealFailure::Failed)?;
                nonce[..12].copy_from_slice(&writer.prefix);
                nonce[12..].copy_from_slice(&rest);
                key.seal(&rest, aad, in_out)
            }
            (Construction::Xaes(_), None) => Err(Refused),
            (Construction::XChaCha { backend, key }, _) => {
                let half = || random::public_bytes().map_err(SealFailure::Failed);
                nonce[..12].copy_from_slice(&half()?);
                nonce[12..].copy_from_slice(&half()?);
                let seal =
                    || xchacha(*backend, key, nonce).and_then(|(key, inner)| key.seal_unswept(&inner, aad, in_out));
                stack::swept::<{ stack::CIPHER }, _>(seal)
            }
        };
        sealed.map_err(|Refused| SealFailure::Failed(cipher_failed()))
    }

    /// A new writer for this thread, with one message of its lot already taken.
    #[cold]
    fn redraw(&self, now: Duration) -> Result<Arc<Writer>, SealFailure> {
        let lot = self.budget.draw().ok_or(SealFailure::Spent)?;
        let writer = self.new_writer(now, lot).map_err(SealFailure::Failed)?;
        // Taken before others can see the writer: a fresh lot has at least one.
        writer.lot.take_one();
        let writer = Arc::new(writer);
        if let Some(old) = self.writers.replace(Arc::clone(&writer)) {
            self.budget.give_back(&old.lot);
        }
        Ok(writer)
    }

    fn new_writer(&self, now: Duration, lot: Lot) -> Result<Writer> {
        let mut prefix = [0; xaes::PREFIX_LEN];
        let key = match &self.construction {
            Construction::Xaes(xaes) => {
                random::from_os(&mut prefix)?;
                Some(xaes.derive(&prefix).map_err(|Refused| cipher_failed())?)
            }
            Construction::XChaCha { .. } => None,
        };
        Ok(Writer { prefix, key, lot, retires: now + PREFIX_LIFE })
    }

    /// Verifies and decrypts `in_out` in place.
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Refused> {
        match &self.construction {
            Construction::Xaes(xaes) => {
                let (prefix, rest) = xaes::split(nonce);
                if let Some(kept) = self.readers.find(&prefix)
                    && let Some(reader) = &*kept
                {
                    return reader.key.open(&rest, aad, in_out, tag);
                }
                let key = xaes.derive(&prefix)?;
                key.open(&rest, aad, in_out, tag)?;
                // Only a prefix that has authenticated a message is worth a place.
                self.readers.keep(prefix, key);
                Ok(())
            }
            Construction::XChaCha { backend, key } => {
                let open = || {
                    xchacha(*backend, key, nonce).and_then(|(key, inner)| key.open_unswept(&inner, aad, in_out, tag))
                };
                stack::swept::<{ stack::CIPHER }, _>(open)
            }
        }
    }

    /// Encrypts under a nonce of the caller's: for vectors only.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn seal_with_nonce(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Refused> {
        match &self.construction {
            Construction::Xaes(xaes) => {
                let (prefix, rest) = xaes::split(nonce);
                xaes.derive(&prefix)?.seal(&rest, aad, in_out)
            }
            Construction::XChaCha { backend, key } => {
                let (key, inner) = xchacha(*backend, key, nonce)?;
                key.seal(&inner, aad, in_out)
            }
        }
    }
}

fn cipher_failed() -> Error {
    Error::limit("the cipher backend refused to seal; is the message within the documented size?")
}

impl Drop for MessageCipher {
    fn drop(&mut self) {
        for writer in self.writers.iter() {
            self.budget.give_back(&writer.lot);
        }
    }
}

#[cfg(all(test, shuttle))]
mod interleavings;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::allotment::{MAX_LOT, MAX_MESSAGES};
    use std::collections::HashSet;

    const NOW: Duration = Duration::from_secs(1_000);

    fn cipher(suite: Suite, messages: u64) -> MessageCipher {
        MessageCipher::new(Backend::DEFAULT, suite, Secret::take(&mut [7; 32]), Arc::new(Budget::new(messages)))
    }

    fn seal(cipher: &MessageCipher, now: Duration) -> Option<[u8; NONCE_LEN]> {
        let (mut nonce, mut text) = ([0; NONCE_LEN], *b"hello");
        let tag = cipher.seal(now, b"aad", &mut nonce, &mut text).ok()?;
        cipher.open(&nonce, b"aad", &mut text, &tag).unwrap();
        assert_eq!(&text, b"hello");
        Some(nonce)
    }

    fn prefix_of(nonce: [u8; NONCE_LEN]) -> [u8; 12] {
        xaes::split(&nonce).0
    }

    #[test]
    fn a_prefix_is_kept_for_60_seconds_and_no_longer() {
        let cipher = cipher(Suite::Aes256Gcm, MAX_MESSAGES);
        let first = prefix_of(seal(&cipher, NOW).unwrap());
        let later = prefix_of(seal(&cipher, NOW + Duration::from_millis(59_999)).unwrap());
        let after = prefix_of(seal(&cipher, NOW + PREFIX_LIFE).unwrap());
        assert_eq!(first, later);
        assert_ne!(first, after);
    }

    #[test]
    fn a_prefix_seals_at_most_65536_messages() {
        let cipher = cipher(Suite::Aes256Gcm, MAX_MESSAGES);
        let mut counts = std::collections::HashMap::new();
        for _ in 0..3 * MAX_LOT {
            let (mut nonce, mut text) = ([0; NONCE_LEN], [0; 1]);
            assert!(cipher.seal(NOW, &[], &mut nonce, &mut text).is_ok());
            *counts.entry(prefix_of(nonce)).or_insert(0_u64) += 1;
        }
        assert_eq!(counts.len(), 3);
        assert!(counts.values().all(|n| *n == MAX_LOT));
    }

    #[test]
    fn nonces_do_not_repeat_and_the_budget_is_exact() {
        for suite in Suite::ALL {
            let cipher = cipher(suite, 1_000);
            let nonces: HashSet<_> = std::iter::from_fn(|| seal(&cipher, NOW)).collect();
            assert_eq!(nonces.len(), 1_000, "{suite:?}");
            assert!(matches!(cipher.seal(NOW, &[], &mut [0; NONCE_LEN], &mut []), Err(SealFailure::Spent)));
        }
    }

    #[test]
    fn a_key_loaded_again_goes_on_counting() {
        let budget = Arc::new(Budget::new(100));
        let load =
            || MessageCipher::new(Backend::DEFAULT, Suite::Aes256Gcm, Secret::take(&mut [7; 32]), Arc::clone(&budget));
        let first = load();
        for _ in 0..60 {
            seal(&first, NOW).unwrap();
        }
        drop(first);
        let second = load();
        assert!(!second.is_spent());
        assert_eq!(std::iter::from_fn(|| seal(&second, NOW)).count(), 40);
        assert!(second.is_spent());
    }

    #[test]
    fn a_refused_message_leaves_no_plaintext_behind() {
        for suite in Suite::ALL {
            for backend in Backend::ALL {
                let cipher = MessageCipher::new(*backend, suite, Secret::take(&mut [7; 32]), Arc::new(Budget::new(1)));
                let (mut nonce, mut text) = ([0; NONCE_LEN], *b"attack at dawn..");
                let Ok(mut tag) = cipher.seal(NOW, &[], &mut nonce, &mut text) else {
                    panic!("not sealed");
                };
                tag[0] ^= 1;
                assert_eq!(cipher.open(&nonce, &[], &mut text, &tag), Err(Refused));
                assert_eq!(text, [0; 16]);
            }
        }
    }
}
