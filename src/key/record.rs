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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::key::wrapped_key::Wrapping;

    pub(crate) fn record() -> KeyRecord {
        KeyRecord {
            tenant: TenantId::new("acme").unwrap(),
            key_id: KeyId::from_bytes([1; 32]),
            suite: Suite::default(),
            scope: Scope::new(&[("channel", "C9")]).unwrap(),
            period: None,
            region: Region::new("eu").unwrap(),
            state: KeyState::Active,
            state_since: 1,
            wrapped: Some(wrapped()),
            pending: None,
            wrapped_epoch: 1,
            created_at: 1,
            revision: 1,
        }
    }

    fn wrapped() -> WrappedKey {
        WrappedKey::One(Wrapping { kek: "local:a".parse().unwrap(), wrapped: vec![1] })
    }

    fn pending() -> Pending {
        Pending { wrapped: wrapped(), epoch: 2 }
    }

    #[test]
    fn suspended_and_destroyed_keys_do_not_open() {
        let kind = |state| record().into_state(state, 2).check_opens().err().map(|e| e.kind());
        assert_eq!([kind(KeyState::Active), kind(KeyState::Deactivated)], [None, None]);
        assert_eq!(kind(KeyState::Suspended), Some(ErrorKind::Revoked));
        assert_eq!(kind(KeyState::Destroyed), Some(ErrorKind::Erased));
    }

    #[test]
    fn of_a_destroyed_key_nothing_is_left() {
        let before = KeyRecord { pending: Some(pending()), ..record() };
        let suspended = before.clone().into_state(KeyState::Suspended, 7);
        let expected = KeyRecord { state: KeyState::Suspended, state_since: 7, revision: 2, ..before };
        assert_eq!(suspended, expected);
        let destroyed = suspended.clone().into_state(KeyState::Destroyed, 8);
        let (wrapped, pending) = (None, None);
        let expected =
            KeyRecord { state: KeyState::Destroyed, state_since: 8, revision: 3, wrapped, pending, ..suspended };
        assert_eq!(destroyed, expected);
    }

    #[test]
    fn rows_that_no_store_was_given_are_refused() {
        let destroyed = KeyRecord { state: KeyState::Destroyed, wrapped: None, ..record() };
        let empty = WrappedKey::One(Wrapping { kek: "local:a".parse().unwrap(), wrapped: vec![] });
        for good in [record(), KeyRecord { pending: Some(pending()), ..record() }, destroyed.clone()] {
            assert!(good.check().is_ok(), "{good:?}");
        }
        for bad in [
            KeyRecord { wrapped: None, ..record() },
            KeyRecord { state: KeyState::Destroyed, ..record() },
            KeyRecord { pending: Some(pending()), ..destroyed },
            KeyRecord { revision: 0, ..record() },
            KeyRecord { wrapped_epoch: 0, ..record() },
            KeyRecord { scope: Scope::new(&[("tenant", "x")]).unwrap(), ..record() },
            KeyRecord { wrapped: Some(empty.clone()), ..record() },
            KeyRecord { pending: Some(Pending { wrapped: empty, epoch: 2 }), ..record() },
        ] {
            assert_eq!(bad.check().err().map(|e| e.kind()), Some(ErrorKind::Malformed), "{bad:?}");
        }
    }
}
