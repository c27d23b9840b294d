//! Leaving: a tenant's data keys, wrapped under a KEK of its own choice, to take along.

use futures_util::stream::{StreamExt, iter};
use serde::Serialize;

use crate::admin::walk::{Pages, WalkOptions, Walked};
use crate::admin::{Admin, explain};
use crate::error::{Error, Result};
use crate::key::id::{KeyId, TenantId};
use crate::key::kek::KekUri;
use crate::key::record::KeyRecord;
use crate::key::region::Region;
use crate::key::tenant::TenantRecord;
use crate::key::wrapped_key::Wrapping;

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

impl Admin {
    /// Wraps every data key of the tenant under `kek`, opens the wrapping again and compares, and gives it to `sink`. The key
    /// store stays as it is. Keys that are revoked or wait to be erased are left out and counted as failed.
    ///
    /// # Errors
    /// `Region` if the KEK is stated to be where the tenant does not allow; what `sink` says; `UnknownTenant`, `Unavailable`.
    pub async fn export(
        &self,
        tenant: &str,
        kek: &KekUri,
        options: &WalkOptions,
        mut sink: impl FnMut(ExportedKey) -> Result<()> + Send,
    ) -> Result<Walked> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let row = self.keyring.tenant(&id).await?;
            row.policy.check_kek_region(kek)?;
            let mut pages = Pages::new(self, &id, options);
            while let Some(page) = pages.next().await? {
                let there = page.into_iter().filter(|record| record.wrapped.is_some());
                let exporting = there.map(|record| self.export_one(&row, record, kek));
                let exported: Vec<Result<ExportedKey>> = iter(exporting).buffered(options.at_once()).collect().await;
                for key in exported {
                    match key {
                        Ok(key) => {
                            sink(key)?;
                            pages.walked.done += 1;
                        }
                        Err(e) => pages.walked.fail(e),
                    }
                }
            }
            tracing::warn!(tenant = %id, %kek, keys = pages.walked.done, "exported data keys");
            Ok(pages.walked)
        };
        run.await.map_err(|e: Error| explain(e, "export", tenant))
    }

    async fn export_one(&self, row: &TenantRecord, record: KeyRecord, kek: &KekUri) -> Result<ExportedKey> {
        row.check_not_revoked(&record.scope, record.period.as_ref(), Some(&record.key_id))?;
        record.check_opens()?;
        let context = record.encryption_context()?;
        let data_key = self.keyring.unwrap(row, &record).await?;
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
