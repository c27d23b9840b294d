//! Calls that meet, and calls that are dropped.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{index, keep, key, key_id, stored, tenant, write, write_key, written};
use crate::key::state::KeyState;
use crate::store::KeyStore;
use crate::store::row::{Put, RowKey, Write};

/// What takes longer hangs.
const HANGS: Duration = Duration::from_secs(60);

/// Puts all at once, each from a task of its own. Says of each whether it was written.
async fn at_once(store: &Arc<dyn KeyStore>, puts: Vec<Vec<Write>>) -> Vec<bool> {
    let tasks = puts.into_iter().map(|writes| {
        let store = Arc::clone(store);
        tokio::spawn(async move { store.put(&writes, None).await.expect("contract broken: a race is no failure") })
    });
    let all = timeout(HANGS, join_all(tasks)).await.expect("contract broken: puts that meet do not end");
    all.into_iter().map(|put| matches!(put.unwrap(), Put::Written(_))).collect()
}

/// Of sixteen that want the same, one gets it.
async fn one_of_16(store: &Arc<dyn KeyStore>, put: impl Fn(u32) -> Vec<Write>, what: &str) -> u32 {
    let written = at_once(store, (0..16).map(put).collect()).await;
    let winners: Vec<u32> = (0..).zip(written).filter(|(_, written)| *written).map(|(n, _)| n).collect();
    assert_eq!(winners.len(), 1, "contract broken: {winners:?} of 16 {what}");
    winners[0]
}

pub(super) async fn winners(store: &Arc<dyn KeyStore>) {
    for round in 0..10 {
        let row = RowKey::Tenant(tenant(&format!("race-{round}")));
        let won = one_of_16(store, |n| vec![write(&row, None, &n.to_be_bytes())], "insert a row").await;
        let old = won.to_be_bytes();
        assert_eq!(stored(&**store, &row).await.unwrap(), old, "contract broken: another one's row is stored");
        let won = one_of_16(store, |n| vec![write(&row, Some(&old), &(100 + n).to_be_bytes())], "replace a row").await;
        assert_eq!(
            stored(&**store, &row).await.unwrap(),
            (100 + won).to_be_bytes(),
            "contract broken: another one's row"
        );
        // Active keys, beside a row that all of them keep.
        let at = |state| index(&format!("C{round}"), None, state);
        let (kept, base) = (stored(&**store, &row).await, 100 * round);
        let create = |n| write_key(&key("race", base + n), None, b"1", at(KeyState::Active));
        let won = one_of_16(store, |n| vec![keep(&row, kept.as_deref()), create(n)], "create an Active key").await;
        let first = key("race", base + won);
        let leave = write_key(&first, Some(b"1"), b"2", at(KeyState::Deactivated));
        let succeed = |n| vec![keep(&row, kept.as_deref()), leave.clone(), create(20 + n)];
        let won = one_of_16(store, succeed, "succeed an Active key").await;
        let at = at(KeyState::Active);
        let active = store.active(&tenant("race"), &at.scope, None).await.unwrap();
        assert_eq!(
            active,
            Some((key_id(base + 20 + won), b"1".to_vec())),
            "contract broken: another one's key is Active"
        );
        assert_eq!(stored(&**store, &first).await.as_deref(), Some(&b"2"[..]));
        let all = store.keys(&tenant("race"), None, 1_000).await.unwrap();
        assert_eq!(all.len(), 2 * usize::try_from(round + 1).unwrap(), "contract broken: a loser's key is stored");
    }
}

/// Each keeps what the other writes: not both can have been what they relied on.
pub(super) async fn skew(store: &Arc<dyn KeyStore>) {
    for round in 0..20 {
        let of = |name: &str| RowKey::Tenant(tenant(&format!("skew-{round}-{name}")));
        let journal = RowKey::Journal(tenant("skew"), round + 1);
        for (one, other) in
            [(of("a"), of("b")), (journal, of("c")), (key("skew", u32::try_from(round).unwrap()), of("d"))]
        {
            // First both are absent.
            let puts = vec![
                vec![keep(&one, None), write(&other, None, b"1")],
                vec![keep(&other, None), write(&one, None, b"1")],
            ];
            let both = at_once(store, puts).await;
            assert_ne!(
                both,
                [true, true],
                "contract broken: {one:?} and {other:?} were both kept absent, and both made"
            );
            assert_ne!(both, [false, false], "contract broken: neither of two puts found what it expects");
            let missing = if both[0] { &one } else { &other };
            written(&**store, &[write(missing, None, b"1")], "a row that lost a race").await;
            let puts = vec![
                vec![keep(&one, Some(b"1")), write(&other, Some(b"1"), b"2")],
                vec![keep(&other, Some(b"1")), write(&one, Some(b"1"), b"2")],
            ];
            let both = at_once(store, puts).await;
            assert_ne!(both, [true, true], "contract broken: {one:?} and {other:?} were both kept, and both changed");
            assert_ne!(both, [false, false], "contract broken: neither of two puts found what it expects");
        }
    }
}

/// Calls that name the same rows in opposite orders all end, one of them written.
pub(super) async fn opposite_orders(store: &Arc<dyn KeyStore>) {
    let of = |number: u32| match number % 3 {
        0 => key("orders", number),
        1 => RowKey::Tenant(tenant(&format!("orders-{number}"))),
        _ => RowKey::Journal(tenant("orders"), number.into()),
    };
    for round in 0..6_u8 {
        let old = (round > 0).then(|| [round - 1]);
        let put = |n: usize| {
            let mut writes: Vec<Write> =
                (0..30).map(|row| write(&of(row), old.as_ref().map(<[u8; 1]>::as_slice), &[round])).collect();
            if n % 2 == 1 {
                writes.reverse();
            }
            // One of them is kept by some, and not by all the same.
            writes[n % 7].change = crate::store::row::RowChange::Keep;
            let kept = writes[n % 7].key.clone();
            (kept, writes)
        };
        let (kept, puts): (Vec<_>, Vec<_>) = (0..8).map(put).unzip();
        let all = at_once(store, puts).await;
        let won: Vec<usize> = (0..8).filter(|n| all[*n]).collect();
        assert_eq!(won.len(), 1, "contract broken: {won:?} of 8 wrote the same rows");
        let is = old.as_ref().map(<[u8; 1]>::as_slice);
        written(&**store, &[write(&kept[won[0]], is, &[round])], "the row that was kept").await;
        for row in 0..30 {
            assert_eq!(
                stored(&**store, &of(row)).await.unwrap(),
                [round],
                "contract broken: rows of two calls are mixed"
            );
        }
    }
}

/// Numbers without gaps, each entry with its own, and none that comes after a later one was read.
pub(super) async fn numbers(store: &Arc<dyn KeyStore>) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 20;
    let start = store.log(None, 0).await.unwrap().end;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                for n in 0..EACH {
                    let row = RowKey::Tenant(tenant(&format!("numbers-{writer}-{n}")));
                    let say = |number: u64| format!("{number} {writer} {n}").into_bytes();
                    let Put::Written(Some(_)) = store.put(&[write(&row, None, b"1")], Some(&say)).await.unwrap() else {
                        panic!("contract broken: a new row and an entry are not written")
                    };
                    // And some that come to nothing, in the middle of the others.
                    let put = store.put(&[write(&row, None, b"2")], Some(&say)).await.unwrap();
                    assert!(matches!(put, Put::Conflict(_)), "contract broken: a row is put twice");
                }
            })
        })
        .collect();
    let mut heard = Vec::new();
    let reading = async {
        let mut after = start;
        while after < start + WRITERS * EACH {
            let log = store.log(Some(after), 7).await.unwrap();
            for (number, entry) in log.entries {
                assert_eq!(number, after + 1, "contract broken: the log has a gap, or an entry came late");
                let entry = String::from_utf8(entry).unwrap();
                let (own, rest) = entry.split_once(' ').unwrap();
                assert_eq!(own, number.to_string(), "contract broken: an entry was made for another number");
                heard.push(rest.to_owned());
                after = number;
            }
            assert!(log.end >= after, "contract broken: the log ends before its last entry");
        }
    };
    timeout(HANGS, reading).await.expect("contract broken: entries that were written are not in the log");
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(store.log(None, 0).await.unwrap().end, start + WRITERS * EACH, "contract broken: entries too many");
    heard.sort_unstable();
    heard.dedup();
    assert_eq!(heard.len() as u64, WRITERS * EACH, "contract broken: an entry twice, and another one missing");
}

/// A call that is dropped leaves all as it was, or has written all; and nothing that later calls could fall over.
pub(super) async fn dropped(store: &Arc<dyn KeyStore>) {
    let start = store.log(None, 0).await.unwrap().end;
    let mut written_rounds = Vec::new();
    for round in 0..60_u32 {
        let rows = [
            RowKey::Tenant(tenant(&format!("dropped-{round}"))),
            key("dropped", round),
            RowKey::Journal(tenant("dropped"), u64::from(round) + 1),
        ];
        let writes: Vec<Write> = rows.iter().map(|row| write(row, None, &round.to_be_bytes())).collect();
        let say = |_: u64| round.to_be_bytes().to_vec();
        let patience = Duration::from_micros(u64::from(round) * 40);
        let ended = timeout(patience, store.put(&writes, Some(&say))).await.is_ok();
        // It may still be under way: who keeps all of it waits for its end.
        let absent: Vec<Write> = rows.iter().map(|row| keep(row, None)).collect();
        let present: Vec<Write> = rows.iter().map(|row| keep(row, Some(&round.to_be_bytes()))).collect();
        let is = async |kept: &[Write]| {
            let put = timeout(HANGS, store.put(kept, None)).await.expect("contract broken: hangs after a dropped call");
            matches!(put.unwrap(), Put::Written(_))
        };
        if is(&absent).await {
            assert!(!ended, "contract broken: said to be written, but is not");
        } else {
            assert!(is(&present).await, "contract broken: a dropped call has written a part of its rows");
            written_rounds.push(round.to_be_bytes().to_vec());
        }
    }
    let log = store.log(Some(start), 1_000).await.unwrap();
    let entries: Vec<Vec<u8>> = log.entries.into_iter().map(|(_, entry)| entry).collect();
    assert_eq!(entries, written_rounds, "contract broken: entries of dropped calls without their rows, or the reverse");
}
