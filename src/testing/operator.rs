//! An operator for tests: a root and a watermark, and rooms that are created when they are first opened.

use std::path::Path;
use std::sync::Arc;

use crate::error::{ErrorKind, Result};
use crate::kms::local_root_kek::LocalRoot;
use crate::room::{Strongroom, StrongroomBuilder};
use crate::watermark::Watermark;
use crate::watermark::file::FileWatermark;
use crate::watermark::memory::MemoryWatermark;

/// A root and a watermark that the rooms of one key store share.
#[derive(Clone)]
pub struct Operator {
    /// The root.
    pub root: LocalRoot,
    /// The watermark.
    pub watermark: Arc<dyn Watermark>,
}

impl Default for Operator {
    /// In this process's memory.
    fn default() -> Self {
        Self { root: LocalRoot::in_memory().unwrap(), watermark: Arc::new(MemoryWatermark::default()) }
    }
}

fn opened<T>(create: impl Fn() -> Result<T>, open: impl Fn() -> Result<T>) -> T {
    match create() {
        Err(e) if e.kind() == ErrorKind::Conflict => open().unwrap(),
        created => created.unwrap(),
    }
}

impl Operator {
    /// The name of its room.
    pub const ROOM: &'static str = "test";

    /// Root and watermark in files of a folder, for the processes that share it.
    pub fn in_folder(folder: &Path) -> Self {
        let (root, watermark) = (folder.join("root.json"), folder.join("watermark"));
        let root = opened(|| LocalRoot::create(&root), || LocalRoot::open(&root));
        let watermark = opened(|| FileWatermark::create(&watermark), || FileWatermark::open(&watermark));
        Self { root, watermark: Arc::new(watermark) }
    }

    /// `builder` with this operator's room, root and watermark.
    pub fn equip(&self, builder: StrongroomBuilder) -> StrongroomBuilder {
        builder.room(Self::ROOM).root(self.root.clone()).watermark(Arc::clone(&self.watermark))
    }
}

impl StrongroomBuilder {
    /// Builds the room under `operator`'s root; creates it if the store has none.
    ///
    /// # Errors
    /// As [`StrongroomBuilder::build`].
    pub async fn try_open_under(self, operator: &Operator) -> Result<Strongroom> {
        let builder = operator.equip(self);
        match builder.create_room("a test", "its first room").await {
            Err(e) if e.kind() != ErrorKind::Conflict => Err(e),
            _ => builder.build().await,
        }
    }

    /// [`Self::try_open_under`], where nothing is in its way.
    pub async fn open_under(self, operator: &Operator) -> Strongroom {
        self.try_open_under(operator).await.unwrap()
    }
}
