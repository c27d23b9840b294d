//! Walks: through all of a tenant's key records, a page at a time, so that memory stays flat however many there are.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::admin::Admin;
use crate::error::{Error, ErrorKind, Result};
use crate::key::id::{KeyId, TenantId};
use crate::key::record::KeyRecord;
use crate::keyring::rows::KeyRow;
use crate::retry::Patience;

/// How a walk through a tenant's key records goes.
///
/// ```
/// use strongroom::WalkOptions;
/// let gently = WalkOptions::default().concurrency(4).per_second(50).on_progress(|walked| println!("{walked:?}"));
/// # let _ = gently;
/// ```
#[derive(Clone)]
#[must_use]
pub struct WalkOptions {
    page: u32,
    concurrency: usize,
    per_second: Option<u32>,
    after: Option<KeyId>,
    progress: Option<OnProgress>,
}

type OnProgress = Arc<dyn Fn(&Walked) + Send + Sync>;

impl Default for WalkOptions {
    fn default() -> Self {
        Self { page: 200, concurrency: 16, per_second: None, after: None, progress: None }
    }
}

impl WalkOptions {
    /// Records read, and written, at once: 1 to 1000. Default: 200.
    pub fn page(mut self, records: u32) -> Self {
        self.page = records.clamp(1, 1000);
        self
    }

    /// Records whose KMS calls are under way at once, at least 1. Default: 16. The room's limit of KMS calls of one tenant
    /// applies too.
    pub fn concurrency(mut self, records: usize) -> Self {
        self.concurrency = records.max(1);
        self
    }

    /// Most KMS calls a second, evenly, so that a walk leaves the KMS's quota to messages; and most records changed a second,
    /// where no KMS is asked. A rewrap asks the KMS once for each record that it wraps within one KMS, else for as many KEKs as it
    /// takes to unwrap ([`KekExpression`](crate::KekExpression)) and once for each new one, and then once for each new one to prove
    /// it; an export as often as it takes to unwrap, and twice. [`Admin::reseal`] begins so many rows a second, whose keys are
    /// loaded or made where they are not in hand. Default: no limit. Whatever it is, a walk goes slower where the KMS asks for it.
    pub fn per_second(mut self, calls: u32) -> Self {
        self.per_second = Some(calls.max(1));
        self
    }

    /// Begins behind this key, as an earlier walk's [`Walked::after`] said. Without it a walk finds by itself what is done;
    /// with it, it need not read that again.
    pub fn after(mut self, key_id: KeyId) -> Self {
        self.after = Some(key_id);
        self
    }

    /// Called after each page.
    pub fn on_progress(mut self, progress: impl Fn(&Walked) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// The same from the first record on, for what must not pass over any.
    pub(crate) fn whole(&self) -> Self {
        Self { after: None, ..self.clone() }
    }

    /// The same from the first record on, and silent.
    pub(crate) fn restarted(&self) -> Self {
        Self { progress: None, ..self.whole() }
    }

    /// No more than a second's work at once.
    pub(crate) fn page_size(&self) -> u32 {
        self.page.min(self.per_second.unwrap_or(u32::MAX))
    }

    pub(crate) fn pace(&self) -> Pace {
        Pace::new(self.per_second)
    }

    pub(crate) fn at_once(&self) -> usize {
        self.concurrency
    }
}

impl fmt::Debug for WalkOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { page, concurrency, per_second, after, .. } = self;
        f.debug_struct("WalkOptions")
            .field("page", page)
            .field("concurrency", concurrency)
            .field("per_second", per_second)
            .field("after", after)
            .finish_non_exhaustive()
    }
}

/// Most keys that a walk names one by one; it counts them all.
const NAMED: usize = 100;

/// How far a walk is. One that did not do all that was due ends with an error, of which [`Walked::of`] gives this.
#[derive(Clone, Debug, Default)]
pub struct Walked {
    /// Records looked at.
    pub seen: u64,
    /// Records that were due and are done.
    pub done: u64,
    /// Records that were due and could not be done. Nothing of theirs is lost; a later walk tries again.
    pub failed: u64,
    /// Why the first of them could not.
    pub first_failure: Option<Error>,
    /// Which they are: the first 100. Those whose rows are not authentic, or do not read, are among them.
    pub failed_keys: Vec<KeyId>,
    /// The last record of the last page that was finished.
    pub after: Option<KeyId>,
}

impl Walked {
    /// How far the walk was that ended with this error; `None` if the error is no walk's.
    pub fn of(e: &Error) -> Option<&Self> {
        progress_of(e)
    }

    pub(crate) fn fail(&mut self, e: Error) {
        self.failed += 1;
        self.first_failure.get_or_insert(e);
    }

    pub(crate) fn fail_key(&mut self, key_id: KeyId, e: Error) {
        if self.failed_keys.len() < NAMED {
            self.failed_keys.push(key_id);
        }
        self.fail(e);
    }

    /// # Errors
    /// Of the first failure's kind, if there were any: what is not done is not to be taken for done.
    pub(crate) fn finished(self) -> Result<Self> {
        let Some(first) = self.first_failure.clone().filter(|_| self.failed > 0) else {
            return Ok(self);
        };
        let (failed, done) = (self.failed, self.done);
        let which = self.failed_keys.first().map(|key_id| format!(" (data key {key_id})")).unwrap_or_default();
        let message = format!(
            "{failed} could not be done, and {done} were; the first{which}: {first}. Nothing of theirs is lost: mend that and go on"
        );
        Err(stopped(self, first, message))
    }

    /// The error that ended the walk here.
    pub(crate) fn stopped_by(&self, e: Error) -> Error {
        let message = format!("the walk ended after {} records, of which {} were done: {e}", self.seen, self.done);
        stopped(self.clone(), e, message)
    }
}

/// What ended long work, and how far that was.
#[derive(Debug)]
struct Stopped<T> {
    progress: T,
    cause: Error,
}

impl<T> fmt::Display for Stopped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl<T: fmt::Debug> StdError for Stopped<T> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.cause)
    }
}

/// An error of the cause's kind that carries how far the work was.
pub(crate) fn stopped<T: fmt::Debug + Send + Sync + 'static>(progress: T, cause: Error, message: String) -> Error {
    let mut e = Error::new(cause.kind(), message);
    if let Some(kek) = cause.kek() {
        e = e.with_kek(kek);
    }
    if let Some(region) = cause.region() {
        e = e.with_region(region);
    }
    e.with_source(Stopped { progress, cause })
}

/// How far the work was that `e` ended.
pub(crate) fn progress_of<T: fmt::Debug + 'static>(e: &Error) -> Option<&T> {
    StdError::source(e)?.downcast_ref::<Stopped<T>>().map(|stopped| &stopped.progress)
}

/// The pages of a walk.
pub(crate) struct Pages<'a> {
    admin: &'a Admin,
    tenant: &'a TenantId,
    options: &'a WalkOptions,
    pub(crate) pace: Pace,
    current: Option<(KeyId, u64)>,
    pub(crate) walked: Walked,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(admin: &'a Admin, tenant: &'a TenantId, options: &'a WalkOptions) -> Self {
        let walked = Walked { after: options.after, ..Walked::default() };
        Self { admin, tenant, options, pace: options.pace(), current: None, walked }
    }

    /// Finishes the page before, waits if the walk is too fast, and reads the next one. A row that is not authentic, or does not
    /// read, is counted as failed and passed over.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<KeyRow>>> {
        if let Some((last, records)) = self.current.take() {
            self.walked.after = Some(last);
            self.walked.seen += records;
            if let Some(progress) = &self.options.progress {
                progress(&self.walked);
            }
            self.pace.wait(self.walked.done + self.walked.failed).await;
        }
        let keyring = &self.admin.keyring;
        let listed = keyring.store.keys(self.tenant, self.walked.after.as_ref(), self.options.page_size()).await;
        let listed = listed.map_err(|e| self.walked.stopped_by(e))?;
        self.current = listed.last().map(|(last, _)| (*last, listed.len() as u64));
        if listed.is_empty() {
            return Ok(None);
        }
        let mut page = Vec::with_capacity(listed.len());
        for (key_id, bytes) in &listed {
            match keyring.verified_key(self.tenant, key_id, bytes).await {
                Ok(row) => page.push(row),
                Err(e) => {
                    tracing::warn!(tenant = %self.tenant, %key_id, error = %e, "a key record is passed over");
                    self.walked.fail_key(*key_id, e);
                }
            }
        }
        Ok(Some(page))
    }
}

/// How fast a walk may be.
pub(crate) struct Pace {
    per_second: Option<u32>,
    began: Instant,
    turns: Mutex<Turns>,
}

struct Turns {
    next: Instant,
    apart: Duration,
}

/// Tries of a record that the KMS throttles; each waits longer.
const THROTTLED: usize = 6;
/// The least and the longest time between two KMS calls of a walk that was throttled.
const SLOWED: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

impl Pace {
    fn new(per_second: Option<u32>) -> Self {
        let (began, apart) = (Instant::now(), apart(per_second));
        Self { per_second, began, turns: Mutex::new(Turns { next: began, apart }) }
    }

    /// Waits until `worked` is no more than the time since the beginning allows.
    pub(crate) async fn wait(&self, worked: u64) {
        if let Some(per_second) = self.per_second {
            let due = Duration::from_millis(worked.saturating_mul(1000) / u64::from(per_second));
            until(self.began + due).await;
        }
    }

    /// Waits for the turn of so many KMS calls that follow on each other. What comes after them waits for the time of all.
    pub(crate) async fn turn(&self, calls: u32) {
        let at = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            let at = turns.next.max(Instant::now());
            turns.next = at + turns.apart * calls;
            at
        };
        until(at).await;
    }

    /// Does one record's work, which waits for its turns. Where the KMS throttles, the whole walk slows down, and the work is tried
    /// again.
    pub(crate) async fn unhurried<T, F: Future<Output = Result<T>>>(&self, work: impl Fn() -> F) -> Result<T> {
        for _ in 1..THROTTLED {
            match work().await {
                Err(e) if e.kind() == ErrorKind::Throttled => self.slow_down(),
                done => {
                    self.recover();
                    return done;
                }
            }
        }
        work().await
    }

    fn slow_down(&self) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let [least, longest] = SLOWED;
        turns.apart = (turns.apart * 2).max(least).min(longest.max(apart(self.per_second)));
        turns.next = turns.next.max(Instant::now() + turns.apart);
    }

    /// Comes back, a sixteenth with each record, to the pace that was asked for.
    fn recover(&self) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.apart = (turns.apart * 15 / 16).max(apart(self.per_second));
    }
}

/// Waits for the pace that was asked for, by the caller or by the KMS. A timer is a millisecond late, so none is set without need.
async fn until(at: Instant) {
    if at > Instant::now() {
        tokio::time::sleep_until(at).await;
    }
}

fn apart(per_second: Option<u32>) -> Duration {
    per_second.map_or(Duration::ZERO, |records| Duration::from_secs(1) / records)
}

/// How long a page is tried whose records others change meanwhile.
const CHANGING: Duration = Duration::from_secs(5);

impl Admin {
    /// Changes the records of a page that are `due`, by compare-and-set; those that others changed meanwhile are read again, and
    /// those that do not read any more are counted as failed. Returns the ids of those that it changed.
    pub(crate) async fn update_due(
        &self,
        walked: &mut Walked,
        page: Vec<KeyRow>,
        due: impl Fn(&KeyRecord) -> bool + Send,
        change: impl Fn(KeyRecord) -> KeyRecord + Send,
    ) -> Result<Vec<KeyId>> {
        let mut done = Vec::new();
        let mut rows = page;
        let mut patience = Patience::within(CHANGING);
        while patience.tries_again().await {
            let changed: Vec<(KeyRow, KeyRecord)> = rows
                .into_iter()
                .filter(|row| due(row))
                .map(|row| {
                    let next = change(row.record.clone());
                    (row, next)
                })
                .collect();
            if changed.is_empty() {
                walked.done += done.len() as u64;
                return Ok(done);
            }
            let written = self.keyring.put_keys(&changed).await.map_err(|e| walked.stopped_by(e))?;
            rows = Vec::new();
            for ((row, _), written) in changed.iter().zip(written) {
                if written {
                    done.push(row.key_id);
                } else {
                    match self.keyring.key_row(&row.tenant, &row.key_id).await {
                        Ok(row) => rows.extend(row),
                        Err(e) => walked.fail_key(row.key_id, e),
                    }
                }
            }
        }
        let busy = Error::new(ErrorKind::Unavailable, "a key record is being changed over and over; retry");
        for row in &rows {
            walked.fail_key(row.key_id, busy.clone());
        }
        walked.done += done.len() as u64;
        Ok(done)
    }
}
