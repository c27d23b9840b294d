//! When a data key is due for a successor.

use std::time::Duration;

use serde::Serialize;

use crate::crypto::allotment::MAX_MESSAGES;
use crate::error::{Error, Result};
use crate::key::json::objects;

/// By how much the clocks of a fleet's machines may differ, in milliseconds: an hour.
pub(crate) const CLOCKS_DIFFER: i64 = 3_600_000;

objects! {
    /// When a data key is replaced, besides on demand and at the end of its period.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
    pub struct RotationPolicy {
        /// Age in seconds after which a data key seals no more. Default: 90 days.
        max_age_secs: u64,
        /// Messages after which it seals no more in one process. Default: 2^32.
        max_messages: u64,
    }
}

impl Default for RotationPolicy {
    fn default() -> Self {
        Self { max_age_secs: 90 * 24 * 3600, max_messages: 1 << 32 }
    }
}

impl RotationPolicy {
    /// Rotates at this age, counted in whole seconds.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age_secs = age.as_secs();
        self
    }

    /// Rotates after this many messages sealed by one process. A fleet of *n* processes that seal under one data key can
    /// seal *n* times as many under it; see FORMAT.md, "Nonces and bounds".
    pub fn max_messages(mut self, messages: u64) -> Self {
        self.max_messages = messages;
        self
    }

    pub(crate) fn age(self) -> Duration {
        Duration::from_secs(self.max_age_secs)
    }

    pub(crate) fn messages(self) -> u64 {
        self.max_messages
    }

    /// How much longer a key created at `created` (Unix milliseconds) may seal; zero if it is due. A creation time in the
    /// future counts as now while clocks may differ by so much; beyond [`CLOCKS_DIFFER`] one of them was wrong, and the key is due, or
    /// one that was made while the clock was years ahead would seal until then.
    pub(crate) fn remaining(self, created: i64, now: i64) -> Duration {
        if created.saturating_sub(now) > CLOCKS_DIFFER {
            return Duration::ZERO;
        }
        let age = Duration::from_millis(u64::try_from(now.saturating_sub(created)).unwrap_or(0));
        Duration::from_secs(self.max_age_secs).saturating_sub(age)
    }

    /// # Errors
    /// `InvalidArgument` if nothing could ever be sealed, or more than 2^40 messages could under one key.
    pub(crate) fn check(self) -> Result<()> {
        if self.max_age_secs == 0 {
            return Err(Error::invalid("the rotation age must be at least a second"));
        }
        if !(1..=MAX_MESSAGES).contains(&self.max_messages) {
            return Err(Error::invalid("the rotation count must be from 1 to 2^40 messages"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_counts_from_creation() {
        let policy = RotationPolicy::default().max_age(Duration::from_secs(10));
        assert_eq!(policy.remaining(1_000, 1_000), Duration::from_secs(10));
        assert_eq!(policy.remaining(1_000, 10_999), Duration::from_millis(1));
        assert_eq!(policy.remaining(1_000, 11_000), Duration::ZERO);
        assert_eq!(policy.remaining(5_000, 1_000), Duration::from_secs(10));
        assert_eq!(policy.remaining(i64::MIN, i64::MAX), Duration::ZERO);
        assert_eq!(policy.remaining(CLOCKS_DIFFER, 0), Duration::from_secs(10));
        assert_eq!(policy.remaining(CLOCKS_DIFFER + 1, 0), Duration::ZERO);
        assert_eq!(policy.remaining(i64::MAX, i64::MIN), Duration::ZERO);
    }

    #[test]
    fn limits() {
        assert!(RotationPolicy::default().check().is_ok());
        assert!(RotationPolicy::default().max_messages(0).check().is_err());
        assert!(RotationPolicy::default().max_messages(MAX_MESSAGES + 1).check().is_err());
        assert!(RotationPolicy::default().max_age(Duration::from_millis(999)).check().is_err());
    }
}
