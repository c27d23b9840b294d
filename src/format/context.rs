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

/// Pairs in canonical order and encoding, without the count: a scope, encoded once and merged with the fields of each
/// message on the hot path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CanonicalFields {
    count: u8,
    /// Each pair's end in `bytes`, so that merging does not parse.
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

/// Where a canonical context is written.
pub(crate) trait Sink: AsRef<[u8]> + AsMut<[u8]> {
    /// # Errors
    /// `Limit` if there is no room for more than any context may have.
    fn put(&mut self, bytes: &[u8]) -> Result<()>;
}

impl<const N: usize> Sink for ArrayVec<u8, N> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.try_extend_from_slice(bytes).map_err(|_| Error::limit(TOO_LONG))
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Bytes of a field's two lengths.
const LENGTHS: usize = 3;

/// Where a field was written, and where its value begins.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    field: u16,
    value: u16,
}

/// Where the fields of a context were written, in the order in which they were given.
pub(crate) type Places = ArrayVec<Place, MAX_FIELDS>;

/// Writes a field that was checked: `name length 1 | name | value length 2 | value`.
#[inline]
fn put_field(out: &mut impl Sink, (name, value): Field<'_>) -> Result<Place> {
    let at = out.as_ref().len();
    let [.., name_len] = name.len().to_be_bytes();
    let [.., high, low] = value.len().to_be_bytes();
    out.put(&[name_len])?;
    out.put(name.as_bytes())?;
    out.put(&[high, low])?;
    out.put(value.as_bytes())?;
    let narrow = |n: usize| u16::try_from(n).map_err(|_| Error::limit(TOO_LONG));
    Ok(Place { field: narrow(at)?, value: narrow(at + LENGTHS + name.len())? })
}

/// Writes the value of a field over the one at `place`, if that is of a field with this name and as long. Says whether it did.
#[inline]
fn put_again(written: &mut [u8], place: Place, (name, value): Field<'_>) -> bool {
    let [.., high, low] = value.len().to_be_bytes();
    let (field, at) = (usize::from(place.field), usize::from(place.value));
    // The name's length is compared as the room that it was given: names may contain any bytes, also such as look like lengths.
    if at != field + LENGTHS + name.len() {
        return false;
    }
    let Some(([_, written_name @ .., written_high, written_low], rest)) =
        written.get_mut(field..).and_then(|field| field.split_at_mut_checked(LENGTHS + name.len()))
    else {
        return false;
    };
    let Some(place) = rest.get_mut(..value.len()) else {
        return false;
    };
    if (*written_high, *written_low) != (high, low) || *written_name != *name.as_bytes() {
        return false;
    }
    place.copy_from_slice(value.as_bytes());
    true
}

/// Writes the values of `context` over those of the context `written` before at `places`, if that named the same fields and its
/// values were as long. If not, says so, and what was written is of no use any more.
#[inline]
pub(crate) fn write_again(written: &mut [u8], places: &[Place], context: &[Field<'_>]) -> bool {
    places.len() == context.len() && places.iter().zip(context).all(|(place, field)| put_again(written, *place, *field))
}

/// Room to sort the fields of a context in, on the stack.
pub(crate) type Sorted<'a> = ArrayVec<Field<'a>, MAX_FIELDS>;

/// `fields` in the order of their names' bytes: as they are, or in `room`, which is empty.
///
/// # Errors
/// `InvalidArgument` for a duplicate name; `Limit` for more than 16 out of order.
#[inline]
pub(crate) fn sorted<'s, 'a>(fields: &'s [Field<'a>], room: &'s mut Sorted<'a>) -> Result<&'s [Field<'a>]> {
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
        let mut bytes = ArrayVec::<u8, MAX_CONTEXT>::new();
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

    /// Writes something and the canonical context of these fields and of `extra`, which is sorted, into `out`, which is
    /// empty, and where those of `extra` stand into `places`. `alone` is the same something and the canonical context of these
    /// fields alone: what stands in one piece there is copied in one piece.
    ///
    /// # Errors
    /// As [`Self::new`], for all fields together.
    #[inline]
    pub(crate) fn write_with(
        &self,
        extra: &[Field<'_>],
        alone: &[u8],
        out: &mut impl Sink,
        places: &mut Places,
    ) -> Result<()> {
        let count = usize::from(self.count) + extra.len();
        if count > MAX_FIELDS {
            return Err(Error::limit(TOO_MANY));
        }
        let start = alone.len().saturating_sub(self.bytes.len());
        let (mut behind, mut copied) = (&*self.pairs, 0);
        for field in extra {
            check_field(*field)?;
            let added = field.0.as_bytes();
            while let [pair, rest @ ..] = behind
                && precedes(self.name(*pair), added)
            {
                behind = rest;
            }
            let upto = match behind {
                [pair, ..] if precedes(added, self.name(*pair)) => start + usize::from(pair.start),
                [] => alone.len(),
                _ => return Err(Error::invalid(DUPLICATE)),
            };
            out.put(alone.get(copied..upto).unwrap_or_default())?;
            copied = upto;
            places.try_push(put_field(out, *field)?).map_err(|_| Error::limit(TOO_MANY))?;
        }
        out.put(alone.get(copied..).unwrap_or_default())?;
        let Some(at) = start.checked_sub(1).filter(|at| out.as_ref().len() <= at + MAX_CONTEXT) else {
            return Err(Error::limit(TOO_LONG));
        };
        if let ([.., count], Some(place)) = (count.to_be_bytes(), out.as_mut().get_mut(at)) {
            *place = count;
        }
        Ok(())
    }
}

/// `a < b`, of names that mostly differ in their first byte.
#[inline]
fn precedes(a: &[u8], b: &[u8]) -> bool {
    match (a.first(), b.first()) {
        (Some(one), Some(other)) if one != other => one < other,
        _ => a < b,
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

    fn merge(scope: &CanonicalFields, extra: &[Field<'_>]) -> Result<Vec<u8>> {
        let mut room = Sorted::new();
        let extra = sorted(extra, &mut room)?;
        let (mut out, mut places) = (Vec::new(), Places::new());
        scope.write_with(extra, &[b"before", &scope.to_bytes()[..]].concat(), &mut out, &mut places)?;
        let written = out.clone();
        assert!(write_again(&mut out, &places, extra) && out == written);
        Ok(out.strip_prefix(b"before").unwrap().to_vec())
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
        assert_eq!(kind(merge(&scope, &many[10..])), ErrorKind::Limit);
        assert_eq!(merge(&scope, &many[10..16]).unwrap()[0], 16);
        assert_eq!(kind(merge(&scope, &many[9..10])), ErrorKind::InvalidArgument);
        let half = "y".repeat(512);
        let scope = CanonicalFields::new(&[("a", &half)]).unwrap();
        assert_eq!(kind(merge(&scope, &[("b", &half)])), ErrorKind::Limit);
        // Exactly 1024 bytes: 1 + (3 + 1 + 512) + (3 + 1 + 503).
        assert_eq!(merge(&scope, &[("b", &half[..503])]).unwrap().len(), MAX_CONTEXT);
        assert_eq!(kind(merge(&scope, &[("b", &half[..504])])), ErrorKind::Limit);
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
        fn merging_equals_encoding_at_once(map in tricky(), mask in any::<u8>()) {
            let all = as_fields(&map);
            let (scope, extra): (Vec<_>, Vec<_>) =
                all.iter().enumerate().partition(|(i, _)| mask & (1 << i) != 0);
            let strip = |part: Vec<(usize, &Field<'_>)>| part.into_iter().map(|(_, f)| (f.0.to_owned(), f.1.to_owned())).collect::<BTreeMap<_, _>>();
            let (scope, extra) = (strip(scope), strip(extra));
            let mut reversed = as_fields(&extra);
            reversed.reverse();
            let scope = CanonicalFields::new(&as_fields(&scope)).unwrap();
            prop_assert_eq!(merge(&scope, &reversed).unwrap(), encode(&all));
        }
    }
}
