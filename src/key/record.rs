//! Key records: the stored row of a data key. Never a plaintext key.

use crate::crypto::suite::Suite;
use crate::error::{Error, ErrorKind, Result};
use crate::key::encryption_context::EncryptionContext;
use crate::key::id::{KeyId, TenantId};
use crate::key::period::PeriodLabel;
use crate::key::policy::check_scope_fields;
use crate::key::region::Region;
use crate::key::scope::Scope;
use crate::key::state::KeyState;
use crate::key::tenant::suspended;
use crate::key::wrapped_key::{Pending, WrappedKey};

/// The stored row of a data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Whose.
    pub tenant: TenantId,
    /// The key's name and commitment; with the tenant, the store's primary key.
    pub key_id: KeyId,
    /// The ciphers it is for.
    pub suite: Suite,
    /// What it covers.
    pub scope: Scope,
    /// When it covers it.
    pub period: Option<PeriodLabel>,
    /// Where it and its envelopes belong. Never changes.
    pub region: Region,
    /// What it may do.
    pub state: KeyState,
    /// Since when, in Unix milliseconds.
    pub state_since: i64,
    /// The key, wrapped. `None` only when Destroyed.
    pub wrapped: Option<WrappedKey>,
    /// The key wrapped anew by a rewrap, until it has been read back and unwrapped; then it takes the place of `wrapped`.
    pub pending: Option<Pending>,
    /// The tenant's epoch under which `wrapped` was made.
    pub wrapped_epoch: u64,
    /// When it was created, in Unix milliseconds.
    pub created_at: i64,
    /// Counts the changes of the row; compare-and-set goes by it. A new row has 1.
    pub revision: u64,
}

impl KeyRecord {
    /// The pairs that its wrappings are bound to.
    pub(crate) fn encryption_context(&self) -> Result<EncryptionContext> {
        EncryptionContext::new(&self.tenant, &self.region, self.suite, &self.scope, self.period.as_ref())
    }

    /// # Errors
    /// `Revoked` if Suspended, `Erased` if Destroyed.
    pub(crate) fn check_opens(&self) -> Result<()> {
        match self.state {
            KeyState::Active | KeyState::Deactivated => Ok(()),
            KeyState::Suspended => Err(suspended()),
            KeyState::Destroyed => {
                Err(Error::new(ErrorKind::Erased, "the data key was erased; what it sealed cannot be opened again"))
            }
        }
        .map_err(|e: Error| e.with_tenant(self.tenant.as_str()).with_region(self.region.as_str()))
    }

    /// The row to write to bring it into `state`. Of a Destroyed key's wrappings nothing is left.
    pub(crate) fn into_state(mut self, state: KeyState, now: i64) -> Self {
        self.state = state;
        self.state_since = now;
        if state == KeyState::Destroyed {
            self.wrapped = None;
            self.pending = None;
        }
        self.revision += 1;
        self
    }

    /// Checks what a store read, before anything is done with it.
    ///
    /// # Errors
    /// `Malformed` naming the field that cannot be.
    pub fn check(&self) -> Result<()> {
        let destroyed = self.state == KeyState::Destroyed;
        let problem = if self.wrapped.is_none() != destroyed || (destroyed && self.pending.is_some()) {
            "a key record has no wrapping (or a destroyed one has)"
        } else if self.revision == 0 || self.wrapped_epoch == 0 {
            "a key record has revision or epoch 0"
        } else {
            check_scope_fields(&self.scope.fields().map(|(name, _)| name))
                .map_err(|e| Error::malformed("a key record's scope cannot be").with_source(e))?;
            let mut both = self.wrapped.iter().chain(self.pending.as_ref().map(|p| &p.wrapped));
            let wrapped = both.try_for_each(WrappedKey::check);
            return wrapped.map_err(|e| e.with_tenant(self.tenant.as_str()));
        };
        Err(Error::malformed(problem).with_tenant(self.tenant.as_str()))
    }
}
