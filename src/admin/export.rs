//! Leaving: a tenant's data keys, wrapped under a KEK of its own choice, to take along.

use futures_util::stream::{StreamExt, iter};
use serde::Serialize;

use crate::admin::decide::Decided;
use crate::admin::walk::{Pace, Pages, WalkOptions, Walked};
use crate::admin::{Admin, explain};
use crate::crypto::suite::Suite;
use crate::error::{Error, Result};
use crate::key::export::note;
use crate::key::id::{KeyId, TenantId};
use crate::key::journal::Decision;
use crate::key::json::objects;
use crate::key::kek::KekUri;
use crate::key::record::KeyRecord;
use crate::key::region::Region;
use crate::key::suspension::opens_suspended;
use crate::key::tenant::TenantRecord;
use crate::key::wrapped_key::{MAX_WRAPPED, Wrapping};

objects! {
    /// A data key for whoever holds the KEK: with FORMAT.md, everything that its envelopes need to be opened without strongroom.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct ExportedKey {
        /// Whose.
        pub tenant: TenantId,
        /// Which; envelopes name it.
        pub key_id: KeyId,
        /// Its ciphers, as envelopes number them.
        pub suite: u8,
        /// The region in its envelopes.
        pub region: Region,
        /// The encryption context of the wrapping: the KMS wants it again.
        pub encryption_context: Vec<(String, String)>,
        /// The KEK that unwraps it.
        pub kek: KekUri,
        /// The data key, wrapped, in hexadecimal digits.
        pub wrapped: String,
    }
}

impl ExportedKey {
    /// Its JSON, on one line: FORMAT.md section 7, "Exports".
    ///
    /// # Errors
    /// `InvalidArgument` if it cannot be encoded.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::invalid("an exported key cannot be encoded").with_source(e))
    }

    /// Reads its JSON: just the members that FORMAT.md names, each once. Nothing vouches for them.
    ///
    /// # Errors
    /// `Malformed` if it is none.
    pub fn from_json(json: &str) -> Result<Self> {
        let key: Self =
            serde_json::from_str(json).map_err(|e| Error::malformed("not an exported key").with_source(e))?;
        if Suite::from_byte(key.suite).is_none() {
            return Err(Error::malformed("an exported key is of a suite that there is none"));
        }
        let is_lower_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        let in_range = (2..=2 * MAX_WRAPPED).contains(&key.wrapped.len()) && key.wrapped.len().is_multiple_of(2);
        if !in_range || !key.wrapped.bytes().all(is_lower_hex) {
            return Err(Error::malformed("an exported key is not 1 to 6144 bytes in lower-case hexadecimal digits"));
        }
        Ok(key)
    }
}

/// The KEK that data keys are exported to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportTo {
    /// One that the tenant's policy names, or that its keys are still wrapped under.
    Policy(KekUri),
    /// Another one: whoever holds it can open what the keys seal, whatever the tenant decides later. The tenant's row, receipts
    /// and residency reports say so from then on.
    Foreign(KekUri),
}

impl ExportTo {
    /// The KEK.
    pub fn kek(&self) -> &KekUri {
        match self {
            Self::Policy(kek) | Self::Foreign(kek) => kek,
        }
    }
}

impl Admin {
    /// Wraps every data key of the tenant under another KEK, opens the wrapping again and compares, and gives it to `sink`. Key
    /// records stay as they are. Keys that are revoked or wait to be erased are left out and counted as failed.
    ///
    /// The copies are out of reach of every later revocation, denial and erasure. So the export is noted in the tenant's row
    /// and journal before the first key leaves, and receipts and residency reports state it.
    ///
    /// # Errors
    /// `InvalidArgument` if the KEK is none of the policy's and not named as foreign; `Region` if it is stated to be where
    /// the tenant does not allow; `Limit` beyond 100 such KEKs; what `sink` says; of records as [`Self::rotate_all`], and of
    /// those that are revoked, erased or suspended `Revoked`, `Erased` or `Suspended`, and what the KMS says; as every verb
    /// ([`Admin`](crate::Admin#errors-of-every-verb)).
    pub async fn export(
        &self,
        tenant: &str,
        to: ExportTo,
        options: &WalkOptions,
        mut sink: impl FnMut(ExportedKey) -> Result<()> + Send,
    ) -> Result<Walked> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let kek = to.kek();
            let at = self.keyring.clock.unix_millis();
            let row = self
                .change(&id, |row| {
                    row.policy.check_kek_region(kek)?;
                    let foreign = !row.keks.names(kek);
                    if foreign && matches!(to, ExportTo::Policy(_)) {
                        let message =
                            "the tenant's policy does not name this KEK; say ExportTo::Foreign if it is meant";
                        return Err(Error::invalid(message).with_kek(kek.as_str()));
                    }
                    note(&mut row.exports, kek, foreign, at, row.epoch)?;
                    Ok(Some(Decided::quiet(Decision::new("export").with("kek", kek).with("foreign", foreign))))
                })
                .await?;
            let mut pages = Pages::new(self, &id, options);
            while let Some(page) = pages.next().await? {
                let there = page.into_iter().filter(|record| record.wrapped.is_some());
                let pace = &pages.pace;
                let exporting = there.map(|record| {
                    let row = &row;
                    async move {
                        let exported = pace.unhurried(|| self.export_one(row, record.record.clone(), kek, pace)).await;
                        (record.key_id, exported)
                    }
                });
                let exported: Vec<(KeyId, Result<ExportedKey>)> =
                    iter(exporting).buffered(options.at_once()).collect().await;
                for (key_id, key) in exported {
                    match key {
                        Ok(key) => {
                            sink(key).map_err(|e| pages.walked.stopped_by(e))?;
                            pages.walked.done += 1;
                        }
                        Err(e) => pages.walked.fail_key(key_id, e),
                    }
                }
            }
            let (actor, reason) = (self.by.actor(), self.by.reason());
            tracing::warn!(tenant = %id, %kek, keys = pages.walked.done, actor, reason, "exported data keys");
            pages.walked.finished()
        };
        run.await.map_err(|e: Error| explain(e, "export", tenant))
    }

    async fn export_one(
        &self,
        row: &TenantRecord,
        record: KeyRecord,
        kek: &KekUri,
        pace: &Pace,
    ) -> Result<ExportedKey> {
        row.check_not_erased(&record)?;
        row.check_not_revoked(&record.scope, record.period.as_ref(), Some(&record.key_id))?;
        record.check_opens()?;
        self.keyring.check_fleet_opens()?;
        if let Some(suspension) = row.suspension(&record, self.keyring.clock.unix_millis()) {
            return Err(opens_suspended(Some(suspension.until)));
        }
        let context = record.encryption_context()?;
        pace.turn(record.wrapped.as_ref().map_or(0, |wrapped| wrapped.expression().calls_to_unwrap())).await;
        let data_key = self.keyring.unwrap(row, &record).await?;
        pace.turn(2).await; // the wrapping and its proof
        let wrapped = self.keyring.kms.wrap(&row.tenant, kek, &context, &data_key).await?;
        let wrapping = Wrapping { kek: kek.clone(), wrapped };
        let again = self.keyring.kms.unwrap(&row.tenant, &wrapping, &context).await?;
        crate::key::data_key::verify(&again, &record).map_err(|e| e.with_kek(kek.as_str()))?;
        Ok(ExportedKey {
            tenant: record.tenant,
            key_id: record.key_id,
            suite: record.suite.byte(),
            region: record.region,
            encryption_context: context.fields().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
            kek: wrapping.kek,
            wrapped: base16ct::lower::encode_string(&wrapping.wrapped),
        })
    }
}
