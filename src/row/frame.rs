//! The frame of a stored row: `version 1 | kind 1 | generation 4 | authenticator | body`. The authenticator is a tag of 32 bytes, or
//! a signature of 64 followed by room for a tenant's consent: `length 2 | consent`.

use crate::error::{Error, Result};

/// The first byte of every row.
pub(crate) const VERSION: u8 = 1;
/// Bytes of a signature.
pub(crate) const SIGNATURE_LEN: usize = 64;
/// Bytes of a tag.
pub(crate) const TAG_LEN: usize = crate::crypto::mac::TAG_LEN;

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The room's: signed.
    Room,
    /// The fleet's: signed.
    Fleet,
    /// A tenant's: signed.
    Tenant,
    /// A data key's: tagged.
    Key,
    /// An entry of a tenant's journal: signed.
    Journal,
    /// Which tenant a KEK serves: signed.
    Kek,
    /// An entry of the log of changes: signed.
    Log,
}

impl Kind {
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Room => 1,
            Self::Fleet => 2,
            Self::Tenant => 3,
            Self::Key => 4,
            Self::Journal => 5,
            Self::Kek => 6,
            Self::Log => 7,
        }
    }

    /// Whether the control plane signs it; else every node tags it.
    pub(crate) const fn is_signed(self) -> bool {
        !matches!(self, Self::Key)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Room => "the room's row",
            Self::Fleet => "the fleet's row",
            Self::Tenant => "a tenant's row",
            Self::Key => "a key record",
            Self::Journal => "a journal entry",
            Self::Kek => "a KEK's row",
            Self::Log => "a log entry",
        }
    }
}

/// Who vouches for a row.
pub(crate) enum Authenticator<'a> {
    Tag(&'a [u8; TAG_LEN]),
    /// With a consent, which this version leaves empty.
    Signature(&'a [u8; SIGNATURE_LEN], &'a [u8]),
}

/// A row, taken apart.
pub(crate) struct Frame<'a> {
    pub(crate) generation: u32,
    pub(crate) authenticator: Authenticator<'a>,
    pub(crate) body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Takes a row of this kind apart. Nothing of it is verified.
    ///
    /// # Errors
    /// `Malformed` if it is no such row.
    pub(crate) fn parse(kind: Kind, bytes: &'a [u8]) -> Result<Self> {
        Self::parsed(kind, bytes).ok_or_else(|| Error::malformed("a stored row is not of the kind that was asked for"))
    }

    fn parsed(kind: Kind, bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&[VERSION, kind.byte()])?;
        let (generation, rest) = rest.split_first_chunk()?;
        let generation = u32::from_be_bytes(*generation);
        if !kind.is_signed() {
            let (tag, body) = rest.split_first_chunk()?;
            return Some(Self { generation, authenticator: Authenticator::Tag(tag), body });
        }
        let (signature, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (consent, body) = rest.split_at_checked(u16::from_be_bytes(*len).into())?;
        Some(Self { generation, authenticator: Authenticator::Signature(signature, consent), body })
    }

    /// What the authenticator stands over, apart from the room.
    pub(crate) fn authenticated(kind: Kind, generation: u32, body: &[u8]) -> Vec<u8> {
        let head = [&[VERSION, kind.byte()][..], &generation.to_be_bytes()].concat();
        // A consent, once there is one, is a statement of its own about the body: it is not signed again here.
        [&head, body].concat()
    }
}

/// The bytes of a tagged row.
pub(crate) fn tagged(kind: Kind, generation: u32, tag: &[u8; TAG_LEN], body: &[u8]) -> Vec<u8> {
    [&[VERSION, kind.byte()][..], &generation.to_be_bytes(), tag, body].concat()
}

/// The bytes of a signed row, without a consent.
pub(crate) fn signed(kind: Kind, generation: u32, signature: &[u8; SIGNATURE_LEN], body: &[u8]) -> Vec<u8> {
    [&[VERSION, kind.byte()][..], &generation.to_be_bytes(), signature, &[0, 0], body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_taken_apart_as_it_was_put_together() {
        let bytes = tagged(Kind::Key, 7, &[3; 32], b"{}");
        let frame = Frame::parse(Kind::Key, &bytes).unwrap();
        assert!(matches!(frame.authenticator, Authenticator::Tag([3, ..])));
        assert_eq!((frame.generation, frame.body), (7, &b"{}"[..]));
        let bytes = signed(Kind::Tenant, 9, &[4; 64], b"[]");
        let frame = Frame::parse(Kind::Tenant, &bytes).unwrap();
        assert!(matches!(frame.authenticator, Authenticator::Signature([4, ..], b"")));
        assert_eq!((frame.generation, frame.body), (9, &b"[]"[..]));
        for (kind, bytes) in [
            (Kind::Tenant, tagged(Kind::Key, 7, &[3; 32], b"{}")),
            (Kind::Key, vec![1, 4, 0, 0]),
            (Kind::Key, [&[2, 4], &[0; 60][..]].concat()),
            (Kind::Tenant, [&[1, 3], &[0; 68][..], &[0, 9]].concat()),
            (Kind::Log, Vec::new()),
            (Kind::Room, tagged(Kind::Room, 7, &[3; 32], b"{}")),
        ] {
            assert!(Frame::parse(kind, &bytes).is_err(), "{kind:?} {bytes:?}");
        }
    }
}
