//! Trying again what others got in between of: after a pause that grows, of which a random part is waited. Many that lost the same
//! race at once, and come back at once, would lose it again with each try.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use tokio::time::Instant;

/// How long a read-change-write of the control plane is tried.
const OF_A_DECISION: Duration = Duration::from_secs(30);
/// Half the longest pause before the second try; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// Longest pause before the next try.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// How long something is tried that others get in between of.
pub(crate) struct Patience {
    longest: Duration,
    began: Option<Instant>,
    tries: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self::within(OF_A_DECISION)
    }
}

impl Patience {
    /// No try begins later than this after the first one.
    pub(crate) fn within(longest: Duration) -> Self {
        Self { longest, began: None, tries: 0 }
    }

    /// How long to pause before the next try, nothing before the first one; `None` once it was tried long enough.
    pub(crate) fn next_pause(&mut self) -> Option<Duration> {
        let began = *self.began.get_or_insert_with(Instant::now);
        let pause = match self.tries {
            0 => Duration::ZERO,
            tries => longest_pause(tries).mul_f64(random_part()),
        };
        self.tries = self.tries.saturating_add(1);
        (self.tries == 1 || began.elapsed().saturating_add(pause) < self.longest).then_some(pause)
    }
}

fn longest_pause(tries: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << tries.min(16)).min(LONGEST_PAUSE)
}

/// From 0 to 1. Nothing secret hangs on it: std's own keys for hash maps are as random as that takes, on every floor.
fn random_part() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(random >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_and_no_two_callers_take_the_same() {
        assert_eq!((longest_pause(1), longest_pause(2)), (2 * FIRST_PAUSE, 4 * FIRST_PAUSE));
        assert_eq!((longest_pause(9), longest_pause(u32::MAX)), (LONGEST_PAUSE, LONGEST_PAUSE));
        let parts: Vec<f64> = (0..100).map(|_| random_part()).collect();
        assert!(parts.iter().all(|part| (0.0..=1.0).contains(part)));
        assert!(parts.iter().any(|part| *part < 0.4) && parts.iter().any(|part| *part > 0.6), "{parts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_tried_at_once_and_then_until_patience_ends() {
        let (began, mut patience, mut tries) = (Instant::now(), Patience::within(Duration::from_secs(3)), 0);
        while let Some(pause) = patience.next_pause() {
            assert!(tries > 0 || pause.is_zero(), "the first try waits");
            tokio::time::advance(pause).await;
            tries += 1;
        }
        assert!(tries > 15 && began.elapsed() < Duration::from_secs(3), "{tries} tries in {:?}", began.elapsed());
    }
}
