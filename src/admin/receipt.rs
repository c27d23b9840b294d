//! Receipts of erasures: which key ids are gone, since when, and until when caches and backups could still hold them.
//!
//! A receipt is JSON in a DSSE envelope (Dead Simple Signing Envelope, version 1.0.2), signed with a key that the operator
//! holds.

use base64ct::{Base64, Encoding};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::admin::{Admin, explain};
use crate::crypto::signing::{ReceiptSigner, is_signed};
use crate::error::{Error, Result};
use crate::key::export::Export;
use crate::key::id::{KeyId, TenantId};
use crate::key::revocation::Selector;

/// The DSSE payload type of receipts.
pub const RECEIPT_TYPE: &str = "application/vnd.strongroom.erasure-receipt.v1+json";

/// One key of a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasedKey {
    /// Which.
    pub key_id: KeyId,
    /// When its wrapped bytes were destroyed, in Unix milliseconds.
    pub erased_at: i64,
}

/// States which data keys are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureReceipt {
    /// Whose.
    pub tenant: TenantId,
    /// What was asked to be erased.
    pub selector: Selector,
    /// The keys that are gone.
    pub erased: Vec<ErasedKey>,
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

/// A receipt in its DSSE envelope. Its JSON is what is handed to the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignedReceipt {
    payload: String,
    payload_type: String,
    signatures: Vec<ReceiptSignature>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiptSignature {
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
        let payload = Base64::decode_vec(&self.payload).map_err(|_| Error::malformed("a receipt is not Base64"))?;
        let message = pre_authentication(&self.payload_type, &payload);
        let is_ours = |s: &ReceiptSignature| {
            Base64::decode_vec(&s.sig).is_ok_and(|signature| is_signed(public_key, &message, &signature))
        };
        if self.payload_type != RECEIPT_TYPE || !self.signatures.iter().any(is_ours) {
            return Err(Error::malformed("the receipt is not signed by this key"));
        }
        serde_json::from_slice(&payload).map_err(|e| Error::malformed("a signed receipt does not read").with_source(e))
    }
}

/// DSSE's PAE: `"DSSEv1" SP LEN(type) SP type SP LEN(body) SP body`.
fn pre_authentication(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), body.len()).into_bytes();
    message.extend_from_slice(body);
    message
}

impl Admin {
    /// A signed receipt of the tenant's destroyed keys that `selector` covers. `backups` is how long the operator keeps backups
    /// of the key store.
    ///
    /// # Errors
    /// `UnknownTenant` or `Unavailable`; what the signer says.
    pub async fn receipt(
        &self,
        tenant: &str,
        selector: Selector,
        backups: Duration,
        signer: &dyn ReceiptSigner,
    ) -> Result<SignedReceipt> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let row = self.keyring.tenant(&id).await?;
            let gone = self.destroyed(&id, &selector).await?;
            let issued_at = self.keyring.clock.unix_millis();
            let last = gone.iter().map(|(_, at)| *at).max().unwrap_or(issued_at);
            let after = |time: Duration| last.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
            let statement = ErasureReceipt {
                tenant: id,
                selector,
                erased: gone.into_iter().map(|(key_id, erased_at)| ErasedKey { key_id, erased_at }).collect(),
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

    #[test]
    fn a_receipt_that_somebody_changed_or_signed_otherwise_is_refused() {
        let signer = Ed25519Signer::from_seed(&mut [7; 32]).unwrap();
        let receipt = ErasureReceipt {
            tenant: TenantId::new("acme").unwrap(),
            selector: Selector::everything(),
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
