//! Rows: what a key store keeps, as bytes that it does not understand, and by what it finds them.

use crate::error::{Error, Result};
use crate::key::id::{KeyId, TenantId};
use crate::key::kek::KekUri;
use crate::key::period::PeriodLabel;
use crate::key::row_digest::RowDigest;
use crate::key::scope::Scope;
use crate::key::state::KeyState;

/// Most bytes of one row.
pub const MAX_ROW: usize = 16 << 20;

/// Names a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RowKey {
    /// The room's. A store has one room at most.
    Room,
    /// The fleet's: what holds for all tenants.
    Fleet,
    /// A tenant's.
    Tenant(TenantId),
    /// A data key's, of a tenant.
    Key(TenantId, KeyId),
    /// An entry of a tenant's journal; they are numbered from 1.
    Journal(TenantId, u64),
    /// Which tenant a KEK serves.
    Kek(KekUri),
}

/// Where a data key is found besides by its id. A hint: whoever reads the row compares it with the row's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyIndex {
    /// What the key covers.
    pub scope: Scope,
    /// When it covers it.
    pub period: Option<PeriodLabel>,
    /// Its state. A store has one Active key at most for each tenant, scope and period.
    pub state: KeyState,
}

/// What becomes of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowChange {
    /// Nothing: it only has to be what is expected, until the whole of the call is written.
    Keep,
    /// These bytes take its place. A data key's row comes with its index, no other row does.
    Put(Vec<u8>, Option<KeyIndex>),
    /// It is taken away, with its index. Of data keys' rows alone, and only of a version that is expected.
    Remove,
}

/// One row of a [`KeyStore::put`](super::KeyStore::put).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Which row.
    pub key: RowKey,
    /// The version that it has to have; `None` if there must be none yet.
    pub expected: Option<RowDigest>,
    /// What becomes of it.
    pub change: RowChange,
}

/// What became of a [`KeyStore::put`](super::KeyStore::put).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// All of it is written, and durable. The number of the log's new entry, where one was added.
    Written(Option<u64>),
    /// Nothing is. The places, among the writes, of those that stood against it: another version than expected, or a second
    /// Active key. At least one.
    Conflict(Vec<usize>),
}

/// Says which store this is: a copy, a restored backup, a promoted standby is another one. Only compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreIdentity(pub String);

/// What a reading of the log of changes gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Entries with their numbers, in order, the earliest first.
    pub entries: Vec<(u64, Vec<u8>)>,
    /// The number of the newest entry that there ever was; 0 if there was none.
    pub end: u64,
    /// The fleet's row, read together with the log.
    pub fleet: Option<Vec<u8>>,
    /// Which store said so, read together with the log.
    pub store: StoreIdentity,
}

/// Refuses what no store takes.
///
/// # Errors
/// `InvalidArgument` if a row is named twice, has an index and is no data key's or the reverse, is a journal's with the
/// number 0, or is to be taken away and is no data key's or of no expected version; `Limit` beyond [`MAX_ROW`].
pub(crate) fn check(writes: &[Write]) -> Result<()> {
    let mut keys: Vec<&RowKey> = writes.iter().map(|write| &write.key).collect();
    keys.sort_unstable();
    if keys.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
        return Err(Error::invalid("a write to the key store names a row twice"));
    }
    if writes.iter().any(|write| matches!(write.key, RowKey::Journal(_, 0))) {
        return Err(Error::invalid("a journal's entries are numbered from 1"));
    }
    for write in writes {
        let is_key = matches!(write.key, RowKey::Key(..));
        if write.change == RowChange::Remove && (!is_key || write.expected.is_none()) {
            return Err(Error::invalid(
                "a data key's row is taken away in the version that is expected, and no other row is",
            ));
        }
        let RowChange::Put(bytes, index) = &write.change else { continue };
        if index.is_some() != is_key {
            return Err(Error::invalid("a data key's row comes with its index, no other row does"));
        }
        check_length(bytes)?;
    }
    Ok(())
}

/// # Errors
/// `Limit` if a row, or an entry of the log, has more than [`MAX_ROW`] bytes.
pub(crate) fn check_length(bytes: &[u8]) -> Result<()> {
    if bytes.len() > MAX_ROW {
        return Err(Error::limit("a stored row has at most 16 MiB"));
    }
    Ok(())
}

/// The version of a row's bytes, where there are any.
pub(crate) fn version(bytes: Option<&Vec<u8>>) -> Option<RowDigest> {
    bytes.map(|bytes| RowDigest::of(bytes))
}

/// A random name for a new store.
///
/// # Errors
/// `Unavailable` if the operating system gives no randomness.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn draw_identity() -> Result<String> {
    let mut id = [0; 16];
    crate::crypto::random::from_os(&mut id)?;
    Ok(base16ct::lower::encode_string(&id))
}

/// How SQL names a period: empty where there are none, so that unique indexes see it.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn period_to_text(period: Option<&PeriodLabel>) -> &str {
    period.map_or("", PeriodLabel::as_str)
}

/// A number as SQL keeps it. None reaches 2^63; what is beyond is behind all that there is.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
