use std::time::Duration;

use strongroom::{ErrorKind, Header, Selector};

use crate::reseal::Table;
use crate::{EU, Fleet, US, WRITERS, channel, gently, kind, region};

#[tokio::test]
async fn a_tenant_moves_and_at_every_moment_everything_opens() {
    let fleet = Fleet::new().await;
    let table = Table::default();
    for n in 0..7 {
        table.seal(&fleet.node, &format!("C{}", n % 3), n).await;
    }
    let handle = channel(&fleet.other, "C1").await;
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let home = fleet.kek("acme-us", US);
    assert_eq!(kind(admin.rewrap("acme", &home, &gently()).await), ErrorKind::Region, "not allowed there yet");
    admin.migrate_region("acme", region(US), &home, &gently()).await.unwrap();
    table.all_open(&fleet).await;
    fleet.local.disable_kek("acme").unwrap();
    fleet.settle();
    table.all_open(&fleet).await;
    let sealed = handle.seal(&[("message", "new")], b"new").await.unwrap();
    assert_eq!(Header::parse(&sealed).unwrap().region(), US, "a handle from before seals in the new region");

    let report = admin.residency("acme", &table.census()).await.unwrap();
    assert!(report.is_clean());
    assert_eq!(report.rows.iter().map(|r| r.envelopes).sum::<u64>(), 7);
    let cutoff = admin.cutoff("acme").await.unwrap();
    assert_eq!(kind(admin.census(&cutoff)), ErrorKind::Conflict, "writers may be under way");
    fleet.clock.advance(WRITERS);
    let early = table.proof(&admin, &cutoff);
    assert_eq!(kind(admin.finish_migration("acme", &region(EU), &early).await), ErrorKind::Conflict);
    let resealed = admin.reseal("acme", &table, None, &gently(), |_| {}).await.unwrap();
    assert_eq!((resealed.seen, resealed.resealed, resealed.failed), (7, 7, 0));
    table.all_open(&fleet).await;
    let walked = admin.rotate_all("acme", Selector::everything(), &gently()).await.unwrap();
    assert_eq!(walked.done, 3);
    let cutoff = admin.cutoff("acme").await.unwrap();
    fleet.clock.advance(WRITERS);
    let census = table.proof(&admin, &cutoff);
    assert_eq!((census.in_region(&region(EU)), census.in_region(&region(US))), (0, 7));
    admin.finish_migration("acme", &region(EU), &census).await.unwrap();
    fleet.settle();
    table.all_open(&fleet).await;
    assert_eq!(kind(admin.finish_migration("acme", &region(US), &census).await), ErrorKind::InvalidArgument);
    admin.finish_migration("acme", &region(EU), &census).await.unwrap(); // found done
    let left = admin.residency("acme", &table.census()).await.unwrap();
    assert_eq!(left.misplaced_keys.len(), 3, "{left}");
    let erasure = admin.retire("acme", &left.misplaced_keys, &census, Duration::ZERO).await.unwrap();
    admin.carry_out_erasure("acme", &erasure.id, &gently()).await.unwrap();
    let report = admin.residency("acme", &table.census()).await.unwrap();
    assert!(report.is_clean(), "{report}");
    fleet.settle();
    table.all_open(&fleet).await;
}

#[tokio::test]
async fn what_is_misplaced_is_named_and_does_not_open() {
    let fleet = Fleet::new().await;
    let table = Table::default();
    for n in 0..4 {
        table.seal(&fleet.node, "C1", n).await;
    }
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let home = fleet.kek("acme-us", US);
    admin.migrate_region("acme", region(US), &home, &gently()).await.unwrap();
    // Nobody resealed, and the operator insists.
    let cutoff = admin.cutoff("acme").await.unwrap();
    fleet.clock.advance(WRITERS);
    let nothing = admin.census(&cutoff).unwrap().complete_without_envelopes().unwrap();
    admin.finish_migration("acme", &region(EU), &nothing).await.unwrap();
    fleet.settle();
    let row = table.rows()[0].clone();
    let context = [("message", row.id.as_str())];
    for node in [&fleet.node, &fleet.other] {
        let refused = channel(node, "C1").await.open(&context, &row.envelope).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Region, "{refused}");
    }
    let mut census = table.census();
    census.add(&[&[0xF5, 1, 2][..], b"xx", &[9; 32]].concat()).unwrap();
    let report = admin.residency("acme", &census).await.unwrap();
    assert!(!report.is_clean());
    assert_eq!(report.misplaced_keys.len(), 1);
    assert_eq!(report.misplaced_envelopes.values().sum::<u64>(), 5);
    assert_eq!(report.foreign_envelopes, 1);
    let table = report.to_string();
    assert!(table.contains("MISPLACED: 4 envelopes in eu-central-1") && table.contains("FOREIGN: 1"), "{table}");
    let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!(json["misplaced_envelopes"]["eu-central-1"], 4);
    // Undone: allowed again, it opens again.
    crate::set_policy(&admin, |p| p.allow_region(region(EU))).await.unwrap();
    channel(&fleet.other, "C1").await.open(&context, &row.envelope).await.unwrap();
}
