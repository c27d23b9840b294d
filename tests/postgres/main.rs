//! The PostgreSQL key store beyond the contract (tests/contracts.rs).
#![cfg(feature = "postgres")]

#[path = "../cluster/mod.rs"]
mod cluster;
mod fleet;
mod identity;
mod listener;
mod outages;
mod races;
mod rows;
mod schema;
mod through;

use strongroom::{
    KeyId, KeyIndex, KeyState, KeyStore, Put, Result, RowChange, RowDigest, RowKey, Scope, TenantId, Write,
};

fn tenant(name: &str) -> RowKey {
    RowKey::Tenant(TenantId::new(name).unwrap())
}

/// Puts `bytes` where there is none, or in the place of `old`.
fn put(key: &RowKey, old: Option<&[u8]>, bytes: &[u8]) -> Write {
    Write { key: key.clone(), expected: old.map(RowDigest::of), change: RowChange::Put(bytes.to_vec(), None) }
}

fn keep(key: &RowKey, bytes: &[u8]) -> Write {
    Write { key: key.clone(), expected: Some(RowDigest::of(bytes)), change: RowChange::Keep }
}

fn key_id(number: u32) -> KeyId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    KeyId::from_bytes(id)
}

/// A data key of `acme`.
fn key(number: u32) -> RowKey {
    RowKey::Key(TenantId::new("acme").unwrap(), key_id(number))
}

fn scope(channel: u32) -> Scope {
    Scope::new(&[("channel", &format!("C{channel}"))]).unwrap()
}

/// Puts the bytes of a data key of `acme` with this state, for a channel.
fn put_key(number: u32, channel: u32, state: KeyState, old: Option<&[u8]>, bytes: &[u8]) -> Write {
    let index = KeyIndex { scope: scope(channel), period: None, state };
    Write { change: RowChange::Put(bytes.to_vec(), Some(index)), ..put(&key(number), old, bytes) }
}

async fn written(store: &impl KeyStore, writes: &[Write]) {
    assert_eq!(store.put(writes, None).await.unwrap(), Put::Written(None));
}

/// Adds an entry to the log that is its number.
async fn log(store: &impl KeyStore) -> Result<Put> {
    store.put(&[], Some(&|number| number.to_be_bytes().to_vec())).await
}
