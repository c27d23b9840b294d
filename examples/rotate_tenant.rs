//! A tenant changes its KEK while the chat goes on, then takes every data key out of service and has its messages sealed
//! anew. Before and after as tables; fails if anything is not as it says.
//!
//! `cargo run --example rotate_tenant`

mod messages;

use messages::{EU, Hurried, Messages, Outcome, TENANT, enrolled, expect, show_keys};
use std::time::Duration;
use strongroom::{FILE_SEALING_LIMIT, KeyState, Region, Selector, WalkOptions};

#[tokio::main]
async fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    let clock = Hurried::default();
    let (room, kms) = enrolled(folder.path(), &clock).await?;
    let messages = Messages::written(&room).await?;
    let admin = room.admin("ops@example.com", "an example")?;
    let options = WalkOptions::default();

    println!("1. Before");
    show_keys(&room).await?;
    messages.show(&room).await?;

    println!("2. Rewrap: another KEK for every data key. Records change, messages do not");
    let new = kms.create_kek("acme-2027", Region::new(EU)?)?;
    let walked = admin.rewrap(TENANT, &new, &options).await?;
    println!("   {} records rewrapped, or there would be an error; now the old KEK is disabled", walked.done);
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
    println!("   {} of {} messages sealed anew", resealed.resealed, resealed.seen);
    expect(resealed.resealed == 6, "what was under an old key is under a new one")?;

    println!(
        "5. Retire: a day later nobody seals under the old data keys any more, and a census proves that none is needed"
    );
    let cutoff = admin.cutoff(TENANT).await?;
    expect(admin.census(&cutoff).is_err(), "it is not counted before every writer has ended")?;
    clock.pass(FILE_SEALING_LIMIT + Duration::from_secs(600));
    let census = messages.proof(&admin, &cutoff)?;
    let keys = admin.keys(TENANT, None, 100).await?.keys;
    let old: Vec<_> = keys.iter().filter(|key| key.state == KeyState::Deactivated).map(|key| key.key_id).collect();
    let erasure = admin.retire(TENANT, &old, &census, Duration::ZERO).await?;
    let walked = admin.carry_out_erasure(TENANT, &erasure.id, &options).await?;
    println!("   {} old data keys destroyed", walked.done);

    println!("6. After");
    show_keys(&room).await?;
    expect(messages.show(&room).await? == 7, "every message opens")?;
    println!("All as claimed.");
    Ok(())
}
