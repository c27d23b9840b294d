use std::time::Duration;

use strongroom::{Ed25519Signer, ErrorKind, KeyState, Period, Selector, SignedReceipt};

use crate::{DAY, Fleet, HOUR, NOW, channel, gently, key_id, kind};

#[tokio::test]
async fn an_erasure_waits_can_be_undone_and_then_is_for_good() {
    let fleet = Fleet::new().await;
    let (here, there) = (channel(&fleet.node, "C9").await, channel(&fleet.other, "C9").await);
    let sealed = here.seal(&[], b"x").await.unwrap();
    let kept = channel(&fleet.node, "C8").await.seal(&[], b"y").await.unwrap();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let this = Selector::fields([("channel", "C9")]);
    let undone = admin.erase("acme", this.clone(), DAY).await.unwrap();
    assert_eq!(kind(here.open(&[], &sealed).await), ErrorKind::Revoked);
    fleet.settle();
    let waiting = there.open(&[], &sealed).await.unwrap_err();
    assert!(waiting.kind() == ErrorKind::Revoked && waiting.to_string().contains(&undone.id), "{waiting}");
    assert_eq!(kind(there.seal(&[], b"x").await), ErrorKind::Revoked);
    assert_eq!(kind(admin.carry_out_erasure("acme", &undone.id, &gently()).await), ErrorKind::Conflict);
    admin.undo_erasure("acme", &undone.id).await.unwrap();
    there.open(&[], &sealed).await.unwrap();
    assert_eq!(kind(admin.undo_erasure("acme", &undone.id).await), ErrorKind::InvalidArgument);

    let erasure = admin.erase("acme", this.clone(), DAY).await.unwrap();
    fleet.clock.advance(DAY - Duration::from_millis(1));
    assert_eq!(kind(admin.carry_out_erasure("acme", &erasure.id, &gently()).await), ErrorKind::Conflict);
    fleet.clock.advance(Duration::from_millis(1));
    // Where a walk would begin does not count: an erasure that passed over a key would be a lie.
    let beyond = gently().after(strongroom::KeyId::from_bytes([0xFF; 32]));
    assert_eq!(admin.carry_out_erasure("acme", &erasure.id, &beyond).await.unwrap().done, 1);
    let record = fleet.record(&sealed).await;
    assert_eq!((record.state, record.wrapped, record.pending), (KeyState::Destroyed, None, None));
    for scope in [&here, &there] {
        assert_eq!(kind(scope.open(&[], &sealed).await), ErrorKind::Erased);
        scope.seal(&[], b"a new beginning").await.unwrap();
    }
    channel(&fleet.other, "C8").await.open(&[], &kept).await.unwrap();
    assert_eq!(kind(admin.undo_erasure("acme", &erasure.id).await), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn a_receipt_states_what_is_gone_and_verifies() {
    let fleet = Fleet::new().await;
    let sealed = channel(&fleet.node, "C9").await.seal(&[], b"x").await.unwrap();
    channel(&fleet.node, "C8").await.seal(&[], b"x").await.unwrap();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let this = Selector::fields([("channel", "C9")]);
    let erasure = admin.erase("acme", this.clone(), DAY).await.unwrap();
    fleet.clock.advance(DAY);
    admin.carry_out_erasure("acme", &erasure.id, &gently()).await.unwrap();
    let signer = Ed25519Signer::from_seed(&mut [5; 32]).unwrap();
    let signed = admin.receipt("acme", this, 30 * DAY, &signer).await.unwrap();
    let receipt = SignedReceipt::from_json(&signed.to_json().unwrap()).unwrap().verify(&signer.public_key()).unwrap();
    let erased_at = NOW + 24 * 3_600_000;
    assert_eq!(receipt.erased.len(), 1);
    assert_eq!((receipt.erased[0].key_id, receipt.erased[0].erased_at), (key_id(&sealed), erased_at));
    assert_eq!(receipt.caches_clear_at, erased_at + 300_000);
    assert_eq!(receipt.backups_clear_at, erased_at + 30 * 24 * 3_600_000);
    assert_eq!(receipt.epoch, admin.tenant("acme").await.unwrap().epoch);
}

#[tokio::test]
async fn retention_erases_periods_that_ended_long_ago() {
    let fleet = Fleet::with(|p| p.period(Period::Hour).retain_for(3 * HOUR)).await;
    let scope = channel(&fleet.node, "C9").await;
    let mut sealed = Vec::new();
    for _ in 0..6 {
        sealed.push(scope.seal(&[], b"x").await.unwrap());
        fleet.clock.advance(HOUR);
    }
    // It is 11:17; what ended before 08:17 has lived long enough: the hours 05, 06 and 07.
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let erasure = admin.apply_retention("acme", HOUR / 2, &gently()).await.unwrap().unwrap();
    assert!(admin.apply_retention("acme", HOUR / 2, &gently()).await.unwrap().is_none(), "put to wait twice");
    fleet.clock.advance(HOUR / 2);
    assert_eq!(admin.carry_out_erasure("acme", &erasure.id, &gently()).await.unwrap().done, 3);
    let mut opened = Vec::new();
    for sealed in &sealed {
        opened.push(scope.open(&[], sealed).await.is_ok());
    }
    assert_eq!(opened, [false, false, false, true, true, true]);
    let forever = Fleet::new().await;
    let refused = forever.node.admin("a test", "to test").unwrap().apply_retention("acme", HOUR, &gently()).await;
    assert_eq!(kind(refused), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn a_key_is_retired_only_on_proof() {
    let fleet = Fleet::new().await;
    let scope = channel(&fleet.node, "C9").await;
    let old = scope.seal(&[], b"old").await.unwrap();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let id = key_id(&old);
    let retire = async |census| admin.retire("acme", &[id], &census, HOUR).await;
    assert_eq!(kind(retire(admin.census()).await), ErrorKind::Conflict, "it is Active");
    admin.rotate("acme", &[("channel", "C9")]).await.unwrap();
    assert_eq!(kind(retire(admin.census()).await), ErrorKind::Conflict, "a node may still seal under it");
    fleet.clock.advance(Duration::from_secs(300));
    let mut census = admin.census();
    census.add(&old).unwrap();
    let refused = retire(census).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Conflict && refused.to_string().contains("1 envelopes"), "{refused}");
    let new = scope.reseal(&[], &old).await.unwrap().unwrap();
    let mut census = admin.census();
    census.add(&new).unwrap();
    let erasure = retire(census).await.unwrap();
    fleet.clock.advance(HOUR);
    admin.carry_out_erasure("acme", &erasure.id, &gently()).await.unwrap();
    assert_eq!(fleet.record(&old).await.state, KeyState::Destroyed);
    assert_eq!(&*scope.open(&[], &new).await.unwrap(), b"old");
    assert_eq!(kind(scope.open(&[], &old).await), ErrorKind::Erased);
    let unknown = strongroom::KeyId::from_bytes([1; 32]);
    assert_eq!(kind(admin.retire("acme", &[unknown], &admin.census(), HOUR).await), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn force_is_another_call_and_spares_the_active_key_all_the_same() {
    let fleet = Fleet::new().await;
    let scope = channel(&fleet.node, "C9").await;
    let old = scope.seal(&[], b"old").await.unwrap();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let force = async || admin.force_retire_losing_data("acme", &[key_id(&old)], Duration::ZERO).await;
    assert_eq!(kind(force().await), ErrorKind::Conflict);
    admin.rotate("acme", &[("channel", "C9")]).await.unwrap();
    let erasure = force().await.unwrap();
    admin.carry_out_erasure("acme", &erasure.id, &gently()).await.unwrap();
    assert_eq!(kind(scope.open(&[], &old).await), ErrorKind::Erased);
    scope.seal(&[], b"new").await.unwrap();
}
