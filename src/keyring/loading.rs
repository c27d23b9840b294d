//! Loading a key: from the store's record through the tenant's KMS to a verified key; creating and succeeding keys.

use std::sync::Arc;
use std::time::Duration;

use crate::crypto::allotment::Budget;
use crate::crypto::secret::DataKey;
use crate::error::{Error, ErrorKind, Result};
use crate::key::attribution::Attribution;
use crate::key::data_key::LoadedKey;
use crate::key::encryption_context::EncryptionContext;
use crate::key::id::{KeyId, TenantId};
use crate::key::period::{Period, PeriodLabel};
use crate::key::record::{KeyRecord, Transition};
use crate::key::scope::Scope;
use crate::key::state::KeyState;
use crate::key::suspension::opens_suspended;
use crate::keyring::Keyring;
use crate::keyring::cache::CachedKey;
use crate::keyring::known::KnownKey;
use crate::keyring::rows::{KeyRow, TenantRow};

/// Why a node makes a key by itself.
const FIRST_USE: &str = "first use";
/// Why a key seals no more.
const SUCCEEDED: &str = "succeeded by a new key";

/// No key was made before 2025-01-01T00:00:00Z, in Unix milliseconds.
const EARLIEST: i64 = 1_735_689_600_000;

/// The moment at which a load began. Lives of keys are counted from here, before anything was read or unwrapped.
#[derive(Clone, Copy)]
pub(crate) struct Began {
    monotonic: Duration,
    unix_millis: i64,
}

/// Of which period the Active key of a scope is wanted.
#[derive(Clone, Copy)]
pub(crate) enum When<'a> {
    /// The present one.
    Now,
    /// One that is past.
    Past(&'a PeriodLabel),
    /// The one that comes next, which has to be this.
    Next(&'a PeriodLabel),
}

/// A record with its data key, where the load made it itself.
struct Found {
    record: KeyRecord,
    data_key: Option<DataKey>,
}

/// A data key that this process made, and why.
struct New {
    record: KeyRecord,
    data_key: DataKey,
}

impl Keyring {
    pub(crate) fn began(&self) -> Began {
        Began { monotonic: self.clock.monotonic(), unix_millis: self.clock.unix_millis() }
    }

    /// The Active key of a scope, created or succeeded where that is due. The next period's is an Active key as any, under the same
    /// rules: what makes a key due for a successor at the turn makes it so before.
    pub(crate) async fn load_sealing(&self, tenant: &TenantId, scope: &Scope, when: When<'_>) -> Result<CachedKey> {
        let reads = async {
            let began = self.began();
            let row = self.tenant(tenant).await?;
            let period = match when {
                When::Now => row.policy.key_period().label(began.unix_millis)?,
                When::Past(past) => Some(past.clone()),
                When::Next(next) => Some(check_comes_next(&row, next, began)?),
            };
            let active = self.active(&row, scope, period.as_ref()).await?;
            Ok((began, row, period, active))
        };
        let (began, row, period, active) = self.admission.reads.run(tenant, reads).await?;
        let found = match active {
            None => self.make_first(&row, scope, period.clone(), began).await?.into(),
            Some(active) if self.is_due(&row, &active, began) => {
                self.make_successor(&row, scope, period.clone(), &active, began, FIRST_USE).await?.into()
            }
            Some(active) => Found { record: active.record, data_key: None },
        };
        let record = &found.record;
        self.check_served(record.region.as_str())?;
        record.check_opens()?;
        row.check_record(record)?;
        self.known.saw(tenant, scope, period.as_ref(), known_key(record));
        let mut key = self.cached(&row, found, period.as_ref(), (tenant, scope), began).await?;
        if let When::Past(_) = when {
            // It seals again what belongs to its period. Should it come into the scope's slot, nothing new is sealed with it.
            key.seals_until = began.monotonic;
        }
        Ok(key)
    }

    /// A key by its id.
    ///
    /// # Errors
    /// `Unopenable` if the tenant has no such key.
    pub(crate) async fn load_opening(&self, tenant: &TenantId, key_id: &KeyId) -> Result<CachedKey> {
        let reads = async {
            let began = self.began();
            let row = self.tenant(tenant).await?;
            let record = self.key_row(tenant, key_id).await?.ok_or_else(no_record)?.record;
            Ok((began, row, record))
        };
        let (began, row, record) = self.admission.reads.run(tenant, reads).await?;
        row.check_record(&record)?;
        self.check_served(record.region.as_str())?;
        row.policy.check_region(&record.region)?;
        row.check_not_revoked(&record.scope, record.period.as_ref(), Some(&record.key_id))?;
        row.check_not_erased(&record)?;
        record.check_opens()?;
        if let Some(suspension) = row.suspension(&record, began.unix_millis) {
            return Err(opens_suspended(Some(suspension.until)).with_tenant(tenant.as_str()));
        }
        let slot = self.cache.slot(tenant, &record.scope);
        let period = row.policy.key_period().label(began.unix_millis)?;
        let (_, scope) = slot.at();
        let found = Found { record, data_key: None };
        self.cached(&row, found, period.as_ref(), (tenant, scope), began).await
    }

    /// Makes a new data key for the scope now, whether due or not, and returns its id.
    pub(crate) async fn rotate(&self, tenant: &TenantId, scope: &Scope, by: &Attribution) -> Result<KeyId> {
        let began = self.began();
        let row = self.tenant(tenant).await?;
        let period = row.policy.key_period().label(began.unix_millis)?;
        let made = match self.active(&row, scope, period.as_ref()).await? {
            None => self.make_first(&row, scope, period.clone(), began).await?,
            Some(active) => self.make_successor(&row, scope, period.clone(), &active, began, by.reason()).await?,
        };
        self.known.saw(tenant, scope, period.as_ref(), known_key(&made.record));
        Ok(made.record.key_id)
    }

    /// The Active key of a scope and period, once policy, region and revocations allow one.
    async fn active(&self, row: &TenantRow, scope: &Scope, period: Option<&PeriodLabel>) -> Result<Option<KeyRow>> {
        row.policy.check_scope(scope)?;
        self.check_served(row.policy.home_region().as_str())?;
        row.check_not_revoked(scope, period, None)?;
        let active = self.active_row(&row.tenant, scope, period).await?;
        if let Some(active) = &active {
            row.check_record(active)?;
        }
        Ok(active)
    }

    /// Whether the Active key must seal no more: too old, spent, revoked by its id, given up after a compromise, erased, made by a
    /// node that was evicted since, or of another region, suite or context rules than the policy's.
    fn is_due(&self, row: &TenantRow, active: &KeyRow, began: Began) -> bool {
        let policy = &row.policy;
        policy.rotation_policy().remaining(active.created_at, began.unix_millis).is_zero()
            || self.usage.of(&active.key_id, policy.rotation_policy().messages()).is_spent()
            || active.region != *policy.home_region()
            || active.suite != policy.key_suite()
            || active.context_rules != *policy.context_rules()
            || !self.may_seal(row, active)
            || row.check_not_revoked(&active.scope, active.period.as_ref(), Some(&active.key_id)).is_err()
    }

    /// Whether a record may seal, whatever its age: what forbids stands in the tenant's row, and in the room's generation.
    pub(crate) fn may_seal(&self, row: &TenantRow, record: &KeyRecord) -> bool {
        record.state == KeyState::Active
            && record.made_generation == self.authority.load().generation()
            && !row.is_compromised(record)
            && row.check_not_erased(record).is_ok()
    }

    /// A new data key where the store shows no Active one. If this process knows one, the store has to show why it is none any
    /// more.
    async fn make_first(
        &self,
        row: &TenantRow,
        scope: &Scope,
        period: Option<PeriodLabel>,
        began: Began,
    ) -> Result<New> {
        if let Some(KnownKey { key_id, made_epoch }) = self.known.active(&row.tenant, scope, period.as_ref()) {
            let is_explained = match self.admission.reads.run(&row.tenant, self.key_row(&row.tenant, &key_id)).await? {
                Some(known) => known.state != KeyState::Active,
                // Of an erased key the control plane may have removed the record; the rule stays in the tenant's row.
                None => row.erased.iter().any(|it| it.covers_key(scope, period.as_ref(), &key_id, made_epoch)),
            };
            if !is_explained {
                let message = format!(
                    "the key store shows no Active key of this scope, but this process knows one ({key_id}): the store hides it, \
                     lost it, or was put back"
                );
                let hidden = Error::new(ErrorKind::StoreInconsistent, message);
                return Err(hidden.with_tenant(row.tenant.as_str()).with_region(row.policy.home_region().as_str()));
            }
        }
        self.known.check_creations(&row.tenant, scope, period.as_ref(), row.epoch)?;
        let new = self.make(row, scope, period, began, FIRST_USE).await?;
        let writes = vec![self.key_write(&new.record, None)?];
        self.admission.writes.run(&row.tenant, self.put_keys_under(row, writes)).await?;
        let record = &new.record;
        self.known.created(&record.tenant, scope, record.period.as_ref(), row.epoch);
        Ok(new)
    }

    /// A new data key in the place of the Active one, which becomes Deactivated, or Compromised where it was given up.
    async fn make_successor(
        &self,
        row: &TenantRow,
        scope: &Scope,
        period: Option<PeriodLabel>,
        active: &KeyRow,
        began: Began,
        reason: &str,
    ) -> Result<New> {
        let new = self.make(row, scope, period, began, reason).await?;
        let state = if row.is_compromised(active) { KeyState::Compromised } else { KeyState::Deactivated };
        let by = Attribution::of_data_plane(SUCCEEDED);
        let old = active.record.clone().into_state(state, began.unix_millis, &by);
        let writes = vec![self.key_write(&old, Some(active))?, self.key_write(&new.record, None)?];
        self.admission.writes.run(&row.tenant, self.put_keys_under(row, writes)).await?;
        Ok(new)
    }

    /// A new data key, wrapped for the policy's KEKs, every wrapping opened again and compared.
    async fn make(
        &self,
        row: &TenantRow,
        scope: &Scope,
        period: Option<PeriodLabel>,
        began: Began,
        reason: &str,
    ) -> Result<New> {
        check_wall_clock(began.unix_millis)?;
        let policy = &row.policy;
        let (suite, region) = (policy.key_suite(), policy.home_region());
        let context = EncryptionContext::new(&row.tenant, region, suite, scope, period.as_ref())?;
        let (data_key, wrapped) = self.generate(row, policy.keks(), &context).await?;
        let by = Attribution::of_data_plane(reason);
        let record = KeyRecord {
            tenant: row.tenant.clone(),
            incarnation: row.incarnation,
            key_id: KeyId::of(&data_key, suite)?,
            suite,
            scope: scope.clone(),
            period,
            region: region.clone(),
            context_rules: policy.context_rules().clone(),
            state: KeyState::Active,
            state_since: began.unix_millis,
            wrapped: Some(wrapped.clone()),
            pending: None,
            wrapped_epoch: row.epoch,
            made_epoch: row.epoch,
            made_generation: self.authority.load().generation(),
            created_at: began.unix_millis,
            transitions: vec![Transition::new(KeyState::Active, began.unix_millis, &by)],
        };
        if policy.verifies_new_keys() {
            self.prove(row, &record, &wrapped).await?;
        }
        Ok(New { record, data_key })
    }

    /// Unwraps where need be, verifies, and says how long the key may be used. It seals if it is the Active one of `period`, or from
    /// the turn on if it is the next period's. `whose` are the record's tenant and scope, as others have them: who shares them has
    /// less in memory, and less to compare.
    async fn cached(
        &self,
        row: &TenantRow,
        found: Found,
        period: Option<&PeriodLabel>,
        whose: (&TenantId, &Scope),
        began: Began,
    ) -> Result<CachedKey> {
        let Found { mut record, data_key } = found;
        (record.tenant, record.scope) = (whose.0.clone(), whose.1.clone());
        let is_new = data_key.is_some();
        let data_key = match data_key {
            Some(data_key) => data_key,
            None => self.unwrap(row, &record).await?,
        };
        let (rotation, calendar) = (row.policy.rotation_policy(), row.policy.key_period());
        let is_ahead = record.period.is_some() && record.period == calendar.next(began.unix_millis)?;
        let seals = self.may_seal(row, &record)
            && record.region == *row.policy.home_region()
            && (is_ahead || record.period.as_ref() == period);
        let budget = match (seals, is_new) {
            (true, true) => self.usage.of_new(&record.key_id, rotation.messages()),
            (true, false) => self.usage.of(&record.key_id, rotation.messages()),
            // A key that does not seal has nothing to draw from.
            (false, _) => Arc::new(Budget::new(0)),
        };
        let keks = record.wrapped.as_ref().ok_or_else(Error::unopenable)?.expression();
        let key = LoadedKey::verified(&data_key, &record, budget).map_err(|e| e.with_kek(&keks.to_string()))?;
        let mut seals_for =
            if seals { rotation.remaining(record.created_at, began.unix_millis) } else { Duration::ZERO };
        if let Some(left) = calendar.remaining(began.unix_millis)? {
            let ends = if is_ahead { left.saturating_add(length_of_next(calendar, began, left)?) } else { left };
            seals_for = seals_for.min(ends);
        }
        let ttl = row.policy.key_cache_ttl();
        let opens = row.suspension(&record, began.unix_millis).is_none();
        let mut key = CachedKey::new(record.tenant, record.period, keks, key, began.monotonic, ttl, seals_for);
        key.is_ahead = is_ahead;
        if !opens {
            // Incident mode: what is sealed meanwhile is sealed, and opens when the suspension has ended.
            key.opens_until = began.monotonic;
        }
        Ok(key)
    }
}

/// Checks that `next` is the period that comes next, by the policy and the clock of this load.
///
/// # Errors
/// `InvalidArgument` if the turn came meanwhile, or the policy has other periods by now.
fn check_comes_next(row: &TenantRow, next: &PeriodLabel, began: Began) -> Result<PeriodLabel> {
    let comes = row.policy.key_period().next(began.unix_millis)?;
    comes.filter(|comes| comes == next).ok_or_else(|| {
        Error::invalid(format!("{next} is not the period that comes next: no key is made for it ahead of time"))
    })
}

/// How long the period lasts that begins after `left`.
fn length_of_next(calendar: Period, began: Began, left: Duration) -> Result<Duration> {
    let turn = began.unix_millis.saturating_add(i64::try_from(left.as_millis()).unwrap_or(i64::MAX));
    Ok(calendar.remaining(turn)?.unwrap_or_default())
}

fn no_record() -> Error {
    Error::unopenable().because("the key store shows no key record of this id for the tenant")
}

fn known_key(record: &KeyRecord) -> KnownKey {
    KnownKey { key_id: record.key_id, made_epoch: record.made_epoch }
}

/// No key is made before the machine's clock is set: its age would be counted from then, and a retention run takes it away.
///
/// # Errors
/// `Unavailable` for a date before this crate was written.
fn check_wall_clock(unix_millis: i64) -> Result<()> {
    if unix_millis >= EARLIEST {
        return Ok(());
    }
    let message = "this machine's wall clock says a date before 2025: no data key is made; set the clock and retry";
    Err(Error::new(ErrorKind::Unavailable, message))
}

impl From<New> for Found {
    fn from(new: New) -> Self {
        Self { record: new.record, data_key: Some(new.data_key) }
    }
}
