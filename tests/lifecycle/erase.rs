use std::time::Duration;

use strongroom::testing::Failpoints;
use strongroom::{Ed25519Signer, Error, ErrorKind, KeyState, Period, RowKey, Selector, SignedReceipt, Strongroom};

use crate::{DAY, EU, Fleet, HOUR, NOW, WRITERS, channel, gently, key_id, kind};

fn signer() -> Ed25519Signer {
    Ed25519Signer::from_seed(&mut b"thirty-two bytes of the operator".to_owned()).unwrap()
}

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
    assert_eq!(kind(admin.undo_erasure("acme", &erasure.id).await), ErrorKind::Conflict);
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
    let signer = signer();
    let signed = admin.receipt("acme", this, 30 * DAY, &signer).await.unwrap();
    let receipt = SignedReceipt::from_json(&signed.to_json().unwrap()).unwrap().verify(&signer.public_key()).unwrap();
    let erased_at = NOW + 24 * 3_600_000;
    assert_eq!(receipt.erased.len(), 1);
    assert_eq!((receipt.erased[0].key_id, receipt.erased[0].erased_at), (key_id(&sealed), erased_at));
    assert_eq!(receipt.caches_clear_at, erased_at + 300_000);
    assert_eq!(receipt.backups_clear_at, erased_at + 30 * 24 * 3_600_000);
    assert_eq!(receipt.epoch, admin.tenant("acme").await.unwrap().epoch);
}

/// The wrapped bytes are in the store again, or were hidden from the erasure: whatever it did, they are not gone.
#[tokio::test]
async fn no_receipt_is_issued_of_what_is_not_gone() {
    let fleet = Fleet::new().await;
    let sealed = channel(&fleet.node, "C9").await.seal(&[], b"x").await.unwrap();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let this = Selector::fields([("channel", "C9")]);
    let receipt = async || admin.receipt("acme", this.clone(), DAY, &signer()).await;
    assert_eq!(kind(receipt().await), ErrorKind::Conflict, "nothing was erased");
    let row = RowKey::Key("acme".parse().unwrap(), key_id(&sealed));
    let (_, active, index) = fleet.store.raw_rows().into_iter().find(|(key, ..)| *key == row).unwrap();
    let erasure = admin.erase("acme", this.clone(), Duration::ZERO).await.unwrap();
    assert_eq!(kind(receipt().await), ErrorKind::Conflict, "it waits");
    admin.carry_out_erasure("acme", &erasure.id, &gently()).await.unwrap();
    let (_, destroyed, index_of_destroyed) = fleet.store.raw_rows().into_iter().find(|(key, ..)| *key == row).unwrap();
    fleet.store.raw_put(&row, Some(active), index);
    let refused = receipt().await.unwrap_err();
    assert!(
        refused.kind() == ErrorKind::Conflict && refused.to_string().contains("wrapped bytes of 1 keys"),
        "{refused}"
    );
    fleet.store.raw_put(&row, Some(destroyed), index_of_destroyed);
    assert!(receipt().await.is_ok());
    let more = admin.receipt("acme", Selector::everything(), DAY, &signer()).await;
    assert_eq!(kind(more), ErrorKind::Conflict, "more than was erased");
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
    let [erasure] = crate::retained(&admin, HOUR / 2).await.unwrap().try_into().unwrap();
    assert_eq!(crate::retained(&admin, HOUR / 2).await.unwrap(), [], "put to wait twice");
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
    let census = async |envelope: &[u8], active: bool| {
        let cutoff = admin.cutoff("acme").await.unwrap();
        assert_eq!(cutoff.is_closed(&id), !active);
        if active {
            admin.rotate("acme", &[("channel", "C9")]).await.unwrap();
        }
        fleet.clock.advance(WRITERS);
        let mut census = admin.census(&cutoff).unwrap();
        census.add(envelope).unwrap();
        census.complete().unwrap()
    };
    let retire = async |census| admin.retire("acme", &[id], &census, HOUR).await;
    // Nothing that is counted refers to the key: what keeps it is that it was Active at the cutoff.
    let elsewhere = channel(&fleet.node, "C8").await.seal(&[], b"x").await.unwrap();
    let refused = retire(census(&elsewhere, true).await).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Conflict && refused.to_string().contains("cutoff"), "{refused}");
    let refused = retire(census(&old, false).await).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Conflict && refused.to_string().contains("1 envelopes"), "{refused}");
    let new = scope.reseal(&[], &old).await.unwrap().unwrap();
    let proof = census(&new, false).await;
    let refused = admin.retire("acme", &[key_id(&new)], &proof, HOUR).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::Conflict && refused.to_string().contains("is Active"), "{refused}");
    let erasure = retire(proof.clone()).await.unwrap();
    fleet.clock.advance(HOUR);
    admin.carry_out_erasure("acme", &erasure.id, &gently()).await.unwrap();
    assert_eq!(fleet.record(&old).await.state, KeyState::Destroyed);
    assert_eq!(&*scope.open(&[], &new).await.unwrap(), b"old");
    assert_eq!(kind(scope.open(&[], &old).await), ErrorKind::Erased);
    let unknown = strongroom::KeyId::from_bytes([1; 32]);
    assert_eq!(kind(admin.retire("acme", &[unknown], &proof, HOUR).await), ErrorKind::InvalidArgument);
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

#[tokio::test]
async fn undoing_one_run_of_retention_leaves_no_other_over_its_keys() {
    let fleet = Fleet::with(|p| p.period(Period::Hour).retain_for(3 * HOUR)).await;
    let scope = channel(&fleet.node, "C9").await;
    let mut sealed = Vec::new();
    let mut runs = Vec::new();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    for _ in 0..8 {
        sealed.push(scope.seal(&[], b"x").await.unwrap());
        fleet.clock.advance(HOUR);
        runs.extend(crate::retained(&admin, 10 * HOUR).await.unwrap());
    }
    // It is 13:17; each hour since 09:17 one more had ended three hours ago.
    assert_eq!(runs.len(), 5);
    admin.undo_erasure("acme", &runs[1].id).await.unwrap();
    let open = async || {
        let mut opened = Vec::new();
        for sealed in &sealed {
            opened.push(scope.open(&[], sealed).await.is_ok());
        }
        opened
    };
    assert_eq!(open().await, [false, true, false, false, false, true, true, true]);
    fleet.clock.advance(20 * HOUR);
    for run in [0, 2, 3, 4] {
        assert_eq!(admin.carry_out_erasure("acme", &runs[run].id, &gently()).await.unwrap().done, 1);
    }
    assert_eq!(open().await, [false, true, false, false, false, true, true, true]);
    // The policy still says what it says: the next run finds what was spared, and what was not due.
    let next = crate::retained(&admin, HOUR).await.unwrap();
    assert_eq!(open().await, [false; 8]);
    let again = crate::retained(&admin, HOUR).await.unwrap();
    assert!(!next.is_empty() && again.is_empty(), "{next:?} {again:?}");
}

#[tokio::test]
async fn retention_reaches_keys_of_an_earlier_kind_of_period() {
    let fleet = Fleet::with(|p| p.period(Period::Hour).retain_for(30 * DAY)).await;
    let scope = channel(&fleet.node, "C9").await;
    let hourly = scope.seal(&[], b"x").await.unwrap();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    crate::set_policy(&admin, |p| p.period(Period::Day)).await.unwrap();
    let daily = scope.seal(&[], b"x").await.unwrap();
    fleet.clock.advance(400 * DAY);
    let kept = scope.seal(&[], b"x").await.unwrap();
    let erasures = crate::retained(&admin, HOUR).await.unwrap();
    fleet.clock.advance(HOUR);
    for erasure in erasures {
        admin.carry_out_erasure("acme", &erasure.id, &gently()).await.unwrap();
    }
    for old in [&hourly, &daily] {
        assert_eq!(kind(scope.open(&[], old).await), ErrorKind::Erased);
    }
    scope.open(&[], &kept).await.unwrap();
}

/// Hourly periods and a wait of 60 days were 1 440 erasures that wait, and the tenant's own found no room.
#[tokio::test]
async fn retention_leaves_room_for_the_tenants_own_erasures() {
    let fleet = Fleet::with(|p| p.period(Period::Hour).retain_for(HOUR)).await;
    let scope = channel(&fleet.node, "C9").await;
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let mut sealed = Vec::new();
    for _ in 0..24 {
        sealed.push(scope.seal(&[], b"x").await.unwrap());
        fleet.clock.advance(HOUR);
        crate::retained(&admin, 60 * DAY).await.unwrap();
    }
    // A 256th of the wait is some six hours.
    let waiting = admin.tenant("acme").await.unwrap().erasures.len();
    assert!((2..=5).contains(&waiting), "{waiting} wait after a day");
    let mut open = 0;
    for sealed in &sealed {
        open += usize::from(scope.open(&[], sealed).await.is_ok());
    }
    assert!((1..=8).contains(&open), "{open} of 24 hours still open");
}

#[tokio::test]
async fn an_erasure_that_is_asked_for_again_is_the_one_that_waits() {
    let fleet = Fleet::new().await;
    let scope = channel(&fleet.node, "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    let this = Selector::fields([("channel", "C9")]);
    // The first time the answer to the commit is lost.
    let lost = std::sync::atomic::AtomicBool::new(false);
    let store = Failpoints::new(std::sync::Arc::clone(&fleet.store), move |point| {
        if point == "store.put.tenant.after" && !lost.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "the answer is lost"));
        }
        Ok(())
    });
    let builder = Strongroom::builder().serving([EU]).key_store(store).kms(fleet.kms.clone());
    let node = builder.clock(fleet.clock.clone()).open_under(&fleet.operator).await;
    let admin = node.admin("a test", "to test").unwrap();
    assert_eq!(kind(admin.erase("acme", this.clone(), DAY).await), ErrorKind::Unavailable);
    let erasure = admin.erase("acme", this.clone(), DAY).await.unwrap();
    assert_eq!(admin.tenant("acme").await.unwrap().erasures, std::slice::from_ref(&erasure));
    admin.undo_erasure("acme", &erasure.id).await.unwrap();
    scope.open(&[], &sealed).await.unwrap();
    // Another wait is another wish.
    let (soon, late) =
        (admin.erase("acme", this.clone(), HOUR).await.unwrap(), admin.erase("acme", this, DAY).await.unwrap());
    assert_ne!(soon.id, late.id);
}

#[tokio::test]
async fn what_was_undone_lifted_or_carried_out_already_is_found_done() {
    let fleet = Fleet::new().await;
    let scope = channel(&fleet.node, "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let (this, other) = (Selector::fields([("channel", "C9")]), Selector::fields([("channel", "C8")]));
    let undone = admin.erase("acme", this.clone(), DAY).await.unwrap().id;
    admin.revoke("acme", this.clone()).await.unwrap();
    admin.suspend_opens("acme", this.clone(), NOW + 60_000).await.unwrap();
    for _ in 0..2 {
        admin.undo_erasure("acme", &undone).await.unwrap();
        admin.restore("acme", this.clone()).await.unwrap();
        admin.resume_opens("acme", this.clone()).await.unwrap();
    }
    scope.open(&[], &sealed).await.unwrap();
    let epoch = admin.tenant("acme").await.unwrap().epoch;
    assert_eq!(kind(admin.restore("acme", other.clone()).await), ErrorKind::InvalidArgument);
    assert_eq!(kind(admin.resume_opens("acme", other).await), ErrorKind::InvalidArgument);
    assert_eq!(kind(admin.undo_erasure("acme", "0123456789abcdef").await), ErrorKind::InvalidArgument);
    assert_eq!(kind(admin.carry_out_erasure("acme", &undone, &gently()).await), ErrorKind::InvalidArgument);
    assert_eq!(admin.tenant("acme").await.unwrap().epoch, epoch);
    let erasure = admin.erase("acme", this, Duration::ZERO).await.unwrap();
    for _ in 0..2 {
        assert_eq!(admin.carry_out_erasure("acme", &erasure.id, &gently()).await.unwrap().done, 1);
    }
    assert_eq!(kind(admin.undo_erasure("acme", &erasure.id).await), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_receipt_states_no_more_than_was_carried_out() {
    let fleet = Fleet::new().await;
    for name in ["C7", "C8", "C9"] {
        channel(&fleet.node, name).await.seal(&[], b"x").await.unwrap();
    }
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let this = Selector::fields([("channel", "C9")]);
    let erasure = admin.erase("acme", this.clone(), DAY).await.unwrap();
    let signer = signer();
    let receipt = async |selector: Selector| admin.receipt("acme", selector, DAY, &signer).await;
    assert_eq!(kind(receipt(this.clone()).await), ErrorKind::Conflict, "it waits");
    fleet.clock.advance(DAY);
    admin.carry_out_erasure("acme", &erasure.id, &gently()).await.unwrap();
    for more in [Selector::everything(), Selector::fields([("channel", "C8")])] {
        assert_eq!(kind(receipt(more).await), ErrorKind::Conflict);
    }
    for nothing in [Selector::fields([("chanel", "C9")]), Selector::fields::<&str, &str>([])] {
        assert_eq!(kind(receipt(nothing).await), ErrorKind::InvalidArgument);
    }
    // What was sealed since is stated, and no part of what is gone.
    channel(&fleet.node, "C9").await.seal(&[], b"since").await.unwrap();
    let stated = receipt(this).await.unwrap().verify(&signer.public_key()).unwrap();
    assert_eq!((stated.erased.len(), stated.made_since, stated.unreadable), (1, 1, 0));
    assert_eq!(stated.made_before_epoch, stated.epoch);
}

/// DSSE 1.0.2: Base64 may be URL-safe, `keyid` is optional, and what is not known is ignored.
#[tokio::test]
async fn a_receipt_is_read_as_others_write_the_envelope() {
    let fleet = Fleet::new().await;
    let scope = channel(&fleet.node, "C9").await;
    scope.seal(&[], b"x").await.unwrap();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let erasure = admin.erase("acme", Selector::everything(), Duration::ZERO).await.unwrap();
    admin.carry_out_erasure("acme", &erasure.id, &gently()).await.unwrap();
    let signer = signer();
    let signed = admin.receipt("acme", Selector::everything(), DAY, &signer).await.unwrap();
    let receipt = signed.verify(&signer.public_key()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&signed.to_json().unwrap()).unwrap();
    let read = |json: &serde_json::Value| {
        SignedReceipt::from_json(&json.to_string()).and_then(|signed| signed.verify(&signer.public_key()))
    };
    let mut other = json.clone();
    other["signatures"][0].as_object_mut().unwrap().remove("keyid");
    assert_eq!(read(&other).unwrap(), receipt, "without a key id");
    other["mediaType"] = "x".into();
    other["signatures"][0]["cert"] = "x".into();
    assert_eq!(read(&other).unwrap(), receipt, "with more than is known");
    for text in ["payload", "sig"] {
        let mut of = other.clone();
        let at = if text == "sig" { &mut of["signatures"][0]["sig"] } else { &mut of["payload"] };
        *at = at.as_str().unwrap().replace('+', "-").replace('/', "_").into();
        assert_eq!(read(&of).unwrap(), receipt, "URL-safe {text}");
    }
    other["payload"] = "*".into();
    assert!(read(&other).is_err());
}

#[test]
fn a_seed_of_equal_bytes_is_no_key() {
    for byte in [0, 5, 0xFF] {
        assert!(Ed25519Signer::from_seed(&mut [byte; 32]).is_err(), "{byte}");
    }
}
