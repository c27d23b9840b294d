//! Single flight: concurrent callers that miss the same key share one load, and its failure.
//!
//! A load runs in a task of its own, so that a caller who gives up neither stops it nor leaves it half-way; one that still waits for
//! its turn is given up with its last caller. A purge marks the tenant's loads under way as stale: what such a load read before
//! the purge is not used, it starts over.
//!
//! Who missed a key a moment before its flight landed must not start another: so the cache is asked once more on the board,
//! where no flight can land in between.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::scope::Scope;
use crate::keyring::cache::CachedKey;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// What is being loaded.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Wanted {
    /// The Active key of a scope, created if there is none.
    Sealing(TenantId, Scope),
    /// The Active key of a scope in a period that is past.
    Resealing(TenantId, Scope, PeriodLabel),
    /// The key of a scope in its next period, made if there is none.
    Ahead(TenantId, Scope, PeriodLabel),
    /// A key by its id.
    Opening(TenantId, KeyId),
}

impl Wanted {
    pub(crate) fn tenant(&self) -> &TenantId {
        match self {
            Self::Sealing(tenant, _)
            | Self::Resealing(tenant, ..)
            | Self::Ahead(tenant, ..)
            | Self::Opening(tenant, _) => tenant,
        }
    }

    /// The scope whose Active key is wanted.
    pub(crate) fn sealing_scope(&self) -> Option<&Scope> {
        match self {
            Self::Sealing(_, scope) | Self::Resealing(_, scope, _) | Self::Ahead(_, scope, _) => Some(scope),
            Self::Opening(..) => None,
        }
    }
}

pub(crate) type Loaded = Result<Arc<CachedKey>>;

/// Whether a purge came in between.
#[derive(Clone, Default)]
pub(crate) struct Stale(Arc<AtomicBool>);

impl Stale {
    /// Starts over: what is read from now on is fresh.
    pub(crate) fn clear(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Whether they are one flight's.
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

struct Flight {
    stale: Stale,
    land: watch::Sender<Option<Loaded>>,
    /// It is wanted though nobody waits for it.
    is_ahead: bool,
}

/// The loads under way.
#[derive(Clone, Default)]
pub(crate) struct Flights(Arc<Mutex<HashMap<Wanted, Flight>>>);

/// Takes a flight off the board when its task ends, however it ends.
struct Boarded {
    flights: Flights,
    wanted: Wanted,
    stale: Stale,
}

impl Drop for Boarded {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        // After it was given up, another one may be in its place.
        if flights.get(&self.wanted).is_some_and(|flight| flight.stale.is(&self.stale)) {
            flights.remove(&self.wanted);
        }
    }
}

/// Who waits for a flight, as its load sees them.
pub(crate) struct Waiting {
    flights: Flights,
    wanted: Wanted,
    land: watch::Sender<Option<Loaded>>,
}

impl Waiting {
    /// Resolves once nobody waits for the flight any more, which is then off the board: a load that has not begun need not begin.
    pub(crate) async fn given_up(&self) {
        loop {
            self.land.closed().await;
            let mut flights = self.flights.lock();
            // Who joins does so under this lock.
            if self.land.receiver_count() > 0 {
                continue;
            }
            if flights.get(&self.wanted).is_some_and(|flight| flight.is_ahead) {
                break;
            }
            flights.remove(&self.wanted);
            return;
        }
        std::future::pending::<()>().await;
    }
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<Wanted, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what `in_hand` finds; or joins the flight of `wanted`, or starts one with `load` on `runtime`. Who has a key in hand takes
    /// nothing of a refresh under way, its failure least of all.
    /// `is_ahead`: it goes on though nobody waits for it.
    pub(crate) fn join<F>(
        &self,
        runtime: &Handle,
        wanted: Wanted,
        is_ahead: bool,
        in_hand: impl FnOnce() -> Option<Arc<CachedKey>>,
        load: impl FnOnce(Wanted, Stale, Waiting) -> F,
    ) -> watch::Receiver<Option<Loaded>>
    where
        F: Future<Output = Loaded> + Send + 'static,
    {
        let mut flights = self.lock();
        if let Some(key) = in_hand() {
            return watch::channel(Some(Ok(key))).1;
        }
        if let Some(flight) = flights.get_mut(&wanted) {
            flight.is_ahead |= is_ahead;
            return flight.land.subscribe();
        }
        let (land, landed) = watch::channel(None);
        let stale = Stale::default();
        let boarded = Boarded { flights: self.clone(), wanted: wanted.clone(), stale: stale.clone() };
        let waiting = Waiting { flights: self.clone(), wanted: wanted.clone(), land: land.clone() };
        let loading = load(wanted.clone(), stale.clone(), waiting);
        flights.insert(wanted, Flight { stale, land: land.clone(), is_ahead });
        drop(flights);
        spawn(runtime, async move {
            let loaded = loading.await;
            // Off the board before anyone is told: whoever comes now finds the key in the cache.
            drop(boarded);
            land.send_replace(Some(loaded));
        });
        landed
    }

    /// Marks all loads under way as stale.
    pub(crate) fn make_all_stale(&self) {
        self.lock().values().for_each(|flight| flight.stale.0.store(true, Ordering::SeqCst));
    }

    /// Marks those of the tenant's loads under way as stale that `which` names.
    pub(crate) fn make_stale(&self, tenant: &TenantId, which: impl Fn(&Wanted) -> bool) {
        for (wanted, flight) in self.lock().iter() {
            if wanted.tenant() == tenant && which(wanted) {
                flight.stale.0.store(true, Ordering::SeqCst);
            }
        }
    }
}

#[cfg(not(all(test, shuttle)))]
fn spawn(runtime: &Handle, load: impl Future<Output = ()> + Send + 'static) {
    drop(runtime.spawn(load));
}

/// In a model of interleavings the schedule runs the loads.
#[cfg(all(test, shuttle))]
fn spawn(_: &Handle, load: impl Future<Output = ()> + Send + 'static) {
    drop(shuttle::future::spawn(load));
}

/// Waits for a flight to land.
pub(crate) async fn landing(mut landed: watch::Receiver<Option<Loaded>>) -> Loaded {
    let ended =
        || Error::new(ErrorKind::Unavailable, "loading the key ended early (is the runtime shutting down?); retry");
    match landed.wait_for(Option::is_some).await {
        Ok(loaded) => loaded.clone().unwrap_or_else(|| Err(ended())),
        Err(e) => Err(ended().with_source(e)),
    }
}

#[cfg(all(test, shuttle))]
mod interleavings;
