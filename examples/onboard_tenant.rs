//! From a tenant's KEK to its first message: probe, plan, enrol, seal; then the key policy that the tenant pastes at AWS, and
//! what a revocation in it would hit. Fails if anything is not as it says.
//!
//! `cargo run --example onboard_tenant`
//!
//! With the KEK in AWS KMS, by real credentials or a look-alike's, the same calls take `AwsKms` in the place of `LocalKms`:
//! the example `aws_kms` shows how it is set up.

mod messages;

use std::time::Duration;

use messages::{EU, Outcome, TENANT, US, expect};
use strongroom::{
    AwsKeyPolicy, CallPlanner, Expected, KekUri, Period, Region, Selector, TenantLoad, TenantPolicy, create_local,
};

const ARN: &str = "aws-kms:arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const CHAT: &str = "arn:aws:iam::999988887777:role/chat";

fn policy(kek: KekUri) -> Outcome<TenantPolicy> {
    let policy = TenantPolicy::new(kek, Region::new(EU)?)
        .scope_by(["workspace", "channel"])
        .bind(["message"])
        .period(Period::Hour);
    Ok(policy.cache_ttl(Duration::from_secs(300)))
}

/// 6 nodes, 2000 busy channels.
fn plan(policy: TenantPolicy) -> CallPlanner {
    let load = TenantLoad::new(TENANT, policy).active("workspace", 10).active("channel", 2000);
    let load = load.seals_per_second(50.0).opens_per_second(400.0).history(5000, 20.0);
    CallPlanner::new(6).tenant(load)
}

#[tokio::main]
async fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    let local = create_local(folder.path()).await?;
    let (room, kms) = (local.builder().serving([EU]).build().await?, local.kms().clone());
    let admin = room.admin("ops@example.com", "an example")?;

    println!("1. Probe a KEK that will not do");
    let elsewhere = kms.create_kek("acme-us", Region::new(US)?)?;
    let report = admin.probe(TENANT, &policy(elsewhere)?, &Expected::default()).await?;
    println!("{report}");
    expect(!report.is_ready(), "a KEK in another region is found before anything is sealed under it")?;

    println!("2. Probe the one that the tenant then names");
    let policy_here = policy(kms.create_kek("acme-2026", Region::new(EU)?)?)?;
    let report = admin.probe(TENANT, &policy_here, &Expected::default()).await?;
    println!("{report}");
    expect(report.is_ready(), "the KEK is ready")?;

    println!("3. Plan: what would it be asked for, were it in AWS KMS?");
    let in_aws = policy(KekUri::new(ARN)?)?;
    let planner = plan(in_aws.clone());
    println!("{}", planner.plan()?);
    expect(planner.plan()?.is_within_quotas(), "the busiest second is within AWS's default quota")?;
    let small = planner.quota(100.0).plan()?;
    println!("   with a quota of 100 a second:");
    small.warnings.iter().for_each(|w| println!("   WARNING: {}\n   {}", w.what, w.changes.join("\n   ")));
    expect(!small.is_within_quotas(), "a quota too small is warned of, with what would help")?;

    println!("4. Enrol, and the first messages");
    admin.enroll(TENANT, policy_here).await?;
    let acme = room.tenant(TENANT).await?;
    for channel in ["general", "plans"] {
        let scope = acme.scope([("workspace", "W1"), ("channel", channel)])?;
        let sealed = scope.seal(&[("message", "M1")], b"hello").await?;
        expect(&*scope.open(&[("message", "M1")], &sealed).await? == b"hello", "a message is sealed and opens")?;
    }

    println!("5. Preview: which data keys would the revocation of a channel hit?");
    let channel = Selector::fields([("channel", "plans")]);
    let preview = admin.preview(TENANT, &channel).await?;
    println!("{preview}");
    expect(preview.covered == 1 && preview.records == 2, "one of two")?;

    println!("6. The key policy that the tenant pastes, with that channel denied");
    let document = AwsKeyPolicy::new(TENANT, &in_aws, &KekUri::new(ARN)?)?.principal(CHAT)?.document(&[channel])?;
    println!("{document}");
    println!("All as claimed.");
    Ok(())
}
