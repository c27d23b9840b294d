//! Reader keys: the few AES keys, derived from writers' prefixes, that a data key keeps to open with.
//!
//! A prefix is kept when it is seen a second time in a row of misses, so that a page of one-off writers does not pay for
//! keeping keys that nobody asks for again. A thread that opens one message after the other under the same data key holds the
//! ones that it used last, so that it asks nothing that threads share.

use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::crypto::aead::AeadKey;
use crate::crypto::xaes::PREFIX_LEN;
use crate::sync::ArcSwapOption;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many derived AES keys a data key keeps at most.
const KEPT: usize = 4;

pub(crate) struct ReaderKey {
    prefix: [u8; PREFIX_LEN],
    key: AeadKey,
}

/// The reader keys of one data key that one thread used last.
#[derive(Default)]
pub(crate) struct Recent(ArrayVec<Arc<ReaderKey>, KEPT>);

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

    /// Runs `work` on the kept key of `prefix`, if there is one. Looks among the `recent` ones first, and puts it there.
    #[inline]
    pub(crate) fn with_recent<R>(
        &self,
        recent: &mut Recent,
        prefix: &[u8; PREFIX_LEN],
        work: impl FnOnce(&AeadKey) -> R,
    ) -> Option<R> {
        let Recent(recent) = recent;
        let found = recent.iter().position(|kept| kept.prefix == *prefix);
        let at = if let Some(found) = found {
            found
        } else {
            let kept = self.with_shared(prefix, Arc::clone)?;
            if recent.is_full() {
                recent.remove(0);
            }
            recent.push(kept);
            recent.len() - 1
        };
        recent.get(at).map(|kept| work(&kept.key))
    }

    /// Runs `work` on the kept key of `prefix`, if there is one.
    pub(crate) fn with<R>(&self, prefix: &[u8; PREFIX_LEN], work: impl FnOnce(&AeadKey) -> R) -> Option<R> {
        self.with_shared(prefix, |kept| work(&kept.key))
    }

    fn with_shared<R>(&self, prefix: &[u8; PREFIX_LEN], work: impl FnOnce(&Arc<ReaderKey>) -> R) -> Option<R> {
        let wanted = hint(prefix);
        self.slots
            .iter()
            .filter(|slot| slot.hint.load(Ordering::Relaxed) == wanted)
            .map(|slot| slot.kept.load())
            .find(|kept| kept.as_ref().is_some_and(|reader| reader.prefix == *prefix))
            .and_then(|kept| kept.as_ref().map(work))
    }

    /// Keeps `key`, which has just authenticated a message, if its prefix was also the one missed last.
    pub(crate) fn keep(&self, prefix: [u8; PREFIX_LEN], key: AeadKey) {
        let wanted = hint(&prefix);
        // Two loads where one exchange would do: of two threads that meet here one may be overlooked, and the prefix is kept
        // at its next miss.
        if self.missed.load(Ordering::Relaxed) != wanted {
            self.missed.store(wanted, Ordering::Relaxed);
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

    fn prefix(i: u8) -> [u8; PREFIX_LEN] {
        [i; PREFIX_LEN]
    }

    fn has(keys: &ReaderKeys, prefix: &[u8; PREFIX_LEN]) -> bool {
        keys.with(prefix, |_| ()).is_some()
    }

    #[test]
    fn kept_at_the_second_miss_and_replaced_in_turn() {
        let keys = ReaderKeys::new();
        keys.keep(prefix(1), key());
        assert!(!has(&keys, &prefix(1)), "once is not enough");
        keys.keep(prefix(1), key());
        assert!(has(&keys, &prefix(1)));
        for i in 2..=5 {
            keys.keep(prefix(i), key());
            keys.keep(prefix(i), key());
        }
        assert!(!has(&keys, &prefix(1)), "the oldest made room");
        for i in 2..=5 {
            assert!(has(&keys, &prefix(i)));
        }
        let mut same_hint = prefix(5);
        same_hint[11] ^= 1;
        assert!(!has(&keys, &same_hint), "the whole prefix decides");
    }

    #[test]
    fn a_thread_holds_the_ones_it_used_last() {
        let keys = ReaderKeys::new();
        let mut recent = Recent::default();
        let keep = |i| {
            keys.keep(prefix(i), key());
            keys.keep(prefix(i), key());
        };
        assert!(keys.with_recent(&mut recent, &prefix(1), |_| ()).is_none());
        for i in 1..=4 {
            keep(i);
            assert!(keys.with_recent(&mut recent, &prefix(i), |_| ()).is_some());
        }
        for i in 5..=8 {
            keep(i);
        }
        // The shared ones have made room for others; the thread has still what it had, in the order of first use.
        assert!(
            (1..=4).all(|i| !has(&keys, &prefix(i)) && keys.with_recent(&mut recent, &prefix(i), |_| ()).is_some())
        );
        assert!(keys.with_recent(&mut recent, &prefix(5), |_| ()).is_some());
        assert!(keys.with_recent(&mut recent, &prefix(1), |_| ()).is_none());
        assert!((2..=5).all(|i| keys.with_recent(&mut recent, &prefix(i), |_| ()).is_some()));
        assert_eq!(recent.0.len(), KEPT);
    }

    #[test]
    fn each_prefix_has_its_own_key() {
        let keys = ReaderKeys::new();
        let mut recent = Recent::default();
        let of = |i: u8| AeadKey::new(Backend::RustCrypto, Algorithm::Aes256Gcm, &[i; 32]).unwrap();
        let seal = |key: &AeadKey| {
            let mut tag = [0; 16];
            key.seal(&[0; 12], b"", &mut [0; 5], &mut tag).map(|()| tag)
        };
        for i in 1..=3 {
            keys.keep(prefix(i), of(i));
            keys.keep(prefix(i), of(i));
        }
        for i in [1, 2, 3, 2, 1] {
            assert_eq!(keys.with(&prefix(i), seal), Some(seal(&of(i))));
            assert_eq!(keys.with_recent(&mut recent, &prefix(i), seal), Some(seal(&of(i))));
        }
    }
}
