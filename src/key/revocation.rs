//! Revocations: rules on a tenant's row that suspend the keys they cover until they are lifted.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::key::period::PeriodLabel;
use crate::key::scope::Scope;

/// Which of a tenant's data keys: those whose scope or period has all of these fields. No fields means every key.
///
/// ```
/// use strongroom::Selector;
/// let everything = Selector::everything();
/// let channel = Selector::fields([("channel", "C9")]);
/// let hour_of_channel = Selector::fields([("channel", "C9"), ("hour", "2026-11-22T05Z")]);
/// # let _ = (everything, channel, hour_of_channel);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Selector(Vec<(String, String)>);

impl Selector {
    /// Every key of the tenant.
    pub fn everything() -> Self {
        Self(Vec::new())
    }

    /// The keys with all of these scope fields; `hour`, `day` and `month` select periods.
    pub fn fields<N: Into<String>, V: Into<String>>(fields: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut fields: Vec<_> = fields.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
        fields.sort();
        Self(fields)
    }

    /// Whether it covers the keys of `scope` in `period`.
    pub fn covers(&self, scope: &Scope, period: Option<&PeriodLabel>) -> bool {
        self.0.iter().all(|(name, value)| {
            scope.get(name) == Some(value) || period.map(PeriodLabel::field) == Some((name.as_str(), value.as_str()))
        })
    }

    /// # Errors
    /// `InvalidArgument` if a field is neither one of `scope_fields` nor a period: the rule would cover nothing, and the
    /// tenant would believe it did.
    pub(crate) fn check(&self, scope_fields: &[String]) -> Result<()> {
        let known = |name: &String| scope_fields.contains(name) || ["hour", "day", "month"].contains(&name.as_str());
        match self.0.iter().find(|(name, _)| !known(name)) {
            None => Ok(()),
            Some((name, _)) => Err(Error::invalid(format!(
                "{name:?} is not a scope field of this tenant ({scope_fields:?}); the rule would cover nothing"
            ))),
        }
    }
}

/// One revocation: its keys neither seal nor open, and no new ones are made, until it is lifted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// What is revoked.
    pub selector: Selector,
    /// Since when, in Unix milliseconds.
    pub since: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::period::Period;

    #[test]
    fn covers_what_has_all_the_fields() {
        let scope = Scope::new(&[("workspace", "W1"), ("channel", "C9")]).unwrap();
        let hour = Period::Hour.label(0).unwrap();
        let covers = |fields: &[(&str, &str)]| Selector::fields(fields.iter().copied()).covers(&scope, hour.as_ref());
        assert!(covers(&[]));
        assert!(covers(&[("channel", "C9")]));
        assert!(covers(&[("channel", "C9"), ("hour", "1970-01-01T00Z")]));
        assert!(!covers(&[("channel", "C8")]));
        assert!(!covers(&[("channel", "C9"), ("hour", "1970-01-01T01Z")]));
        assert!(!covers(&[("C9", "channel")]));
        assert!(!Selector::fields([("hour", "1970-01-01T00Z")]).covers(&scope, None));
    }

    #[test]
    fn a_rule_that_would_cover_nothing_is_refused() {
        let fields = ["channel".to_owned()];
        assert!(Selector::fields([("channel", "C9")]).check(&fields).is_ok());
        assert!(Selector::fields([("hour", "x")]).check(&fields).is_ok());
        assert!(Selector::fields([("chanel", "C9")]).check(&fields).is_err());
    }
}
