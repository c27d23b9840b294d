//! Counting the uses of a key as one small type: a budget from which writers draw lots.

use std::sync::Arc;

use crate::sync::atomic::{AtomicU64, Ordering};

/// Most messages a writer seals under one prefix (FORMAT.md, "Nonces and bounds").
pub(crate) const MAX_LOT: u64 = if cfg!(all(test, shuttle)) { 4 } else { 1 << 16 };

/// Most messages one data key seals (FORMAT.md, "Nonces and bounds").
pub(crate) const MAX_MESSAGES: u64 = 1 << 40;

/// How many more messages a data key may seal in this process. Writers draw lots from it and count those down by themselves;
/// what a lot leaves unused goes back.
///
/// The budget can only be over-drawn by nobody: a message is sealed only out of a drawn lot.
pub(crate) struct Budget {
    left: AtomicU64,
    /// What it began with.
    messages: u64,
}

impl Budget {
    /// A budget of `messages`, at most 2^40.
    pub(crate) fn new(messages: u64) -> Self {
        Self::after(messages, 0)
    }

    /// A budget of `messages`, `used` of which are gone.
    pub(crate) fn after(messages: u64, used: u64) -> Self {
        let messages = messages.min(MAX_MESSAGES);
        Self { left: AtomicU64::new(messages.saturating_sub(used)), messages }
    }

    /// How many messages were drawn from it and did not come back.
    pub(crate) fn used(&self) -> u64 {
        self.messages.saturating_sub(self.left.load(Ordering::Relaxed))
    }

    /// How many can still be drawn.
    #[cfg(test)]
    pub(crate) fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Whether no lot can be drawn any more.
    pub(crate) fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Draws a lot of at most [`MAX_LOT`], or nothing if the budget is spent. Never more than an eighth of what is left,
    /// so that one thread's lot does not starve the others near the end.
    pub(crate) fn draw(self: &Arc<Self>) -> Option<Lot> {
        let lot = |left: u64| (left / 8).clamp(1, MAX_LOT);
        let taken = |left: u64| left.checked_sub(lot(left));
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).map(lot).ok()?;
        Some(Lot { left, budget: Arc::clone(self) })
    }
}

/// A number of messages that may be sealed, of one holder. What is left of it goes back into the budget when it is dropped.
pub(crate) struct Lot {
    left: u64,
    budget: Arc<Budget>,
}

impl Lot {
    /// Takes one message out of the lot; `false` if none is left.
    #[inline]
    pub(crate) fn take_one(&mut self) -> bool {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Whether it was drawn from `budget`.
    pub(crate) fn is_of(&self, budget: &Arc<Budget>) -> bool {
        Arc::ptr_eq(&self.budget, budget)
    }
}

impl Drop for Lot {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.left, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(messages: u64) -> Arc<Budget> {
        Arc::new(Budget::new(messages))
    }

    fn drain(lot: &mut Lot) -> u64 {
        let mut n = 0;
        while lot.take_one() {
            n += 1;
        }
        n
    }

    #[test]
    fn a_budget_gives_exactly_what_it_holds() {
        for total in [0, 1, 7, 8, 9, 1_000, 200_000, 9 * MAX_LOT] {
            let budget = budget(total);
            assert_eq!(budget.is_spent(), total == 0);
            let mut given = 0;
            while let Some(mut lot) = budget.draw() {
                assert!(lot.left <= MAX_LOT && lot.left <= total.div_ceil(8));
                given += drain(&mut lot);
            }
            assert_eq!(given, total);
            assert!(budget.is_spent());
        }
    }

    #[test]
    fn unused_messages_go_back() {
        let (budget, other) = (budget(80), budget(80));
        let mut lot = budget.draw().unwrap();
        assert!(lot.is_of(&budget) && !lot.is_of(&other));
        assert!(lot.take_one());
        assert_eq!(budget.left(), 70);
        drop(lot);
        assert_eq!(budget.left(), 79);
        assert_eq!(other.left(), 80);
    }

    #[test]
    fn more_than_2_to_the_40_is_no_budget() {
        assert_eq!(Budget::new(u64::MAX).left(), MAX_MESSAGES);
    }

    #[test]
    fn threads_never_overdraw() {
        let budget = budget(100_000);
        let total: u64 = std::thread::scope(|s| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    s.spawn(|| {
                        let mut n = 0;
                        while let Some(mut lot) = budget.draw() {
                            n += (0..50).map(|_| u64::from(lot.take_one())).sum::<u64>();
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
