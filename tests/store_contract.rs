//! The contract suite of key stores sees each breach: stores with one flaw each, around one that has none.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use strongroom::testing::store_contract;
use strongroom::{
    KeyId, KeyIndex, KeyState, KeyStore, Log, LogEntry, MemoryKeyStore, PeriodLabel, Put, Result, RowChange, RowDigest,
    RowKey, Scope, StoreIdentity, TenantId, Write,
};

macro_rules! flaws {
    ($($flaw:ident),* $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Flaw {
            None,
            $($flaw),*
        }

        const FLAWS: &[Flaw] = &[$(Flaw::$flaw),*];
    };
}

flaws! {
    // Rows.
    OverwritesAnyVersion,
    OverwritesWhatShouldNotBe,
    InsertsWhatShouldBe,
    RowsOfOtherTenants,
    CutsLongRows,
    OnlyText,
    EmptyIsNone,
    OneSingleRow,
    RefusesLongRows,
    // Keeping.
    KeepsAnyVersion,
    KeepsAbsentWhatIsThere,
    MakesWhatIsKeptAbsent,
    WritesWhatIsKept,
    // Removals.
    RemovesNothing,
    RemovesAnyVersion,
    RemovesAllOfTheTenant,
    // All or nothing.
    PartByPart,
    PartBesideConflicts,
    WrongPlaces,
    NoPlaces,
    TakesNonsense,
    // Active keys.
    TwoActiveKeys,
    ActiveOfAnyPeriod,
    ActiveOfAnyTenant,
    ActiveInAnyState,
    NoSuccessor,
    OldIndex,
    // Lists.
    ListsFromAndNotAfter,
    ListsBackwards,
    ListsWithoutLimit,
    TenantsByLetters,
    TenantsOfKeys,
    KeysOfOtherTenants,
    JournalByDigits,
    // The log.
    LogsConflicts,
    LogsNothing,
    LogsTwice,
    EntryOfAnotherNumber,
    LogFromAndNotAfter,
    LatestEntries,
    LogWithoutLimit,
    EndAsAsked,
    AllWithoutAPlace,
    FewEntries,
    LateEntries,
    NewIdentity,
    // Races.
    LooksAndThenWrites,
    LooksAtKeptRowsFirst,
    HalfDoneWhenDropped,
}

struct Flawed {
    flaw: Flaw,
    inner: MemoryKeyStore,
    readings: AtomicU64,
    writing: tokio::sync::Mutex<()>,
}

impl Flawed {
    fn new(flaw: Flaw) -> Self {
        Self {
            flaw,
            inner: MemoryKeyStore::default(),
            readings: AtomicU64::new(0),
            writing: tokio::sync::Mutex::new(()),
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    async fn version(&self, key: &RowKey) -> Option<RowDigest> {
        self.inner.get(key).await.unwrap().map(|bytes| RowDigest::of(&bytes))
    }

    fn index_of(&self, key: &RowKey) -> Option<KeyIndex> {
        self.inner.raw_rows().into_iter().find(|(of, ..)| of == key).and_then(|(.., index)| index)
    }

    /// What the flaw makes of a write before it is done.
    async fn altered(&self, mut write: Write) -> Write {
        let is = self.version(&write.key).await;
        let keeps = write.change == RowChange::Keep;
        let taken = match self.flaw {
            Flaw::OverwritesAnyVersion => !keeps && is.is_some() && write.expected.is_some(),
            Flaw::OverwritesWhatShouldNotBe => !keeps && write.expected.is_none(),
            Flaw::InsertsWhatShouldBe => !keeps && is.is_none(),
            Flaw::KeepsAnyVersion => keeps && is.is_some() && write.expected.is_some(),
            Flaw::RemovesAnyVersion => write.change == RowChange::Remove && is.is_some(),
            Flaw::KeepsAbsentWhatIsThere => keeps && write.expected.is_none(),
            _ => false,
        };
        if taken {
            write.expected = is;
        }
        let indexed = matches!(write.key, RowKey::Key(..));
        if keeps && write.expected.is_none() && self.has(Flaw::MakesWhatIsKeptAbsent) && !indexed {
            write.change = RowChange::Put(Vec::new(), None);
        }
        if keeps && write.expected == is && is.is_some() && self.has(Flaw::WritesWhatIsKept) && !indexed {
            write.change = RowChange::Put(b"kept".to_vec(), None);
        }
        if write.change == RowChange::Remove && write.expected == is && self.has(Flaw::RemovesNothing) {
            write.change = RowChange::Keep;
        }
        if let RowChange::Put(bytes, index) = &mut write.change {
            match self.flaw {
                Flaw::CutsLongRows if bytes.len() < 1 << 24 => bytes.truncate(1 << 16),
                Flaw::OnlyText => *bytes = String::from_utf8_lossy(bytes).into_owned().into_bytes(),
                Flaw::OldIndex => *index = self.index_of(&write.key).or(index.take()),
                _ => {}
            }
        }
        if write.key == RowKey::Fleet && self.has(Flaw::OneSingleRow) {
            write.key = RowKey::Room;
        }
        write
    }

    fn write_all(&self, writes: &[Write]) {
        for write in writes {
            match &write.change {
                RowChange::Put(bytes, index) => self.inner.raw_put(&write.key, Some(bytes.clone()), index.clone()),
                RowChange::Remove => self.inner.raw_put(&write.key, None, None),
                _ => {}
            }
        }
    }

    async fn against(&self, writes: &[Write]) -> Vec<usize> {
        let mut against = Vec::new();
        for (at, write) in writes.iter().enumerate() {
            against.extend((self.version(&write.key).await != write.expected).then_some(at));
        }
        against
    }

    /// One after the other, each by itself.
    async fn part_by_part(&self, writes: &[Write], entry: Option<LogEntry<'_>>) -> Result<Put> {
        self.inner.put(&[], None).await?;
        let mut against = Vec::new();
        for (at, write) in writes.iter().enumerate() {
            if let Put::Conflict(_) = self.inner.put(std::slice::from_ref(write), None).await? {
                against.push(at);
                if self.has(Flaw::PartByPart) {
                    break;
                }
            }
        }
        if against.is_empty() { self.inner.put(&[], entry).await } else { Ok(Put::Conflict(against)) }
    }

    async fn put_flawed(&self, writes: &[Write], entry: Option<LogEntry<'_>>) -> Result<Put> {
        let before = self.inner.snapshot();
        let put = match self.flaw {
            Flaw::PartByPart | Flaw::PartBesideConflicts => return self.part_by_part(writes, entry).await,
            Flaw::LogsNothing => self.inner.put(writes, None).await?,
            Flaw::EntryOfAnotherNumber => {
                let entry = entry.map(|entry| move |number: u64| entry(number + 1));
                self.inner.put(writes, entry.as_ref().map(|entry| entry as LogEntry<'_>)).await?
            }
            Flaw::LooksAndThenWrites => {
                let looked = MemoryKeyStore::default();
                looked.restore(&before);
                if let conflict @ Put::Conflict(_) = looked.put(writes, None).await? {
                    return Ok(conflict);
                }
                tokio::task::yield_now().await;
                self.write_all(writes);
                return self.inner.put(&[], entry).await;
            }
            Flaw::LooksAtKeptRowsFirst => {
                let against = self.against(writes).await;
                let kept = |at: &usize| writes[*at].change == RowChange::Keep;
                if against.iter().any(kept) {
                    return Ok(Put::Conflict(against));
                }
                tokio::task::yield_now().await;
                let mut now = writes.to_vec();
                for write in now.iter_mut().filter(|write| write.change == RowChange::Keep) {
                    write.expected = self.version(&write.key).await;
                }
                self.inner.put(&now, entry).await?
            }
            Flaw::HalfDoneWhenDropped => {
                let _writing = self.writing.lock().await;
                let dry = self.inner.snapshot();
                let tried = self.inner.put(writes, None).await?;
                self.inner.restore(&dry);
                if let Put::Conflict(_) = tried {
                    return Ok(tried);
                }
                for write in writes {
                    if matches!(writes, [_, _, _]) {
                        tokio::time::sleep(Duration::from_micros(10)).await;
                    }
                    self.write_all(std::slice::from_ref(write));
                }
                return self.inner.put(&[], entry).await;
            }
            _ => self.inner.put(writes, entry).await?,
        };
        Ok(match (put, self.flaw) {
            (Put::Conflict(against), Flaw::WrongPlaces) => {
                Put::Conflict(against.iter().map(|at| writes.len() - at).collect())
            }
            (Put::Conflict(_), Flaw::NoPlaces) => Put::Conflict(Vec::new()),
            (Put::Conflict(against), Flaw::LogsConflicts) => {
                self.inner.put(&[], entry).await?;
                Put::Conflict(against)
            }
            (Put::Written(Some(_)), Flaw::LogsTwice) => self.inner.put(&[], entry).await?,
            (Put::Conflict(_), Flaw::TwoActiveKeys) if self.against(writes).await.is_empty() => {
                self.write_all(writes);
                Put::Written(None)
            }
            (Put::Written(_), Flaw::NoSuccessor) if succeeds(writes) => {
                self.inner.restore(&before);
                Put::Conflict(vec![writes.len() - 1])
            }
            (Put::Written(number), Flaw::RemovesAllOfTheTenant) => {
                for write in writes.iter().filter(|write| write.change == RowChange::Remove) {
                    let RowKey::Key(tenant, _) = &write.key else { continue };
                    for (id, _) in self.inner.keys(tenant, None, u32::MAX).await? {
                        self.inner.raw_put(&RowKey::Key(tenant.clone(), id), None, None);
                    }
                }
                Put::Written(number)
            }
            (put, _) => put,
        })
    }

    /// What the flaw makes of a page: `all` is all that the list has, in its order.
    fn page<K: Ord + Clone>(&self, all: Vec<(K, Vec<u8>)>, after: Option<&K>, limit: u32) -> Vec<(K, Vec<u8>)> {
        let from = self.has(Flaw::ListsFromAndNotAfter);
        let mut rest: Vec<_> = all
            .into_iter()
            .filter(|(key, _)| after.is_none_or(|after| key > after || (from && key == after)))
            .collect();
        if self.has(Flaw::ListsBackwards) {
            rest.reverse();
        }
        if !self.has(Flaw::ListsWithoutLimit) {
            rest.truncate(limit as usize);
        }
        rest
    }
}

/// Whether one key leaves the Active state and another one takes it.
fn succeeds(writes: &[Write]) -> bool {
    let states =
        |state| move |write: &Write| matches!(&write.change, RowChange::Put(_, Some(index)) if index.state == state);
    writes.len() == 2 && states(KeyState::Deactivated)(&writes[0]) && states(KeyState::Active)(&writes[1])
}

#[async_trait]
impl KeyStore for Flawed {
    async fn get(&self, key: &RowKey) -> Result<Option<Vec<u8>>> {
        let mut found = self.inner.get(key).await?;
        match (self.flaw, key) {
            (Flaw::RowsOfOtherTenants, RowKey::Key(_, id)) => {
                let same = |(of, ..): &(RowKey, _, _)| matches!(of, RowKey::Key(_, of) if of == id);
                found = found.or(self.inner.raw_rows().into_iter().find(same).map(|(_, bytes, _)| bytes));
            }
            (Flaw::EmptyIsNone, _) => found = found.filter(|bytes| !bytes.is_empty()),
            (Flaw::OneSingleRow, RowKey::Fleet) => return self.inner.get(&RowKey::Room).await,
            _ => {}
        }
        Ok(found)
    }

    async fn active(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<(KeyId, Vec<u8>)>> {
        if let Some(found) = self.inner.active(tenant, scope, period).await? {
            return Ok(Some(found));
        }
        let any = self.inner.raw_rows().into_iter().find_map(|(key, bytes, index)| {
            let (RowKey::Key(of, id), Some(index)) = (key, index) else { return None };
            let fits = (of == *tenant || self.has(Flaw::ActiveOfAnyTenant))
                && index.scope == *scope
                && (index.period.as_ref() == period || self.has(Flaw::ActiveOfAnyPeriod))
                && (index.state == KeyState::Active || self.has(Flaw::ActiveInAnyState));
            fits.then_some((id, bytes))
        });
        Ok(any)
    }

    async fn tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<(TenantId, Vec<u8>)>> {
        let mut all = self.inner.tenants(None, u32::MAX).await?;
        if self.has(Flaw::TenantsByLetters) {
            all.sort_by_key(|(tenant, _)| tenant.as_str().to_lowercase());
            let rest = all.iter().position(|(tenant, _)| Some(tenant) == after).map_or(0, |at| at + 1);
            return Ok(all.split_off(rest).into_iter().take(limit as usize).collect());
        }
        if self.has(Flaw::TenantsOfKeys) {
            for (key, ..) in self.inner.raw_rows() {
                if let RowKey::Key(tenant, _) = key
                    && all.iter().all(|(of, _)| *of != tenant)
                {
                    all.push((tenant, Vec::new()));
                }
            }
            all.sort();
        }
        Ok(self.page(all, after, limit))
    }

    async fn keys(&self, tenant: &TenantId, after: Option<&KeyId>, limit: u32) -> Result<Vec<(KeyId, Vec<u8>)>> {
        if self.has(Flaw::KeysOfOtherTenants) {
            let keys = self.inner.raw_rows().into_iter().filter_map(|(key, bytes, _)| match key {
                RowKey::Key(of, id) if of.as_str().starts_with(tenant.as_str()) => Some((id, bytes)),
                _ => None,
            });
            return Ok(self.page(keys.collect(), after, limit));
        }
        Ok(self.page(self.inner.keys(tenant, None, u32::MAX).await?, after, limit))
    }

    async fn journal(&self, tenant: &TenantId, after: u64, limit: u32) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut page = self.page(self.inner.journal(tenant, 0, u32::MAX).await?, Some(&after), u32::MAX);
        if self.has(Flaw::JournalByDigits) {
            page.sort_by_key(|(number, _)| number.to_string());
        }
        if !self.has(Flaw::ListsWithoutLimit) {
            page.truncate(limit as usize);
        }
        Ok(page)
    }

    async fn put(&self, writes: &[Write], entry: Option<LogEntry<'_>>) -> Result<Put> {
        let mut altered = Vec::with_capacity(writes.len());
        for write in writes {
            altered.push(self.altered(write.clone()).await);
        }
        let long = |write: &Write| matches!(&write.change, RowChange::Put(bytes, _) if bytes.len() > 1 << 21);
        if self.has(Flaw::RefusesLongRows) && writes.iter().any(long) {
            return Err(strongroom::Error::new(strongroom::ErrorKind::Limit, "longer than 2 MiB"));
        }
        match self.put_flawed(&altered, entry).await {
            Err(_) if self.has(Flaw::TakesNonsense) => Ok(Put::Written(None)),
            put => put,
        }
    }

    async fn log(&self, after: Option<u64>, limit: u32) -> Result<Log> {
        let all = self.inner.log(Some(0), u32::MAX).await?;
        let from = u64::from(self.has(Flaw::LogFromAndNotAfter));
        let mut entries: Vec<_> = all
            .entries
            .iter()
            .filter(|(number, _)| after.is_some_and(|after| number + from > after))
            .cloned()
            .collect();
        let reading = self.readings.fetch_add(1, Ordering::Relaxed);
        match self.flaw {
            Flaw::LatestEntries => entries = entries.split_off(entries.len().saturating_sub(limit as usize)),
            Flaw::AllWithoutAPlace if after.is_none() => entries = all.entries,
            Flaw::FewEntries => entries.retain(|(number, _)| number + 500 > all.end),
            Flaw::LateEntries => {
                let late = |number: u64| number != all.end && number + 2 >= all.end && !reading.is_multiple_of(3);
                entries.retain(|(number, _)| !late(*number));
            }
            _ => {}
        }
        if !self.has(Flaw::LogWithoutLimit) {
            entries.truncate(limit as usize);
        }
        let mut log = Log { entries, ..all };
        match self.flaw {
            Flaw::EndAsAsked => log.end = log.end.max(after.unwrap_or(0)),
            Flaw::NewIdentity => log.store = StoreIdentity(reading.to_string()),
            _ => {}
        }
        Ok(log)
    }
}

async fn passes(flaw: Flaw) -> bool {
    let checked = AssertUnwindSafe(store_contract(Arc::new(Flawed::new(flaw)))).catch_unwind().await;
    match checked {
        Ok(()) => true,
        Err(why) => {
            let why = why.downcast_ref::<String>().map(String::as_str).or(why.downcast_ref::<&str>().copied());
            println!("{flaw:?}: {}", why.unwrap_or_default().lines().next().unwrap_or_default());
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_without_a_flaw_passes() {
    assert!(passes(Flaw::None).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_with_any_flaw_does_not() {
    let mut passed = Vec::new();
    for flaw in FLAWS {
        if passes(*flaw).await {
            passed.push(flaw);
        }
    }
    assert!(passed.is_empty(), "the suite does not see {passed:?}");
}
