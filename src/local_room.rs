//! A room on one machine: a SQLite key store, a local KMS, a local root and a watermark, in one folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::kms::Kms;
use crate::kms::local::LocalKms;
use crate::kms::local_root_kek::LocalRoot;
use crate::room::{Strongroom, StrongroomBuilder};
use crate::store::KeyStore as _;
use crate::store::row::RowKey;
use crate::store::sqlite::SqliteKeyStore;
use crate::watermark::file::FileWatermark;

/// The room's name.
const ROOM: &str = "local";

/// The pieces of a room on one machine: `keys.db` (key store), `keks.json` (the local KMS's KEKs), `root.json` (the operator's
/// root) and `watermark` in one folder.
///
/// Each can be replaced: what is set on its [`builder`](Self::builder) afterwards counts. Keep `root.json` and `watermark` out of
/// the backups of `keys.db`: who restores all of them together restores an older state that nothing tells from the newest. Back
/// `keys.db` up with [`SqliteKeyStore::backup`], never by copying the file; `keks.json` is replaced whole and may be copied.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # let folder = tempfile::tempdir()?; let folder = folder.path().join("data");
/// use strongroom::{Region, TenantPolicy, create_local, open_local};
///
/// create_local(&folder).await?; // once
/// let local = open_local(&folder).await?;
/// let room = local.builder().serving(["eu-central-1"]).build().await?;
/// let kek = local.kms().create_kek("acme-2026", Region::new("eu-central-1")?)?;
/// room.admin("ops@example.com", "a new customer")?.enroll("acme", TenantPolicy::new(kek, Region::new("eu-central-1")?).bind(["message"])).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct LocalRoom {
    store: Arc<SqliteKeyStore>,
    kms: LocalKms,
    root: LocalRoot,
    watermark: Arc<FileWatermark>,
}

impl LocalRoom {
    /// A builder with the room's name, root, watermark, key store and KMS. Say which regions it serves, and build it.
    pub fn builder(&self) -> StrongroomBuilder {
        self.builder_with_kms(self.kms.clone())
    }

    /// The same with another KMS in the local one's place.
    pub fn builder_with_kms(&self, kms: impl Kms) -> StrongroomBuilder {
        Strongroom::builder()
            .room(ROOM)
            .root(self.root.clone())
            .watermark(Arc::clone(&self.watermark))
            .key_store(Arc::clone(&self.store))
            .kms(kms)
    }

    /// The KMS that holds the tenants' KEKs.
    pub fn kms(&self) -> &LocalKms {
        &self.kms
    }

    /// The key store.
    pub fn key_store(&self) -> &Arc<SqliteKeyStore> {
        &self.store
    }
}

/// Where the pieces are.
struct Places([PathBuf; 4]);

impl Places {
    fn of(folder: &Path) -> Self {
        Self(["keys.db", "keks.json", "root.json", "watermark"].map(|name| folder.join(name)))
    }
}

/// Creates a room on one machine in `folder`, which is made if need be. After a crash call it again: what is there stays.
///
/// # Errors
/// `Conflict` if the folder has a room: open it; `InvalidArgument` if it has one and lacks another piece, which was lost; `Unavailable` if a file cannot be written.
pub async fn create_local(folder: impl AsRef<Path>) -> Result<LocalRoom> {
    let folder = folder.as_ref();
    let run = async {
        std::fs::create_dir_all(folder)
            .map_err(|e| Error::new(ErrorKind::Unavailable, "the folder cannot be made").with_source(e))?;
        let Places([store, keks, root, watermark]) = Places::of(folder);
        if std::fs::exists(&store).is_ok_and(|there| there)
            && SqliteKeyStore::open(&store).await?.get(&RowKey::Room).await?.is_some()
        {
            // The room is made last: a piece that is missing was lost, and is not made anew with nothing in it.
            let local = open(folder).await?;
            local.builder().create_room("create_local", "a room on one machine").await?;
            return Ok(local);
        }
        ensure(SqliteKeyStore::create(store).await)?;
        ensure(LocalKms::create(keks))?;
        ensure(LocalRoot::create(root))?;
        ensure(FileWatermark::create(watermark))?;
        let local = open(folder).await?;
        local.builder().create_room("create_local", "a room on one machine").await?;
        Ok(local)
    };
    run.await.map_err(|e: Error| e.with_operation("create local room"))
}

/// Opens the room in `folder` that [`create_local`] made.
///
/// # Errors
/// `InvalidArgument` if a piece is missing, or is no such file; `Unavailable` if one cannot be read.
pub async fn open_local(folder: impl AsRef<Path>) -> Result<LocalRoom> {
    open(folder.as_ref()).await.map_err(|e| e.with_operation("open local room"))
}

async fn open(folder: &Path) -> Result<LocalRoom> {
    let Places([store, keks, root, watermark]) = Places::of(folder);
    Ok(LocalRoom {
        store: Arc::new(SqliteKeyStore::open(store).await?),
        kms: LocalKms::open(keks)?,
        root: LocalRoot::open(root)?,
        watermark: Arc::new(FileWatermark::open(watermark)?),
    })
}

/// An earlier call may have made it.
fn ensure<T>(created: Result<T>) -> Result<()> {
    match created {
        Err(e) if e.kind() == ErrorKind::Conflict => Ok(()),
        created => created.map(|_| ()),
    }
}
