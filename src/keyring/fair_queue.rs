//! A fair queue: a bounded number of pieces of work at once, in order within a tenant, by turns between tenants.
//!
//! A semaphore is first come, first served: behind ten thousand loads of one tenant everybody else's would wait for all of
//! them. Who waits here waits in this process's own memory, and no deadline of a store or a KMS has begun yet.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::key::id::TenantId;
use crate::sync::{Mutex, MutexGuard};

/// Longest wait for a turn. `ErrorKind::Overloaded` says so, too.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// Clones are one queue.
#[derive(Clone)]
pub(crate) struct FairQueue(Arc<Shared>);

struct Shared {
    limits: Limits,
    state: Mutex<State>,
}

pub(crate) struct Limits {
    /// What is queued for, in an error's words.
    pub(crate) what: &'static str,
    /// How many turns there are at once; `None`: as many as the tenants take together.
    pub(crate) at_once: Option<usize>,
    /// How many of them one tenant has at most.
    pub(crate) of_one: usize,
    /// Who waits for so long, and meanwhile sees nothing succeed that it waits for, takes the next failure for its own: what hangs
    /// costs everybody one deadline, and not one more for each that is in front.
    pub(crate) patience: Duration,
}

#[derive(Default)]
struct State {
    taken: usize,
    waiting: usize,
    /// The number of the next that waits.
    next: u64,
    tenants: HashMap<TenantId, OfTenant>,
    /// Tenants that have somebody waiting and are below their limit, in the order of their turns. Empty while a turn is free.
    ring: VecDeque<TenantId>,
    succeeded: Option<Instant>,
}

/// A tenant with turns or somebody waiting.
#[derive(Default)]
struct OfTenant {
    taken: usize,
    waiting: BTreeMap<u64, Waiter>,
    is_in_ring: bool,
    succeeded: Option<Instant>,
}

struct Waiter {
    since: Instant,
    told: oneshot::Sender<Result<Turn>>,
}

/// Work under way. The next one's turn comes when it is dropped.
pub(crate) struct Turn {
    queue: Option<FairQueue>,
    tenant: TenantId,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.give_back(&self.tenant, &Outcome::Unknown);
        }
    }
}

/// How work ended, as far as those who wait care.
enum Outcome<'e> {
    Answered,
    Failed(&'e Error),
    Unknown,
}

/// Somebody who waits. Dropped before its turn came, it gives its place up.
struct Place {
    queue: FairQueue,
    tenant: TenantId,
    number: u64,
    told: oneshot::Receiver<Result<Turn>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.leave(&self.tenant, self.number);
    }
}

impl FairQueue {
    pub(crate) fn new(limits: Limits) -> Self {
        Self(Arc::new(Shared { limits, state: Mutex::default() }))
    }

    /// Does some of a tenant's work in its turn. How it ends, those behind it are told.
    ///
    /// # Errors
    /// As [`Self::turn`]; else the work's.
    pub(crate) async fn run<T>(&self, tenant: &TenantId, work: impl Future<Output = Result<T>>) -> Result<T> {
        let turn = self.turn(tenant).await?;
        let done = work.await;
        turn.ended(done.as_ref().err());
        done
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// `Overloaded` after [`LONGEST_WAIT`]; the failure of what is in front, if nothing there succeeds.
    pub(crate) async fn turn(&self, tenant: &TenantId) -> Result<Turn> {
        let mut place = match self.join(tenant) {
            Ok(turn) => return Ok(turn),
            Err(place) => place,
        };
        match tokio::time::timeout(LONGEST_WAIT, &mut place.told).await {
            Ok(Ok(told)) => told,
            Ok(Err(e)) => {
                let message = format!("the queue for {} is gone; retry", self.0.limits.what);
                Err(Error::new(ErrorKind::Unavailable, message).with_source(e))
            }
            Err(_) => Err(self.overloaded(tenant)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self, taken: usize) -> bool {
        self.0.limits.at_once.is_some_and(|at_once| taken >= at_once)
    }

    fn new_turn(&self, tenant: &TenantId) -> Turn {
        Turn { queue: Some(self.clone()), tenant: tenant.clone() }
    }

    fn join(&self, tenant: &TenantId) -> Result<Turn, Place> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let of = state.tenants.entry(tenant.clone()).or_default();
        if !self.is_full(state.taken) && of.taken < self.0.limits.of_one {
            // Nobody of the tenant's waits then, nor anybody else who could have the turn.
            state.taken += 1;
            of.taken += 1;
            return Ok(self.new_turn(tenant));
        }
        let (number, (told, hears)) = (state.next, oneshot::channel());
        state.next += 1;
        state.waiting += 1;
        of.waiting.insert(number, Waiter { since: Instant::now(), told });
        if of.taken < self.0.limits.of_one && !of.is_in_ring {
            of.is_in_ring = true;
            state.ring.push_back(tenant.clone());
        }
        Err(Place { queue: self.clone(), tenant: tenant.clone(), number, told: hears })
    }

    fn leave(&self, tenant: &TenantId, number: u64) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(of) = state.tenants.get_mut(tenant) else { return };
        if of.waiting.remove(&number).is_none() {
            return; // it was told
        }
        state.waiting -= 1;
        if of.waiting.is_empty() && of.taken == 0 && !of.is_in_ring {
            state.tenants.remove(tenant);
        }
    }

    fn give_back(&self, tenant: &TenantId, outcome: &Outcome<'_>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.taken = state.taken.saturating_sub(1);
        if let Some(of) = state.tenants.get_mut(tenant) {
            of.taken = of.taken.saturating_sub(1);
        }
        match outcome {
            Outcome::Answered => {
                let now = Some(Instant::now());
                state.succeeded = now;
                if let Some(of) = state.tenants.get_mut(tenant) {
                    of.succeeded = now;
                }
            }
            Outcome::Failed(error) => self.share_failure(state, tenant, error),
            Outcome::Unknown => {}
        }
        if let Some(of) = state.tenants.get_mut(tenant)
            && !of.waiting.is_empty()
            && !of.is_in_ring
        {
            of.is_in_ring = true;
            state.ring.push_back(tenant.clone());
        }
        self.give_turns(state);
        if state.tenants.get(tenant).is_some_and(|of| of.taken == 0 && of.waiting.is_empty() && !of.is_in_ring) {
            state.tenants.remove(tenant);
        }
    }

    /// Gives what is free to those whose turn it is.
    fn give_turns(&self, state: &mut State) {
        while !self.is_full(state.taken) {
            let Some(tenant) = state.ring.pop_front() else { return };
            let Some(of) = state.tenants.get_mut(&tenant) else { continue };
            of.is_in_ring = false;
            while let Some((_, waiter)) = of.waiting.pop_first() {
                state.waiting = state.waiting.saturating_sub(1);
                match waiter.told.send(Ok(self.new_turn(&tenant))) {
                    Ok(()) => {
                        state.taken += 1;
                        of.taken += 1;
                        break;
                    }
                    // Gone at this very moment. Its turn was never counted.
                    Err(Ok(mut turn)) => drop(turn.queue.take()),
                    Err(Err(_)) => {}
                }
            }
            if of.waiting.is_empty() {
                if of.taken == 0 {
                    state.tenants.remove(&tenant);
                }
            } else if of.taken < self.0.limits.of_one {
                of.is_in_ring = true;
                state.ring.push_back(tenant);
            }
        }
    }

    /// A piece of work failed: who waits long enough, and saw nothing succeed meanwhile, fails with it.
    fn share_failure(&self, state: &mut State, tenant: &TenantId, error: &Error) {
        let Some(since) = Instant::now().checked_sub(self.0.limits.patience) else { return };
        let fails = |of: &mut OfTenant, succeeded: Option<Instant>| {
            if succeeded.is_some_and(|at| at > since) {
                return 0;
            }
            let late = |waiter: &Waiter| waiter.since <= since && succeeded.is_none_or(|at| at <= waiter.since);
            let late: Vec<u64> = of.waiting.iter().filter(|(_, it)| late(it)).map(|(number, _)| *number).collect();
            for waiter in late.iter().filter_map(|number| of.waiting.remove(number)) {
                let _ = waiter.told.send(Err(self.behind(error))); // or it has gone meanwhile
            }
            late.len()
        };
        if let Some(of) = state.tenants.get_mut(tenant) {
            let succeeded = of.succeeded;
            state.waiting = state.waiting.saturating_sub(fails(of, succeeded));
        }
        // Where all share the turns, they wait for one another's work too.
        if self.0.limits.at_once.is_some() && state.succeeded.is_none_or(|at| at <= since) {
            for of in state.tenants.values_mut() {
                state.waiting = state.waiting.saturating_sub(fails(of, state.succeeded));
            }
        }
    }

    #[cold]
    fn behind(&self, error: &Error) -> Error {
        let Limits { what, patience, .. } = &self.0.limits;
        let message = format!(
            "waiting for a turn: none of the {what} that were in front succeeded within {patience:?}; the last one failed: {error}"
        );
        let behind = Error::new(error.kind(), message);
        error.kek().map_or(behind.clone(), |kek| behind.with_kek(kek))
    }

    #[cold]
    fn overloaded(&self, tenant: &TenantId) -> Error {
        let Limits { what, at_once, of_one, .. } = &self.0.limits;
        let (of_tenant, all) = {
            let state = self.lock();
            (state.tenants.get(tenant).map_or(0, |of| of.waiting.len()), state.waiting)
        };
        let at_once = at_once.map_or_else(String::new, |at_once| format!(" and {at_once} in all"));
        let message = format!(
            "this process has too much to do: after {LONGEST_WAIT:?} it was not yet the call's turn among {what}, {of_one} of \
             a tenant's{at_once} at once; {of_tenant} of the tenant's wait, of {all}. Neither the key store nor a KMS is to blame. \
             Retry later, or share the load among more processes"
        );
        Error::new(ErrorKind::Overloaded, message).with_tenant(tenant.as_str())
    }

    #[cfg(test)]
    fn sizes(&self) -> (usize, usize, usize, usize) {
        let state = self.lock();
        (state.taken, state.waiting, state.tenants.len(), state.ring.len())
    }
}

impl Turn {
    /// Says how the work ended, before the next one's turn comes.
    pub(crate) fn ended(mut self, failure: Option<&Error>) {
        let outcome = match failure {
            Some(e) if e.kind() == ErrorKind::Overloaded => Outcome::Unknown, // for a turn elsewhere
            Some(e) if is_outage(e.kind()) => Outcome::Failed(e),
            _ => Outcome::Answered,
        };
        if let Some(queue) = self.queue.take() {
            queue.give_back(&self.tenant, &outcome);
        }
    }
}

/// Nobody answered, or not as asked. All else is an answer.
fn is_outage(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Throttled | ErrorKind::StoreFault)
}

#[cfg(all(test, not(shuttle)))]
mod tests;
