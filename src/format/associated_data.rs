//! The associated data of messages: the canonical context of their own fields alone. All else that a message is bound to is
//! bound by its key (`format/binding.rs`).

use crate::error::Result;
use crate::format::context::{Canonical, CanonicalFields, Field};

/// The associated data of the message before, of the same scope. The next message mostly has the same fields in the same order,
/// with values as long; then only the values are written, and nothing is checked again that was checked before.
#[derive(Default)]
pub(crate) struct Previous(Vec<u8>);

/// The associated data of a message with these `own` fields in `scope`. `previous`, if there is one, has served no other scope;
/// without one it stands on `stack`, which is empty.
///
/// `check` says whether `own` will do, going by the names of its fields and the lengths of their values. Where these are those of
/// `previous` it has said so, and is not asked again.
///
/// # Errors
/// What `check` says; as [`CanonicalFields::write_own`]'s.
#[inline]
pub(crate) fn of<'d>(
    scope: &CanonicalFields,
    own: &[Field<'_>],
    previous: Option<&'d mut Previous>,
    stack: &'d mut Canonical,
    check: impl FnOnce() -> Result<()>,
) -> Result<&'d [u8]> {
    let Some(previous) = previous else {
        check()?;
        scope.write_own(own, stack)?;
        return Ok(stack);
    };
    if !write_again(&mut previous.0, own) {
        check()?;
        write_anew(scope, own, &mut previous.0)?;
    }
    Ok(&previous.0)
}

/// If refused, nothing is left in `into`.
#[cold]
fn write_anew(scope: &CanonicalFields, own: &[Field<'_>], into: &mut Vec<u8>) -> Result<()> {
    into.clear();
    let mut written = Canonical::new();
    scope.write_own(own, &mut written)?;
    into.extend_from_slice(&written);
    Ok(())
}

/// Writes the values of `own` over those of the canonical context `written`, if that is of the same names in this order and of
/// values as long. If not, says so, and what was written is of no use any more.
#[inline]
fn write_again(written: &mut [u8], own: &[Field<'_>]) -> bool {
    let Some((count, mut rest)) = written.split_first_mut() else {
        return false;
    };
    if usize::from(*count) != own.len() {
        return false;
    }
    for (name, value) in own {
        let Some(behind) = put_again(rest, name.as_bytes(), value.as_bytes()) else {
            return false;
        };
        rest = behind;
    }
    rest.is_empty()
}

/// Writes a value over that of the first field `written`, and gives what is behind it. `None` if it is another field.
#[inline]
fn put_again<'w>(written: &'w mut [u8], name: &[u8], value: &[u8]) -> Option<&'w mut [u8]> {
    let (name_len, rest) = written.split_first_mut()?;
    if usize::from(*name_len) != name.len() {
        return None;
    }
    let (written_name, rest) = rest.split_at_mut_checked(name.len())?;
    let (value_len, rest) = rest.split_first_chunk_mut()?;
    if usize::from(u16::from_be_bytes(*value_len)) != value.len() || written_name != name {
        return None;
    }
    let (place, rest) = rest.split_at_mut_checked(value.len())?;
    place.copy_from_slice(value);
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    fn channel() -> CanonicalFields {
        CanonicalFields::new(&[("channel", "C9"), ("workspace", "W1")]).unwrap()
    }

    fn written_after(previous: Option<&mut Previous>, own: &[Field<'_>]) -> Result<Vec<u8>, ErrorKind> {
        of(&channel(), own, previous, &mut Canonical::new(), || Ok(())).map(<[u8]>::to_vec).map_err(|e| e.kind())
    }

    /// The same after any other message, be it sealed or refused: with fields of the same names and lengths, in part, in
    /// another order, with names and values whose lengths are swapped, beyond the limits.
    #[test]
    fn what_came_before_changes_nothing() {
        let (long, most) = ("v".repeat(513), "v".repeat(512));
        let contexts: [&[Field<'_>]; 26] = [
            &[],
            &[("message", "M77")],
            &[("message", "M78")],
            &[("massage", "M78")],
            &[("message", "M7")],
            &[("message", "")],
            &[("messag", "eM78")],
            &[("messageM", "78")],
            // Names that end in a length and another name, and in another name's field.
            &[("\x01b", "M77")],
            &[("b", "M77")],
            &[("\x01a\x00\x01b", "M77")],
            &[("a\x00\x01b", "M77")],
            &[("a", "1"), ("message", "M77")],
            &[("a", "2"), ("message", "M78")],
            &[("a", "2"), ("message", "M7")],
            &[("message", "M77"), ("a", "1")],
            &[("a", "2"), ("b", "M78")],
            &[("a", "2"), ("b", "M78"), ("z", "26")],
            &[("z", "26")],
            &[("channel", "C9")],
            &[("a", "1"), ("a", "1")],
            &[("", "nameless")],
            &[("message", &long)],
            &[("message", &most)],
            // Each field within its limits, and all together beyond theirs.
            &[("a", &most), ("b", &most)],
            &[("a", &most), ("b", &most[1..])],
        ];
        for before in contexts {
            for after in contexts {
                let mut previous = Previous::default();
                let _ = written_after(Some(&mut previous), before);
                for _ in 0..2 {
                    assert_eq!(
                        written_after(Some(&mut previous), after),
                        written_after(None, after),
                        "{after:?} after {before:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_context_is_checked_unless_it_has_the_names_and_lengths_of_one_that_passed() {
        let mut previous = Previous::default();
        let mut is_checked = |own: &[Field<'_>], passes: bool| {
            let mut checked = false;
            let check = || {
                checked = true;
                if passes { Ok(()) } else { Err(Error::invalid("refused")) }
            };
            let written = of(&channel(), own, Some(&mut previous), &mut Canonical::new(), check).is_ok();
            assert_eq!(written, passes || !checked);
            checked
        };
        assert!(is_checked(&[], false) && is_checked(&[], true) && !is_checked(&[], false));
        assert!(is_checked(&[("message", "M77")], false) && is_checked(&[("message", "M77")], true));
        assert!(!is_checked(&[("message", "M78")], false));
        assert!(is_checked(&[("message", "")], false) && is_checked(&[("massage", "M78")], false));
        assert!(is_checked(&[], false) && !is_checked(&[("message", "M79")], false));
        let refuse = || Err(Error::invalid("refused"));
        assert!(of(&channel(), &[("a", "1")], None, &mut Canonical::new(), refuse).is_err());
    }

    #[test]
    fn of_fields_named_before_only_the_values_are_written() {
        let mut previous = Previous::default();
        let mut write = |own: &[Field<'_>]| {
            let anew = !write_again(&mut previous.0, own);
            written_after(Some(&mut previous), own).unwrap();
            anew
        };
        assert!(write(&[("message", "M77")]));
        assert!(!write(&[("message", "M78")]));
        assert!(write(&[("message", "M790")]));
        assert!(write(&[("z", "1"), ("message", "M790")]), "out of order");
        assert!(write(&[("z", "1"), ("message", "M790")]), "out of order, again");
        assert!(!write(&[("message", "M791"), ("z", "2")]), "in the order it was written in");
        assert!(write(&[("a", "1"), ("message", "M790")]));
        assert!(!write(&[("a", "2"), ("message", "M791")]));
        assert!(write(&[("b", "2"), ("message", "M791")]));
        assert!(write(&[]));
        assert!(!write(&[]));
    }
}
