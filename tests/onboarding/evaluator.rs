//! Decides about a request by a key policy, as the IAM User Guide says ("Policy evaluation logic", "Condition operators",
//! "Variables and tags"), for what our policies use; anything else is a panic. What AWS itself decides no server here shows.

use std::collections::BTreeMap;

use serde_json::Value;

/// A request to AWS KMS. `DescribeKey` has no context.
pub(crate) struct Request<'a> {
    pub(crate) principal: &'a str,
    pub(crate) action: &'a str,
    pub(crate) context: &'a BTreeMap<String, String>,
}

pub(crate) fn allows(policy: &str, request: &Request<'_>) -> bool {
    let policy: Value = serde_json::from_str(policy).unwrap();
    assert_eq!(policy["Version"], "2012-10-17", "only that version knows variables");
    let applying = policy["Statement"].as_array().unwrap().iter().filter(|s| applies(s, request));
    let effects: Vec<&str> = applying.map(|s| s["Effect"].as_str().unwrap()).collect();
    effects.contains(&"Allow") && !effects.contains(&"Deny")
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(texts) => texts.iter().map(|text| text.as_str().unwrap()).collect(),
        other => panic!("neither a string nor a list of strings: {other}"),
    }
}

fn applies(statement: &Value, request: &Request<'_>) -> bool {
    assert_eq!(statement["Resource"], "*", "in a key policy the resource is this key");
    let who = texts(&statement["Principal"]["AWS"]);
    let is_action = |pattern: &&str| like(&literal_pattern(pattern), request.action);
    who.iter().any(|who| *who == "*" || *who == request.principal)
        && texts(&statement["Action"]).iter().any(is_action)
        && statement.get("Condition").is_none_or(|condition| holds(condition, request.context))
}

fn holds(condition: &Value, context: &BTreeMap<String, String>) -> bool {
    condition.as_object().unwrap().iter().all(|(operator, keys)| {
        keys.as_object().unwrap().iter().all(|(key, values)| {
            // A variable that has no value makes the statement void.
            let Some(values) = texts(values).into_iter().map(expand).collect::<Option<Vec<_>>>() else { return false };
            match operator.as_str() {
                "ForAllValues:StringEquals" => {
                    assert_eq!(key, "kms:EncryptionContextKeys");
                    context.keys().all(|name| values.iter().any(|value| plain(value) == *name))
                }
                "StringEquals" => value_of(key, context).is_some_and(|has| values.iter().any(|v| plain(v) == *has)),
                "StringLike" => value_of(key, context).is_some_and(|has| values.iter().any(|v| like(v, has))),
                other => panic!("operator {other}"),
            }
        })
    })
}

fn value_of<'a>(key: &str, context: &'a BTreeMap<String, String>) -> Option<&'a String> {
    context.get(key.strip_prefix("kms:EncryptionContext:").expect("a condition on something else"))
}

/// A character, or a wildcard as the policy wrote it.
#[derive(Clone, Copy, PartialEq)]
enum Piece {
    Char(char),
    Any,
    One,
}

fn literal_pattern(pattern: &str) -> Vec<Piece> {
    let piece = |c| match c {
        '*' => Piece::Any,
        '?' => Piece::One,
        c => Piece::Char(c),
    };
    pattern.chars().map(piece).collect()
}

/// Puts in variables: of the three fixed ones, characters that are nothing but themselves. No other has a value here.
fn expand(value: &str) -> Option<Vec<Piece>> {
    let mut out = Vec::new();
    let mut rest = value;
    while let Some(at) = rest.find("${") {
        out.extend(literal_pattern(&rest[..at]));
        let (name, after) = rest[at + 2..].split_once('}')?;
        match name {
            "$" | "*" | "?" => out.push(Piece::Char(name.chars().next().unwrap())),
            _ => return None,
        }
        rest = after;
    }
    out.extend(literal_pattern(rest));
    Some(out)
}

/// As `StringEquals` reads it: wildcards are characters.
fn plain(value: &[Piece]) -> String {
    let char = |piece: &Piece| match piece {
        Piece::Char(c) => *c,
        Piece::Any => '*',
        Piece::One => '?',
    };
    value.iter().map(char).collect()
}

fn like(pattern: &[Piece], text: &str) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return text.is_empty() };
    let after = |text: &str| text.chars().next().map(|c| (c, text[c.len_utf8()..].to_owned()));
    match first {
        Piece::Any => like(rest, text) || after(text).is_some_and(|(_, tail)| like(pattern, &tail)),
        Piece::One => after(text).is_some_and(|(_, tail)| like(rest, &tail)),
        Piece::Char(c) => after(text).is_some_and(|(has, tail)| has == *c && like(rest, &tail)),
    }
}

#[test]
fn the_evaluator_reads_as_the_guide_says() {
    let matches = |pattern: &str, text: &str| like(&expand(pattern).unwrap(), text);
    assert!(matches("a*c?", "abbcd") && matches("a${*}${?}", "a*?") && matches("${$}{x}", "${x}"));
    assert!(!matches("a${*}", "ab") && !matches("a?", "a") && expand("${aws:username}").is_none());
    assert_eq!(plain(&expand("a*${$}{b}").unwrap()), "a*${b}");
}
