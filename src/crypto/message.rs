//! The cipher of messages: one data key's message key with its reader keys and message budget, and what a thread holds to
//! use it quickly.

use std::sync::Arc;
use std::time::Duration;

use crate::crypto::aead::{self, AeadKey, Algorithm, Backend, Refused, TAG_LEN};
use crate::crypto::allotment::{Budget, Lot};
use crate::crypto::generation;
use crate::crypto::random;
use crate::crypto::reader_keys::{ReaderKeys, Recent};
use crate::crypto::secret::Secret;
use crate::crypto::stack::{self, Depth};
use crate::crypto::suite::Suite;
use crate::crypto::writer::{PREFIX_BYTES, PREFIX_LIFE, Writer};
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
    readers: ReaderKeys,
    budget: Arc<Budget>,
}

/// What one thread at a time holds beside a [`MessageCipher`], and beside no other: a writer of its own, and the reader keys
/// that it used last. With it in hand, nothing is touched that other threads write to.
#[derive(Default)]
pub(crate) struct Hand {
    writer: Option<Writer>,
    recent: Recent,
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
            readers: ReaderKeys::new(),
            budget,
        }
    }

    /// Whether no more lots can be drawn.
    pub(crate) fn is_spent(&self) -> bool {
        self.budget.is_spent()
    }

    /// Encrypts `from` into `to`, which is as long, under a fresh nonce, and writes `nonce` and `tag`. `now` is monotonic time;
    /// `hand` has served no other cipher.
    ///
    /// What is written is written where it stays: a tag or a nonce that is handed on by value is copied in other pieces than it
    /// was made in, which the processor waits for.
    #[inline]
    #[allow(clippy::too_many_arguments)] // the parts of one envelope, each where it stays
    pub(crate) fn seal(
        &self,
        hand: &mut Hand,
        now: Duration,
        aad: &[u8],
        nonce: &mut [u8; NONCE_LEN],
        from: &[u8],
        to: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), SealFailure> {
        let admitted = hand.writer.as_mut().is_some_and(|writer| writer.admits(now, from.len()));
        let writer = match &hand.writer {
            Some(writer) if admitted => writer,
            _ => self.redraw(&mut hand.writer, now, from.len())?,
        };
        debug_assert!(writer.lot.is_of(&self.budget), "a hand of another key");
        self.seal_by(writer, aad, nonce, from, to, tag)
    }

    #[inline]
    fn seal_by(
        &self,
        writer: &Writer,
        aad: &[u8],
        nonce: &mut [u8; NONCE_LEN],
        from: &[u8],
        to: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), SealFailure> {
        let sealed = match (&self.construction, &writer.key) {
            (Construction::Xaes(_), Some(key)) => {
                let (prefix, rest) = xaes::split_mut(nonce)?;
                *prefix = writer.prefix;
                random::fill_public(rest, writer.generation)?;
                key.seal_from(rest, aad, from, to, tag)
            }
            (Construction::Xaes(_), None) => Err(Refused),
            (Construction::XChaCha { backend, key }, _) => {
                let (first, second) = xaes::split_mut(nonce)?;
                random::fill_public(first, writer.generation)?;
                random::fill_public(second, writer.generation)?;
                let seal = || {
                    let (key, inner) = xchacha(*backend, key, nonce)?;
                    key.seal_from_unswept(&inner, aad, from, to, tag)
                };
                stack::swept(Depth::Cipher, seal)
            }
        };
        Ok(sealed?)
    }

    /// Puts a new writer in place, with one message of `len` bytes already counted. The old one's lot goes back first.
    #[cold]
    fn redraw<'w>(&self, place: &'w mut Option<Writer>, now: Duration, len: usize) -> Result<&'w Writer, SealFailure> {
        *place = None;
        let mut writer = self.new_writer(now, self.budget.draw().ok_or(SealFailure::Spent)?)?;
        // A fresh lot has at least one message, and a prefix room for the longest.
        if !writer.admits(now, len) {
            return Err(cipher_failed().into());
        }
        Ok(place.insert(writer))
    }

    fn new_writer(&self, now: Duration, lot: Lot) -> Result<Writer, SealFailure> {
        let generation = generation::current()?;
        let mut prefix = [0; xaes::PREFIX_LEN];
        let key = match &self.construction {
            Construction::Xaes(xaes) => {
                random::from_os(&mut prefix)?;
                Some(xaes.derive(&prefix)?)
            }
            Construction::XChaCha { .. } => None,
        };
        Ok(Writer { prefix, key, lot, generation, bytes: PREFIX_BYTES, retires: now + PREFIX_LIFE })
    }

    /// Verifies and decrypts `in_out` in place. A `hand` has served no other cipher; without one, the reader keys that all
    /// threads share are asked.
    #[inline]
    pub(crate) fn open(
        &self,
        hand: Option<&mut Hand>,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Refused> {
        match &self.construction {
            Construction::Xaes(xaes) => {
                let (prefix, rest) = xaes::split(nonce)?;
                let by_kept = match hand {
                    Some(hand) => {
                        self.readers.with_recent(&mut hand.recent, prefix, |key| key.open(rest, aad, in_out, tag))
                    }
                    None => self.readers.with(prefix, |key| key.open(rest, aad, in_out, tag)),
                };
                by_kept.unwrap_or_else(|| self.open_by_new(xaes, nonce, aad, in_out, tag))
            }
            Construction::XChaCha { backend, key } => {
                let open = || {
                    xchacha(*backend, key, nonce).and_then(|(key, inner)| key.open_unswept(&inner, aad, in_out, tag))
                };
                stack::swept(Depth::Cipher, open)
            }
        }
    }

    /// Opens by a reader key that is derived anew.
    #[cold]
    fn open_by_new(
        &self,
        xaes: &XaesKey,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Refused> {
        let (prefix, rest) = xaes::split(nonce)?;
        let key = xaes.derive(prefix)?;
        key.open(rest, aad, in_out, tag)?;
        // Only a prefix that has authenticated a message is worth a place.
        self.readers.keep(*prefix, key);
        Ok(())
    }

    /// Encrypts under a nonce of the caller's: for vectors only.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn seal_with_nonce(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Refused> {
        let mut tag = [0; TAG_LEN];
        match &self.construction {
            Construction::Xaes(xaes) => {
                let (prefix, rest) = xaes::split(nonce)?;
                xaes.derive(prefix)?.seal(rest, aad, in_out, &mut tag)?;
            }
            Construction::XChaCha { backend, key } => {
                let (key, inner) = xchacha(*backend, key, nonce)?;
                key.seal(&inner, aad, in_out, &mut tag)?;
            }
        }
        Ok(tag)
    }
}

fn cipher_failed() -> Error {
    Error::limit("the cipher backend refused to seal; is the message within the documented size?")
}

impl From<Error> for SealFailure {
    fn from(e: Error) -> Self {
        Self::Failed(e)
    }
}

impl From<Refused> for SealFailure {
    fn from(_: Refused) -> Self {
        Self::Failed(cipher_failed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::allotment::{MAX_LOT, MAX_MESSAGES};
    use std::collections::HashSet;

    const NOW: Duration = Duration::from_secs(1_000);

    fn cipher(suite: Suite, messages: u64) -> MessageCipher {
        MessageCipher::new(Backend::DEFAULT, suite, Secret::take(&mut [7; 32]), Arc::new(Budget::new(messages)))
    }

    fn seal(cipher: &MessageCipher, hand: &mut Hand, now: Duration) -> Option<[u8; NONCE_LEN]> {
        let (mut nonce, mut text, mut tag) = ([0; NONCE_LEN], [0; 5], [0; TAG_LEN]);
        cipher.seal(hand, now, b"aad", &mut nonce, b"hello", &mut text, &mut tag).ok()?;
        for hand in [None, Some(hand)] {
            let mut text = text;
            cipher.open(hand, &nonce, b"aad", &mut text, &tag).unwrap();
            assert_eq!(&text, b"hello");
        }
        Some(nonce)
    }

    fn prefix_of(nonce: [u8; NONCE_LEN]) -> [u8; 12] {
        *xaes::split(&nonce).unwrap().0
    }

    #[test]
    fn a_nonce_is_split_in_the_middle() {
        let mut nonce: [u8; NONCE_LEN] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let (prefix, rest) = xaes::split(&nonce).unwrap();
        assert_eq!((&nonce[..12], &nonce[12..]), (&prefix[..], &rest[..]));
        let (prefix, rest) = xaes::split_mut(&mut nonce).unwrap();
        (*prefix, *rest) = ([1; 12], [2; 12]);
        assert_eq!(nonce, *[[1; 12], [2; 12]].as_flattened());
    }

    #[test]
    fn a_prefix_is_kept_for_60_seconds_and_no_longer() {
        let (cipher, mut hand) = (cipher(Suite::Aes256Gcm, MAX_MESSAGES), Hand::default());
        let mut at = |now| prefix_of(seal(&cipher, &mut hand, now).unwrap());
        let (first, later) = (at(NOW), at(NOW + Duration::from_millis(59_999)));
        let (after, other_hand) = (at(NOW + PREFIX_LIFE), prefix_of(seal(&cipher, &mut Hand::default(), NOW).unwrap()));
        assert_eq!(first, later);
        assert!(first != after && first != other_hand && after != other_hand);
    }

    #[test]
    fn a_prefix_seals_at_most_65536_messages() {
        let (cipher, mut hand) = (cipher(Suite::Aes256Gcm, MAX_MESSAGES), Hand::default());
        let mut counts = std::collections::HashMap::new();
        for _ in 0..3 * MAX_LOT {
            let mut nonce = [0; NONCE_LEN];
            assert!(cipher.seal(&mut hand, NOW, &[], &mut nonce, &[0], &mut [0], &mut [0; TAG_LEN]).is_ok());
            *counts.entry(prefix_of(nonce)).or_insert(0_u64) += 1;
        }
        assert_eq!(counts.len(), 3);
        assert!(counts.values().all(|n| *n == MAX_LOT));
    }

    #[test]
    fn a_prefix_that_has_no_room_for_a_message_is_drawn_anew() {
        let (cipher, mut hand) = (cipher(Suite::Aes256Gcm, MAX_MESSAGES), Hand::default());
        let first = prefix_of(seal(&cipher, &mut hand, NOW).unwrap());
        let left = |hand: &mut Hand| std::mem::replace(&mut hand.writer.as_mut().unwrap().bytes, 9);
        assert_eq!(left(&mut hand), PREFIX_BYTES - 5);
        assert_eq!(prefix_of(seal(&cipher, &mut hand, NOW).unwrap()), first);
        assert_ne!(prefix_of(seal(&cipher, &mut hand, NOW).unwrap()), first, "4 bytes are too few for 5");
        assert_eq!(left(&mut hand), PREFIX_BYTES - 5);
    }

    #[test]
    fn nonces_do_not_repeat_and_the_budget_is_exact() {
        for suite in Suite::ALL {
            let (cipher, mut hands) = (cipher(suite, 1_000), [Hand::default(), Hand::default()]);
            let mut turn = 0;
            let nonces: HashSet<_> = std::iter::from_fn(|| {
                turn += 1;
                let order = if turn % 3 == 0 { [0, 1] } else { [1, 0] };
                // One may find nothing left to draw while the other has some of its lot.
                order.into_iter().find_map(|n| seal(&cipher, &mut hands[n], NOW))
            })
            .collect();
            assert_eq!(nonces.len(), 1_000, "{suite:?}");
            for hand in &mut hands {
                let refused = cipher.seal(hand, NOW, &[], &mut [0; NONCE_LEN], &[], &mut [], &mut [0; TAG_LEN]);
                assert!(matches!(refused, Err(SealFailure::Spent)));
            }
            assert!(cipher.is_spent());
        }
    }

    #[test]
    fn a_key_loaded_again_goes_on_counting() {
        let budget = Arc::new(Budget::new(100));
        let load =
            || MessageCipher::new(Backend::DEFAULT, Suite::Aes256Gcm, Secret::take(&mut [7; 32]), Arc::clone(&budget));
        let (first, mut hand) = (load(), Hand::default());
        for _ in 0..60 {
            seal(&first, &mut hand, NOW).unwrap();
        }
        drop((first, hand));
        let (second, mut hand) = (load(), Hand::default());
        assert!(!second.is_spent());
        assert_eq!(std::iter::from_fn(|| seal(&second, &mut hand, NOW)).count(), 40);
        assert!(second.is_spent());
    }

    #[test]
    fn a_refused_message_leaves_no_plaintext_behind() {
        for suite in Suite::ALL {
            for backend in Backend::ALL {
                let cipher = MessageCipher::new(*backend, suite, Secret::take(&mut [7; 32]), Arc::new(Budget::new(1)));
                let (mut nonce, mut text, mut tag) = ([0; NONCE_LEN], [0; 16], [0; TAG_LEN]);
                let attack = b"attack at dawn..";
                assert!(cipher.seal(&mut Hand::default(), NOW, &[], &mut nonce, attack, &mut text, &mut tag).is_ok());
                tag[0] ^= 1;
                assert_eq!(cipher.open(None, &nonce, &[], &mut text, &tag), Err(Refused));
                assert_eq!(text, [0; 16]);
            }
        }
    }

    #[test]
    fn a_prefix_of_another_generation_is_not_used() {
        generation::tests::in_its_own_process("crypto::message::tests::prefixes_by_generation");
    }

    #[test]
    #[ignore = "the process that the test above starts"]
    fn prefixes_by_generation() {
        for suite in Suite::ALL {
            let (cipher, mut hand) = (cipher(suite, 1_000), Hand::default());
            let mut prefixes = HashSet::new();
            for generation in 1..=3 {
                let nonces: Vec<_> = (0..20).map(|_| seal(&cipher, &mut hand, NOW).unwrap()).collect();
                prefixes.extend(nonces.into_iter().map(prefix_of));
                // The second suite's nonces are random from end to end.
                assert_eq!(prefixes.len(), if suite == Suite::Aes256Gcm { generation } else { 20 * generation });
                generation::tests::advance();
            }
            // What the ended writers' lots left went back.
            assert_eq!(std::iter::from_fn(|| seal(&cipher, &mut hand, NOW)).count(), 940);
        }
    }
}
