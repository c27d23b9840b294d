//! A clock moved by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;

/// A clock that stands still until it is moved. Clones show the same time.
#[derive(Clone)]
pub struct ManualClock(Arc<Times>);

struct Times {
    unix_millis: AtomicI64,
    monotonic_nanos: AtomicU64,
}

impl ManualClock {
    /// A clock that shows this Unix time in milliseconds.
    pub fn at(unix_millis: i64) -> Self {
        Self(Arc::new(Times {
            unix_millis: AtomicI64::new(unix_millis),
            monotonic_nanos: AtomicU64::new(1_000_000_000),
        }))
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.0.monotonic_nanos.fetch_add(u64::try_from(by.as_nanos()).unwrap(), Ordering::SeqCst);
        self.set_back(-i64::try_from(by.as_millis()).unwrap());
    }

    /// Sets the wall clock back by this many milliseconds (forward if negative); monotonic time does not notice.
    pub fn set_back(&self, millis: i64) {
        self.0.unix_millis.fetch_sub(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn unix_millis(&self) -> i64 {
        self.0.unix_millis.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.0.monotonic_nanos.load(Ordering::SeqCst))
    }
}
