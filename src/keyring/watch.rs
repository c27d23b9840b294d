//! The watch: hears what other nodes decided, and bounds how long cached keys are trusted without hearing.
//!
//! Every decision is a numbered change in the store's log. A node that read the log up to its end may use what it has cached
//! for the *revocation bound* from the moment at which that reading began (its *lease*); then it reads again. So whatever is
//! revoked at a time T is opened nowhere after T + bound: a reading that began after T has seen the change, and a lease from
//! before T has ended. Leases are on the monotonic clock that counts suspend; steps of the wall clock do not touch them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::key::change::{Change, Forget, LogRecord};
use crate::key::fleet::FleetRecord;
use crate::key::suspension::opens_suspended;
use crate::keyring::Keyring;
use crate::keyring::cache::nanos;
use crate::keyring::rollback::{Verdict, judge};
use crate::row::Stored;
use crate::row::frame::Kind;
use crate::store::row::{Log, StoreIdentity};
use crate::watermark::{Mark, Subject};

/// Changes read at once. Behind by more, a node forgets everything instead.
const AT_ONCE: u32 = 1000;
/// Longest time between two readings of the log, however long the bound.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Watch {
    bound: Duration,
    /// Until when cached keys may be used, in nanoseconds.
    lease: AtomicU64,
    /// Until when they may be used to open: no longer than the lease, and not at all while the fleet's opening is suspended.
    opens: AtomicU64,
    /// Until when the fleet's opening is suspended, in Unix milliseconds.
    suspended_until: AtomicI64,
    /// What this node has heard. Held over a reading, so that one reads for all.
    heard: Mutex<Heard>,
}

/// What a node has heard of the log of changes.
#[derive(Default)]
struct Heard {
    /// The number of the last entry; `None` before the first reading.
    upto: Option<u64>,
    /// Which store said so.
    store: Option<StoreIdentity>,
    /// When all keys were last forgotten because the log did not read.
    forgot_all: Option<Duration>,
}

/// The fleet's opening is not suspended.
const OPEN: i64 = i64::MIN;
/// Nothing authentic says that it is not.
const UNSAID: i64 = i64::MAX;

impl Watch {
    pub(crate) fn new(bound: Duration) -> Self {
        Self {
            bound,
            lease: AtomicU64::new(0),
            opens: AtomicU64::new(0),
            suspended_until: AtomicI64::new(OPEN),
            heard: Mutex::default(),
        }
    }

    /// Whether cached keys may be used at `now` to seal. On the hot path: one atomic load.
    pub(crate) fn is_leased(&self, now: Duration) -> bool {
        nanos(now) < self.lease.load(Ordering::Acquire)
    }

    /// Whether cached keys may be used at `now` to open. On the hot path: one atomic load.
    pub(crate) fn opens(&self, now: Duration) -> bool {
        nanos(now) < self.opens.load(Ordering::Acquire)
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

    /// # Errors
    /// `Suspended` if nothing opens in the whole fleet at present.
    pub(crate) fn check_fleet_opens(&self) -> Result<()> {
        match self.watch.suspended_until.load(Ordering::Acquire) {
            OPEN => Ok(()),
            UNSAID => Err(opens_suspended(None)),
            until if until <= self.clock.unix_millis() => Ok(()),
            until => Err(opens_suspended(Some(until))),
        }
    }

    /// Reads the log again, and the fleet's row, whatever the lease: a decision was just taken here.
    pub(crate) async fn hear(&self) -> Result<()> {
        self.read_log(true).await
    }

    /// Reads the log up to its end and does what it says. Without `anyway`, only if nobody else just did.
    async fn read_log(&self, anyway: bool) -> Result<()> {
        let mut heard = self.watch.heard.lock().await;
        let began = self.now();
        if !anyway && self.watch.is_leased(began) {
            return Ok(());
        }
        let reading = async {
            // Before the log: what is read later has at least as many decisions.
            let (decisions, fleet) = match &self.watermark {
                Some(watermark) => {
                    self.check_room(watermark.read(&Subject::Room).await?).await?;
                    let decisions = watermark.read(&Subject::Log).await?.map_or(0, |mark| mark.epoch);
                    (decisions, watermark.read(&Subject::Fleet).await?)
                }
                None => (0, self.seen.of(&Subject::Fleet)),
            };
            let log = self.store.log(heard.upto, AT_ONCE).await?;
            let suspended_until = self.fleet_opens_from(log.fleet.as_deref(), fleet.as_ref()).await?;
            Ok((decisions, log, suspended_until))
        };
        let late = || Error::new(ErrorKind::Unavailable, "the key store does not answer");
        let read = tokio::time::timeout(self.watch.bound, reading).await.unwrap_or_else(|_| Err(late()));
        let (decisions, log, suspended_until) = read.map_err(|e| e.with_operation("read the log of changes"))?;
        if log.end < decisions {
            let message = format!(
                "the key store's log has {} decisions, the watermark counts {decisions}: the store was put back, or decisions \
                 were taken out of it; restore the newest copy",
                log.end
            );
            return Err(Error::new(ErrorKind::RolledBack, message).with_operation("read the log of changes"));
        }
        if heard.store.as_ref().is_some_and(|known| *known != log.store) {
            // Keys that seal were made in the other store: each is looked up again before it seals.
            let stopped = self.cache.stop_all_sealing(|| self.flights.make_all_stale());
            tracing::warn!(stopped, "the key store is another one than before: sealing keys are looked up again");
        }
        if !self.heed(&mut heard, &log, began).await {
            // Everything was forgotten a moment ago. What is in hand since then serves to its lease's end, and no longer.
            return Ok(());
        }
        heard.upto = Some(log.end);
        heard.store = Some(log.store);
        self.watch.suspended_until.store(suspended_until, Ordering::Release);
        // After the purges: who sees the new lease sees them too.
        let lease = nanos(began + self.watch.bound);
        self.watch.opens.store(if self.check_fleet_opens().is_ok() { lease } else { 0 }, Ordering::Release);
        self.watch.lease.store(lease, Ordering::Release);
        Ok(())
    }

    /// Does what the log says. `false` if the log does not read, and everything was forgotten already within the bound: whoever
    /// writes the store could otherwise have every key loaded again with each reading.
    async fn heed(&self, heard: &mut Heard, log: &Log, began: Duration) -> bool {
        let Some(after) = heard.upto else {
            return true; // nothing is cached yet
        };
        match self.changes_after(after, log).await {
            Ok(changes) => {
                for change in &changes {
                    self.forget(change);
                }
                true
            }
            Err(problem) if heard.forgot_all.is_some_and(|at| began < at + self.watch.bound) => {
                tracing::warn!(problem, "the log of changes still does not read; cached keys end with their lease");
                false
            }
            Err(problem) => {
                heard.forgot_all = Some(began);
                let purged = self.purge_all();
                tracing::warn!(
                    problem,
                    after,
                    end = log.end,
                    purged,
                    "the log of changes does not read: forgot every key"
                );
                true
            }
        }
    }

    /// The changes after a number, each vouched for and at its place.
    async fn changes_after(&self, after: u64, log: &Log) -> Result<Vec<Change>, &'static str> {
        let missed = log.end.checked_sub(after).ok_or("it ends before what was heard of it")?;
        if missed != log.entries.len() as u64 {
            return Err("entries are missing, or there are more than a node reads at once");
        }
        let mut changes = Vec::with_capacity(log.entries.len());
        for ((number, bytes), expected) in log.entries.iter().zip(after.saturating_add(1)..) {
            let entry: Stored<LogRecord> =
                self.verified(Kind::Log, bytes).await.map_err(|_| "an entry is not authentic, or does not read")?;
            if *number != expected || entry.number != expected {
                return Err("an entry is not at its place");
            }
            if entry.generation != self.authority.load().generation() {
                return Err("an entry is of a control plane that was evicted");
            }
            changes.push(entry.record.change);
        }
        Ok(changes)
    }

    /// No lease is granted to a process that knows another generation of the room than the watermark names: it has not heard of an
    /// eviction.
    async fn check_room(&self, mark: Option<Mark>) -> Result<()> {
        let knows = || {
            let room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
            room.row.as_ref().map(|row| judge(&row.record, row.digest, mark.as_ref()).believed("the room's row"))
        };
        match knows() {
            None | Some(Ok(())) => return Ok(()),
            Some(Err(_)) => self.follow_room().await?,
        }
        knows().unwrap_or(Ok(()))
    }

    /// From when on the fleet opens, in Unix milliseconds. A row that is missing, or that nobody vouches for, says never.
    async fn fleet_opens_from(&self, bytes: Option<&[u8]>, mark: Option<&Mark>) -> Result<i64> {
        if self.source.is_none() {
            return Ok(OPEN); // without a room there is no fleet's row
        }
        let Some(bytes) = bytes else {
            return Ok(UNSAID);
        };
        let believed = async {
            let row: Stored<FleetRecord> = self.verified(Kind::Fleet, bytes).await?;
            row.record.check_stored()?;
            match self.believes(&row, &Subject::Fleet, mark, "the fleet's row")? {
                // Others have written since the mark was read.
                Verdict::FurtherAhead => Ok::<_, Error>(self.believed_fleet().await?.map(|fleet| fleet.row)),
                _ => Ok(Some(row)),
            }
        };
        match believed.await {
            Ok(Some(fleet)) => Ok(fleet.opens_suspended_until.unwrap_or(OPEN)),
            Ok(None) => Ok(UNSAID),
            Err(e) if matches!(e.kind(), ErrorKind::Tampered | ErrorKind::RolledBack | ErrorKind::Malformed) => {
                tracing::warn!(error = %e, "the fleet's row is not believed: opening is suspended");
                Ok(UNSAID)
            }
            Err(e) => Err(e),
        }
    }

    /// Does here what a change asks of every node.
    pub(crate) fn forget(&self, change: &Change) -> usize {
        let Some(tenant) = &change.tenant else {
            return match change.forget {
                Forget::Nothing => 0,
                Forget::Sealing => self.cache.stop_all_sealing(|| self.flights.make_all_stale()),
                Forget::Keys => self.purge_all(),
            };
        };
        match change.forget {
            Forget::Nothing => 0,
            Forget::Sealing => self.stop_sealing(tenant, &change.selector),
            Forget::Keys => self.purge(tenant, &change.selector),
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
