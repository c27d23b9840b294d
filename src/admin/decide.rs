//! Deciding: a tenant's row is read, changed, signed and written together with its journal entry and what nodes must forget, in
//! one transaction; then the watermark is raised, and only then is it said that it was done.

use std::time::Duration;

use crate::admin::Admin;
use crate::error::{Error, ErrorKind, Result};
use crate::key::change::{Change, Forget};
use crate::key::id::TenantId;
use crate::key::incarnation::Incarnation;
use crate::key::journal::{Decision, JournalEntry};
use crate::key::kek::KekUri;
use crate::key::policy::TenantPolicy;
use crate::key::revocation::Selector;
use crate::key::row_digest::RowDigest;
use crate::key::tenant::TenantRecord;
use crate::keyring::rollback::Versioned as _;
use crate::keyring::room_keys::KekRecord;
use crate::keyring::rows::{TenantRow, log_entry};
use crate::retry::Patience;
use crate::row::Stored;
use crate::row::authority::Authority;
use crate::row::frame::Kind;
use crate::store::row::{MAX_ROW, Put, RowChange, RowKey, Write};
use crate::watermark::{Mark, Subject};

/// How long a decision waits for those about the same tenant that were taken here before. Then it goes without: a store that does not
/// answer them keeps nobody from trying.
const TURN: Duration = Duration::from_secs(5);

/// What a change of a tenant's row is.
pub(crate) struct Decided {
    decision: Decision,
    selector: Selector,
    forget: Forget,
    /// It is taken however long the tenant's row is: a safety action has no quota.
    always: bool,
}

/// Longest row that routine decisions leave, in bytes: half of what a store takes.
const ROUTINE_ROW: usize = MAX_ROW / 2;

impl Decided {
    /// A decision after which nothing has to be forgotten.
    pub(crate) fn quiet(decision: Decision) -> Self {
        Self { decision, selector: Selector::everything(), forget: Forget::Nothing, always: false }
    }

    /// A decision after which nodes must forget something of the keys that `selector` covers.
    pub(crate) fn forgetting(decision: Decision, selector: &Selector, forget: Forget) -> Self {
        Self { decision, selector: selector.clone(), forget, always: false }
    }

    /// Taken whatever the length of the tenant's row.
    pub(crate) fn always(self) -> Self {
        Self { always: true, ..self }
    }
}

impl Admin {
    /// Reads a tenant's row, changes it, and writes it if nobody else did meanwhile; else again. `change` says what was decided,
    /// or that there is nothing to write. What is to be forgotten is forgotten here before the call returns. Returns the row
    /// as it stands.
    pub(crate) async fn change(
        &self,
        tenant: &TenantId,
        change: impl Fn(&mut TenantRecord) -> Result<Option<Decided>>,
    ) -> Result<TenantRow> {
        let subject = Subject::Tenant(tenant.clone());
        let turn = self.keyring.turns.of(tenant);
        let _turn = tokio::time::timeout(TURN, turn.lock()).await.ok();
        let mut patience = Patience::default();
        while patience.tries_again().await {
            let before = self.keyring.believed_tenant(tenant).await?;
            let mut row = before.row.record.clone();
            let Some(decided) = change(&mut row)? else {
                // What was found done is done only once the watermark says so, too.
                self.keyring.settle(&subject, &before).await?;
                return Ok(before.row);
            };
            row.check()?;
            // The control plane writes on nothing that the watermark does not name: no honest write launders an old row.
            let mark = self.keyring.settle(&subject, &before).await?;
            row.epoch += 1;
            row.predecessor = Some(before.row.digest);
            let keks = row.rewrap.as_ref().map_or(row.policy.keks(), |order| &order.to);
            row.keks.change(row.epoch, keks, row.policy.members_of_new_keys())?;
            row.check_stored()?;
            match self.write(&before.row, row, decided, mark.as_ref()).await {
                Err(e) if e.kind() == ErrorKind::Conflict => {}
                written => return written,
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the tenant's row is being changed over and over; retry"))
    }

    async fn write(
        &self,
        before: &TenantRow,
        mut row: TenantRecord,
        decided: Decided,
        mark: Option<&Mark>,
    ) -> Result<TenantRow> {
        let (tenant, at) = (row.tenant.clone(), self.keyring.clock.unix_millis());
        let is_as_before = |kek: &KekUri| {
            before.policy.keks().keks().any(|old| old == kek)
                && before.policy.shares_kek(kek) == row.policy.shares_kek(kek)
        };
        let new_keks: Vec<KekUri> = row.policy.keks().keks().filter(|kek| !is_as_before(kek)).cloned().collect();
        let signed = self.signed(&mut row, decided.decision, at).await?;
        if signed.row_bytes.len() > ROUTINE_ROW && !decided.always {
            return Err(Error::limit(
                "the tenant's row is longer than 8 MiB: use broader rules; what is left is kept for revocations and suspensions",
            ));
        }
        let mut writes = vec![signed.row(Some(before.digest)), signed.entry()];
        writes.extend(self.claims(&row, &new_keks).await?);
        let change = Change { tenant: Some(tenant.clone()), selector: decided.selector, forget: decided.forget };
        let authority = self.keyring.authority.load_full();
        let number = self.put_decision(&mut writes, row.incarnation, &change).await?;
        // Nodes that hear of it later than this one forget no later than the revocation bound from here.
        self.keyring.forget(&change);
        let to = row.mark(signed.digest);
        let newest = self.keyring.raise(&Subject::Tenant(tenant.clone()), mark, &to).await?;
        if let Some((counted, number)) = number {
            self.keyring.heard_of(counted, number).await?;
        }
        if !newest {
            self.check_still_stands(&tenant, &signed).await?;
        }
        Ok(Stored { record: row, generation: authority.generation(), digest: signed.digest })
    }

    /// Writes a decision's rows, and what nodes must forget into the log. Returns how many decisions were counted before, and the
    /// number that it has there, if it stands there.
    ///
    /// # Errors
    /// `Conflict` if one of the rows is another one by now.
    pub(crate) async fn put_decision(
        &self,
        writes: &mut [Write],
        incarnation: Incarnation,
        change: &Change,
    ) -> Result<Option<(u64, u64)>> {
        let (control, authority) = (self.keyring.control().await?, self.keyring.authority.load_full());
        let counted = self.keyring.counted_decisions().await?;
        let entry = |number| log_entry(&authority, control.as_deref(), counted, number, change);
        let entry: Option<crate::store::LogEntry<'_>> =
            if change.forget == Forget::Nothing { None } else { Some(&entry) };
        loop {
            match self.keyring.store.put(writes, entry).await? {
                Put::Written(number) => return Ok(number.map(|number| (counted, number))),
                Put::Conflict(places) => {
                    let stands = |at: &usize| writes.get(*at).filter(|write| matches!(write.key, RowKey::Journal(..)));
                    let Some(entry) = places.iter().find(|at| stands(at).is_some_and(|it| it.expected.is_none()))
                    else {
                        return Err(meanwhile());
                    };
                    let Some(write) = writes.get_mut(*entry) else { return Err(meanwhile()) };
                    write.expected = Some(self.left_entry(&write.key, incarnation).await?.ok_or_else(meanwhile)?);
                }
            }
        }
    }

    /// The version of a journal's entry that is left of an earlier enrolment of the tenant, or that nobody signed: it is written over.
    async fn left_entry(&self, key: &RowKey, incarnation: Incarnation) -> Result<Option<RowDigest>> {
        let Some(bytes) = self.keyring.store.get(key).await? else { return Ok(None) };
        match self.keyring.verified::<JournalEntry>(Kind::Journal, &bytes).await {
            Ok(entry) if entry.incarnation == incarnation => Ok(None),
            Ok(_) => Ok(Some(RowDigest::of(&bytes))),
            Err(e) if matches!(e.kind(), ErrorKind::Tampered | ErrorKind::Malformed) => Ok(Some(RowDigest::of(&bytes))),
            Err(e) => Err(e),
        }
    }

    /// If others have gone on from here meanwhile, their journal has this decision in it: else the store was put back between,
    /// and the decision is lost.
    async fn check_still_stands(&self, tenant: &TenantId, signed: &Signed) -> Result<()> {
        let now = self.keyring.believed_tenant(tenant).await?;
        if now.row.digest == signed.digest {
            return Ok(());
        }
        let mut last = None;
        for (number, bytes) in self.keyring.store.journal(tenant, signed.number - 1, 1000).await? {
            let entry: Stored<JournalEntry> = self.keyring.verified(Kind::Journal, &bytes).await?;
            let is_ours = number == signed.number && entry.digest == signed.entry_digest;
            let follows = number > signed.number && entry.previous == last;
            if !(is_ours || follows) {
                break;
            }
            last = Some(entry.digest);
            if now.row.journal.last == last {
                return Ok(());
            }
        }
        Err(Error::new(
            ErrorKind::RolledBack,
            "the decision was written, and the key store was put back before it could be confirmed: it does not stand; restore \
             the newest copy and repeat it",
        ))
    }

    /// Chains the decision to the journal, and signs both rows.
    pub(crate) async fn signed(&self, row: &mut TenantRecord, decision: Decision, at: i64) -> Result<Signed> {
        let control = self.keyring.control().await?;
        let authority = self.keyring.authority.load_full();
        let entry = row.journal.next((&row.tenant, row.incarnation), row.epoch, at, &self.by, decision);
        let entry_bytes = authority.sign(control.as_deref(), Kind::Journal, &entry)?;
        let entry_digest = RowDigest::of(&entry_bytes);
        row.journal = row.journal.after(entry_digest);
        let row_bytes = authority.sign(control.as_deref(), Kind::Tenant, row)?;
        let tenant = row.tenant.clone();
        Ok(Signed {
            digest: RowDigest::of(&row_bytes),
            tenant,
            number: entry.number,
            row_bytes,
            entry_bytes,
            entry_digest,
        })
    }

    /// What it takes for these KEKs to serve the tenant: nobody else has them, or all say that they share them.
    pub(crate) async fn claims(&self, row: &TenantRecord, keks: &[KekUri]) -> Result<Vec<Write>> {
        let control = self.keyring.control().await?;
        let authority: std::sync::Arc<Authority> = self.keyring.authority.load_full();
        let mut writes = Vec::new();
        for kek in keks {
            let shared = row.policy.shares_kek(kek);
            let key = RowKey::Kek(kek.clone());
            let Some(claim) = self.keyring.read_row::<KekRecord>(Kind::Kek, &key).await? else {
                let claim = KekRecord { kek: kek.as_str().to_owned(), tenant: row.tenant.as_str().to_owned(), shared };
                let bytes = authority.sign(control.as_deref(), Kind::Kek, &claim)?;
                writes.push(Write { key, expected: None, change: RowChange::Put(bytes, None) });
                continue;
            };
            if claim.kek != kek.as_str() {
                return Err(Error::new(ErrorKind::Tampered, "the key store returned another KEK's row; it was edited"));
            }
            if claim.tenant == row.tenant.as_str() && claim.shared != shared {
                let expected = Some(claim.digest);
                let claim = KekRecord { shared, ..claim.record };
                let bytes = authority.sign(control.as_deref(), Kind::Kek, &claim)?;
                writes.push(Write { key, expected, change: RowChange::Put(bytes, None) });
                continue;
            }
            if claim.tenant != row.tenant.as_str() && !(claim.shared && shared) {
                let message =
                    "the KEK serves another tenant; if that is meant, both policies have to say so (share_kek)";
                return Err(Error::invalid(message).with_kek(kek.as_str()));
            }
        }
        Ok(writes)
    }
}

fn meanwhile() -> Error {
    Error::new(ErrorKind::Conflict, "the tenant's row was changed meanwhile")
}

/// A row and its journal entry, signed.
pub(crate) struct Signed {
    tenant: TenantId,
    number: u64,
    row_bytes: Vec<u8>,
    pub(crate) digest: RowDigest,
    entry_bytes: Vec<u8>,
    entry_digest: RowDigest,
}

impl Signed {
    pub(crate) fn row(&self, expected: Option<RowDigest>) -> Write {
        let key = RowKey::Tenant(self.tenant.clone());
        Write { key, expected, change: RowChange::Put(self.row_bytes.clone(), None) }
    }

    pub(crate) fn entry(&self) -> Write {
        let key = RowKey::Journal(self.tenant.clone(), self.number);
        Write { key, expected: None, change: RowChange::Put(self.entry_bytes.clone(), None) }
    }
}

/// Names a policy in the journal: SHA-256 of its JSON.
pub(crate) fn digest_of(policy: &TenantPolicy) -> Result<RowDigest> {
    let json = serde_json::to_vec(policy).map_err(|e| Error::invalid("a policy cannot be encoded").with_source(e))?;
    Ok(RowDigest::of(&json))
}
