//! Who calls: roles with external ids, permissions, and credentials that are missing.

use std::process::Command;
use std::sync::Arc;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use strongroom::{AwsKms, AwsRole, ErrorKind, Kms, MemoryKeyStore};

use crate::proxy::{Answer, Proxy};
use crate::servers::{Flaw, installed};
use crate::world::{
    ACCOUNT, HOME, admin, assert_fails, builder, builder_as, config, create_kek, enroll, generate, kms, open, room,
    seal, server, url,
};

/// Runs botocore as the account's root: IAM is no part of the crate, so its SDK is not either.
fn iam(script: &str) -> String {
    let made = Command::new(installed(".venv-ministack/bin/python"))
        .args(["-c", &format!("{PRELUDE}{script}")])
        .env("ENDPOINT", url())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

const PRELUDE: &str = r#"
import botocore.session, json, os
iam = botocore.session.get_session().create_client("iam", region_name="eu-central-1", endpoint_url=os.environ["ENDPOINT"],
    aws_access_key_id="test", aws_secret_access_key="test")
def policy(*actions):
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]})
"#;

#[tokio::test]
async fn a_permission_that_is_missing_is_named() {
    if server().has(Flaw::AllowsEverything) {
        return; // the table says so, and `a_role_…` asserts it
    }
    let keys = iam(r#"
iam.create_user(UserName="backend")
key = iam.create_access_key(UserName="backend")["AccessKey"]
print(key["AccessKeyId"], key["SecretAccessKey"])"#);
    let (id, secret) = keys.split_once(' ').unwrap();
    let user = Credentials::new(id, secret, None, None, "test");
    let kms = builder_as(url(), user).await.build().await.unwrap();
    let kek = create_kek(&admin().await).await;
    let (context, made) = generate(&self::kms().await, &kek).await;
    let wrapped = &made.wrapped;
    for (refused, permission) in [
        (kms.describe(&kek).await.err(), "kms:DescribeKey"),
        (kms.generate(&kek, &context).await.err(), "kms:GenerateDataKey"),
        (kms.wrap(&kek, &context, &made.data_key).await.err(), "kms:Encrypt"),
        (kms.unwrap(&kek, &context, wrapped).await.err(), "kms:Decrypt"),
        (kms.rewrap(&kek, &kek, &context, wrapped).await.err(), "kms:ReEncryptFrom"),
        (kms.key_rotation(&kek).await.err(), "kms:GetKeyRotationStatus"),
    ] {
        let e = assert_fails(refused.map_or(Ok(()), Err), ErrorKind::Denied, permission);
        assert!(e.to_string().contains("user/backend"), "AWS's own words are missing: {e}");
    }
    iam(r#"iam.put_user_policy(UserName="backend", PolicyName="kms", PolicyDocument=policy("kms:Decrypt"))"#);
    assert!(kms.unwrap(&kek, &context, wrapped).await.unwrap().ct_eq(&made.data_key));
    assert_fails(kms.generate(&kek, &context).await, ErrorKind::Denied, "kms:GenerateDataKey");

    // An unknown access key is not the tenant's denial.
    let stranger = Credentials::new("AKIAIOSFODNN7EXAMPLE", "no", None, None, "test");
    let kms = builder_as(url(), stranger).await.build().await.unwrap();
    assert_fails(kms.describe(&kek).await, ErrorKind::Unavailable, "own credentials");
}

const ROLE: &str = "arn:aws:iam::000000000000:role/strongroom";

fn make_role() {
    iam(r#"
trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole",
    "Condition": {"StringEquals": {"sts:ExternalId": "acme-7f3a9c"}}}]}
iam.create_role(RoleName="strongroom", AssumeRolePolicyDocument=json.dumps(trust))
iam.put_role_policy(RoleName="strongroom", PolicyName="kms",
    PolicyDocument=policy("kms:DescribeKey", "kms:GenerateDataKey", "kms:Decrypt"))"#);
}

#[tokio::test]
async fn a_role_is_assumed_with_its_external_id_once() {
    make_role();
    let proxy = Proxy::before(url()).await;
    let role = |id: &str| AwsRole::new(ROLE).unwrap().external_id(id).unwrap();
    let kek = create_kek(&admin().await).await;
    let through = |role: AwsRole| {
        let url = proxy.url.clone();
        async move { builder(&url).await.role_for(ACCOUNT, role).build().await.unwrap() }
    };
    let kms = through(role("acme-7f3a9c")).await;
    let store = Arc::new(MemoryKeyStore::default());
    let room = room(&store, kms.clone()).await;
    enroll(&room, &kek).await;
    let sealed = seal(&room, "C1", b"one").await.unwrap();
    room.admin("a test", "to test").unwrap().purge("acme").unwrap();
    assert_eq!(open(&room, "C1", &sealed).await.unwrap(), b"one");
    let seen = proxy.take_seen();
    let assumed: Vec<_> = seen.iter().filter(|request| request.contains("Action=AssumeRole")).collect();
    assert_eq!(assumed.len(), 1, "the session is kept");
    for said in ["ExternalId=acme-7f3a9c", "RoleSessionName=strongroom", "role%2Fstrongroom", HOME] {
        assert!(assumed[0].contains(said), "{said}: {}", assumed[0]);
    }
    assert_eq!(seen.len(), 5); // AssumeRole, DescribeKey, GenerateDataKey, Decrypt (the check of a new key), Decrypt

    let (context, made) = generate(&self::kms().await, &kek).await;
    let other_id = through(role("globex-000")).await.unwrap(&kek, &context, &made.wrapped).await;
    let not_permitted = kms.wrap(&kek, &context, &made.data_key).await;
    if server().has(Flaw::AllowsEverything) {
        assert!(other_id.is_ok() && not_permitted.is_ok());
    } else {
        assert_fails(other_id, ErrorKind::Denied, "external id");
        assert_fails(not_permitted, ErrorKind::Denied, "kms:Encrypt");
    }
}

#[tokio::test]
async fn a_role_that_cannot_be_assumed_is_denied_or_down() {
    let sts = Proxy::before(url()).await;
    let role = AwsRole::new("arn:aws:iam::000000000000:role/other").unwrap();
    let builder = builder(url()).await.sts_endpoint(&sts.url).attempts(2);
    // By KEK, as for tenants who enrol while the process runs.
    let kms = builder.role_by(move |_| Some(role.clone())).build().await.unwrap();
    let kek = create_kek(&admin().await).await;
    let xml = |code: &str| {
        format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>x</Message></Error></ErrorResponse>"
        )
    };
    for (status, code, kind, says, requests) in [
        (403, "AccessDenied", ErrorKind::Denied, "trust policy", 1),
        (400, "Throttling", ErrorKind::Throttled, "STS", 2),
        (403, "InvalidClientTokenId", ErrorKind::Unavailable, "own credentials", 1),
        (500, "InternalFailure", ErrorKind::Unavailable, "STS", 2),
    ] {
        sts.always(Answer::Own { status, body: xml(code) });
        sts.take_seen();
        assert_fails(kms.describe(&kek).await, kind, says);
        assert_eq!(sts.take_seen().len(), requests, "{code}");
    }
}

#[derive(Debug)]
struct NoCredentials;

impl ProvideCredentials for NoCredentials {
    fn provide_credentials<'a>(&'a self) -> aws_credential_types::provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        aws_credential_types::provider::future::ProvideCredentials::ready(Err(CredentialsError::not_loaded(
            "none here",
        )))
    }
}

#[tokio::test]
async fn missing_credentials_are_our_own_fault() {
    let proxy = Proxy::before(url()).await;
    let config = config(&proxy.url, crate::world::root()).await.to_builder();
    let kms =
        AwsKms::from_sdk_config(&config.credentials_provider(SharedCredentialsProvider::new(NoCredentials)).build());
    let kek = create_kek(&admin().await).await;
    assert_fails(kms.describe(&kek).await, ErrorKind::Unavailable, "no usable AWS credentials");
    assert_eq!(proxy.take_seen(), [""; 0]);
}
