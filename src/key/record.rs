//! Key records: the stored row of a data key. Never a plaintext key.

use serde::Serialize;

use crate::crypto::suite::Suite;
use crate::error::{Error, ErrorKind, Result};
use crate::key::attribution::Attribution;
use crate::key::context_rules::ContextRules;
#[cfg(any(test, feature = "testing"))]
use crate::key::context_rules::RequiredFields;
use crate::key::encryption_context::EncryptionContext;
use crate::key::id::{KeyId, TenantId};
use crate::key::incarnation::Incarnation;
use crate::key::json::objects;
use crate::key::period::PeriodLabel;
use crate::key::policy::check_scope_fields;
use crate::key::region::Region;
use crate::key::scope::Scope;
use crate::key::state::KeyState;
use crate::key::tenant::suspended;
use crate::key::wrapped_key::{Pending, WrappedKey};

/// Most transitions that a key record keeps.
const MAX_TRANSITIONS: usize = 16;

objects! {
    /// One transition of a data key.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct Transition {
        /// The state from then on.
        pub state: KeyState,
        /// When, in Unix milliseconds.
        pub at: i64,
        /// Who did it: an actor of the control plane, or `data-plane`.
        pub actor: String,
        /// Why.
        pub reason: String,
    }
}

objects! {
    /// The stored row of a data key.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct KeyRecord {
        /// Whose.
        pub tenant: TenantId,
        /// Which life of the tenant: enrolled anew under the same name, it is another one, and this is no key of it.
        pub incarnation: Incarnation,
        /// The key's name and commitment; with the tenant, the store's primary key.
        pub key_id: KeyId,
        /// The ciphers it is for.
        pub suite: Suite,
        /// What it covers.
        pub scope: Scope,
        /// When it covers it.
        #[serde(deserialize_with = "crate::key::json::nullable")]
        pub period: Option<PeriodLabel>,
        /// Where it and its envelopes belong. Never changes.
        pub region: Region,
        /// What the contexts of all that is sealed under it carry: as the tenant's policy stated when it was made. Never changes.
        pub context_rules: ContextRules,
        /// What it may do.
        pub state: KeyState,
        /// Since when, in Unix milliseconds.
        pub state_since: i64,
        /// The key, wrapped. `None` only when Destroyed.
        #[serde(deserialize_with = "crate::key::json::nullable")]
        pub wrapped: Option<WrappedKey>,
        /// The key wrapped anew by a rewrap, until it has been read back and unwrapped; then it takes the place of `wrapped`.
        #[serde(deserialize_with = "crate::key::json::nullable")]
        pub pending: Option<Pending>,
        /// The tenant's epoch under which `wrapped` was made.
        pub wrapped_epoch: u64,
        /// The tenant's epoch under which the key itself was made. Set once: no rewrap moves it.
        pub made_epoch: u64,
        /// The generation of the room's row key under which the key was made. Set once, too.
        pub made_generation: u32,
        /// When it was created, in Unix milliseconds.
        pub created_at: i64,
        /// Its transitions, the first when it was made; the last one led to its present state.
        pub transitions: Vec<Transition>,
    }
}

impl KeyRecord {
    /// A record of a key that no store holds, whose messages and files are bound to what they are: for the format by itself.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn bare(tenant: TenantId, key_id: KeyId, suite: Suite, scope: Scope, region: Region) -> Self {
        Self {
            tenant,
            incarnation: Incarnation::from_bytes([0; 16]),
            key_id,
            suite,
            scope,
            period: None,
            region,
            context_rules: ContextRules { messages: RequiredFields::Unbound, files: RequiredFields::Unbound },
            state: KeyState::Active,
            state_since: 0,
            wrapped: None,
            pending: None,
            wrapped_epoch: 1,
            made_epoch: 1,
            made_generation: 1,
            created_at: 0,
            transitions: Vec::new(),
        }
    }

    /// The pairs that its wrappings are bound to.
    pub(crate) fn encryption_context(&self) -> Result<EncryptionContext> {
        EncryptionContext::new(&self.tenant, &self.region, self.suite, &self.scope, self.period.as_ref())
    }

    /// # Errors
    /// `Revoked` if Suspended, `Erased` if Destroyed.
    pub(crate) fn check_opens(&self) -> Result<()> {
        match self.state {
            KeyState::Active | KeyState::Deactivated | KeyState::Compromised => Ok(()),
            KeyState::Suspended => Err(suspended()),
            KeyState::Destroyed => Err(erased()),
        }
        .map_err(|e: Error| e.with_tenant(self.tenant.as_str()).with_region(self.region.as_str()))
    }

    /// The row to write to bring it into `state`. Of a Destroyed key's wrappings nothing is left.
    pub(crate) fn into_state(mut self, state: KeyState, now: i64, by: &Attribution) -> Self {
        self.state = state;
        self.state_since = now;
        if self.transitions.len() >= MAX_TRANSITIONS {
            self.transitions.remove(1); // how it began, and the latest
        }
        self.transitions.push(Transition::new(state, now, by));
        if state == KeyState::Destroyed {
            self.wrapped = None;
            self.pending = None;
        }
        self
    }

    /// Whether it has this name, of a scope's field or of a period.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.scope.get(name).is_some() || self.period.as_ref().is_some_and(|period| period.field().0 == name)
    }

    /// Where it is found besides by its id.
    pub(crate) fn at(&self) -> (&Scope, Option<&PeriodLabel>) {
        (&self.scope, self.period.as_ref())
    }

    /// Checks what a store read, before anything is done with it.
    ///
    /// # Errors
    /// `Malformed` naming the field that cannot be.
    pub fn check(&self) -> Result<()> {
        let destroyed = self.state == KeyState::Destroyed;
        let problem = if self.wrapped.is_none() != destroyed || (destroyed && self.pending.is_some()) {
            "a key record has no wrapping (or a destroyed one has)"
        } else if self.made_epoch == 0 || self.wrapped_epoch < self.made_epoch {
            "a key record has epoch 0, or was wrapped before it was made"
        } else if self.transitions.len() > MAX_TRANSITIONS
            || self.transitions.last().is_none_or(|last| last.state != self.state || last.at != self.state_since)
        {
            "a key record's state is not that of its last transition"
        } else {
            let scope = self.scope.fields().map(|(name, _)| name);
            check_scope_fields(&scope)
                .map_err(|e| Error::malformed("a key record's scope cannot be").with_source(e))?;
            self.context_rules
                .check(&scope)
                .map_err(|e| Error::malformed("a key record's context rules cannot be").with_source(e))?;
            let mut both = self.wrapped.iter().chain(self.pending.as_ref().map(|p| &p.wrapped));
            let wrapped = both.try_for_each(WrappedKey::check);
            return wrapped.map_err(|e| e.with_tenant(self.tenant.as_str()));
        };
        Err(Error::malformed(problem).with_tenant(self.tenant.as_str()))
    }
}

impl Transition {
    pub(crate) fn new(state: KeyState, at: i64, by: &Attribution) -> Self {
        Self { state, at, actor: by.actor().to_owned(), reason: by.reason().to_owned() }
    }
}

pub(crate) fn erased() -> Error {
    Error::new(ErrorKind::Erased, "the data key was erased; what it sealed cannot be opened again")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::key::wrapped_key::Wrapping;

    pub(crate) fn record() -> KeyRecord {
        KeyRecord {
            tenant: TenantId::new("acme").unwrap(),
            incarnation: Incarnation::from_bytes([2; 16]),
            key_id: KeyId::from_bytes([1; 32]),
            suite: Suite::default(),
            scope: Scope::new(&[("channel", "C9")]).unwrap(),
            period: None,
            region: Region::new("eu").unwrap(),
            context_rules: ContextRules::default(),
            state: KeyState::Active,
            state_since: 1,
            wrapped: Some(wrapped()),
            pending: None,
            wrapped_epoch: 1,
            made_epoch: 1,
            made_generation: 1,
            created_at: 1,
            transitions: vec![Transition::new(KeyState::Active, 1, &by())],
        }
    }

    fn by() -> Attribution {
        Attribution::new("alice", "a test").unwrap()
    }

    fn wrapped() -> WrappedKey {
        WrappedKey::One(Wrapping { kek: "local:a".parse().unwrap(), wrapped: vec![1] })
    }

    fn pending() -> Pending {
        Pending { wrapped: wrapped(), epoch: 2 }
    }

    #[test]
    fn suspended_and_destroyed_keys_do_not_open() {
        let kind = |state| record().into_state(state, 2, &by()).check_opens().err().map(|e| e.kind());
        let open = [KeyState::Active, KeyState::Deactivated, KeyState::Compromised].map(kind);
        assert_eq!(open, [None, None, None]);
        assert_eq!(kind(KeyState::Suspended), Some(ErrorKind::Revoked));
        assert_eq!(kind(KeyState::Destroyed), Some(ErrorKind::Erased));
    }

    #[test]
    fn of_a_destroyed_key_nothing_is_left() {
        let before = KeyRecord { pending: Some(pending()), ..record() };
        let suspended = before.clone().into_state(KeyState::Suspended, 7, &by());
        let mut transitions =
            [before.transitions.clone(), vec![Transition::new(KeyState::Suspended, 7, &by())]].concat();
        let expected =
            KeyRecord { state: KeyState::Suspended, state_since: 7, transitions: transitions.clone(), ..before };
        assert_eq!(suspended, expected);
        let destroyed = suspended.clone().into_state(KeyState::Destroyed, 8, &by());
        let (wrapped, pending) = (None, None);
        transitions.push(Transition::new(KeyState::Destroyed, 8, &by()));
        let expected =
            KeyRecord { state: KeyState::Destroyed, state_since: 8, transitions, wrapped, pending, ..suspended };
        assert_eq!(destroyed, expected);
    }

    #[test]
    fn rows_that_no_store_was_given_are_refused() {
        let destroyed = record().into_state(KeyState::Destroyed, 2, &by());
        let empty = WrappedKey::One(Wrapping { kek: "local:a".parse().unwrap(), wrapped: vec![] });
        let bound_to = |name| ContextRules { messages: RequiredFields::named([name]), ..ContextRules::default() };
        for good in [
            record(),
            KeyRecord { context_rules: bound_to("message"), ..record() },
            KeyRecord { pending: Some(pending()), ..record() },
            destroyed.clone(),
        ] {
            assert!(good.check().is_ok(), "{good:?}");
        }
        for bad in [
            KeyRecord { wrapped: None, ..record() },
            KeyRecord { wrapped: record().wrapped, ..destroyed.clone() },
            KeyRecord { pending: Some(pending()), ..destroyed },
            KeyRecord { made_epoch: 0, ..record() },
            KeyRecord { made_epoch: 2, ..record() },
            KeyRecord { transitions: Vec::new(), ..record() },
            KeyRecord { state: KeyState::Deactivated, ..record() },
            KeyRecord { state_since: 2, ..record() },
            KeyRecord { wrapped_epoch: 0, ..record() },
            KeyRecord { scope: Scope::new(&[("tenant", "x")]).unwrap(), ..record() },
            KeyRecord { wrapped: Some(empty.clone()), ..record() },
            KeyRecord { context_rules: bound_to("channel"), ..record() },
            KeyRecord { context_rules: bound_to(""), ..record() },
            KeyRecord { pending: Some(Pending { wrapped: empty, epoch: 2 }), ..record() },
        ] {
            assert_eq!(bad.check().err().map(|e| e.kind()), Some(ErrorKind::Malformed), "{bad:?}");
        }
    }
}
