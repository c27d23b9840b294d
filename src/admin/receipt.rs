//! Receipts of erasures: which key ids are gone, since when, and until when caches and backups could still hold them.
//!
//! A receipt is JSON in a DSSE envelope (Dead Simple Signing Envelope, version 1.0.2), signed with a key that the operator
//! holds.

use base64ct::{Base64, Base64Url, Encoding};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::admin::walk::{Pages, WalkOptions};
use crate::admin::{Admin, explain};
use crate::crypto::signing::{ReceiptSigner, is_signed};
use crate::error::{Error, ErrorKind, Result};
use crate::key::export::Export;
use crate::key::id::{KeyId, TenantId};
use crate::key::json::{Object, objects};
use crate::key::revocation::Selector;
use crate::key::state::KeyState;

/// The DSSE payload type of receipts.
pub const RECEIPT_TYPE: &str = "application/vnd.strongroom.erasure-receipt.v1+json";

objects! {
    /// One key of a receipt.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct ErasedKey {
        /// Which.
        pub key_id: KeyId,
        /// When its wrapped bytes were destroyed, in Unix milliseconds.
        pub erased_at: i64,
    }
}

objects! {
    /// States which data keys are gone.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct ErasureReceipt {
        /// Whose.
        pub tenant: TenantId,
        /// What was asked to be erased.
        pub selector: Selector,
        /// Every key that it covers and that was made under an earlier epoch of the tenant than this one was erased: the rule stands
        /// in the tenant's row.
        pub made_before_epoch: u64,
        /// The keys that are gone.
        pub erased: Vec<ErasedKey>,
        /// How many keys that it covers are there: they were made since.
        pub made_since: u64,
        /// How many rows the store listed that do not read; what they cover nobody can say.
        pub unreadable: u64,
        /// When the receipt was issued, in Unix milliseconds.
        pub issued_at: i64,
        /// No cache of a node holds any of them after this, in Unix milliseconds: the last erasure plus the policy's cache time to
        /// live.
        pub caches_clear_at: i64,
        /// No backup of the key store holds them after this, in Unix milliseconds: the last erasure plus the retention of backups
        /// that the operator stated.
        pub backups_clear_at: i64,
        /// The tenant's epoch. A key store that has a lower one was restored from a backup, and nodes refuse it.
        pub epoch: u64,
        /// Which KEKs data keys were exported to, copies of erased ones perhaps among them: no erasure reaches these.
        pub exports: Vec<Export>,
        /// What the key store listed is what it chose to list. The rules of the tenant's row hold all the same: what they erased does
        /// not open.
        pub as_listed: bool,
    }
}

/// A receipt in its DSSE envelope. Its JSON is what is handed to the tenant. As DSSE 1.0.2 asks of readers, members that are not known
/// are ignored, the key's id may be missing, and Base64 may be URL-safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Object<Envelope>", into = "Envelope")]
pub struct SignedReceipt {
    payload: String,
    payload_type: String,
    signatures: Vec<ReceiptSignature>,
}

/// Its JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Object<ReceiptSignature>>,
}

impl From<SignedReceipt> for Envelope {
    fn from(receipt: SignedReceipt) -> Self {
        let SignedReceipt { payload, payload_type, signatures } = receipt;
        Self { payload, payload_type, signatures: signatures.into_iter().map(Object).collect() }
    }
}

impl From<Object<Envelope>> for SignedReceipt {
    fn from(Object(envelope): Object<Envelope>) -> Self {
        let Envelope { payload, payload_type, signatures } = envelope;
        Self { payload, payload_type, signatures: signatures.into_iter().map(|Object(it)| it).collect() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ReceiptSignature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

impl SignedReceipt {
    fn new(receipt: &ErasureReceipt, signer: &dyn ReceiptSigner) -> Result<Self> {
        let payload =
            serde_json::to_vec(receipt).map_err(|e| Error::invalid("a receipt cannot be encoded").with_source(e))?;
        let sig = Base64::encode_string(&signer.sign(&pre_authentication(RECEIPT_TYPE, &payload))?);
        Ok(Self {
            payload: Base64::encode_string(&payload),
            payload_type: RECEIPT_TYPE.to_owned(),
            signatures: vec![ReceiptSignature { keyid: signer.key_id(), sig }],
        })
    }

    /// The JSON of the envelope.
    ///
    /// # Errors
    /// `InvalidArgument` if it cannot be encoded.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::invalid("a receipt cannot be encoded").with_source(e))
    }

    /// Reads the JSON of an envelope. Nothing of it is believed before [`Self::verify`].
    ///
    /// # Errors
    /// `Malformed` if it is none.
    pub fn from_json(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|e| Error::malformed("not a receipt's envelope").with_source(e))
    }

    /// The receipt, if the holder of `public_key` (Ed25519, 32 bytes) signed it.
    ///
    /// # Errors
    /// `Malformed` if nobody of that key did, or it is no receipt.
    pub fn verify(&self, public_key: &[u8; 32]) -> Result<ErasureReceipt> {
        let payload = from_base64(&self.payload).ok_or_else(|| Error::malformed("a receipt is not Base64"))?;
        let message = pre_authentication(&self.payload_type, &payload);
        let is_ours = |s: &ReceiptSignature| {
            from_base64(&s.sig).is_some_and(|signature| is_signed(public_key, &message, &signature))
        };
        if self.payload_type != RECEIPT_TYPE || !self.signatures.iter().any(is_ours) {
            return Err(Error::malformed("the receipt is not signed by this key"));
        }
        serde_json::from_slice(&payload).map_err(|e| Error::malformed("a signed receipt does not read").with_source(e))
    }
}

/// Either alphabet, as DSSE has it.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    Base64::decode_vec(text).or_else(|_| Base64Url::decode_vec(text)).ok()
}

/// DSSE's PAE: `"DSSEv1" SP LEN(type) SP type SP LEN(body) SP body`.
fn pre_authentication(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), body.len()).into_bytes();
    message.extend_from_slice(body);
    message
}

impl Admin {
    /// A signed receipt of an erasure that was carried out: of what `selector` covers of it, all or a part. `backups` is how long the
    /// operator keeps backups of the key store.
    ///
    /// # Errors
    /// `Conflict` if no erasure that was carried out covers all that `selector` does, or wrapped bytes of it are in the store
    /// again; `InvalidArgument` if the selector could cover nothing; what the signer says; as every verb
    /// ([`Admin`](crate::Admin#errors-of-every-verb)).
    pub async fn receipt(
        &self,
        tenant: &str,
        selector: Selector,
        backups: Duration,
        signer: &dyn ReceiptSigner,
    ) -> Result<SignedReceipt> {
        let run = async {
            let id = TenantId::new(tenant)?;
            self.check_rule(&id, &selector).await?;
            let row = self.keyring.tenant(&id).await?;
            let covering = row.erased.iter().filter(|floor| floor.selector.includes(&selector));
            let before = covering.map(|floor| floor.before).max().ok_or_else(|| {
                let message = format!(
                    "no erasure that was carried out covers all of {selector}: carry one out first, or ask for what was erased"
                );
                Error::new(ErrorKind::Conflict, message)
            })?;
            let found = self.what_is_left(&id, &selector, before).await?;
            if found.not_destroyed > 0 {
                let message = format!(
                    "the store has wrapped bytes of {} keys that were erased: it was put back, or hid them; erase them again",
                    found.not_destroyed
                );
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            let issued_at = self.keyring.clock.unix_millis();
            let last = found.erased.iter().map(|key| key.erased_at).max().unwrap_or(issued_at);
            let after = |time: Duration| last.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
            let statement = ErasureReceipt {
                tenant: id,
                selector,
                made_before_epoch: before,
                erased: found.erased,
                made_since: found.made_since,
                unreadable: found.unreadable,
                issued_at,
                caches_clear_at: after(row.policy.key_cache_ttl()),
                backups_clear_at: after(backups),
                epoch: row.epoch,
                exports: row.exports.clone(),
                as_listed: true,
            };
            SignedReceipt::new(&statement, signer)
        };
        run.await.map_err(|e: Error| explain(e, "issue receipt", tenant))
    }

    /// What the store lists of the keys that `selector` covers, where those made before an epoch were erased.
    async fn what_is_left(&self, id: &TenantId, selector: &Selector, before: u64) -> Result<Left> {
        let options = WalkOptions::default().page(1000);
        let mut pages = Pages::new(self, id, &options);
        let mut left = Left::default();
        while let Some(page) = pages.next().await? {
            for record in page.iter().filter(|record| selector.covers_record(record)) {
                match record.state {
                    KeyState::Destroyed => {
                        left.erased.push(ErasedKey { key_id: record.key_id, erased_at: record.state_since });
                    }
                    _ if record.made_epoch < before => left.not_destroyed += 1,
                    _ => left.made_since += 1,
                }
            }
        }
        left.unreadable = pages.walked.failed;
        Ok(left)
    }
}

/// What a walk found of keys that were erased.
#[derive(Default)]
struct Left {
    erased: Vec<ErasedKey>,
    not_destroyed: u64,
    made_since: u64,
    unreadable: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::signing::Ed25519Signer;

    /// The example of the DSSE specification's protocol page.
    #[test]
    fn the_specification_s_own_example() {
        let message = pre_authentication("http://example.com/HelloWorld", b"hello world");
        assert_eq!(message, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    /// The statement is read as it is signed; the envelope as DSSE has it, which takes more members, and each once all the same.
    #[test]
    fn receipts_are_read_strictly() {
        use crate::key::json::tests::{Laxness, is_read_strictly};
        let key_id = "09".repeat(32);
        let statement = format!(
            concat!(
                r#"{{"tenant":"acme","selector":{{"everything":true}},"made_before_epoch":9,"erased":[{{"key_id":"{}","erased_at":5}}],"#,
                r#""made_since":0,"unreadable":0,"issued_at":6,"caches_clear_at":7,"backups_clear_at":8,"epoch":9,"#,
                r#""exports":[{{"kek":"local:a","foreign":true,"first_at":1,"last_at":2,"upto_epoch":1}}],"as_listed":true}}"#
            ),
            key_id
        );
        let but_more = [
            Laxness::ArrayForObject,
            Laxness::MemberTwice,
            Laxness::MemberMissing,
            Laxness::MemberNull,
            Laxness::ObjectForWord,
        ];
        is_read_strictly::<ErasureReceipt>(&statement, &[&but_more[..], &[Laxness::UnknownMember]].concat());
        let envelope = r#"{"payload":"YQ==","payloadType":"t","signatures":[{"keyid":"k","sig":"YQ=="}]}"#;
        is_read_strictly::<SignedReceipt>(envelope, &but_more);
    }

    #[test]
    fn a_receipt_that_somebody_changed_or_signed_otherwise_is_refused() {
        let signer = Ed25519Signer::from_seed(&mut b"thirty-two bytes of the operator".to_owned()).unwrap();
        let receipt = ErasureReceipt {
            tenant: TenantId::new("acme").unwrap(),
            selector: Selector::everything(),
            made_before_epoch: 9,
            made_since: 0,
            unreadable: 0,
            erased: vec![ErasedKey { key_id: KeyId::from_bytes([9; 32]), erased_at: 5 }],
            issued_at: 6,
            caches_clear_at: 7,
            backups_clear_at: 8,
            epoch: 9,
            exports: Vec::new(),
            as_listed: true,
        };
        let signed = SignedReceipt::new(&receipt, &signer).unwrap();
        let json = signed.to_json().unwrap();
        let public = signer.public_key();
        assert_eq!(SignedReceipt::from_json(&json).unwrap().verify(&public).unwrap(), receipt);
        assert!(signed.verify(&[3; 32]).is_err());
        let forged = ErasureReceipt { epoch: 10, ..receipt };
        let mut other = signed.clone();
        other.payload = Base64::encode_string(&serde_json::to_vec(&forged).unwrap());
        assert!(other.verify(&public).is_err());
        let mut other = signed;
        other.payload_type = "text/plain".to_owned();
        assert!(other.verify(&public).is_err());
        assert!(SignedReceipt::from_json("{}").is_err());
    }
}
