//! Wrapping and unwrapping in the shape of a KEK expression.

use std::sync::{Mutex, PoisonError};

use futures_util::future::{BoxFuture, join_all};

use crate::crypto::secret::DataKey;
use crate::crypto::split;
use crate::error::{Error, ErrorKind, Result};
use crate::key::data_key::verify;
use crate::key::encryption_context::EncryptionContext;
use crate::key::id::TenantId;
use crate::key::kek::KekUri;
use crate::key::kek_expression::KekExpression;
use crate::key::record::KeyRecord;
use crate::key::tenant::TenantRecord;
use crate::key::wrapped_key::{WrappedKey, Wrapping};
use crate::keyring::Keyring;
use crate::keyring::cache::CachedKey;

/// The KEKs that were denied on the way.
type Denied = Mutex<Vec<KekUri>>;

impl Keyring {
    /// A new data key, wrapped for `keks`. The KMS makes it where one KEK alone can unwrap it; components for `all_of` are
    /// made here.
    pub(crate) async fn generate(
        &self,
        row: &TenantRecord,
        keks: &KekExpression,
        context: &EncryptionContext,
    ) -> Result<(DataKey, WrappedKey)> {
        let (first, others) = match keks {
            KekExpression::One(kek) => (kek, None),
            KekExpression::AnyOf(of) => match of.split_first() {
                Some((KekExpression::One(kek), others)) => (kek, Some(others)),
                _ => return self.make_here(row, keks, context).await,
            },
            KekExpression::AllOf(_) => return self.make_here(row, keks, context).await,
        };
        row.policy.check_kek_region(first)?;
        let made = self.unless_denied(row, first, self.kms.generate(&row.tenant, first, context).await)?;
        let wrapped = WrappedKey::One(Wrapping { kek: first.clone(), wrapped: made.wrapped });
        let Some(others) = others else {
            return Ok((made.data_key, wrapped));
        };
        let mut of = vec![wrapped];
        for other in others {
            of.push(self.wrap(row, other, context, &made.data_key).await?);
        }
        Ok((made.data_key, WrappedKey::AnyOf(of)))
    }

    async fn make_here(
        &self,
        row: &TenantRecord,
        keks: &KekExpression,
        context: &EncryptionContext,
    ) -> Result<(DataKey, WrappedKey)> {
        let data_key = DataKey::random()?;
        let wrapped = self.wrap(row, keks, context, &data_key).await?;
        Ok((data_key, wrapped))
    }

    /// Wraps `data_key` for `keks`.
    pub(crate) fn wrap<'a>(
        &'a self,
        row: &'a TenantRecord,
        keks: &'a KekExpression,
        context: &'a EncryptionContext,
        data_key: &'a DataKey,
    ) -> BoxFuture<'a, Result<WrappedKey>> {
        Box::pin(async move {
            match keks {
                KekExpression::One(kek) => {
                    row.policy.check_kek_region(kek)?;
                    let wrapped = self.kms.wrap(&row.tenant, kek, context, data_key).await;
                    let wrapped = self.unless_denied(row, kek, wrapped)?;
                    Ok(WrappedKey::One(Wrapping { kek: kek.clone(), wrapped }))
                }
                KekExpression::AnyOf(of) => {
                    let wrapped = join_all(of.iter().map(|e| self.wrap(row, e, context, data_key))).await;
                    wrapped.into_iter().collect::<Result<_>>().map(WrappedKey::AnyOf)
                }
                KekExpression::AllOf(of) => {
                    let components = split::split(data_key, of.len())?;
                    let context = &context.for_component()?;
                    let each = of.iter().zip(&components).map(|(e, component)| self.wrap(row, e, context, component));
                    join_all(each).await.into_iter().collect::<Result<_>>().map(WrappedKey::AllOf)
                }
            }
        })
    }

    /// Opens every wrapping in `wrapped`, not only the first that answers, and checks that all give the record's key.
    ///
    /// # Errors
    /// `KeyMismatch` if one gives another key; else what the KMS says.
    pub(crate) async fn prove(&self, row: &TenantRecord, record: &KeyRecord, wrapped: &WrappedKey) -> Result<DataKey> {
        row.check_record(record)?;
        let context = record.encryption_context()?;
        let data_key = self.open_all(row, wrapped, &context).await?;
        verify(&data_key, record).map(|()| data_key)
    }

    fn open_all<'a>(
        &'a self,
        row: &'a TenantRecord,
        wrapped: &'a WrappedKey,
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<DataKey>> {
        Box::pin(async move {
            match wrapped {
                WrappedKey::One(wrapping) => self.open_one(row, wrapping, context).await,
                WrappedKey::AnyOf(of) => {
                    let mut keys = Vec::new();
                    for opened in join_all(of.iter().map(|w| self.open_all(row, w, context))).await {
                        keys.push(opened?);
                    }
                    let first = keys.pop().ok_or_else(no_wrapping)?;
                    if keys.iter().all(|key| key.ct_eq(&first)) {
                        return Ok(first);
                    }
                    Err(Error::new(ErrorKind::KeyMismatch, "the wrappings of a data key give different keys"))
                }
                WrappedKey::AllOf(of) => {
                    let context = &context.for_component()?;
                    let opened = join_all(of.iter().map(|w| self.open_all(row, w, context))).await;
                    split::join(&opened.into_iter().collect::<Result<Vec<_>>>()?)
                }
            }
        })
    }

    async fn open_one(&self, row: &TenantRecord, wrapping: &Wrapping, context: &EncryptionContext) -> Result<DataKey> {
        row.policy.check_kek_region(&wrapping.kek)?;
        let opened = self.kms.unwrap(&row.tenant, wrapping, context).await;
        opened.map_err(|e| e.with_kek(wrapping.kek.as_str()))
    }

    /// The record's data key, verified. The first wrapping that answers serves. If none does: denied only if all are; else
    /// what may pass, so that callers retry.
    pub(crate) async fn unwrap(&self, row: &TenantRecord, record: &KeyRecord) -> Result<DataKey> {
        // No KMS is asked with a KEK that only the record names.
        row.check_record(record)?;
        let context = record.encryption_context()?;
        let denied = Denied::default();
        let mut failure = None;
        let alternatives = record.wrapped.iter().chain(record.pending.as_ref().map(|p| &p.wrapped)).flat_map(
            |wrapped| match wrapped {
                WrappedKey::AnyOf(of) => of.iter().collect(),
                other => vec![other],
            },
        );
        for wrapped in alternatives {
            let opened = self.open_any(row, wrapped, &context, &denied).await;
            match opened.and_then(|data_key| verify(&data_key, record).map(|()| data_key)) {
                Ok(data_key) => {
                    // Loads under way, this one among them, ask the KMS themselves.
                    self.drop_denied(&record.tenant, denied, || {});
                    return Ok(data_key);
                }
                Err(e) => failure = Some(weigh(failure, e)),
            }
        }
        self.drop_denied(&record.tenant, denied, || self.flights.make_stale(&record.tenant, |_| true));
        Err(failure.unwrap_or_else(no_wrapping).with_region(record.region.as_str()))
    }

    fn open_any<'a>(
        &'a self,
        row: &'a TenantRecord,
        wrapped: &'a WrappedKey,
        context: &'a EncryptionContext,
        denied: &'a Denied,
    ) -> BoxFuture<'a, Result<DataKey>> {
        Box::pin(async move {
            match wrapped {
                WrappedKey::One(wrapping) => {
                    let opened = self.open_one(row, wrapping, context).await;
                    if opened.as_ref().is_err_and(|e| e.kind() == ErrorKind::Denied) {
                        denied.lock().unwrap_or_else(PoisonError::into_inner).push(wrapping.kek.clone());
                    }
                    opened
                }
                WrappedKey::AnyOf(of) => {
                    let mut failure = None;
                    for wrapped in of {
                        match self.open_any(row, wrapped, context, denied).await {
                            Ok(data_key) => return Ok(data_key),
                            Err(e) => failure = Some(weigh(failure, e)),
                        }
                    }
                    Err(failure.unwrap_or_else(no_wrapping))
                }
                WrappedKey::AllOf(of) => {
                    let context = &context.for_component()?;
                    let mut components = Vec::new();
                    let mut failure: Option<Error> = None;
                    for opened in join_all(of.iter().map(|w| self.open_any(row, w, context, denied))).await {
                        match opened {
                            Ok(component) => components.push(component),
                            // One holder's no is a no, whatever the others say.
                            Err(e) if e.kind() == ErrorKind::Denied => failure = Some(e),
                            Err(e) => failure = failure.or(Some(e)),
                        }
                    }
                    match failure {
                        None => split::join(&components),
                        Some(e) => Err(e),
                    }
                }
            }
        })
    }

    /// A denial of any call counts: who may not make a key today may not use yesterday's.
    fn unless_denied<T>(&self, row: &TenantRecord, kek: &KekUri, answer: Result<T>) -> Result<T> {
        if answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::Denied) {
            self.drop_denied(&row.tenant, Denied::new(vec![kek.clone()]), || {});
        }
        answer
    }

    /// Denied is not down: the tenant's cached keys that cannot be unwrapped without these KEKs go at once.
    fn drop_denied(&self, tenant: &TenantId, denied: Denied, meanwhile: impl FnOnce()) {
        let denied = denied.into_inner().unwrap_or_else(PoisonError::into_inner);
        if denied.is_empty() {
            return;
        }
        let lost = |key: &CachedKey| !key.keks.stands_without(&|kek: &KekUri| denied.contains(kek));
        let dropped = self.cache.purge(tenant, lost, meanwhile);
        tracing::warn!(%tenant, ?denied, dropped, "the KMS denies the tenant's KEK: its cached keys are dropped");
    }
}

/// Of the failures of alternatives: one that may pass counts more than a denial.
fn weigh(before: Option<Error>, now: Error) -> Error {
    match before {
        Some(before) if before.kind() != ErrorKind::Denied => before,
        _ => now,
    }
}

fn no_wrapping() -> Error {
    Error::malformed("the key record has no wrapping")
}
