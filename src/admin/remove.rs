//! Removing the records of keys that were destroyed long ago: nothing is in them but that they are gone, and that stands in the tenant's
//! row as well, by the rule that the erasure left there.

use std::time::Duration;

use crate::admin::decide::Decided;
use crate::admin::walk::{Pages, WalkOptions, Walked};
use crate::admin::{Admin, explain};
use crate::error::{Error, ErrorKind, Result};
use crate::key::id::{KeyId, TenantId};
use crate::key::journal::{Decision, MAX_ENTRY_KEYS};
use crate::key::record::KeyRecord;
use crate::key::state::KeyState;
use crate::key::tenant::TenantRecord;
use crate::keyring::rows::KeyRow;

/// A record is removed no sooner than this after its key was destroyed: longer than any node has anything of it in memory.
pub const REMOVAL_LEAST_AGE: Duration = Duration::from_secs(24 * 3600);

impl Admin {
    /// Removes from the key store the records of the tenant's keys that were destroyed longer ago than `older_than`, which is a day
    /// at least ([`REMOVAL_LEAST_AGE`]). Only what is authentic, says Destroyed, and is covered by the rule of an erasure that was
    /// carried out: that rule stays in the tenant's row, so that a record that somebody puts back, of whatever state, opens and seals
    /// nothing, and no key is made anew under its id.
    ///
    /// Take receipts first ([`Self::receipt`]): those that were taken stay valid, later ones name only keys whose records are left,
    /// though the journal names each that was removed. What such a key sealed is then `Unopenable`, as under a key that never was,
    /// and a residency report calls its envelopes foreign. Repeat it after a failure: what is removed stays removed. No KMS call.
    ///
    /// # Errors
    /// `InvalidArgument` for less than a day; `Conflict` naming a record that says Destroyed and that no erasure covers:
    /// erase that key. Of records as [`Self::rotate_all`]; as every verb ([`Admin`](crate::Admin#errors-of-every-verb)).
    pub async fn remove_destroyed(&self, tenant: &str, older_than: Duration, options: &WalkOptions) -> Result<Walked> {
        let run = async {
            if older_than < REMOVAL_LEAST_AGE {
                return Err(Error::invalid("records of destroyed keys are kept for a day at least"));
            }
            let id = TenantId::new(tenant)?;
            let mut pages = Pages::new(self, &id, options);
            while let Some(page) = pages.next().await? {
                let row = self.keyring.tenant(&id).await.map_err(|e| pages.walked.stopped_by(e))?;
                let mut due = Vec::new();
                for record in page.into_iter().filter(|record| self.is_over(record, older_than)) {
                    match check_removable(&row, &record) {
                        Ok(()) => due.push(record),
                        Err(e) => pages.walked.fail_key(record.key_id, e),
                    }
                }
                for due in due.chunks(MAX_ENTRY_KEYS) {
                    let removed = self.remove_records(&id, older_than, due).await;
                    pages.walked.done += removed.map_err(|e| pages.walked.stopped_by(e))?;
                }
            }
            let walked = pages.walked;
            tracing::info!(tenant = %id, keys = walked.done, actor = self.by.actor(), "removed records of destroyed keys");
            walked.finished()
        };
        run.await.map_err(|e: Error| explain(e, "remove destroyed", tenant))
    }

    fn is_over(&self, record: &KeyRecord, older_than: Duration) -> bool {
        let age = self.keyring.clock.unix_millis().saturating_sub(record.state_since);
        record.state == KeyState::Destroyed
            && u64::try_from(age).is_ok_and(|age| u128::from(age) >= older_than.as_millis())
    }

    /// The journal first: a process that ends in between has said what the next call then does. Returns how many were removed here;
    /// what others removed or changed meanwhile is not among them.
    async fn remove_records(&self, id: &TenantId, older_than: Duration, due: &[KeyRow]) -> Result<u64> {
        if due.is_empty() {
            return Ok(0);
        }
        let keys: Vec<KeyId> = due.iter().map(|record| record.key_id).collect();
        let decision = Decision::new("remove-destroyed")
            .with("older-than-secs", older_than.as_secs())
            .with("keys", keys.len())
            .changed(keys);
        self.change(id, |_| Ok(Some(Decided::quiet(decision.clone())))).await?;
        self.keyring.remove_keys(due).await
    }
}

/// # Errors
/// `Conflict` if nothing in the tenant's row would keep the key from opening again; as a record that is not the tenant's.
fn check_removable(row: &TenantRecord, record: &KeyRow) -> Result<()> {
    row.check_record(record)?;
    if row.check_not_erased(record).is_err() {
        return Ok(());
    }
    let message = format!(
        "the record of data key {} says Destroyed, and no erasure that was carried out covers it: erase that key, or its old record \
         would open again if it was put back",
        record.key_id
    );
    Err(Error::new(ErrorKind::Conflict, message))
}
