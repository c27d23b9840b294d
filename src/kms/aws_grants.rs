//! What a key policy of AWS KMS grants, read from its text: who may do harm to the KEK.
//!
//! It reads, it does not decide: conditions, boundaries and the policies of other accounts are not weighed. So a grant with
//! conditions is named as such, and a grant to a whole account as what it is: a matter of that account's IAM policies.
//! Pure text, as `aws_policy`.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::key::finding::{Expected, Finding, Outcome};

/// What a backend never needs, and what it could do with it.
const HARMFUL: [(&str, &str); 7] = [
    ("kms:ScheduleKeyDeletion", "delete the KEK"),
    ("kms:DisableKey", "disable the KEK"),
    ("kms:PutKeyPolicy", "change who may use it"),
    ("kms:CreateGrant", "let others use it"),
    ("kms:DeleteImportedKeyMaterial", "delete imported material"),
    ("kms:UpdatePrimaryRegion", "move a multi-region key"),
    ("kms:ReplicateKey", "copy it to other regions"),
];

const NAME: &str = "key policy";

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "Statement")]
    statements: OneOrMany<Statement>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn each(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    effect: String,
    principal: Option<Principal>,
    action: Option<OneOrMany<String>>,
    not_action: Option<OneOrMany<String>>,
    condition: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Principal {
    Everybody(String),
    Named {
        #[serde(rename = "AWS")]
        aws: Option<OneOrMany<String>>,
    },
}

impl Statement {
    fn principals(&self) -> Vec<&str> {
        match &self.principal {
            Some(Principal::Everybody(who)) => vec![who],
            Some(Principal::Named { aws: Some(aws) }) => aws.each().iter().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }

    fn grants(&self, action: &str) -> bool {
        let named = |patterns: &OneOrMany<String>| patterns.each().iter().any(|pattern| matches(pattern, action));
        self.effect == "Allow"
            && (self.action.as_ref().is_some_and(named)
                || self.not_action.as_ref().is_some_and(|patterns| !named(patterns)))
    }
}

/// Actions are compared without regard to case; `*` and `?` stand for anything. A tenant wrote the pattern: neither its length
/// nor its stars cost more than their product with the action's length.
fn matches(pattern: &str, action: &str) -> bool {
    let (mut pattern, mut text) = (pattern.as_bytes(), action.as_bytes());
    // What stood behind the last star, and the text from which on it has not been tried.
    let mut again: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => return true,
            (Some((b'*', behind)), _) => {
                again = Some((behind, text));
                pattern = behind;
            }
            (Some((p, behind)), Some((t, rest))) if *p == b'?' || p.eq_ignore_ascii_case(t) => {
                (pattern, text) = (behind, rest);
            }
            _ => {
                // The star takes one more character. The last star alone: what an earlier one could take, it can too.
                let Some((behind, from)) = again else { return false };
                let Some((_, rest)) = from.split_first() else { return false };
                again = Some((behind, rest));
                (pattern, text) = (behind, rest);
            }
        }
    }
}

/// What the key policy `text` lets others than administrators do, as far as it can be told. `account` is the KEK's.
pub(crate) fn findings(text: &str, account: &str, expected: &Expected) -> Vec<Finding> {
    let Ok(policy) = serde_json::from_str::<Document>(text) else {
        return vec![Finding::new(NAME, Outcome::Unknown, "it cannot be read as a policy")];
    };
    let mut found = Vec::new();
    let mut administrators = BTreeSet::new();
    let mut delegated = BTreeSet::new();
    for statement in policy.statements.each() {
        let harms: Vec<_> = HARMFUL.into_iter().filter(|(action, _)| statement.grants(action)).collect();
        let Some((worst, could)) = harms.first() else { continue };
        let conditions = if statement.condition.is_some() { ", under conditions" } else { "" };
        for who in statement.principals() {
            let what = format!("{who} may {could} ({worst} and {} more){conditions}", harms.len() - 1);
            if who == "*" || expected.principals().any(|ours| ours == who) {
                found.push(too_wide(statement.condition.is_some(), what));
            } else if who == account || who.ends_with(":root") {
                delegated.insert(who.to_owned());
            } else {
                administrators.insert(who.to_owned());
            }
        }
    }
    if found.is_empty() {
        let who: Vec<&str> = administrators.iter().map(String::as_str).collect();
        let who = if who.is_empty() { "nobody by name".to_owned() } else { who.join(", ") };
        found.push(Finding::new(NAME, Outcome::Pass, format!("may delete it, disable it or change its policy: {who}")));
    }
    if expected.principals().next().is_none() {
        let detail = "which of these principals is this backend is not known here";
        found.push(
            Finding::new("least privilege", Outcome::Unknown, detail)
                .advise("say it: Expected::principal, and probe again"),
        );
    }
    for who in delegated {
        let detail = format!("{who} administers it: what that account's IAM policies grant cannot be told from here");
        found.push(Finding::new("administration by IAM", Outcome::Unknown, detail).advise(
            "check there that no policy lets this backend's principal delete or disable the KEK or change its policy (IAM \
             policy simulator: kms:ScheduleKeyDeletion, kms:DisableKey, kms:PutKeyPolicy, kms:CreateGrant)",
        ));
    }
    found
}

fn too_wide(conditional: bool, what: String) -> Finding {
    let outcome = if conditional { Outcome::Warn } else { Outcome::Fail };
    Finding::new(NAME, outcome, what).advise("grant this backend only what AwsKeyPolicy writes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "111122223333";
    const CHAT: &str = "arn:aws:iam::999988887777:role/chat";

    fn outcomes(policy: &str) -> Vec<(String, Outcome)> {
        let expected = Expected::default().principal(CHAT);
        findings(policy, ACCOUNT, &expected).into_iter().map(|f| (f.name, f.outcome)).collect()
    }

    fn statement(principal: &str, action: &str, more: &str) -> String {
        format!(
            r#"{{"Statement": {{"Effect": "Allow", "Principal": {principal}, "Action": {action}, "Resource": "*"{more}}}}}"#
        )
    }

    #[test]
    fn a_backend_that_could_do_harm_is_found() {
        let ours = format!(r#"{{"AWS": ["arn:aws:iam::111122223333:root", "{CHAT}"]}}"#);
        for action in [r#""kms:*""#, r#"["kms:Decrypt", "KMS:schedulekey*"]"#, r#""*""#, r#""kms:PutKeyPolic?""#] {
            let found = outcomes(&statement(&ours, action, ""));
            assert_eq!(found[0], (NAME.to_owned(), Outcome::Fail), "{action}");
            assert_eq!(found[1], ("administration by IAM".to_owned(), Outcome::Unknown));
        }
        assert_eq!(outcomes(&statement(r#""*""#, r#""kms:DisableKey""#, ""))[0].1, Outcome::Fail);
        let conditional = r#", "Condition": {"Bool": {"aws:MultiFactorAuthPresent": "true"}}"#;
        assert_eq!(outcomes(&statement(r#""*""#, r#""kms:*""#, conditional))[0].1, Outcome::Warn);
        let all_but = r#"{"Statement": [{"Effect": "Allow", "Principal": "*", "NotAction": "kms:Decrypt"}]}"#;
        assert_eq!(outcomes(all_but)[0].1, Outcome::Fail);
    }

    #[test]
    fn patterns_as_the_iam_guide_has_them_and_quick_whatever_they_are() {
        let action = "kms:DisableKey";
        for pattern in ["*", "kms:*", "KMS:disable?ey", "k*:*Key", "kms:DisableKey*", "**", "*y"] {
            assert!(matches(pattern, action), "{pattern}");
        }
        for pattern in ["", "?", "kms:", "kms:Disable", "*x", "kms:*?Keys", "kms:DisableKey?", "*z*"] {
            assert!(!matches(pattern, action), "{pattern}");
        }
        // Trying every way would take longer than anybody waits, or more stack than there is.
        assert!(!matches(&format!("{}x", "*e".repeat(16_000)), action));
        assert!(matches(&"*".repeat(1 << 20), action));
        assert!(!matches(&format!("{}x", "*?".repeat(7)), action));
    }

    #[test]
    fn what_a_backend_needs_is_no_finding() {
        let ours = format!(r#"{{"AWS": "{CHAT}"}}"#);
        let needed = r#"["kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey", "kms:ReEncrypt*"]"#;
        assert_eq!(outcomes(&statement(&ours, needed, "")), [(NAME.to_owned(), Outcome::Pass)]);
        assert_eq!(outcomes("no policy")[0].1, Outcome::Unknown);
        let theirs = r#"{"AWS": "arn:aws:iam::111122223333:role/keys"}"#;
        let found = findings(&statement(theirs, r#""kms:*""#, ""), ACCOUNT, &Expected::default());
        assert!(found[0].outcome == Outcome::Pass && found[0].detail.contains("role/keys"), "{found:?}");
        assert_eq!(found[1].outcome, Outcome::Unknown);
    }
}
