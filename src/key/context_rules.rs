//! Context rules: what the context of a message or a file must carry, so that no call site can leave it out.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::format::context::{Field, MAX_NAME};
use crate::key::json::objects;

/// Most fields that a policy binds messages, or files, to.
pub const MAX_BOUND_FIELDS: usize = 8;

objects! {
    /// What the contexts of messages and files must carry. A tenant's policy states it; a data key keeps, for all that is sealed
    /// under it, what the policy stated when it was made.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct ContextRules {
        /// Of messages.
        pub messages: RequiredFields,
        /// Of files. Nothing is taken over from messages.
        pub files: RequiredFields,
    }
}

/// Which fields a context must have besides the scope's. A field whose value is empty does not count.
///
/// In JSON: `"at_least_one"`, `"unbound"`, or the list of names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
#[non_exhaustive]
pub enum RequiredFields {
    /// Any one at least.
    #[default]
    AtLeastOne,
    /// These, in the order of their names; others may stand beside them.
    Named(Vec<String>),
    /// None.
    Unbound,
}

impl ContextRules {
    /// # Errors
    /// `InvalidArgument` saying what is wrong with them for keys whose scopes have the fields `scope`.
    pub(crate) fn check<'a>(&self, scope: &(impl Iterator<Item = &'a str> + Clone)) -> Result<()> {
        self.messages.check(scope)?;
        self.files.check(scope)
    }
}

impl RequiredFields {
    pub(crate) fn named<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        let mut names: Vec<String> = names.into_iter().map(Into::into).collect();
        names.sort_unstable();
        Self::Named(names)
    }

    fn check<'a>(&self, scope: &(impl Iterator<Item = &'a str> + Clone)) -> Result<()> {
        let Self::Named(names) = self else { return Ok(()) };
        // No name at all would require nothing, and that is asked for in other words.
        if names.is_empty() || names.len() > MAX_BOUND_FIELDS {
            return Err(Error::invalid("a policy binds to 1 to 8 fields; what allows none is `allow_unbound_…`"));
        }
        if names.iter().any(|name| !(1..=usize::from(MAX_NAME)).contains(&name.len())) {
            return Err(Error::invalid("a context field's name has 1 to 64 bytes"));
        }
        if names.windows(2).any(|pair| matches!(pair, [a, b] if a >= b)) {
            return Err(Error::invalid("a policy binds to a field twice, or stored names are out of order"));
        }
        match names.iter().find(|name| scope.clone().any(|field| field == **name)) {
            Some(name) => Err(Error::invalid(format!("{name:?} is a field of the scope; all is bound to that anyway"))),
            None => Ok(()),
        }
    }

    /// Whether the context of a `sealed` (a `message`, a `file`) has them, each with a value.
    ///
    /// # Errors
    /// `InvalidArgument` naming the fields that are wanted, and those that are missing.
    pub(crate) fn check_context(&self, sealed: &str, context: &[Field<'_>]) -> Result<()> {
        if self.are_in(context) { Ok(()) } else { Err(self.refusal(sealed, context)) }
    }

    fn are_in(&self, context: &[Field<'_>]) -> bool {
        match self {
            Self::Named(names) => names.iter().all(|name| has(context, name)),
            Self::AtLeastOne => context.iter().any(|(_, value)| !value.is_empty()),
            Self::Unbound => true,
        }
    }

    #[cold]
    fn refusal(&self, sealed: &str, context: &[Field<'_>]) -> Error {
        match self {
            Self::Named(names) => {
                let missing: Vec<&String> = names.iter().filter(|name| !has(context, name)).collect();
                Error::invalid(format!(
                    "the context of a {sealed} has a value for each of the fields {names:?} under this data key; \
                     {missing:?} is missing or empty"
                ))
            }
            _ => Error::invalid(format!(
                "the context of a {sealed} has at least one field with a value under this data key; give what tells it from \
                 other {sealed}s of the scope, such as its id"
            )),
        }
    }
}

#[inline]
fn has(context: &[Field<'_>], name: &str) -> bool {
    context.iter().any(|(given, value)| *given == name && !value.is_empty())
}

/// How JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Stored {
    Word(String),
    Names(Vec<String>),
}

const AT_LEAST_ONE: &str = "at_least_one";
const UNBOUND: &str = "unbound";

impl From<RequiredFields> for Stored {
    fn from(fields: RequiredFields) -> Self {
        match fields {
            RequiredFields::AtLeastOne => Self::Word(AT_LEAST_ONE.into()),
            RequiredFields::Unbound => Self::Word(UNBOUND.into()),
            RequiredFields::Named(names) => Self::Names(names),
        }
    }
}

impl TryFrom<Stored> for RequiredFields {
    type Error = Error;

    fn try_from(stored: Stored) -> Result<Self> {
        match stored {
            Stored::Word(word) if word == AT_LEAST_ONE => Ok(Self::AtLeastOne),
            Stored::Word(word) if word == UNBOUND => Ok(Self::Unbound),
            Stored::Word(_) => {
                Err(Error::malformed("a context rule is a list of names, \"at_least_one\" or \"unbound\""))
            }
            Stored::Names(names) => Ok(Self::Named(names)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn named(names: &[&str]) -> RequiredFields {
        RequiredFields::named(names.iter().copied())
    }

    #[test]
    fn a_context_has_what_is_required_and_may_have_more() {
        let (message, both) = (named(&["message"]), named(&["thread", "message"]));
        for (context, at_least_one, one, two) in [
            (&[][..], false, false, false),
            (&[("message", "")], false, false, false),
            (&[("massage", "M1")], true, false, false),
            (&[("message", "M1")], true, true, false),
            (&[("a", ""), ("message", "M1")], true, true, false),
            (&[("a", "1"), ("message", "")], true, false, false),
            (&[("thread", "T1"), ("message", "M1")], true, true, true),
            (&[("thread", ""), ("message", "M1")], true, true, false),
            // Which of two is meant cannot be said: the canonical context refuses them.
            (&[("message", ""), ("message", "M1")], true, true, false),
            (&[("message ", "M1"), ("essage", "M1"), ("message\0", "M1")], true, false, false),
        ] {
            assert!(RequiredFields::Unbound.are_in(context));
            let are_in = [&RequiredFields::AtLeastOne, &message, &both].map(|fields| fields.are_in(context));
            assert_eq!(are_in, [at_least_one, one, two], "{context:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_fields_that_are_wanted_and_that_are_missing() {
        let e = named(&["thread", "message"]).refusal("message", &[("message", "M1"), ("thraed", "T1")]);
        assert_eq!(e.kind(), ErrorKind::InvalidArgument);
        let told = e.to_string();
        assert!(
            told.contains(r#"the fields ["message", "thread"]"#) && told.contains(r#"["thread"] is missing"#),
            "{told}"
        );
        assert!(!told.contains("M1") && !told.contains("T1"), "{told}");
        let told = RequiredFields::AtLeastOne.refusal("file", &[]).to_string();
        assert!(told.contains("the context of a file has at least one field"), "{told}");
    }

    #[test]
    fn names_are_within_the_limits_of_contexts_each_once_and_none_a_scopes() {
        let (longest, eight) = ("n".repeat(64), ["a", "b", "c", "d", "e", "f", "g", "h"]);
        let scope = ["channel", "workspace"];
        let check = |rules: &ContextRules| rules.check(&scope.into_iter()).map_err(|e| e.kind());
        let good =
            [named(&["message"]), named(&[&longest]), named(&eight), named(&["é", "Message 🦀"]), named(&["tenant"])];
        let bad = [
            named(&[]),
            named(&[""]),
            named(&["message", "channel"]),
            named(&["message", "message"]),
            named(&[&(longest.clone() + "n")]),
            named(&[&eight[..], &["i"]].concat()),
            RequiredFields::Named(vec!["b".into(), "a".into()]),
        ];
        assert_eq!(check(&ContextRules::default()), Ok(()));
        for (fields, checked) in
            good.map(|f| (f, Ok(()))).into_iter().chain(bad.map(|f| (f, Err(ErrorKind::InvalidArgument))))
        {
            let messages = ContextRules { messages: fields.clone(), files: RequiredFields::Unbound };
            let files = ContextRules { messages: RequiredFields::Unbound, files: fields };
            assert_eq!([check(&messages), check(&files)], [checked; 2], "{files:?}");
        }
    }

    #[test]
    fn json_has_one_spelling_and_nothing_that_is_missing_loosens() {
        for (rules, stored) in [
            (ContextRules::default(), r#"{"messages":"at_least_one","files":"at_least_one"}"#),
            (
                ContextRules { messages: named(&["thread", "message"]), files: RequiredFields::Unbound },
                r#"{"messages":["message","thread"],"files":"unbound"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&rules).unwrap(), stored);
            assert_eq!(serde_json::from_str::<ContextRules>(stored).unwrap(), rules);
        }
        for bad in [
            "{}",
            r#"{"messages":"unbound"}"#,
            r#"{"messages":"unbound","files":null}"#,
            r#"{"messages":"unbound","files":"Unbound"}"#,
            r#"{"messages":"unbound","files":""}"#,
            r#"{"messages":"unbound","files":{"unbound":null}}"#,
            r#"{"messages":"unbound","files":[1]}"#,
            r#"{"messages":"unbound","files":"unbound","pages":"unbound"}"#,
            r#"{"messages":"unbound","files":"unbound","files":"unbound"}"#,
        ] {
            assert!(serde_json::from_str::<ContextRules>(bad).is_err(), "{bad}");
        }
    }
}
