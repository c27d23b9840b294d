//! Counting the uses of a key as one small type: a budget from which writers draw lots.

use crate::sync::atomic::{AtomicU64, Ordering};

/// Most messages a writer seals under one prefix (FORMAT.md, "Collision bound").
pub(crate) const MAX_LOT: u64 = if cfg!(all(test, shuttle)) { 4 } else { 1 << 16 };

/// Most messages one data key seals (FORMAT.md, "Collision bound").
pub(crate) const MAX_MESSAGES: u64 = 1 << 40;

/// How many more messages a data key may seal in this process. Writers draw lots from it and count those down on their
/// own cache line; what a lot leaves unused goes back.
///
/// The budget can only be over-drawn by nobody: a message is sealed only out of a drawn lot.
pub(crate) struct Budget(AtomicU64);

impl Budget {
    /// A budget of `messages`, at most 2^40.
    pub(crate) fn new(messages: u64) -> Self {
        Self(AtomicU64::new(messages.min(MAX_MESSAGES)))
    }

    /// Whether no lot can be drawn any more.
    pub(crate) fn is_spent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Draws a lot of at most [`MAX_LOT`], or nothing if the budget is spent. Never more than an eighth of what is left,
    /// so that one thread's lot does not starve the others near the end.
    pub(crate) fn draw(&self) -> Option<Lot> {
        let lot = |left: u64| (left / 8).clamp(1, MAX_LOT);
        let taken = |left: u64| left.checked_sub(lot(left));
        let size = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).map(lot).ok()?;
        Some(Lot { size, used: AtomicU64::new(0) })
    }

    /// Ends `lot` and takes back what it did not use.
    pub(crate) fn give_back(&self, lot: &Lot) {
        let used = lot.used.swap(lot.size, Ordering::Relaxed).min(lot.size);
        self.0.fetch_add(lot.size - used, Ordering::Relaxed);
    }
}

/// A number of messages that may be sealed; on a cache line of its own, so that writers on other threads are not slowed.
#[repr(align(64))]
pub(crate) struct Lot {
    size: u64,
    used: AtomicU64,
}

impl Lot {
    /// Takes one message out of the lot; `false` if none is left.
    pub(crate) fn take_one(&self) -> bool {
        // `used` runs past `size` only while callers find the lot empty, far from 2^64.
        self.used.fetch_add(1, Ordering::Relaxed) < self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(lot: &Lot) -> u64 {
        let mut n = 0;
        while lot.take_one() {
            n += 1;
        }
        n
    }

    #[test]
    fn a_budget_gives_exactly_what_it_holds() {
        for total in [0, 1, 7, 8, 9, 1_000, 200_000] {
            let budget = Budget::new(total);
            assert_eq!(budget.is_spent(), total == 0);
            let mut given = 0;
            while let Some(lot) = budget.draw() {
                assert!(lot.size <= MAX_LOT);
                given += drain(&lot);
            }
            assert_eq!(given, total);
            assert!(budget.is_spent());
        }
    }

    #[test]
    fn unused_messages_go_back_once() {
        let budget = Budget::new(80);
        let lot = budget.draw().unwrap();
        assert!(lot.take_one());
        budget.give_back(&lot);
        budget.give_back(&lot);
        assert!(!lot.take_one(), "a lot that was given back is spent");
        assert_eq!(budget.0.load(Ordering::Relaxed), 79);
    }

    #[test]
    fn threads_never_overdraw() {
        let budget = Budget::new(100_000);
        let total: u64 = std::thread::scope(|s| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    s.spawn(|| {
                        let mut n = 0;
                        while let Some(lot) = budget.draw() {
                            for _ in 0..50 {
                                n += u64::from(lot.take_one());
                            }
                            budget.give_back(&lot);
                        }
                        n
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(total, 100_000);
    }
}
