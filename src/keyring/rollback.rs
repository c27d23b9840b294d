//! Roll-back: whether a row is the newest that the control plane wrote, as far as the watermark, or else this process's own
//! memory, can tell.
//!
//! A row is believed if the watermark names it or its direct predecessor: marks are raised after the commit and before the
//! decision is said to be taken, so a process that ended in between leaves a row that is one ahead.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::key::fleet::FleetRecord;
use crate::key::id::TenantId;
use crate::key::incarnation::Incarnation;
use crate::key::room_record::RoomRecord;
use crate::key::row_digest::RowDigest;
use crate::key::tenant::TenantRecord;
use crate::keyring::Keyring;
use crate::retry::Patience;
use crate::row::Stored;
use crate::row::frame::Kind;
use crate::store::row::RowKey;
use crate::watermark::{Mark, Subject, Watermark};

/// How often a row that is further ahead than its mark is read again while the mark stands still.
const TRIES_OF_A_MARK: u32 = 8;

/// A row whose versions follow each other.
pub(crate) trait Versioned {
    fn incarnation(&self) -> Incarnation;
    fn epoch(&self) -> u64;
    fn predecessor(&self) -> Option<RowDigest>;

    /// The mark of this version, whose row has this digest.
    fn mark(&self, digest: RowDigest) -> Mark {
        Mark { incarnation: self.incarnation(), epoch: self.epoch(), digest }
    }
}

impl Versioned for TenantRecord {
    fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn predecessor(&self) -> Option<RowDigest> {
        self.predecessor
    }
}

impl Versioned for FleetRecord {
    fn incarnation(&self) -> Incarnation {
        self.room
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn predecessor(&self) -> Option<RowDigest> {
        self.predecessor
    }
}

impl Versioned for RoomRecord {
    fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn predecessor(&self) -> Option<RowDigest> {
        self.predecessor
    }
}

/// What a watermark says of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The mark names this very row.
    Named,
    /// The mark names its direct predecessor.
    OneAhead,
    /// It is further ahead than that: marks were raised since this one was read, or the watermark was put back.
    FurtherAhead,
    /// It is older than the mark, or another row of the same epoch.
    RolledBack,
}

/// Holds a row against the mark of its subject.
pub(crate) fn judge(row: &impl Versioned, digest: RowDigest, mark: Option<&Mark>) -> Verdict {
    let Some(mark) = mark else {
        return if row.epoch() == 1 { Verdict::OneAhead } else { Verdict::FurtherAhead };
    };
    if *mark == row.mark(digest) {
        return Verdict::Named;
    }
    if mark.incarnation != row.incarnation() || row.epoch() <= mark.epoch {
        return Verdict::RolledBack;
    }
    if row.epoch() == mark.epoch + 1 {
        // The next epoch on another row: somebody wrote on a row that was put back.
        return if row.predecessor() == Some(mark.digest) { Verdict::OneAhead } else { Verdict::RolledBack };
    }
    Verdict::FurtherAhead
}

impl Verdict {
    /// # Errors
    /// `RolledBack` unless the row is believed.
    pub(crate) fn believed(self, what: &str) -> Result<()> {
        match self {
            Self::Named | Self::OneAhead => Ok(()),
            Self::FurtherAhead => Err(further_ahead(what)),
            Self::RolledBack => Err(rolled_back(what)),
        }
    }
}

fn further_ahead(what: &str) -> Error {
    let message = format!(
        "{what} is newer than the watermark, which was put back or belongs to another room; restore the newest one"
    );
    Error::new(ErrorKind::RolledBack, message)
}

fn rolled_back(what: &str) -> Error {
    let message = format!(
        "{what} in the key store is not the newest that was written: the store was restored from an older copy, or edited. \
         Restore the newest copy"
    );
    Error::new(ErrorKind::RolledBack, message)
}

/// Most subjects that are kept in mind: some 2 MB.
const SUBJECTS: usize = 10_000;

/// The newest versions that this process saw, where there is no watermark to ask. Of many tenants those that were met last: what is
/// forgotten is only not noticed, and who does not want that names a watermark.
#[derive(Default)]
pub(crate) struct Seen(Mutex<SeenMarks>);

#[derive(Default)]
struct SeenMarks {
    marks: HashMap<Subject, Mark>,
    /// Tenants, in the order in which they were first met.
    met: VecDeque<Subject>,
}

impl Seen {
    /// What was seen of a subject. Ask before reading its row: a row that is read later is no older.
    pub(crate) fn of(&self, subject: &Subject) -> Option<Mark> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).marks.get(subject).copied()
    }

    /// # Errors
    /// `RolledBack` if the row is older than what was seen before it was read.
    fn check(&self, subject: &Subject, before: Option<Mark>, mark: Mark, what: &str) -> Result<()> {
        let older = before.is_some_and(|seen| {
            mark.incarnation != seen.incarnation
                || mark.epoch < seen.epoch
                || (mark.epoch == seen.epoch && mark.digest != seen.digest)
        });
        if older {
            return Err(rolled_back(what));
        }
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.marks.get_mut(subject) {
            Some(newest) if newest.epoch >= mark.epoch => {}
            Some(newest) => *newest = mark,
            None => {
                seen.marks.insert(subject.clone(), mark);
                if matches!(subject, Subject::Tenant(_)) {
                    seen.met.push_back(subject.clone());
                }
                if seen.met.len() > SUBJECTS
                    && let Some(first) = seen.met.pop_front()
                {
                    seen.marks.remove(&first);
                }
            }
        }
        Ok(())
    }
}

/// A row that is believed, and the mark that it was held against.
#[derive(Clone, Debug)]
pub(crate) struct Believed<T> {
    pub(crate) row: Stored<T>,
    mark: Option<Mark>,
}

impl Keyring {
    /// A tenant's row as it is now, with the mark that it was held against.
    ///
    /// # Errors
    /// `UnknownTenant` if there is none; `RolledBack` if a newer one was written; `Tampered`; as the store and the watermark.
    pub(crate) async fn believed_tenant(&self, tenant: &TenantId) -> Result<Believed<TenantRecord>> {
        let (subject, key) = (Subject::Tenant(tenant.clone()), RowKey::Tenant(tenant.clone()));
        let believed = self.believed::<TenantRecord>(&subject, &key, Kind::Tenant, "the tenant's row").await?;
        let believed = believed
            .ok_or_else(|| Error::new(ErrorKind::UnknownTenant, "no such tenant is enrolled; enroll it first"))?;
        if believed.row.record.tenant != *tenant {
            return Err(Error::new(ErrorKind::Tampered, "the key store returned another tenant's row; it was edited"));
        }
        believed.row.record.check_stored().map(|()| believed)
    }

    /// The fleet's row as it is now. `None` if there is none.
    pub(crate) async fn believed_fleet(&self) -> Result<Option<Believed<FleetRecord>>> {
        let fleet = self.believed(&Subject::Fleet, &RowKey::Fleet, Kind::Fleet, "the fleet's row").await?;
        fleet.iter().try_for_each(|it: &Believed<FleetRecord>| it.row.record.check_stored())?;
        Ok(fleet)
    }

    /// The fleet's mark, and the version of the row that stands in the store, whoever wrote it: what a new row is put in the place
    /// of when the old one is gone.
    pub(crate) async fn last_fleet(&self) -> Result<(Option<Mark>, Option<RowDigest>)> {
        let mark = match &self.watermark {
            Some(watermark) => watermark.read(&Subject::Fleet).await?,
            None => None,
        };
        Ok((mark, self.store.get(&RowKey::Fleet).await?.map(|bytes| RowDigest::of(&bytes))))
    }

    async fn believed<T>(
        &self,
        subject: &Subject,
        key: &RowKey,
        kind: Kind,
        what: &'static str,
    ) -> Result<Option<Believed<T>>>
    where
        T: Versioned + serde::Serialize + serde::de::DeserializeOwned,
    {
        let (mut last, mut tries) = (None, 0);
        let mut patience = Patience::default();
        while patience.tries_again().await {
            // Before the row: a row that is read later is at least as new.
            let mark = match &self.watermark {
                Some(watermark) => watermark.read(subject).await?,
                None => self.seen.of(subject),
            };
            let Some(row) = self.read_row::<T>(kind, key).await? else {
                if mark.is_some() {
                    return Err(rolled_back(what));
                }
                return Ok(None);
            };
            if self.believes(&row, subject, mark.as_ref(), what)? == Verdict::FurtherAhead {
                // Who wrote it raised the mark before, so a mark that goes on was only read too early.
                tries = if last == Some(mark) { tries + 1 } else { 1 };
                last = Some(mark);
                if tries == TRIES_OF_A_MARK {
                    break;
                }
                continue;
            }
            let mark = mark.filter(|_| self.watermark.is_some());
            return Ok(Some(Believed { row, mark }));
        }
        if tries < TRIES_OF_A_MARK {
            let message = format!("{what} is being changed over and over, and was not read; repeat the call");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        Err(further_ahead(what))
    }

    /// Holds a row against the mark that was read before it: the watermark's, or what this process saw.
    ///
    /// # Errors
    /// `RolledBack`; `Tampered` if an earlier generation of the control plane signed it, and the watermark does not name it.
    pub(crate) fn believes<T: Versioned>(
        &self,
        row: &Stored<T>,
        subject: &Subject,
        mark: Option<&Mark>,
        what: &'static str,
    ) -> Result<Verdict> {
        let is_present = row.generation == self.authority.load().generation();
        if self.watermark.is_none() {
            // An earlier control plane's key may be in other hands, and nobody outside the store says which row was the last.
            if !is_present {
                let message = "a row is signed by an earlier generation of the control plane; finish the eviction, or name a \
                               watermark";
                return Err(Error::new(ErrorKind::Tampered, message));
            }
            let before = mark.copied();
            return self.seen.check(subject, before, row.record.mark(row.digest), what).map(|()| Verdict::Named);
        }
        let verdict = judge(&row.record, row.digest, mark);
        if verdict == Verdict::FurtherAhead {
            return Ok(verdict);
        }
        verdict.believed(what)?;
        if verdict != Verdict::Named && !is_present {
            let message =
                "a row that the watermark does not name is signed by an earlier generation of the control plane";
            return Err(Error::new(ErrorKind::Tampered, message));
        }
        Ok(verdict)
    }

    /// Raises the watermark to a row that was believed because it is one ahead: its writer ended before it did so. The control
    /// plane writes on nothing that the watermark does not name.
    pub(crate) async fn settle<T: Versioned>(&self, subject: &Subject, believed: &Believed<T>) -> Result<Option<Mark>> {
        let mark = believed.row.record.mark(believed.row.digest);
        if believed.mark != Some(mark) {
            self.raise(subject, believed.mark.as_ref(), &mark).await?;
        }
        Ok(Some(mark))
    }

    /// Raises the watermark, if there is one, from `from` to `to`. `false` if others have gone on from there meanwhile: whether from
    /// this very row, the caller's journal tells.
    ///
    /// # Errors
    /// `RolledBack` if it is at neither: somebody wrote on a row that was put back.
    pub(crate) async fn raise(&self, subject: &Subject, from: Option<&Mark>, to: &Mark) -> Result<bool> {
        let Some(watermark) = &self.watermark else {
            return Ok(true);
        };
        if watermark.advance(subject, from, to).await? {
            return Ok(true);
        }
        match watermark.read(subject).await? {
            Some(now) if now == *to => Ok(true),
            Some(now) if now.incarnation == to.incarnation && now.epoch > to.epoch => Ok(false),
            _ => Err(rolled_back("what the watermark remembers")),
        }
    }

    /// How many decisions the watermark counts. Ask before adding to the log: what is added later has a higher number, or the log was
    /// put back.
    pub(crate) async fn counted_decisions(&self) -> Result<u64> {
        match &self.watermark {
            Some(watermark) => Ok(watermark.read(&Subject::Log).await?.map_or(0, |mark| mark.epoch)),
            None => Ok(0),
        }
    }

    /// Counts a decision of the log, in the watermark: nodes grant themselves no lease on a log that does not reach it.
    pub(crate) async fn count_decision(&self, number: u64) -> Result<()> {
        let Some(watermark) = &self.watermark else {
            return Ok(());
        };
        raise_count(watermark, number).await
    }
}

async fn raise_count(watermark: &Arc<dyn Watermark>, number: u64) -> Result<()> {
    let to =
        Mark { incarnation: Incarnation::from_bytes([0; 16]), epoch: number, digest: RowDigest::from_bytes([0; 32]) };
    let mut patience = Patience::default();
    while patience.tries_again().await {
        let now = watermark.read(&Subject::Log).await?;
        if now.is_some_and(|now| now.epoch >= number) || watermark.advance(&Subject::Log, now.as_ref(), &to).await? {
            return Ok(());
        }
    }
    let message = "the watermark's count of decisions is being changed over and over; the decision stands and is heard of; repeat it";
    Err(Error::new(ErrorKind::Unavailable, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row(u8, u64, Option<u8>);

    impl Versioned for Row {
        fn incarnation(&self) -> Incarnation {
            Incarnation::from_bytes([self.0; 16])
        }

        fn epoch(&self) -> u64 {
            self.1
        }

        fn predecessor(&self) -> Option<RowDigest> {
            self.2.map(|n| RowDigest::from_bytes([n; 32]))
        }
    }

    #[test]
    fn what_a_watermark_believes() {
        let digest = |n: u8| RowDigest::from_bytes([n; 32]);
        let seven = Row(1, 7, Some(6)).mark(digest(7));
        let verdict = |life, epoch, predecessor, n: u8| judge(&Row(life, epoch, predecessor), digest(n), Some(&seven));
        assert_eq!(verdict(1, 7, Some(6), 7), Verdict::Named);
        assert_eq!(verdict(1, 8, Some(7), 8), Verdict::OneAhead);
        assert_eq!(verdict(1, 9, Some(8), 9), Verdict::FurtherAhead);
        for (life, epoch, predecessor, n) in [
            (1, 6, Some(5), 6),
            (1, 7, Some(6), 77),
            (1, 8, Some(77), 8),
            (2, 7, Some(6), 7),
            (2, 8, Some(7), 8),
            (2, 1, None, 1),
        ] {
            assert_eq!(verdict(life, epoch, predecessor, n), Verdict::RolledBack, "{life} {epoch} {predecessor:?} {n}");
        }
        assert_eq!(judge(&Row(1, 1, None), digest(1), None), Verdict::OneAhead);
        assert_eq!(judge(&Row(1, 2, Some(1)), digest(2), None), Verdict::FurtherAhead);
    }

    #[test]
    fn of_many_tenants_the_last_are_kept_in_mind_and_the_fleet_always() {
        let seen = Seen::default();
        let mark = Row(1, 3, None).mark(RowDigest::from_bytes([3; 32]));
        let tenant = |n: usize| Subject::Tenant(TenantId::new(&format!("tenant-{n}")).unwrap());
        for subject in std::iter::once(Subject::Fleet).chain((0..30_000).map(tenant)) {
            seen.check(&subject, None, mark, "a row").unwrap();
        }
        assert_eq!(seen.0.lock().unwrap().marks.len(), SUBJECTS + 1);
        assert_eq!((seen.of(&Subject::Fleet), seen.of(&tenant(29_999))), (Some(mark), Some(mark)));
        assert_eq!(seen.of(&tenant(0)), None);
    }

    #[test]
    fn a_process_goes_by_what_it_saw_where_there_is_no_watermark() {
        let (seen, digest) = (Seen::default(), |n: u8| RowDigest::from_bytes([n; 32]));
        let look = |life, epoch, n: u8| {
            let before = seen.of(&Subject::Fleet);
            seen.check(&Subject::Fleet, before, Row(life, epoch, None).mark(digest(n)), "a row").is_ok()
        };
        assert!(look(1, 3, 3) && look(1, 3, 3) && look(1, 5, 5));
        assert!(!look(1, 4, 4) && !look(1, 5, 55) && !look(2, 6, 6));
        assert!(look(1, 6, 6));
    }
}
