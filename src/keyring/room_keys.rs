//! The room's keys: made once by the control plane, wrapped under the operator's root, unwrapped when a process starts and when
//! another generation of them shows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypto::secret::DataKey;
use crate::crypto::signing::Ed25519Signer;
use crate::error::{Error, ErrorKind, Result};
use crate::key::attribution::Attribution;
use crate::key::encryption_context::EncryptionContext;
use crate::key::fleet::FleetRecord;
use crate::key::incarnation::Incarnation;
use crate::key::room_name::RoomName;
use crate::key::room_record::{Generation, ROW_FORMAT, RoomRecord};
use crate::key::row_digest::RowDigest;
use crate::keyring::rollback::{Versioned, judge};
use crate::kms::root::Root;
use crate::row::Stored;
use crate::row::authority::{Authority, ControlKey, Keys, decode};
use crate::row::frame::{Frame, Kind};
use crate::store::KeyStore;
use crate::store::row::{Put, RowChange, RowKey, Write};
use crate::watermark::{Subject, Watermark};

/// The purpose of a row key under the root. Every node may unwrap it.
const ROW_PURPOSE: &str = "room";
/// The purpose of the control plane's seed under the root. A data plane's role is to be denied it.
const CONTROL_PURPOSE: &str = "control";

/// Where a room's keys come from.
pub(crate) struct RoomSource {
    pub(crate) name: RoomName,
    pub(crate) root: Root,
    pub(crate) store: Arc<dyn KeyStore>,
    pub(crate) watermark: Option<Arc<dyn Watermark>>,
}

/// A room that was opened: its row, and its keys but the control plane's.
pub(crate) struct OpenedRoom {
    pub(crate) row: Stored<RoomRecord>,
    pub(crate) authority: Authority,
}

impl RoomSource {
    /// Reads the room's row, unwraps its row keys under the root, and believes it if the watermark does.
    ///
    /// # Errors
    /// `InvalidArgument` if the store has no room of that name; `RolledBack`; `Tampered`; what the root's KMS says.
    pub(crate) async fn open(&self) -> Result<OpenedRoom> {
        let mark = match &self.watermark {
            Some(watermark) => watermark.read(&Subject::Room).await?,
            None => None,
        };
        let bytes = match (self.store.get(&RowKey::Room).await?, mark) {
            (Some(bytes), _) => bytes,
            (None, None) => {
                let message = format!("the key store has no room {}: create it first (create_room)", self.name);
                return Err(Error::invalid(message));
            }
            (None, Some(_)) => {
                let message = "the room's row is gone from the key store, which was edited or put back; restore it";
                return Err(Error::new(ErrorKind::RolledBack, message));
            }
        };
        let opened = self.unwrap(&bytes).await?;
        if self.watermark.is_some() {
            judge(&opened.row.record, opened.row.digest, mark.as_ref()).believed("the room's row")?;
        }
        Ok(opened)
    }

    async fn unwrap(&self, bytes: &[u8]) -> Result<OpenedRoom> {
        let frame = Frame::parse(Kind::Room, bytes).map_err(|e| no_room().with_source(e))?;
        let record: RoomRecord = decode(Kind::Room, frame.body)?;
        record.check_stored()?;
        if record.name != self.name {
            let message = format!("the key store's room is {}, not {}", record.name, self.name);
            return Err(Error::invalid(message));
        }
        let mut generations = Vec::new();
        for generation in &record.generations {
            let context = self.context(ROW_PURPOSE, record.incarnation, generation)?;
            let row_key = self.unwrap_under_root(&context, &generation.row_key).await?;
            generations.push(Keys { row_key: row_key.into_kek(), control: public_key(generation)? });
        }
        let authority = Authority::of_room(&self.name, record.incarnation, generations);
        // The wrappings vouch for the keys, and the newest control plane's for the whole of the row.
        let row = authority.read::<RoomRecord>(Kind::Room, bytes)?;
        if row.generation != authority.generation() {
            return Err(no_room());
        }
        Ok(OpenedRoom { row, authority })
    }

    /// What the root is told: it unwraps nothing of another room, another generation or with another public key.
    fn context(&self, purpose: &str, life: Incarnation, generation: &Generation) -> Result<EncryptionContext> {
        let (life, number) = (life.to_string(), generation.generation.to_string());
        let format = generation.least_row_format.to_string();
        EncryptionContext::of_root(
            purpose,
            &[
                ("room", self.name.as_str()),
                ("room-incarnation", &life),
                ("generation", &number),
                ("control", &generation.control),
                ("least-row-format", &format),
            ],
        )
    }

    async fn unwrap_under_root(&self, context: &EncryptionContext, wrapped: &str) -> Result<DataKey> {
        let bytes = base16ct::lower::decode_vec(wrapped).map_err(|_| no_room())?;
        let opened = self.root.kms().unwrap(self.root.kek(), context, &bytes).await;
        opened.map_err(|e| e.with_operation("unwrap the room's keys").with_kek(self.root.kek().as_str()))
    }

    async fn wrap_under_root(&self, context: &EncryptionContext, key: &DataKey) -> Result<String> {
        let wrapped = self.root.kms().wrap(self.root.kek(), context, key).await;
        let wrapped =
            wrapped.map_err(|e| e.with_operation("wrap the room's keys").with_kek(self.root.kek().as_str()))?;
        // Read back before anything rests on it.
        if !self.unwrap_under_root(context, &base16ct::lower::encode_string(&wrapped)).await?.ct_eq(key) {
            let message = "the root's KMS gives back another key than it wrapped; nothing was written";
            return Err(Error::new(ErrorKind::KeyMismatch, message).with_kek(self.root.kek().as_str()));
        }
        Ok(base16ct::lower::encode_string(&wrapped))
    }

    /// The control plane's key of the room's present generation.
    ///
    /// # Errors
    /// What the root's KMS says: `Denied` for a role of the data plane.
    pub(crate) async fn control(&self, row: &RoomRecord) -> Result<ControlKey> {
        let generation = row.generations.last().ok_or_else(no_room)?;
        let context = self.context(CONTROL_PURPOSE, row.incarnation, generation)?;
        let seed = self.unwrap_under_root(&context, &generation.control_seed).await?;
        let signer = signer_of(&seed)?;
        if base16ct::lower::encode_string(&signer.public_key()) != generation.control {
            return Err(no_room());
        }
        Ok(ControlKey { generation: generation.generation, signer })
    }

    /// New keys of generation `number`, wrapped under the root.
    async fn make(&self, life: Incarnation, number: u32) -> Result<(Generation, Keys, ControlKey)> {
        let (row_key, seed) = (DataKey::random()?, DataKey::random()?);
        let signer = signer_of(&seed)?;
        let control = signer.public_key();
        let mut generation = Generation {
            generation: number,
            least_row_format: ROW_FORMAT,
            control: base16ct::lower::encode_string(&control),
            row_key: String::new(),
            control_seed: String::new(),
        };
        let (row, plane) =
            (self.context(ROW_PURPOSE, life, &generation)?, self.context(CONTROL_PURPOSE, life, &generation)?);
        generation.row_key = self.wrap_under_root(&row, &row_key).await?;
        generation.control_seed = self.wrap_under_root(&plane, &seed).await?;
        Ok((generation, Keys { row_key: row_key.into_kek(), control }, ControlKey { generation: number, signer }))
    }

    /// Makes the room, once. Repeated after its answer was lost, it finishes what it began.
    ///
    /// # Errors
    /// `Conflict` if the store has a room; `StoreInconsistent` if it has tenants and none; `InvalidArgument` if the watermark serves another one, or the root is no symmetric
    /// KEK; what the root's KMS and the store say.
    pub(crate) async fn create(&self, at: i64, by: &Attribution) -> Result<()> {
        let watermark = self.watermark.as_ref().ok_or_else(no_watermark)?;
        let description = self.root.kms().describe(self.root.kek()).await?;
        if !description.symmetric {
            let message = "a root is a symmetric KEK: under a public key anybody can wrap";
            return Err(Error::invalid(message).with_kek(self.root.kek().as_str()));
        }
        let mark = watermark.read(&Subject::Room).await?;
        if let Some(bytes) = self.store.get(&RowKey::Room).await? {
            return self.finish_creation(&bytes, mark.is_some()).await;
        }
        if mark.is_some() {
            return Err(Error::invalid("the watermark serves another room, or this one's row was deleted"));
        }
        if !self.store.tenants(None, 1).await?.is_empty() {
            let message = "the key store has tenants' rows and no room's row, which was lost: no other room reads them. Restore the store's \
                           newest copy, or create the room in a new store";
            return Err(Error::new(ErrorKind::StoreInconsistent, message));
        }
        let incarnation = Incarnation::draw()?;
        let (generation, keys, control) = self.make(incarnation, 1).await?;
        let room = RoomRecord {
            name: self.name.clone(),
            incarnation,
            epoch: 1,
            predecessor: None,
            created_at: at,
            generations: vec![generation],
        };
        let fleet = FleetRecord {
            room: incarnation,
            epoch: 1,
            predecessor: None,
            opens_suspended_until: None,
            actor: by.actor().to_owned(),
            reason: by.reason().to_owned(),
            at,
        };
        let authority = Authority::of_room(&self.name, incarnation, vec![keys]);
        let room_row = authority.sign(Some(&control), Kind::Room, &room)?;
        let fleet_row = authority.sign(Some(&control), Kind::Fleet, &fleet)?;
        let [room_digest, fleet_digest] = [&room_row, &fleet_row].map(|row| RowDigest::of(row));
        let put = |key, bytes| Write { key, expected: None, change: RowChange::Put(bytes, None) };
        match self.store.put(&[put(RowKey::Room, room_row), put(RowKey::Fleet, fleet_row)], None).await? {
            Put::Written(_) => {}
            Put::Conflict(_) => return Err(exists()),
        }
        self.mark(watermark, &room, room_digest, &fleet, fleet_digest).await
    }

    /// An earlier call wrote the rows and did not come to mark them; or there is nothing to do.
    async fn finish_creation(&self, bytes: &[u8], marked: bool) -> Result<()> {
        let OpenedRoom { row, authority } = self.unwrap(bytes).await?;
        let fleet = self.store.get(&RowKey::Fleet).await?.filter(|_| !marked && row.record.epoch == 1);
        let (Some(watermark), Some(fleet)) = (&self.watermark, fleet) else {
            return Err(exists());
        };
        let fleet = authority.read::<FleetRecord>(Kind::Fleet, &fleet)?;
        if fleet.record.epoch != 1 {
            return Err(exists());
        }
        self.mark(watermark, &row.record, row.digest, &fleet.record, fleet.digest).await
    }

    async fn mark(
        &self,
        watermark: &Arc<dyn Watermark>,
        room: &RoomRecord,
        room_digest: RowDigest,
        fleet: &FleetRecord,
        fleet_digest: RowDigest,
    ) -> Result<()> {
        let marks = [(Subject::Fleet, fleet.mark(fleet_digest)), (Subject::Room, room.mark(room_digest))];
        for (subject, mark) in marks {
            if !watermark.advance(&subject, None, &mark).await? && watermark.read(&subject).await? != Some(mark) {
                return Err(Error::invalid("the watermark serves another room"));
            }
        }
        Ok(())
    }

    /// The room's row with one generation more, and the keys of all.
    pub(crate) async fn next_generation(&self, row: &Stored<RoomRecord>) -> Result<(RoomRecord, Vec<u8>)> {
        let number = u32::try_from(row.record.generations.len() + 1)
            .map_err(|e| Error::limit("a room has too many generations").with_source(e))?;
        let (generation, _, control) = self.make(row.record.incarnation, number).await?;
        let mut next = row.record.clone();
        next.epoch += 1;
        next.predecessor = Some(row.digest);
        next.generations.push(generation);
        next.check_stored()?;
        let mut keys = Vec::new();
        for generation in &next.generations {
            let context = self.context(ROW_PURPOSE, next.incarnation, generation)?;
            let row_key = self.unwrap_under_root(&context, &generation.row_key).await?.into_kek();
            keys.push(Keys { row_key, control: public_key(generation)? });
        }
        let bytes = Authority::of_room(&self.name, next.incarnation, keys).sign(Some(&control), Kind::Room, &next)?;
        Ok((next, bytes))
    }
}

/// Which tenant a KEK serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KekRecord {
    /// The KEK.
    pub(crate) kek: String,
    /// Whose policy named it first.
    pub(crate) tenant: String,
    /// Whether that policy says that it is shared.
    pub(crate) shared: bool,
}

fn signer_of(seed: &DataKey) -> Result<Ed25519Signer> {
    Ed25519Signer::from_seed(&mut *Zeroizing::new(*seed.expose()))
}

fn public_key(generation: &Generation) -> Result<[u8; 32]> {
    let mut key = [0; 32];
    match base16ct::lower::decode(&generation.control, &mut key) {
        Ok(decoded) if decoded.len() == 32 => Ok(key),
        _ => Err(no_room()),
    }
}

fn no_room() -> Error {
    Error::new(ErrorKind::Tampered, "the room's row is not authentic; restore the key store")
}

fn exists() -> Error {
    Error::new(ErrorKind::Conflict, "the key store has a room already: build it")
}

pub(crate) fn no_watermark() -> Error {
    Error::invalid(
        "the control plane needs a watermark outside the key store (StrongroomBuilder::watermark): without one it would sign \
         what an older copy of the store says",
    )
}
