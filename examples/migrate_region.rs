//! A tenant moves from one region to another while the chat goes on. Residency reports and messages before, under way and
//! after; fails if anything is not as it says.
//!
//! `cargo run --example migrate_region`

mod messages;

use messages::{EU, Hurried, Messages, Outcome, TENANT, US, enrolled, expect};
use std::time::Duration;
use strongroom::{FILE_SEALING_LIMIT, Region, ResidencyReport, Selector, Strongroom, WalkOptions};

#[tokio::main]
async fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    let clock = Hurried::default();
    let (room, kms) = enrolled(folder.path(), &clock).await?;
    let messages = Messages::written(&room).await?;
    let admin = room.admin("ops@example.com", "an example")?;
    let options = WalkOptions::default();

    println!("1. Before");
    report(&room, &messages).await?;

    println!(
        "2. Migrate: a KEK in the new region wraps every record; new messages are there at once, old ones still open"
    );
    let kek = kms.create_kek("acme-us", Region::new(US)?)?;
    let walked = admin.migrate_region(TENANT, Region::new(US)?, &kek, &options).await?;
    println!("   {} records rewrapped", walked.done);
    messages.write(&room, "M6", "general").await?;
    report(&room, &messages).await?;
    expect(messages.show(&room).await? == 7, "every message opens")?;

    println!("3. Reseal the messages, and take what is left in the old region out of use");
    let resealed = admin.reseal(TENANT, &messages, None, &options, |_| {}).await?;
    println!("   {} of {} messages sealed anew", resealed.resealed, resealed.seen);
    let walked = admin.rotate_all(TENANT, Selector::everything(), &options).await?;
    println!("   {} data keys deactivated", walked.done);

    println!("4. A day later, when every writer has ended: close the old region on a census, and retire its data keys");
    let cutoff = admin.cutoff(TENANT).await?;
    clock.pass(FILE_SEALING_LIMIT + Duration::from_secs(600));
    let (census, old) = (messages.proof(&admin, &cutoff)?, Region::new(EU)?);
    admin.finish_migration(TENANT, &old, &census).await?;
    let keys = admin.keys(TENANT, None, 100).await?.keys;
    let keys: Vec<_> = keys.iter().filter(|key| key.region == old).map(|key| key.key_id).collect();
    let erasure = admin.retire(TENANT, &keys, &census, Duration::ZERO).await?;
    admin.carry_out_erasure(TENANT, &erasure.id, &options).await?;

    println!("5. After");
    let after = report(&room, &messages).await?;
    expect(after.is_clean(), "nothing is in the old region")?;
    expect(messages.show(&room).await? == 7, "every message opens")?;
    println!("All as claimed.");
    Ok(())
}

async fn report(room: &Strongroom, messages: &Messages) -> Outcome<ResidencyReport> {
    let report = room.admin("ops@example.com", "an example")?.residency(TENANT, &messages.census()?).await?;
    for line in report.to_string().lines() {
        println!("   {line}");
    }
    Ok(report)
}
