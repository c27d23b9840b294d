//! What the local KMS makes of a data key (FORMAT.md, "The local KMS"): AES-256-GCM (NIST SP 800-38D) under one version of
//! a KEK, the encryption context as associated data.

use zeroize::Zeroize;

use crate::crypto::aead::{AeadKey, Algorithm, Backend, NONCE_LEN, Refused, TAG_LEN};
use crate::crypto::random;
use crate::crypto::secret::{DataKey, Secret};
use crate::error::{Error, ErrorKind, Result};
use crate::key::encryption_context::EncryptionContext;
use crate::key::kek::KekUri;

const LABEL: &[u8] = b"strongroom/v1/local-kms";
/// First byte of wrapped bytes.
const WRAPPED_VERSION: u8 = 1;

/// `"strongroom/v1/local-kms" || name length 1 || KEK name || KEK version 4 || canonical encryption context`
fn associated_data(kek: &KekUri, version: u32, context: &EncryptionContext) -> Result<Vec<u8>> {
    let name = kek.name().as_bytes();
    let len = u8::try_from(name.len()).map_err(|_| not_wrapped_here())?;
    Ok([LABEL, &[len], name, &version.to_be_bytes(), &context.to_bytes()].concat())
}

pub(crate) fn aead(key: &[u8; 32]) -> Result<AeadKey> {
    AeadKey::new(Backend::DEFAULT, Algorithm::Aes256Gcm, key)
        .map_err(|Refused| Error::new(ErrorKind::Unavailable, "the cipher backend could not expand the KEK"))
}

pub(crate) fn not_wrapped_here() -> Error {
    Error::new(ErrorKind::Denied, "the wrapped key does not unwrap under this KEK with this tenant, region and scope")
}

/// Wraps `data_key` under `key`, which is `version` of `kek`.
pub(crate) fn wrap(
    kek: &KekUri,
    version: u32,
    key: &Secret<32>,
    context: &EncryptionContext,
    data_key: &DataKey,
) -> Result<Vec<u8>> {
    let mut nonce = [0; NONCE_LEN];
    random::from_os(&mut nonce)?;
    let (mut body, mut tag) = (*data_key.expose(), [0; TAG_LEN]);
    let sealed = aead(key.expose())?.seal(&nonce, &associated_data(kek, version, context)?, &mut body, &mut tag);
    if sealed.is_err() {
        body.zeroize();
        return Err(Error::new(ErrorKind::Unavailable, "the cipher backend refused to wrap"));
    }
    Ok([&[WRAPPED_VERSION][..], &version.to_be_bytes(), &nonce, &body, &tag].concat())
}

/// `0x01 || KEK version 4 || nonce 12 || ciphertext 32 || tag 16`
pub(crate) struct Wrapped {
    pub(crate) version: u32,
    nonce: [u8; NONCE_LEN],
    body: [u8; DataKey::LEN],
    tag: [u8; TAG_LEN],
}

impl Wrapped {
    /// # Errors
    /// `Denied` if the bytes are not of that form: whoever made them, it was not this KMS.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        Self::parsed(bytes).ok_or_else(not_wrapped_here)
    }

    fn parsed(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&[WRAPPED_VERSION])?;
        let (version, rest) = rest.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let (body, tag) = rest.split_first_chunk()?;
        Some(Self { version: u32::from_be_bytes(*version), nonce: *nonce, body: *body, tag: tag.try_into().ok()? })
    }

    /// Unwraps with `key`, which is `self.version` of `kek`.
    pub(crate) fn unwrap(self, kek: &KekUri, key: &Secret<32>, context: &EncryptionContext) -> Result<DataKey> {
        let mut body = self.body;
        aead(key.expose())?
            .open(&self.nonce, &associated_data(kek, self.version, context)?, &mut body, &self.tag)
            .map_err(|Refused| not_wrapped_here())?;
        DataKey::take(&mut body)
    }
}
