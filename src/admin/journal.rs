//! Reading a tenant's journal: what was decided, by whom and why, proved complete.

use crate::admin::{Admin, explain};
use crate::error::{Error, ErrorKind, Result};
use crate::key::id::TenantId;
use crate::key::journal::{Chain, Decision, JournalEntry};
use crate::key::revocation::Selector;
use crate::row::Stored;
use crate::row::frame::Kind;

/// Entries read at once.
const PAGE: u32 = 500;

impl Admin {
    /// The tenant's journal, from its first entry to the one that its row names as the last: whole, in order, each entry signed.
    ///
    /// # Errors
    /// `Tampered` if an entry is missing, was changed, moved, or is another tenant's or enrolment's; as every verb
    /// ([`Admin`](crate::Admin#errors-of-every-verb)).
    pub async fn journal(&self, tenant: &str) -> Result<Vec<JournalEntry>> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let row = self.keyring.tenant(&id).await?;
            let mut chain = Chain::of(&id, row.incarnation);
            let mut entries = Vec::new();
            while chain.len() < row.journal.entries {
                let page = self.keyring.store.journal(&id, chain.len(), PAGE).await?;
                if page.is_empty() {
                    break;
                }
                // What came after the row was read is not looked at.
                for (_, bytes) in page.iter().take_while(|(number, _)| *number <= row.journal.entries) {
                    let entry: Stored<JournalEntry> = self.keyring.verified(Kind::Journal, bytes).await?;
                    chain.take(&entry.record, entry.digest)?;
                    entries.push(entry.record);
                }
            }
            chain.ends_at(&row.journal)?;
            Ok(entries)
        };
        run.await.map_err(|e: Error| explain(e, "read journal", tenant))
    }

    /// The last of a tenant's decisions that `is_it` says is meant.
    pub(crate) async fn last_decision(
        &self,
        tenant: &str,
        is_it: impl Fn(&Decision) -> bool,
    ) -> Result<Option<Decision>> {
        let entries = self.journal(tenant).await?;
        Ok(entries.into_iter().rev().map(|entry| entry.decision).find(is_it))
    }

    /// What came of lifting a rule. Where there was none to lift, the journal tells a repeat, whose first answer was lost, from a
    /// slip: the last of these two verbs about the selector was `undo`.
    pub(crate) async fn unless_done<T>(
        &self,
        tenant: &str,
        lifted: Result<T>,
        [decide, undo]: [&str; 2],
        selector: &Selector,
    ) -> Result<()> {
        let slip = match lifted {
            Err(e) if e.kind() == ErrorKind::InvalidArgument => e,
            lifted => return lifted.map(|_| ()),
        };
        let is_about = |decision: &Decision| {
            [decide, undo].contains(&decision.verb.as_str()) && decision.selector.as_ref() == Some(selector)
        };
        match self.last_decision(tenant, is_about).await? {
            Some(last) if last.verb == undo => Ok(()),
            _ => Err(slip),
        }
    }
}
