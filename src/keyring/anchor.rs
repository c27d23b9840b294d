//! Epochs seen: a key store restored from an older copy must not un-revoke or resurrect.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::key::id::TenantId;

/// Remembers each tenant's highest epoch outside the key store, so that a node that starts afresh refuses a store that was
/// restored from an older copy, as nodes that run already do.
///
/// Implement it over whatever is not restored together with the key store: a file on another volume ([`AnchorFile`]), a
/// configuration service, a monotonic counter of an HSM.
#[async_trait]
pub trait EpochAnchor: Send + Sync + 'static {
    /// The highest epoch that [`Self::raise`] was told of a tenant.
    async fn epoch(&self, tenant: &TenantId) -> Result<Option<u64>>;

    /// Remembers `epoch`, if it is higher than what is remembered. Durable when it returns `Ok`.
    async fn raise(&self, tenant: &TenantId, epoch: u64) -> Result<()>;
}

/// An [`EpochAnchor`] in a file that only grows: a line `TENANT EPOCH` for each rise, flushed to disk.
///
/// Keep it off the volume, and out of the backups, of the key store. A line that a crash cut short is ignored.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let anchor = strongroom::AnchorFile::open(folder.path().join("epochs"))?;
/// // Strongroom::builder().epoch_anchor(anchor)
/// # let _ = anchor; Ok(()) }
/// ```
pub struct AnchorFile {
    inner: Arc<Mutex<Anchored>>,
}

struct Anchored {
    file: File,
    epochs: HashMap<TenantId, u64>,
}

impl AnchorFile {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be read or written; `Malformed` if a whole line is not `TENANT EPOCH`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path.as_ref())
            .map_err(|e| failed("open the epoch anchor", e))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|e| failed("read the epoch anchor", e))?;
        let mut epochs = HashMap::new();
        let whole = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or("");
        for line in whole.lines() {
            // A line cut short by a crash was ended by the next writer: it has no number, or a smaller one.
            let (tenant, epoch) = line.split_once(' ').unwrap_or((line, ""));
            let Ok(epoch) = (if epoch.is_empty() { Ok(0) } else { epoch.parse() }) else {
                return Err(Error::malformed("the epoch anchor has a line that is not TENANT EPOCH"));
            };
            let highest: &mut u64 = epochs.entry(TenantId::new(tenant)?).or_default();
            *highest = epoch.max(*highest);
        }
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n").map_err(|e| failed("write the epoch anchor", e))?;
        }
        Ok(Self { inner: Arc::new(Mutex::new(Anchored { file, epochs })) })
    }
}

fn failed(operation: &'static str, e: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the epoch anchor failed").with_operation(operation).with_source(e)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl EpochAnchor for AnchorFile {
    async fn epoch(&self, tenant: &TenantId) -> Result<Option<u64>> {
        Ok(lock(&self.inner).epochs.get(tenant).copied())
    }

    async fn raise(&self, tenant: &TenantId, epoch: u64) -> Result<()> {
        let (inner, tenant) = (Arc::clone(&self.inner), tenant.clone());
        let written = tokio::task::spawn_blocking(move || {
            let mut anchored = lock(&inner);
            if anchored.epochs.get(&tenant).is_some_and(|highest| *highest >= epoch) {
                return Ok(());
            }
            let line = format!("{tenant} {epoch}\n");
            anchored.file.write_all(line.as_bytes()).and_then(|()| anchored.file.sync_data())?;
            anchored.epochs.insert(tenant, epoch);
            Ok(())
        });
        written
            .await
            .map_err(|e| Error::new(ErrorKind::Unavailable, "the epoch anchor's writer ended early").with_source(e))?
            .map_err(|e| failed("write the epoch anchor", e))
    }
}

/// The highest epoch that this node saw of each tenant it met.
pub(crate) struct Epochs {
    seen: Mutex<HashMap<TenantId, u64>>,
    anchor: Option<Arc<dyn EpochAnchor>>,
}

impl Epochs {
    pub(crate) fn new(anchor: Option<Arc<dyn EpochAnchor>>) -> Self {
        Self { seen: Mutex::default(), anchor }
    }

    /// What the tenant's row has to have at least. Ask before reading the row: a row that is read later cannot have less.
    pub(crate) async fn least(&self, tenant: &TenantId) -> Result<u64> {
        if let Some(seen) = lock(&self.seen).get(tenant) {
            return Ok(*seen);
        }
        match &self.anchor {
            Some(anchor) => Ok(anchor.epoch(tenant).await?.unwrap_or(0)),
            None => Ok(0),
        }
    }

    /// Remembers what the row has, in the anchor first.
    ///
    /// # Errors
    /// `RolledBack` if it is less than `least`.
    pub(crate) async fn saw(&self, tenant: &TenantId, epoch: u64, least: u64) -> Result<()> {
        if epoch < least {
            let message = format!(
                "the key store has epoch {epoch} of the tenant, but {least} was seen: it was restored from an older copy. \
                 Restore the newest one, or repeat what was decided since and start with a new anchor"
            );
            return Err(Error::new(ErrorKind::RolledBack, message).with_tenant(tenant.as_str()));
        }
        if epoch > least
            && let Some(anchor) = &self.anchor
        {
            anchor.raise(tenant, epoch).await?;
        }
        let mut seen = lock(&self.seen);
        match seen.get_mut(tenant) {
            Some(highest) => *highest = epoch.max(*highest),
            None => drop(seen.insert(tenant.clone(), epoch)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> TenantId {
        TenantId::new("acme").unwrap()
    }

    #[tokio::test]
    async fn an_anchor_file_remembers_the_highest_and_survives_a_cut_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("epochs");
        let anchor = AnchorFile::open(&path).unwrap();
        assert_eq!(anchor.epoch(&tenant()).await.unwrap(), None);
        for epoch in [3, 12, 5] {
            anchor.raise(&tenant(), epoch).await.unwrap();
        }
        drop(anchor);
        for cut in ["", "acme", "acme ", "acme 1", "ac"] {
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(cut.as_bytes()).unwrap();
            assert_eq!(AnchorFile::open(&path).unwrap().epoch(&tenant()).await.unwrap(), Some(12), "{cut:?}");
        }
        std::fs::write(&path, "acme twelve\n").unwrap();
        assert!(AnchorFile::open(&path).is_err());
    }

    #[tokio::test]
    async fn a_lower_epoch_is_refused_also_by_a_fresh_node() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Epochs::new(Some(Arc::new(AnchorFile::open(folder.path().join("epochs")).unwrap())));
        let node = open();
        node.saw(&tenant(), 7, node.least(&tenant()).await.unwrap()).await.unwrap();
        for node in [node, open()] {
            let least = node.least(&tenant()).await.unwrap();
            assert_eq!(least, 7);
            assert_eq!(node.saw(&tenant(), 6, least).await.unwrap_err().kind(), ErrorKind::RolledBack);
            node.saw(&tenant(), 7, least).await.unwrap();
        }
    }
}
