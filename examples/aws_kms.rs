//! A tenant's KEK in AWS KMS: enrol, seal, open; what the KMS was asked; and what the tenant's own switch does.
//!
//! With real credentials (environment, profile or role), and a symmetric KMS key that they may use:
//! `cargo run --features aws-kms --example aws_kms -- --kek arn:aws:kms:eu-central-1:111122223333:key/…`
//! Needs kms:DescribeKey, kms:GenerateDataKey and kms:Decrypt, and makes 6 calls.
//!
//! With a look-alike on this machine, where the key is made and switched off and on again:
//! `cargo run --features aws-kms --example aws_kms -- --endpoint http://127.0.0.1:5566`

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_kms::config::Credentials;
use strongroom::{
    AwsKms, DataKey, EncryptionContext, ErrorKind, GeneratedKey, KekDescription, KekUri, Kms, MemoryKeyStore, Period,
    Region, ScopeHandle, Strongroom, TenantPolicy,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const MESSAGES: [(&str, &str); 3] =
    [("M1", "Lunch at noon?"), ("M2", "Make it one."), ("M3", "The plans are in the safe.")];

struct Arguments {
    endpoint: Option<String>,
    kek: Option<String>,
}

#[tokio::main]
async fn main() -> Outcome {
    let Arguments { endpoint, kek } = arguments()?;
    let config = config(endpoint.as_deref()).await;
    let administrator = aws_sdk_kms::Client::new(&config);
    let kek = match kek {
        Some(arn) => arn,
        None => {
            administrator.create_key().send().await?.key_metadata.and_then(|key| key.arn).ok_or("no key was made")?
        }
    };
    let kek = KekUri::new(&format!("aws-kms:{kek}"))?;

    println!("1. The tenant's KEK");
    let aws = AwsKms::from_sdk_config(&config);
    let key = aws.describe_key(&kek).await?;
    println!("   {}", key.kek);
    println!("   {} in {}, account {}, origin {}", key.state, key.region, key.account, key.origin);

    println!("2. Enrol the tenant, seal and open in two channels");
    let asked = Asked::new(aws);
    let room = room(&key.region, asked.clone()).await?;
    let policy =
        TenantPolicy::new(kek.clone(), key.region.clone()).scope_by(["channel"]).bind(["message"]).period(Period::Hour);
    room.admin("ops@example.com", "an example")?.enroll("acme", policy).await?;
    let acme = room.tenant("acme").await?;
    let (general, random) = (acme.scope([("channel", "general")])?, acme.scope([("channel", "random")])?);
    let mut sealed = Vec::new();
    for (channel, name) in [(&general, "general"), (&random, "random")] {
        for (message, text) in MESSAGES {
            let envelope = channel.seal(&[("message", message)], text.as_bytes()).await?;
            opens(channel, message, &envelope, text).await?;
            sealed.push(envelope);
        }
        println!("   {name}: {} messages, all open", MESSAGES.len());
    }

    println!("3. What the KMS was asked, for {} messages sealed and opened", sealed.len());
    asked.print();

    if endpoint.is_some() {
        println!("4. The tenant disables its key");
        administrator.disable_key().key_id(kek.name()).send().await?;
        let still = room.cached_keys();
        room.admin("ops@example.com", "an example")?.purge("acme")?; // as the cache's time to live does, at the latest
        let Err(e) = general.open(&[("message", "M1")], &sealed[0]).await else { return Err("it opened".into()) };
        println!("   {e}");
        if e.kind() != ErrorKind::Denied {
            return Err("that is no denial".into());
        }
        println!("   cached keys: {still} before, {} now", room.cached_keys());

        println!("5. The tenant enables it again");
        administrator.enable_key().key_id(kek.name()).send().await?;
        opens(&general, "M1", &sealed[0], MESSAGES[0].1).await?;
        println!("   opens: {:?}", MESSAGES[0].1);
    }
    println!("\nAll as claimed.");
    Ok(())
}

fn arguments() -> Outcome<Arguments> {
    const USAGE: &str = "usage: aws_kms [--endpoint URL] [--kek ARN]; without --endpoint, --kek is needed";
    let mut found = Arguments { endpoint: None, kek: None };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let value = given.next().ok_or(USAGE)?;
        match name.as_str() {
            "--endpoint" => found.endpoint = Some(value),
            "--kek" => found.kek = Some(value),
            _ => return Err(USAGE.into()),
        }
    }
    if found.endpoint.is_none() && found.kek.is_none() {
        return Err(USAGE.into());
    }
    Ok(found)
}

/// The environment's configuration; for a look-alike, its address and credentials that mean nothing.
async fn config(endpoint: Option<&str>) -> SdkConfig {
    let loader = aws_config::defaults(BehaviorVersion::latest());
    match endpoint {
        None => loader.load().await,
        Some(url) => {
            let nobody = Credentials::new("test", "test", None, None, "example");
            let region = aws_config::Region::new("eu-central-1");
            loader.endpoint_url(url).region(region).credentials_provider(nobody).load().await
        }
    }
}

async fn room(region: &Region, kms: impl Kms) -> Outcome<Strongroom> {
    Ok(Strongroom::builder()
        .serving([region.as_str()])
        .key_store(MemoryKeyStore::default())
        .kms(kms)
        .trusting_the_key_store()
        .build()
        .await?)
}

async fn opens(scope: &ScopeHandle, message: &str, envelope: &[u8], expected: &str) -> Outcome {
    let text = scope.open(&[("message", message)], envelope).await?;
    if *text == *expected.as_bytes() { Ok(()) } else { Err(format!("{message} opened as something else").into()) }
}

/// A KMS that notes what it is asked: what the tenant sees in its own trail.
#[derive(Clone)]
struct Asked {
    kms: AwsKms,
    calls: Arc<Mutex<Vec<[String; 3]>>>,
}

impl Asked {
    fn new(kms: AwsKms) -> Self {
        Self { kms, calls: Arc::default() }
    }

    fn note(&self, operation: &str, context: Option<&EncryptionContext>) {
        let of = |name| context.and_then(|c| c.get(name)).unwrap_or("-").to_owned();
        let call = [operation.to_owned(), of("channel"), of("hour")];
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }

    fn print(&self) {
        println!("   {:18} {:10} hour", "call", "channel");
        for [operation, channel, hour] in self.calls.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            println!("   {operation:18} {channel:10} {hour}");
        }
    }
}

#[async_trait]
impl Kms for Asked {
    fn scheme(&self) -> &str {
        self.kms.scheme()
    }

    async fn describe(&self, kek: &KekUri) -> strongroom::Result<KekDescription> {
        self.note("DescribeKey", None);
        self.kms.describe(kek).await
    }

    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, key: &DataKey) -> strongroom::Result<Vec<u8>> {
        self.note("Encrypt", Some(context));
        self.kms.wrap(kek, context, key).await
    }

    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> strongroom::Result<DataKey> {
        self.note("Decrypt", Some(context));
        self.kms.unwrap(kek, context, wrapped).await
    }

    async fn generate(&self, kek: &KekUri, context: &EncryptionContext) -> strongroom::Result<GeneratedKey> {
        self.note("GenerateDataKey", Some(context));
        self.kms.generate(kek, context).await
    }
}
