//! The canonical context: an injective encoding of `field=value` pairs (FORMAT.md, "Canonical context").
//!
//! `count 1 | (name length 1 | name | value length 2 | value)*`, sorted by name bytes, duplicate names refused. Every
//! length stands before its bytes, so no two different sets of pairs give the same bytes.

use arrayvec::ArrayVec;

use crate::error::{Error, Result};
use crate::format::reader::Reader;

/// Most fields of a context, scope included.
pub const MAX_FIELDS: usize = 16;
/// Most bytes of a field's name (at least 1).
pub const MAX_NAME: u8 = 64;
/// Most bytes of a field's value (may be empty).
pub const MAX_VALUE: u16 = 512;
/// Most bytes of a whole canonical context.
pub const MAX_CONTEXT: usize = 1024;

/// One `field=value` pair as callers write it.
pub type Field<'a> = (&'a str, &'a str);

/// Pairs in canonical order and encoding, without the count: a scope, encoded once, with which the fields of each message are
/// compared on the hot path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CanonicalFields {
    count: u8,
    /// Where each pair is in `bytes`, so that comparing names does not parse.
    pairs: Box<[Encoded]>,
    bytes: Box<[u8]>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Encoded {
    start: u16,
    name_end: u16,
    end: u16,
}

const TOO_MANY: &str = "a context has at most 16 fields, scope included";
const TOO_LONG: &str = "a canonical context has at most 1024 bytes";
const DUPLICATE: &str = "a context names a field twice (perhaps once in the scope)";

#[inline]
fn check_field((name, value): Field<'_>) -> Result<()> {
    match (name.len(), value.len()) {
        (0, _) => Err(Error::invalid("a context field has no name")),
        (len, _) if len > MAX_NAME.into() => Err(Error::limit("a context field's name has at most 64 bytes")),
        (_, len) if len > MAX_VALUE.into() => Err(Error::limit("a context field's value has at most 512 bytes")),
        _ => Ok(()),
    }
}

/// A canonical context on the stack, in room for the longest, of which nothing is cleared.
pub(crate) type Canonical = ArrayVec<u8, MAX_CONTEXT>;

/// # Errors
/// `Limit` if there is no room for more than any context may have.
#[inline]
fn put(out: &mut Canonical, bytes: &[u8]) -> Result<()> {
    out.try_extend_from_slice(bytes).map_err(|_| Error::limit(TOO_LONG))
}

/// Writes a field that was checked: `name length 1 | name | value length 2 | value`.
#[inline]
fn put_field(out: &mut Canonical, (name, value): Field<'_>) -> Result<()> {
    let [.., name_len] = name.len().to_be_bytes();
    let [.., high, low] = value.len().to_be_bytes();
    put(out, &[name_len])?;
    put(out, name.as_bytes())?;
    put(out, &[high, low])?;
    put(out, value.as_bytes())
}

/// Room to sort the fields of a context in, on the stack.
type Sorted<'a> = ArrayVec<Field<'a>, MAX_FIELDS>;

/// `fields` in the order of their names' bytes: as they are, or in `room`, which is empty.
///
/// # Errors
/// `InvalidArgument` for a duplicate name; `Limit` for more than 16 out of order.
#[inline]
fn sorted<'s, 'a>(fields: &'s [Field<'a>], room: &'s mut Sorted<'a>) -> Result<&'s [Field<'a>]> {
    if fields.windows(2).all(|pair| matches!(pair, [(a, _), (b, _)] if a < b)) {
        return Ok(fields);
    }
    room.try_extend_from_slice(fields).map_err(|_| Error::limit(TOO_MANY))?;
    room.sort_unstable_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    if room.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b)) {
        return Err(Error::invalid(DUPLICATE));
    }
    Ok(room)
}

impl CanonicalFields {
    /// Encodes fields, given in any order.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty or duplicate name, `Limit` beyond the limits of this module.
    pub(crate) fn new(unsorted: &[Field<'_>]) -> Result<Self> {
        let mut room = Sorted::new();
        let fields = sorted(unsorted, &mut room)?;
        if fields.len() > MAX_FIELDS {
            return Err(Error::limit(TOO_MANY));
        }
        let mut bytes = Canonical::new();
        let mut pairs = Vec::with_capacity(fields.len());
        for field in fields {
            check_field(*field)?;
            let start = bytes.len();
            put_field(&mut bytes, *field)?;
            pairs.push(Encoded::at(start, 1 + start + field.0.len(), bytes.len())?);
        }
        Ok(Self {
            count: u8::try_from(fields.len()).map_err(|_| Error::limit(TOO_MANY))?,
            pairs: pairs.into(),
            bytes: bytes.as_slice().into(),
        })
    }

    /// Reads a canonical context, as stored. Accepts exactly what [`Self::to_bytes`] gives.
    ///
    /// # Errors
    /// `Malformed` for anything else, unsorted or duplicate names included.
    pub(crate) fn parse(canonical: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(canonical);
        let count = reader.u8()?;
        let mut fields = ArrayVec::<Field<'_>, MAX_FIELDS>::new();
        for _ in 0..count {
            let len = reader.u8()?.into();
            let name = reader.str(len)?;
            let len = reader.u16()?.into();
            fields.try_push((name, reader.str(len)?)).map_err(|_| Error::malformed(TOO_MANY))?;
        }
        reader.finish()?;
        let parsed =
            Self::new(&fields).map_err(|e| Error::malformed("a canonical context is out of bounds").with_source(e))?;
        if parsed.to_bytes() != canonical {
            return Err(Error::malformed("a canonical context is not sorted"));
        }
        Ok(parsed)
    }

    /// The canonical context of these fields alone.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + self.bytes.len());
        out.push(self.count);
        out.extend_from_slice(&self.bytes);
        out
    }

    /// The pairs, in canonical order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Field<'_>> + Clone {
        self.pairs.iter().filter_map(|pair| {
            let text = |from: u16, to: u16| std::str::from_utf8(self.bytes.get(from.into()..to.into())?).ok();
            Some((text(pair.start + 1, pair.name_end)?, text(pair.name_end + 2, pair.end)?))
        })
    }

    /// The value of the field `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    fn name(&self, pair: Encoded) -> &[u8] {
        self.bytes.get(usize::from(pair.start) + 1..pair.name_end.into()).unwrap_or_default()
    }

    /// Writes the canonical context of `own` into `out`, which is empty: of the fields that an envelope has besides these, which
    /// are its scope's.
    ///
    /// # Errors
    /// As [`Self::new`], for all fields together.
    #[inline(never)] // or it keeps what mostly suffices, writing over the message before, from becoming a part of its caller
    pub(crate) fn write_own(&self, own: &[Field<'_>], out: &mut Canonical) -> Result<()> {
        let mut room = Sorted::new();
        let own = sorted(own, &mut room)?;
        if usize::from(self.count) + own.len() > MAX_FIELDS {
            return Err(Error::limit(TOO_MANY));
        }
        let [.., count] = own.len().to_be_bytes();
        put(out, &[count])?;
        for field in own {
            check_field(*field)?;
            if self.pairs.iter().any(|pair| self.name(*pair) == field.0.as_bytes()) {
                return Err(Error::invalid(DUPLICATE));
            }
            put_field(out, *field)?;
        }
        // Both have a count, which a context of them together would have once; `bytes` is without.
        if self.bytes.len() + out.len() > MAX_CONTEXT {
            return Err(Error::limit(TOO_LONG));
        }
        Ok(())
    }

    /// The canonical context of these fields, which are a scope's, and of `own` together.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn with_own(&self, own: &[Field<'_>]) -> Result<Vec<u8>> {
        let all: Vec<Field<'_>> = self.iter().chain(own.iter().copied()).collect();
        Self::new(&all).map(|all| all.to_bytes())
    }
}

impl Encoded {
    fn at(start: usize, name_end: usize, end: usize) -> Result<Self> {
        if end >= MAX_CONTEXT {
            return Err(Error::limit(TOO_LONG));
        }
        let narrow = |n: usize| u16::try_from(n).map_err(|_| Error::limit(TOO_LONG));
        Ok(Self { start: narrow(start)?, name_end: narrow(name_end)?, end: narrow(end)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn encode(fields: &[Field<'_>]) -> Vec<u8> {
        CanonicalFields::new(fields).unwrap().to_bytes()
    }

    /// The canonical context of both, and of `own` alone: they are refused alike.
    fn together(scope: &CanonicalFields, own: &[Field<'_>]) -> Result<(Vec<u8>, Canonical)> {
        let mut alone = Canonical::new();
        let written = scope.write_own(own, &mut alone).map_err(|e| e.kind());
        let both = scope.with_own(own);
        assert_eq!(written.err(), both.as_ref().err().map(Error::kind));
        both.map(|both| (both, alone))
    }

    fn kind<T>(result: Result<T>) -> ErrorKind {
        result.err().map(|e| e.kind()).expect("refused")
    }

    #[test]
    fn bytes_as_format_md_gives_them() {
        assert_eq!(encode(&[]), [0]);
        assert_eq!(
            encode(&[("workspace", "W1"), ("channel", "C9")]),
            b"\x02\x07channel\x00\x02C9\x09workspace\x00\x02W1"
        );
    }

    #[test]
    fn limits_and_duplicates_are_refused() {
        let long = "x".repeat(513);
        let name = "n".repeat(65);
        assert_eq!(kind(CanonicalFields::new(&[("a", &long)])), ErrorKind::Limit);
        assert_eq!(kind(CanonicalFields::new(&[(&name, "")])), ErrorKind::Limit);
        assert_eq!(kind(CanonicalFields::new(&[("", "v")])), ErrorKind::InvalidArgument);
        assert_eq!(kind(CanonicalFields::new(&[("a", "1"), ("a", "2")])), ErrorKind::InvalidArgument);
        let most = [(&name[..64], &long[..512])];
        assert_eq!(encode(&most).len(), 1 + 3 + 64 + 512);
        let many: Vec<String> = (0..17).map(|i| i.to_string()).collect();
        let many: Vec<Field<'_>> = many.iter().map(|n| (n.as_str(), "")).collect();
        assert_eq!(kind(CanonicalFields::new(&many)), ErrorKind::Limit);
        let scope = CanonicalFields::new(&many[..10]).unwrap();
        assert_eq!(kind(together(&scope, &many[10..])), ErrorKind::Limit);
        let (both, alone) = together(&scope, &many[10..16]).unwrap();
        assert_eq!((both[0], alone[0]), (16, 6));
        assert_eq!(kind(together(&scope, &many[9..10])), ErrorKind::InvalidArgument);
        let half = "y".repeat(512);
        let scope = CanonicalFields::new(&[("a", &half)]).unwrap();
        assert_eq!(kind(together(&scope, &[("b", &half)])), ErrorKind::Limit);
        // Exactly 1024 bytes: 1 + (3 + 1 + 512) + (3 + 1 + 503).
        let (both, alone) = together(&scope, &[("b", &half[..503])]).unwrap();
        assert_eq!((both.len(), alone.len()), (MAX_CONTEXT, 1 + 3 + 1 + 503));
        assert_eq!(kind(together(&scope, &[("b", &half[..504])])), ErrorKind::Limit);
    }

    #[test]
    fn own_fields_are_written_alone_and_bear_no_name_of_the_scopes() {
        let scope = CanonicalFields::new(&[("workspace", "W1"), ("channel", "C9")]).unwrap();
        let own = |own: &[Field<'_>]| together(&scope, own).map(|(_, alone)| alone.to_vec());
        assert_eq!(own(&[]).unwrap(), [0]);
        assert_eq!(own(&[("message", "M77")]).unwrap(), b"\x01\x07message\x00\x03M77");
        assert_eq!(own(&[("z", "1"), ("a", "")]).unwrap(), b"\x02\x01a\x00\x00\x01z\x00\x011");
        for duplicate in [
            &[("channel", "C9")][..],
            &[("workspace", "")],
            &[("a", "1"), ("channel", "x"), ("z", "2")],
            &[("z", "2"), ("channel", "x")],
            &[("a", "1"), ("a", "1")],
            &[("a", "1"), ("b", "1"), ("a", "2")],
        ] {
            assert_eq!(kind(own(duplicate)), ErrorKind::InvalidArgument, "{duplicate:?}");
        }
        for near in ["channe", "channel ", "hannel", "Channel", "channel\0"] {
            assert_eq!(own(&[(near, "C9")]).unwrap(), encode(&[(near, "C9")]), "{near:?}");
        }
    }

    #[test]
    fn only_canonical_bytes_parse() {
        for bad in [
            &b""[..],
            b"\x01",
            b"\x00\x00",
            b"\x01\x00\x00\x00",
            b"\x02\x01b\x00\x00\x01a\x00\x00",
            b"\x02\x01a\x00\x00\x01a\x00\x00",
            b"\x01\x01\xff\x00\x00",
            b"\x01\x01a\xff\xff",
        ] {
            assert_eq!(kind(CanonicalFields::parse(bad)), ErrorKind::Malformed, "{bad:?}");
        }
    }

    /// Two random sets are hardly ever alike, and so hardly ever tell: these are all there are of few symbols, the bytes of lengths
    /// and counts among them.
    #[test]
    fn no_two_of_all_small_sets_have_the_same_bytes() {
        let words = |longest: usize| {
            let mut words = vec![String::new()];
            for at in 0..longest {
                let longer: Vec<String> = words.iter().filter(|word| word.len() == at).cloned().collect();
                words.extend(
                    longer.iter().flat_map(|word| ["\0", "\x01", "\x02", "a"].map(|symbol| word.clone() + symbol)),
                );
            }
            words
        };
        let (names, values) = (words(2).split_off(1), words(2));
        let fields: Vec<Field<'_>> =
            names.iter().flat_map(|name| values.iter().map(move |value| (name.as_str(), value.as_str()))).collect();
        let pairs = fields.iter().flat_map(|a| fields.iter().filter(move |b| a.0 < b.0).map(move |b| vec![*a, *b]));
        let sets = [Vec::new()].into_iter().chain(fields.iter().map(|field| vec![*field])).chain(pairs);
        let (mut seen, mut count) = (std::collections::HashSet::new(), 0);
        for set in sets {
            assert!(seen.insert(encode(&set)), "{set:?} has the bytes of another set");
            count += 1;
        }
        assert_eq!(count, 1 + 420 + 190 * 441);
    }

    /// Names and values that joined strings would confuse: empty, NUL, separators, lengths, non-ASCII.
    fn tricky() -> impl Strategy<Value = BTreeMap<String, String>> {
        let name = prop_oneof![Just("a".to_owned()), "[a=&/\\x00\\x01é🦀]{1,4}"];
        let value = prop_oneof![Just(String::new()), "[a=&/\\x00\\x01é🦀]{0,4}", ".{0,20}"];
        proptest::collection::btree_map(name, value, 0..5)
    }

    fn as_fields(map: &BTreeMap<String, String>) -> Vec<Field<'_>> {
        map.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn injective(a in tricky(), b in tricky()) {
            prop_assert_eq!(a == b, encode(&as_fields(&a)) == encode(&as_fields(&b)));
        }

        #[test]
        fn parse_then_write_is_the_identity(map in tricky()) {
            let fields = CanonicalFields::new(&as_fields(&map)).unwrap();
            let parsed = CanonicalFields::parse(&fields.to_bytes()).unwrap();
            prop_assert!(parsed == fields);
            let back: BTreeMap<_, _> = parsed.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            prop_assert_eq!(back, map);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_reencode(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(fields) = CanonicalFields::parse(&bytes) {
                prop_assert_eq!(fields.to_bytes(), bytes);
            }
        }

        #[test]
        fn own_fields_and_scope_are_encoded_apart_and_together(map in tricky(), mask in any::<u8>()) {
            let all = as_fields(&map);
            let (scope, own): (Vec<_>, Vec<_>) =
                all.iter().enumerate().partition(|(i, _)| mask & (1 << i) != 0);
            let fields = |part: Vec<(usize, &Field<'_>)>| part.into_iter().map(|(_, f)| (f.0.to_owned(), f.1.to_owned())).collect::<BTreeMap<_, _>>();
            let (scope, own) = (fields(scope), fields(own));
            let mut reversed = as_fields(&own);
            reversed.reverse();
            let scope = CanonicalFields::new(&as_fields(&scope)).unwrap();
            let (both, alone) = together(&scope, &reversed).unwrap();
            prop_assert_eq!(&both, &encode(&all));
            prop_assert_eq!(alone.as_slice(), encode(&as_fields(&own)));
            prop_assert_eq!(both.len() + 1, scope.to_bytes().len() + alone.len());
        }
    }
}
