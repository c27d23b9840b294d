//! Stored rows by themselves, as FORMAT.md's vectors have them: a room's keys without a room.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::crypto::secret::Secret;
use crate::crypto::signing::Ed25519Signer;
use crate::error::{Error, Result};
use crate::key::change::LogRecord;
use crate::key::fleet::FleetRecord;
use crate::key::incarnation::Incarnation;
use crate::key::journal::JournalEntry;
use crate::key::record::KeyRecord;
use crate::key::room_name::RoomName;
use crate::key::room_record::RoomRecord;
use crate::key::row_digest::RowDigest;
use crate::key::tenant::TenantRecord;
use crate::keyring::room_keys::KekRecord;
use crate::keyring::rows::check_key_row;
use crate::row::Stored;
use crate::row::authority::{Authority, ControlKey, Keys, decode};
use crate::row::frame::Kind;

/// A room's keys without a room: verifies and makes rows of any kind.
pub struct BareRoom {
    authority: Authority,
    control: Option<ControlKey>,
}

impl BareRoom {
    /// A room's name, its incarnation, and of each generation, the earliest first, the row key and the control plane's seed.
    ///
    /// # Errors
    /// `InvalidArgument` if that is no name.
    pub fn new(name: &str, incarnation: [u8; 16], generations: &[([u8; 32], [u8; 32])]) -> Result<Self> {
        let (mut keys, mut control) = (Vec::new(), None);
        for (number, (row_key, seed)) in (1..).zip(generations) {
            let signer = Ed25519Signer::from_seed(&mut seed.clone())?;
            keys.push(Keys { row_key: Secret::take(&mut row_key.clone()), control: signer.public_key() });
            control = Some(ControlKey { generation: number, signer });
        }
        let authority = Authority::of_room(&RoomName::new(name)?, Incarnation::from_bytes(incarnation), keys);
        Ok(Self { authority, control })
    }

    /// Trusts its store.
    pub fn trusting() -> Self {
        Self { authority: Authority::trusting(), control: None }
    }

    /// Verifies a row of this kind, and checks it as far as that goes without other rows. Returns its digest.
    ///
    /// # Errors
    /// `Tampered` or `Malformed`.
    pub fn verify(&self, kind: u8, row: &[u8]) -> Result<RowDigest> {
        match of_byte(kind)? {
            Kind::Room => self.read(Kind::Room, row, |it| RoomRecord::check_stored(it)),
            Kind::Fleet => self.read(Kind::Fleet, row, |it| FleetRecord::check_stored(it)),
            Kind::Tenant => self.read(Kind::Tenant, row, |it| TenantRecord::check_stored(it)),
            Kind::Key => self.read(Kind::Key, row, check_key_row),
            Kind::Journal => self.read(Kind::Journal, row, |_: &Stored<JournalEntry>| Ok(())),
            Kind::Kek => self.read(Kind::Kek, row, |_: &Stored<KekRecord>| Ok(())),
            Kind::Log => self.read(Kind::Log, row, |_: &Stored<LogRecord>| Ok(())),
        }
    }

    fn read<T: Serialize + DeserializeOwned>(
        &self,
        kind: Kind,
        row: &[u8],
        check: impl FnOnce(&Stored<T>) -> Result<()>,
    ) -> Result<RowDigest> {
        let stored = self.authority.read(kind, row)?;
        check(&stored).map(|()| stored.digest)
    }

    /// The row of a body, taken for a record of this kind and encoded again, under the newest generation.
    ///
    /// # Errors
    /// `Malformed` if it is none.
    pub fn make(&self, kind: u8, body: &[u8]) -> Result<Vec<u8>> {
        match of_byte(kind)? {
            Kind::Room => self.encoded::<RoomRecord>(Kind::Room, body),
            Kind::Fleet => self.encoded::<FleetRecord>(Kind::Fleet, body),
            Kind::Tenant => self.encoded::<TenantRecord>(Kind::Tenant, body),
            Kind::Key => self.encoded::<KeyRecord>(Kind::Key, body),
            Kind::Journal => self.encoded::<JournalEntry>(Kind::Journal, body),
            Kind::Kek => self.encoded::<KekRecord>(Kind::Kek, body),
            Kind::Log => self.encoded::<LogRecord>(Kind::Log, body),
        }
    }

    fn encoded<T: Serialize + DeserializeOwned>(&self, kind: Kind, body: &[u8]) -> Result<Vec<u8>> {
        let record: T = decode(kind, body)?;
        if kind.is_signed() {
            self.authority.sign(self.control.as_ref(), kind, &record)
        } else {
            self.authority.tag(kind, &record)
        }
    }
}

fn of_byte(byte: u8) -> Result<Kind> {
    [Kind::Room, Kind::Fleet, Kind::Tenant, Kind::Key, Kind::Journal, Kind::Kek, Kind::Log]
        .into_iter()
        .find(|kind| kind.byte() == byte)
        .ok_or_else(|| Error::invalid("no kind of rows has this number"))
}
