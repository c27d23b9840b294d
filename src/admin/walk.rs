//! Walks: through all of a tenant's key records, a page at a time, so that memory stays flat however many there are.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::Admin;
use crate::error::{Error, ErrorKind, Result};
use crate::key::id::{KeyId, TenantId};
use crate::key::record::KeyRecord;
use crate::keyring::rows::KeyRow;

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

    /// Most records a second, so that a walk leaves the KMS's quota to messages. Default: no limit.
    pub fn per_second(mut self, records: u32) -> Self {
        self.per_second = Some(records.max(1));
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

    pub(crate) fn page_size(&self) -> u32 {
        self.page
    }

    pub(crate) fn pace(&self, began: Duration) -> Pace {
        Pace { per_second: self.per_second, began }
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

/// How far a walk is.
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
    /// The last record of the last page that was finished.
    pub after: Option<KeyId>,
}

impl Walked {
    pub(crate) fn fail(&mut self, e: Error) {
        self.failed += 1;
        self.first_failure.get_or_insert(e);
    }
}

/// The pages of a walk.
pub(crate) struct Pages<'a> {
    admin: &'a Admin,
    tenant: &'a TenantId,
    options: &'a WalkOptions,
    pace: Pace,
    current: Option<(KeyId, u64)>,
    pub(crate) walked: Walked,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(admin: &'a Admin, tenant: &'a TenantId, options: &'a WalkOptions) -> Self {
        let walked = Walked { after: options.after, ..Walked::default() };
        Self { admin, tenant, options, pace: options.pace(admin.now()), current: None, walked }
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
            self.pace.wait(self.walked.done + self.walked.failed, self.admin.now()).await;
        }
        let keyring = &self.admin.keyring;
        let listed = keyring.store.keys(self.tenant, self.walked.after.as_ref(), self.options.page).await?;
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
                    self.walked.fail(e);
                }
            }
        }
        Ok(Some(page))
    }
}

/// How fast a walk may be.
pub(crate) struct Pace {
    per_second: Option<u32>,
    began: Duration,
}

impl Pace {
    /// Waits until `worked` is no more than the time since the beginning allows.
    pub(crate) async fn wait(&self, worked: u64, now: Duration) {
        if let Some(per_second) = self.per_second {
            let due = Duration::from_millis(worked.saturating_mul(1000) / u64::from(per_second));
            let passed = now.saturating_sub(self.began);
            tokio::time::sleep(due.saturating_sub(passed)).await; // the pace that was asked for
        }
    }
}

/// Tries of a record that others change meanwhile.
const TRIES: usize = 8;

impl Admin {
    /// Changes the records of a page that are `due`, by compare-and-set; those that others changed meanwhile are read again.
    /// Returns the ids of those that it changed.
    pub(crate) async fn update_due(
        &self,
        page: Vec<KeyRow>,
        due: impl Fn(&KeyRecord) -> bool + Send,
        change: impl Fn(KeyRecord) -> KeyRecord + Send,
    ) -> Result<Vec<KeyId>> {
        let mut done = Vec::new();
        let mut rows = page;
        for _ in 0..TRIES {
            let changed: Vec<(KeyRow, KeyRecord)> = rows
                .into_iter()
                .filter(|row| due(row))
                .map(|row| {
                    let next = change(row.record.clone());
                    (row, next)
                })
                .collect();
            if changed.is_empty() {
                return Ok(done);
            }
            let written = self.keyring.put_keys(&changed).await?;
            rows = Vec::new();
            for ((row, _), written) in changed.iter().zip(written) {
                if written {
                    done.push(row.key_id);
                } else {
                    rows.extend(self.keyring.key_row(&row.tenant, &row.key_id).await?);
                }
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "a key record is being changed over and over; retry"))
    }
}
