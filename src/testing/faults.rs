//! A KMS that fails on demand, and counts what it is asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::crypto::secret::DataKey;
use crate::error::{Error, ErrorKind, Result};
use crate::key::encryption_context::EncryptionContext;
use crate::key::finding::{Expected, Finding};
use crate::key::kek::KekUri;
use crate::kms::{GeneratedKey, KekDescription, Kms};

/// What a [`FaultyKms`] does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it works.
    None,
    /// Answers with an error of this kind.
    Fails(ErrorKind),
    /// Never answers.
    Hangs,
    /// Answers after this time.
    Slow(Duration),
    /// Unwraps, and makes wrappings, of another key than asked for.
    WrongKey,
    /// Unwraps a key of 16 bytes.
    ShortKey,
    /// Gives an empty wrapping.
    EmptyWrapping,
}

/// Another KMS with a fault before it. Clones share fault and counts.
#[derive(Clone)]
pub struct FaultyKms(Arc<State>);

struct State {
    inner: Box<dyn Kms>,
    fault: Mutex<Fault>,
    of_one: Mutex<Option<(KekUri, Fault)>>,
    unwraps: AtomicUsize,
    generates: AtomicUsize,
    others: AtomicUsize,
    told: Mutex<Option<EncryptionContext>>,
}

impl FaultyKms {
    /// `inner`, with no fault yet.
    pub fn new(inner: impl Kms) -> Self {
        Self(Arc::new(State {
            inner: Box::new(inner),
            fault: Mutex::new(Fault::None),
            of_one: Mutex::default(),
            unwraps: AtomicUsize::new(0),
            generates: AtomicUsize::new(0),
            others: AtomicUsize::new(0),
            told: Mutex::default(),
        }))
    }

    /// From now on this happens.
    pub fn set(&self, fault: Fault) {
        *self.0.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// From now on this happens to whoever asks with this KEK, and to nobody else.
    pub fn set_for(&self, kek: &KekUri, fault: Fault) {
        *self.0.of_one.lock().unwrap_or_else(PoisonError::into_inner) = Some((kek.clone(), fault));
    }

    /// How often it was asked to unwrap.
    pub fn unwraps(&self) -> usize {
        self.0.unwraps.load(Ordering::SeqCst)
    }

    /// How often it was asked to generate.
    pub fn generates(&self) -> usize {
        self.0.generates.load(Ordering::SeqCst)
    }

    /// How often it was asked for anything.
    pub fn calls(&self) -> usize {
        self.unwraps() + self.generates() + self.0.others.load(Ordering::SeqCst)
    }

    /// The encryption context that it was told last, to wrap, unwrap or generate.
    pub fn last_context(&self) -> Option<EncryptionContext> {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn told(&self, context: &EncryptionContext) {
        *self.0.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.clone());
    }

    fn fault_of(&self, kek: &KekUri) -> Fault {
        let of_one = self.0.of_one.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = of_one.as_ref().filter(|(of, _)| of == kek).map(|(_, fault)| *fault);
        of_one.unwrap_or_else(|| *self.0.fault.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn strike(&self, kek: &KekUri) -> Result<Fault> {
        let fault = self.fault_of(kek);
        match fault {
            Fault::Fails(kind) => return Err(Error::new(kind, "as the test asked")),
            Fault::Hangs => std::future::pending::<()>().await,
            Fault::Slow(time) => tokio::time::sleep(time).await, // a slow KMS is what is simulated
            _ => {}
        }
        Ok(fault)
    }
}

#[async_trait]
impl Kms for FaultyKms {
    fn scheme(&self) -> &str {
        self.0.inner.scheme()
    }

    async fn describe(&self, kek: &KekUri) -> Result<KekDescription> {
        self.0.others.fetch_add(1, Ordering::SeqCst);
        self.strike(kek).await?;
        self.0.inner.describe(kek).await
    }

    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, data_key: &DataKey) -> Result<Vec<u8>> {
        self.0.others.fetch_add(1, Ordering::SeqCst);
        self.told(context);
        match self.strike(kek).await? {
            Fault::EmptyWrapping => Ok(Vec::new()),
            Fault::WrongKey => self.0.inner.wrap(kek, context, &DataKey::random()?).await,
            _ => self.0.inner.wrap(kek, context, data_key).await,
        }
    }

    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey> {
        self.0.unwraps.fetch_add(1, Ordering::SeqCst);
        self.told(context);
        match self.strike(kek).await? {
            Fault::WrongKey => DataKey::random(),
            Fault::ShortKey => DataKey::take(&mut b"sixteen bytes...".to_vec()),
            _ => self.0.inner.unwrap(kek, context, wrapped).await,
        }
    }

    async fn generate(&self, kek: &KekUri, context: &EncryptionContext) -> Result<GeneratedKey> {
        self.0.generates.fetch_add(1, Ordering::SeqCst);
        self.told(context);
        match self.strike(kek).await? {
            Fault::EmptyWrapping => Ok(GeneratedKey { data_key: DataKey::random()?, wrapped: Vec::new() }),
            Fault::WrongKey => {
                let wrapped = self.0.inner.generate(kek, context).await?.wrapped;
                Ok(GeneratedKey { data_key: DataKey::random()?, wrapped })
            }
            _ => self.0.inner.generate(kek, context).await,
        }
    }

    async fn rewrap(
        &self,
        from: &KekUri,
        to: &KekUri,
        context: &EncryptionContext,
        wrapped: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        self.0.others.fetch_add(1, Ordering::SeqCst);
        match self.strike(from).await? {
            Fault::EmptyWrapping => Ok(Some(Vec::new())),
            Fault::WrongKey => self.0.inner.wrap(to, context, &DataKey::random()?).await.map(Some),
            _ => self.0.inner.rewrap(from, to, context, wrapped).await,
        }
    }

    async fn inspect(&self, kek: &KekUri, expected: &Expected) -> Result<Vec<Finding>> {
        self.0.others.fetch_add(1, Ordering::SeqCst);
        self.strike(kek).await?;
        self.0.inner.inspect(kek, expected).await
    }
}
