//! The probe, on KMSs that work, that lie, and that are not there.

use async_trait::async_trait;
use strongroom::testing::{Fault, FaultyKms, Operator};
use strongroom::{
    DataKey, EncryptionContext, ErrorKind, Expected, Finding, KekDescription, KekExpression, KekUri, Kms, LocalKms,
    MemoryKeyStore, Outcome, Period, ProbeReport, Result, Strongroom, TenantPolicy,
};

use crate::records::region;

const EU: &str = "eu-central-1";

async fn room(kms: impl Kms) -> Strongroom {
    Strongroom::builder()
        .serving([EU])
        .key_store(MemoryKeyStore::default())
        .kms(kms)
        .open_under(&Operator::default())
        .await
}

fn policy(kek: impl Into<KekExpression>) -> TenantPolicy {
    TenantPolicy::new(kek, region(EU)).scope_by(["channel"]).period(Period::Hour)
}

async fn probe(room: &Strongroom, policy: &TenantPolicy) -> ProbeReport {
    let report = room.admin("a test", "to test").unwrap().probe("acme", policy, &Expected::default()).await.unwrap();
    assert!(
        room.admin("a test", "to test").unwrap().tenants(None, 10).await.unwrap().tenants.is_empty(),
        "a probe stores nothing"
    );
    let keys = room.admin("a test", "to test").unwrap().keys("acme", None, 10).await;
    assert_eq!(keys.err().map(|e| e.kind()), Some(ErrorKind::UnknownTenant));
    report
}

#[track_caller]
fn outcome(report: &ProbeReport, name: &str) -> Outcome {
    let found: Vec<_> = report.checks.iter().filter(|check| check.finding.name == name).collect();
    assert_eq!(found.len(), 1, "{name}:\n{report}");
    found[0].finding.outcome
}

#[tokio::test]
async fn a_good_kek_is_ready() {
    let kms = LocalKms::in_memory();
    let kek = kms.create_kek("acme", region(EU)).unwrap();
    let room = room(kms).await;
    for policy in [policy(kek.clone()), TenantPolicy::new(kek.clone(), region(EU))] {
        let report = probe(&room, &policy).await;
        assert!(report.is_ready(), "{report}");
        assert!(report.checks.iter().all(|check| check.finding.outcome == Outcome::Pass), "{report}");
        for name in
            ["enabled", "region", "makes data keys", "unwraps", "refuses another tenant", "refuses another scope"]
        {
            assert_eq!(outcome(&report, name), Outcome::Pass);
        }
        let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        assert_eq!((json["checks"][0]["outcome"].as_str(), json["tenant"].as_str()), (Some("pass"), Some("acme")));
        assert!(report.to_string().starts_with("tenant acme: ready\nlocal:acme\n  pass"), "{report}");
    }
    room.admin("a test", "to test").unwrap().enroll("acme", policy(kek)).await.unwrap();
}

#[tokio::test]
async fn every_kek_of_an_expression_is_probed_and_then_all_together() {
    let kms = LocalKms::in_memory();
    let [a, b, c] = ["a", "b", "c"].map(|name| kms.create_kek(name, region(EU)).unwrap());
    let keks = KekExpression::any_of([KekExpression::One(a), KekExpression::all_of([b, c])]);
    let room = room(kms.clone()).await;
    let report = probe(&room, &policy(keks.clone())).await;
    assert!(report.is_ready(), "{report}");
    assert_eq!(report.checks.iter().filter(|check| check.finding.name == "unwraps").count(), 3);
    assert_eq!(outcome(&report, "KEK expression"), Outcome::Pass);
    kms.disable_kek("c").unwrap();
    let report = probe(&room, &policy(keks)).await;
    assert!(!report.is_ready());
    let failed = report.checks.iter().filter(|check| check.finding.outcome == Outcome::Fail);
    assert!(failed.clone().count() >= 2);
    for check in failed {
        assert_eq!(check.kek.as_ref().unwrap().as_str(), "local:c", "{report}");
        assert!(!check.finding.what_to_do.is_empty());
    }
}

#[tokio::test]
async fn a_kek_elsewhere_is_a_finding_and_is_not_called_if_it_says_so() {
    let kms = FaultyKms::new(LocalKms::in_memory());
    let kek = KekUri::new("local:acme").unwrap();
    let report = probe(&room(kms.clone()).await, &policy(kek.clone()).kek_in(kek, region("us-east-1"))).await;
    assert_eq!((outcome(&report, "region"), report.is_ready(), kms.calls()), (Outcome::Fail, false, 0));

    let local = LocalKms::in_memory();
    let kek = local.create_kek("acme", region("us-east-1")).unwrap();
    let report = probe(&room(local).await, &policy(kek)).await;
    assert_eq!((outcome(&report, "region"), outcome(&report, "unwraps")), (Outcome::Fail, Outcome::Pass));
    assert!(!report.is_ready() && report.to_string().contains("us-east-1"), "{report}");
}

#[tokio::test]
async fn a_kms_that_lies_refuses_or_is_away_is_told_apart() {
    let local = LocalKms::in_memory();
    let kek = local.create_kek("acme", region(EU)).unwrap();
    let kms = FaultyKms::new(local);
    let room = room(kms.clone()).await;
    for (fault, name, expected) in [
        (Fault::WrongKey, "unwraps", Outcome::Fail),
        (Fault::EmptyWrapping, "generates", Outcome::Unknown),
        (Fault::Fails(ErrorKind::Denied), "described", Outcome::Fail),
        (Fault::Fails(ErrorKind::Unavailable), "described", Outcome::Unknown),
        (Fault::Fails(ErrorKind::Throttled), "generates", Outcome::Unknown),
    ] {
        kms.set(fault);
        let report = probe(&room, &policy(kek.clone())).await;
        assert!(!report.is_ready(), "{fault:?}:\n{report}");
        assert_eq!(outcome(&report, name), expected, "{fault:?}:\n{report}");
    }
}

/// Takes whatever it is told, and knows something about its KEKs.
struct Careless;

#[async_trait]
impl Kms for Careless {
    fn scheme(&self) -> &'static str {
        "local"
    }

    async fn describe(&self, _: &KekUri) -> Result<KekDescription> {
        Ok(KekDescription { region: region(EU), enabled: true, version: "1".to_owned(), symmetric: true })
    }

    async fn wrap(&self, _: &KekUri, _: &EncryptionContext, key: &DataKey) -> Result<Vec<u8>> {
        Ok(key.expose().to_vec())
    }

    async fn unwrap(&self, _: &KekUri, _: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey> {
        DataKey::take(&mut wrapped.to_vec())
    }

    async fn inspect(&self, _: &KekUri, expected: &Expected) -> Result<Vec<Finding>> {
        let regions = expected.regions().map(strongroom::Region::as_str).collect::<Vec<_>>().join(" ");
        let account = expected.expected_account().unwrap_or_default();
        Ok(vec![Finding::new("account", Outcome::Unknown, format!("{account} {regions}")).advise("ask")])
    }
}

#[tokio::test]
async fn a_kms_that_ignores_context_and_authenticity_is_not_ready() {
    let room = room(Careless).await;
    let kek = KekUri::new("local:acme").unwrap();
    let expected = Expected::default().account("111122223333");
    let policy = policy(kek).allow_region(region("eu-west-1"));
    let report = room.admin("a test", "to test").unwrap().probe("acme", &policy, &expected).await.unwrap();
    assert!(!report.is_ready());
    for name in ["refuses another tenant", "refuses another scope", "refuses altered bytes"] {
        assert_eq!(outcome(&report, name), Outcome::Fail);
    }
    let inspected = report.checks.iter().find(|check| check.finding.name == "account").unwrap();
    assert!(!inspected.required, "what nobody depends on may stay unknown");
    assert_eq!(inspected.finding.detail, "111122223333 eu-central-1 eu-west-1");
}

#[tokio::test]
async fn no_key_is_in_a_report() {
    let report = probe(&room(Careless).await, &policy(KekUri::new("local:acme").unwrap())).await;
    // The wrappings of this KMS are the keys themselves: 32 bytes of anything would show as a long word.
    let text = format!("{report}{report:?}{}", report.to_json().unwrap());
    let longest = text.split(|c: char| !c.is_ascii_alphanumeric()).map(str::len).max().unwrap();
    assert!(longest < 32, "{text}");
}

#[tokio::test]
async fn a_policy_that_is_wrong_is_an_error() {
    let kms = LocalKms::in_memory();
    let kek = kms.create_kek("acme", region(EU)).unwrap();
    let room = room(kms).await;
    let wrong = policy(kek.clone()).scope_by(["hour"]);
    let e = room.admin("a test", "to test").unwrap().probe("acme", &wrong, &Expected::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    let elsewhere = policy(kek).home(region("us-east-1"));
    let e = room.admin("a test", "to test").unwrap().probe("acme", &elsewhere, &Expected::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Region);
}
