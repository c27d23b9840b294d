//! What the local KMS makes of a data key (FORMAT.md, "The local KMS"): XAES-256-GCM under one version of a KEK, the encryption
//! context as associated data.

use crate::crypto::aead::{Backend, Refused, TAG_LEN};
use crate::crypto::random;
use crate::crypto::secret::{DataKey, Secret};
use crate::crypto::xaes::{NONCE_LEN, XaesKey};
use crate::error::{Error, ErrorKind, Result};
use crate::key::encryption_context::EncryptionContext;
use crate::key::kek::KekUri;

const LABEL: &[u8] = b"strongroom/v1/local-kms";
/// First byte of wrapped bytes. 1 was AES-256-GCM, before any release.
const WRAPPED_VERSION: u8 = 2;

/// `"strongroom/v1/local-kms" || name length 1 || KEK name || KEK version 4 || canonical encryption context`
fn associated_data(kek: &KekUri, version: u32, context: &EncryptionContext) -> Result<Vec<u8>> {
    let name = kek.name().as_bytes();
    let len = u8::try_from(name.len()).map_err(|_| not_wrapped_here())?;
    Ok([LABEL, &[len], name, &version.to_be_bytes(), &context.to_bytes()].concat())
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
    let (mut nonce, mut body, mut tag) = ([0; NONCE_LEN], [0; DataKey::LEN], [0; TAG_LEN]);
    random::from_os(&mut nonce)?;
    let aad = associated_data(kek, version, context)?;
    XaesKey::new(Backend::DEFAULT, key)
        .seal_from(&nonce, &aad, data_key.expose(), &mut body, &mut tag)
        .map_err(|Refused| Error::new(ErrorKind::Unavailable, "the cipher backend refused to wrap"))?;
    Ok([&[WRAPPED_VERSION][..], &version.to_be_bytes(), &nonce, &body, &tag].concat())
}

/// `0x02 || KEK version 4 || nonce 24 || ciphertext 32 || tag 16`
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
        let mut data_key = [0; DataKey::LEN];
        let aad = associated_data(kek, self.version, context)?;
        XaesKey::new(Backend::DEFAULT, key)
            .open_from(&self.nonce, &aad, &self.body, &mut data_key, &self.tag)
            .map_err(|Refused| not_wrapped_here())?;
        DataKey::take(&mut data_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn unhex(value: &Value) -> Vec<u8> {
        base16ct::lower::decode_vec(value.as_str().unwrap()).unwrap()
    }

    fn unwrapped(case: &Value) -> Result<DataKey> {
        let kek = KekUri::new(&format!("local:{}", case["kek_name"].as_str().unwrap())).unwrap();
        let key = Secret::take(&mut unhex(&case["kek"]).try_into().unwrap());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let pairs = case["context"].as_array().unwrap().iter().map(|pair| (text(&pair[0]), text(&pair[1])));
        let pairs: Vec<_> = pairs.collect();
        let context = EncryptionContext::of(&pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>());
        Wrapped::parse(&unhex(&case["wrapped"]))?.unwrap(&kek, &key, &context.unwrap())
    }

    #[test]
    fn golden_wrappings() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/local-kms");
        let (mut opened, mut refused) = (0, 0);
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let case: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            match (case["expect"].as_str().unwrap(), unwrapped(&case)) {
                ("opens", Ok(key)) => {
                    assert_eq!(key.expose()[..], unhex(&case["data_key"]), "{path:?}");
                    opened += 1;
                }
                ("unopenable", Err(e)) => {
                    assert_eq!(e.kind(), ErrorKind::Denied, "{path:?}");
                    refused += 1;
                }
                (expect, _) => panic!("{path:?}: {expect} is not what happened"),
            }
        }
        assert!(opened >= 4 && refused >= 15, "{opened} {refused}");
    }

    #[test]
    fn wrappings_have_77_bytes_and_a_nonce_each() {
        let (kek, data_key) = (KekUri::new("local:acme").unwrap(), DataKey::random().unwrap());
        let (key, context) = (Secret::take(&mut [7; 32]), EncryptionContext::of(&[("tenant", "acme")]).unwrap());
        let wrap = || wrap(&kek, 7, &key, &context, &data_key).unwrap();
        let (one, other) = (wrap(), wrap());
        assert_eq!((one.len(), &one[..5]), (77, &[2, 0, 0, 0, 7][..]));
        for half in [5..17, 17..29] {
            assert_ne!(one[half.clone()], other[half]);
        }
        let parsed = Wrapped::parse(&one).unwrap();
        assert_eq!(parsed.version, 7);
        assert!(parsed.unwrap(&kek, &key, &context).unwrap().ct_eq(&data_key));
    }
}
