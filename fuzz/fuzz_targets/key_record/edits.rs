//! How inputs of `key_record` alter rows.

use arbitrary::Arbitrary;
use strongroom::testing::{KeyRow, TenantRow};
use strongroom::{Period, Scope, Selector};

use crate::few::Few;
use crate::{CHANNELS, NOW, WORLD};

#[derive(Arbitrary, Debug)]
pub(crate) enum KeyEdit<'a> {
    /// These columns (a bit each) as another row has them.
    Of(u8, u16),
    Tenant(Text<'a>),
    KeyId(Bytes<'a>),
    Suite(Number),
    Scope(Bytes<'a>),
    Fields(Vec<(&'a str, &'a str)>),
    Period(Text<'a>),
    Region(Text<'a>),
    State(u8),
    StateText(Text<'a>),
    StateSince(Number),
    Wrapped(Option<Tree<'a>>),
    WrappedText(Text<'a>),
    Pending(Option<(Number, Tree<'a>)>),
    PendingText(Text<'a>),
    WrappedEpoch(Number),
    CreatedAt(Number),
    Revision(Number),
}

#[derive(Arbitrary, Debug)]
pub(crate) enum TenantEdit<'a> {
    Of(u8, u8),
    Tenant(Text<'a>),
    Policy(Text<'a>),
    Revocations(Text<'a>),
    Revoke(Few<Selected<'a>, 3>),
    Erasures(Text<'a>),
    Erase(Few<Selected<'a>, 3>),
    Rewrap(Option<Text<'a>>),
    Epoch(Number),
}

#[derive(Arbitrary, Debug)]
pub(crate) enum Number {
    Small(i8),
    Any(i64),
    Least,
    Most,
}

impl Number {
    fn get(&self) -> i64 {
        match self {
            Self::Small(n) => (*n).into(),
            Self::Any(n) => *n,
            Self::Least => i64::MIN,
            Self::Most => i64::MAX,
        }
    }
}

/// An edit of a text, JSON mostly.
#[derive(Arbitrary, Debug)]
pub(crate) enum Text<'a> {
    Is(&'a str),
    Insert(u16, &'a str),
    Token(u16, u8),
    Remove(u16, u8),
    Repeat(u16, u8),
    /// The n-th run of digits.
    Digits(u8, Number),
    /// The n-th word between quotes.
    Word(u8, &'a str),
}

const TOKENS: [&str; 12] =
    ["{", "}", "[", "]", ",", "\"", "null", "{\"any_of\":[", "{\"all_of\":[", "\"x\":1,", "local:acme", "  "];

#[derive(Arbitrary, Debug)]
pub(crate) enum Bytes<'a> {
    Is(&'a [u8]),
    Xor(u8, u8),
    Cut(u8),
    Append(&'a [u8]),
}

/// A wrapped key, in any shape.
#[derive(Arbitrary, Debug)]
pub(crate) enum Tree<'a> {
    /// That of a genuine row.
    Of(u8),
    /// The n-th wrapping of all there are.
    Leaf(u8),
    One(u8, &'a [u8]),
    AnyOf(Few<Tree<'a>, 4>),
    AllOf(Few<Tree<'a>, 4>),
}

#[derive(Arbitrary, Debug)]
pub(crate) struct Selected<'a> {
    fields: Few<(&'a str, &'a str), 2>,
    channel: Option<u8>,
    hours: Option<(u8, u8)>,
    /// In this order, which need not be theirs.
    keys: Option<Few<u8, 4>>,
}

pub(crate) fn one(kek: &str, wrapped: &[u8]) -> String {
    format!(r#"{{"kek":"{kek}","wrapped":"{}"}}"#, base16ct::lower::encode_string(wrapped))
}

pub(crate) fn pick<T>(from: &[T], n: u8) -> &T {
    &from[usize::from(n) % from.len()]
}

impl Tree<'_> {
    pub(crate) fn json(&self) -> String {
        let world = &*WORLD;
        let group = |name: &str, of: &[Self]| {
            let of: Vec<_> = of.iter().map(Self::json).collect();
            format!(r#"{{"{name}":[{}]}}"#, of.join(","))
        };
        match self {
            Self::Of(n) => pick(&world.rows, *n).wrapped.clone().unwrap(),
            Self::Leaf(n) => pick(&world.leaves, *n).clone(),
            Self::One(kek, wrapped) => one(pick::<&str>(&["local:acme", "local:nobody", "x:y"], *kek), wrapped),
            Self::AnyOf(of) => group("any_of", of),
            Self::AllOf(of) => group("all_of", of),
        }
    }
}

impl Bytes<'_> {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Is(bytes) => *to = bytes.to_vec(),
            Self::Xor(at, bits) => {
                let at = usize::from(*at).checked_rem(to.len()).unwrap_or(0);
                to.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= bits);
            }
            Self::Cut(at) => to.truncate((*at).into()),
            Self::Append(bytes) => to.extend_from_slice(bytes),
        }
    }
}

/// Where the n-th run of bytes that are `of` one kind is.
pub(crate) fn run(text: &str, n: u8, of: impl Fn(char) -> bool) -> std::ops::Range<usize> {
    let runs: Vec<_> = text.split(|c| !of(c)).filter(|run| !run.is_empty()).collect();
    let Some(run) = runs.get(usize::from(n).checked_rem(runs.len()).unwrap_or(0)) else { return 0..0 };
    let start = run.as_ptr().addr() - text.as_ptr().addr();
    start..start + run.len()
}

impl Text<'_> {
    fn apply(&self, to: &mut String) {
        let place = |at: u16| to.floor_char_boundary(usize::from(at).checked_rem(to.len() + 1).unwrap_or(0));
        let part = |at: u16, len: u8| place(at)..to.floor_char_boundary((place(at) + usize::from(len)).min(to.len()));
        match self {
            Self::Is(text) => (*text).clone_into(to),
            Self::Insert(at, text) => to.insert_str(place(*at), text),
            Self::Token(at, token) => to.insert_str(place(*at), pick::<&str>(&TOKENS, *token)),
            Self::Remove(at, len) => to.replace_range(part(*at, *len), ""),
            Self::Repeat(at, len) => {
                let part = part(*at, *len);
                let (end, copy) = (part.end, to[part].to_owned());
                to.insert_str(end, &copy);
            }
            Self::Digits(n, number) => {
                to.replace_range(run(to, *n, |c| c.is_ascii_digit()), &number.get().to_string());
            }
            Self::Word(n, word) => to.replace_range(run(to, *n, |c| c.is_alphanumeric() || ":_-".contains(c)), word),
        }
    }
}

impl Selected<'_> {
    pub(crate) fn selector(&self) -> Selector {
        let channel = self.channel.map(|n| ("channel", *pick(&CHANNELS, n)));
        let mut selector = Selector::fields(self.fields.iter().copied().chain(channel));
        if let Some((from, to)) = self.hours {
            let hour = |n: u8| Period::Hour.label(NOW + (i64::from(n) - 128) * 3_600_000).unwrap().unwrap();
            selector = selector.from(hour(from)).to(hour(to));
        }
        selector
    }

    /// As a row has it: the selector's own form, and the ids in any order.
    pub(crate) fn json(&self) -> String {
        let mut json = serde_json::to_value(self.selector()).unwrap();
        if let Some(keys) = &self.keys {
            let id = |n: &u8| WORLD.keys[usize::from(*n) % WORLD.keys.len()].record.key_id.to_string();
            json["keys"] = keys.iter().map(id).collect();
        }
        json.to_string()
    }
}

pub(crate) fn edit_key(row: &mut KeyRow, edit: &KeyEdit<'_>) {
    match edit {
        KeyEdit::Of(n, columns) => take_columns(row, pick(&WORLD.rows, *n), *columns),
        KeyEdit::Tenant(text) => text.apply(&mut row.tenant),
        KeyEdit::KeyId(bytes) => bytes.apply(&mut row.key_id),
        KeyEdit::Suite(number) => row.suite = number.get(),
        KeyEdit::Scope(bytes) => bytes.apply(&mut row.scope),
        KeyEdit::Fields(fields) => {
            if let Ok(scope) = Scope::new(fields) {
                row.scope = scope.to_bytes();
            }
        }
        KeyEdit::Period(text) => text.apply(&mut row.period),
        KeyEdit::Region(text) => text.apply(&mut row.region),
        KeyEdit::State(n) => {
            (*pick(&["active", "deactivated", "suspended", "destroyed"], *n)).clone_into(&mut row.state);
        }
        KeyEdit::StateText(text) => text.apply(&mut row.state),
        KeyEdit::StateSince(number) => row.state_since = number.get(),
        KeyEdit::Wrapped(tree) => row.wrapped = tree.as_ref().map(Tree::json),
        KeyEdit::WrappedText(text) => row.wrapped.iter_mut().for_each(|wrapped| text.apply(wrapped)),
        KeyEdit::Pending(pending) => {
            let json =
                |(epoch, tree): &(Number, Tree<'_>)| format!(r#"{{"epoch":{},"key":{}}}"#, epoch.get(), tree.json());
            row.pending = pending.as_ref().map(json);
        }
        KeyEdit::PendingText(text) => row.pending.iter_mut().for_each(|pending| text.apply(pending)),
        KeyEdit::WrappedEpoch(number) => row.wrapped_epoch = number.get(),
        KeyEdit::CreatedAt(number) => row.created_at = number.get(),
        KeyEdit::Revision(number) => row.revision = number.get(),
    }
}

pub(crate) fn take_columns(row: &mut KeyRow, other: &KeyRow, columns: u16) {
    let has = |bit: u32| columns >> bit & 1 == 1;
    let old = std::mem::replace(row, other.clone());
    let KeyRow { tenant, key_id, suite, scope, period, region, state, wrapped, pending, created_at, .. } = old;
    if !has(0) {
        row.tenant = tenant;
    }
    if !has(1) {
        row.key_id = key_id;
    }
    if !has(2) {
        row.suite = suite;
    }
    if !has(3) {
        row.scope = scope;
    }
    if !has(4) {
        row.period = period;
    }
    if !has(5) {
        row.region = region;
    }
    if !has(6) {
        row.state = state;
    }
    if !has(7) {
        row.wrapped = wrapped;
    }
    if !has(8) {
        row.pending = pending;
    }
    if !has(9) {
        row.created_at = created_at;
    }
}

pub(crate) fn edit_tenant(row: &mut TenantRow, edit: &TenantEdit<'_>) {
    let list = |of: &[Selected<'_>], rest: &str| {
        let of: Vec<_> = of.iter().map(|s| format!(r#"{{"selector":{},{rest}}}"#, s.json())).collect();
        format!("[{}]", of.join(","))
    };
    match edit {
        TenantEdit::Of(n, columns) => {
            let other = pick(&WORLD.tenants, *n);
            if columns & 1 == 1 {
                row.tenant.clone_from(&other.tenant);
            }
            if columns & 2 == 2 {
                row.policy.clone_from(&other.policy);
            }
        }
        TenantEdit::Tenant(text) => text.apply(&mut row.tenant),
        TenantEdit::Policy(text) => text.apply(&mut row.policy),
        TenantEdit::Revocations(text) => text.apply(&mut row.revocations),
        TenantEdit::Revoke(of) => row.revocations = list(of, r#""since":7"#),
        TenantEdit::Erasures(text) => text.apply(&mut row.erasures),
        TenantEdit::Erase(of) => row.erasures = list(of, r#""id":"0123456789abcdef","requested_at":7,"due_at":8"#),
        TenantEdit::Rewrap(text) => {
            row.rewrap = text.as_ref().map(|text| {
                let mut order = r#"{"to":"local:acme","epoch":1,"since":7}"#.to_owned();
                text.apply(&mut order);
                order
            });
        }
        TenantEdit::Epoch(number) => row.epoch = number.get(),
    }
}
