//! The journal: a tenant's decisions, one after the other, each naming the one before by its digest. Where it ends stands in
//! the tenant's row, so that no entry can be dropped, moved or put in.

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::key::attribution::Attribution;
use crate::key::id::{KeyId, TenantId};
use crate::key::incarnation::Incarnation;
use crate::key::json::objects;
use crate::key::revocation::Selector;
use crate::key::row_digest::RowDigest;

/// Most key ids that one entry names.
pub(crate) const MAX_ENTRY_KEYS: usize = 1000;

objects! {
    /// Where a journal ends.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct JournalHead {
        /// How many entries there are; they are numbered from 1.
        pub entries: u64,
        /// The digest of the last one's row; `None` before the first.
        #[serde(deserialize_with = "crate::key::json::nullable")]
        pub last: Option<RowDigest>,
    }
}

objects! {
    /// What was decided.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct Decision {
        /// The verb, such as `enroll` or `revoke`.
        pub verb: String,
        /// What it says beside the selector: a KEK, a region, an erasure's id, digests of policies.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub details: Vec<(String, String)>,
        /// Which keys, where it is about keys.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::key::json::present")]
        pub selector: Option<Selector>,
        /// Which keys changed their state by it, one by one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub keys: Vec<KeyId>,
    }
}

impl Decision {
    /// A decision by its verb.
    pub(crate) fn new(verb: &'static str) -> Self {
        Self { verb: verb.to_owned(), details: Vec::new(), selector: None, keys: Vec::new() }
    }

    /// About these keys.
    pub(crate) fn about(mut self, selector: &Selector) -> Self {
        self.selector = Some(selector.clone());
        self
    }

    /// With a detail.
    #[allow(clippy::needless_pass_by_value)] // numbers and references alike
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.details.push((name.to_owned(), value.to_string()));
        self
    }

    /// These keys changed their state by it.
    pub(crate) fn changed(mut self, keys: impl IntoIterator<Item = KeyId>) -> Self {
        self.keys.extend(keys);
        self
    }
}

objects! {
    /// One entry of a tenant's journal.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct JournalEntry {
        /// Whose.
        pub tenant: TenantId,
        /// Which life of the tenant.
        pub incarnation: Incarnation,
        /// Its number, from 1.
        pub number: u64,
        /// The digest of the entry before; `None` for the first.
        #[serde(deserialize_with = "crate::key::json::nullable")]
        pub previous: Option<RowDigest>,
        /// The tenant's epoch that it led to.
        pub epoch: u64,
        /// When, in Unix milliseconds.
        pub at: i64,
        /// Who decided.
        pub actor: String,
        /// Why.
        pub reason: String,
        /// What.
        pub decision: Decision,
    }
}

impl JournalHead {
    /// The entry that comes next.
    pub(crate) fn next(
        &self,
        (tenant, incarnation): (&TenantId, Incarnation),
        epoch: u64,
        at: i64,
        by: &Attribution,
        decision: Decision,
    ) -> JournalEntry {
        JournalEntry {
            tenant: tenant.clone(),
            incarnation,
            number: self.entries + 1,
            previous: self.last,
            epoch,
            at,
            actor: by.actor().to_owned(),
            reason: by.reason().to_owned(),
            decision,
        }
    }

    /// Where the journal ends with an entry of this digest.
    pub(crate) fn after(&self, entry: RowDigest) -> Self {
        Self { entries: self.entries + 1, last: Some(entry) }
    }
}

/// Follows a journal from its first entry on, and finds what was dropped, moved or put in.
pub(crate) struct Chain<'a> {
    whose: (&'a TenantId, Incarnation),
    reached: JournalHead,
}

impl<'a> Chain<'a> {
    pub(crate) fn of(tenant: &'a TenantId, incarnation: Incarnation) -> Self {
        Self { whose: (tenant, incarnation), reached: JournalHead::default() }
    }

    /// Takes the next entry, whose row has this digest.
    ///
    /// # Errors
    /// `Tampered` if it is not the one that comes next.
    pub(crate) fn take(&mut self, entry: &JournalEntry, digest: RowDigest) -> Result<()> {
        let (tenant, incarnation) = self.whose;
        let next = entry.tenant == *tenant
            && entry.incarnation == incarnation
            && entry.number == self.reached.entries + 1
            && entry.previous == self.reached.last;
        if !next {
            return Err(broken(tenant, self.reached.entries + 1));
        }
        self.reached = self.reached.after(digest);
        Ok(())
    }

    /// How many entries were taken.
    pub(crate) fn len(&self) -> u64 {
        self.reached.entries
    }

    /// The last entry was taken.
    ///
    /// # Errors
    /// `Tampered` if the tenant's row says that the journal ends elsewhere.
    pub(crate) fn ends_at(&self, head: &JournalHead) -> Result<()> {
        if self.reached == *head { Ok(()) } else { Err(broken(self.whose.0, self.reached.entries + 1)) }
    }
}

fn broken(tenant: &TenantId, number: u64) -> Error {
    let message = format!("entry {number} of the tenant's journal is missing, or is not the one that was written");
    Error::new(ErrorKind::Tampered, message).with_tenant(tenant.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(
        tenant: &TenantId,
        incarnation: Incarnation,
        count: u64,
    ) -> (Vec<(JournalEntry, RowDigest)>, JournalHead) {
        let by = Attribution::new("alice", "a test").unwrap();
        let (mut head, mut all) = (JournalHead::default(), Vec::new());
        for n in 1..=count {
            let entry = head.next((tenant, incarnation), n, 7, &by, Decision::new("revoke"));
            let digest = RowDigest::of(&serde_json::to_vec(&entry).unwrap());
            head = head.after(digest);
            all.push((entry, digest));
        }
        (all, head)
    }

    #[test]
    fn dropped_moved_and_foreign_entries_are_found() {
        let (tenant, life) = (TenantId::new("acme").unwrap(), Incarnation::from_bytes([1; 16]));
        let (all, head) = entries(&tenant, life, 4);
        let follow = |all: &[(JournalEntry, RowDigest)]| {
            let mut chain = Chain::of(&tenant, life);
            all.iter().try_for_each(|(entry, digest)| chain.take(entry, *digest)).and_then(|()| chain.ends_at(&head))
        };
        assert!(follow(&all).is_ok());
        for dropped in 0..4 {
            let mut rest = all.clone();
            rest.remove(dropped);
            assert_eq!(follow(&rest).unwrap_err().kind(), ErrorKind::Tampered, "{dropped} dropped");
        }
        for at in 0..3 {
            let mut swapped = all.clone();
            swapped.swap(at, at + 1);
            assert!(follow(&swapped).is_err(), "{at} swapped");
        }
        let (others, _) = entries(&TenantId::new("globex").unwrap(), life, 4);
        let (before, _) = entries(&tenant, Incarnation::from_bytes([2; 16]), 4);
        for foreign in [others, before] {
            for at in 0..4 {
                let mut mixed = all.clone();
                mixed[at] = foreign[at].clone();
                assert!(follow(&mixed).is_err());
            }
        }
    }
}
