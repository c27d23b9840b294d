//! Real records with the encryption contexts that a KMS was really told, caught on their way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use strongroom::testing::{ManualClock, Operator};
use strongroom::{
    DataKey, EncryptionContext, KekDescription, KekUri, KeyRecord, Kms, LocalKms, MemoryKeyStore, Period, Region,
    Result, Strongroom, TenantPolicy,
};

pub(crate) const KEK: &str = "aws-kms:arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
pub(crate) const NOW: i64 = 1_795_324_649_500; // 2026-11-22T05:17:29.5Z
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) type Context = BTreeMap<String, String>;

/// Answers for `aws-kms:`, with a key of its own, and keeps the contexts in which it wrapped.
#[derive(Clone)]
pub(crate) struct Told {
    local: LocalKms,
    inner: KekUri,
    pub(crate) wraps: Arc<Mutex<Vec<Context>>>,
}

impl Told {
    pub(crate) fn new() -> Self {
        let local = LocalKms::in_memory();
        let inner = local.create_kek("acme", region("eu-central-1")).unwrap();
        Self { local, inner, wraps: Arc::default() }
    }
}

#[async_trait]
impl Kms for Told {
    fn scheme(&self) -> &'static str {
        "aws-kms"
    }

    async fn describe(&self, _: &KekUri) -> Result<KekDescription> {
        self.local.describe(&self.inner).await
    }

    async fn wrap(&self, _: &KekUri, context: &EncryptionContext, key: &DataKey) -> Result<Vec<u8>> {
        let pairs = context.fields().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.wraps.lock().unwrap().push(pairs);
        self.local.wrap(&self.inner, context, key).await
    }

    async fn unwrap(&self, _: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey> {
        self.local.unwrap(&self.inner, context, wrapped).await
    }
}

pub(crate) fn region(name: &str) -> Region {
    Region::new(name).unwrap()
}

pub(crate) fn kek() -> KekUri {
    KekUri::new(KEK).unwrap()
}

pub(crate) fn policy(period: Period) -> TenantPolicy {
    TenantPolicy::new(kek(), region("eu-central-1"))
        .scope_by(["workspace", "channel"])
        .allow_unbound_messages()
        .period(period)
}

/// Channels whose names mean something to IAM, or nearly do.
pub(crate) const CHANNELS: [&str; 8] = ["C1", "C2", "*", "C?", "${aws:username}", "$", "a${b", "Größe"];

/// A tenant with a data key for each channel in each of `turns` periods, and what the KMS was told of each.
pub(crate) async fn recorded(period: Period, turns: u32) -> (Strongroom, Vec<(KeyRecord, Context)>) {
    let (told, clock) = (Told::new(), ManualClock::at(NOW));
    let builder = Strongroom::builder().serving(["eu-central-1"]).key_store(MemoryKeyStore::default());
    let room = builder.kms(told.clone()).clock(clock.clone()).open_under(&Operator::default()).await;
    room.admin("a test", "to test").unwrap().enroll("acme", policy(period)).await.unwrap();
    let acme = room.tenant("acme").await.unwrap();
    let step = match period {
        Period::Month => 31 * 24 * HOUR,
        Period::Day => 24 * HOUR,
        _ => HOUR,
    };
    for _ in 0..turns {
        for channel in CHANNELS {
            let scope = acme.scope([("workspace", "W1"), ("channel", channel)]).unwrap();
            scope.seal(&[], b"text").await.unwrap();
        }
        clock.advance(step);
    }
    let contexts = told.wraps.lock().unwrap().clone();
    let of = |record: &KeyRecord| {
        let is = |context: &&Context| {
            let period = record.period.as_ref().map(strongroom::PeriodLabel::field);
            context.get("channel").map(String::as_str) == record.scope.get("channel")
                && period.is_none_or(|(name, value)| context.get(name).map(String::as_str) == Some(value))
        };
        contexts.iter().find(is).unwrap().clone()
    };
    let records = room.admin("a test", "to test").unwrap().keys("acme", None, 10_000).await.unwrap().keys;
    assert_eq!(records.len(), contexts.len());
    (room.clone(), records.into_iter().map(|record| (record.clone(), of(&record))).collect())
}
