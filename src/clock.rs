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

/// The machine's clocks: `CLOCK_BOOTTIME` on Linux and Android (counts suspend, is not moved by setting the date), as of the
/// kernel's last tick: up to 10 ms behind, and two threads may see it differ by so much.
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
        boot_time()
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn monotonic(&self) -> Duration {
        use std::sync::OnceLock;
        use std::time::Instant;
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        ORIGIN.get_or_init(Instant::now).elapsed()
    }
}

/// `CLOCK_BOOTTIME`, read once for each tick of the kernel's and thread.
///
/// Reading it takes several times as long as reading the coarse clock that the kernel moves on at each tick, and about
/// half as long as sealing a short message. There is no coarse clock that counts suspend, so within a tick of
/// `CLOCK_MONOTONIC_COARSE` the time read at that tick's first call stands. That clock is moved on by suspending, too, so
/// the first call after it reads anew.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn boot_time() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    use std::cell::Cell;
    thread_local! {
        static LAST: Cell<(Duration, Duration)> = const { Cell::new((Duration::MAX, Duration::ZERO)) };
    }
    let read = |id| {
        let t = clock_gettime(id);
        Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
    };
    let tick = read(ClockId::MonotonicCoarse);
    match LAST.get() {
        (known, time) if known == tick => time,
        _ => {
            let time = read(ClockId::Boottime);
            LAST.set((tick, time));
            time
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_passes_and_never_goes_back() {
        let start = SystemClock.monotonic();
        let mut last = start;
        while last < start + Duration::from_millis(30) {
            let now = SystemClock.monotonic();
            assert!(now >= last);
            last = now;
        }
    }
}
