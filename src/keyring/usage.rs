//! How much this process has used each data key: what a usage limit counts outlives the key in the cache, its slot and its
//! handles, for as long as the process.
//!
//! The counts of many keys are exact. Beyond, those of keys that nobody holds are folded into a table of fixed size, a key's place
//! in which is that of others too: what comes back from there is never less than what was used, so a key may get its successor
//! early, and never late. Keys made here start from nothing whatever the table says, so that no successor is born spent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::crypto::allotment::Budget;
use crate::key::id::KeyId;

/// Counts that are kept exactly, beside those of keys that somebody holds: some 8 MB.
const EXACT: usize = if cfg!(test) { 64 } else { 65_536 };
/// Places of the folded counts, a power of two: half a megabyte.
const FOLDED: usize = if cfg!(test) { 16 } else { 65_536 };

pub(crate) struct Usage(Mutex<Counts>);

struct Counts {
    /// By key id alone: two tenants with one data key would use one key.
    exact: HashMap<KeyId, Arc<Budget>>,
    /// How many there may be before some are folded.
    room: usize,
    /// The most that a key at this place had used.
    folded: Vec<u64>,
}

impl Default for Usage {
    fn default() -> Self {
        Self(Mutex::new(Counts { exact: HashMap::new(), room: EXACT, folded: Vec::new() }))
    }
}

impl Usage {
    /// The budget of a key that was loaded: the one it already draws from in this process, or one of `messages` less what it used.
    pub(crate) fn of(&self, key_id: &KeyId, messages: u64) -> Arc<Budget> {
        self.budget(key_id, |counts| Budget::after(messages, counts.folded_use(key_id)))
    }

    /// The budget of a key that was made just now.
    pub(crate) fn of_new(&self, key_id: &KeyId, messages: u64) -> Arc<Budget> {
        self.budget(key_id, |_| Budget::new(messages))
    }

    fn budget(&self, key_id: &KeyId, fresh: impl FnOnce(&Counts) -> Budget) -> Arc<Budget> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(budget) = counts.exact.get(key_id) {
            return Arc::clone(budget);
        }
        if counts.exact.len() >= counts.room {
            counts.fold();
        }
        let fresh = Arc::new(fresh(&counts));
        counts.exact.insert(*key_id, Arc::clone(&fresh));
        fresh
    }
}

impl Counts {
    /// Folds the counts of keys that nobody holds. If many are held there is room for twice as many, so that folding costs each
    /// key that comes in the same.
    fn fold(&mut self) {
        self.folded.resize(FOLDED, 0);
        let folded = &mut self.folded;
        self.exact.retain(|key_id, budget| {
            if Arc::strong_count(budget) > 1 {
                return true;
            }
            if let Some(most) = folded.get_mut(place(key_id)) {
                *most = budget.used().max(*most);
            }
            false
        });
        self.room = EXACT.max(2 * self.exact.len());
    }

    fn folded_use(&self, key_id: &KeyId) -> u64 {
        self.folded.get(place(key_id)).copied().unwrap_or(0)
    }
}

/// Key ids are hashes: any bytes of them are a place.
fn place(key_id: &KeyId) -> usize {
    let [a, b, ..] = *key_id.as_bytes();
    usize::from(u16::from_be_bytes([a, b])) % FOLDED
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> KeyId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        KeyId::from_bytes(bytes)
    }

    fn uses(budget: &Arc<Budget>, messages: u64) {
        for _ in 0..messages {
            assert!(budget.draw().unwrap().take_one());
        }
    }

    #[test]
    fn what_a_key_used_is_never_forgotten_and_memory_is_bounded() {
        let usage = Usage::default();
        for n in 0..1_000 {
            uses(&usage.of_new(&id(n), 100), 70);
            assert!(usage.0.lock().unwrap().exact.len() <= EXACT);
        }
        for n in 0..1_000 {
            let budget = usage.of(&id(n), 100);
            assert!(budget.left() <= 30, "key {n}");
            uses(&budget, budget.left().min(20));
        }
        // Folded again, it has not forgotten the twenty either.
        for n in 0..1_000 {
            assert!(usage.of(&id(n), 100).left() <= 10, "key {n}");
        }
    }

    #[test]
    fn a_key_that_is_made_now_has_used_nothing_and_one_that_is_held_is_counted_exactly() {
        let usage = Usage::default();
        let held: Vec<_> = (0..200).map(|n| usage.of_new(&id(n), 100)).collect();
        for budget in &held {
            uses(budget, 10);
        }
        for n in 1_000..2_000 {
            uses(&usage.of_new(&id(n), 100), 100);
        }
        for (n, budget) in held.iter().enumerate() {
            assert!(Arc::ptr_eq(budget, &usage.of(&id(n), 100)));
            assert_eq!(budget.left(), 90);
        }
        assert_eq!(usage.of_new(&id(5_000), 100).left(), 100);
    }
}
