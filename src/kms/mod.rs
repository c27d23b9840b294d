//! Floor 3: key management systems. The [`Kms`] trait, one file a provider, and the router between them.

#[cfg(feature = "aws-kms")]
pub(crate) mod aws;
#[cfg(feature = "aws-kms")]
mod aws_arn;
#[cfg(feature = "aws-kms")]
pub(crate) mod aws_builder;
#[cfg(feature = "aws-kms")]
pub(crate) mod aws_client;
#[cfg(feature = "aws-kms")]
pub(crate) mod aws_describe;
#[cfg(feature = "aws-kms")]
mod aws_error;
#[cfg(feature = "aws-kms")]
mod aws_grants;
#[cfg(feature = "aws-kms")]
mod aws_guard;
#[cfg(feature = "aws-kms")]
pub(crate) mod aws_import;
pub(crate) mod aws_policy;
#[cfg(feature = "aws-kms")]
mod aws_probe;
mod aws_range;
#[cfg(feature = "aws-kms")]
mod aws_retry;
#[cfg(feature = "byok")]
pub(crate) mod import_ticket;
pub(crate) mod local;
pub(crate) mod local_content;
pub(crate) mod local_file;
#[cfg(feature = "byok")]
pub(crate) mod local_import;
mod local_lookup;
pub(crate) mod local_root_kek;
pub(crate) mod local_under_root;
pub(crate) mod local_wrapping;
pub(crate) mod root;
pub(crate) mod router;

use std::sync::Arc;

use async_trait::async_trait;

use crate::crypto::secret::DataKey;
use crate::error::Result;
use crate::key::encryption_context::EncryptionContext;
use crate::key::finding::{Expected, Finding};
use crate::key::kek::KekUri;
use crate::key::region::Region;

/// A key management system: wraps and unwraps data keys under KEKs that never leave it.
///
/// # Contract
///
/// `strongroom::testing::kms_contract` (feature `testing`) checks it.
///
/// - *Binding*: `unwrap` succeeds only with the KEK and the very encryption context of the `wrap` or `generate`. The KEK
///   is the one named by the caller, never one discovered from the wrapped bytes.
/// - *Authenticity*: altered wrapped bytes fail; they never yield another key.
/// - *Freshness*: two wraps of one key give different bytes; `generate` never gives a key twice.
/// - *Errors*: [`Denied`](crate::ErrorKind::Denied) if the KEK is unknown, disabled, deleted or not permitted, or the
///   wrapped bytes or the context are not what was wrapped; [`Unavailable`](crate::ErrorKind::Unavailable) if nothing can
///   be said; [`Throttled`](crate::ErrorKind::Throttled) if asked to slow down. The difference matters: *denied* drops
///   a tenant's cached keys at once, the others do not. Messages say which permission or state to change, and never
///   contain key bytes.
/// - *Cancellation*: dropping a call's future is safe at any point.
/// - *Retries*: a provider over a network may retry what passes, with backoff and a budget; callers set the deadline of
///   the whole call by dropping its future.
#[async_trait]
pub trait Kms: Send + Sync + 'static {
    /// The scheme of the KEK URIs that it answers for, such as `local`.
    fn scheme(&self) -> &str;

    /// What the KMS says of a KEK. Used before a policy that names it is accepted.
    async fn describe(&self, kek: &KekUri) -> Result<KekDescription>;

    /// Wraps a data key: 1 to 6144 bytes.
    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, data_key: &DataKey) -> Result<Vec<u8>>;

    /// Unwraps a data key.
    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey>;

    /// Makes a data key and wraps it. A KMS that generates keys itself overrides this; by default the key comes from this
    /// machine's operating system.
    async fn generate(&self, kek: &KekUri, context: &EncryptionContext) -> Result<GeneratedKey> {
        let data_key = DataKey::random()?;
        let wrapped = self.wrap(kek, context, &data_key).await?;
        Ok(GeneratedKey { data_key, wrapped })
    }

    /// Wraps a wrapped data key under another KEK (or under the same KEK's newest version) inside the KMS, so that the
    /// plaintext never leaves it. `None` if this KMS cannot do that between these two KEKs: then the caller unwraps and
    /// wraps.
    async fn rewrap(
        &self,
        _from: &KekUri,
        _to: &KekUri,
        _context: &EncryptionContext,
        _wrapped: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// What else this KMS knows of a KEK that its owner should: rotation, origin, replicas, who administers it. Only reads.
    /// Part of `Admin::probe`; by default nothing is known. What could not be read is a finding of its own
    /// ([`Outcome::Unknown`](crate::Outcome::Unknown)), not an error.
    async fn inspect(&self, _kek: &KekUri, _expected: &Expected) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }
}

/// What a KMS says of a KEK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KekDescription {
    /// Where the KEK is.
    pub region: Region,
    /// Whether it wraps and unwraps at present.
    pub enabled: bool,
    /// Which version of it wraps at present, as the KMS names versions.
    pub version: String,
    /// Whether one secret key wraps and unwraps. A KEK with a public half is not: whoever has that half can make wrappings, so it
    /// cannot be a [`Root`](crate::Root).
    pub symmetric: bool,
}

/// A new data key with its wrapping.
pub struct GeneratedKey {
    /// The key.
    pub data_key: DataKey,
    /// The same, wrapped.
    pub wrapped: Vec<u8>,
}

/// A KMS shared with other owners.
#[async_trait]
impl<K: Kms + ?Sized> Kms for Arc<K> {
    fn scheme(&self) -> &str {
        (**self).scheme()
    }

    async fn describe(&self, kek: &KekUri) -> Result<KekDescription> {
        (**self).describe(kek).await
    }

    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, data_key: &DataKey) -> Result<Vec<u8>> {
        (**self).wrap(kek, context, data_key).await
    }

    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey> {
        (**self).unwrap(kek, context, wrapped).await
    }

    async fn generate(&self, kek: &KekUri, context: &EncryptionContext) -> Result<GeneratedKey> {
        (**self).generate(kek, context).await
    }

    async fn rewrap(
        &self,
        from: &KekUri,
        to: &KekUri,
        context: &EncryptionContext,
        wrapped: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        (**self).rewrap(from, to, context, wrapped).await
    }

    async fn inspect(&self, kek: &KekUri, expected: &Expected) -> Result<Vec<Finding>> {
        (**self).inspect(kek, expected).await
    }
}
