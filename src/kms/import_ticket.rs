//! What the tenant gets, and what it says, in an import: the ticket, the format, the check value.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::crypto::key_transport::X25519_LEN;
use crate::error::{Error, Result};
use crate::key::kek::KekUri;
use crate::key::region::Region;

/// HPKE's `info`: what the wrapping is for.
pub(crate) const HPKE_INFO: &[u8] = b"strongroom/v1/byok-import";

/// What a tenant needs to wrap its key for us. Nothing in it is secret but the token, which whoever finishes the import
/// has to have: hand it to the tenant's administrator, and to nobody else.
#[derive(Clone)]
pub struct ImportTicket {
    pub(crate) kek: KekUri,
    pub(crate) region: Region,
    pub(crate) token: String,
    pub(crate) expires_at: i64,
    pub(crate) rsa_public: Vec<u8>,
    pub(crate) hpke_public: [u8; X25519_LEN],
}

impl ImportTicket {
    /// The KEK that the import will make.
    pub fn kek(&self) -> &KekUri {
        &self.kek
    }

    /// Where that KEK will be.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Names the import when it is finished: 64 hexadecimal digits, good for one KEK.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// When the token expires, in milliseconds since 1970-01-01T00:00:00Z.
    pub fn expires_at_millis(&self) -> i64 {
        self.expires_at
    }

    /// The RSA-4096 wrapping key as a `SubjectPublicKeyInfo` in DER (RFC 5280 section 4.1.2.7).
    pub fn rsa_public_key_der(&self) -> &[u8] {
        &self.rsa_public
    }

    /// The same in PEM (RFC 7468 section 13), as `openssl` reads it.
    pub fn rsa_public_key_pem(&self) -> String {
        let text = STANDARD.encode(&self.rsa_public);
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        let mut rest = text.as_str();
        while let Some((line, more)) = rest.split_at_checked(64) {
            pem.push_str(line);
            pem.push('\n');
            rest = more;
        }
        if !rest.is_empty() {
            pem.push_str(rest);
            pem.push('\n');
        }
        pem.push_str("-----END PUBLIC KEY-----\n");
        pem
    }

    /// The X25519 wrapping key, as RFC 9180 section 7.1.1 serialises it, for [`ImportFormat::Hpke`].
    pub fn hpke_public_key(&self) -> &[u8; 32] {
        &self.hpke_public
    }

    /// The `info` of HPKE: `strongroom/v1/byok-import`.
    pub fn hpke_info(&self) -> &[u8] {
        HPKE_INFO
    }

    /// The associated data of HPKE: the URI of the KEK, so that a wrapping serves no other.
    pub fn hpke_aad(&self) -> &[u8] {
        self.kek.as_str().as_bytes()
    }
}

/// Shows all but the token.
impl fmt::Debug for ImportTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportTicket")
            .field("kek", &self.kek)
            .field("region", &self.region)
            .field("expires_at_millis", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// How the tenant wrapped its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImportFormat {
    /// RSAES-OAEP with SHA-256 for the hash and for MGF1, without a label (RFC 8017 section 7.1.1): 512 bytes. AWS KMS calls
    /// it `RSAES_OAEP_SHA_256`.
    RsaesOaepSha256,
    /// An ephemeral AES-256 key under the former, then the key under that one with AES Key Wrap with Padding (RFC 5649):
    /// 512 + 40 bytes. `CKM_RSA_AES_KEY_WRAP` of PKCS #11 v3.1 section 6.1.10 with SHA-256, and `RSA_AES_KEY_WRAP_SHA_256` of AWS
    /// KMS.
    RsaAesKeyWrapSha256,
    /// HPKE (RFC 9180), mode Base, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM; `enc` before the ciphertext:
    /// 32 + 48 bytes. [`ImportTicket::hpke_info`] and [`ImportTicket::hpke_aad`] are its inputs.
    Hpke,
}

/// The check value of a key: the first 3 to 5 bytes of AES-CMAC (NIST SP 800-38B) of one block of zeros under it. That is
/// how ANSI X9.24-1:2017 and PCI PIN Security requirement 15-1 define it for AES keys, and what HSMs show (as "CMAC"; the
/// older one by a bare encryption of zeros is another). `openssl` computes it:
///
/// ```sh
/// head -c 16 /dev/zero | openssl mac -cipher AES-256-CBC -macopt hexkey:KEY -in - CMAC | cut -c 1-10
/// ```
/// ```
/// let value = strongroom::KeyCheckValue::from_hex("377822C093")?;
/// assert_eq!(value.to_string(), "377822c093");
/// # Ok::<(), strongroom::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyCheckValue {
    bytes: [u8; 5],
    len: usize,
}

impl KeyCheckValue {
    /// Reads 6, 8 or 10 hexadecimal digits.
    ///
    /// # Errors
    /// `InvalidArgument` for anything else.
    pub fn from_hex(text: &str) -> Result<Self> {
        let wrong = || Error::invalid("a key check value has 6, 8 or 10 hexadecimal digits");
        let mut bytes = [0; 5];
        let len = base16ct::mixed::decode(text, &mut bytes).map_err(|_| wrong())?.len();
        if !(3..=5).contains(&len) {
            return Err(wrong());
        }
        Ok(Self { bytes, len })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl fmt::Display for KeyCheckValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base16ct::lower::encode_string(self.bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_have_three_to_five_bytes() {
        for good in ["377822", "377822C0", "377822c093"] {
            assert_eq!(KeyCheckValue::from_hex(good).unwrap().to_string(), good.to_lowercase());
        }
        for bad in ["", "37", "3778", "37782", "377822c09348", "37 78 22", "xx7822"] {
            assert!(KeyCheckValue::from_hex(bad).is_err(), "{bad}");
        }
    }
}
