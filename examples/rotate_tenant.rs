//! A tenant changes its KEK while the chat goes on, then takes every data key out of service and has its messages sealed
//! anew. Before and after as tables; fails if anything is not as it says.
//!
//! `cargo run --example rotate_tenant`

mod messages;

use messages::{EU, Messages, Outcome, TENANT, enrolled, expect, show_keys};
use strongroom::{KeyState, Region, Selector, WalkOptions};

#[tokio::main]
async fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (room, kms) = enrolled(folder.path()).await?;
    let messages = Messages::written(&room).await?;
    let admin = room.admin("ops@example.com", "an example")?;
    let options = WalkOptions::default();

    println!("1. Before");
    show_keys(&room).await?;
    messages.show(&room).await?;

    println!("2. Rewrap: another KEK for every data key. Records change, messages do not");
    let new = kms.create_kek("acme-2027", Region::new(EU)?)?;
    let walked = admin.rewrap(TENANT, &new, &options).await?;
    println!("   {} records rewrapped, {} failed; now the old KEK is disabled", walked.done, walked.failed);
    kms.disable_kek("acme-2026")?;
    admin.purge_all(); // so that what follows asks the KMS again
    show_keys(&room).await?;
    expect(messages.show(&room).await? == 6, "every message opens under the new KEK")?;

    println!("3. Rotate everything, as after a compromise: new messages get new data keys");
    let walked = admin.rotate_all(TENANT, Selector::everything(), &options).await?;
    messages.write(&room, "M6", "general").await?;
    println!("   {} data keys deactivated", walked.done);

    println!("4. Reseal: the old messages, too, and nobody sees a plaintext");
    let resealed = admin.reseal(TENANT, &messages, None, &options, |_| {}).await?;
    println!("   {} of {} messages sealed anew, {} failed", resealed.resealed, resealed.seen, resealed.failed);
    expect(resealed.resealed == 6 && resealed.failed == 0, "what was under an old key is under a new one")?;

    println!("5. After");
    show_keys(&room).await?;
    expect(messages.show(&room).await? == 7, "every message opens")?;
    let census = messages.census(&admin)?;
    let keys = admin.keys(TENANT, None, 100).await?.keys;
    let old = keys.iter().filter(|key| key.state == KeyState::Deactivated);
    expect(old.map(|key| census.references(&key.key_id)).sum::<u64>() == 0, "nothing refers to the old data keys")?;
    println!("All as claimed.");
    Ok(())
}
