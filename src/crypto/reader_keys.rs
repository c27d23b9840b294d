//! Reader keys: the few AES keys, derived from writers' prefixes, that a data key keeps to open with.
//!
//! A prefix is kept when it is seen a second time in a row of misses, so that a page of one-off writers does not pay for
//! keeping keys that nobody asks for again.

use std::sync::Arc;

use crate::crypto::aead::AeadKey;
use crate::crypto::xaes::PREFIX_LEN;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{ArcSwapOption, Guard};

/// How many derived AES keys a data key keeps at most.
const KEPT: usize = 4;

pub(crate) struct ReaderKey {
    prefix: [u8; PREFIX_LEN],
    pub(crate) key: AeadKey,
}

/// The reader keys of one data key. Read without a lock; replaced in turn.
pub(crate) struct ReaderKeys {
    slots: [Slot; KEPT],
    next: AtomicUsize,
    missed: AtomicU64,
}

struct Slot {
    /// The first 8 bytes of the prefix: finds the slot without touching the others. A hint only.
    hint: AtomicU64,
    kept: ArcSwapOption<ReaderKey>,
}

fn hint(prefix: &[u8; PREFIX_LEN]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&prefix[..8]);
    u64::from_le_bytes(bytes)
}

impl ReaderKeys {
    pub(crate) fn new() -> Self {
        Self {
            slots: std::array::from_fn(|_| Slot { hint: AtomicU64::new(0), kept: ArcSwapOption::empty() }),
            next: AtomicUsize::new(0),
            missed: AtomicU64::new(0),
        }
    }

    /// The kept key of `prefix`, if there is one.
    pub(crate) fn find(&self, prefix: &[u8; PREFIX_LEN]) -> Option<Guard<Option<Arc<ReaderKey>>>> {
        let wanted = hint(prefix);
        self.slots
            .iter()
            .filter(|slot| slot.hint.load(Ordering::Relaxed) == wanted)
            .map(|slot| slot.kept.load())
            .find(|kept| kept.as_ref().is_some_and(|r| r.prefix == *prefix))
    }

    /// Keeps `key`, which has just authenticated a message, if its prefix was also the one missed last.
    pub(crate) fn keep(&self, prefix: [u8; PREFIX_LEN], key: AeadKey) {
        let wanted = hint(&prefix);
        if self.missed.swap(wanted, Ordering::Relaxed) != wanted {
            return;
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % KEPT;
        if let Some(slot) = self.slots.get(turn) {
            slot.kept.store(Some(Arc::new(ReaderKey { prefix, key })));
            slot.hint.store(wanted, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::aead::{Algorithm, Backend};

    fn key() -> AeadKey {
        AeadKey::new(Backend::RustCrypto, Algorithm::Aes256Gcm, &[3; 32]).unwrap()
    }

    #[test]
    fn kept_at_the_second_miss_and_replaced_in_turn() {
        let keys = ReaderKeys::new();
        let prefix = |i: u8| [i; PREFIX_LEN];
        keys.keep(prefix(1), key());
        assert!(keys.find(&prefix(1)).is_none(), "once is not enough");
        keys.keep(prefix(1), key());
        assert!(keys.find(&prefix(1)).is_some());
        for i in 2..=5 {
            keys.keep(prefix(i), key());
            keys.keep(prefix(i), key());
        }
        assert!(keys.find(&prefix(1)).is_none(), "the oldest made room");
        for i in 2..=5 {
            assert!(keys.find(&prefix(i)).is_some());
        }
        let mut same_hint = prefix(5);
        same_hint[11] ^= 1;
        assert!(keys.find(&same_hint).is_none(), "the whole prefix decides");
    }
}
