//! AWS KMS: KEKs in the tenant's own account. The provider itself; what it is built on stands beside it: `aws_arn`
//! (names), `aws_client` (regions, roles, endpoints), `aws_retry`, `aws_error`, `aws_guard`, and what it adds to the trait:
//! `aws_describe`, `aws_import`.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use zeroize::Zeroize;

use crate::crypto::secret::DataKey;
use crate::error::{Error, ErrorKind, Result};
use crate::key::encryption_context::EncryptionContext;
use crate::key::finding::{Expected, Finding};
use crate::key::kek::KekUri;
use crate::key::region::Region;
use crate::key::wrapped_key::MAX_WRAPPED;
use crate::kms::aws_arn::KeyArn;
use crate::kms::aws_builder::AwsKmsBuilder;
use crate::kms::aws_client::{Clients, Lane, http_client};
use crate::kms::aws_error::{Operation, by_state, failure, is_about_state};
use crate::kms::aws_retry::{Failure, RetryPolicy};
use crate::kms::{GeneratedKey, KekDescription, Kms};

pub(crate) const SCHEME: &str = "aws-kms";

/// AWS KMS: `aws-kms:ARN`, the ARN of a symmetric key or of an alias, multi-region keys included.
///
/// Every call names the KEK and the encryption context; a reply about another key than the one named is refused. The SDK's
/// own retries are off: throttling and failures that may pass are tried again with full-jitter backoff, within a budget
/// for each tenant's account. Cheap to clone.
///
/// ```no_run
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// use strongroom::{AwsKms, AwsRole, KekUri, MemoryKeyStore, Region, Strongroom, TenantPolicy};
///
/// // Our own credentials from the environment; in acme's account we assume the role that acme made for us.
/// let role = AwsRole::new("arn:aws:iam::111122223333:role/strongroom")?.external_id("acme-7f3a9c")?;
/// let kms = AwsKms::builder().role_for("111122223333", role).build().await?;
///
/// let room = Strongroom::builder()
///     .serving(["eu-central-1"])
///     .key_store(MemoryKeyStore::default())
///     .kms(kms)
///     .trusting_the_key_store().build().await?;
/// let kek = KekUri::new("aws-kms:arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")?;
/// room.admin("ops@example.com", "an example")?.enroll("acme", TenantPolicy::new(kek, Region::new("eu-central-1")?).bind(["message"])).await?;
/// # Ok::<(), strongroom::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Permissions
///
/// On each KEK: `kms:DescribeKey` (to enrol), `kms:GenerateDataKey` and `kms:Decrypt`; `kms:Encrypt` where a policy names
/// several KEKs; `kms:ReEncryptFrom` and `kms:ReEncryptTo` to rewrap. The encryption context of every call names tenant,
/// region, purpose, suite, each scope field and the period, for conditions on `kms:EncryptionContext:…`.
///
/// # Errors
///
/// Told apart by AWS's error code, with the permission or the state to change in the message:
///
/// | kind | when |
/// |---|---|
/// | `Denied` | access denied; the key is disabled, scheduled for deletion, without material, or not there; other wrapped bytes, context or KEK than what was wrapped; STS refuses the tenant's role |
/// | `Throttled` | AWS KMS or STS asks to slow down, and retries did not help |
/// | `Unavailable` | no answer in time, failures of AWS, replies that cannot be read; *our own* credentials are missing, expired or unknown |
/// | `KeyMismatch` | the reply is about another key than the KEK, or its data key is not 256 bits |
/// | `InvalidArgument` | the KEK's name is no ARN of a KMS key or alias (nothing was sent), or the key is not a symmetric one |
///
/// # Aliases
///
/// A KEK named by an alias is whatever key the alias points to *now*. If the tenant moves the alias, data keys wrapped
/// before are denied until it is moved back: the key is never discovered from the wrapped bytes. To follow a key rather
/// than a name, enrol [`AwsKms::resolve`]'s answer.
///
/// # What is wiped
///
/// The plaintext data key of a reply is moved into a [`DataKey`] and its buffer wiped. What cannot be wiped from here: the
/// buffers of the TLS library and the HTTP client, and the SDK's JSON text and `Blob` of a request to wrap. They are freed
/// within the call.
#[derive(Clone)]
pub struct AwsKms(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) clients: Clients,
    pub(crate) retry: RetryPolicy,
}

impl AwsKms {
    /// Credentials, endpoints and proxies as the AWS command line finds them: environment, profiles, and the roles of
    /// containers and machines. Profiles of IAM Identity Center (SSO) and `credential_process` are not built in: an embedder
    /// that wants them hands in its own configuration. Nothing is called yet.
    pub async fn from_env() -> Self {
        let config = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client()).load().await;
        Self::from_sdk_config(&config)
    }

    /// The embedder's own configuration. Its region does not matter: each KEK's own is used.
    pub fn from_sdk_config(config: &SdkConfig) -> Self {
        let mut builder = AwsKmsBuilder::default();
        builder.clients.config = Some(pooled(config));
        builder.finish()
    }

    /// The embedder's own client, for KEKs of that region alone. Retries and timeouts of the client are replaced by this
    /// provider's.
    pub fn from_client(region: &Region, client: aws_sdk_kms::Client) -> Self {
        let mut builder = AwsKmsBuilder::default();
        builder.clients.given.insert(region.as_str().to_owned(), client);
        builder.finish()
    }

    /// Roles, endpoints, deadlines and limits.
    pub fn builder() -> AwsKmsBuilder {
        AwsKmsBuilder::default()
    }

    pub(crate) fn new(clients: Clients, retry: RetryPolicy) -> Self {
        Self(Arc::new(Inner { clients, retry }))
    }

    /// The KEK's parts and its client.
    pub(crate) async fn target<'a>(&self, kek: &'a KekUri) -> Result<Target<'a>> {
        if kek.scheme() != SCHEME {
            return Err(Error::invalid("AwsKms answers for KEKs of the scheme aws-kms").with_kek(kek.as_str()));
        }
        let arn = KeyArn::of(kek)?;
        let lane = self.0.clients.lane(kek, &arn).await.map_err(|e| e.with_kek(kek.as_str()))?;
        Ok(Target { kek, arn, lane })
    }

    /// Runs a call about a KEK under the retry policy and names both if it fails.
    pub(crate) async fn call<T, F>(
        &self,
        operation: Operation,
        target: &Target<'_>,
        attempt: impl FnMut() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let answer = match self.run(operation, &target.lane, attempt).await {
            Err(e) if operation != Operation::DescribeKey && is_about_state(&e) => {
                Err(self.told_by_state(target, e).await)
            }
            answer => answer,
        };
        answer.map_err(|e| e.with_kek(target.kek.as_str()))
    }

    /// What a refusal because of the KEK's state means: a denial or an outage, which AWS's code does not tell.
    async fn told_by_state(&self, target: &Target<'_>, refused: Error) -> Error {
        let attempt = || async {
            let sent = target.lane.client.describe_key().key_id(target.arn.text).send().await;
            sent.map_err(|e| failure(Operation::DescribeKey, &e))
        };
        let described = self.run(Operation::DescribeKey, &target.lane, attempt).await;
        match described.map(|reply| reply.key_metadata.and_then(|key| key.key_state)) {
            Ok(Some(state)) => by_state(refused, state.as_str()),
            Ok(None) => refused,
            Err(e) => {
                tracing::debug!(error = %e, "AWS KMS does not tell the KEK's state");
                refused
            }
        }
    }

    /// Runs a call under the retry policy and names what failed.
    pub(crate) async fn run<T, F>(&self, operation: Operation, lane: &Lane, attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let retry = if operation.is_import() { self.0.retry.at_leisure() } else { self.0.retry };
        retry.run(&lane.budget, attempt).await.map_err(|e| e.with_operation(operation.name()))
    }

    pub(crate) fn clients(&self) -> &Clients {
        &self.0.clients
    }
}

/// A configuration whose clients share one pool of connections.
pub(crate) fn pooled(config: &SdkConfig) -> SdkConfig {
    if config.http_client().is_some() {
        return config.clone();
    }
    config.to_builder().http_client(http_client()).build()
}

/// A KEK with the client that reaches it.
pub(crate) struct Target<'a> {
    kek: &'a KekUri,
    pub(crate) arn: KeyArn<'a>,
    pub(crate) lane: Arc<Lane>,
}

impl Target<'_> {
    /// A reply about another key than the one asked for is not an answer.
    pub(crate) fn check_key(&self, replied: Option<&str>) -> Result<(), Failure> {
        match replied {
            Some(key) if self.arn.is_answered_by(key) => Ok(()),
            Some(_) => Err(Failure::for_good(Error::new(
                ErrorKind::KeyMismatch,
                "AWS KMS answered about another key than the KEK asked for; nothing of the reply was used",
            ))),
            None => Err(Failure::malformed("it does not say which key it is about")),
        }
    }
}

/// A wrapped key of a possible size.
fn wrapped(blob: Option<Blob>) -> Result<Vec<u8>, Failure> {
    let bytes = blob.map(Blob::into_inner).unwrap_or_default();
    if (1..=MAX_WRAPPED).contains(&bytes.len()) {
        return Ok(bytes);
    }
    Err(Failure::malformed("its wrapped key has not 1 to 6144 bytes"))
}

/// A data key out of a reply. The blob's buffer becomes ours without a copy, as nobody else holds it, and is wiped.
fn data_key(blob: Option<Blob>) -> Result<DataKey, Failure> {
    let mut bytes = blob.ok_or_else(|| Failure::malformed("it has no plaintext"))?.into_inner();
    let taken = DataKey::take(&mut bytes);
    bytes.zeroize();
    taken.map_err(Failure::for_good)
}

/// The pairs as AWS takes them: by name, so that a key policy can ask for them and the trail shows them.
fn pairs(context: &EncryptionContext) -> HashMap<String, String> {
    context.fields().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn check_wrapped(wrapped: &[u8]) -> Result<()> {
    if (1..=MAX_WRAPPED).contains(&wrapped.len()) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Denied, "the wrapped bytes are not what AWS KMS gave: they have not 1 to 6144 bytes"))
}

#[async_trait]
impl Kms for AwsKms {
    fn scheme(&self) -> &'static str {
        SCHEME
    }

    async fn describe(&self, kek: &KekUri) -> Result<KekDescription> {
        let key = self.describe_key(kek).await?;
        let symmetric = key.spec == "SYMMETRIC_DEFAULT";
        if !symmetric || key.usage != "ENCRYPT_DECRYPT" {
            let what =
                format!("the KEK is a {} key for {}; name a symmetric one for ENCRYPT_DECRYPT", key.spec, key.usage);
            return Err(Error::invalid(what).with_kek(kek.as_str()));
        }
        let version = match (&key.material, key.key_id()) {
            (Some(material), id) => format!("{id}/{material}"),
            (None, id) => id.to_owned(),
        };
        Ok(KekDescription { region: key.region.clone(), enabled: key.is_enabled(), version, symmetric })
    }

    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, data_key: &DataKey) -> Result<Vec<u8>> {
        let target = self.target(kek).await?;
        let pairs = pairs(context);
        let attempt = || async {
            let call = target.lane.client.encrypt().key_id(target.arn.text).set_encryption_context(Some(pairs.clone()));
            let sent = call.plaintext(Blob::new(data_key.expose().as_slice())).send().await;
            let reply = sent.map_err(|e| failure(Operation::Encrypt, &e))?;
            target.check_key(reply.key_id.as_deref())?;
            wrapped(reply.ciphertext_blob)
        };
        self.call(Operation::Encrypt, &target, attempt).await
    }

    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey> {
        check_wrapped(wrapped)?;
        let target = self.target(kek).await?;
        let pairs = pairs(context);
        let attempt = || async {
            let call = target.lane.client.decrypt().key_id(target.arn.text).set_encryption_context(Some(pairs.clone()));
            let sent = call.ciphertext_blob(Blob::new(wrapped)).send().await;
            let reply = sent.map_err(|e| failure(Operation::Decrypt, &e))?;
            // Taken first, so that it is wiped whatever else is wrong with the reply.
            let key = data_key(reply.plaintext);
            target.check_key(reply.key_id.as_deref())?;
            key
        };
        self.call(Operation::Decrypt, &target, attempt).await
    }

    async fn generate(&self, kek: &KekUri, context: &EncryptionContext) -> Result<GeneratedKey> {
        let target = self.target(kek).await?;
        let pairs = pairs(context);
        let attempt = || async {
            let call = target.lane.client.generate_data_key().key_id(target.arn.text).key_spec(DataKeySpec::Aes256);
            let sent = call.set_encryption_context(Some(pairs.clone())).send().await;
            let reply = sent.map_err(|e| failure(Operation::GenerateDataKey, &e))?;
            let key = data_key(reply.plaintext);
            target.check_key(reply.key_id.as_deref())?;
            Ok(GeneratedKey { data_key: key?, wrapped: wrapped(reply.ciphertext_blob)? })
        };
        self.call(Operation::GenerateDataKey, &target, attempt).await
    }

    /// By ReEncrypt, if one set of credentials reaches both KEKs in one region and the endpoint knows the call.
    async fn rewrap(
        &self,
        from: &KekUri,
        to: &KekUri,
        context: &EncryptionContext,
        old: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        if [from, to].iter().any(|kek| kek.scheme() != SCHEME) {
            return Ok(None);
        }
        check_wrapped(old)?;
        let (source, target) = (self.target(from).await?, self.target(to).await?);
        if !source.lane.shares_client_with(&target.lane) {
            return Ok(None);
        }
        let pairs = pairs(context);
        let attempt = || async {
            let call = target.lane.client.re_encrypt().ciphertext_blob(Blob::new(old));
            let call = call.source_key_id(source.arn.text).set_source_encryption_context(Some(pairs.clone()));
            let call = call.destination_key_id(target.arn.text).set_destination_encryption_context(Some(pairs.clone()));
            let reply = match call.send().await {
                Ok(reply) => reply,
                Err(e) if is_unknown_operation(&e) => return Ok(None),
                Err(e) => return Err(failure(Operation::ReEncrypt, &e)),
            };
            source.check_key(reply.source_key_id.as_deref())?;
            target.check_key(reply.key_id.as_deref())?;
            wrapped(reply.ciphertext_blob).map(Some)
        };
        self.call(Operation::ReEncrypt, &target, attempt).await
    }

    async fn inspect(&self, kek: &KekUri, expected: &Expected) -> Result<Vec<Finding>> {
        self.findings(kek, expected).await
    }
}

fn is_unknown_operation<E: aws_sdk_kms::error::ProvideErrorMetadata>(e: &aws_sdk_kms::error::SdkError<E>) -> bool {
    let code = e.as_service_error().and_then(aws_sdk_kms::error::ProvideErrorMetadata::code);
    matches!(code, Some("UnknownOperationException" | "InvalidAction"))
}

impl fmt::Debug for AwsKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKms").field("clients", &self.0.clients).field("retry", &self.0.retry).finish()
    }
}
