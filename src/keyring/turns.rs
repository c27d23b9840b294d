//! Turns: decisions about one tenant, and those about the fleet, come one after the other in this process. The compare-and-set of a
//! row lets one of many that are taken at once through, and would have the others try again and again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::key::id::TenantId;

/// Who decides about which tenant.
#[derive(Default)]
pub(crate) struct Turns {
    tenants: Mutex<HashMap<TenantId, Weak<tokio::sync::Mutex<()>>>>,
    /// What is held while a decision about the fleet is taken.
    pub(crate) fleet: tokio::sync::Mutex<()>,
}

impl Turns {
    /// What is held while a decision about the tenant is taken.
    pub(crate) fn of(&self, tenant: &TenantId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(tenant).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        turns.insert(tenant.clone(), Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_one_turn_and_what_nobody_waits_for_is_dropped() {
        let (turns, [acme, globex]) = (Turns::default(), ["acme", "globex"].map(|name| TenantId::new(name).unwrap()));
        let first = turns.of(&acme);
        assert!(Arc::ptr_eq(&first, &turns.of(&acme)) && !Arc::ptr_eq(&first, &turns.of(&globex)));
        drop(first);
        turns.of(&globex);
        assert_eq!(turns.tenants.lock().unwrap().len(), 1);
    }
}
