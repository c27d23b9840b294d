//! What a preview counts is what a revocation then hits.

use strongroom::testing::Operator;
use strongroom::{ErrorKind, LocalKms, MemoryKeyStore, Period, PeriodLabel, Selector, Strongroom, TenantPolicy};

use crate::records::{CHANNELS, NOW, recorded, region};

#[tokio::test]
async fn a_preview_counts_what_a_revocation_hits() {
    let (room, records) = recorded(Period::Hour, 4).await;
    let admin = room.admin("a test", "to test").unwrap();
    let (first, last) =
        (PeriodLabel::new("hour=2026-11-22T06Z").unwrap(), PeriodLabel::new("hour=2026-11-22T07Z").unwrap());
    let selector = Selector::fields([("channel", "C1")]).from(first.clone()).to(last.clone());
    let preview = admin.preview("acme", &selector).await.unwrap();
    let records = records.len() as u64;
    assert_eq!((preview.covered, preview.records, preview.revoked), (2, records, 0));
    assert_eq!((preview.rows.len(), preview.rows[0].keys, preview.keys.len()), (1, 2, 2));
    assert_eq!((preview.rows[0].first.as_ref(), preview.rows[0].last.as_ref()), (Some(&first), Some(&last)));
    assert!(!preview.covers_new, "those hours are over");
    let table = preview.to_string();
    assert!(
        table.contains("2 of 32 data keys") && table.contains("hour=2026-11-22T06Z to hour=2026-11-22T07Z"),
        "{table}"
    );
    let json: serde_json::Value = serde_json::from_str(&preview.to_json().unwrap()).unwrap();
    assert_eq!((json["covered"].as_u64(), json["rows"][0]["state"].as_str()), (Some(2), Some("active")));

    admin.revoke("acme", selector).await.unwrap();
    let everything = admin.preview("acme", &Selector::everything()).await.unwrap();
    assert_eq!((everything.covered, everything.revoked, everything.covers_new), (records, 2, true));
    assert_eq!(everything.rows.len(), CHANNELS.len() + 1, "what is revoked of C1 is a row of its own: suspended");
    assert_eq!(everything.at, NOW + 4 * 3_600_000);
    let by_id = admin.preview("acme", &Selector::keys(preview.keys)).await.unwrap();
    assert_eq!((by_id.covered, by_id.covers_new), (2, false));
    let since = Selector::everything().from(last);
    assert!(admin.preview("acme", &since).await.unwrap().covers_new);
    let wrong = admin.preview("acme", &Selector::fields([("chanel", "C1")])).await;
    assert_eq!(wrong.unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn a_preview_shows_its_first_hundred_rows_whole_and_counts_the_rest() {
    let kms = LocalKms::in_memory();
    let kek = kms.create_kek("acme", region("eu-central-1")).unwrap();
    let builder = Strongroom::builder().serving(["eu-central-1"]).key_store(MemoryKeyStore::default()).kms(kms);
    let room = builder.open_under(&Operator::default()).await;
    let admin = room.admin("a test", "to test").unwrap();
    let policy = TenantPolicy::new(kek, region("eu-central-1")).scope_by(["channel"]);
    admin.enroll("acme", policy).await.unwrap();
    // One key that seals and two that no longer do for each channel. The store gives them by their ids, which are random.
    let channels: Vec<_> = (0..60).map(|n| format!("C{n:02}")).collect();
    for channel in &channels {
        for _ in 0..3 {
            admin.rotate("acme", &[("channel", channel)]).await.unwrap();
        }
    }
    let preview = admin.preview("acme", &Selector::everything()).await.unwrap();
    let shown: Vec<_> = preview.rows.iter().map(|row| (row.scope.as_str(), row.state, row.keys)).collect();
    let scopes: Vec<_> = channels.iter().map(|channel| format!("channel={channel:?}")).collect();
    let states = [preview.rows[0].state, preview.rows[1].state];
    let keys = states.map(|state| if state == "active" { 1 } else { 2 });
    let expected: Vec<_> =
        scopes.iter().take(50).flat_map(|scope| [0, 1].map(|i| (scope.as_str(), states[i], keys[i]))).collect();
    assert_eq!(shown, expected);
    assert!(states.contains(&"active"), "{states:?}");
    assert_eq!((preview.covered, preview.more_keys), (180, 30));
    assert!(preview.to_string().contains("and 30 keys of other scopes and states"), "{preview}");
}
