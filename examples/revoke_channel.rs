//! A tenant revokes one channel, restores it, and erases another one for good; a receipt says what is gone. Before and after
//! as tables; fails if anything is not as it says.
//!
//! `cargo run --example revoke_channel`

mod messages;

use std::time::Duration;

use messages::{Hurried, Messages, Outcome, TENANT, enrolled, expect, show_keys};
use strongroom::{Ed25519Signer, Selector, WalkOptions};

#[tokio::main]
async fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (room, _kms) = enrolled(folder.path(), &Hurried::default()).await?;
    let messages = Messages::written(&room).await?;
    let admin = room.admin("ops@example.com", "an example")?;

    println!("1. Before");
    expect(messages.show(&room).await? == 6, "every message opens")?;

    println!("2. Revoke one channel. Other nodes hear of it within the revocation bound, 5 seconds by default");
    let plans = Selector::fields([("channel", "plans")]);
    admin.revoke(TENANT, plans.clone()).await?;
    expect(messages.show(&room).await? == 4, "the channel's messages do not open, the others do")?;

    println!("3. Restore it");
    admin.restore(TENANT, plans.clone()).await?;
    expect(messages.show(&room).await? == 6, "every message opens")?;

    println!("4. Erase it: first its keys wait, here for no time at all, then they are destroyed");
    let erasure = admin.erase(TENANT, plans.clone(), Duration::ZERO).await?;
    let walked = admin.carry_out_erasure(TENANT, &erasure.id, &WalkOptions::default()).await?;
    println!("   {} data key destroyed", walked.done);
    show_keys(&room).await?;
    expect(messages.show(&room).await? == 4, "the channel's messages never open again")?;

    println!("5. A receipt for the tenant, signed with the operator's key");
    let mut seed = *b"for the example: 32 known bytes!";
    let signer = Ed25519Signer::from_seed(&mut seed)?;
    let backups = Duration::from_secs(30 * 24 * 3600);
    let receipt = admin.receipt(TENANT, plans, backups, &signer).await?;
    println!("   {}", receipt.to_json()?);
    let statement = receipt.verify(&signer.public_key())?;
    for key in &statement.erased {
        println!("   data key {:.8} gone since {} (Unix milliseconds)", key.key_id, key.erased_at);
    }
    println!(
        "   caches cannot hold it after {}, backups after {}",
        statement.caches_clear_at, statement.backups_clear_at
    );
    expect(statement.erased.len() == 1, "the receipt verifies and names the key")?;
    println!("All as claimed.");
    Ok(())
}
