//! Time: wall time for records and periods, monotonic time for the life of cached keys.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A source of time. Production code uses [`SystemClock`]; tests hand in one that they move by hand.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01T00:00:00Z. May jump either way; decides periods and ages of keys, never the life of
    /// a cached key.
    fn unix_millis(&self) -> i64;

    /// Time since an arbitrary origin that never goes back, and that counts the time a machine spends suspended: a
    /// laptop that wakes after a night must not serve last night's keys.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks: `CLOCK_BOOTTIME` on Linux and Android (counts suspend, is not moved by setting the date).
///
/// Elsewhere `std::time::Instant` serves, which on some systems stops while suspended; see SECURITY.md.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_millis(&self) -> i64 {
        // A date before 1970 is a broken clock, read as 1970; one after the year 292 million saturates.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn monotonic(&self) -> Duration {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn monotonic(&self) -> Duration {
        use std::sync::OnceLock;
        use std::time::Instant;
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        ORIGIN.get_or_init(Instant::now).elapsed()
    }
}
