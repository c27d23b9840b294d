//! What is reserved for later (FORMAT.md, "Reserved"): keys for indexes and derived data, file data keys wrapped under a scope's,
//! padded messages, sealed audit entries. Nothing writes or reads it yet; here it is computed as far as its vectors show it.

use std::sync::Arc;

use crate::crypto::aead::{Backend, TAG_LEN};
use crate::crypto::allotment::Budget;
use crate::crypto::chunked::{OpenKey, SealKey};
use crate::crypto::kdf::{self, Purpose};
use crate::crypto::message::{MessageCipher, NONCE_LEN};
use crate::crypto::secret::{DataKey, Secret};
use crate::crypto::suite::Suite;
use crate::crypto::xaes::XaesKey;
use crate::error::{Error, Result};
use crate::format::audit_entry;
use crate::format::binding::Binding;
use crate::format::chunk::{Decryptor, Encryptor, plain_part};
use crate::format::context::{Canonical, CanonicalFields, Field};
use crate::format::file::{self, MAGIC, Prefix};
use crate::format::header::Header;
use crate::format::message::{self, BodyMut};
use crate::format::padding;
use crate::format::reader::Reader;
use crate::key::id::KeyId;
use crate::key::scope::Scope;

/// Flags in the suite byte.
const PADDED: u8 = 0x80;
const OWN_KEY: u8 = 0x40;

const INDEX: &[u8] = b"strongroom/v1/index";
const DERIVED: &[u8] = b"strongroom/v1/derived";
const FILE_WRAP: &[u8] = b"strongroom/v1/file-wrap";

/// A data key, and whose it is.
pub(crate) struct Owned {
    pub(crate) data_key: DataKey,
    pub(crate) suite: Suite,
    pub(crate) region: String,
    pub(crate) tenant: String,
    pub(crate) scope: Scope,
}

fn flagged_header(data_key: &DataKey, suite: Suite, region: &str, flags: u8) -> Result<Vec<u8>> {
    let mut header = Header::encode(suite, region, KeyId::of(data_key, suite)?.as_bytes())?;
    header.iter_mut().skip(1).take(1).for_each(|suite| *suite |= flags);
    Ok(header)
}

impl Owned {
    fn binding(&self, flags: u8) -> Result<Binding> {
        Binding::new(&flagged_header(&self.data_key, self.suite, &self.region, flags)?, &self.tenant)
    }

    fn key(&self, label: &[u8], binding: &Binding) -> Result<Secret<32>> {
        kdf::derive_labelled(&self.data_key, &[label, binding.as_bytes(), &self.scope.canonical().to_bytes()])
    }

    pub(crate) fn index_key(&self) -> Result<Secret<32>> {
        self.key(INDEX, &self.binding(0)?)
    }

    pub(crate) fn derived_key(&self) -> Result<Secret<32>> {
        self.key(DERIVED, &self.binding(0)?)
    }

    fn cipher(&self, label: &[u8], binding: &Binding) -> Result<MessageCipher> {
        let key = self.key(label, binding)?;
        Ok(MessageCipher::new(Backend::DEFAULT, self.suite, key, Arc::new(Budget::new(0))))
    }

    fn associated_data(&self, own: &[Field<'_>]) -> Result<Canonical> {
        let mut aad = Canonical::new();
        self.scope.canonical().write_own(own, &mut aad)?;
        Ok(aad)
    }

    /// Seals one envelope with a flag, under the key of a label and a nonce of the caller's.
    fn seal(
        &self,
        (flag, label): (u8, &[u8]),
        own: &[Field<'_>],
        nonce: &[u8; NONCE_LEN],
        mut text: Vec<u8>,
    ) -> Result<Vec<u8>> {
        let (binding, aad) = (self.binding(flag)?, self.associated_data(own)?);
        let tag = self.cipher(label, &binding)?.seal_with_nonce(nonce, &aad, &mut text);
        let tag = tag.map_err(|_| Error::unopenable())?;
        Ok([binding.header(), nonce, &text, &tag].concat())
    }

    /// Opens what [`Self::seal`] sealed.
    fn open(&self, (flag, label): (u8, &[u8]), own: &[Field<'_>], envelope: &[u8]) -> Result<Vec<u8>> {
        let (binding, aad) = (self.binding(flag)?, self.associated_data(own)?);
        let mut body = envelope.strip_prefix(binding.header()).ok_or_else(Error::unopenable)?.to_vec();
        let BodyMut { nonce, ciphertext, tag } = BodyMut::parse(&mut body)?;
        let opened = self.cipher(label, &binding)?.open(None, nonce, &aad, ciphertext, tag);
        opened.map_err(|_| Error::unopenable())?;
        Ok(ciphertext.to_vec())
    }

    /// Wraps the data key of one file with these own fields.
    pub(crate) fn wrap(&self, file: &DataKey, own: &[Field<'_>], nonce: &[u8; NONCE_LEN]) -> Result<Vec<u8>> {
        self.seal((OWN_KEY, FILE_WRAP), own, nonce, file.expose().to_vec())
    }

    /// # Errors
    /// `Unopenable` if it is no wrap of this data key for a file with these own fields.
    pub(crate) fn unwrap(&self, wrap: &[u8], own: &[Field<'_>]) -> Result<DataKey> {
        DataKey::take(&mut self.open((OWN_KEY, FILE_WRAP), own, wrap)?)
    }

    /// The envelope of a message whose length is hidden, padded to at least `least` bytes.
    pub(crate) fn seal_padded(
        &self,
        own: &[Field<'_>],
        nonce: &[u8; NONCE_LEN],
        text: &[u8],
        least: usize,
    ) -> Result<Vec<u8>> {
        self.seal((PADDED, message::LABEL), own, nonce, padding::padded(text, least))
    }

    /// # Errors
    /// `Unopenable` if it does not open, or is not padded as it should be.
    pub(crate) fn open_padded(&self, own: &[Field<'_>], envelope: &[u8]) -> Result<Vec<u8>> {
        let padded = self.open((PADDED, message::LABEL), own, envelope)?;
        padding::unpadded(&padded).map(<[u8]>::to_vec)
    }
}

/// What a file with a data key of its own is bound to: its header and its own fields, neither tenant nor scope.
fn own_key_context(header: &[u8], own: &[Field<'_>]) -> Result<Vec<u8>> {
    file::context(&Binding::new(header, "")?, &CanonicalFields::new(&[])?, own)
}

/// A file of one chunk, short of 16 KiB, with a data key of its own.
pub(crate) fn seal_file(
    key: &DataKey,
    (suite, region): (Suite, &str),
    own: &[Field<'_>],
    salt: [u8; 24],
    text: &[u8],
) -> Result<Vec<u8>> {
    let header = flagged_header(key, suite, region, OWN_KEY)?;
    let input = kdf::derive(key, suite, Purpose::File)?;
    let key = SealKey::with_salt(Backend::DEFAULT, suite, &input, salt, &own_key_context(&header, own)?)?;
    let encryptor = Encryptor::new(key);
    let mut file = [&MAGIC[..], &header].concat();
    file.extend(encryptor.prefix());
    let mut chunk = [text, &[0; TAG_LEN]].concat();
    encryptor.finish().seal(&mut chunk)?;
    file.extend(chunk);
    Ok(file)
}

/// # Errors
/// `Unopenable` if it is another key's, or not what was sealed.
pub(crate) fn open_file(
    key: &DataKey,
    (suite, region): (Suite, &str),
    own: &[Field<'_>],
    file: &[u8],
) -> Result<Vec<u8>> {
    let header = flagged_header(key, suite, region, OWN_KEY)?;
    let rest = file.strip_prefix(&[&MAGIC[..], &header].concat()[..]).ok_or_else(Error::unopenable)?;
    let mut reader = Reader::new(rest);
    let prefix = Prefix::read(&mut reader)?;
    let input = kdf::derive(key, suite, Purpose::File)?;
    let context = own_key_context(&header, own)?;
    let key = OpenKey::verified(Backend::DEFAULT, suite, &input, prefix.salt, prefix.commitment, &context)?;
    let mut text = vec![0; plain_part(reader.rest().len())];
    Decryptor::new(key).open_all(reader.rest(), &mut text)?;
    Ok(text)
}

/// The key that a tenant's audit entries are sealed under.
pub(crate) fn audit_key(secret: &Secret<32>, tenant: &str) -> Result<Secret<32>> {
    let info = audit_entry::key_info(tenant)?;
    Secret::filled_by(|into| kdf::hkdf(&[], secret.expose(), &[&info], into))
}

/// An entry, and salt and body sealed, under a nonce of the caller's.
pub(crate) fn seal_audit(
    key: &Secret<32>,
    salt: &[u8; audit_entry::SALT_LEN],
    body: &[u8],
    nonce: &[u8; NONCE_LEN],
) -> Result<([u8; 32], Vec<u8>)> {
    let entry = audit_entry::entry(salt, body);
    let text = [salt, body].concat();
    let (mut sealed, mut tag) = (vec![0; text.len()], [0; TAG_LEN]);
    let done = XaesKey::new(Backend::DEFAULT, key).seal_from(nonce, &entry, &text, &mut sealed, &mut tag);
    done.map_err(|_| Error::unopenable())?;
    Ok((entry, [&nonce[..], &sealed, &tag].concat()))
}

/// Salt and body of an entry that a log holds.
///
/// # Errors
/// `Unopenable` if what is sealed is not the entry's.
pub(crate) fn open_audit(key: &Secret<32>, entry: &[u8; 32], sealed: &[u8]) -> Result<([u8; 32], Vec<u8>)> {
    let refused = Error::unopenable;
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(refused)?;
    let (body, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or_else(refused)?;
    let mut text = vec![0; body.len()];
    let opened = XaesKey::new(Backend::DEFAULT, key).open_from(nonce, entry, body, &mut text, tag);
    opened.map_err(|_| refused())?;
    let (salt, body) = text.split_first_chunk().ok_or_else(refused)?;
    if audit_entry::entry(salt, body) != *entry {
        return Err(refused());
    }
    Ok((*salt, body.to_vec()))
}
