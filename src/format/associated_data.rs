//! What an envelope is bound to besides its key: a label, its header, the tenant and the canonical context. Messages use
//! it as the AEAD's associated data, files as the context of chunked encryption; the label tells them apart.

use arrayvec::ArrayVec;

use crate::error::{Error, Result};
use crate::format::context::{CanonicalFields, Field, MAX_CONTEXT, Places, Sorted, sorted, write_again};
use crate::format::header::{KEY_ID_LEN, MAX_REGION};
use crate::format::writer::put_short;

/// Most bytes of a tenant's name.
pub const MAX_TENANT: u8 = 64;

/// Most bytes of a label.
const MAX_LABEL: usize = 21;

/// Most bytes of associated data: label, header, tenant and context.
pub(crate) const MAX_LEN: usize = MAX_LABEL + 3 + MAX_REGION + KEY_ID_LEN + 1 + MAX_TENANT as usize + MAX_CONTEXT;

/// What all envelopes of one kind, tenant and scope under one data key are bound to.
pub(crate) struct Binding {
    /// Label, header, tenant and the canonical context of the scope alone.
    bytes: Box<[u8]>,
    /// Bytes of the label.
    label: usize,
    /// Bytes of label and header.
    header_end: usize,
}

impl Binding {
    /// # Errors
    /// `Limit` if the tenant's name has more than 64 bytes.
    pub(crate) fn new(label: &[u8], header: &[u8], tenant: &str, scope: &CanonicalFields) -> Result<Self> {
        let mut bytes = [label, header].concat();
        put_short(&mut bytes, tenant.as_bytes(), MAX_TENANT, "a tenant's name has at most 64 bytes")?;
        bytes.extend_from_slice(&scope.to_bytes());
        Ok(Self { bytes: bytes.into(), label: label.len(), header_end: label.len() + header.len() })
    }

    /// The same under another label.
    pub(crate) fn labelled(&self, label: &[u8]) -> Self {
        let bytes = [label, self.bytes.get(self.label..).unwrap_or_default()].concat();
        let header_end = self.header_end + label.len() - self.label;
        Self { bytes: bytes.into(), label: label.len(), header_end }
    }

    /// The header that every envelope of this kind starts with or carries; it names suite, region and key id.
    pub(crate) fn header(&self) -> &[u8] {
        self.bytes.get(self.label..self.header_end).unwrap_or_default()
    }

    /// Runs `work` on the associated data of one envelope: with the fields of `context` besides those of `scope`, which is
    /// the one this was made with. `previous`, if there is one, was used with no other binding.
    ///
    /// Without one it stands on the stack, in room for the longest, of which nothing is cleared.
    ///
    /// # Errors
    /// As the canonical context's.
    #[inline]
    pub(crate) fn with<R, E: From<Error>>(
        &self,
        scope: &CanonicalFields,
        context: &[Field<'_>],
        previous: Option<&mut Previous>,
        work: impl FnOnce(&[u8]) -> Result<R, E>,
    ) -> Result<R, E> {
        // One call of `work`, so that it becomes a part of this.
        let mut stack;
        let bytes: &[u8] = if context.is_empty() {
            &self.bytes
        } else if let Some(previous) = previous {
            if !write_again(&mut previous.bytes, &previous.places, context) {
                self.write_anew(scope, context, previous)?;
            }
            &previous.bytes
        } else {
            stack = ArrayVec::<u8, MAX_LEN>::new();
            let mut room = Sorted::new();
            let context = sorted(context, &mut room)?;
            scope.write_with(context, &self.bytes, &mut stack, &mut Places::new())?;
            &stack
        };
        work(bytes)
    }

    #[cold]
    fn write_anew(&self, scope: &CanonicalFields, context: &[Field<'_>], into: &mut Previous) -> Result<()> {
        into.bytes.clear();
        into.places.clear();
        let (mut room, mut places) = (Sorted::new(), Places::new());
        let in_order = sorted(context, &mut room)?;
        scope.write_with(in_order, &self.bytes, &mut into.bytes, &mut places)?;
        if std::ptr::eq(in_order, context) {
            into.places = places;
        }
        Ok(())
    }
}

/// The associated data of the message before under the same binding. The next message mostly has the same fields in the same
/// order, with values of the same lengths; then only the values are written.
#[derive(Default)]
pub(crate) struct Previous {
    bytes: Vec<u8>,
    /// Where the message's own fields stand. None if it cannot be written over.
    places: Places,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written_after(
        previous: Option<&mut Previous>,
        binding: &Binding,
        scope: &CanonicalFields,
        context: &[Field<'_>],
    ) -> Result<Vec<u8>> {
        binding.with(scope, context, previous, |bytes| Ok(bytes.to_vec()))
    }

    fn written(binding: &Binding, scope: &CanonicalFields, context: &[Field<'_>]) -> Vec<u8> {
        written_after(None, binding, scope, context).unwrap()
    }

    #[test]
    fn a_binding_is_label_header_tenant_and_context() {
        let scope = CanonicalFields::new(&[("channel", "C9")]).unwrap();
        let binding = Binding::new(b"label", b"HEADER", "acme", &scope).unwrap();
        assert_eq!(binding.header(), b"HEADER");
        assert_eq!(written(&binding, &scope, &[]), b"labelHEADER\x04acme\x01\x07channel\x00\x02C9");
        assert_eq!(
            written(&binding, &scope, &[("a", "b")]),
            b"labelHEADER\x04acme\x02\x01a\x00\x01b\x07channel\x00\x02C9"
        );
    }

    #[test]
    fn another_label_changes_nothing_else() {
        let scope = CanonicalFields::new(&[("channel", "C9")]).unwrap();
        let binding = Binding::new(b"label", b"HEADER", "acme", &scope).unwrap();
        for label in [&b""[..], b"l", b"a longer label"] {
            let (labelled, made) = (binding.labelled(label), Binding::new(label, b"HEADER", "acme", &scope).unwrap());
            assert_eq!(labelled.header(), b"HEADER");
            for context in [&[][..], &[("a", "b")]] {
                assert_eq!(written(&labelled, &scope, context), written(&made, &scope, context));
            }
        }
    }

    #[test]
    fn short_and_long_associated_data_is_written_alike() {
        let scope = CanonicalFields::new(&[]).unwrap();
        let binding = Binding::new(b"label", b"HEADER", "acme", &scope).unwrap();
        for len in [0, 1, 255, 256, 512] {
            let value = "v".repeat(len);
            let all = CanonicalFields::new(&[("n", &value)]).unwrap().to_bytes();
            assert_eq!(written(&binding, &scope, &[("n", &value)]), [b"labelHEADER\x04acme", &all[..]].concat());
        }
    }

    #[test]
    fn the_longest_fits() {
        let (header, tenant, long) = ([0; 3 + MAX_REGION + KEY_ID_LEN], "t".repeat(MAX_TENANT.into()), "v".repeat(512));
        let scope = CanonicalFields::new(&[("a", &long)]).unwrap();
        let binding = Binding::new(&[0; MAX_LABEL], &header, &tenant, &scope).unwrap();
        assert_eq!(written(&binding, &scope, &[("b", &long[..503])]).len(), MAX_LEN);
        let tenant = "t".repeat(usize::from(MAX_TENANT) + 1);
        assert_eq!(Binding::new(b"", &header, &tenant, &scope).err().map(|e| e.kind()), Some(crate::ErrorKind::Limit));
    }

    fn channel() -> (Binding, CanonicalFields) {
        let scope = CanonicalFields::new(&[("channel", "C9"), ("workspace", "W1")]).unwrap();
        (Binding::new(b"label", b"HEADER", "acme", &scope).unwrap(), scope)
    }

    /// The same after any other message, be it sealed or refused: with fields of the same names and lengths, in part, in
    /// another order, with names and values whose lengths are swapped.
    #[test]
    fn what_came_before_changes_nothing() {
        let ((binding, scope), long) = (channel(), "v".repeat(513));
        let contexts: [&[Field<'_>]; 22] = [
            &[],
            &[("message", "M77")],
            &[("message", "M78")],
            &[("massage", "M78")],
            &[("message", "M7")],
            &[("message", "")],
            &[("messag", "eM78")],
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
        ];
        for before in contexts {
            for after in contexts {
                let mut previous = Previous::default();
                let _ = written_after(Some(&mut previous), &binding, &scope, before);
                for _ in 0..2 {
                    let alone = written_after(None, &binding, &scope, after).map_err(|e| e.kind());
                    let then = written_after(Some(&mut previous), &binding, &scope, after).map_err(|e| e.kind());
                    assert_eq!(then, alone, "{after:?} after {before:?}");
                }
            }
        }
    }

    #[test]
    fn of_fields_named_before_only_the_values_are_written() {
        let (binding, scope) = channel();
        let mut previous = Previous::default();
        let mut write = |context: &[Field<'_>]| {
            let anew = !write_again(&mut previous.bytes, &previous.places, context);
            written_after(Some(&mut previous), &binding, &scope, context).unwrap();
            anew
        };
        assert!(write(&[("message", "M77")]));
        assert!(!write(&[("message", "M78")]));
        assert!(write(&[("message", "M790")]));
        assert!(write(&[("z", "1"), ("message", "M790")]), "out of order");
        assert!(write(&[("z", "1"), ("message", "M790")]), "out of order, again");
        assert!(write(&[("a", "1"), ("message", "M790")]));
        assert!(!write(&[("a", "2"), ("message", "M791")]));
        assert!(write(&[("b", "2"), ("message", "M791")]));
    }
}
