//! A data key at work: verified against its id, expanded, sealing and opening messages.

use std::sync::Arc;
use std::time::Duration;

use crate::crypto::aead::{Backend, TAG_LEN};
use crate::crypto::allotment::Budget;
use crate::crypto::kdf::{self, Purpose};
use crate::crypto::message::{self as cipher, MessageCipher, NONCE_LEN, SealFailure};
use crate::crypto::secret::{DataKey, Plaintext, Secret};
use crate::crypto::suite::Suite;
use crate::error::{Error, ErrorKind, Result};
use crate::format::associated_data::{self, Previous};
use crate::format::binding::Binding;
use crate::format::context::{Canonical, Field};
use crate::format::header::Header;
use crate::format::message::{self, Body, BodyMut};
use crate::key::context_rules::ContextRules;
use crate::key::file_key::FileKey;
use crate::key::id::KeyId;
use crate::key::record::KeyRecord;
use crate::key::scope::Scope;

/// What a data key becomes once it is unwrapped and proved to be the one its record names.
pub(crate) struct LoadedKey {
    key_id: KeyId,
    scope: Scope,
    context_rules: ContextRules,
    /// What every envelope of this key starts with, and whose it is.
    binding: Binding,
    cipher: MessageCipher,
    backend: Backend,
    suite: Suite,
    file_key: Secret<32>,
}

/// What one thread at a time holds beside a [`LoadedKey`], and beside no other.
#[derive(Default)]
pub(crate) struct Hand {
    cipher: cipher::Hand,
    previous: Previous,
}

impl LoadedKey {
    /// Derives the key id again and compares it with the record's in constant time; only then expands the key. It
    /// seals out of `budget`.
    ///
    /// # Errors
    /// `KeyMismatch` if the KMS or the store gave any other key.
    pub(crate) fn verified(data_key: &DataKey, record: &KeyRecord, budget: Arc<Budget>) -> Result<Self> {
        Self::on(Backend::DEFAULT, data_key, record, budget)
    }

    /// The same on a backend of the caller's choice.
    pub(crate) fn on(backend: Backend, data_key: &DataKey, record: &KeyRecord, budget: Arc<Budget>) -> Result<Self> {
        verify(data_key, record)?;
        let header = Header::encode(record.suite, record.region.as_str(), record.key_id.as_bytes())?;
        let binding = Binding::new(&header, record.tenant.as_str())?;
        let message_key = kdf::derive_labelled(data_key, &[&message::key_info(&binding, record.scope.canonical())])?;
        Ok(Self {
            key_id: record.key_id,
            scope: record.scope.clone(),
            context_rules: record.context_rules.clone(),
            binding,
            backend,
            suite: record.suite,
            file_key: kdf::derive(data_key, record.suite, Purpose::File)?,
            cipher: MessageCipher::new(backend, record.suite, message_key, budget),
        })
    }

    pub(crate) fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Bytes of the header that its envelopes start with.
    #[cfg(test)]
    pub(crate) fn header_len(&self) -> usize {
        self.binding.header().len()
    }

    /// Whether its budget of messages is drawn to the end.
    pub(crate) fn is_spent(&self) -> bool {
        self.cipher.is_spent()
    }

    /// Seals and opens files under the same data key.
    pub(crate) fn file_key(&self) -> FileKey<'_> {
        FileKey {
            backend: self.backend,
            suite: self.suite,
            key: &self.file_key,
            binding: &self.binding,
            scope: &self.scope,
            required: &self.context_rules.files,
        }
    }

    /// # Errors
    /// `InvalidArgument` if `context` lacks a field that this key's messages carry; as the canonical context's.
    #[inline]
    fn associated_data<'d>(
        &self,
        context: &[Field<'_>],
        previous: Option<&'d mut Previous>,
        stack: &'d mut Canonical,
    ) -> Result<&'d [u8]> {
        let check = || self.context_rules.messages.check_context("message", context);
        associated_data::of(self.scope.canonical(), context, previous, stack, check)
    }

    /// Appends the envelope of `plaintext` to `out`; on failure `out` is as it was. Allocates only if `out` has no room.
    /// `hand` has served no other key.
    #[inline]
    pub(crate) fn seal_into(
        &self,
        hand: &mut Hand,
        now: Duration,
        context: &[Field<'_>],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealFailure> {
        let start = out.len();
        let sealed = self.append(hand, now, context, plaintext, out);
        if sealed.is_err() {
            out.truncate(start);
        }
        sealed
    }

    #[inline]
    fn append(
        &self,
        hand: &mut Hand,
        now: Duration,
        context: &[Field<'_>],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealFailure> {
        message::check_length(plaintext.len())?;
        let (header, start) = (self.binding.header(), out.len());
        // Cleared rather than copied to: the cipher reads the plaintext where it is, so `out` never holds any.
        out.resize(start + header.len() + NONCE_LEN + plaintext.len() + TAG_LEN, 0);
        let parts = out.get_mut(start..).and_then(|envelope| {
            let (front, envelope) = envelope.split_at_mut_checked(header.len())?;
            let (nonce, envelope) = envelope.split_first_chunk_mut()?;
            let (text, tag) = envelope.split_last_chunk_mut()?;
            Some((front, nonce, text, tag))
        });
        let (front, nonce, text, tag) = parts.ok_or_else(Error::unopenable)?; // they were just appended
        front.copy_from_slice(header);
        let Hand { cipher: hand, previous } = hand;
        let mut stack = Canonical::new();
        let aad = self.associated_data(context, Some(previous), &mut stack)?;
        self.cipher.seal(hand, now, aad, nonce, plaintext, text, tag)
    }

    /// Seals under a nonce of the caller's: for vectors only.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn seal_with_nonce(
        &self,
        context: &[Field<'_>],
        nonce: &[u8; NONCE_LEN],
        plaintext: &[u8],
    ) -> Result<Vec<u8>> {
        message::check_length(plaintext.len())?;
        let (mut text, mut stack) = (plaintext.to_vec(), Canonical::new());
        let aad = self.associated_data(context, None, &mut stack)?;
        let tag = self.cipher.seal_with_nonce(nonce, aad, &mut text).map_err(|_| Error::unopenable())?;
        Ok([self.binding.header(), nonce, &text, &tag].concat())
    }

    /// Opens an envelope into `text`, which is empty. `None` if it does not start with this key's header: suite, region and key
    /// id must be this key's; there is one candidate key and one suite, and no fallback. A `hand` has served no other key.
    ///
    /// # Errors
    /// `Malformed` if it is too short; `Unopenable`, whatever the reason; `InvalidArgument` or `Limit` for a context that
    /// could not have been sealed under this key.
    #[inline]
    pub(crate) fn open(
        &self,
        hand: Option<&mut Hand>,
        envelope: &[u8],
        context: &[Field<'_>],
        text: &mut Plaintext,
    ) -> Option<Result<()>> {
        let body = envelope.strip_prefix(self.binding.header())?;
        Some(Body::parse(body).and_then(|body| {
            text.append(body.ciphertext);
            self.decrypt(hand, body.nonce, context, text.bytes_mut(), body.tag)
        }))
    }

    /// Opens an envelope where it stands: [`message::opened_part`] of it then is the plaintext. When it refuses after parsing,
    /// the ciphertext part of the buffer is overwritten. `None`, and `hand`, as for [`Self::open`].
    ///
    /// # Errors
    /// As [`Self::open`].
    #[inline]
    pub(crate) fn open_in_place(
        &self,
        hand: Option<&mut Hand>,
        envelope: &mut [u8],
        context: &[Field<'_>],
    ) -> Option<Result<()>> {
        let header = self.binding.header();
        let (front, body) = envelope.split_at_mut_checked(header.len())?;
        if front != header {
            return None;
        }
        Some(BodyMut::parse(body).and_then(|body| self.decrypt(hand, body.nonce, context, body.ciphertext, body.tag)))
    }

    #[inline]
    fn decrypt(
        &self,
        hand: Option<&mut Hand>,
        nonce: &[u8; NONCE_LEN],
        context: &[Field<'_>],
        in_out: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<()> {
        let (hand, previous) = hand.map(|hand| (&mut hand.cipher, &mut hand.previous)).unzip();
        let mut stack = Canonical::new();
        let aad = self.associated_data(context, previous, &mut stack)?;
        self.cipher.open(hand, nonce, aad, in_out, tag).map_err(|_| altered())
    }
}

#[cold]
fn altered() -> Error {
    Error::unopenable().because("its bytes were altered, or its context is another one")
}

/// Proves that `data_key` is the key that `record` names: key ids commit (FORMAT.md, "Keys derived from a data key").
///
/// # Errors
/// `KeyMismatch` if it is any other.
pub(crate) fn verify(data_key: &DataKey, record: &KeyRecord) -> Result<()> {
    if KeyId::of(data_key, record.suite)?.ct_eq(&record.key_id) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::KeyMismatch,
        "the KMS unwrapped another key than the record names; the KMS or the key store is wrong or tampered with",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::context_rules::RequiredFields;
    use crate::key::id::TenantId;
    use crate::key::region::Region;

    const NOW: Duration = Duration::from_secs(1);

    fn data_key() -> DataKey {
        DataKey::take(&mut b"0123456789abcdef0123456789abcdef".to_vec()).unwrap()
    }

    fn record(suite: Suite) -> KeyRecord {
        KeyRecord::bare(
            TenantId::new("acme").unwrap(),
            KeyId::of(&data_key(), suite).unwrap(),
            suite,
            Scope::new(&[("workspace", "W1"), ("channel", "C9")]).unwrap(),
            Region::new("eu-central-1").unwrap(),
        )
    }

    fn budget(messages: u64) -> Arc<Budget> {
        Arc::new(Budget::new(messages))
    }

    fn loaded(backend: Backend, record: &KeyRecord) -> LoadedKey {
        LoadedKey::on(backend, &data_key(), record, budget(1_000_000)).unwrap()
    }

    fn seal(key: &LoadedKey, plaintext: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(key.seal_into(&mut Hand::default(), NOW, &[("message", "M77")], plaintext, &mut out).is_ok());
        out
    }

    fn open(key: &LoadedKey, bytes: &[u8], context: &[Field<'_>]) -> Result<Plaintext> {
        let open = |hand: Option<&mut Hand>| {
            let mut text = Plaintext::empty();
            let opened = key.open(hand, bytes, context, &mut text).unwrap_or_else(|| Err(message::misnamed(bytes)));
            opened.map(|()| text)
        };
        let opened = open(None);
        // All ways of opening agree, always.
        let text = |opened: &Result<Plaintext>| opened.as_ref().ok().map(|text| text.to_vec());
        let mut hand = Hand::default();
        for _ in 0..3 {
            let mut copy = bytes.to_vec();
            let in_place = key.open_in_place(Some(&mut hand), &mut copy, context);
            let in_place = in_place
                .unwrap_or_else(|| Err(message::misnamed(bytes)))
                .and_then(|()| message::opened_part(&mut copy))
                .map(|text| text.to_vec());
            assert_eq!(text(&opened), in_place.ok());
            assert_eq!(text(&opened), text(&open(Some(&mut hand))));
        }
        opened
    }

    #[test]
    fn every_bit_flip_and_every_truncation_is_refused_on_every_suite_and_backend() {
        for suite in Suite::ALL {
            for backend in Backend::ALL {
                let key = loaded(*backend, &record(suite));
                let sealed = seal(&key, b"see you at noon");
                assert_eq!(&*open(&key, &sealed, &[("message", "M77")]).unwrap(), b"see you at noon");
                for bit in 0..sealed.len() * 8 {
                    let mut flipped = sealed.clone();
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    let refused = open(&key, &flipped, &[("message", "M77")]).err();
                    let kind = refused.map(|e| e.kind());
                    assert!(matches!(kind, Some(ErrorKind::Unopenable | ErrorKind::Malformed)), "bit {bit}: {kind:?}");
                }
                for len in 0..sealed.len() {
                    assert!(open(&key, &sealed[..len], &[("message", "M77")]).is_err(), "length {len}");
                }
                let longer = [&sealed[..], &[0]].concat();
                assert!(open(&key, &longer, &[("message", "M77")]).is_err());
            }
        }
    }

    #[test]
    fn every_swap_of_tenant_scope_context_region_suite_and_key_is_refused() {
        for suite in Suite::ALL {
            let original = record(suite);
            let sealed = seal(&loaded(Backend::DEFAULT, &original), b"hello");
            let opens = |record: &KeyRecord, context: &[Field<'_>]| {
                open(&loaded(Backend::DEFAULT, record), &sealed, context).is_ok()
            };
            assert!(opens(&original, &[("message", "M77")]));
            for context in [&[][..], &[("message", "M78")], &[("massage", "M77")], &[("message", "M77"), ("x", "")]] {
                assert!(!opens(&original, context), "{context:?}");
            }
            let change = |edit: &dyn Fn(&mut KeyRecord)| {
                let mut record = record(suite);
                edit(&mut record);
                record
            };
            let scope = |fields: &[Field<'_>]| Scope::new(fields).unwrap();
            for other in [
                change(&|r| r.tenant = TenantId::new("acmf").unwrap()),
                change(&|r| r.region = Region::new("eu-central-2").unwrap()),
                change(&|r| r.scope = scope(&[("workspace", "W1"), ("channel", "C8")])),
                change(&|r| r.scope = scope(&[("workspace", "W1")])),
                change(&|r| r.scope = scope(&[("workspace", "C9"), ("channel", "W1")])),
            ] {
                assert!(!opens(&other, &[("message", "M77")]), "{other:?}");
            }
            // The other suite gives the same data key another id: the envelope names a key that this is not.
            let other_suite = Suite::ALL.into_iter().find(|s| *s != suite).unwrap();
            assert!(!opens(&record(other_suite), &[("message", "M77")]));
            let mut swapped = sealed.clone();
            swapped[1] = other_suite.byte();
            assert!(open(&loaded(Backend::DEFAULT, &original), &swapped, &[("message", "M77")]).is_err());
        }
    }

    /// Whatever was sealed or opened before by the same hand; and what is no envelope is malformed before it is a wrong context.
    #[test]
    fn a_context_without_a_required_field_neither_seals_nor_opens() {
        let messages = RequiredFields::named(["message"]);
        let strict = KeyRecord {
            context_rules: ContextRules { messages, ..ContextRules::default() },
            ..record(Suite::default())
        };
        let (strict, lax) = (loaded(Backend::DEFAULT, &strict), loaded(Backend::DEFAULT, &record(Suite::default())));
        let (mut hand, mut out) = (Hand::default(), Vec::new());
        for refused in [&[][..], &[("massage", "M77")], &[("message", "")], &[("a", "2"), ("message", "")]] {
            let sealed_without = {
                let mut out = Vec::new();
                assert!(lax.seal_into(&mut Hand::default(), NOW, refused, b"hello", &mut out).is_ok());
                out
            };
            for good in [&[("message", "M77")][..], &[("a", "1"), ("message", "M77")]] {
                out.clear();
                assert!(strict.seal_into(&mut hand, NOW, good, b"hello", &mut out).is_ok());
                assert_eq!(&*open(&strict, &out, good).unwrap(), b"hello");
                let (sealed, kind) = (out.clone(), |e: Error| e.kind());
                let again = strict.seal_into(&mut hand, NOW, refused, b"hello", &mut out);
                assert!(matches!(again, Err(SealFailure::Failed(e)) if e.kind() == ErrorKind::InvalidArgument));
                assert_eq!(out, sealed, "{refused:?}");
                out.clear();
                assert!(strict.seal_into(&mut hand, NOW, good, b"hello", &mut out).is_ok());
                assert_eq!(&*open(&strict, &out, good).unwrap(), b"hello", "after {refused:?}");
                for envelope in [&sealed, &sealed_without] {
                    let opened = open(&strict, envelope, refused).map(|_| ()).map_err(kind);
                    assert_eq!(opened, Err(ErrorKind::InvalidArgument), "{refused:?}");
                }
                let header = strict.header_len();
                let opened = open(&strict, &sealed[..=header], refused).map(|_| ()).map_err(kind);
                assert_eq!(opened, Err(ErrorKind::Malformed));
                let sealed = strict.seal_with_nonce(refused, &[1; NONCE_LEN], b"hello").map_err(kind);
                assert_eq!(sealed, Err(ErrorKind::InvalidArgument));
            }
        }
    }

    #[test]
    fn backends_open_each_other() {
        for suite in Suite::ALL {
            for sealer in Backend::ALL {
                for opener in Backend::ALL {
                    let sealed = seal(&loaded(*sealer, &record(suite)), b"hello");
                    assert!(open(&loaded(*opener, &record(suite)), &sealed, &[("message", "M77")]).is_ok());
                }
            }
        }
    }

    /// What vectors are made with is what seals.
    #[test]
    fn under_the_same_nonce_the_envelope_is_the_same() {
        for suite in Suite::ALL {
            let (key, context) = (loaded(Backend::DEFAULT, &record(suite)), [("message", "M77")]);
            let sealed = seal(&key, b"hello");
            let nonce = *sealed[key.header_len()..].first_chunk().unwrap();
            assert_eq!(key.seal_with_nonce(&context, &nonce, b"hello").unwrap(), sealed);
        }
    }

    #[test]
    fn another_key_than_the_record_names_is_refused() {
        let other = DataKey::take(&mut b"1123456789abcdef0123456789abcdef".to_vec()).unwrap();
        let refused = LoadedKey::verified(&other, &record(Suite::Aes256Gcm), budget(1)).err();
        assert_eq!(refused.map(|e| e.kind()), Some(ErrorKind::KeyMismatch));
    }

    #[test]
    fn a_failed_seal_leaves_the_buffer_as_it_was() {
        let key = LoadedKey::verified(&data_key(), &record(Suite::Aes256Gcm), budget(1)).unwrap();
        let (mut hand, mut out) = (Hand::default(), b"before".to_vec());
        for (context, plaintext) in
            [(&[("channel", "again")][..], &b"x"[..]), (&[], &vec![0; (1 << 24) + 1]), (&[("", "")], b"x")]
        {
            assert!(key.seal_into(&mut hand, NOW, context, plaintext, &mut out).is_err());
            assert_eq!(out, b"before");
        }
        assert!(!key.is_spent());
        assert!(key.seal_into(&mut hand, NOW, &[], b"the one message", &mut out).is_ok());
        assert!(key.is_spent());
        let len = out.len();
        assert!(matches!(key.seal_into(&mut hand, NOW, &[], b"no budget left", &mut out), Err(SealFailure::Spent)));
        assert_eq!(out.len(), len);
    }
}
