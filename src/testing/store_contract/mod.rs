//! The contract of [`KeyStore`](crate::KeyStore), as a suite that every backend runs.

mod active;
mod lists;
mod log;
mod races;
mod rows;

use std::sync::Arc;

use crate::key::id::{KeyId, TenantId};
use crate::key::period::Period;
use crate::key::row_digest::RowDigest;
use crate::key::scope::Scope;
use crate::key::state::KeyState;
use crate::store::KeyStore;
use crate::store::row::{KeyIndex, Put, RowChange, RowKey, Write};

/// Checks the contract of [`KeyStore`] on an empty store. Panics at the first breach, saying which. Run it on a runtime with
/// several threads: part of it races.
pub async fn store_contract(store: Arc<dyn KeyStore>) {
    rows::rows(&*store).await;
    rows::bytes(&*store).await;
    rows::tenancy(&*store).await;
    rows::kept(&*store).await;
    rows::atomicity(&*store).await;
    rows::removals(&*store).await;
    rows::refusals(&*store).await;
    active::one_for_each_scope(&*store).await;
    active::moves(&*store).await;
    active::many(&*store).await;
    lists::tenants(&*store).await;
    lists::keys(&*store).await;
    lists::journals(&*store).await;
    log::entries(&*store).await;
    log::kept(&*store).await;
    races::winners(&store).await;
    races::skew(&store).await;
    races::opposite_orders(&store).await;
    races::numbers(&store).await;
    races::dropped(&store).await;
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn key_id(number: u32) -> KeyId {
    let mut id = [7; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    KeyId::from_bytes(id)
}

fn key(of: &str, number: u32) -> RowKey {
    RowKey::Key(tenant(of), key_id(number))
}

/// A scope with everything that a canonical context may have.
fn scope(channel: &str) -> Scope {
    Scope::new(&[("channel", channel), ("workspace", "W 1/é\0\"'")]).unwrap()
}

fn index(channel: &str, hour: Option<i64>, state: KeyState) -> KeyIndex {
    let period = hour.and_then(|hour| Period::Hour.label(hour * 3_600_000).unwrap());
    KeyIndex { scope: scope(channel), period, state }
}

/// Puts `bytes` where there is none, or in the place of `old`.
fn write(key: &RowKey, old: Option<&[u8]>, bytes: &[u8]) -> Write {
    // Any index will do, one that is nobody's Active key.
    let index = matches!(key, RowKey::Key(..)).then(|| index("any", None, KeyState::Deactivated));
    let expected = old.map(RowDigest::of);
    Write { key: key.clone(), expected, change: RowChange::Put(bytes.to_vec(), index) }
}

fn write_key(key: &RowKey, old: Option<&[u8]>, bytes: &[u8], index: KeyIndex) -> Write {
    Write { change: RowChange::Put(bytes.to_vec(), Some(index)), ..write(key, old, bytes) }
}

fn keep(key: &RowKey, bytes: Option<&[u8]>) -> Write {
    Write { key: key.clone(), expected: bytes.map(RowDigest::of), change: RowChange::Keep }
}

fn remove(key: &RowKey, bytes: &[u8]) -> Write {
    Write { key: key.clone(), expected: Some(RowDigest::of(bytes)), change: RowChange::Remove }
}

async fn stored(store: &dyn KeyStore, key: &RowKey) -> Option<Vec<u8>> {
    store.get(key).await.unwrap()
}

async fn written(store: &dyn KeyStore, writes: &[Write], what: &str) {
    let put = store.put(writes, None).await.unwrap_or_else(|e| panic!("contract broken: {what} is an error: {e}"));
    assert_eq!(put, Put::Written(None), "contract broken: {what} is not written");
}

/// At least one of `places` stood against the writes, and none else.
async fn conflict(store: &dyn KeyStore, writes: &[Write], places: &[usize], what: &str) {
    // Also what was to be logged with them is not.
    let end = store.log(None, 0).await.unwrap().end;
    let against = match store.put(writes, Some(&|_| b"of a conflict".to_vec())).await.unwrap() {
        Put::Conflict(against) => against,
        Put::Written(_) => panic!("contract broken: {what} is written"),
    };
    let meant = !against.is_empty() && against.iter().all(|at| places.contains(at));
    assert!(meant, "contract broken: {what}: {against:?} stood against it, not {places:?}");
    assert_eq!(store.log(None, 0).await.unwrap().end, end, "contract broken: {what}, and its log entry is there");
}
