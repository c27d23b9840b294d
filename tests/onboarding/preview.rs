//! What a preview counts is what a revocation then hits.

use strongroom::{ErrorKind, Period, PeriodLabel, Selector};

use crate::records::{CHANNELS, NOW, recorded};

#[tokio::test]
async fn a_preview_counts_what_a_revocation_hits() {
    let (room, records) = recorded(Period::Hour, 4).await;
    let admin = room.admin();
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
    assert_eq!(everything.rows.len(), CHANNELS.len());
    assert_eq!(everything.at, NOW + 4 * 3_600_000);
    let by_id = admin.preview("acme", &Selector::keys(preview.keys)).await.unwrap();
    assert_eq!((by_id.covered, by_id.covers_new), (2, false));
    let since = Selector::everything().from(last);
    assert!(admin.preview("acme", &since).await.unwrap().covers_new);
    let wrong = admin.preview("acme", &Selector::fields([("chanel", "C1")])).await;
    assert_eq!(wrong.unwrap_err().kind(), ErrorKind::InvalidArgument);
}
