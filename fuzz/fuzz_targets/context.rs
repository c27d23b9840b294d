//! Contexts: canonical bytes are equal exactly if the sets of pairs are; what FORMAT.md allows is taken, all else refused.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use strongroom::limits::{MAX_CONTEXT, MAX_FIELDS, MAX_NAME, MAX_VALUE};
use strongroom::testing::vectors::{canonical_context, reencode_context};
use strongroom::{ErrorKind, Scope};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    first: Vec<(&'a str, &'a str)>,
    twist: Twist<'a>,
    raw: &'a [u8],
}

/// What the second list of fields is, seen from the first. Two lists drawn apart are seldom near each other.
#[derive(Arbitrary, Debug)]
enum Twist<'a> {
    Reversed,
    Rotated(u8),
    /// A pair's name and value cut at another place: what a joined string would take for the same.
    Recut(u8, u8),
    Without(u8),
    With(&'a str, &'a str),
    Other(Vec<(&'a str, &'a str)>),
}

fn twisted(fields: &[(String, String)], twist: &Twist<'_>) -> Vec<(String, String)> {
    let mut fields = fields.to_vec();
    let at = |i: u8, len: usize| usize::from(i).checked_rem(len).unwrap_or(0);
    match twist {
        Twist::Reversed => fields.reverse(),
        Twist::Rotated(by) => {
            let by = at(*by, fields.len());
            fields.rotate_left(by);
        }
        Twist::Recut(i, cut) => {
            let i = at(*i, fields.len());
            if let Some((name, value)) = fields.get_mut(i) {
                let joined: Vec<char> = name.chars().chain(value.chars()).collect();
                let (left, right) = joined.split_at(at(*cut, joined.len() + 1));
                (*name, *value) = (left.iter().collect(), right.iter().collect());
            }
        }
        Twist::Without(i) => {
            if !fields.is_empty() {
                fields.remove(at(*i, fields.len()));
            }
        }
        Twist::With(name, value) => fields.push(((*name).to_owned(), (*value).to_owned())),
        Twist::Other(other) => fields = owned(other),
    }
    fields
}

fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// FORMAT.md's limits, in plain words.
fn allowed(fields: &[(String, String)]) -> bool {
    let names: BTreeSet<_> = fields.iter().map(|(name, _)| name).collect();
    names.len() == fields.len()
        && fields.len() <= MAX_FIELDS
        && fields.iter().all(|(name, _)| (1..=usize::from(MAX_NAME)).contains(&name.len()))
        && fields.iter().all(|(_, value)| value.len() <= usize::from(MAX_VALUE))
        && fields.iter().map(|(name, value)| 3 + name.len() + value.len()).sum::<usize>() < MAX_CONTEXT // and the count
}

/// The canonical bytes, if the fields are allowed.
fn encode(fields: &[(String, String)]) -> Option<Vec<u8>> {
    let borrowed: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let bytes = match canonical_context(&borrowed) {
        Ok(bytes) => bytes,
        Err(e) => {
            assert!(matches!(e.kind(), ErrorKind::InvalidArgument | ErrorKind::Limit));
            assert!(!allowed(fields), "refused what is allowed: {e}");
            return None;
        }
    };
    assert!(allowed(fields), "took what is not allowed");
    assert_eq!(reencode_context(&bytes).ok().as_ref(), Some(&bytes));
    Some(bytes)
}

fuzz_target!(|input: Input<'_>| {
    let first = owned(&input.first);
    let second = twisted(&first, &input.twist);
    if let (Some(a), Some(b)) = (encode(&first), encode(&second)) {
        let (first, second) = (BTreeMap::from_iter(first), BTreeMap::from_iter(second));
        assert_eq!(first == second, a == b, "the canonical context is not injective");
    }
    if let Ok(again) = reencode_context(input.raw) {
        assert_eq!(again, input.raw, "parse then write is not the identity");
    }
    if let Ok(scope) = Scope::from_bytes(input.raw) {
        assert_eq!(scope.to_bytes(), input.raw);
        assert!(scope.fields().all(|(name, value)| scope.get(name) == Some(value)));
    }
});
