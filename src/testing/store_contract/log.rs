//! The log of changes.

use super::{stored, tenant, write};
use crate::store::KeyStore;
use crate::store::row::{Log, Put, RowKey};

/// An entry that says its number.
fn say(number: u64) -> Vec<u8> {
    format!("entry {number}").into_bytes()
}

async fn read(store: &dyn KeyStore, after: u64, limit: u32) -> Log {
    store.log(Some(after), limit).await.unwrap()
}

pub(super) async fn entries(store: &dyn KeyStore) {
    let start = store.log(None, 10).await.unwrap();
    assert_eq!(start.entries, [], "contract broken: entries that nobody asked for");
    assert_eq!(read(store, start.end, 10).await, start, "contract broken: nothing new, and the same store");
    let row = RowKey::Tenant(tenant("logged"));
    let with_row = store.put(&[write(&row, None, b"1")], Some(&say)).await.unwrap();
    assert_eq!(with_row, Put::Written(Some(start.end + 1)), "contract broken: the number of an entry with a row");
    assert_eq!(stored(store, &row).await.as_deref(), Some(&b"1"[..]), "contract broken: the row of an entry");
    assert_eq!(
        store.put(&[], Some(&say)).await.unwrap(),
        Put::Written(Some(start.end + 2)),
        "contract broken: numbers"
    );
    assert_eq!(store.put(&[write(&row, Some(b"1"), b"2")], None).await.unwrap(), Put::Written(None));
    let all: Vec<u8> = (0..=u8::MAX).cycle().take(70_000).collect();
    for entry in [&all[..], b""] {
        assert!(matches!(store.put(&[], Some(&|_| entry.to_vec())).await.unwrap(), Put::Written(Some(_))));
    }
    let (one, two, three, four) = (start.end + 1, start.end + 2, start.end + 3, start.end + 4);
    let written = [(one, say(one)), (two, say(two)), (three, all), (four, Vec::new())];
    let log = read(store, start.end, 10).await;
    assert_eq!(log.entries, written, "contract broken: entries in the order of their numbers, as they were made");
    assert_eq!(log.end, four, "contract broken: the log's end");
    assert_eq!(log.store, start.store, "contract broken: the same store has two identities");
    let earliest = read(store, start.end, 2).await;
    assert_eq!((earliest.entries.as_slice(), earliest.end), (&written[..2], four), "contract broken: the earliest");
    assert_eq!(read(store, two, 1).await.entries, written[2..3], "contract broken: entries after a number");
    assert_eq!(store.log(None, 10).await.unwrap(), Log { entries: Vec::new(), ..log.clone() });
    for after in [four, four + 1, u64::MAX] {
        let nothing = read(store, after, 10).await;
        assert_eq!(nothing, Log { entries: Vec::new(), ..log.clone() }, "contract broken: the log after {after}");
    }
    assert_eq!(read(store, start.end, 0).await.entries, [], "contract broken: a limit of 0");
}

pub(super) async fn kept(store: &dyn KeyStore) {
    let start = store.log(None, 0).await.unwrap().end;
    for n in 1..=1_000 {
        assert_eq!(store.put(&[], Some(&say)).await.unwrap(), Put::Written(Some(start + n)), "contract broken: a gap");
    }
    let log = read(store, start, 1_000).await;
    let all: Vec<_> = (start + 1..=start + 1_000).map(|n| (n, say(n))).collect();
    assert!(log.entries == all && log.end == start + 1_000, "contract broken: the last 1000 entries are not kept");
}
