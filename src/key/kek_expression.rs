//! KEK expressions: which KEKs, and how many of them, it takes to unwrap a data key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::key::kek::KekUri;

/// Most KEKs in one expression.
pub const MAX_KEKS: usize = 8;
/// How many members of each `any_of` a policy can have a new data key need.
pub(crate) const NEW_KEY_MEMBERS: std::ops::RangeInclusive<u8> = 1..=8;
/// Most levels of nesting: `any_of(a, all_of(b, c))` has two.
pub const MAX_NESTING: usize = 3;

/// Which KEKs unwrap a data key: one, `any_of` several (a replica region, an escrow), or `all_of` several (dual control:
/// the tenant and a second holder must both agree); nested up to three levels, at most 8 KEKs.
///
/// ```
/// use strongroom::KekExpression;
/// let keks: KekExpression = "any_of(local:acme, all_of(local:escrow-a, local:escrow-b))".parse()?;
/// assert_eq!(keks.keks().count(), 3);
/// assert_eq!(keks.to_string(), "any_of(local:acme, all_of(local:escrow-a, local:escrow-b))");
/// assert!("all_of(local:acme)".parse::<KekExpression>().is_err()); // alone it needs no `all_of`
/// # Ok::<(), strongroom::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KekExpression {
    /// This KEK.
    One(KekUri),
    /// Any one of these.
    AnyOf(Vec<KekExpression>),
    /// All of these together.
    AllOf(Vec<KekExpression>),
}

impl KekExpression {
    /// Any one of these.
    pub fn any_of(of: impl IntoIterator<Item = impl Into<Self>>) -> Self {
        Self::AnyOf(of.into_iter().map(Into::into).collect())
    }

    /// All of these together: dual control.
    pub fn all_of(of: impl IntoIterator<Item = impl Into<Self>>) -> Self {
        Self::AllOf(of.into_iter().map(Into::into).collect())
    }

    /// The KEKs in it, from left to right.
    pub fn keks(&self) -> Box<dyn Iterator<Item = &KekUri> + Send + '_> {
        match self {
            Self::One(kek) => Box::new(std::iter::once(kek)),
            Self::AnyOf(of) | Self::AllOf(of) => Box::new(of.iter().flat_map(Self::keks)),
        }
    }

    /// Whether a data key wrapped like this can still be unwrapped when the KEKs that `denied` names are gone.
    pub(crate) fn stands_without(&self, denied: &dyn Fn(&KekUri) -> bool) -> bool {
        match self {
            Self::One(kek) => !denied(kek),
            Self::AnyOf(of) => of.iter().any(|e| e.stands_without(denied)),
            Self::AllOf(of) => of.iter().all(|e| e.stands_without(denied)),
        }
    }

    /// Whether new data keys are generated under `kek`. Under all others, what was made elsewhere is wrapped.
    pub(crate) fn generates_under(&self, kek: &KekUri) -> bool {
        match self {
            Self::One(one) => one == kek,
            Self::AnyOf(of) => matches!(of.first(), Some(Self::One(first)) if first == kek),
            Self::AllOf(_) => false,
        }
    }

    /// Whether a data key that is wrapped like this was wrapped for `whole` with members of its `any_of` left out that did not
    /// answer, at least `members` of each group staying (FORMAT.md, "What a reader checks"): a group of which one is left is that
    /// member. Without a number nothing may be left out.
    pub(crate) fn is_part_of(&self, whole: &Self, members: Option<u8>) -> bool {
        let Some(members) = members else { return self == whole };
        let least = |of: &[Self]| Self::least_of(of, Some(members));
        match (self, whole) {
            (Self::One(kek), Self::One(of)) => kek == of,
            (Self::AllOf(parts), Self::AllOf(of)) => {
                parts.len() == of.len() && parts.iter().zip(of).all(|(part, of)| part.is_part_of(of, Some(members)))
            }
            (part, Self::AnyOf(of)) => {
                let is_one_of_them = || least(of) <= 1 && of.iter().any(|of| part.is_part_of(of, Some(members)));
                let are_some_of_them = |parts: &[Self]| {
                    let mut of = of.iter();
                    let in_order = parts.iter().all(|part| of.any(|of| part.is_part_of(of, Some(members))));
                    in_order && parts.len() >= 2
                };
                matches!(part, Self::AnyOf(parts) if parts.len() >= least(of) && are_some_of_them(parts))
                    || is_one_of_them()
            }
            _ => false,
        }
    }

    /// How many members of a group a new data key needs, if a policy says `members` of each; `None` stands for all.
    pub(crate) fn least_of(group: &[Self], members: Option<u8>) -> usize {
        members.map_or(group.len(), |members| group.len().min(members.into()))
    }

    /// How many KMS calls it takes to wrap a key for it, or to prove each of its wrappings: one for each KEK.
    pub(crate) fn calls_to_wrap(&self) -> u32 {
        u32::try_from(self.keks().count()).unwrap_or(u32::MAX)
    }

    /// How many KMS calls it takes to unwrap a key: where each first member of `any_of` answers, and `all_of` asks all.
    pub(crate) fn calls_to_unwrap(&self) -> u32 {
        match self {
            Self::One(_) => 1,
            Self::AnyOf(of) => of.first().map_or(0, Self::calls_to_unwrap),
            Self::AllOf(of) => of.iter().map(Self::calls_to_unwrap).sum(),
        }
    }

    fn nesting(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::AnyOf(of) | Self::AllOf(of) => 1 + of.iter().map(Self::nesting).max().unwrap_or(0),
        }
    }

    fn groups_have_members(&self) -> bool {
        match self {
            Self::One(_) => true,
            Self::AnyOf(of) | Self::AllOf(of) => of.len() >= 2 && of.iter().all(Self::groups_have_members),
        }
    }

    /// # Errors
    /// `InvalidArgument` saying which limit is broken.
    pub(crate) fn check(&self) -> Result<()> {
        let keks: Vec<_> = self.keks().collect();
        let problem = if keks.len() > MAX_KEKS {
            "a KEK expression has at most 8 KEKs"
        } else if self.nesting() > MAX_NESTING {
            "a KEK expression nests at most 3 levels"
        } else if !self.groups_have_members() {
            "any_of and all_of take at least two members"
        } else if keks.iter().enumerate().any(|(i, kek)| keks.iter().skip(i + 1).any(|other| other == kek)) {
            "a KEK expression names a KEK twice"
        } else {
            return Ok(());
        };
        Err(Error::invalid(problem))
    }
}

impl From<KekUri> for KekExpression {
    fn from(kek: KekUri) -> Self {
        Self::One(kek)
    }
}

impl From<&KekUri> for KekExpression {
    fn from(kek: &KekUri) -> Self {
        Self::One(kek.clone())
    }
}

impl From<KekExpression> for String {
    fn from(expression: KekExpression) -> Self {
        expression.to_string()
    }
}

impl TryFrom<String> for KekExpression {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl fmt::Display for KekExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, of) = match self {
            Self::One(kek) => return fmt::Display::fmt(kek, f),
            Self::AnyOf(of) => ("any_of", of),
            Self::AllOf(of) => ("all_of", of),
        };
        write!(f, "{name}(")?;
        for (i, member) in of.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            fmt::Display::fmt(member, f)?;
        }
        f.write_str(")")
    }
}

impl FromStr for KekExpression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (expression, rest) = parse(text, 0)?;
        if !rest.is_empty() {
            return Err(syntax());
        }
        expression.check()?;
        Ok(expression)
    }
}

fn syntax() -> Error {
    Error::invalid("a KEK expression is a KEK URI, any_of(…, …) or all_of(…, …)")
}

/// Reads one expression and returns what follows it. KEK URIs have no parentheses, commas or blanks, so they end there.
fn parse(text: &str, depth: usize) -> Result<(KekExpression, &str)> {
    if depth > MAX_NESTING {
        return Err(Error::invalid("a KEK expression nests at most 3 levels"));
    }
    let text = text.trim_start();
    let group = |name: &str| text.strip_prefix(name).and_then(|rest| rest.trim_start().strip_prefix('('));
    if let Some(rest) = group("any_of") {
        let (of, rest) = members(rest, depth)?;
        return Ok((KekExpression::AnyOf(of), rest));
    }
    if let Some(rest) = group("all_of") {
        let (of, rest) = members(rest, depth)?;
        return Ok((KekExpression::AllOf(of), rest));
    }
    let end = text.find([',', '(', ')', ' ']).unwrap_or(text.len());
    let (uri, rest) = text.split_at_checked(end).ok_or_else(syntax)?;
    Ok((KekExpression::One(KekUri::new(uri)?), rest.trim_start()))
}

fn members(mut text: &str, depth: usize) -> Result<(Vec<KekExpression>, &str)> {
    let mut of = Vec::new();
    loop {
        let (member, rest) = parse(text, depth + 1)?;
        of.push(member);
        if of.len() > MAX_KEKS {
            return Err(Error::invalid("a KEK expression has at most 8 KEKs"));
        }
        let rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix(')') {
            return Ok((of, rest.trim_start()));
        }
        text = rest.strip_prefix(',').ok_or_else(syntax)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_expression_is_refused() {
        for bad in [
            "",
            "local",
            "any_of()",
            "any_of(local:a)",
            "any_of(local:a,)",
            "any_of(local:a,local:b",
            "any_of(local:a,local:b))",
            "any_of(local:a local:b)",
            "none_of(local:a,local:b)",
            "any_of(local:a,local:a)",
            "any_of(local:a,all_of(local:b,local:a))",
            "any_of(local:1,any_of(local:2,any_of(local:3,any_of(local:4,local:5))))",
            "any_of(local:1,local:2,local:3,local:4,local:5,local:6,local:7,local:8,local:9)",
        ] {
            assert!(bad.parse::<KekExpression>().is_err(), "{bad}");
        }
    }

    /// Nor does it end a process whose stack it would fill.
    #[test]
    fn what_nests_without_end_is_refused_where_it_goes_too_deep() {
        let deep = "any_of(".repeat(100_000).parse::<KekExpression>();
        assert!(deep.unwrap_err().to_string().contains("3 levels"));
    }

    #[test]
    fn who_can_be_missed() {
        let e: KekExpression = "any_of(local:a, all_of(local:b, local:c))".parse().unwrap();
        let stands = |gone: &[&str]| e.stands_without(&|kek: &KekUri| gone.contains(&kek.name()));
        assert!(stands(&[]) && stands(&["a"]) && stands(&["b"]) && stands(&["b", "c"]));
        assert!(!stands(&["a", "b"]) && !stands(&["a", "c"]));
    }

    #[test]
    fn what_is_left_of_an_expression_when_members_do_not_answer() {
        let is_part = |part: &str, whole: &str, members| {
            let parsed = |text: &str| text.parse::<KekExpression>().unwrap();
            parsed(part).is_part_of(&parsed(whole), members)
        };
        let (two, three) = ("any_of(local:a, local:b)", "any_of(local:a, local:b, local:c)");
        for (part, whole, members, expected) in [
            (two, two, None, true),
            ("local:a", two, None, false),
            ("local:a", two, Some(1), true),
            ("local:b", two, Some(1), true),
            ("local:c", two, Some(1), false),
            ("local:a", two, Some(2), false),
            (two, two, Some(2), true),
            (two, two, Some(8), true),
            ("any_of(local:b, local:a)", two, Some(1), false),
            (two, three, Some(2), true),
            (two, three, Some(3), false),
            ("any_of(local:a, local:c)", three, Some(2), true),
            ("any_of(local:c, local:a)", three, Some(2), false),
            ("local:b", three, Some(2), false),
            ("all_of(local:a, local:b)", "all_of(local:a, local:b, local:c)", Some(1), false),
            ("local:a", "all_of(local:a, local:b)", Some(1), false),
            ("all_of(local:a, local:c)", "all_of(any_of(local:a, local:b), local:c)", Some(1), true),
            ("all_of(local:a, local:c)", "all_of(any_of(local:a, local:b), local:c)", Some(2), false),
            ("local:c", "all_of(any_of(local:a, local:b), local:c)", Some(1), false),
            ("any_of(local:b, local:c)", "any_of(local:a, any_of(local:b, local:c))", Some(1), true),
            ("any_of(local:b, local:c)", "any_of(local:a, any_of(local:b, local:c))", Some(2), false),
            ("any_of(local:a, local:c)", "any_of(local:a, any_of(local:b, local:c))", Some(1), true),
            ("any_of(local:a, local:x)", three, Some(1), false),
            (three, two, Some(1), false),
        ] {
            assert_eq!(is_part(part, whole, members), expected, "{part} of {whole} by {members:?}");
        }
    }

    fn expression() -> impl Strategy<Value = String> {
        "(any_of|all_of|[(), ]|local:[a-c]|[a-z(),: ]){0,12}"
    }

    proptest! {
        #[test]
        fn whatever_parses_is_printed_and_parsed_again(text in expression()) {
            if let Ok(parsed) = text.parse::<KekExpression>() {
                prop_assert_eq!(parsed.to_string().parse::<KekExpression>().unwrap(), parsed);
            }
        }
    }

    #[test]
    fn as_many_keks_and_levels_as_are_allowed() {
        let keks = |n: usize| (0..n).map(|i| format!("local:{i}")).collect::<Vec<_>>().join(",");
        let three = "any_of(local:1,all_of(local:2,any_of(local:3,local:4)))";
        for good in [three.to_owned(), format!("any_of({})", keks(MAX_KEKS))] {
            let parsed = good.parse::<KekExpression>().unwrap();
            assert!(parsed.check().is_ok());
            assert_eq!(parsed.to_string().replace(' ', ""), good);
            assert_eq!(parsed.to_string().parse::<KekExpression>().unwrap(), parsed);
        }
        assert!(format!("any_of({})", keks(MAX_KEKS + 1)).parse::<KekExpression>().is_err());
        // What code puts together has the same limits as text.
        let one = |name: &str| KekExpression::One(KekUri::new(name).unwrap());
        let deeper = KekExpression::AnyOf(vec![three.parse().unwrap(), one("local:5")]);
        let more = KekExpression::AnyOf((0..=MAX_KEKS).map(|i| one(&format!("local:{i}"))).collect());
        for bad in [deeper, more, KekExpression::AllOf(vec![one("local:1")])] {
            assert!(bad.check().is_err(), "{bad}");
        }
        let groups = |n: usize| {
            let groups: Vec<_> = (0..n).map(|i| format!("all_of(local:{i},local:{i}x)")).collect();
            format!("any_of({})", groups.join(",")).parse::<KekExpression>()
        };
        assert!(groups(4).is_ok(), "eight KEKs in four groups");
        assert!(groups(5).is_err());
    }

    #[test]
    fn new_keys_are_generated_under_a_kek_that_stands_first_and_alone() {
        let generates = |expression: &str, kek: &str| {
            expression.parse::<KekExpression>().unwrap().generates_under(&KekUri::new(kek).unwrap())
        };
        assert!(generates("local:a", "local:a") && !generates("local:a", "local:b"));
        let any = "any_of(local:a,local:b)";
        assert!(generates(any, "local:a") && !generates(any, "local:b"));
        assert!(!generates("all_of(local:a,local:b)", "local:a"));
        let grouped = "any_of(all_of(local:a,local:b),local:c)";
        assert!(!generates(grouped, "local:a") && !generates(grouped, "local:c"));
    }
}
