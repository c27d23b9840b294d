//! The procedures of README.md's table of the life cycle, each to its end.

use std::time::Duration;

use strongroom::{
    Census, Ed25519Signer, ErrorKind, ExportTo, ExportedKey, Header, KeyState, Period, Selector, SignedReceipt,
};

use crate::reseal::Table;
use crate::{DAY, EU, Fleet, HOUR, US, WRITERS, channel, gently, key_id, kind, region};

/// README.md, as it is read.
const README: &str = include_str!("../../README.md");

/// The calls that a row of README.md's table names, in their order.
#[track_caller]
fn row(wanted: &str) -> &'static str {
    let rows = README.lines().filter(|line| line.starts_with("| "));
    rows.map(|row| row.trim_start_matches("| ")).find(|row| row.starts_with(wanted)).unwrap()
}

#[track_caller]
fn names_in_order(row: &str, calls: &[&str]) {
    let mut rest = row;
    for call in calls {
        let at =
            rest.find(&format!("`{call}`")).unwrap_or_else(|| panic!("{call} is missing, or elsewhere, in: {row}"));
        rest = &rest[at..];
    }
}

/// A tenant moves, by the calls of the row and no others, and the report is clean at the end.
#[tokio::test]
async fn to_move_to_another_region() {
    let calls = [
        "migrate_region",
        "reseal",
        "rotate_all",
        "cutoff",
        "census",
        "finish_migration",
        "retire",
        "carry_out_erasure",
    ];
    names_in_order(row("to move to another region"), &[&calls[..], &["residency"]].concat());
    let fleet = Fleet::with(|p| p.period(Period::Hour)).await;
    let table = Table::default();
    for n in 0..7 {
        table.seal(&fleet.node, &format!("C{}", n % 3), n).await;
        fleet.clock.advance(HOUR / 2);
    }
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let home = fleet.kek("acme-us", US);
    admin.migrate_region("acme", region(US), &home, &gently()).await.unwrap();
    table.seal(&fleet.other, "C1", 7).await;
    admin.reseal("acme", &table, None, &gently(), |_| {}).await.unwrap();
    admin.rotate_all("acme", Selector::everything(), &gently()).await.unwrap();
    table.seal(&fleet.other, "C1", 8).await;
    let cutoff = admin.cutoff("acme").await.unwrap();
    fleet.clock.advance(WRITERS);
    let census = table.proof(&admin, &cutoff);
    admin.finish_migration("acme", &region(EU), &census).await.unwrap();
    let keys = admin.keys("acme", None, 1000).await.unwrap().keys;
    let old: Vec<_> = keys.iter().filter(|key| key.region == region(EU)).map(|key| key.key_id).collect();
    let erasure = admin.retire("acme", &old, &census, HOUR).await.unwrap();
    let waiting = admin.residency("acme", &table.census()).await.unwrap();
    assert_eq!(waiting.misplaced_keys.len(), old.len(), "as long as they wait, they are there: {waiting}");
    fleet.clock.advance(HOUR);
    admin.carry_out_erasure("acme", &erasure.id, &gently()).await.unwrap();
    let report = admin.residency("acme", &table.census()).await.unwrap();
    assert!(report.is_clean() && !report.to_string().contains("MISPLACED"), "{report}");
    fleet.settle();
    table.all_open(&fleet).await;
    // And when nothing but the rules is left of the old keys, too.
    fleet.clock.advance(DAY);
    admin.remove_destroyed("acme", DAY, &gently()).await.unwrap();
    assert!(admin.keys("acme", None, 1000).await.unwrap().keys.iter().all(|key| key.region == region(US)));
    assert!(admin.residency("acme", &table.census()).await.unwrap().is_clean());
    admin.finish_migration("acme", &region(EU), &census).await.unwrap(); // found done
    table.all_open(&fleet).await;
}

#[tokio::test]
async fn something_gone_for_good() {
    names_in_order(
        row("something gone for good"),
        &["erase", "undo_erasure", "carry_out_erasure", "apply_retention", "receipt", "remove_destroyed"],
    );
    let fleet = Fleet::with(|p| p.period(Period::Hour).retain_for(HOUR)).await;
    let scope = channel(&fleet.node, "C9").await;
    let sealed = scope.seal(&[], b"x").await.unwrap();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let this = Selector::fields([("channel", "C9")]);
    let waits = admin.erase("acme", this, DAY).await.unwrap();
    admin.undo_erasure("acme", &waits.id).await.unwrap();
    scope.open(&[], &sealed).await.unwrap();
    fleet.clock.advance(3 * HOUR);
    let [due] = admin.apply_retention("acme", HOUR, &gently()).await.unwrap().try_into().unwrap();
    assert_ne!(fleet.record(&sealed).await.state, KeyState::Destroyed, "retention puts to wait, and erases nothing");
    assert_eq!(kind(scope.open(&[], &sealed).await), ErrorKind::Revoked);
    fleet.clock.advance(HOUR);
    admin.carry_out_erasure("acme", &due.id, &gently()).await.unwrap();
    let signer = Ed25519Signer::from_seed(&mut b"thirty-two bytes of the operator".to_owned()).unwrap();
    let receipt = admin.receipt("acme", due.selector.clone(), DAY, &signer).await.unwrap().to_json().unwrap();
    fleet.clock.advance(DAY);
    assert_eq!(admin.remove_destroyed("acme", DAY, &gently()).await.unwrap().done, 1);
    assert_eq!(fleet.records().await, []);
    let stated = SignedReceipt::from_json(&receipt).unwrap().verify(&signer.public_key()).unwrap();
    assert_eq!(stated.erased[0].key_id, key_id(&sealed), "what was signed stays signed");
    // A later one names no more what the store lists no more, and the journal still does.
    let later = admin.receipt("acme", due.selector, DAY, &signer).await.unwrap().verify(&signer.public_key()).unwrap();
    assert_eq!((later.erased.len(), later.made_before_epoch), (0, stated.made_before_epoch));
    let journal = admin.journal("acme").await.unwrap();
    assert!(journal.iter().any(|e| e.decision.verb == "remove-destroyed" && e.decision.keys == [key_id(&sealed)]));
}

#[tokio::test]
async fn old_keys_gone_that_nothing_needs() {
    names_in_order(
        row("old keys gone that nothing needs"),
        &["cutoff", "census", "retire", "carry_out_erasure", "force_retire_losing_data"],
    );
    let fleet = Fleet::new().await;
    let table = Table::default();
    for n in 0..4 {
        table.seal(&fleet.node, "C1", n).await;
    }
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let old = fleet.records().await[0].key_id;
    admin.rotate("acme", &[("channel", "C1")]).await.unwrap();
    admin.reseal("acme", &table, None, &gently(), |_| {}).await.unwrap();
    let cutoff = admin.cutoff("acme").await.unwrap();
    fleet.clock.advance(WRITERS);
    let census = table.proof(&admin, &cutoff);
    let erasure = admin.retire("acme", &[old], &census, Duration::ZERO).await.unwrap();
    admin.carry_out_erasure("acme", &erasure.id, &gently()).await.unwrap();
    table.all_open(&fleet).await;
    assert!(admin.residency("acme", &table.census()).await.unwrap().is_clean());
}

/// What is exported is JSON that reads back, and opens what its key sealed.
#[tokio::test]
async fn to_leave() {
    names_in_order(row("to leave"), &["rewrap", "export"]);
    let fleet = Fleet::new().await;
    let sealed = channel(&fleet.node, "C9").await.seal(&[], b"x").await.unwrap();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let mut exported = Vec::new();
    let to = ExportTo::Foreign(fleet.kek("theirs", EU));
    let sink = |key: ExportedKey| {
        exported.push((key.to_json()?, key));
        Ok(())
    };
    admin.export("acme", to, &gently(), sink).await.unwrap();
    let [(json, key)] = exported.try_into().unwrap();
    assert_eq!(ExportedKey::from_json(&json).unwrap(), key);
    assert_eq!((key.key_id, Header::parse(&sealed).unwrap().suite().byte()), (key_id(&sealed), key.suite));
    let laxer = [
        json.replacen('{', r#"{"more":1,"#, 1),
        json.replacen('{', r#"{"suite":1,"#, 1),
        json.replacen(r#""suite":1"#, r#""suite":3"#, 1),
        json.replacen(&key.wrapped, &key.wrapped.to_uppercase(), 1),
        json.replacen(&format!(r#","wrapped":"{}""#, key.wrapped), "", 1),
        format!("[{json}]"),
    ];
    for bad in laxer {
        assert_eq!(kind(ExportedKey::from_json(&bad)), ErrorKind::Malformed, "{bad}");
    }
    admin.rewrap("acme", &fleet.kek("their-own", EU), &gently()).await.unwrap();
    channel(&fleet.other, "C9").await.open(&[], &sealed).await.unwrap();
    let report = admin.residency("acme", &Census::begin(0)).await.unwrap();
    assert!(!report.is_clean() && report.to_string().contains("FOREIGN EXPORT"), "{report}");
}
