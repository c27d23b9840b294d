//! Rules are checked before they stand: one that covers nothing because of a slip would be believed to forbid something.

use crate::admin::Admin;
use crate::admin::walk::{Pages, WalkOptions};
use crate::error::{Error, Result};
use crate::key::id::TenantId;
use crate::key::revocation::Selector;

impl Admin {
    /// Checks a rule: what it says can be met, and each field and kind of period that it names is one of the policy's, or of some
    /// key that was made under an earlier one. A scope that has no key yet is all right: the rule keeps it from getting one.
    ///
    /// # Errors
    /// `InvalidArgument` if it would cover nothing; `UnknownTenant`, `Unavailable`.
    pub(crate) async fn check_rule(&self, id: &TenantId, selector: &Selector) -> Result<()> {
        selector.check()?;
        let row = self.keyring.tenant(id).await?;
        let mut unknown: Vec<&str> = selector.names().filter(|name| !row.policy.names(name)).collect();
        let options = WalkOptions::default().page(1000);
        let mut pages = Pages::new(self, id, &options);
        while !unknown.is_empty() {
            let Some(page) = pages.next().await? else { break };
            unknown.retain(|name| !page.iter().any(|record| record.names(name)));
        }
        let Some(name) = unknown.first() else { return Ok(()) };
        let (fields, period) = (row.policy.scope_fields(), row.policy.key_period().name().unwrap_or("none"));
        Err(Error::invalid(format!(
            "{name:?} is neither a scope field of this tenant ({fields:?}) nor the period of its keys ({period}), and no key has \
             it; the rule would cover nothing"
        )))
    }

    /// How many of the data keys that the store lists a rule covers.
    pub(crate) async fn covered(&self, id: &TenantId, selector: &Selector) -> Result<u64> {
        let options = WalkOptions::default().page(1000);
        let mut pages = Pages::new(self, id, &options);
        let mut covered = 0;
        while let Some(page) = pages.next().await? {
            covered += page.iter().filter(|record| selector.covers_record(record)).count() as u64;
        }
        Ok(covered)
    }
}
