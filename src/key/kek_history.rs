//! KEK history: which KEK expression was in force from which epoch of the tenant on. What a record is wrapped under has to be
//! what was in force when it was wrapped.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::key::json::objects;
use crate::key::kek::KekUri;
use crate::key::kek_expression::{KekExpression, NEW_KEY_MEMBERS};

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
        /// How many members of each `any_of` a new data key needed, if not all.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::key::json::present")]
        pub new_key_members: Option<u8>,
    }
}

/// From the earliest that a record may still be wrapped under to the present one. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KekHistory(Vec<KeksInForce>);

impl KekHistory {
    /// The history of a tenant that is enrolled with `keks`.
    pub(crate) fn enrolled(keks: KekExpression, new_key_members: Option<u8>) -> Self {
        Self(vec![KeksInForce { from_epoch: 1, keks, new_key_members }])
    }

    /// What was in force, the earliest first.
    pub fn iter(&self) -> impl Iterator<Item = &KeksInForce> {
        self.0.iter()
    }

    /// What wrappings of `epoch` were made for; `None` before the earliest.
    pub(crate) fn in_force_at(&self, epoch: u64) -> Option<&KeksInForce> {
        self.0.iter().rev().find(|it| it.from_epoch <= epoch)
    }

    /// Whether any expression names `kek`.
    pub(crate) fn names(&self, kek: &KekUri) -> bool {
        self.0.iter().any(|it| it.keks.keks().any(|named| named == kek))
    }

    /// Whether every record is wrapped for the present KEKs, or a rewrap to them is under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.0.len() == 1
    }

    /// From `epoch` on, `keks` are in force, and a new data key needs so many members of each `any_of`.
    ///
    /// # Errors
    /// `Limit` if there were too many changes since the last finished rewrap.
    pub(crate) fn change(&mut self, epoch: u64, keks: &KekExpression, new_key_members: Option<u8>) -> Result<()> {
        if self.0.last().is_some_and(|last| last.keks == *keks && last.new_key_members == new_key_members) {
            return Ok(());
        }
        if self.0.len() >= MAX_KEK_HISTORY {
            return Err(Error::limit(
                "the tenant's KEKs were changed 64 times without a rewrap; rewrap its keys first",
            ));
        }
        self.0.push(KeksInForce { from_epoch: epoch, keks: keks.clone(), new_key_members });
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
    pub(crate) fn check(&self, epoch: u64, present: &KekExpression, new_key_members: Option<u8>) -> Result<()> {
        let in_order = self.0.windows(2).all(|pair| matches!(pair, [a, b] if a.from_epoch < b.from_epoch));
        let last = self.0.last().is_some_and(|last| {
            last.from_epoch <= epoch && last.keks == *present && last.new_key_members == new_key_members
        });
        let members = self.0.iter().all(|it| it.new_key_members.is_none_or(|n| NEW_KEY_MEMBERS.contains(&n)));
        let first = self.0.first().is_some_and(|first| first.from_epoch >= 1);
        if in_order && last && first && members && self.0.len() <= MAX_KEK_HISTORY {
            return Ok(());
        }
        Err(Error::malformed("a tenant's history of KEKs is out of order"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_MEMBERS: &str =
        r#"[{"from_epoch":1,"keks":"local:b","new_key_members":0},{"from_epoch":2,"keks":"local:a"}]"#;

    fn keks(name: &str) -> KekExpression {
        KekUri::new(name).unwrap().into()
    }

    #[test]
    fn what_was_in_force_when() {
        let mut history = KekHistory::enrolled(keks("local:a"), None);
        history.change(4, &keks("local:b"), None).unwrap();
        history.change(5, &keks("local:b"), None).unwrap(); // no change
        history.change(9, &keks("local:c"), None).unwrap();
        let at = |history: &KekHistory, epoch| history.in_force_at(epoch).map(|it| it.keks.to_string());
        let names = |history: &KekHistory| [0, 1, 3, 4, 8, 9, 99].map(|epoch| at(history, epoch));
        let text = |name: &str| Some(name.to_owned());
        let (a, b, c) = (text("local:a"), text("local:b"), text("local:c"));
        assert_eq!(names(&history), [None, a.clone(), a, b.clone(), b.clone(), c.clone(), c.clone()]);
        assert!(history.check(9, &keks("local:c"), None).is_ok() && history.check(8, &keks("local:c"), None).is_err());
        assert!(history.check(9, &keks("local:b"), None).is_err());
        assert!(history.names(&KekUri::new("local:a").unwrap()));
        history.rewrapped(6);
        assert_eq!(names(&history), [None, None, None, None, b, c.clone(), c], "nothing of before is left");
        assert!(!history.names(&KekUri::new("local:a").unwrap()) && !history.is_settled());
        history.rewrapped(9);
        assert!(history.is_settled());
        history.change(12, &keks("local:c"), Some(1)).unwrap();
        assert_eq!([11, 12].map(|epoch| history.in_force_at(epoch).unwrap().new_key_members), [None, Some(1)]);
        assert!(
            history.check(12, &keks("local:c"), Some(1)).is_ok() && history.check(12, &keks("local:c"), None).is_err()
        );
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let mut history = KekHistory::enrolled(keks("local:k0"), None);
        for n in 1..MAX_KEK_HISTORY {
            history.change(n as u64 + 1, &keks(&format!("local:k{n}")), None).unwrap();
        }
        assert!(history.change(1000, &keks("local:more"), None).is_err());
        history.rewrapped(MAX_KEK_HISTORY as u64);
        assert!(history.change(1000, &keks("local:more"), None).is_ok());
        for bad in ["[]", r#"[{"from_epoch":0,"keks":"local:a"}]"#, NO_MEMBERS] {
            assert!(serde_json::from_str::<KekHistory>(bad).unwrap().check(1, &keks("local:a"), None).is_err());
        }
    }
}
