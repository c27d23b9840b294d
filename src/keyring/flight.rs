//! Single flight: concurrent callers that miss the same key share one load, and its failure.
//!
//! A load runs in a task of its own, so that a caller who gives up neither stops it nor leaves it half-way. A purge marks
//! the tenant's loads under way as stale: what such a load read before the purge is not used, it starts over.
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
}

struct Flight {
    stale: Stale,
    landed: watch::Receiver<Option<Loaded>>,
}

/// The loads under way.
#[derive(Clone, Default)]
pub(crate) struct Flights(Arc<Mutex<HashMap<Wanted, Flight>>>);

/// Takes a flight off the board when its task ends, however it ends.
struct Boarded {
    flights: Flights,
    wanted: Wanted,
}

impl Drop for Boarded {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.wanted);
    }
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<Wanted, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the flight of `wanted`; or, if there is none, takes what `in_hand` finds, or starts one with `load` on `runtime`.
    pub(crate) fn join<F>(
        &self,
        runtime: &Handle,
        wanted: Wanted,
        in_hand: impl FnOnce() -> Option<Arc<CachedKey>>,
        load: impl FnOnce(Wanted, Stale) -> F,
    ) -> watch::Receiver<Option<Loaded>>
    where
        F: Future<Output = Loaded> + Send + 'static,
    {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(&wanted) {
            return flight.landed.clone();
        }
        if let Some(key) = in_hand() {
            return watch::channel(Some(Ok(key))).1;
        }
        let (land, landed) = watch::channel(None);
        let stale = Stale::default();
        let boarded = Boarded { flights: self.clone(), wanted: wanted.clone() };
        let loading = load(wanted.clone(), stale.clone());
        flights.insert(wanted, Flight { stale, landed: landed.clone() });
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
