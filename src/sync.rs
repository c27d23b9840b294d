//! What threads share: std's, `arc_swap`'s and `try_lock`'s own types, named here so that the models of interleavings
//! (`scripts/interleavings`, `cfg(shuttle)`) can put types in their place whose every use is a step of the schedule.

#[cfg(not(all(test, shuttle)))]
pub(crate) use arc_swap::{ArcSwap, ArcSwapOption};
#[cfg(not(all(test, shuttle)))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};
#[cfg(not(all(test, shuttle)))]
use std::thread::yield_now;
#[cfg(not(all(test, shuttle)))]
pub(crate) use try_lock::{Locked, TryLock};

#[cfg(all(test, shuttle))]
pub(crate) use scheduled::{ArcSwap, ArcSwapOption, Locked, TryLock, explore};
#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic};
#[cfg(all(test, shuttle))]
use shuttle::thread::yield_now;

/// Takes a lock that is never held for long, once whoever has it leaves it.
pub(crate) fn waited_for<T>(lock: &TryLock<T>) -> Locked<'_, T> {
    loop {
        match lock.try_lock() {
            Some(locked) => return locked,
            None => yield_now(),
        }
    }
}

/// `arc_swap` and `try_lock` by their contracts, over a lock: what they do inside is their own tests' business.
#[cfg(all(test, shuttle))]
mod scheduled {
    use std::ops::Deref;
    use std::sync::Arc;

    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    use shuttle::sync::Mutex;
    use shuttle::{Config, Runner};

    pub(crate) type ArcSwap<T> = Swap<Arc<T>>;
    pub(crate) type ArcSwapOption<T> = Swap<Option<Arc<T>>>;

    pub(crate) type Locked<'a, T> = shuttle::sync::MutexGuard<'a, T>;

    pub(crate) struct TryLock<T>(Mutex<T>);

    impl<T> TryLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(Mutex::new(value))
        }

        pub(crate) fn try_lock(&self) -> Option<Locked<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    #[derive(Default)]
    pub(crate) struct Swap<P>(Mutex<P>);

    impl<P: Clone> Swap<P> {
        pub(crate) fn load(&self) -> Guard<P> {
            Guard(self.load_full())
        }

        pub(crate) fn load_full(&self) -> P {
            self.0.lock().unwrap().clone()
        }

        pub(crate) fn store(&self, new: P) {
            drop(self.swap(new));
        }

        pub(crate) fn swap(&self, new: P) -> P {
            std::mem::replace(&mut *self.0.lock().unwrap(), new)
        }
    }

    impl<T> Swap<Arc<T>> {
        pub(crate) fn from_pointee(value: T) -> Self {
            Self(Mutex::new(Arc::new(value)))
        }
    }

    impl<T> Swap<Option<Arc<T>>> {
        pub(crate) fn empty() -> Self {
            Self(Mutex::new(None))
        }
    }

    /// Runs `model` under random schedules, and under ones that place a few preemptions (PCT). `STRONGROOM_SCHEDULES` says how
    /// many of each, `SHUTTLE_RANDOM_SEED` which; a failure prints the schedule that led to it.
    pub(crate) fn explore(model: impl Fn() + Copy + Send + Sync + 'static) {
        let times = std::env::var("STRONGROOM_SCHEDULES").map_or(1_000, |times| times.parse().unwrap());
        let config = || {
            let mut config = Config::new();
            config.stack_size = 0x40000; // ciphers in development builds
            config
        };
        Runner::new(RandomScheduler::new_from_seed(1, times), config()).run(model);
        Runner::new(PctScheduler::new_from_seed(1, 3, times), config()).run(model);
    }

    /// What was there at the moment of `load`.
    pub(crate) struct Guard<P>(P);

    impl<P> Deref for Guard<P> {
        type Target = P;

        fn deref(&self) -> &P {
            &self.0
        }
    }
}
