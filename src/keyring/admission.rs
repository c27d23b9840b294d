//! Admission: how many loads of keys are under way at once, and whose turn it is at the key store.
//!
//! A load reads from the key store, asks a KMS, and writes to the key store if it made a key. A tenant's loads begin in order, as many
//! at once as its KMS is asked at once. Whoever reads or writes for a load takes a turn for just that, by turns between tenants:
//! so a slow KMS holds no turn at the store, what waits for a lock to write keeps nobody from reading, and a store is never asked
//! for more than it has connections for. Its own deadline begins with the turn.
//!
//! The lease's readings, and what the control plane decides, never wait here. Nor does the store give loads all of its
//! connections ([`KeyStore::capacity`](crate::store::KeyStore::capacity)).

use std::time::Duration;

use crate::keyring::fair_queue::{FairQueue, Limits};
use crate::store::StoreCapacity;

/// Who waits for the store for so long, and sees nobody answered, takes the next failure for its own.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

/// The queues that a load goes through.
pub(crate) struct Admission {
    /// To begin at all.
    pub(crate) loads: FairQueue,
    /// To read rows.
    pub(crate) reads: FairQueue,
    /// To write rows.
    pub(crate) writes: FairQueue,
}

impl Admission {
    /// For a store of this capacity, and a KMS that answers within `kms_deadline` and is asked for a tenant so many times at once.
    pub(crate) fn new(capacity: StoreCapacity, kms_deadline: Duration, kms_calls_per_tenant: usize) -> Self {
        let store = |what, at_once: usize| {
            // One tenant, whose row may be locked by somebody else, never has all of them.
            let of_one = at_once.saturating_sub(at_once.div_ceil(4)).max(1);
            FairQueue::new(Limits { what, at_once: Some(at_once), of_one, patience: STORE_PATIENCE })
        };
        Self {
            loads: FairQueue::new(Limits {
                what: "loads of keys",
                at_once: None,
                of_one: kms_calls_per_tenant,
                patience: kms_deadline / 2,
            }),
            reads: store("reads from the key store", capacity.reads.max(1)),
            writes: store("writes to the key store", capacity.writes.max(1)),
        }
    }
}
