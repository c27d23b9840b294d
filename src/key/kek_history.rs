//! KEK history: which KEK expression was in force from which epoch of the tenant on. What a record is wrapped under has to be
//! what was in force when it was wrapped.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::key::json::objects;
use crate::key::kek::KekUri;
use crate::key::kek_expression::KekExpression;

/// Most changes of KEKs that a tenant's row keeps before a rewrap has to end the earlier ones.
pub(crate) const MAX_KEK_HISTORY: usize = 64;

objects! {
    /// A KEK expression and the epoch from which on new wrappings were made for it.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct KeksInForce {
        /// The first epoch.
        pub from_epoch: u64,
        /// The expression, shape included.
        pub keks: KekExpression,
    }
}

/// From the earliest that a record may still be wrapped under to the present one. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KekHistory(Vec<KeksInForce>);

impl KekHistory {
    /// The history of a tenant that is enrolled with `keks`.
    pub(crate) fn enrolled(keks: KekExpression) -> Self {
        Self(vec![KeksInForce { from_epoch: 1, keks }])
    }

    /// What was in force, the earliest first.
    pub fn iter(&self) -> impl Iterator<Item = &KeksInForce> {
        self.0.iter()
    }

    /// What wrappings of `epoch` were made for; `None` before the earliest.
    pub(crate) fn in_force_at(&self, epoch: u64) -> Option<&KekExpression> {
        self.0.iter().rev().find(|it| it.from_epoch <= epoch).map(|it| &it.keks)
    }

    /// Whether any expression names `kek`.
    pub(crate) fn names(&self, kek: &KekUri) -> bool {
        self.0.iter().any(|it| it.keks.keks().any(|named| named == kek))
    }

    /// Whether every record is wrapped for the present KEKs, or a rewrap to them is under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.0.len() == 1
    }

    /// From `epoch` on, `keks` are in force.
    ///
    /// # Errors
    /// `Limit` if there were too many changes since the last finished rewrap.
    pub(crate) fn change(&mut self, epoch: u64, keks: &KekExpression) -> Result<()> {
        if self.0.last().is_some_and(|last| last.keks == *keks) {
            return Ok(());
        }
        if self.0.len() >= MAX_KEK_HISTORY {
            return Err(Error::limit(
                "the tenant's KEKs were changed 64 times without a rewrap; rewrap its keys first",
            ));
        }
        self.0.push(KeksInForce { from_epoch: epoch, keks: keks.clone() });
        Ok(())
    }

    /// A rewrap that began at `epoch` is finished: nothing is wrapped as before.
    pub(crate) fn rewrapped(&mut self, epoch: u64) {
        let keep = self.0.iter().rposition(|it| it.from_epoch <= epoch).unwrap_or(0);
        self.0.drain(..keep);
        if let Some(first) = self.0.first_mut() {
            first.from_epoch = first.from_epoch.max(epoch);
        }
    }

    /// # Errors
    /// `Malformed` if no control plane wrote it.
    pub(crate) fn check(&self, epoch: u64, present: &KekExpression) -> Result<()> {
        let in_order = self.0.windows(2).all(|pair| matches!(pair, [a, b] if a.from_epoch < b.from_epoch));
        let last = self.0.last().is_some_and(|last| last.from_epoch <= epoch && last.keks == *present);
        let first = self.0.first().is_some_and(|first| first.from_epoch >= 1);
        if in_order && last && first && self.0.len() <= MAX_KEK_HISTORY {
            return Ok(());
        }
        Err(Error::malformed("a tenant's history of KEKs is out of order"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keks(name: &str) -> KekExpression {
        KekUri::new(name).unwrap().into()
    }

    #[test]
    fn what_was_in_force_when() {
        let mut history = KekHistory::enrolled(keks("local:a"));
        history.change(4, &keks("local:b")).unwrap();
        history.change(5, &keks("local:b")).unwrap(); // no change
        history.change(9, &keks("local:c")).unwrap();
        let at = |history: &KekHistory, epoch| history.in_force_at(epoch).map(ToString::to_string);
        let names = |history: &KekHistory| [0, 1, 3, 4, 8, 9, 99].map(|epoch| at(history, epoch));
        let text = |name: &str| Some(name.to_owned());
        let (a, b, c) = (text("local:a"), text("local:b"), text("local:c"));
        assert_eq!(names(&history), [None, a.clone(), a, b.clone(), b.clone(), c.clone(), c.clone()]);
        assert!(history.check(9, &keks("local:c")).is_ok() && history.check(8, &keks("local:c")).is_err());
        assert!(history.check(9, &keks("local:b")).is_err());
        assert!(history.names(&KekUri::new("local:a").unwrap()));
        history.rewrapped(6);
        assert_eq!(names(&history), [None, None, None, None, b, c.clone(), c], "nothing of before is left");
        assert!(!history.names(&KekUri::new("local:a").unwrap()) && !history.is_settled());
        history.rewrapped(9);
        assert!(history.is_settled());
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let mut history = KekHistory::enrolled(keks("local:k0"));
        for n in 1..MAX_KEK_HISTORY {
            history.change(n as u64 + 1, &keks(&format!("local:k{n}"))).unwrap();
        }
        assert!(history.change(1000, &keks("local:more")).is_err());
        history.rewrapped(MAX_KEK_HISTORY as u64);
        assert!(history.change(1000, &keks("local:more")).is_ok());
        for bad in ["[]", r#"[{"from_epoch":0,"keks":"local:a"}]"#] {
            assert!(serde_json::from_str::<KekHistory>(bad).unwrap().check(1, &keks("local:a")).is_err());
        }
    }
}
