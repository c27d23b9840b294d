//! Findings: what a probe of a KEK found, for the tenant's administrator to act on.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::key::region::Region;

/// How one check of a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Pass,
    /// It works, but somebody should look.
    Warn,
    /// It does not work, or is not safe.
    Fail,
    /// It could not be told.
    Unknown,
}

impl Outcome {
    /// The outcome in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a check found. Never holds key bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Which check, in a few words.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What was seen.
    pub detail: String,
    /// What the administrator can do about it; empty if nothing is to be done.
    pub what_to_do: String,
}

impl Finding {
    /// A finding with nothing to do.
    pub fn new(name: impl Into<String>, outcome: Outcome, detail: impl Into<String>) -> Self {
        Self { name: name.into(), outcome, detail: detail.into(), what_to_do: String::new() }
    }

    /// Says what to do.
    #[must_use]
    pub fn advise(mut self, what_to_do: impl Into<String>) -> Self {
        self.what_to_do = what_to_do.into();
        self
    }
}

/// What the embedder knows of a tenant's KEKs before it probes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Expected {
    account: Option<String>,
    principals: BTreeSet<String>,
    regions: BTreeSet<Region>,
}

impl Expected {
    /// The account, project or subscription that the KEKs should be in, as the KMS names it (`111122223333`).
    pub fn account(mut self, account: impl Into<String>) -> Self {
        self.account = Some(account.into());
        self
    }

    /// A principal of this backend, as the KMS names it (`arn:aws:iam::999988887777:role/chat`): what is granted to it
    /// beyond need is reported.
    pub fn principal(mut self, principal: impl Into<String>) -> Self {
        self.principals.insert(principal.into());
        self
    }

    /// A region that the tenant allows; `Admin::probe` adds those of the policy.
    pub fn region(mut self, region: Region) -> Self {
        self.regions.insert(region);
        self
    }

    /// The account expected, if any is.
    pub fn expected_account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// The backend's principals.
    pub fn principals(&self) -> impl Iterator<Item = &str> {
        self.principals.iter().map(String::as_str)
    }

    /// The regions that the tenant allows.
    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.regions.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_one_word_and_can_be_padded() {
        let outcomes = [Outcome::Pass, Outcome::Warn, Outcome::Fail, Outcome::Unknown];
        let texts = outcomes.map(|outcome| format!("{outcome:8}|{}", outcome.as_str()));
        assert_eq!(texts, ["pass    |pass", "warn    |warn", "fail    |fail", "unknown |unknown"]);
    }

    #[test]
    fn what_is_expected_is_what_was_said() {
        let eu: Region = "eu".parse().unwrap();
        let expected = Expected::default().account("111122223333").principal("b").principal("a").region(eu.clone());
        assert_eq!(expected.expected_account(), Some("111122223333"));
        assert!(expected.principals().eq(["a", "b"]) && expected.regions().eq([&eu]));
        assert_eq!(Expected::default().expected_account(), None);
    }
}
