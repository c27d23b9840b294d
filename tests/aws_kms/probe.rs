//! What a probe finds of KEKs in AWS KMS, and what a look-alike gets wrong about them.

use std::sync::Arc;

use strongroom::{AwsKeyPolicy, ErrorKind, Expected, Kms, Outcome, ProbeReport, TenantPolicy};

use crate::servers::Flaw;
use crate::world::{ACCOUNT, admin, admin_in, create_kek, home, kms, room, server, uri};

fn outcome(report: &ProbeReport, name: &str) -> Outcome {
    let found = report.checks.iter().find(|check| check.finding.name == name);
    found.unwrap_or_else(|| panic!("no {name}:\n{report}")).finding.outcome
}

async fn probe(policy: &TenantPolicy, expected: &Expected) -> ProbeReport {
    let room = room(&Arc::default(), kms().await).await;
    room.admin("a test", "to test").unwrap().probe("acme", policy, expected).await.unwrap()
}

#[tokio::test]
async fn a_kek_of_the_tenant_is_probed() {
    let admin = admin().await;
    let kek = create_kek(&admin).await;
    let policy = TenantPolicy::new(kek.clone(), home()).scope_by(["channel"]);
    let expected = Expected::default().account(ACCOUNT).principal("arn:aws:iam::999988887777:role/chat");
    let report = probe(&policy, &expected).await;
    for (name, expected) in [
        ("unwraps", Outcome::Pass),
        ("refuses another tenant", Outcome::Pass),
        ("account", Outcome::Pass),
        ("manager", Outcome::Pass),
        ("origin", Outcome::Pass),
        ("multi-region", Outcome::Pass),
        ("rotation", Outcome::Warn),
    ] {
        assert_eq!(outcome(&report, name), expected, "{name}:\n{report}");
    }
    // Just what the probe is for: a KMS that unwraps altered bytes is not ready.
    let garbage = server().has(Flaw::UnwrapsToGarbage);
    assert_eq!(report.is_ready(), !garbage, "{report}");
    assert_eq!(outcome(&report, "refuses altered bytes") == Outcome::Fail, garbage, "{report}");
    assert_eq!(outcome(&probe(&policy, &Expected::default().account("999988887777")).await, "account"), Outcome::Fail);

    admin.disable_key().key_id(kek.name()).send().await.unwrap();
    let report = probe(&policy, &expected).await;
    assert_eq!((outcome(&report, "enabled"), report.is_ready()), (Outcome::Fail, false), "{report}");
}

#[tokio::test]
async fn the_key_policy_is_read_and_what_is_too_wide_is_found() {
    let admin = admin().await;
    let kek = create_kek(&admin).await;
    let chat = "arn:aws:iam::000000000000:role/chat";
    let policy = TenantPolicy::new(kek.clone(), home()).scope_by(["channel"]);
    let expected = Expected::default().account(ACCOUNT).principal(chat);
    // AWS has no other policy name and takes none as that one; LocalStack wants it said.
    let put = |text: String| {
        admin.put_key_policy().key_id(kek.name().rsplit('/').next().unwrap()).policy_name("default").policy(text).send()
    };

    // What we write ourselves is taken by the server, read back, and found no wider than need be.
    let least = AwsKeyPolicy::new("acme", &policy, &kek).unwrap().principal(chat).unwrap().document(&[]).unwrap();
    put(least.clone()).await.unwrap();
    let read: serde_json::Value = serde_json::from_str(&kms().await.key_policy(&kek).await.unwrap()).unwrap();
    assert_eq!(read, serde_json::from_str::<serde_json::Value>(&least).unwrap());
    let report = probe(&policy, &expected).await;
    assert_eq!(outcome(&report, "key policy"), Outcome::Pass, "{report}");
    assert_eq!(outcome(&report, "administration by IAM"), Outcome::Unknown, "{report}");

    put(least.replace("kms:Decrypt", "kms:*")).await.unwrap();
    let report = probe(&policy, &expected).await;
    assert_eq!(outcome(&report, "key policy"), Outcome::Warn, "under conditions only:\n{report}");
    put(least.replace("kms:DescribeKey", "kms:*")).await.unwrap();
    let report = probe(&policy, &expected).await;
    assert_eq!((outcome(&report, "key policy"), report.is_ready()), (Outcome::Fail, false), "{report}");
    assert!(report.to_string().contains("kms:ScheduleKeyDeletion"), "{report}");
}

#[tokio::test]
async fn replicas_and_aliases_are_found() {
    let admin = admin().await;
    let made = admin.create_key().multi_region(true).send().await.unwrap().key_metadata.unwrap();
    let primary = uri(made.arn.as_deref().unwrap());
    admin.replicate_key().key_id(primary.name()).replica_region("eu-west-1").send().await.unwrap();
    let policy = TenantPolicy::new(primary.clone(), home());
    let report = probe(&policy, &Expected::default()).await;
    assert_eq!(outcome(&report, "multi-region"), Outcome::Fail, "{report}");
    assert_eq!(outcome(&report, "account"), Outcome::Unknown, "{report}");
    let wider = policy.allow_region(strongroom::Region::new("eu-west-1").unwrap());
    assert_eq!(outcome(&probe(&wider, &Expected::default()).await, "multi-region"), Outcome::Warn);

    let elsewhere = create_kek(&admin_in("eu-west-1").await).await;
    let report = probe(&TenantPolicy::new(elsewhere, home()), &Expected::default()).await;
    assert_eq!((outcome(&report, "region"), report.checks.len()), (Outcome::Fail, 1), "it is not called:\n{report}");

    let id = primary.name().rsplit('/').next().unwrap();
    let name = format!("alias/probe-{id}");
    admin.create_alias().alias_name(&name).target_key_id(id).send().await.unwrap();
    let alias = uri(&format!("arn:aws:kms:{}:{ACCOUNT}:{name}", home()));
    let found = kms().await.inspect(&alias, &Expected::default()).await.unwrap();
    assert!(found.iter().any(|f| f.name == "alias" && f.outcome == Outcome::Warn), "{found:?}");
    let gone = uri(&format!("arn:aws:kms:{}:{ACCOUNT}:key/00000000-0000-0000-0000-000000000000", home()));
    assert_eq!(kms().await.key_policy(&gone).await.unwrap_err().kind(), ErrorKind::Denied);
}
