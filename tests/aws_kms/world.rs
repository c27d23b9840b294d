//! What most tests start from: a server, our provider on it, and the tenant's administrator with the bare SDK.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region as AwsRegion, SdkConfig};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::{Credentials, SharedCredentialsProvider};
use strongroom::testing::Operator;
use strongroom::{
    AwsKms, AwsKmsBuilder, EncryptionContext, Error, ErrorKind, GeneratedKey, KekUri, Kms, MemoryKeyStore, Region,
    Strongroom, TenantPolicy,
};

use crate::servers::{Server, running};

pub(crate) const HOME: &str = "eu-central-1";
pub(crate) const ACCOUNT: &str = "000000000000";

pub(crate) fn home() -> Region {
    Region::new(HOME).unwrap()
}

pub(crate) fn server() -> &'static Server {
    running().server
}

pub(crate) fn url() -> &'static str {
    &running().url
}

/// Credentials of the account's root on either server.
pub(crate) fn root() -> Credentials {
    Credentials::new("test", "test", None, None, "test")
}

pub(crate) async fn config(url: &str, credentials: Credentials) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .region(AwsRegion::new(HOME))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(url)
        .load()
        .await
}

/// A provider that reaches `url` as root. No test depends on time, however slow the machine is.
pub(crate) async fn builder(url: &str) -> AwsKmsBuilder {
    builder_as(url, root()).await
}

pub(crate) async fn builder_as(url: &str, credentials: Credentials) -> AwsKmsBuilder {
    let builder = AwsKms::builder().sdk_config(&config(url, credentials).await);
    builder.attempt_timeout(Duration::from_secs(60)).call_timeout(Duration::from_secs(300))
}

pub(crate) async fn kms() -> AwsKms {
    builder(url()).await.build().await.unwrap()
}

/// The tenant's administrator.
pub(crate) async fn admin_in(region: &str) -> Client {
    let config = config(url(), root()).await;
    Client::from_conf(aws_sdk_kms::config::Builder::from(&config).region(AwsRegion::new(region.to_owned())).build())
}

pub(crate) async fn admin() -> Client {
    admin_in(HOME).await
}

pub(crate) fn uri(arn: &str) -> KekUri {
    KekUri::new(&format!("aws-kms:{arn}")).unwrap()
}

pub(crate) async fn create_kek(admin: &Client) -> KekUri {
    uri(admin.create_key().send().await.unwrap().key_metadata.unwrap().arn.as_deref().unwrap())
}

/// Who runs the rooms over this store: one operator for each store.
fn operator(store: &Arc<MemoryKeyStore>) -> Operator {
    static OPERATORS: Mutex<Vec<(Weak<MemoryKeyStore>, Operator)>> = Mutex::new(Vec::new());
    let mut all = OPERATORS.lock().unwrap();
    let of = Arc::downgrade(store);
    if let Some((_, operator)) = all.iter().find(|(known, _)| known.ptr_eq(&of)) {
        return operator.clone();
    }
    let operator = Operator::default();
    all.push((of, operator.clone()));
    operator
}

/// A room over `kms`; rooms over one store are processes of one backend.
pub(crate) async fn room(store: &Arc<MemoryKeyStore>, kms: impl Kms) -> Strongroom {
    Strongroom::builder()
        .serving([HOME])
        .key_store(Arc::clone(store))
        .kms(kms)
        .kms_deadline(Duration::from_secs(300))
        .open_under(&operator(store))
        .await
}

pub(crate) async fn enroll(room: &Strongroom, kek: &KekUri) {
    let policy = TenantPolicy::new(kek.clone(), home()).scope_by(["channel"]).allow_unbound_messages();
    room.admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
}

pub(crate) async fn seal(room: &Strongroom, channel: &str, text: &[u8]) -> Result<Vec<u8>, Error> {
    let scope = room.tenant("acme").await?.scope([("channel", channel)])?;
    scope.seal(&[], text).await
}

pub(crate) async fn open(room: &Strongroom, channel: &str, sealed: &[u8]) -> Result<Vec<u8>, Error> {
    let scope = room.tenant("acme").await?.scope([("channel", channel)])?;
    Ok(scope.open(&[], sealed).await?.to_vec())
}

/// An encryption context as a room makes them: only rooms make them, so one is caught on its way to a KMS.
pub(crate) async fn context(channel: &str) -> EncryptionContext {
    struct Catch(std::sync::Mutex<Option<EncryptionContext>>, strongroom::LocalKms);

    #[async_trait::async_trait]
    impl Kms for Catch {
        fn scheme(&self) -> &'static str {
            "local"
        }

        async fn describe(&self, kek: &KekUri) -> strongroom::Result<strongroom::KekDescription> {
            self.1.describe(kek).await
        }

        async fn wrap(
            &self,
            kek: &KekUri,
            context: &EncryptionContext,
            key: &strongroom::DataKey,
        ) -> strongroom::Result<Vec<u8>> {
            *self.0.lock().unwrap() = Some(context.clone());
            self.1.wrap(kek, context, key).await
        }

        async fn unwrap(
            &self,
            kek: &KekUri,
            context: &EncryptionContext,
            wrapped: &[u8],
        ) -> strongroom::Result<strongroom::DataKey> {
            self.1.unwrap(kek, context, wrapped).await
        }
    }

    let local = strongroom::LocalKms::in_memory();
    let kek = local.create_kek("acme", home()).unwrap();
    let catch = Arc::new(Catch(std::sync::Mutex::default(), local));
    let room = room(&Arc::default(), Arc::clone(&catch)).await;
    enroll(&room, &kek).await;
    seal(&room, channel, b"").await.unwrap();
    catch.0.lock().unwrap().clone().unwrap()
}

/// A data key wrapped under `kek` for channel C9.
pub(crate) async fn generate(kms: &AwsKms, kek: &KekUri) -> (EncryptionContext, GeneratedKey) {
    let context = context("C9").await;
    let made = kms.generate(kek, &context).await.unwrap();
    (context, made)
}

#[track_caller]
pub(crate) fn assert_fails<T>(result: Result<T, Error>, kind: ErrorKind, says: &str) -> Error {
    let Err(e) = result else { panic!("should have failed: {kind}, {says}") };
    assert_eq!(e.kind(), kind, "{e}");
    assert!(e.to_string().contains(says), "{says:?} is not in {e}");
    e
}
