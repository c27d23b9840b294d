//! A tenant moves from one region to another while the chat goes on. Residency reports and messages before, under way and
//! after; fails if anything is not as it says.
//!
//! `cargo run --example migrate_region`

mod messages;

use messages::{EU, Messages, Outcome, TENANT, US, enrolled, expect};
use strongroom::{Region, Strongroom, WalkOptions};

#[tokio::main]
async fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (room, kms) = enrolled(folder.path()).await?;
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
    println!("   {} records rewrapped, {} failed", walked.done, walked.failed);
    messages.write(&room, "M6", "general").await?;
    report(&room, &messages).await?;
    expect(messages.show(&room).await? == 7, "every message opens")?;
    let early = admin.finish_migration(TENANT, &Region::new(EU)?, &messages.census(&admin)?).await;
    expect(early.is_err(), "the old region cannot be closed while messages are in it")?;

    println!("3. Reseal the messages, and close the old region");
    let resealed = admin.reseal(TENANT, &messages, None, &options, |_| {}).await?;
    println!("   {} of {} messages sealed anew, {} failed", resealed.resealed, resealed.seen, resealed.failed);
    admin.finish_migration(TENANT, &Region::new(EU)?, &messages.census(&admin)?).await?;

    println!("4. After");
    report(&room, &messages).await?;
    expect(messages.show(&room).await? == 7, "every message opens")?;
    expect(messages.census(&admin)?.in_region(&Region::new(EU)?) == 0, "none is in the old region")?;
    println!("All as claimed.");
    Ok(())
}

async fn report(room: &Strongroom, messages: &Messages) -> Outcome {
    let report = room
        .admin("ops@example.com", "an example")?
        .residency(TENANT, &messages.census(&room.admin("ops@example.com", "an example")?)?)
        .await?;
    for line in report.to_string().lines() {
        println!("   {line}");
    }
    Ok(())
}
