//! Stored rows in an attacker's hands: taken apart, edited, and tagged anew by a node that was taken over.

use std::sync::Arc;

use crate::crypto::secret::DataKey;
use crate::crypto::suite::Suite;
use crate::error::Result;
use crate::key::change::Change;
use crate::key::encryption_context::EncryptionContext;
use crate::key::id::KeyId;
use crate::key::record::KeyRecord;
use crate::keyring::rows::log_entry;
use crate::room::Strongroom;
use crate::row::authority::{Authority, ControlKey};
use crate::row::frame::{Frame, Kind};
use crate::store::row::RowKey;

fn kind(key: &RowKey) -> Kind {
    match key {
        RowKey::Room => Kind::Room,
        RowKey::Fleet => Kind::Fleet,
        RowKey::Tenant(_) => Kind::Tenant,
        RowKey::Key(..) => Kind::Key,
        RowKey::Journal(..) => Kind::Journal,
        RowKey::Kek(_) => Kind::Kek,
    }
}

/// The body of a stored row: JSON. Nothing is verified.
///
/// # Errors
/// `Malformed` if it is no row of that name's kind.
pub fn row_body(key: &RowKey, row: &[u8]) -> Result<Vec<u8>> {
    Frame::parse(kind(key), row).map(|frame| frame.body.to_vec())
}

/// The row with another body under the authenticator that it has: what an attacker without keys can make of it.
///
/// # Errors
/// As [`row_body`].
pub fn with_body(key: &RowKey, row: &[u8], body: &[u8]) -> Result<Vec<u8>> {
    let front = row.len() - row_body(key, row)?.len();
    Ok([&row[..front], body].concat())
}

/// The encryption context that a record's wrappings are bound to: everybody who reads FORMAT.md knows it.
///
/// # Errors
/// As the limits of contexts.
pub fn context_of(record: &KeyRecord) -> Result<EncryptionContext> {
    record.encryption_context()
}

/// The id of a data key that somebody knows.
///
/// # Errors
/// None that is known.
pub fn key_id_of(data_key: &DataKey, suite: Suite) -> Result<KeyId> {
    KeyId::of(data_key, suite)
}

/// A node of the data plane in other hands: it has the room's row keys as they are now, and keeps them when it is evicted.
#[derive(Clone)]
pub struct TakenOverNode(Arc<Authority>);

impl TakenOverNode {
    /// Takes over the node that built `room`.
    pub fn of(room: &Strongroom) -> Self {
        Self(room.keyring.authority.load_full())
    }

    /// The row of a record of its own making.
    ///
    /// # Errors
    /// None that is known.
    pub fn tag(&self, record: &KeyRecord) -> Result<Vec<u8>> {
        self.0.tag(Kind::Key, record)
    }

    /// The generation of its keys.
    pub fn generation(&self) -> u32 {
        self.0.generation()
    }
}

/// A control plane in other hands: it has the control plane's key as it is now, and keeps it when it is evicted.
#[derive(Clone)]
pub struct TakenOverControlPlane(Arc<Authority>, Arc<ControlKey>);

impl TakenOverControlPlane {
    /// Takes over the process that built `room`.
    ///
    /// # Errors
    /// As the root's KMS.
    pub async fn of(room: &Strongroom) -> Result<Self> {
        let control = room.keyring.control().await?.unwrap();
        Ok(Self(room.keyring.authority.load_full(), control))
    }

    /// A row of its own making, by its body.
    ///
    /// # Errors
    /// None that is known.
    pub fn sign_text(&self, key: &RowKey, body: &str) -> Result<Vec<u8>> {
        self.0.sign_body(Some(&self.1), kind(key), body.as_bytes())
    }

    /// A log entry of its own making.
    pub fn sign_change(&self, number: u64, change: &Change) -> Vec<u8> {
        log_entry(&self.0, Some(&self.1), 0, number, change)
    }
}
