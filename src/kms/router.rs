//! The router: finds the KMS of a KEK, and keeps one tenant's slow KMS from delaying another tenant.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::crypto::secret::DataKey;
use crate::error::{Error, ErrorKind, Result};
use crate::key::encryption_context::EncryptionContext;
use crate::key::finding::{Expected, Finding};
use crate::key::id::TenantId;
use crate::key::kek::KekUri;
use crate::key::wrapped_key::{MAX_WRAPPED, Wrapping};
use crate::kms::{GeneratedKey, KekDescription, Kms};

/// Sends each call to the KMS that its KEK's scheme names, under a deadline and a limit for each tenant.
pub(crate) struct KmsRouter {
    by_scheme: HashMap<String, Arc<dyn Kms>>,
    deadline: Duration,
    calls_per_tenant: usize,
    /// Tenants with calls under way. A tenant's entry goes with its last call.
    under_way: Mutex<HashMap<TenantId, Arc<Calls>>>,
}

impl KmsRouter {
    /// # Errors
    /// `InvalidArgument` if two KMSs answer for one scheme, or a limit is zero.
    pub(crate) fn new(providers: Vec<Arc<dyn Kms>>, deadline: Duration, calls_per_tenant: usize) -> Result<Self> {
        if deadline.is_zero() || calls_per_tenant == 0 {
            return Err(Error::invalid("the KMS deadline and the limit of calls per tenant must not be zero"));
        }
        let mut by_scheme = HashMap::new();
        for kms in providers {
            let scheme = kms.scheme().to_owned();
            if by_scheme.insert(scheme.clone(), kms).is_some() {
                return Err(Error::invalid(format!("two KMSs answer for the scheme {scheme}")));
            }
        }
        Ok(Self { by_scheme, deadline, calls_per_tenant, under_way: Mutex::default() })
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// How long a member of `any_of` may take before the next one is asked too.
    pub(crate) fn hedge_after(&self) -> Duration {
        self.deadline / 10
    }

    /// How many of a tenant's calls may be under way at once.
    pub(crate) fn calls_per_tenant(&self) -> usize {
        self.calls_per_tenant
    }

    fn find(&self, kek: &KekUri) -> Result<&Arc<dyn Kms>> {
        self.by_scheme.get(kek.scheme()).ok_or_else(|| {
            Error::invalid(format!("no KMS is configured for the scheme {:?}; add one to the builder", kek.scheme()))
                .with_kek(kek.as_str())
        })
    }

    pub(crate) async fn describe(&self, tenant: &TenantId, kek: &KekUri) -> Result<KekDescription> {
        let kms = self.find(kek)?;
        self.guarded(tenant, kek, "describe KEK", kms.describe(kek)).await
    }

    pub(crate) async fn generate(
        &self,
        tenant: &TenantId,
        kek: &KekUri,
        context: &EncryptionContext,
    ) -> Result<GeneratedKey> {
        let kms = self.find(kek)?;
        let made = self.guarded(tenant, kek, "generate data key", kms.generate(kek, context)).await?;
        check_wrapped(tenant, kek, &made.wrapped)?;
        Ok(made)
    }

    pub(crate) async fn wrap(
        &self,
        tenant: &TenantId,
        kek: &KekUri,
        context: &EncryptionContext,
        data_key: &DataKey,
    ) -> Result<Vec<u8>> {
        let kms = self.find(kek)?;
        let wrapped = self.guarded(tenant, kek, "wrap data key", kms.wrap(kek, context, data_key)).await?;
        check_wrapped(tenant, kek, &wrapped)?;
        Ok(wrapped)
    }

    pub(crate) async fn unwrap(
        &self,
        tenant: &TenantId,
        wrapping: &Wrapping,
        context: &EncryptionContext,
    ) -> Result<DataKey> {
        let kek = &wrapping.kek;
        let kms = self.find(kek)?;
        self.guarded(tenant, kek, "unwrap data key", kms.unwrap(kek, context, &wrapping.wrapped)).await
    }

    /// Wraps again inside the KMS, where one KMS has both KEKs and can.
    pub(crate) async fn rewrap(
        &self,
        tenant: &TenantId,
        wrapping: &Wrapping,
        to: &KekUri,
        context: &EncryptionContext,
    ) -> Result<Option<Vec<u8>>> {
        let (from, kms) = (&wrapping.kek, self.find(to)?);
        if from.scheme() != to.scheme() {
            return Ok(None);
        }
        let call = kms.rewrap(from, to, context, &wrapping.wrapped);
        let rewrapped = self.guarded(tenant, to, "rewrap data key", call).await?;
        rewrapped.iter().try_for_each(|wrapped| check_wrapped(tenant, to, wrapped))?;
        Ok(rewrapped)
    }

    pub(crate) async fn inspect(&self, tenant: &TenantId, kek: &KekUri, expected: &Expected) -> Result<Vec<Finding>> {
        let kms = self.find(kek)?;
        self.guarded(tenant, kek, "inspect KEK", kms.inspect(kek, expected)).await
    }

    /// Runs `call` under the tenant's limit and the deadline. Waiting for a turn is no part of the deadline, so that no KMS is blamed
    /// for our queue; who waits gives up when none of the tenant's calls was answered for as long as the deadline.
    async fn guarded<T>(
        &self,
        tenant: &TenantId,
        kek: &KekUri,
        operation: &'static str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let place = Place::of(self, tenant);
        let limited = async {
            let _permit = self.turn(&place.calls).await?;
            let late = || {
                let message = format!("the KMS did not answer within {:?}; retry", self.deadline);
                Error::new(ErrorKind::Unavailable, message)
            };
            match tokio::time::timeout(self.deadline, call).await {
                Ok(answer) => {
                    place.calls.answered();
                    answer
                }
                Err(_) => Err(late()),
            }
        };
        let answer = limited.await;
        answer.map_err(|e| e.with_operation(operation).with_tenant(tenant.as_str()).with_kek(kek.as_str()))
    }

    /// Waits for a turn among the tenant's calls, first come, first served.
    ///
    /// # Errors
    /// `Unavailable` once none of them was answered for as long as the deadline.
    async fn turn<'c>(&self, calls: &'c Calls) -> Result<SemaphorePermit<'c>> {
        let mut turn = pin!(calls.semaphore.acquire());
        let mut patient_since = Instant::now();
        loop {
            let patience = self.deadline.saturating_sub(patient_since.elapsed());
            match tokio::time::timeout(patience, &mut turn).await {
                Ok(permit) => {
                    return permit.map_err(|e| {
                        Error::new(ErrorKind::Unavailable, "the limit of KMS calls was closed").with_source(e)
                    });
                }
                Err(_) => match calls.last_answer().filter(|at| *at > patient_since) {
                    Some(answered) => patient_since = answered,
                    None => return Err(self.no_turn()),
                },
            }
        }
    }

    #[cold]
    fn no_turn(&self) -> Error {
        let message = format!(
            "waiting for a turn: the tenant's {} KMS calls at once were all taken, and none was answered within {:?}; retry",
            self.calls_per_tenant, self.deadline
        );
        Error::new(ErrorKind::Unavailable, message)
    }
}

/// A tenant's calls under way.
struct Calls {
    semaphore: Semaphore,
    last_answer: Mutex<Option<Instant>>,
}

impl Calls {
    fn new(at_once: usize) -> Self {
        Self { semaphore: Semaphore::new(at_once), last_answer: Mutex::default() }
    }

    fn answered(&self) {
        *self.last_answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn last_answer(&self) -> Option<Instant> {
        *self.last_answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call's share of its tenant's entry in `under_way`.
struct Place<'a> {
    router: &'a KmsRouter,
    tenant: &'a TenantId,
    calls: Arc<Calls>,
}

impl<'a> Place<'a> {
    fn of(router: &'a KmsRouter, tenant: &'a TenantId) -> Self {
        let mut under_way = router.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = under_way.entry(tenant.clone()).or_insert_with(|| Arc::new(Calls::new(router.calls_per_tenant)));
        Self { router, tenant, calls: Arc::clone(calls) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut under_way = self.router.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and this one: nobody else is waiting or calling.
        if Arc::strong_count(&self.calls) == 2 {
            under_way.remove(self.tenant);
        }
    }
}

fn check_wrapped(tenant: &TenantId, kek: &KekUri, wrapped: &[u8]) -> Result<()> {
    if (1..=MAX_WRAPPED).contains(&wrapped.len()) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unavailable, "the KMS returned a wrapped key that has not 1 to 6144 bytes")
        .with_tenant(tenant.as_str())
        .with_kek(kek.as_str()))
}
