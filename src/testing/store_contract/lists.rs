//! Lists: their order, where they begin and end, whose rows they have.

use super::{index, key, tenant, write, write_key, written};
use crate::key::id::{KeyId, TenantId};
use crate::key::state::KeyState;
use crate::store::KeyStore;
use crate::store::row::{RowKey, Write};

/// All that a list has after `from`, by pages of `limit`.
async fn paged<K: Clone + Ord, V>(
    from: Option<K>,
    limit: usize,
    page: impl AsyncFn(Option<&K>, u32) -> Vec<(K, V)>,
) -> Vec<(K, V)> {
    let mut all: Vec<(K, V)> = Vec::new();
    loop {
        let after = all.last().map(|(key, _)| key.clone()).or_else(|| from.clone());
        let next = page(after.as_ref(), u32::try_from(limit).unwrap()).await;
        assert!(next.len() <= limit, "contract broken: a page of more rows than were asked for");
        if next.is_empty() {
            return all;
        }
        let goes_on = next.first().zip(after).is_none_or(|((first, _), after)| *first > after);
        assert!(goes_on, "contract broken: a page does not begin after the one before");
        all.extend(next);
    }
}

pub(super) async fn tenants(store: &dyn KeyStore) {
    let before = store.tenants(None, 1_000).await.unwrap();
    let in_order = ["l-A", "l-B", "l-_", "l-a", "l-a-b", "l-a.", "l-aa", "l-b"];
    // Neither put in this order, nor all with rows that a list could confuse with a tenant's.
    for name in ["l-b", "l-a", "l-B", "l-a-b", "l-_", "l-aa", "l-A", "l-a."] {
        let row = RowKey::Tenant(tenant(name));
        written(store, &[write(&row, None, name.as_bytes())], "a tenant").await;
        written(store, &[write(&key(&format!("{name}.key-only"), 1), None, b"no tenant")], "a key").await;
    }
    let all = store.tenants(None, 1_000).await.unwrap();
    assert_eq!(all.len(), before.len() + in_order.len(), "contract broken: not just each tenant once");
    assert!(
        all.is_sorted_by(|one, other| one.0.as_str().as_bytes() < other.0.as_str().as_bytes()),
        "contract broken: order"
    );
    let mine: Vec<(TenantId, Vec<u8>)> = in_order.map(|name| (tenant(name), name.as_bytes().to_vec())).into();
    let listed: Vec<_> = all.iter().filter(|(name, _)| name.as_str().starts_with("l-")).cloned().collect();
    assert_eq!(listed, mine, "contract broken: tenants' rows in the order of their names' bytes");
    let page = async |after: Option<&TenantId>, limit| store.tenants(after, limit).await.unwrap();
    for limit in [1, 3, 1_000] {
        assert_eq!(paged(None, limit, page).await, all, "contract broken: pages of {limit}");
        let rest = paged(Some(tenant("l-a-b")), limit, page).await;
        assert_eq!(rest.as_slice(), all.split_at(all.len() - rest.len()).1);
        assert_eq!(rest[0].0, tenant("l-a."), "contract broken: a page begins right after the name");
        // Also after one that there is not.
        assert_eq!(
            paged(Some(tenant("l-a-c")), limit, page).await,
            rest,
            "contract broken: after a name that there is not"
        );
    }
    assert_eq!(store.tenants(None, 0).await.unwrap(), [], "contract broken: a limit of 0");
}

pub(super) async fn keys(store: &dyn KeyStore) {
    let id = |first: u8, last: u8| {
        let mut id = [first; 32];
        id[31] = last;
        KeyId::from_bytes(id)
    };
    let ids = [id(0, 0), id(0, 1), id(1, 0), id(0x7f, 9), id(0x80, 0), id(0xff, 0xfe), id(0xff, 0xff)];
    let rows: Vec<(KeyId, Vec<u8>)> = ids.iter().map(|id| (*id, id.as_bytes().to_vec())).collect();
    let of = |name: &str| -> Vec<Write> {
        let states = [KeyState::Active, KeyState::Deactivated, KeyState::Destroyed];
        let write = |(number, id): (usize, &KeyId)| {
            let at = index(&format!("C{number}"), None, states[number % 3]);
            write_key(&RowKey::Key(tenant(name), *id), None, id.as_bytes(), at)
        };
        ids.iter().enumerate().map(write).rev().collect()
    };
    // Tenants on both sides, whose keys are not this one's.
    for name in ["keys", "key", "keys2", "Keys"] {
        written(store, &of(name), "keys").await;
    }
    let lists = tenant("keys");
    let page = async |after: Option<&KeyId>, limit| store.keys(&lists, after, limit).await.unwrap();
    for limit in [1, 3, 100] {
        assert_eq!(paged(None, limit, page).await, rows, "contract broken: a tenant's keys in order, pages of {limit}");
        assert_eq!(paged(Some(ids[3]), limit, page).await, rows[4..], "contract broken: after an id");
        assert_eq!(
            paged(Some(id(0x7f, 8)), limit, page).await,
            rows[3..],
            "contract broken: after an id that there is not"
        );
    }
    assert_eq!(store.keys(&lists, None, 0).await.unwrap(), [], "contract broken: a limit of 0");
    assert_eq!(store.keys(&tenant("ke"), None, 100).await.unwrap(), [], "contract broken: keys of nobody");
}

pub(super) async fn journals(store: &dyn KeyStore) {
    let numbers: [u64; 8] = [1, 2, 9, 10, 255, 256, 65_536, 1 << 40];
    let of = |name: &str| -> Vec<Write> {
        let write = |number: &u64| write(&RowKey::Journal(tenant(name), *number), None, &number.to_le_bytes());
        numbers.iter().map(write).rev().collect()
    };
    for name in ["journal", "journa", "journal2"] {
        written(store, &of(name), "a journal").await;
    }
    let rows: Vec<(u64, Vec<u8>)> = numbers.iter().map(|number| (*number, number.to_le_bytes().to_vec())).collect();
    let mine = tenant("journal");
    let page =
        async |after: Option<&u64>, limit| store.journal(&mine, after.copied().unwrap_or(0), limit).await.unwrap();
    for limit in [1, 3, 100] {
        assert_eq!(paged(None, limit, page).await, rows, "contract broken: a journal in order, pages of {limit}");
        assert_eq!(paged(Some(10), limit, page).await, rows[4..], "contract broken: after a number");
        assert_eq!(paged(Some(11), limit, page).await, rows[4..], "contract broken: after a number that there is not");
    }
    assert_eq!(store.journal(&mine, u64::MAX, 100).await.unwrap(), [], "contract broken: after the last number");
    assert_eq!(store.journal(&mine, 0, 0).await.unwrap(), [], "contract broken: a limit of 0");
}
