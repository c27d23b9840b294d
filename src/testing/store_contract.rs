//! The contract of [`KeyStore`](crate::KeyStore), as a suite that every backend runs.

use std::sync::Arc;

use futures_util::future::join_all;

use crate::crypto::suite::Suite;
use crate::error::{ErrorKind, Result};
use crate::key::change::{Change, Forget};
use crate::key::erasure::Erasure;
use crate::key::id::{KeyId, TenantId};
use crate::key::kek::KekUri;
use crate::key::period::Period;
use crate::key::policy::TenantPolicy;
use crate::key::record::KeyRecord;
use crate::key::region::Region;
use crate::key::revocation::{Revocation, Selector};
use crate::key::rewrap::RewrapOrder;
use crate::key::scope::Scope;
use crate::key::state::KeyState;
use crate::key::tenant::TenantRecord;
use crate::key::wrapped_key::{Pending, WrappedKey, Wrapping};
use crate::store::{KeyStore, Placed};

fn tenant(name: &str) -> TenantRecord {
    let policy = TenantPolicy::new(KekUri::new("local:a").unwrap(), Region::new("eu").unwrap())
        .scope_by(["channel"])
        .period(Period::Hour);
    let revocations = vec![Revocation { selector: Selector::fields([("channel", "C=\"1\"\0é")]), since: -1 }];
    let selector = Selector::keys([KeyId::from_bytes([3; 32])]).from(Period::Hour.label(0).unwrap().unwrap());
    TenantRecord {
        tenant: TenantId::new(name).unwrap(),
        revocations,
        erasures: vec![Erasure {
            id: "0f".repeat(8),
            selector,
            requested_at: 3,
            due_at: i64::MAX,
            carried_out_since: Some(4),
        }],
        rewrap: Some(RewrapOrder { to: policy.keks().clone(), epoch: 1, since: 0 }),
        policy,
        enrolled_at: 7,
        epoch: 1,
    }
}

fn forget(name: &str, channel: &str, forget: Forget) -> Change {
    Change { tenant: TenantId::new(name).unwrap(), selector: Selector::fields([("channel", channel)]), forget }
}

fn wrapped(kek: &str, bytes: Vec<u8>) -> WrappedKey {
    WrappedKey::One(Wrapping { kek: KekUri::new(kek).unwrap(), wrapped: bytes })
}

fn record(name: &str, channel: &str, hour: Option<i64>, id: u8) -> KeyRecord {
    KeyRecord {
        tenant: TenantId::new(name).unwrap(),
        key_id: KeyId::from_bytes([id; 32]),
        suite: Suite::ChaCha20Poly1305,
        scope: Scope::new(&[("channel", channel), ("workspace", "W 1/é\0")]).unwrap(),
        period: hour.and_then(|hour| Period::Hour.label(hour * 3_600_000).unwrap()),
        region: Region::new("eu-central-1").unwrap(),
        state: KeyState::Active,
        state_since: -5,
        wrapped: Some(WrappedKey::AnyOf(vec![
            wrapped("local:a", vec![0, 255, id]),
            WrappedKey::AllOf(vec![wrapped("local:b", vec![id; 6144]), wrapped("local:c", vec![id])]),
        ])),
        pending: None,
        wrapped_epoch: 3,
        created_at: i64::MIN,
        revision: 1,
    }
}

fn conflict<T: std::fmt::Debug>(result: Result<T>, what: &str) {
    assert_eq!(result.expect_err(what).kind(), ErrorKind::Conflict, "contract broken: {what}");
}

async fn active(store: &dyn KeyStore, like: &KeyRecord) -> Option<KeyRecord> {
    store.active_key(&like.tenant, &like.scope, like.period.as_ref()).await.unwrap()
}

/// Checks the contract of [`KeyStore`] on an empty store. Panics at the first breach, saying which. Run it on a runtime with
/// several threads: part of it races.
pub async fn store_contract(store: Arc<dyn KeyStore>) {
    tenants(&*store).await;
    log(&*store).await;
    keys(&*store).await;
    successors(&*store).await;
    updates(&*store).await;
    paging(&*store).await;
    races(store).await;
}

async fn tenants(store: &dyn KeyStore) {
    let acme = tenant("acme");
    assert_eq!(store.tenant(&acme.tenant).await.unwrap(), None);
    store.insert_tenant(&acme).await.unwrap();
    assert_eq!(store.tenant(&acme.tenant).await.unwrap().as_ref(), Some(&acme));
    conflict(store.insert_tenant(&acme).await, "a tenant enrolled twice");
    let mut changed = acme.clone();
    changed.revocations.clear();
    let start = store.changes(None, 10).await.unwrap();
    assert!(start.changes.is_empty() && !start.gap);
    let change = forget("acme", "C=\"1\"\0é", Forget::Keys);
    for (epoch, fits) in [(1, false), (3, false), (2, true), (2, false), (3, true)] {
        changed.epoch = epoch;
        changed.rewrap = None;
        let written = store.update_tenant(&changed, &change).await;
        if fits { written.unwrap() } else { conflict(written, "a tenant's row written over another epoch") }
    }
    assert_eq!(store.tenant(&acme.tenant).await.unwrap(), Some(changed.clone()));
    let mut stranger = tenant("stranger");
    stranger.epoch = 2;
    conflict(store.update_tenant(&stranger, &change).await, "a tenant updated who is not enrolled");
    let news = store.changes(Some(start.upto), 10).await.unwrap();
    assert_eq!(news.changes, [change.clone(), change], "contract broken: a change is logged with its update, else not");
    let mut other = tenant("other");
    other.epoch = 3;
    store.insert_tenant(&other).await.unwrap();
    assert_eq!(store.tenants(None, 10).await.unwrap(), [changed, other.clone()]);
    assert_eq!(store.tenants(Some(&acme.tenant), 10).await.unwrap(), [other]);
    assert_eq!(store.tenants(None, 1).await.unwrap().len(), 1);
}

async fn log(store: &dyn KeyStore) {
    let start = store.changes(None, 10).await.unwrap();
    store.announce(&forget("acme", "C1", Forget::Nothing)).await.unwrap();
    assert_eq!(store.changes(Some(start.upto), 10).await.unwrap(), start, "nothing to forget, nothing to hear");
    let said = [
        forget("acme", "C1", Forget::Sealing),
        forget("other", "C2", Forget::Keys),
        forget("acme", "C3", Forget::Keys),
    ];
    for change in &said {
        store.announce(change).await.unwrap();
    }
    let news = store.changes(Some(start.upto), 10).await.unwrap();
    assert_eq!((news.changes.as_slice(), news.gap), (said.as_slice(), false));
    let rest = store.changes(Some(news.upto - 1), 10).await.unwrap();
    assert_eq!((rest.changes.as_slice(), rest.upto), (&said[2..], news.upto));
    assert_eq!(store.changes(Some(news.upto), 10).await.unwrap().changes, []);
    assert!(
        store.changes(Some(start.upto), 2).await.unwrap().gap,
        "contract broken: more changes than asked for, no gap"
    );
    let ahead = store.changes(Some(news.upto + 1), 10).await.unwrap();
    assert!(ahead.gap && ahead.upto == news.upto, "contract broken: a place not reached yet is a store restored");
    for n in 0..1000 {
        store.announce(&forget("acme", &format!("C{n}"), Forget::Sealing)).await.unwrap();
    }
    let thousand = store.changes(Some(news.upto), 1000).await.unwrap();
    assert_eq!((thousand.changes.len(), thousand.gap), (1000, false), "contract broken: 1000 changes are kept");
}

async fn keys(store: &dyn KeyStore) {
    let mine = record("acme", "C1", Some(0), 1);
    assert_eq!(active(store, &mine).await, None);
    assert_eq!(store.insert_active(&mine).await.unwrap(), Placed::New);
    assert_eq!(store.key(&mine.tenant, &mine.key_id).await.unwrap().as_ref(), Some(&mine));
    assert_eq!(active(store, &mine).await.as_ref(), Some(&mine));
    let late = record("acme", "C1", Some(0), 2);
    let placed = store.insert_active(&late).await.unwrap();
    assert_eq!(placed, Placed::Existing(Box::new(mine.clone())), "contract broken: two Active keys");
    assert_eq!(store.key(&late.tenant, &late.key_id).await.unwrap(), None, "contract broken: the loser was written");
    conflict(store.insert_active(&record("acme", "C2", Some(0), 1)).await, "a key id twice");
    conflict(store.insert_active(&record("nobody", "C2", Some(0), 3)).await, "a key of a tenant that is not enrolled");
    for epoch in [2, 4] {
        let made = KeyRecord { wrapped_epoch: epoch, ..record("acme", "C2", Some(0), 3) };
        conflict(store.insert_active(&made).await, "a key made under another epoch of its tenant");
        assert_eq!(store.key(&made.tenant, &made.key_id).await.unwrap(), None);
    }
    // Another period, no period, another tenant: other keys. Another tenant's key of the same id does not exist.
    assert_eq!(store.insert_active(&record("acme", "C1", Some(1), 3)).await.unwrap(), Placed::New);
    assert_eq!(store.insert_active(&record("acme", "C1", None, 4)).await.unwrap(), Placed::New);
    let others = record("other", "C1", Some(0), 1);
    assert_eq!(store.key(&others.tenant, &others.key_id).await.unwrap(), None);
    assert_eq!(store.insert_active(&others).await.unwrap(), Placed::New);
    assert_eq!(store.key(&mine.tenant, &mine.key_id).await.unwrap().as_ref(), Some(&mine));
}

async fn successors(store: &dyn KeyStore) {
    let first = record("acme", "C5", None, 50);
    let second = record("acme", "C5", None, 51);
    conflict(store.succeed(&first.key_id, &second).await, "a successor of nothing");
    store.insert_active(&first).await.unwrap();
    assert_eq!(store.succeed(&first.key_id, &second).await.unwrap(), Placed::New);
    assert_eq!(active(store, &first).await.as_ref(), Some(&second));
    let old = store.key(&first.tenant, &first.key_id).await.unwrap().unwrap();
    assert_eq!((old.state, old.revision, old.state_since), (KeyState::Deactivated, 2, second.created_at));
    assert_eq!(old.wrapped, first.wrapped);
    let stale = KeyRecord { wrapped_epoch: 2, ..record("acme", "C5", None, 53) };
    conflict(store.succeed(&second.key_id, &stale).await, "a successor made under another epoch of its tenant");
    assert_eq!(active(store, &first).await.as_ref(), Some(&second));
    let third = record("acme", "C5", None, 52);
    assert_eq!(store.succeed(&first.key_id, &third).await.unwrap(), Placed::Existing(Box::new(second.clone())));
    assert_eq!(store.key(&third.tenant, &third.key_id).await.unwrap(), None);
    let mut taken = third.clone();
    taken.key_id = first.key_id;
    conflict(store.succeed(&second.key_id, &taken).await, "a successor with a key id that is taken");
    assert_eq!(active(store, &first).await.as_ref(), Some(&second), "contract broken: a failed succession wrote");
}

async fn updates(store: &dyn KeyStore) {
    let mut key = record("acme", "C6", None, 60);
    store.insert_active(&key).await.unwrap();
    key.state = KeyState::Suspended;
    key.state_since = 77;
    key.pending = Some(Pending { wrapped: wrapped("local:new", vec![9]), epoch: 5 });
    key.wrapped = Some(wrapped("local:a", vec![1]));
    key.wrapped_epoch = 9;
    conflict(store.update_key(&key).await, "a key written over the same revision");
    key.revision = 2;
    store.update_key(&key).await.unwrap();
    conflict(store.update_key(&key).await, "a key written twice");
    assert_eq!(store.key(&key.tenant, &key.key_id).await.unwrap().as_ref(), Some(&key));
    assert_eq!(active(store, &key).await, None, "contract broken: a suspended key is Active");
    store.insert_active(&record("acme", "C6", None, 61)).await.unwrap();
    key.state = KeyState::Active;
    key.revision = 3;
    conflict(store.update_key(&key).await, "a second Active key by update");
    let mut destroyed = key.clone();
    destroyed.state = KeyState::Destroyed;
    destroyed.wrapped = None;
    assert!(store.update_key(&destroyed).await.is_err(), "contract broken: a destroyed key with a wrapping");
    destroyed.pending = None;
    store.update_key(&destroyed).await.unwrap();
    assert_eq!(store.key(&key.tenant, &key.key_id).await.unwrap(), Some(destroyed));
    key.revision = 4;
    conflict(store.update_key(&key).await, "a destroyed key brought back");
    many(store).await;
}

/// Each row of a batch goes by itself.
async fn many(store: &dyn KeyStore) {
    let mut rows: Vec<_> = (70..74).map(|id| record("acme", &format!("many {id}"), None, id)).collect();
    for row in &rows {
        store.insert_active(row).await.unwrap();
    }
    for (row, revision) in rows.iter_mut().zip([2, 3, 2, 2]) {
        row.state = KeyState::Deactivated;
        row.revision = revision;
    }
    // The last would be a second Active key.
    store.update_key(&rows[3]).await.unwrap();
    store.insert_active(&record("acme", "many 73", None, 75)).await.unwrap();
    rows[3].state = KeyState::Active;
    rows[3].revision = 3;
    assert_eq!(store.update_keys(&rows).await.unwrap(), [true, false, true, false]);
    for (row, written) in rows.iter().zip([true, false, true, false]) {
        let stored = store.key(&row.tenant, &row.key_id).await.unwrap().unwrap();
        assert_eq!(stored == *row, written);
    }
    assert_eq!(store.update_keys(&[]).await.unwrap(), [false; 0]);
}

async fn paging(store: &dyn KeyStore) {
    let acme = TenantId::new("acme").unwrap();
    let all = store.keys(&acme, None, 1_000).await.unwrap();
    assert!(all.len() >= 6 && all.is_sorted_by_key(|k| k.key_id), "contract broken: keys out of order");
    assert!(all.iter().all(|k| k.tenant == acme), "contract broken: another tenant's keys are listed");
    let mut paged = Vec::new();
    while let page = store.keys(&acme, paged.last().map(|k: &KeyRecord| &k.key_id), 2).await.unwrap()
        && !page.is_empty()
    {
        assert!(page.len() <= 2);
        paged.extend(page);
    }
    assert_eq!(paged, all);
}

/// Sixteen at once: one creates, one succeeds.
async fn races(store: Arc<dyn KeyStore>) {
    let spawn = |work: Vec<KeyRecord>, old: Option<KeyId>| {
        let tasks = work.into_iter().map(|record| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                match old {
                    None => store.insert_active(&record).await,
                    Some(old) => store.succeed(&old, &record).await,
                }
                .map(|placed| (record.key_id, placed))
            })
        });
        join_all(tasks)
    };
    for round in 0..10_u8 {
        let racers = |from: u8| -> Vec<KeyRecord> {
            (0..16).map(|i| record("other", &format!("race {round}"), None, from + i)).collect()
        };
        let mut winner = None;
        for (from, old) in [(100, false), (130, true)] {
            let work = racers(from).into_iter().map(|mut r| {
                let mut id = *r.key_id.as_bytes();
                id[0] = round;
                r.key_id = KeyId::from_bytes(id);
                r
            });
            let outcomes = spawn(work.collect(), winner.filter(|_| old)).await;
            let placed: Vec<_> = outcomes.into_iter().map(|o| o.unwrap().expect("a race is no failure")).collect();
            let new: Vec<KeyId> = placed.iter().filter(|(_, p)| *p == Placed::New).map(|(id, _)| *id).collect();
            assert_eq!(new.len(), 1, "contract broken: {} winners", new.len());
            assert!(
                placed
                    .iter()
                    .all(|(_, p)| matches!(p, Placed::New) || matches!(p, Placed::Existing(r) if r.key_id == new[0])),
                "contract broken: a loser was not given the winner's key"
            );
            winner = Some(new[0]);
        }
    }
}
