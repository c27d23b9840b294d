//! One Active key for each tenant, scope and period.

use super::{conflict, index, key, key_id, stored, tenant, write_key, written};
use crate::key::id::KeyId;
use crate::key::state::KeyState;
use crate::store::KeyStore;
use crate::store::row::{KeyIndex, Put, Write};

async fn active(store: &dyn KeyStore, of: &str, at: &KeyIndex) -> Option<(KeyId, Vec<u8>)> {
    store.active(&tenant(of), &at.scope, at.period.as_ref()).await.unwrap()
}

fn state(at: &KeyIndex, state: KeyState) -> KeyIndex {
    KeyIndex { state, ..at.clone() }
}

pub(super) async fn one_for_each_scope(store: &dyn KeyStore) {
    let at = index("C1", Some(0), KeyState::Active);
    assert_eq!(active(store, "one", &at).await, None);
    written(store, &[write_key(&key("one", 1), None, b"first", at.clone())], "an Active key").await;
    let first = Some((key_id(1), b"first".to_vec()));
    assert_eq!(active(store, "one", &at).await, first, "contract broken: the Active key is not found");
    conflict(store, &[write_key(&key("one", 2), None, b"second", at.clone())], &[0], "a second Active key").await;
    assert_eq!(stored(store, &key("one", 2)).await, None, "contract broken: the loser is written");
    for (number, state) in [KeyState::Deactivated, KeyState::Suspended, KeyState::Destroyed].into_iter().enumerate() {
        let of = KeyIndex { state, ..at.clone() };
        written(store, &[write_key(&key("one", 10 + u32::try_from(number).unwrap()), None, b"x", of)], "another state")
            .await;
    }
    assert_eq!(active(store, "one", &at).await, first, "contract broken: a key that is not Active is found");
    // Each of these is another place for an Active key.
    for (number, (of, at)) in [
        ("one", index("C1", Some(1), KeyState::Active)),
        ("one", index("C1", None, KeyState::Active)),
        ("one", index("C2", Some(0), KeyState::Active)),
        ("another", at.clone()),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(active(store, of, &at).await, None, "contract broken: the Active key of something else is found");
        let number = 20 + u32::try_from(number).unwrap();
        written(store, &[write_key(&key(of, number), None, b"other", at.clone())], "the Active key of something else")
            .await;
        assert_eq!(active(store, of, &at).await, Some((key_id(number), b"other".to_vec())));
    }
    let twice = [
        write_key(&key("one", 30), None, b"a", index("C3", None, KeyState::Active)),
        write_key(&key("one", 31), None, b"b", index("C3", None, KeyState::Active)),
    ];
    conflict(store, &twice, &[0, 1], "two Active keys at once").await;
    assert_eq!(active(store, "one", &index("C3", None, KeyState::Active)).await, None);
}

/// A key takes the state of another one, or leaves it to nobody.
pub(super) async fn moves(store: &dyn KeyStore) {
    let at = index("C1", None, KeyState::Active);
    let (deactivated, suspended) = (state(&at, KeyState::Deactivated), state(&at, KeyState::Suspended));
    // Successors whose ids come before and after the one they succeed.
    let [low, middle, high] = [key("moves", 1), key("moves", 2), key("moves", 3)];
    written(store, &[write_key(&middle, None, b"m1", at.clone())], "an Active key").await;
    written(store, &[write_key(&middle, Some(b"m1"), b"m2", at.clone())], "an Active key over itself").await;
    assert_eq!(active(store, "moves", &at).await, Some((key_id(2), b"m2".to_vec())));
    let stale = [write_key(&middle, Some(b"m1"), b"m3", deactivated.clone()), write_key(&low, None, b"l1", at.clone())];
    conflict(store, &stale, &[0, 1], "a successor of an old version").await;
    assert_eq!(
        active(store, "moves", &at).await,
        Some((key_id(2), b"m2".to_vec())),
        "contract broken: lost in a conflict"
    );
    for (old, old_bytes, new, new_bytes, expected) in [
        (&middle, &b"m2"[..], &low, &b"l1"[..], None),
        (&low, b"l1", &high, b"h1", None),
        (&high, b"h1", &middle, b"m4", Some(&b"m3"[..])),
    ] {
        let bytes = if old == &middle { &b"m3"[..] } else { b"left" };
        let swap = [
            write_key(old, Some(old_bytes), bytes, deactivated.clone()),
            write_key(new, expected, new_bytes, at.clone()),
        ];
        written(store, &swap, "an Active key's successor, with it").await;
        let found = active(store, "moves", &at).await.map(|(_, bytes)| bytes);
        assert_eq!(found.as_deref(), Some(new_bytes), "contract broken: the successor is not the Active key");
    }
    conflict(store, &[write_key(&high, Some(b"left"), b"h2", at.clone())], &[0], "a second Active key by update").await;
    written(store, &[write_key(&middle, Some(b"m4"), b"m5", suspended)], "a suspended key").await;
    assert_eq!(active(store, "moves", &at).await, None, "contract broken: a suspended key is Active");
    written(store, &[write_key(&high, Some(b"left"), b"h2", at.clone())], "a key that is Active again").await;
    conflict(store, &[write_key(&middle, Some(b"m5"), b"m6", at.clone())], &[0], "a second Active key, restored").await;
    // The index is only what rows are found by: it may become another one.
    let elsewhere = index("C9", Some(3), KeyState::Active);
    written(store, &[write_key(&high, Some(b"h2"), b"h3", elsewhere.clone())], "a key under another index").await;
    assert_eq!(active(store, "moves", &at).await, None, "contract broken: a key is found by an index that it had");
    assert_eq!(active(store, "moves", &elsewhere).await, Some((key_id(3), b"h3".to_vec())));
}

/// A page of a walk, written as one.
pub(super) async fn many(store: &dyn KeyStore) {
    let channel = |number: u32| format!("many {number}");
    let put = |number: u32, old: Option<&[u8]>, bytes: &[u8], state| {
        write_key(&key("many", number), old, bytes, index(&channel(number), None, state))
    };
    let new: Vec<Write> = (0..300).rev().map(|n| put(n, None, &n.to_be_bytes(), KeyState::Active)).collect();
    written(store, &new, "300 new keys").await;
    let mut page: Vec<Write> =
        (0..300).map(|n| put(n, Some(&n.to_be_bytes()), b"rewrapped", KeyState::Active)).collect();
    let stale = std::mem::replace(&mut page[170], put(170, Some(b"another"), b"rewrapped", KeyState::Active));
    conflict(store, &page, &[170], "a page with one key of another version").await;
    for number in [0, 169, 170, 299] {
        let bytes = stored(store, &key("many", number)).await.unwrap();
        assert_eq!(bytes, number.to_be_bytes(), "contract broken: a part of a page is written");
    }
    page[170] = stale;
    written(store, &page, "a page").await;
    let mixed: Vec<Write> = (0..300)
        .map(|n| match n % 3 {
            0 => put(n, Some(b"rewrapped"), b"deactivated", KeyState::Deactivated),
            1 => put(n, Some(b"rewrapped"), b"active", KeyState::Active),
            _ => put(1_000 + n, None, b"new", KeyState::Active),
        })
        .collect();
    assert!(matches!(store.put(&mixed, Some(&|_| b"page".to_vec())).await.unwrap(), Put::Written(Some(_))));
    for number in 0..300 {
        let (id, bytes): (_, Option<&[u8]>) = match number % 3 {
            0 => (number, None),
            1 => (number, Some(b"active")),
            _ => (1_000 + number, Some(b"new")),
        };
        let found = active(store, "many", &index(&channel(id), None, KeyState::Active)).await;
        assert_eq!(found, bytes.map(|bytes| (key_id(id), bytes.to_vec())), "contract broken: key {id} of a page");
    }
}
