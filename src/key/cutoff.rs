//! The cutoff: what seals no more from one moment on, as this process saw it. From there a proof of absence counts.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::key::id::{KeyId, TenantId};
use crate::key::region::Region;

/// What this process saw of a tenant at one moment: its home region, and which data keys were not Active any more. Made by
/// [`Admin::cutoff`](crate::Admin::cutoff).
///
/// Its time is on this process's own monotonic clock. Two nodes' clocks are never compared, so it can neither be stored nor handed to
/// another process.
#[derive(Clone, Debug)]
pub struct Cutoff {
    tenant: TenantId,
    home: Region,
    closed: BTreeSet<KeyId>,
    counts_from: Duration,
}

impl Cutoff {
    /// Seen at `now`; writers may be under way for `writers` more.
    pub(crate) fn new(
        tenant: TenantId,
        home: Region,
        closed: BTreeSet<KeyId>,
        now: Duration,
        writers: Duration,
    ) -> Self {
        Self { tenant, home, closed, counts_from: now.saturating_add(writers) }
    }

    /// Whose.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Whether the key sealed no more, but for writers under way.
    pub fn is_closed(&self, key_id: &KeyId) -> bool {
        self.closed.contains(key_id)
    }

    /// The tenant's home region at that moment: new envelopes are there, but for those of writers under way.
    pub(crate) fn home(&self) -> &Region {
        &self.home
    }

    /// # Errors
    /// `Conflict`, saying for how long, while what began before may still be sealed and stored.
    pub(crate) fn check_writers_ended(&self, now: Duration) -> Result<()> {
        let left = self.counts_from.saturating_sub(now);
        if left.is_zero() {
            return Ok(());
        }
        let message = format!(
            "what began to be sealed before the cutoff may still be under way; begin to count in {} s",
            left.as_secs() + 1
        );
        Err(Error::new(ErrorKind::Conflict, message).with_tenant(self.tenant.as_str()))
    }
}
