//! Loading a key: from the store's record through the tenant's KMS to a verified key; creating and succeeding keys.

use std::sync::Arc;
use std::time::Duration;

use crate::crypto::allotment::Budget;
use crate::crypto::secret::DataKey;
use crate::error::{Error, ErrorKind, Result};
use crate::key::data_key::LoadedKey;
use crate::key::encryption_context::EncryptionContext;
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::record::KeyRecord;
use crate::key::scope::Scope;
use crate::key::state::KeyState;
use crate::key::tenant::TenantRecord;
use crate::keyring::Keyring;
use crate::keyring::cache::{CachedKey, Slot};
use crate::store::Placed;

/// The moment at which a load began. Lives of keys are counted from here, before anything was read or unwrapped.
#[derive(Clone, Copy)]
pub(crate) struct Began {
    monotonic: Duration,
    unix_millis: i64,
}

/// A record with its data key, where the load made it itself.
struct Found {
    record: KeyRecord,
    data_key: Option<DataKey>,
}

impl Keyring {
    pub(crate) fn began(&self) -> Began {
        Began { monotonic: self.clock.monotonic(), unix_millis: self.clock.unix_millis() }
    }

    /// A tenant's row as it is now.
    ///
    /// # Errors
    /// `UnknownTenant` if there is none; `RolledBack` if a newer one was seen.
    pub(crate) async fn tenant(&self, tenant: &TenantId) -> Result<TenantRecord> {
        let least = self.epochs.least(tenant).await?;
        let row = self.store.tenant(tenant).await?.filter(|row| row.tenant == *tenant);
        if least > 0 || row.is_some() {
            self.epochs.saw(tenant, row.as_ref().map_or(0, |row| row.epoch), least).await?;
        }
        row.ok_or_else(|| Error::new(ErrorKind::UnknownTenant, "no such tenant is enrolled; enroll it first"))
            .and_then(|row| row.check_stored().map(|()| row))
            .map_err(|e| e.with_tenant(tenant.as_str()))
    }

    /// The Active key of a scope, created or succeeded where that is due: of the present period, or of `past`.
    pub(crate) async fn load_sealing(
        &self,
        tenant: &TenantId,
        scope: &Scope,
        past: Option<&PeriodLabel>,
        slot: &Slot,
    ) -> Result<CachedKey> {
        let began = self.began();
        let row = self.tenant(tenant).await?;
        let period = match past {
            Some(past) => Some(past.clone()),
            None => row.policy.key_period().label(began.unix_millis)?,
        };
        let found = match self.active(&row, scope, period.as_ref()).await? {
            None => {
                let new = self.make(&row, scope, period.clone(), began).await?;
                let placed = self.store.insert_active(&new.record).await?;
                placed_or(placed, new)
            }
            Some(active) if Self::is_due(&row, &active, slot, began) => {
                self.make_successor(&row, scope, period.clone(), &active, began).await?
            }
            Some(active) => Found { record: active, data_key: None },
        };
        let record = &found.record;
        if record.tenant != *tenant || record.scope != *scope || record.period != period {
            return Err(wrong_record(tenant));
        }
        self.check_served(record.region.as_str())?;
        record.check_opens()?;
        let mut key = self.cached(&row, found, period.as_ref(), slot, (tenant, scope), began).await?;
        if past.is_some() {
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
        let began = self.began();
        let row = self.tenant(tenant).await?;
        let record = self.store.key(tenant, key_id).await?.ok_or_else(Error::unopenable)?;
        if record.tenant != *tenant || record.key_id != *key_id {
            return Err(wrong_record(tenant));
        }
        self.check_served(record.region.as_str())?;
        row.policy.check_region(&record.region)?;
        row.check_not_revoked(&record.scope, record.period.as_ref(), Some(&record.key_id))?;
        record.check_opens()?;
        let slot = self.cache.slot(tenant, &record.scope);
        let period = row.policy.key_period().label(began.unix_millis)?;
        let (_, scope) = slot.at();
        let found = Found { record, data_key: None };
        self.cached(&row, found, period.as_ref(), slot.slot(), (tenant, scope), began).await
    }

    /// Makes a new data key for the scope now, whether due or not, and returns its id.
    pub(crate) async fn rotate(&self, tenant: &TenantId, scope: &Scope) -> Result<KeyId> {
        let began = self.began();
        let row = self.tenant(tenant).await?;
        let period = row.policy.key_period().label(began.unix_millis)?;
        let placed = match self.active(&row, scope, period.as_ref()).await? {
            None => {
                let new = self.make(&row, scope, period, began).await?;
                placed_or(self.store.insert_active(&new.record).await?, new)
            }
            Some(active) => self.make_successor(&row, scope, period, &active, began).await?,
        };
        Ok(placed.record.key_id)
    }

    /// The Active key of a scope and period, once policy, region and revocations allow one.
    async fn active(
        &self,
        row: &TenantRecord,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Option<KeyRecord>> {
        row.policy.check_scope(scope)?;
        self.check_served(row.policy.home_region().as_str())?;
        row.check_not_revoked(scope, period, None)?;
        let active = self.store.active_key(&row.tenant, scope, period).await?;
        if let Some(active) = &active {
            row.check_not_revoked(scope, period, Some(&active.key_id))?;
        }
        Ok(active)
    }

    /// Whether the Active key must seal no more: too old, spent, or of another region or suite than the policy's.
    fn is_due(row: &TenantRecord, active: &KeyRecord, slot: &Slot, began: Began) -> bool {
        let policy = &row.policy;
        policy.rotation_policy().remaining(active.created_at, began.unix_millis).is_zero()
            || slot.budget(&active.key_id, policy.rotation_policy().messages()).is_spent()
            || active.region != *policy.home_region()
            || active.suite != policy.key_suite()
    }

    async fn make_successor(
        &self,
        row: &TenantRecord,
        scope: &Scope,
        period: Option<PeriodLabel>,
        active: &KeyRecord,
        began: Began,
    ) -> Result<Found> {
        let new = self.make(row, scope, period, began).await?;
        let placed = self.store.succeed(&active.key_id, &new.record).await?;
        Ok(placed_or(placed, new))
    }

    /// A new data key, wrapped for the policy's KEKs, every wrapping opened again and compared.
    async fn make(
        &self,
        row: &TenantRecord,
        scope: &Scope,
        period: Option<PeriodLabel>,
        began: Began,
    ) -> Result<Found> {
        let policy = &row.policy;
        let (suite, region) = (policy.key_suite(), policy.home_region());
        let context = EncryptionContext::new(&row.tenant, region, suite, scope, period.as_ref())?;
        let (data_key, wrapped) = self.generate(row, policy.keks(), &context).await?;
        let record = KeyRecord {
            tenant: row.tenant.clone(),
            key_id: KeyId::of(&data_key, suite)?,
            suite,
            scope: scope.clone(),
            period,
            region: region.clone(),
            state: KeyState::Active,
            state_since: began.unix_millis,
            wrapped: Some(wrapped.clone()),
            pending: None,
            wrapped_epoch: row.epoch,
            created_at: began.unix_millis,
            revision: 1,
        };
        if policy.verifies_new_keys() {
            self.prove(row, &record, &wrapped).await?;
        }
        Ok(Found { record, data_key: Some(data_key) })
    }

    /// Unwraps where need be, verifies, and says how long the key may be used. It seals if it is the Active one of `period`.
    /// `whose` are the record's tenant and scope, as others have them: who shares them has less in memory, and less to compare.
    async fn cached(
        &self,
        row: &TenantRecord,
        found: Found,
        period: Option<&PeriodLabel>,
        slot: &Slot,
        whose: (&TenantId, &Scope),
        began: Began,
    ) -> Result<CachedKey> {
        let Found { mut record, data_key } = found;
        (record.tenant, record.scope) = (whose.0.clone(), whose.1.clone());
        let data_key = match data_key {
            Some(data_key) => data_key,
            None => self.unwrap(row, &record).await?,
        };
        let rotation = row.policy.rotation_policy();
        let seals = record.state == KeyState::Active
            && record.region == *row.policy.home_region()
            && record.period.as_ref() == period;
        let budget = slot.budget_if(seals, &record.key_id, rotation.messages());
        let key = LoadedKey::verified(&data_key, &record, budget)?;
        let mut seals_for =
            if seals { rotation.remaining(record.created_at, began.unix_millis) } else { Duration::ZERO };
        if let Some(left) = row.policy.key_period().remaining(began.unix_millis)? {
            seals_for = seals_for.min(left);
        }
        let keks = record.wrapped.as_ref().ok_or_else(Error::unopenable)?.expression();
        let ttl = row.policy.key_cache_ttl();
        Ok(CachedKey::new(record.tenant, record.period, keks, key, began.monotonic, ttl, seals_for))
    }
}

fn wrong_record(tenant: &TenantId) -> Error {
    Error::new(ErrorKind::KeyMismatch, "the key store returned another key's record; it is wrong or tampered with")
        .with_tenant(tenant.as_str())
}

fn placed_or(placed: Placed, new: Found) -> Found {
    match placed {
        Placed::New => new,
        // Another node was first: its key is the one, ours was never used.
        Placed::Existing(record) => Found { record: *record, data_key: None },
    }
}

impl Slot {
    /// A key that does not seal has nothing to draw from.
    fn budget_if(&self, seals: bool, key_id: &KeyId, messages: u64) -> Arc<Budget> {
        if seals { self.budget(key_id, messages) } else { Arc::new(Budget::new(0)) }
    }
}
