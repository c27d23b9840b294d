//! The watch: hears what other nodes decided, and bounds how long cached keys are trusted without hearing.
//!
//! Every decision is a numbered change in the store's log. A node that read the log up to its end may use what it has cached
//! for the *revocation bound* from the moment at which that reading began (its *lease*); then it reads again. So whatever is
//! revoked at a time T is opened nowhere after T + bound: a reading that began after T has seen the change, and a lease from
//! before T has ended. Leases are on the monotonic clock that counts suspend; steps of the wall clock do not touch them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::key::change::{Change, Forget};
use crate::keyring::Keyring;
use crate::keyring::cache::nanos;

/// Changes read at once. Behind by more, a node forgets everything instead.
const AT_ONCE: u32 = 1000;
/// Longest time between two readings of the log, however long the bound.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Watch {
    bound: Duration,
    /// Until when cached keys may be used, in nanoseconds.
    lease: AtomicU64,
    /// The place in the log up to which this node has heard. Held over a reading, so that one reads for all.
    heard: Mutex<Option<u64>>,
}

impl Watch {
    pub(crate) fn new(bound: Duration) -> Self {
        Self { bound, lease: AtomicU64::new(0), heard: Mutex::new(None) }
    }

    /// Whether cached keys may be used at `now`. On the hot path: one atomic load.
    pub(crate) fn is_leased(&self, now: Duration) -> bool {
        nanos(now) < self.lease.load(Ordering::Acquire)
    }

    fn pause(&self) -> Duration {
        (self.bound / 5).min(LONGEST_PAUSE)
    }
}

impl Keyring {
    /// Reads the log unless cached keys may be used as it is.
    ///
    /// # Errors
    /// `Unavailable` if the store does not answer within the bound: then nothing cached is used.
    pub(crate) async fn renew_lease(&self) -> Result<()> {
        if self.watch.is_leased(self.now()) {
            return Ok(());
        }
        self.read_log(false).await
    }

    /// Reads the log up to its end and does what it says. Without `anyway`, only if nobody else just did.
    async fn read_log(&self, anyway: bool) -> Result<()> {
        let mut heard = self.watch.heard.lock().await;
        let began = self.now();
        if !anyway && self.watch.is_leased(began) {
            return Ok(());
        }
        let read = tokio::time::timeout(self.watch.bound, self.store.changes(*heard, AT_ONCE)).await;
        let read = read.unwrap_or_else(|_| Err(Error::new(ErrorKind::Unavailable, "the key store does not answer")));
        let news = read.map_err(|e| e.with_operation("read the log of changes"))?;
        if news.gap {
            let purged = self.purge_all();
            tracing::warn!(heard = ?*heard, upto = news.upto, purged, "missed changes of the key store: forgot every key");
        }
        for change in &news.changes {
            self.forget(change);
        }
        *heard = Some(news.upto);
        // After the purges: who sees the new lease sees them too.
        self.watch.lease.store(nanos(began + self.watch.bound), Ordering::Release);
        Ok(())
    }

    /// Does here what a change asks of every node.
    pub(crate) fn forget(&self, change: &Change) -> usize {
        match change.forget {
            Forget::Nothing => 0,
            Forget::Sealing => self.stop_sealing(&change.tenant, &change.selector),
            Forget::Keys => self.purge(&change.tenant, &change.selector),
        }
    }
}

/// Reads the log again and again until the keyring is gone.
pub(crate) async fn watching(keyring: Weak<Keyring>) {
    let mut failing = false;
    loop {
        let Some((store, pause)) = keyring.upgrade().map(|k| (Arc::clone(&k.store), k.watch.pause())) else {
            return;
        };
        // Whichever comes first; waking up early costs one reading.
        let _ = tokio::time::timeout(pause, store.changed()).await;
        let Some(keyring) = keyring.upgrade() else {
            return;
        };
        match keyring.read_log(true).await {
            Ok(()) => failing = false,
            Err(e) if failing => tracing::debug!(error = %e, "the log of changes is still not read"),
            Err(e) => {
                failing = true;
                tracing::warn!(error = %e, "the log of changes is not read; cached keys end with their lease");
            }
        }
    }
}
