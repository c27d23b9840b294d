//! Signing receipts: Ed25519 (RFC 8032), under a key that the operator holds.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::Zeroize;

use crate::crypto::secret::is_uniform;
use crate::error::{Error, Result};

/// Signs receipts. Implement it over an HSM or a KMS, or use [`Ed25519Signer`].
pub trait ReceiptSigner: Send + Sync {
    /// Names the key to whoever verifies.
    fn key_id(&self) -> String;

    /// Signs `message`.
    ///
    /// # Errors
    /// Whatever keeps it from signing; the receipt is then not issued.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>>;
}

/// An Ed25519 key (RFC 8032, section 5.1) in this process's memory, wiped on drop.
///
/// ```
/// use strongroom::Ed25519Signer;
/// let mut seed = *b"thirty-two bytes of the operator";
/// let signer = Ed25519Signer::from_seed(&mut seed)?;
/// assert_eq!(seed, [0; 32]); // wiped
/// let public = signer.public_key(); // for the tenants
/// # let _ = public;
/// # Ok::<(), strongroom::Error>(())
/// ```
pub struct Ed25519Signer(SigningKey);

impl Ed25519Signer {
    /// Takes the 32-byte seed (RFC 8032's private key) and wipes it in `seed`.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not 32 bytes long, or all bytes are equal: an unset or placeholder key.
    pub fn from_seed(seed: &mut [u8]) -> Result<Self> {
        let is_placeholder = is_uniform(seed);
        let key = <&[u8; 32]>::try_from(&*seed).map(SigningKey::from_bytes);
        seed.zeroize();
        let key = key.map_err(|_| Error::invalid("an Ed25519 seed has exactly 32 bytes"))?;
        if is_placeholder {
            return Err(Error::invalid("an Ed25519 seed of equal bytes is a placeholder; draw 32 random bytes"));
        }
        Ok(Self(key))
    }

    /// The 32 bytes that verify.
    pub fn public_key(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }
}

impl ReceiptSigner for Ed25519Signer {
    /// The public key in hexadecimal digits.
    fn key_id(&self) -> String {
        base16ct::lower::encode_string(&self.public_key())
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        Ok(self.0.sign(message).to_bytes().to_vec())
    }
}

/// Whether `signature` is `public_key`'s of `message` (RFC 8032, section 5.1.7, with the stricter checks of small-order
/// points).
pub(crate) fn is_signed(public_key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (VerifyingKey::from_bytes(public_key), Signature::from_slice(signature)) else {
        return false;
    };
    key.verify_strict(message, &signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, TEST 3.
    #[test]
    fn the_rfc_s_own_vector() {
        let bytes = |hex: &str| base16ct::lower::decode_vec(hex).unwrap();
        let mut seed = bytes("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7");
        let signer = Ed25519Signer::from_seed(&mut seed).unwrap();
        assert_eq!(seed, [0; 32]);
        assert_eq!(signer.key_id(), "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025");
        let signature = signer.sign(&bytes("af82")).unwrap();
        assert_eq!(
            signature,
            bytes(concat!(
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac",
                "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
            ))
        );
        assert!(is_signed(&signer.public_key(), &bytes("af82"), &signature));
        assert!(!is_signed(&signer.public_key(), &bytes("af83"), &signature));
        assert!(!is_signed(&[7; 32], &bytes("af82"), &signature));
        assert!(!is_signed(&signer.public_key(), &bytes("af82"), &signature[1..]));
        assert!(Ed25519Signer::from_seed(&mut [1; 31]).is_err());
        assert!(Ed25519Signer::from_seed(&mut [1; 32]).is_err(), "a placeholder");
    }
}
