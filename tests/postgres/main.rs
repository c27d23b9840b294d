//! The PostgreSQL key store beyond the contract (tests/contracts.rs).
#![cfg(feature = "postgres")]

#[path = "../cluster/mod.rs"]
mod cluster;
mod fleet;
mod outages;
mod races;
mod rows;
mod schema;
mod through;

use strongroom::{Change, Forget, KeyId, KeyRecord, KeyState, Period, Region, Scope, Selector, Suite, TenantId};
use strongroom::{KekUri, TenantPolicy, TenantRecord, WrappedKey, Wrapping};

fn tenant(name: &str) -> TenantRecord {
    let policy = TenantPolicy::new(KekUri::new("local:a").unwrap(), Region::new("eu").unwrap())
        .scope_by(["channel"])
        .period(Period::Month);
    TenantRecord {
        tenant: TenantId::new(name).unwrap(),
        policy,
        revocations: Vec::new(),
        erasures: Vec::new(),
        rewrap: None,
        enrolled_at: 0,
        epoch: 1,
    }
}

fn key(tenant: &str, channel: &str, number: u32) -> KeyRecord {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    KeyRecord {
        tenant: TenantId::new(tenant).unwrap(),
        key_id: KeyId::from_bytes(id),
        suite: Suite::Aes256Gcm,
        scope: Scope::new(&[("channel", channel)]).unwrap(),
        period: None,
        region: Region::new("eu").unwrap(),
        state: KeyState::Active,
        state_since: 0,
        wrapped: Some(WrappedKey::One(Wrapping { kek: KekUri::new("local:a").unwrap(), wrapped: vec![7; 40] })),
        pending: None,
        wrapped_epoch: 1,
        created_at: 0,
        revision: 1,
    }
}

fn change(channel: &str) -> Change {
    let selector = Selector::fields([("channel", channel)]);
    Change { tenant: TenantId::new("acme").unwrap(), selector, forget: Forget::Keys }
}
