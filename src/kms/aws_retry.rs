//! The one retry policy of the AWS provider: a deadline for each attempt and for the call, full-jitter exponential
//! backoff, and a budget for each tenant's account, so that retries never multiply the load on a KMS that is failing.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::crypto::{generation, random};
use crate::error::{Error, ErrorKind, Result};

/// The longest pause before the second attempt; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// What a retry costs, and what a success gives back: in the long run one retry for every ten successes.
const COST: u32 = 10;
const REFUND: u32 = 1;

/// A failed attempt, and whether another one may succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) passes: bool,
}

impl Failure {
    /// It fails the same way again.
    pub(crate) fn for_good(error: Error) -> Self {
        Self { error, passes: false }
    }

    /// The KMS answered with something that cannot be its answer. A proxy in between or a bad moment: worth another try.
    pub(crate) fn malformed(what: &str) -> Self {
        let error = Error::new(ErrorKind::Unavailable, format!("the reply of AWS KMS is malformed: {what}"));
        Self { error, passes: true }
    }
}

/// When attempts end and whether there is another one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryPolicy {
    pub(crate) attempts: u32,
    pub(crate) attempt_timeout: Duration,
    pub(crate) call_timeout: Duration,
}

impl RetryPolicy {
    /// For calls that no message waits for, and that may make an RSA key.
    pub(crate) fn at_leisure(self) -> Self {
        let attempt_timeout = self.attempt_timeout.max(Duration::from_secs(10));
        Self { attempt_timeout, call_timeout: self.call_timeout.max(attempt_timeout.saturating_mul(3)), ..self }
    }

    /// Runs `attempt` until it succeeds, fails for good, or attempts, budget or time are used up; then the last failure
    /// is the answer. Dropping the future stops everything.
    pub(crate) async fn run<T, F>(&self, budget: &RetryBudget, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let began = Instant::now();
        let left = || self.call_timeout.saturating_sub(began.elapsed());
        let mut attempts = 0;
        loop {
            let limit = left().min(self.attempt_timeout);
            let failure = match timeout(limit, attempt()).await {
                Ok(Ok(done)) => {
                    budget.refund();
                    return Ok(done);
                }
                Ok(Err(failure)) => failure,
                Err(_) => {
                    let late = format!("AWS KMS did not answer within {limit:?}; check the endpoint and the network");
                    Failure { error: Error::new(ErrorKind::Unavailable, late), passes: true }
                }
            };
            attempts += 1;
            if !failure.passes || attempts >= self.attempts {
                return Err(failure.error);
            }
            let pause = full_jitter(longest_pause(attempts), random_fraction());
            if pause >= left() || !budget.take() {
                return Err(failure.error);
            }
            tracing::debug!(error = %failure.error, attempts, ?pause, "AWS KMS failed, trying again");
            sleep(pause).await;
        }
    }
}

fn longest_pause(attempts: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

/// Anywhere between nothing and `longest`: callers that failed together do not come back together.
fn full_jitter(longest: Duration, fraction: f64) -> Duration {
    longest.mul_f64(fraction)
}

fn random_fraction() -> f64 {
    let mut bytes = [0; 12];
    // Without randomness there is no jitter.
    let _ = generation::current().and_then(|now| random::fill_public(&mut bytes, now));
    let [a, b, c, d, ..] = bytes;
    f64::from(u32::from_le_bytes([a, b, c, d])) / f64::from(u32::MAX)
}

/// A token bucket of retries.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    left: AtomicU32,
    full: u32,
}

impl RetryBudget {
    pub(crate) fn new(retries: u32) -> Self {
        let full = retries.saturating_mul(COST);
        Self { left: AtomicU32::new(full), full }
    }

    fn take(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(COST)).is_ok()
    }

    fn refund(&self) {
        let more = |left: u32| (left < self.full).then(|| left.saturating_add(REFUND).min(self.full));
        // Nothing to do if it is full.
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const POLICY: RetryPolicy =
        RetryPolicy { attempts: 4, attempt_timeout: Duration::from_secs(2), call_timeout: Duration::from_secs(60) };

    async fn attempts_of(policy: RetryPolicy, budget: &RetryBudget, passes: bool) -> u32 {
        let attempts = Cell::new(0);
        let failing = || {
            attempts.set(attempts.get() + 1);
            async move { Err::<(), _>(Failure { error: Error::new(ErrorKind::Throttled, "slow down"), passes }) }
        };
        assert_eq!(policy.run(budget, failing).await.unwrap_err().kind(), ErrorKind::Throttled);
        attempts.get()
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_tried_again_and_nothing_else() {
        let budget = RetryBudget::new(100);
        assert_eq!(attempts_of(POLICY, &budget, true).await, 4);
        assert_eq!(attempts_of(POLICY, &budget, false).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_budget_ends_retries_and_successes_fill_it_slowly() {
        let budget = RetryBudget::new(4);
        assert_eq!(attempts_of(POLICY, &budget, true).await, 4);
        assert_eq!(attempts_of(POLICY, &budget, true).await, 2);
        assert_eq!(attempts_of(POLICY, &budget, true).await, 1);
        for _ in 0..10 {
            POLICY.run(&budget, || async { Ok(()) }).await.unwrap();
        }
        assert_eq!(attempts_of(POLICY, &budget, true).await, 2);
        for _ in 0..1000 {
            budget.refund();
        }
        assert_eq!(budget.left.load(Ordering::Relaxed), 4 * COST);
    }

    #[tokio::test(start_paused = true)]
    async fn each_attempt_and_the_call_have_a_deadline() {
        let attempts = Cell::new(0);
        let began = Instant::now();
        let silent = || {
            attempts.set(attempts.get() + 1);
            std::future::pending::<Result<(), Failure>>()
        };
        let e = POLICY.run(&RetryBudget::new(100), silent).await.unwrap_err();
        assert_eq!((e.kind(), attempts.get()), (ErrorKind::Unavailable, 4));
        assert!(began.elapsed() >= 4 * POLICY.attempt_timeout);

        let short = RetryPolicy { call_timeout: Duration::from_secs(3), ..POLICY };
        let began = Instant::now();
        short.run(&RetryBudget::new(100), silent).await.unwrap_err();
        assert!(began.elapsed() <= short.call_timeout + Duration::from_millis(2)); // the paused clock, in steps of 1 ms
    }

    // "Without a deadline" is said by a time without end, which no instant is reached by.
    #[tokio::test(start_paused = true)]
    async fn timeouts_without_end_are_none() {
        for policy in [
            RetryPolicy { call_timeout: Duration::MAX, ..POLICY },
            RetryPolicy { attempts: 4, attempt_timeout: Duration::MAX, call_timeout: Duration::MAX }.at_leisure(),
        ] {
            assert_eq!(policy.run(&RetryBudget::new(1), || async { Ok(7) }).await.unwrap(), 7);
            assert_eq!(attempts_of(policy, &RetryBudget::new(100), true).await, 4);
        }
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_spread_from_nothing_on() {
        let longest: Vec<_> = (1..=4).map(longest_pause).collect();
        assert_eq!(longest, [50, 100, 200, 400].map(Duration::from_millis));
        assert_eq!((longest_pause(7), longest_pause(u32::MAX)), (LONGEST_PAUSE, LONGEST_PAUSE));
        assert_eq!(full_jitter(longest[0], 0.0), Duration::ZERO);
        assert_eq!(full_jitter(longest[0], 1.0), longest[0]);
        assert!((0..1000).all(|_| (0.0..=1.0).contains(&random_fraction())));
    }
}
