//! Layer 3: the watermark. What is remembered outside the key store, so that a store that was put back to an earlier state is
//! noticed: by a node that starts afresh as well, and by the control plane before it writes.

pub(crate) mod file;
pub(crate) mod memory;
#[cfg(feature = "object-store")]
pub(crate) mod object;
mod text;

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;
use crate::key::id::TenantId;
use crate::key::incarnation::Incarnation;
use crate::key::row_digest::RowDigest;

/// What a mark is of. A watermark serves one room.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Subject {
    /// The room's row.
    Room,
    /// The fleet's row: what holds for all tenants.
    Fleet,
    /// A tenant's row.
    Tenant(TenantId),
    /// The log of changes: how many there were.
    Log,
}

/// The newest version of a subject that a control plane has written: nothing older is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which life of the subject: a tenant's, or the room's.
    pub incarnation: Incarnation,
    /// The row's epoch; for the log its number of changes.
    pub epoch: u64,
    /// The row's digest; for the log all zero.
    pub digest: RowDigest,
}

/// Remembers the newest version of each row that control planes write. One for a fleet, outside the key store and its
/// backups: a file on one machine, objects in a bucket, another database.
///
/// # Contract
///
/// `strongroom::testing::watermark_contract` (feature `testing`) checks it.
///
/// - *Compare-and-set*: [`Self::advance`] writes only over `from`, also against other processes and nodes; of several
///   that advance from one mark to different ones, one succeeds.
/// - *Repetition*: an [`Self::advance`] to what the mark is already succeeds, whatever `from` is: its answer was lost, and it is
///   repeated.
/// - *Durability*: what [`Self::advance`] said it wrote survives a crash, and every later [`Self::read`] on any node gives it
///   or a later one.
/// - *Atomicity*: a crash, a full disk or a lost answer leaves the mark old or new; other subjects' marks stay.
/// - *Errors*: [`Unavailable`](crate::ErrorKind::Unavailable) if nothing can be said; [`Malformed`](crate::ErrorKind::Malformed)
///   for what cannot be a mark; [`Io`](crate::ErrorKind::Io), [`Limit`](crate::ErrorKind::Limit) or
///   [`InvalidArgument`](crate::ErrorKind::InvalidArgument) where somebody has to act. Never a mark that was not written.
/// - *Cancellation*: dropping a call's future is safe; an [`Self::advance`] may then be carried out or not.
#[async_trait]
pub trait Watermark: Send + Sync + 'static {
    /// The mark of `subject`; `None` if there never was one.
    async fn read(&self, subject: &Subject) -> Result<Option<Mark>>;

    /// Puts `to` in the place of `from` (`None`: no mark yet), and says whether the mark is `to` now. If not, it is another one
    /// than `from`, and was not changed.
    async fn advance(&self, subject: &Subject, from: Option<&Mark>, to: &Mark) -> Result<bool>;
}

/// A watermark shared with other owners.
#[async_trait]
impl<W: Watermark + ?Sized> Watermark for Arc<W> {
    async fn read(&self, subject: &Subject) -> Result<Option<Mark>> {
        (**self).read(subject).await
    }

    async fn advance(&self, subject: &Subject, from: Option<&Mark>, to: &Mark) -> Result<bool> {
        (**self).advance(subject, from, to).await
    }
}
