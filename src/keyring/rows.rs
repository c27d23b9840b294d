//! Rows read and written: nothing that the key store says is used before it is verified, and held against what was asked for.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::key::change::{Change, Forget, LogRecord};
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::record::KeyRecord;
use crate::key::room_record::RoomRecord;
use crate::key::row_digest::RowDigest;
use crate::key::scope::Scope;
use crate::key::tenant::TenantRecord;
use crate::keyring::Keyring;
use crate::keyring::room_keys::OpenedRoom;
use crate::row::Stored;
use crate::row::authority::{Authority, ControlKey};
use crate::row::frame::Kind;
use crate::store::row::{KeyIndex, Put, RowChange, RowKey, Write};

/// The root is asked for no other row of the room sooner than this: whoever writes the store could have it asked with each reading.
const ASKING_AGAIN: Duration = Duration::from_secs(1);

/// The room's row whose generations this process knows.
#[derive(Default)]
pub(crate) struct KnownRoom {
    pub(crate) row: Option<Stored<RoomRecord>>,
    /// When the root was last asked about another one, in vain.
    asked: Option<Duration>,
}

impl KnownRoom {
    pub(crate) fn of(row: Stored<RoomRecord>) -> Self {
        Self { row: Some(row), asked: None }
    }
}

/// A tenant's row, verified.
pub(crate) type TenantRow = Stored<TenantRecord>;
/// A key record, verified.
pub(crate) type KeyRow = Stored<KeyRecord>;

impl Keyring {
    /// A row, verified. If it is of a later generation than this process knows, the room's row is read again first.
    pub(crate) async fn read_row<T: Serialize + DeserializeOwned>(
        &self,
        kind: Kind,
        key: &RowKey,
    ) -> Result<Option<Stored<T>>> {
        let Some(bytes) = self.store.get(key).await? else {
            return Ok(None);
        };
        self.verified(kind, &bytes).await.map(Some)
    }

    /// As [`Self::read_row`], of bytes that were read.
    pub(crate) async fn verified<T: Serialize + DeserializeOwned>(
        &self,
        kind: Kind,
        bytes: &[u8],
    ) -> Result<Stored<T>> {
        if self.authority.load().is_of_later_generation(kind, bytes) {
            self.follow_room().await?;
        }
        self.authority.load().read(kind, bytes)
    }

    /// Reads the room's row again: somebody was evicted. The root is asked only if the row is another one than before, so that
    /// whoever writes rows of a generation that there is not has it asked for nothing.
    pub(crate) async fn follow_room(&self) -> Result<()> {
        self.read_room(false).await
    }

    /// The same, whatever is known: a decision depends on it.
    pub(crate) async fn follow_room_now(&self) -> Result<()> {
        self.read_room(true).await
    }

    async fn read_room(&self, anyway: bool) -> Result<()> {
        let Some(source) = &self.source else {
            return Ok(());
        };
        let bytes = self.store.get(&RowKey::Room).await?;
        if !anyway {
            let mut known = self.room.lock().unwrap_or_else(PoisonError::into_inner);
            let digest = known.row.as_ref().map(|row| row.digest);
            let now = self.now();
            if digest == bytes.as_deref().map(RowDigest::of) || known.asked.is_some_and(|at| now < at + ASKING_AGAIN) {
                return Ok(());
            }
            known.asked = Some(now);
        }
        let OpenedRoom { row, authority } = source.open().await?;
        if authority.generation() > self.authority.load().generation() {
            tracing::warn!(generation = row.record.generations.len(), "the room's keys are of another generation now");
            self.authority.store(Arc::new(authority));
            *self.control.lock().await = None;
            // What was made under earlier ones opens, and seals no more.
            self.cache.stop_all_sealing(|| self.flights.make_all_stale());
        }
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = KnownRoom { row: Some(row), asked: None };
        Ok(())
    }

    /// The control plane's key; unwrapped under the root when it is first needed.
    pub(crate) async fn control(&self) -> Result<Option<Arc<ControlKey>>> {
        let Some(source) = &self.source else {
            return Ok(None); // the store is trusted: nothing is signed
        };
        let mut control = self.control.lock().await;
        if let Some(key) = &*control {
            return Ok(Some(Arc::clone(key)));
        }
        let room = source.open().await?;
        let key = Arc::new(source.control(&room.row.record).await?);
        Ok(Some(Arc::clone(control.insert(key))))
    }

    /// A tenant's row as it is now.
    ///
    /// # Errors
    /// As [`Self::believed_tenant`].
    pub(crate) async fn tenant(&self, tenant: &TenantId) -> Result<TenantRow> {
        let believed = self.believed_tenant(tenant).await;
        believed.map(|it| it.row).map_err(|e| e.with_tenant(tenant.as_str()))
    }

    /// The same for the data plane, which waits for its turn at the store.
    ///
    /// # Errors
    /// As [`Self::tenant`]; `Overloaded`.
    pub(crate) async fn tenant_in_turn(&self, tenant: &TenantId) -> Result<TenantRow> {
        self.admission.reads.run(tenant, self.tenant(tenant)).await
    }

    /// A tenant's key record by its id.
    ///
    /// # Errors
    /// `Tampered` if the row is not that key's, or nobody vouches for it.
    pub(crate) async fn key_row(&self, tenant: &TenantId, key_id: &KeyId) -> Result<Option<KeyRow>> {
        match self.store.get(&RowKey::Key(tenant.clone(), *key_id)).await? {
            Some(bytes) => self.verified_key(tenant, key_id, &bytes).await.map(Some),
            None => Ok(None),
        }
    }

    /// The key record that the store shows as the Active one of a scope and period.
    ///
    /// # Errors
    /// `Tampered` if it is another one's: where a row is found is the store's word alone, and is compared with the row's.
    pub(crate) async fn active_row(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<KeyRow>> {
        let Some((key_id, bytes)) = self.store.active(tenant, scope, period).await? else {
            return Ok(None);
        };
        let row = self.verified_key(tenant, &key_id, &bytes).await?;
        let is_it =
            row.scope == *scope && row.period.as_ref() == period && row.state == crate::key::state::KeyState::Active;
        if is_it { Ok(Some(row)) } else { Err(wrong_record(tenant)) }
    }

    /// Verifies a key record that the store found under this name.
    pub(crate) async fn verified_key(&self, tenant: &TenantId, key_id: &KeyId, bytes: &[u8]) -> Result<KeyRow> {
        let row: KeyRow = self.verified(Kind::Key, bytes).await.map_err(|e| e.with_tenant(tenant.as_str()))?;
        if row.tenant != *tenant || row.key_id != *key_id {
            return Err(wrong_record(tenant));
        }
        check_key_row(&row).map(|()| row)
    }

    /// The write of a key record: over `expected`, or as a new row.
    pub(crate) fn key_write(&self, record: &KeyRecord, expected: Option<&KeyRow>) -> Result<Write> {
        record.check()?;
        let index = KeyIndex { scope: record.scope.clone(), period: record.period.clone(), state: record.state };
        Ok(Write {
            key: RowKey::Key(record.tenant.clone(), record.key_id),
            expected: expected.map(|row| row.digest),
            change: RowChange::Put(self.authority.load().tag(Kind::Key, record)?, Some(index)),
        })
    }

    /// Writes new key records and changed ones, if the tenant's row is still this one: so no data key comes into being under a
    /// policy or a revocation that was decided otherwise meanwhile.
    ///
    /// # Errors
    /// `Conflict` if one of them, or the tenant's row, was changed meanwhile, or the scope has another Active key.
    pub(crate) async fn put_keys_under(&self, row: &TenantRow, writes: Vec<Write>) -> Result<()> {
        let unchanged =
            Write { key: RowKey::Tenant(row.tenant.clone()), expected: Some(row.digest), change: RowChange::Keep };
        let writes = [vec![unchanged], writes].concat();
        match self.store.put(&writes, None).await? {
            Put::Written(_) => Ok(()),
            Put::Conflict(_) => {
                let message = "the tenant's row or the scope's Active key was changed meanwhile; read them again";
                Err(Error::new(ErrorKind::Conflict, message))
            }
        }
    }

    /// Removes key records: those that nobody else changed meanwhile. Says how many.
    pub(crate) async fn remove_keys(&self, rows: &[KeyRow]) -> Result<u64> {
        let removal = |row: &KeyRow| {
            let key = RowKey::Key(row.tenant.clone(), row.key_id);
            Write { key, expected: Some(row.digest), change: RowChange::Remove }
        };
        let left = self.put_what_stands(rows.iter().map(removal).collect()).await?;
        Ok(left.iter().filter(|written| **written).count() as u64)
    }

    /// Writes changed key records: those that nobody else changed meanwhile. Says of each whether it was written.
    pub(crate) async fn put_keys(&self, changed: &[(KeyRow, KeyRecord)]) -> Result<Vec<bool>> {
        let writes: Vec<Write> =
            changed.iter().map(|(old, new)| self.key_write(new, Some(old))).collect::<Result<_>>()?;
        self.put_what_stands(writes).await
    }

    /// Writes those of `writes` that nobody else got in the way of. Says of each whether it was written.
    pub(crate) async fn put_what_stands(&self, mut writes: Vec<Write>) -> Result<Vec<bool>> {
        let mut written = vec![true; writes.len()];
        let mut places: Vec<usize> = (0..writes.len()).collect();
        loop {
            if writes.is_empty() {
                return Ok(written);
            }
            let Put::Conflict(lost) = self.store.put(&writes, None).await? else {
                return Ok(written);
            };
            // All or nothing: the others are tried again without those that were in the way.
            let before = writes.len();
            for place in lost.iter().filter_map(|at| places.get(*at)) {
                if let Some(written) = written.get_mut(*place) {
                    *written = false;
                }
            }
            let stands = |place: &usize| written.get(*place) == Some(&true);
            writes =
                writes.into_iter().zip(&places).filter(|(_, place)| stands(place)).map(|(write, _)| write).collect();
            places.retain(stands);
            if writes.len() == before {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "the key store names no row that was in the way; retry",
                ));
            }
        }
    }

    /// Counts a decision that was added to the log.
    ///
    /// # Errors
    /// `RolledBack` if it bears a number that was counted before it was added: the log was put back.
    pub(crate) async fn heard_of(&self, counted: u64, number: u64) -> Result<()> {
        if number > counted {
            return self.count_decision(number).await;
        }
        let message = format!(
            "the key store's log was put back: a new decision got number {number}, and {counted} were counted before; nodes wait until \
             it reaches that count. Restore the newest copy, or repeat decisions until it does"
        );
        Err(Error::new(ErrorKind::RolledBack, message))
    }

    /// Adds a change to the log, for every node to hear. Nothing to forget is nothing to say.
    pub(crate) async fn announce(&self, change: &Change) -> Result<()> {
        if change.forget == Forget::Nothing {
            return Ok(());
        }
        let (control, authority) = (self.control().await?, self.authority.load_full());
        let counted = self.counted_decisions().await?;
        let entry = |number| log_entry(&authority, control.as_deref(), counted, number, change);
        match self.store.put(&[], Some(&entry)).await? {
            Put::Written(Some(number)) => self.heard_of(counted, number).await,
            _ => Err(Error::new(ErrorKind::Unavailable, "the key store did not add to its log of changes")),
        }
    }
}

/// Checks a verified key record by itself.
///
/// # Errors
/// `Tampered` if a node that was evicted claims a later generation; `Malformed` if no node wrote such a record.
pub(crate) fn check_key_row(row: &KeyRow) -> Result<()> {
    if row.record.made_generation > row.generation {
        // Whoever tags for an earlier generation was evicted before this one: it made nothing in it.
        let message = format!(
            "the record of data key {} says that it was made after the keys that vouch for it were given up",
            row.key_id
        );
        return Err(Error::new(ErrorKind::Tampered, message).with_tenant(row.tenant.as_str()));
    }
    row.record.check()
}

/// The row of a log entry, signed by the control plane: nodes that were taken over add nothing to the log. `counted` decisions were
/// there before: an entry of a number up to that is in the place of another one, which was taken out, and nobody is to take
/// it for that.
pub(crate) fn log_entry(
    authority: &Authority,
    control: Option<&ControlKey>,
    counted: u64,
    number: u64,
    change: &Change,
) -> Vec<u8> {
    if number <= counted {
        return Vec::new(); // does not read: nodes forget everything
    }
    // An entry that cannot be signed (the room's keys were changed meanwhile) is one that does not read: nodes forget everything.
    authority.sign(control, Kind::Log, &LogRecord { number, change: change.clone() }).unwrap_or_default()
}

pub(crate) fn wrong_record(tenant: &TenantId) -> Error {
    let message = "the key store returned another key's record, or one that is not where it says; it was edited";
    Error::new(ErrorKind::Tampered, message).with_tenant(tenant.as_str())
}
