//! How much a key store takes at once.

/// How many calls of the data plane a key store serves at once: see [`KeyStore::capacity`](crate::KeyStore::capacity).
///
/// ```
/// use strongroom::StoreCapacity;
///
/// let capacity = StoreCapacity::new(16, 4);
/// assert_eq!((capacity.reads, capacity.writes), (16, 4));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreCapacity {
    /// Loads that read rows at once, at least 1.
    pub reads: usize,
    /// Loads that write rows at once, at least 1. Counted apart, so that what waits for a lock to write keeps nobody from reading.
    pub writes: usize,
}

impl StoreCapacity {
    /// So many reads and writes at once.
    pub const fn new(reads: usize, writes: usize) -> Self {
        Self { reads, writes }
    }
}

impl Default for StoreCapacity {
    /// 32 reads and 16 writes.
    fn default() -> Self {
        Self::new(32, 16)
    }
}
