//! Wrapping and unwrapping in the shape of a KEK expression.

use std::sync::atomic::{AtomicBool, Ordering};
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
use crate::keyring::members::{group, is_outage};

/// The KEKs that were denied on the way.
type Denied = Mutex<Vec<KekUri>>;

impl Keyring {
    /// A new data key, wrapped for `keks`: of each `any_of` as many members as the policy asks for. The KMS makes it where one KEK
    /// alone can unwrap it; components for `all_of` are made here.
    pub(crate) async fn generate(
        &self,
        row: &TenantRecord,
        keks: &KekExpression,
        context: &EncryptionContext,
    ) -> Result<(DataKey, WrappedKey)> {
        let members = row.policy.members_of_new_keys();
        let (first, others, least) = match keks {
            KekExpression::One(kek) => (kek, None, 1),
            KekExpression::AnyOf(of) => match of.split_first() {
                Some((KekExpression::One(kek), others)) => (kek, Some(others), KekExpression::least_of(of, members)),
                _ => return self.make_here(row, keks, context).await,
            },
            KekExpression::AllOf(_) => return self.make_here(row, keks, context).await,
        };
        row.policy.check_kek_region(first)?;
        let can_be_left_out = others.is_some_and(|others| least <= others.len());
        if can_be_left_out && !self.hedge.is_quick(&first.into(), self.now()) {
            return self.make_here(row, keks, context).await;
        }
        let made = match self.unless_denied(row, first, self.kms.generate(&row.tenant, first, context).await) {
            Err(e) if can_be_left_out && is_outage(&e) => {
                self.hedge.kept_waiting(&first.into(), self.now());
                return self.make_here(row, keks, context).await;
            }
            made => made?,
        };
        let wrapped = WrappedKey::One(Wrapping { kek: first.clone(), wrapped: made.wrapped });
        let Some(others) = others else {
            return Ok((made.data_key, wrapped));
        };
        let wrap = |of| self.wrap(row, of, members, context, &made.data_key);
        let mut of = self.wrap_for_members(&row.tenant, others, least.saturating_sub(1), wrap).await?;
        of.insert(0, wrapped);
        Ok((made.data_key, group(of)?))
    }

    async fn make_here(
        &self,
        row: &TenantRecord,
        keks: &KekExpression,
        context: &EncryptionContext,
    ) -> Result<(DataKey, WrappedKey)> {
        let data_key = DataKey::random()?;
        let wrapped = self.wrap(row, keks, row.policy.members_of_new_keys(), context, &data_key).await?;
        Ok((data_key, wrapped))
    }

    /// Wraps `data_key` for `keks`, for so many members of each `any_of` at least; `None` stands for all.
    pub(crate) fn wrap<'a>(
        &'a self,
        row: &'a TenantRecord,
        keks: &'a KekExpression,
        members: Option<u8>,
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
                    let wrap = |e| self.wrap(row, e, members, context, data_key);
                    let least = KekExpression::least_of(of, members);
                    group(self.wrap_for_members(&row.tenant, of, least, wrap).await?)
                }
                KekExpression::AllOf(of) => {
                    let components = split::split(data_key, of.len())?;
                    let context = &context.for_component()?;
                    let wrap = |(e, component)| self.wrap(row, e, members, context, component);
                    let each = of.iter().zip(&components).map(wrap);
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
        verify(&data_key, record).map(|()| data_key).map_err(|e| named(e, wrapped))
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
                WrappedKey::AnyOf(members) => {
                    let mut keys = Vec::new();
                    for opened in join_all(members.iter().map(|w| self.open_all(row, w, context))).await {
                        keys.push(opened?);
                    }
                    let first = keys.pop().ok_or_else(no_wrapping)?;
                    if keys.iter().all(|key| key.ct_eq(&first)) {
                        return Ok(first);
                    }
                    let different = "the wrappings of a data key give different keys";
                    Err(named(Error::new(ErrorKind::KeyMismatch, different), wrapped))
                }
                WrappedKey::AllOf(components) => {
                    let context = &context.for_component()?;
                    let opened = join_all(components.iter().map(|w| self.open_all(row, w, context))).await;
                    split::join(&opened.into_iter().collect::<Result<Vec<_>>>()?).map_err(|e| named(e, wrapped))
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
    /// what may pass, so that callers retry. A wrapping that gives another key is in nobody's way: then the components that
    /// all of them give are put together in every way until one is the key.
    pub(crate) async fn unwrap(&self, row: &TenantRecord, record: &KeyRecord) -> Result<DataKey> {
        // No KMS is asked with a KEK that only the record names.
        row.check_record(record)?;
        let context = record.encryption_context()?;
        let denied = Denied::default();
        let alternatives: Vec<_> = record
            .wrapped
            .iter()
            .chain(record.pending.as_ref().map(|p| &p.wrapped))
            .flat_map(|wrapped| match wrapped {
                WrappedKey::AnyOf(of) => of.iter().collect(),
                other => vec![other],
            })
            .collect();
        let gave_another = AtomicBool::new(false);
        let (within, refused, another) = (&context, &denied, &gave_another);
        let mut opened = self
            .first_of(alternatives.iter().copied(), |wrapped| {
                Box::pin(async move {
                    let data_key = self.open_any(row, wrapped, within, refused).await?;
                    verify(&data_key, record).map_err(|e| {
                        another.store(true, Ordering::Relaxed);
                        named(e, wrapped)
                    })?;
                    Ok(data_key)
                })
            })
            .await;
        if opened.is_err() && gave_another.load(Ordering::Relaxed) {
            let combined = self.open_in_every_way(row, record, &alternatives, &context).await;
            opened = combined.map_or(opened, Ok);
        }
        if opened.is_ok() {
            // Loads under way, this one among them, ask the KMS themselves.
            self.drop_denied(&record.tenant, denied, || {});
        } else {
            self.drop_denied(&record.tenant, denied, || self.flights.make_stale(&record.tenant, |_| true));
        }
        opened.map_err(|e| e.with_region(record.region.as_str()))
    }

    async fn open_in_every_way(
        &self,
        row: &TenantRecord,
        record: &KeyRecord,
        alternatives: &[&WrappedKey],
        context: &EncryptionContext,
    ) -> Option<DataKey> {
        for wrapped in alternatives {
            let keys = self.candidates(row, wrapped, context).await;
            if let Some(data_key) = keys.into_iter().find(|key| verify(key, record).is_ok()) {
                tracing::warn!(
                    tenant = %record.tenant,
                    key_id = %record.key_id,
                    "a wrapping of a data key gives another key and was passed over; rewrap the tenant's keys"
                );
                return Some(data_key);
            }
        }
        None
    }

    /// All that `wrapped` gives, in whatever way it is put together. An expression has few KEKs, so there are few ways.
    fn candidates<'a>(
        &'a self,
        row: &'a TenantRecord,
        wrapped: &'a WrappedKey,
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Vec<DataKey>> {
        Box::pin(async move {
            match wrapped {
                WrappedKey::One(wrapping) => self.open_one(row, wrapping, context).await.into_iter().collect(),
                WrappedKey::AnyOf(of) => {
                    let each = join_all(of.iter().map(|w| self.candidates(row, w, context))).await;
                    each.into_iter().flatten().collect()
                }
                WrappedKey::AllOf(of) => {
                    let Ok(context) = &context.for_component() else { return Vec::new() };
                    let each = join_all(of.iter().map(|w| self.candidates(row, w, context))).await;
                    let mut ways: Vec<Vec<&DataKey>> = vec![Vec::new()];
                    for components in &each {
                        let with =
                            |way: &Vec<_>| components.iter().map(|c| [&way[..], &[c]].concat()).collect::<Vec<_>>();
                        ways = ways.iter().flat_map(with).collect();
                    }
                    ways.iter().filter_map(|way| split::join(way).ok()).collect()
                }
            }
        })
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
                    self.first_of(of, |wrapped| self.open_any(row, wrapped, context, denied)).await
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
                        None => split::join(&components).map_err(|e| named(e, wrapped)),
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

/// Names what was unwrapped by, where no KMS did: one KEK, or the expression of several that gave a key together.
fn named(e: Error, wrapped: &WrappedKey) -> Error {
    e.with_kek(&wrapped.expression().to_string())
}

/// Of the failures of alternatives: one that may pass counts more than a denial.
pub(crate) fn weigh(before: Option<Error>, now: Error) -> Error {
    match before {
        Some(before) if before.kind() != ErrorKind::Denied => before,
        _ => now,
    }
}

pub(crate) fn no_wrapping() -> Error {
    Error::malformed("the key record has no wrapping")
}
