//! Who vouches for stored rows: a room's row keys, under which every node tags key records (HMAC-SHA-512 cut to 32 bytes), and the
//! control plane's Ed25519 keys, under which it signs what it decided. Generations count up with each eviction.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::crypto::mac;
use crate::crypto::secret::Secret;
use crate::crypto::signing::{Ed25519Signer, ReceiptSigner as _, is_signed};
use crate::error::{Error, ErrorKind, Result};
use crate::key::incarnation::Incarnation;
use crate::key::room_name::RoomName;
use crate::key::row_digest::RowDigest;
use crate::row::Stored;
use crate::row::frame::{self, Authenticator, Frame, Kind, SIGNATURE_LEN};

const LABEL: &[u8] = b"strongroom/v1/row";

/// One generation's keys.
pub(crate) struct Keys {
    pub(crate) row_key: Secret<32>,
    pub(crate) control: [u8; 32],
}

/// A room's keys: what verifies its rows.
pub(crate) struct Authority {
    /// Label, name and incarnation of the room.
    room: Vec<u8>,
    /// By their numbers, from 1. None where the store is trusted.
    generations: Vec<Keys>,
}

/// The control plane's key of one generation: what signs.
pub(crate) struct ControlKey {
    pub(crate) generation: u32,
    pub(crate) signer: Ed25519Signer,
}

impl Authority {
    /// Vouches for nothing: the store is trusted. Rows have generation 0 and authenticators of zeros.
    pub(crate) fn trusting() -> Self {
        Self { room: Vec::new(), generations: Vec::new() }
    }

    /// The keys of a room, the earliest generation first.
    pub(crate) fn of_room(name: &RoomName, incarnation: Incarnation, generations: Vec<Keys>) -> Self {
        let name = name.as_str().as_bytes();
        let len = u8::try_from(name.len()).unwrap_or(u8::MAX); // at most 64
        let room = [LABEL, &[len], name, incarnation.as_bytes()].concat();
        Self { room, generations }
    }

    /// Whether the store is taken at its word.
    pub(crate) fn is_trusting(&self) -> bool {
        self.generations.is_empty()
    }

    /// The present generation; 0 where the store is trusted.
    pub(crate) fn generation(&self) -> u32 {
        u32::try_from(self.generations.len()).unwrap_or(u32::MAX)
    }

    fn keys(&self, generation: u32) -> Option<&Keys> {
        self.generations.get(usize::try_from(generation.checked_sub(1)?).ok()?)
    }

    /// Whether a row of this kind claims to be of a generation that these keys do not reach yet.
    pub(crate) fn is_of_later_generation(&self, kind: Kind, bytes: &[u8]) -> bool {
        !self.is_trusting() && Frame::parse(kind, bytes).is_ok_and(|frame| frame.generation > self.generation())
    }

    /// The row of `record`, tagged by the present row key.
    ///
    /// # Errors
    /// `Limit` if it is too long.
    pub(crate) fn tag(&self, kind: Kind, record: &impl Serialize) -> Result<Vec<u8>> {
        let (generation, body) = (self.generation(), encode(record)?);
        let authenticated = Frame::authenticated(kind, generation, &body);
        let tag = self
            .keys(generation)
            .map_or([0; frame::TAG_LEN], |keys| mac::tag(&keys.row_key, &[&self.room, &authenticated]));
        Ok(frame::tagged(kind, generation, &tag, &body))
    }

    /// The row of `record`, signed by the control plane.
    ///
    /// # Errors
    /// `Conflict` if `control` is of another generation than the present one; `Limit` if the row is too long.
    pub(crate) fn sign(&self, control: Option<&ControlKey>, kind: Kind, record: &impl Serialize) -> Result<Vec<u8>> {
        self.sign_body(control, kind, &encode(record)?)
    }

    /// The row of a body, signed by the control plane.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub(crate) fn sign_body(&self, control: Option<&ControlKey>, kind: Kind, body: &[u8]) -> Result<Vec<u8>> {
        let generation = self.generation();
        let signature = match control {
            None if self.is_trusting() => [0; SIGNATURE_LEN],
            Some(control) if control.generation == generation => {
                let authenticated = Frame::authenticated(kind, generation, body);
                let signature = control.signer.sign(&[&*self.room, &authenticated].concat())?;
                signature.try_into().map_err(|_| Error::invalid("an Ed25519 signature has 64 bytes"))?
            }
            _ => {
                let message = "the room's keys were changed meanwhile; retry";
                return Err(Error::new(ErrorKind::Conflict, message));
            }
        };
        Ok(frame::signed(kind, generation, &signature, body))
    }

    /// Verifies a row and reads its body, which has one spelling.
    ///
    /// # Errors
    /// `Tampered` if nobody of this room vouches for it; `Malformed` if somebody does, and it does not read.
    pub(crate) fn read<T: Serialize + DeserializeOwned>(&self, kind: Kind, bytes: &[u8]) -> Result<Stored<T>> {
        let frame = Frame::parse(kind, bytes).map_err(|e| not_authentic(kind).with_source(e))?;
        if !self.vouches(kind, &frame) {
            return Err(not_authentic(kind));
        }
        Ok(Stored { record: decode(kind, frame.body)?, generation: frame.generation, digest: RowDigest::of(bytes) })
    }

    fn vouches(&self, kind: Kind, frame: &Frame<'_>) -> bool {
        if self.is_trusting() {
            return frame.generation == 0
                && match frame.authenticator {
                    Authenticator::Tag(tag) => *tag == [0; frame::TAG_LEN],
                    Authenticator::Signature(signature, consent) => {
                        *signature == [0; SIGNATURE_LEN] && consent.is_empty()
                    }
                };
        }
        let Some(keys) = self.keys(frame.generation) else {
            return false;
        };
        let authenticated = Frame::authenticated(kind, frame.generation, frame.body);
        match frame.authenticator {
            Authenticator::Tag(tag) => mac::verifies(&keys.row_key, &[&self.room, &authenticated], tag),
            // No release writes a consent yet, so none is believed.
            Authenticator::Signature(signature, consent) => {
                consent.is_empty() && is_signed(&keys.control, &[&*self.room, &authenticated].concat(), signature)
            }
        }
    }
}

fn not_authentic(kind: Kind) -> Error {
    let message = format!(
        "{} is not authentic: it was edited, moved, or is of another room; restore the key store, or build the room with its \
         own root and name",
        kind.name()
    );
    Error::new(ErrorKind::Tampered, message)
}

fn encode(record: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|e| Error::invalid("a row cannot be encoded").with_source(e))
}

/// Reads a body. Whatever else than the one spelling of what it says is refused: unknown members, members twice, arrays for
/// objects, blanks.
pub(crate) fn decode<T: Serialize + DeserializeOwned>(kind: Kind, body: &[u8]) -> Result<T> {
    let unreadable =
        || Error::new(ErrorKind::Malformed, format!("{} does not read; is this strongroom too old?", kind.name()));
    let record: T = serde_json::from_slice(body).map_err(|e| unreadable().with_source(e))?;
    if encode(&record)? == body { Ok(record) } else { Err(unreadable()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(n: u8) -> Keys {
        Keys { row_key: Secret::take(&mut [n; 32]), control: control(n).signer.public_key() }
    }

    fn control(n: u8) -> ControlKey {
        ControlKey {
            generation: n.into(),
            signer: Ed25519Signer::from_seed(&mut std::array::from_fn::<u8, 32, _>(|at| n ^ u8::from(at == 0)))
                .unwrap(),
        }
    }

    fn room(name: &str, life: u8, generations: u8) -> Authority {
        let life = Incarnation::from_bytes([life; 16]);
        Authority::of_room(&RoomName::new(name).unwrap(), life, (1..=generations).map(keys).collect())
    }

    fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
        result.err().map(|e| e.kind())
    }

    #[test]
    fn every_bit_of_a_row_is_vouched_for() {
        let authority = room("chat", 1, 2);
        let tagged = authority.tag(Kind::Key, &vec!["a", "b"]).unwrap();
        let signed = authority.sign(Some(&control(2)), Kind::Tenant, &vec!["a", "b"]).unwrap();
        for (which, row) in [(Kind::Key, tagged), (Kind::Tenant, signed)] {
            let read: Stored<Vec<String>> = authority.read(which, &row).unwrap();
            assert_eq!((read.record.concat(), read.generation, read.digest), ("ab".to_owned(), 2, RowDigest::of(&row)));
            for bit in 0..row.len() * 8 {
                let mut other = row.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                assert!(authority.read::<Vec<String>>(which, &other).is_err(), "{which:?}: bit {bit}");
            }
            for len in 0..row.len() {
                assert!(authority.read::<Vec<String>>(which, &row[..len]).is_err());
            }
            assert!(authority.read::<Vec<String>>(which, &[&row[..], b" "].concat()).is_err());
        }
    }

    /// There is room for one behind the signature, which the control plane did not sign.
    #[test]
    fn a_consent_that_somebody_puts_in_is_not_believed() {
        let authority = room("chat", 1, 1);
        let row = authority.sign(Some(&control(1)), Kind::Tenant, &1).unwrap();
        let (head, body) = row.split_at(row.len() - b"1".len());
        let (head, none) = head.split_at(head.len() - 2);
        assert_eq!((none, body), (&[0, 0][..], &b"1"[..]));
        let with_consent = [head, &[0, 4], b"mine", body].concat();
        assert_eq!(kind(authority.read::<u32>(Kind::Tenant, &with_consent)), Some(ErrorKind::Tampered));
    }

    #[test]
    fn a_row_is_of_one_room_one_kind_and_a_known_generation() {
        let row = room("chat", 1, 2).tag(Kind::Key, &1).unwrap();
        let read = |authority: &Authority, which| kind(authority.read::<u32>(which, &row));
        assert_eq!(read(&room("chat", 1, 2), Kind::Key), None);
        assert_eq!(read(&room("chat", 1, 3), Kind::Key), None, "an earlier generation still reads");
        let others = [room("chat", 1, 1), room("chat", 2, 2), room("staging", 1, 2), Authority::trusting()];
        for other in &others {
            assert_eq!(read(other, Kind::Key), Some(ErrorKind::Tampered));
        }
        assert_eq!(read(&room("chat", 1, 2), Kind::Log), Some(ErrorKind::Tampered));
        assert!(room("chat", 1, 1).is_of_later_generation(Kind::Key, &row));
        assert!(!room("chat", 1, 2).is_of_later_generation(Kind::Key, &row));
        // What nobody vouches for is believed by those alone who trust the store.
        let bare = Authority::trusting().tag(Kind::Key, &1).unwrap();
        assert_eq!(kind(Authority::trusting().read::<u32>(Kind::Key, &bare)), None);
        assert_eq!(kind(room("chat", 1, 2).read::<u32>(Kind::Key, &bare)), Some(ErrorKind::Tampered));
    }

    #[test]
    fn who_tags_cannot_sign() {
        let authority = room("chat", 1, 1);
        assert_eq!(kind(authority.sign(None, Kind::Tenant, &1)), Some(ErrorKind::Conflict));
        assert_eq!(kind(authority.sign(Some(&control(2)), Kind::Tenant, &1)), Some(ErrorKind::Conflict));
        // A node that has the row key makes the best of it: the tag in the signature's place.
        let tag = mac::tag(
            &authority.generations[0].row_key,
            &[&authority.room, &Frame::authenticated(Kind::Tenant, 1, b"1")],
        );
        let row = frame::signed(Kind::Tenant, 1, &[tag, tag].concat().try_into().unwrap(), b"1");
        assert_eq!(kind(authority.read::<u32>(Kind::Tenant, &row)), Some(ErrorKind::Tampered));
    }

    #[test]
    fn a_body_has_one_spelling() {
        assert!(decode::<Vec<u32>>(Kind::Key, b"[1,2]").is_ok());
        for bad in [&b"[1, 2]"[..], b"[1,2] ", b"[01,2]", b"[1.0,2]", b"", b"{}"] {
            assert_eq!(kind(decode::<Vec<u32>>(Kind::Key, bad)), Some(ErrorKind::Malformed), "{bad:?}");
        }
    }
}
