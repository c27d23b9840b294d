//! Key records: the stored row of a data key. Never a plaintext key.

use crate::crypto::suite::Suite;
use crate::error::{Error, ErrorKind, Result};
use crate::key::encryption_context::EncryptionContext;
use crate::key::id::{KeyId, TenantId};
use crate::key::kek::KekUri;
use crate::key::period::PeriodLabel;
use crate::key::region::Region;
use crate::key::scope::Scope;
use crate::key::state::KeyState;
use crate::key::tenant::revoked;

/// Most bytes of a wrapped data key: AWS KMS takes and gives up to 6144.
pub const MAX_WRAPPED: usize = 6144;

/// A data key wrapped by one KEK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapping {
    /// The KEK that unwraps it.
    pub kek: KekUri,
    /// What the KMS gave: opaque, 1 to 6144 bytes.
    pub wrapped: Vec<u8>,
}

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
    /// The key, wrapped; any one of these unwraps it. Empty only when Destroyed.
    pub wrappings: Vec<Wrapping>,
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
            KeyState::Suspended => Err(revoked()),
            KeyState::Destroyed => {
                Err(Error::new(ErrorKind::Erased, "the data key was erased; what it sealed cannot be opened again"))
            }
        }
        .map_err(|e: Error| e.with_tenant(self.tenant.as_str()).with_region(self.region.as_str()))
    }

    /// Checks what a store read, before anything is done with it.
    ///
    /// # Errors
    /// `Malformed` naming the field that cannot be.
    pub fn check(&self) -> Result<()> {
        let wrapped_well = self.wrappings.iter().all(|w| (1..=MAX_WRAPPED).contains(&w.wrapped.len()));
        let problem = if self.wrappings.is_empty() != (self.state == KeyState::Destroyed) {
            "a key record has no wrapping (or a destroyed one has)"
        } else if !wrapped_well {
            "a key record's wrapped key has not 1 to 6144 bytes"
        } else if self.revision == 0 {
            "a key record has revision 0"
        } else {
            return Ok(());
        };
        Err(Error::malformed(problem).with_tenant(self.tenant.as_str()))
    }
}
