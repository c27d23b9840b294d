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
use crate::key::row_digest::RowDigest;
use crate::key::suspension::opens_suspended;
use crate::keyring::Keyring;
use crate::keyring::cache::{CachedKey, nanos};
use crate::keyring::rollback::{Verdict, judge};
use crate::row::Stored;
use crate::row::frame::Kind;
use crate::store::row::{Log, RowKey, StoreIdentity};
use crate::watermark::{Mark, Subject};

/// Changes read at once. Behind by more, a node forgets everything instead.
const AT_ONCE: u32 = 1000;
/// Longest time between two readings of the log, however long the bound.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const A_MOMENT: Duration = Duration::from_millis(5);
/// Records that are looked up at once.
const RECORDS_AT_ONCE: usize = 200;
/// And verified before others have their turn: less than a millisecond's work.
const RECORDS_IN_A_ROW: usize = 50;

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
    /// How many readings came to an end.
    readings: AtomicU64,
}

/// What a node has heard of the log of changes.
#[derive(Default)]
struct Heard {
    /// The number of the last entry; `None` before the first reading.
    upto: Option<u64>,
    /// Up to which number no decision to come takes the place of an entry: what the watermark counts. Behind it whoever writes the
    /// store can take out what was put in, and a decision then gets its number.
    settled: u64,
    /// The entries from there on, as they were: each is read again until it is settled.
    unsettled: Vec<(u64, RowDigest)>,
    /// Which store said so.
    store: Option<StoreIdentity>,
    /// When all keys were last forgotten because the log did not read.
    forgot_all: Option<Duration>,
    /// Why the last reading failed, if it did.
    failure: Option<Error>,
}

/// The fleet's opening is not suspended.
const OPEN: i64 = i64::MIN;
/// Nothing authentic says that it is not.
const UNSAID: i64 = i64::MAX;

/// Keys whose records are still to be looked up. Those of a look that is given up are looked up by the next one.
struct LookUps(Vec<Arc<CachedKey>>);

impl Drop for LookUps {
    fn drop(&mut self) {
        self.0.iter().for_each(|key| key.note_sealing());
    }
}

impl Watch {
    pub(crate) fn new(bound: Duration) -> Self {
        Self {
            bound,
            lease: AtomicU64::new(0),
            opens: AtomicU64::new(0),
            suspended_until: AtomicI64::new(OPEN),
            heard: Mutex::default(),
            readings: AtomicU64::new(0),
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

    /// How long a cached key is used at most without hearing what was decided.
    pub(crate) fn bound(&self) -> Duration {
        self.bound
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

    /// Reads the log up to its end and does what it says. Without `anyway`, only if nobody else did meanwhile: what another reading
    /// came to, its failure included, is this caller's answer too. So everybody waits one bound at most, whoever else waits.
    async fn read_log(&self, anyway: bool) -> Result<()> {
        let before = self.watch.readings.load(Ordering::Acquire);
        let read = async {
            let mut heard = self.watch.heard.lock().await;
            let others_came = self.watch.readings.load(Ordering::Acquire) != before;
            if !anyway
                && others_came
                && let Some(failure) = &heard.failure
            {
                return Err(failure.clone());
            }
            let began = self.now();
            if !anyway && self.watch.is_leased(began) {
                return Ok(());
            }
            let late = || Error::new(ErrorKind::Unavailable, "the key store does not answer");
            let read = self.read_log_once(&mut heard, began);
            let read = tokio::time::timeout(self.watch.bound, read).await.unwrap_or_else(|_| Err(late()));
            let read = read.map_err(|e| e.with_operation("read the log of changes"));
            heard.failure = read.as_ref().err().cloned();
            self.watch.readings.fetch_add(1, Ordering::AcqRel);
            read
        };
        // Who comes while another one reads waits for the lock first. A moment more, so that he hears why that one failed.
        let behind = || {
            let message =
                "the key store's log of changes is being read, and takes longer than the revocation bound; retry";
            Error::new(ErrorKind::Unavailable, message).with_operation("read the log of changes")
        };
        let longest = if anyway { 2 * self.watch.bound } else { self.watch.bound + A_MOMENT };
        tokio::time::timeout(longest, read).await.unwrap_or_else(|_| Err(behind()))
    }

    async fn read_log_once(&self, heard: &mut Heard, began: Duration) -> Result<()> {
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
            let after = heard.upto.map(|_| heard.settled).or(self.watermark.as_ref().map(|_| decisions));
            let log = self.store.log(after, AT_ONCE).await?;
            let suspended_until = self.fleet_opens_from(log.fleet.as_deref(), fleet.as_ref()).await?;
            Ok((decisions, log, suspended_until))
        };
        let (decisions, log, suspended_until): (u64, Log, i64) = reading.await?;
        if log.end < decisions {
            let message = format!(
                "the key store's log has {} decisions, the watermark counts {decisions}: the store was put back, or decisions \
                 were taken out of it; restore the newest copy",
                log.end
            );
            return Err(Error::new(ErrorKind::RolledBack, message));
        }
        if heard.store.as_ref().is_some_and(|known| *known != log.store) {
            // Keys that seal were made in the other store: each is looked up again before it seals.
            let stopped = self.cache.stop_all_sealing(|| self.flights.make_all_stale());
            tracing::warn!(stopped, "the key store is another one than before: sealing keys are looked up again");
        }
        self.look_up_sealing_keys().await?;
        if !self.heed(heard, &log, began).await {
            // Everything was forgotten a moment ago. What is in hand since then serves to its lease's end, and no longer.
            return Ok(());
        }
        heard.upto = Some(log.end);
        heard.settled = if self.watermark.is_some() { decisions } else { log.end };
        let unsettled = log.entries.iter().filter(|(number, _)| *number > heard.settled);
        heard.unsettled = unsettled.map(|(number, bytes)| (*number, RowDigest::of(bytes))).collect();
        heard.store = Some(log.store);
        self.watch.suspended_until.store(suspended_until, Ordering::Release);
        // After the purges: who sees the new lease sees them too.
        let lease = nanos(began + self.watch.bound);
        self.watch.opens.store(if self.check_fleet_opens().is_ok() { lease } else { 0 }, Ordering::Release);
        self.watch.lease.store(lease, Ordering::Release);
        Ok(())
    }

    /// Looks up the records of the keys that sealed since the last look: a store that was put back to an older copy, or that lost a
    /// row, may hold them no more, and what is sealed under such a key nobody can ever open. Who misses his record seals no more, and
    /// the log says so. Idle keys are looked up once they have sealed again.
    async fn look_up_sealing_keys(&self) -> Result<()> {
        let (mut due, mut from) = (LookUps(Vec::new()), Some(0));
        while let Some(place) = from {
            from = self.cache.take_sealed(place, &mut due.0);
            if from.is_some() {
                tokio::task::yield_now().await; // of very many others are not to notice
            }
        }
        while let Some(keys) = due.0.rchunks(RECORDS_AT_ONCE).next() {
            let names: Vec<_> = keys.iter().map(|key| RowKey::Key(key.tenant.clone(), *key.key.key_id())).collect();
            let rows = self.store.get_many(&names).await?;
            let rows = rows.into_iter().chain(std::iter::repeat(None));
            for (n, (key, bytes)) in (1..).zip(keys.iter().zip(rows)) {
                if let Err(problem) = self.check_record_of(key, bytes).await? {
                    self.stop_sealing_under(key, &problem);
                }
                if n % RECORDS_IN_A_ROW == 0 {
                    tokio::task::yield_now().await;
                }
            }
            let left = due.0.len() - keys.len();
            due.0.truncate(left);
        }
        Ok(())
    }

    /// Whether a record that was looked up still is what its key was loaded from, as far as that is to be seen: `Ok(Err)` if it is not.
    async fn check_record_of(&self, key: &CachedKey, bytes: Option<Vec<u8>>) -> Result<Result<()>> {
        let Some(bytes) = bytes else {
            return Ok(Err(Error::new(ErrorKind::StoreInconsistent, "the key store has its record no more")));
        };
        match self.verified_key(&key.tenant, key.key.key_id(), &bytes).await {
            Ok(_) => Ok(Ok(())),
            Err(e) if matches!(e.kind(), ErrorKind::Tampered | ErrorKind::Malformed) => Ok(Err(e)),
            Err(e) => Err(e),
        }
    }

    fn stop_sealing_under(&self, key: &CachedKey, problem: &Error) {
        let id = key.key.key_id();
        let make_stale = || self.flights.make_stale(&key.tenant, |_| true);
        self.cache.stop_sealing(&key.tenant, |it| it.key.key_id() == id, make_stale);
        tracing::error!(
            tenant = %key.tenant,
            key_id = %id,
            error = %problem,
            "the record of a data key that sealed a moment ago is gone or does not read: the key seals no more, and what it \
             sealed opens only while it is cached; restore the newest copy of the key store"
        );
    }

    /// Does what the log says. `false` if the log does not read, and everything was forgotten already within the bound: whoever
    /// writes the store could otherwise have every key loaded again with each reading.
    async fn heed(&self, heard: &mut Heard, log: &Log, began: Duration) -> bool {
        let Some(after) = heard.upto else {
            return true; // nothing is cached yet
        };
        match self.changes_after(after, heard, log).await {
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

    /// The changes after a number, each vouched for and at its place; and what was heard before is as it was.
    async fn changes_after(&self, after: u64, heard: &Heard, log: &Log) -> Result<Vec<Change>, &'static str> {
        if log.end < after {
            return Err("it ends before what was heard of it");
        }
        if log.end.saturating_sub(heard.settled) != log.entries.len() as u64 {
            return Err("entries are missing, or there are more than a node reads at once");
        }
        let (again, new) = log.entries.split_at(log.entries.partition_point(|(number, _)| *number <= after));
        if !again.iter().map(|(number, bytes)| (*number, RowDigest::of(bytes))).eq(heard.unsettled.iter().copied()) {
            return Err("an entry that was heard of is another one now");
        }
        let mut changes = Vec::with_capacity(new.len());
        for ((number, bytes), expected) in new.iter().zip(after.saturating_add(1)..) {
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
        self.failures.forget(change.tenant.as_ref());
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
