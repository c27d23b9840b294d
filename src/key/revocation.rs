//! Revocations: rules on a tenant's row that suspend the keys they cover until they are lifted.

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};
use crate::key::id::KeyId;
use crate::key::json::objects;
use crate::key::period::PeriodLabel;
use crate::key::record::KeyRecord;
use crate::key::scope::{MAX_SCOPE, Scope};

/// The names of periods, which no scope field has.
pub(crate) const PERIODS: [&str; 3] = ["hour", "day", "month"];

/// Most keys that one selector names by their ids.
pub const MAX_SELECTED_KEYS: usize = 1000;

objects! {
    /// Which of a tenant's data keys: those that meet every condition given. Every key is asked for by name
    /// ([`Self::everything`]): a selector without a condition covers none, and is refused.
    ///
    /// ```
    /// use strongroom::{PeriodLabel, Selector};
    /// let everything = Selector::everything();
    /// let channel = Selector::fields([("channel", "C9")]);
    /// let hour_of_channel = Selector::fields([("channel", "C9"), ("hour", "2026-11-22T05Z")]);
    /// let (from, to) = (PeriodLabel::new("hour=2026-11-22T05Z")?, PeriodLabel::new("hour=2026-11-22T08Z")?);
    /// let morning = Selector::fields([("channel", "C9")]).from(from).to(to); // both hours included
    /// # let _ = (everything, channel, hour_of_channel, morning);
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    #[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
    pub struct Selector {
        /// Says that no condition means every key. Beside a condition it says nothing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "crate::key::json::said")]
        everything: bool,
        #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "sorted")]
        fields: Vec<(String, String)>,
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::key::json::present")]
        from: Option<PeriodLabel>,
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::key::json::present")]
        to: Option<PeriodLabel>,
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "sorted_keys")]
        keys: Option<Vec<KeyId>>,
    }
}

/// Fields and ids stand in order, in whichever they were written: ids are looked up by halves, and equal selectors are equal.
fn sorted<'de, D: Deserializer<'de>, T: Deserialize<'de> + Ord>(from: D) -> Result<Vec<T>, D::Error> {
    let mut items = Vec::deserialize(from)?;
    items.sort_unstable();
    Ok(items)
}

/// As [`sorted`].
fn sorted_keys<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<KeyId>>, D::Error> {
    sorted(from).map(Some)
}

impl Selector {
    /// Every key of the tenant.
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// The keys with all of these scope fields; `hour`, `day` and `month` select periods.
    pub fn fields<N: Into<String>, V: Into<String>>(fields: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut fields: Vec<_> = fields.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
        fields.sort();
        Self { fields, ..Self::default() }
    }

    /// The keys with these ids, at most 1000.
    pub fn keys(keys: impl IntoIterator<Item = KeyId>) -> Self {
        let mut keys: Vec<_> = keys.into_iter().collect();
        keys.sort_unstable();
        Self { keys: Some(keys), ..Self::default() }
    }

    /// Of these, the keys of this period and later ones.
    pub fn from(mut self, first: PeriodLabel) -> Self {
        self.everything = false;
        self.from = Some(first);
        self
    }

    /// Of these, the keys of this period and earlier ones.
    pub fn to(mut self, last: PeriodLabel) -> Self {
        self.everything = false;
        self.to = Some(last);
        self
    }

    /// Whether it covers a key.
    pub fn covers(&self, scope: &Scope, period: Option<&PeriodLabel>, key_id: Option<&KeyId>) -> bool {
        let in_period =
            |(name, value): &(String, String)| period.map(PeriodLabel::field) == Some((name.as_str(), value.as_str()));
        !self.is_empty()
            && self.fields.iter().all(|field| scope.get(&field.0) == Some(field.1.as_str()) || in_period(field))
            && self.from.as_ref().is_none_or(|from| period.is_some_and(|p| p.same_kind(from) && p >= from))
            && self.to.as_ref().is_none_or(|to| period.is_some_and(|p| p.same_kind(to) && p <= to))
            && self.keys.as_ref().is_none_or(|keys| key_id.is_some_and(|id| keys.binary_search(id).is_ok()))
    }

    /// Whether it says nothing: neither a condition nor, in so many words, everything.
    fn is_empty(&self) -> bool {
        !self.everything && self.has_no_condition()
    }

    fn has_no_condition(&self) -> bool {
        self.fields.is_empty() && self.from.is_none() && self.to.is_none() && self.keys.is_none()
    }

    /// Whether it covers all that `other` covers. May say no where it does, never yes where it does not.
    pub(crate) fn includes(&self, other: &Self) -> bool {
        let from =
            self.from.as_ref().is_none_or(|mine| other.from.as_ref().is_some_and(|o| o.same_kind(mine) && o >= mine));
        let to = self.to.as_ref().is_none_or(|mine| other.to.as_ref().is_some_and(|o| o.same_kind(mine) && o <= mine));
        let all_of_its = |mine: &Vec<KeyId>| {
            other.keys.as_ref().is_some_and(|keys| keys.iter().all(|id| mine.binary_search(id).is_ok()))
        };
        !self.is_empty()
            && self.fields.iter().all(|field| other.fields.contains(field))
            && from
            && to
            && self.keys.as_ref().is_none_or(all_of_its)
    }

    /// Whether it could cover a key of `scope`, whatever its period and id.
    pub(crate) fn may_cover(&self, scope: &Scope) -> bool {
        let is_period = |name: &str| PERIODS.contains(&name);
        !self.is_empty() && self.fields.iter().all(|(name, value)| is_period(name) || scope.get(name) == Some(value))
    }

    pub(crate) fn covers_record(&self, record: &KeyRecord) -> bool {
        self.covers(&record.scope, record.period.as_ref(), Some(&record.key_id))
    }

    /// The fields it asks for, periods among them.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The first and the last period it covers.
    pub(crate) fn periods(&self) -> (Option<&PeriodLabel>, Option<&PeriodLabel>) {
        (self.from.as_ref(), self.to.as_ref())
    }

    /// The ids it names, where it names keys by their ids.
    pub fn key_ids(&self) -> Option<&[KeyId]> {
        self.keys.as_deref()
    }

    /// The names that it takes for granted: of fields, and of periods' kinds. A key that has not all of them is not covered.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let range = self.from.iter().chain(&self.to).map(|label| label.field().0);
        self.fields.iter().map(|(name, _)| name.as_str()).chain(range)
    }

    /// # Errors
    /// `InvalidArgument` if it could cover nothing, whatever the tenant's keys are, and the tenant would believe that it did: no
    /// condition, conditions that no key meets, a period that is none.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_empty() {
            return Err(Error::invalid("a selector without a condition covers nothing; ask for everything by name"));
        }
        if self.everything && !self.has_no_condition() {
            return Err(Error::invalid("a selector says everything and names a condition; say one of them"));
        }
        for (name, value) in &self.fields {
            if value.is_empty() || value.len() > MAX_SCOPE {
                let message = format!("no scope has such a value of {name:?}; the rule would cover nothing");
                return Err(Error::invalid(message));
            }
            if self.fields.iter().any(|(other, another)| other == name && another != value) {
                return Err(Error::invalid(format!("{name:?} has one value in a scope; the rule would cover nothing")));
            }
        }
        self.check_periods()?;
        match &self.keys {
            Some(keys) if keys.is_empty() => Err(Error::invalid("a selector of keys names at least one")),
            Some(keys) if keys.len() > MAX_SELECTED_KEYS => Err(Error::limit("a selector names at most 1000 keys")),
            _ => Ok(()),
        }
    }

    /// The periods that it names are in the calendar, and a key can be of all of them.
    fn check_periods(&self) -> Result<()> {
        let mut named = None;
        for (name, value) in self.fields.iter().filter(|(name, _)| PERIODS.contains(&name.as_str())) {
            let label = PeriodLabel::new(&format!("{name}={value}")).map_err(|e| {
                let message = format!("no key has the {name} {value:?}; the rule would cover nothing");
                Error::invalid(message).with_source(e)
            })?;
            if named.is_some_and(|named: PeriodLabel| named != label) {
                return Err(Error::invalid("a key has one period at most; the rule would cover nothing"));
            }
            named = Some(label);
        }
        if let Some(label) = named.iter().chain(&self.from).chain(&self.to).find(|label| !label.is_in_calendar()) {
            return Err(Error::invalid(format!("the calendar has no {label}; the rule would cover nothing")));
        }
        let (first, last) = (self.from.as_ref(), self.to.as_ref());
        let ends = [(first, last), (first, named.as_ref()), (named.as_ref(), last)];
        for (from, to) in ends.into_iter().filter_map(|(from, to)| from.zip(to)) {
            if !from.same_kind(to) || from > to {
                return Err(Error::invalid(format!("no period is from {from} to {to}; the rule would cover nothing")));
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts: Vec<String> = self.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        parts.extend(self.from.iter().map(|from| format!("from {from}")));
        parts.extend(self.to.iter().map(|to| format!("to {to}")));
        parts.extend(self.keys.iter().map(|keys| format!("{} key(s) by id", keys.len())));
        match (parts.is_empty(), self.everything) {
            (true, true) => f.write_str("everything"),
            (true, false) => f.write_str("nothing"),
            _ => f.write_str(&parts.join(", ")),
        }
    }
}

objects! {
    /// One revocation: its keys neither seal nor open, and no new ones are made, until it is lifted.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct Revocation {
        /// What is revoked.
        pub selector: Selector,
        /// Since when, in Unix milliseconds.
        pub since: i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::period::Period;

    fn hour(n: i64) -> PeriodLabel {
        Period::Hour.label(n * 3_600_000).unwrap().unwrap()
    }

    #[test]
    fn covers_what_has_all_the_fields() {
        let scope = Scope::new(&[("workspace", "W1"), ("channel", "C9")]).unwrap();
        let now = hour(0);
        let covers =
            |fields: &[(&str, &str)]| Selector::fields(fields.iter().copied()).covers(&scope, Some(&now), None);
        assert!(Selector::everything().covers(&scope, Some(&now), None));
        assert!(!covers(&[]), "an empty rule is not everything");
        assert!(covers(&[("channel", "C9")]));
        assert!(covers(&[("channel", "C9"), ("hour", "1970-01-01T00Z")]));
        assert!(!covers(&[("channel", "C8")]));
        assert!(!covers(&[("channel", "C9"), ("hour", "1970-01-01T01Z")]));
        assert!(!covers(&[("C9", "channel")]));
        assert!(!Selector::fields([("hour", "1970-01-01T00Z")]).covers(&scope, None, None));
        let may_cover = |fields: &[(&str, &str)]| Selector::fields(fields.iter().copied()).may_cover(&scope);
        assert!(!may_cover(&[]) && may_cover(&[("channel", "C9"), ("hour", "1970-01-01T01Z")]));
        assert!(!may_cover(&[("channel", "C8")]));
    }

    #[test]
    fn covers_periods_from_and_to() {
        let scope = Scope::new(&[("channel", "C9")]).unwrap();
        let morning = Selector::fields([("channel", "C9")]).from(hour(5)).to(hour(8));
        let covered: Vec<i64> = (0..12).filter(|n| morning.covers(&scope, Some(&hour(*n)), None)).collect();
        assert_eq!(covered, [5, 6, 7, 8]);
        assert!(!morning.covers(&scope, None, None));
        assert!(!morning.covers(&Scope::new(&[("channel", "C8")]).unwrap(), Some(&hour(6)), None));
        let since = Selector::everything().from(hour(5));
        assert!(since.covers(&scope, Some(&hour(100)), None) && !since.covers(&scope, Some(&hour(4)), None));
        let day = Period::Day.label(0).unwrap().unwrap();
        assert!(!Selector::everything().to(hour(8)).covers(&scope, Some(&day), None), "days are not hours");
    }

    #[test]
    fn covers_keys_by_id() {
        let scope = Scope::new(&[]).unwrap();
        let id = |n| KeyId::from_bytes([n; 32]);
        let two = Selector::keys([id(7), id(3)]);
        let covered: Vec<u8> = (0..9).filter(|n| two.covers(&scope, None, Some(&id(*n)))).collect();
        assert_eq!(covered, [3, 7]);
        assert!(!two.covers(&scope, None, None), "a key that is not made yet has no id");
        // As JSON that somebody else wrote has them, in any order: ids that were not sorted were not found.
        let text = format!(r#"{{"keys":["{}","{}"]}}"#, id(7), id(3));
        assert_eq!(serde_json::from_str::<Selector>(&text).unwrap(), two);
        let fields = [("workspace", "W1"), ("channel", "C9")];
        let text = r#"{"fields":[["workspace","W1"],["channel","C9"]]}"#;
        assert_eq!(serde_json::from_str::<Selector>(text).unwrap(), Selector::fields(fields));
    }

    #[test]
    fn a_rule_that_would_cover_nothing_is_refused() {
        let fields = |fields: &[(&str, &str)]| Selector::fields(fields.iter().copied());
        let day = || Period::Day.label(0).unwrap().unwrap();
        let (longest, everything) = ("C".repeat(MAX_SCOPE), Selector::everything);
        for good in [
            fields(&[("channel", "C9")]),
            fields(&[("channel", "C9"), ("channel", "C9")]),
            fields(&[("channel", &longest)]),
            fields(&[("hour", "1970-01-01T05Z")]).from(hour(5)).to(hour(5)),
            fields(&[("month", "1970-01")]),
            everything().from(hour(5)).to(hour(5)),
        ] {
            assert!(good.check().is_ok(), "{good:?}");
        }
        for bad in [
            fields(&[]),
            fields(&[("channel", "")]),
            fields(&[("channel", &(longest.clone() + "C"))]),
            fields(&[("channel", "C8"), ("channel", "C9")]),
            fields(&[("hour", "x")]),
            fields(&[("hour", "1970-01-01T24Z")]),
            fields(&[("hour", "1970-01-01T05Z"), ("day", "1970-01-01")]),
            fields(&[("hour", "1970-01-01T05Z")]).from(hour(6)),
            fields(&[("hour", "1970-01-01T05Z")]).to(hour(4)),
            fields(&[("hour", "1970-01-01T05Z")]).to(day()),
            everything().from(hour(6)).to(hour(5)),
            everything().from(hour(6)).to(day()),
            Selector::keys([]),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert!(serde_json::from_str::<Selector>(r#"{"keys":null}"#).is_err(), "what is there is not null");
        for nothing in ["{}", r#"{"fields":[]}"#] {
            let read: Selector = serde_json::from_str(nothing).unwrap();
            assert!(read.check().is_err() && !read.covers(&Scope::new(&[]).unwrap(), None, None), "{nothing}");
        }
        assert_eq!(serde_json::to_string(&Selector::everything()).unwrap(), r#"{"everything":true}"#);
        let both: Selector = serde_json::from_str(r#"{"everything":true,"fields":[["channel","C9"]]}"#).unwrap();
        assert!(both.check().is_err());
        let names = Selector::fields([("channel", "C9")]).from(hour(5)).to(hour(6));
        assert!(names.names().eq(["channel", "hour", "hour"]));
    }

    #[test]
    fn a_broader_rule_includes_a_narrower_one() {
        let channel = || Selector::fields([("channel", "C9")]);
        let id = |n| KeyId::from_bytes([n; 32]);
        for (broad, narrow) in [
            (Selector::everything(), channel()),
            (Selector::everything(), Selector::everything()),
            (channel(), channel().from(hour(3))),
            (Selector::everything().to(hour(9)), Selector::everything().to(hour(8))),
            (channel().from(hour(2)), channel().from(hour(3)).to(hour(4))),
            (Selector::keys([id(1), id(2)]), Selector::keys([id(2)])),
        ] {
            assert!(broad.includes(&narrow), "{broad} / {narrow}");
            assert!(broad == narrow || !narrow.includes(&broad), "{narrow} / {broad}");
        }
        let nothing = Selector::fields::<String, String>([]);
        assert!(!nothing.includes(&channel()) && !channel().includes(&Selector::fields([("channel", "C8")])));
        let day = Selector::everything().to(Period::Day.label(0).unwrap().unwrap());
        assert!(!day.includes(&Selector::everything().to(hour(0))) && !channel().includes(&Selector::keys([id(1)])));
    }

    #[test]
    fn a_selector_names_a_thousand_keys_and_says_what_it_names() {
        let ids = |n: usize| {
            (0..n)
                .map(|i| KeyId::from_bytes(std::array::from_fn(|at| if at < 2 { i.to_be_bytes()[6 + at] } else { 1 })))
        };
        for (count, fits) in [(1, true), (2, true), (MAX_SELECTED_KEYS, true), (MAX_SELECTED_KEYS + 1, false)] {
            assert_eq!(Selector::keys(ids(count)).check().is_ok(), fits, "{count}");
        }
        let two: Vec<_> = ids(2).collect();
        assert_eq!(Selector::keys(ids(2)).key_ids(), Some(&*two));
        assert_eq!(Selector::everything().key_ids(), None);
        let all = Selector { keys: Some(two), ..Selector::fields([("channel", "C9")]).from(hour(5)).to(hour(8)) };
        assert!(all.conditions().eq([("channel", "C9")]));
        assert_eq!(all.periods(), (Some(&hour(5)), Some(&hour(8))));
        let text = "channel=C9, from hour=1970-01-01T05Z, to hour=1970-01-01T08Z, 2 key(s) by id";
        assert_eq!((&*all.to_string(), &*Selector::everything().to_string()), (text, "everything"));
    }

    #[test]
    fn covers_a_record_by_its_scope_period_and_id() {
        let record = crate::key::record::tests::record();
        assert!(Selector::fields([("channel", "C9")]).covers_record(&record));
        assert!(Selector::keys([record.key_id]).covers_record(&record));
        assert!(!Selector::fields([("channel", "C8")]).covers_record(&record));
        assert!(!Selector::everything().from(hour(5)).covers_record(&record));
    }
}
