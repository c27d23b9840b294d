//! Enrolling: a tenant's beginning, and what tells that there was one before.
//!
//! A start that enrols whom it does not know would, on a key store that was emptied or lost rows, begin every tenant anew, and all that
//! was sealed would be lost without an alarm. So an enrolment looks for what an earlier one leaves behind: a mark in the watermark,
//! data keys, a journal, a claim to a KEK. Where none of these is left, only the embedder can tell, by an envelope that it holds.

use std::collections::BTreeSet;

use crate::admin::decide::digest_of;
use crate::admin::{Admin, explain};
use crate::error::{Error, ErrorKind, Result};
use crate::format::file::{FileHead, MAGIC};
use crate::format::header::Header;
use crate::key::change::{Change, Forget};
use crate::key::id::{KeyId, TenantId};
use crate::key::journal::Decision;
use crate::key::kek::KekUri;
use crate::key::policy::TenantPolicy;
use crate::key::revocation::Selector;
use crate::key::row_digest::RowDigest;
use crate::key::tenant::TenantRecord;
use crate::keyring::rollback::Versioned as _;
use crate::keyring::room_keys::KekRecord;
use crate::keyring::rows::TenantRow;
use crate::row::frame::Kind;
use crate::store::row::{Put, RowChange, RowKey, Write};
use crate::watermark::Subject;

/// Records of data keys that are taken away at once.
const PAGE: u32 = 1000;

impl Admin {
    /// Enrols a tenant. Its KEKs are asked for first: each must be enabled and in a region
    /// that the policy allows. Repeated by the same actor, for the same reason and with the same policy, it finds it done.
    ///
    /// It begins a tenant that never was. Where something tells of an earlier enrolment, it refuses, because what was sealed then would
    /// never open again. A key store that was emptied together with the watermark tells nothing: a program that enrols whom it
    /// does not know, at its start, calls [`Self::ensure_enrolled`] with an envelope. To give up what was is [`Self::enroll_anew`].
    ///
    /// # Errors
    /// `InvalidArgument` for a wrong name or policy, or a KEK whose scheme no KMS answers for; `Region` if the home region is
    /// not served here or a KEK is elsewhere; `Denied`, `Unavailable` or `Throttled` if a KEK cannot be asked for; as every
    /// verb ([`Admin`](crate::Admin#errors-of-every-verb)); `Conflict` if the tenant is enrolled already; `RolledBack` if the watermark
    /// remembers it and the key store has no row of it; `StoreInconsistent` if the key store has data keys of it, a journal or a claim to
    /// its KEK, and no row of it.
    pub async fn enroll(&self, tenant: &str, policy: TenantPolicy) -> Result<()> {
        let run = async {
            let tenant = TenantId::new(tenant)?;
            self.check_policy(&tenant, &policy).await?;
            self.write_enrolment(tenant, policy).await
        };
        run.await.map_err(|e| explain(e, "enroll", tenant))
    }

    /// For a start that enrols whom it does not know: enrols the tenant unless it is enrolled, and says whether it did. `sample` is
    /// any envelope of the tenant that the caller holds, a message's or a file's head, the newest at best; `None` says that it holds
    /// none. With one, a tenant that the key store does not know is a loss and no beginning, and so is a key record that is gone.
    ///
    /// A tenant that is enrolled keeps the policy that it has.
    ///
    /// ```
    /// # async fn start(admin: &strongroom::Admin, policy: strongroom::TenantPolicy, newest: Option<Vec<u8>>) -> strongroom::Result<()> {
    /// // `newest`: the tenant's newest message in the backend's own database.
    /// if admin.ensure_enrolled("acme", policy, newest.as_deref()).await? {
    ///     println!("acme is new");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::enroll`], and as every verb ([`Admin`](crate::Admin#errors-of-every-verb)); `StoreInconsistent` if there is a sample
    /// and the key store knows the tenant or its data key no more; `Malformed` if the sample is no envelope; `Tampered` if its data
    /// key's record is of another enrolment.
    pub async fn ensure_enrolled(&self, tenant: &str, policy: TenantPolicy, sample: Option<&[u8]>) -> Result<bool> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let held = sample.map(sealed_under).transpose()?;
            match (self.keyring.tenant(&id).await, held) {
                (Ok(row), Some(held)) => self.check_held(&row, &held).await.map(|()| false),
                (Ok(_), None) => Ok(false),
                (Err(e), Some(held)) if e.kind() == ErrorKind::UnknownTenant => Err(Error::new(
                    ErrorKind::StoreInconsistent,
                    format!(
                        "an envelope of the tenant is held, under data key {held}, and the key store knows no such tenant: the store was \
                         emptied, or is another one. Restore its newest copy; to give up all that was sealed for the tenant, call \
                         enroll_anew"
                    ),
                )),
                (Err(e), None) if e.kind() == ErrorKind::UnknownTenant => {
                    self.check_policy(&id, &policy).await?;
                    match self.write_enrolment(id.clone(), policy).await {
                        // By another process that starts now.
                        Err(e) if e.kind() == ErrorKind::Conflict && self.keyring.tenant(&id).await.is_ok() => {
                            Ok(false)
                        }
                        written => written.map(|()| true),
                    }
                }
                (Err(e), _) => Err(e),
            }
        };
        run.await.map_err(|e| explain(e, "ensure enrolled", tenant))
    }

    /// Begins a tenant anew, of which the key store has no row any more, and gives up all that was ever sealed for it: records of data
    /// keys that are left are taken away, entries of the journal are written over, and the watermark's mark is moved to the new
    /// beginning. No envelope of before opens again, even where the old rows are put back. Nodes forget the tenant's keys within the
    /// revocation bound.
    ///
    /// First look for a copy of the key store, and keep one of what is left. Let one process do it. A repeat after an error goes on.
    ///
    /// # Errors
    /// As [`Self::enroll`], but for what tells of an earlier enrolment; as every verb
    /// ([`Admin`](crate::Admin#errors-of-every-verb)); `Conflict` if the key store has a row of the tenant, believed or not: then nothing
    /// was emptied, and what is wrong with it says [`Self::tenant`].
    pub async fn enroll_anew(&self, tenant: &str, policy: TenantPolicy) -> Result<()> {
        let run = async {
            let tenant = TenantId::new(tenant)?;
            self.check_policy(&tenant, &policy).await?;
            if self.found_done(&tenant, &policy).await? {
                return Ok(()); // and its answer was lost
            }
            let given_up = self.remove_all_keys(&tenant).await?;
            let subject = Subject::Tenant(tenant.clone());
            let mark = match &self.keyring.watermark {
                Some(watermark) => watermark.read(&subject).await?,
                None => None,
            };
            let at = self.keyring.clock.unix_millis();
            let mut row = TenantRecord::enrolled(tenant.clone(), policy, at)?;
            let decision = Decision::new("enroll-anew")
                .with("keks", row.policy.keks())
                .with("policy", digest_of(&row.policy)?)
                .with("keys", given_up);
            let keks: Vec<KekUri> = row.policy.keks().keks().cloned().collect();
            let signed = self.signed(&mut row, decision, at).await?;
            let mut writes = vec![signed.row(None), signed.entry()];
            writes.extend(self.claims(&row, &keks).await?);
            // Before the row is written: who comes to an end in between leaves a mark without a row, as it was, and a repeat goes on.
            self.keyring.raise(&subject, mark.as_ref(), &row.mark(signed.digest)).await?;
            let change =
                Change { tenant: Some(tenant.clone()), selector: Selector::everything(), forget: Forget::Keys };
            let number = self.put_decision(&mut writes, row.incarnation, &change).await?;
            self.keyring.forget(&change);
            tracing::warn!(tenant = %tenant, keys = given_up, actor = self.by.actor(), reason = self.by.reason(),
                "enrolled anew: what was sealed for the tenant is given up");
            if let Some((counted, number)) = number {
                self.keyring.heard_of(counted, number).await?;
            }
            Ok(())
        };
        run.await.map_err(|e| explain(e, "enroll anew", tenant))
    }

    /// Whether this very call began the tenant before.
    ///
    /// # Errors
    /// `Conflict` if there is another row of it.
    async fn found_done(&self, tenant: &TenantId, policy: &TenantPolicy) -> Result<bool> {
        if self.keyring.store.get(&RowKey::Tenant(tenant.clone())).await?.is_none() {
            return Ok(false);
        }
        let there = match self.keyring.believed_tenant(tenant).await {
            Ok(believed) => {
                let row = believed.row;
                if row.epoch == 1 && row.policy == *policy && self.has_begun(tenant, "enroll-anew").await? {
                    return Ok(true);
                }
                Error::new(ErrorKind::Conflict, "the tenant is enrolled, and its row is the newest: nothing is to be begun anew")
            }
            Err(e) => Error::new(
                ErrorKind::Conflict,
                "the key store has a row of the tenant, which is not believed: restore the newest copy of the store and of the \
                 watermark",
            )
            .with_source(e),
        };
        Err(there)
    }

    /// Writes the row of a tenant that is enrolled now.
    ///
    /// # Errors
    /// `Conflict` if there is one of that name, unless this very call enrolled it before; `RolledBack` or `StoreInconsistent` if there
    /// was one.
    async fn write_enrolment(&self, tenant: TenantId, policy: TenantPolicy) -> Result<()> {
        let subject = Subject::Tenant(tenant.clone());
        if self.is_enrolled(&tenant, &policy).await? {
            return Ok(());
        }
        let keks: Vec<KekUri> = policy.keks().keks().cloned().collect();
        if let Some(left) = self.left_of(&tenant, &keks).await? {
            // Somebody who enrols it now leaves the same: then there is a row by now.
            if self.is_enrolled(&tenant, &policy).await? {
                return Ok(());
            }
            return Err(Error::new(
                ErrorKind::StoreInconsistent,
                format!(
                    "the key store has {left} and no row of the tenant: it lost rows, or was emptied in part. Restore its newest copy; to \
                     give up all that was sealed for the tenant, call enroll_anew"
                ),
            ));
        }
        let at = self.keyring.clock.unix_millis();
        let mut row = TenantRecord::enrolled(tenant, policy, at)?;
        let decision = Decision::new("enroll").with("keks", row.policy.keks()).with("policy", digest_of(&row.policy)?);
        let signed = self.signed(&mut row, decision, at).await?;
        let mut writes = vec![signed.row(None), signed.entry()];
        writes.extend(self.claims(&row, &keks).await?);
        match self.keyring.store.put(&writes, None).await? {
            Put::Conflict(_) => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "a tenant of that name, or one that has the KEK, was enrolled meanwhile; read it again",
                ));
            }
            Put::Written(_) => self.keyring.raise(&subject, None, &row.mark(signed.digest)).await?,
        };
        self.log("enrolled");
        Ok(())
    }

    /// Whether this very call enrolled the tenant before.
    ///
    /// # Errors
    /// `Conflict` if somebody else did; `RolledBack` if there was one, as the watermark has it.
    async fn is_enrolled(&self, tenant: &TenantId, policy: &TenantPolicy) -> Result<bool> {
        let believed = match self.keyring.believed_tenant(tenant).await {
            Ok(believed) => believed,
            Err(e) if e.kind() == ErrorKind::UnknownTenant => return Ok(false),
            Err(e) => {
                let gone = e.kind() == ErrorKind::RolledBack
                    && self.keyring.store.get(&RowKey::Tenant(tenant.clone())).await?.is_none();
                return Err(if gone { remembered() } else { e });
            }
        };
        // An earlier call may have ended before it raised the watermark.
        self.keyring.settle(&Subject::Tenant(tenant.clone()), &believed).await?;
        if believed.row.epoch == 1 && believed.row.policy == *policy && self.has_begun(tenant, "enroll").await? {
            return Ok(true); // and its answer was lost
        }
        Err(Error::new(ErrorKind::Conflict, "a tenant of that name is already enrolled"))
    }

    /// Whether a tenant's first entry in the journal is `verb` by this actor, for this reason.
    async fn has_begun(&self, tenant: &TenantId, verb: &str) -> Result<bool> {
        let entries = self.journal(tenant.as_str()).await?;
        Ok(entries.first().is_some_and(|e| {
            (e.decision.verb.as_str(), e.actor.as_str(), e.reason.as_str()) == (verb, self.by.actor(), self.by.reason())
        }))
    }

    /// What is left in the key store of an earlier enrolment, beside the tenant's row.
    async fn left_of(&self, tenant: &TenantId, keks: &[KekUri]) -> Result<Option<&'static str>> {
        let store = &self.keyring.store;
        if !store.keys(tenant, None, 1).await?.is_empty() {
            return Ok(Some("records of data keys"));
        }
        if !store.journal(tenant, 0, 1).await?.is_empty() {
            return Ok(Some("a journal"));
        }
        for kek in keks {
            let claim = self.keyring.read_row::<KekRecord>(Kind::Kek, &RowKey::Kek(kek.clone())).await?;
            if claim.is_some_and(|claim| claim.tenant == tenant.as_str()) {
                return Ok(Some("the tenant's claim to its KEK"));
            }
        }
        Ok(None)
    }

    /// Takes all of the tenant's data keys' records away, of whatever enrolment, and says how many there were.
    async fn remove_all_keys(&self, tenant: &TenantId) -> Result<usize> {
        let (mut after, mut keys) = (None, BTreeSet::<KeyId>::new());
        loop {
            let listed = self.keyring.store.keys(tenant, after.as_ref(), PAGE).await?;
            after = listed.last().map(|(key_id, _)| *key_id);
            if after.is_none() {
                return Ok(keys.len());
            }
            let removal = |(key_id, bytes): &(KeyId, Vec<u8>)| Write {
                key: RowKey::Key(tenant.clone(), *key_id),
                expected: Some(RowDigest::of(bytes)),
                change: RowChange::Remove,
            };
            self.keyring.put_what_stands(listed.iter().map(removal).collect()).await?;
            keys.extend(listed.iter().map(|(key_id, _)| *key_id));
        }
    }

    /// # Errors
    /// `StoreInconsistent` if there is no record of a data key that an envelope is sealed under; `Tampered` if it is of another
    /// enrolment.
    async fn check_held(&self, row: &TenantRow, held: &KeyId) -> Result<()> {
        match self.keyring.key_row(&row.tenant, held).await? {
            Some(record) => match row.check_record(&record) {
                Err(e) if e.kind() == ErrorKind::Conflict => Ok(()), // newer than the row that was read before
                checked => checked,
            },
            None => Err(Error::new(
                ErrorKind::StoreInconsistent,
                format!(
                    "an envelope of the tenant is held, under data key {held}, and the key store has no record of that key: it lost rows, \
                     or is an older copy. Restore its newest copy; if the key was erased and its record removed, name another envelope"
                ),
            )),
        }
    }
}

/// The data key that an envelope says it is sealed under.
fn sealed_under(envelope: &[u8]) -> Result<KeyId> {
    let of = |header: Header<'_>| KeyId::from_bytes(*header.key_id());
    if envelope.starts_with(&MAGIC) {
        return FileHead::parse(envelope).map(|head| of(head.header()));
    }
    Header::parse(envelope).map(of)
}

fn remembered() -> Error {
    let message = "the watermark remembers the tenant, and the key store has no row of it: the store was emptied, or put back to \
                   before its enrolment. Restore its newest copy; to give up all that was sealed for the tenant, call enroll_anew";
    Error::new(ErrorKind::RolledBack, message)
}
