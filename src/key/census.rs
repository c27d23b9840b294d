//! The census: which data keys a tenant's envelopes still refer to, by their headers alone.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::format::file;
use crate::format::header::Header;
use crate::key::id::KeyId;
use crate::key::region::Region;

/// Counts the envelopes of one tenant by region and data key. Headers suffice; no key is needed.
///
/// It proves as much as is put into it: every table and bucket that holds envelopes of the tenant, read after the census
/// began.
///
/// ```
/// # let envelope = [&[0xF5, 1, 5][..], b"eu-de", &[9; 32], &[0; 40]].concat();
/// # let now = 0;
/// let mut census = strongroom::Census::begin(now); // `Admin::census` takes the room's clock
/// census.add(&envelope)?;
/// assert_eq!(census.references(&strongroom::KeyId::from_bytes([9; 32])), 1);
/// assert_eq!(census.references(&strongroom::KeyId::from_bytes([8; 32])), 0);
/// # Ok::<(), strongroom::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Census {
    began_at: i64,
    envelopes: BTreeMap<(KeyId, Region), u64>,
}

impl Census {
    /// A census of nothing yet, begun at `now` (Unix milliseconds).
    pub fn begin(now: i64) -> Self {
        Self { began_at: now, envelopes: BTreeMap::new() }
    }

    /// Counts an envelope, message or file, by its first bytes: 131 suffice for a message, 139 for a file.
    ///
    /// # Errors
    /// `Malformed` if it is neither. Do not pass over such an error: what is not counted is not proven.
    pub fn add(&mut self, envelope: &[u8]) -> Result<()> {
        let header = Header::parse(envelope.strip_prefix(&file::MAGIC).unwrap_or(envelope))?;
        let at = (KeyId::from_bytes(*header.key_id()), Region::new(header.region())?);
        *self.envelopes.entry(at).or_default() += 1;
        Ok(())
    }

    /// When it began, in Unix milliseconds.
    pub fn began_at(&self) -> i64 {
        self.began_at
    }

    /// How many envelopes refer to a data key.
    pub fn references(&self, key_id: &KeyId) -> u64 {
        self.envelopes.iter().filter(|((id, _), _)| id == key_id).map(|(_, count)| count).sum()
    }

    /// How many envelopes are in a region.
    pub fn in_region(&self, region: &Region) -> u64 {
        self.envelopes.iter().filter(|((_, r), _)| r == region).map(|(_, count)| count).sum()
    }

    /// Key, region and how many envelopes have both, in order.
    pub fn counts(&self) -> impl Iterator<Item = (&KeyId, &Region, u64)> {
        self.envelopes.iter().map(|((id, region), count)| (id, region, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_files_count_and_other_bytes_do_not() {
        let header = [&[0xF5, 1, 2][..], b"eu", &[9; 32]].concat();
        let mut census = Census::begin(5);
        census.add(&header).unwrap();
        census.add(&[&file::MAGIC[..], &header].concat()).unwrap();
        census.add(&[&[0xF5, 1, 2][..], b"us", &[9; 32]].concat()).unwrap();
        for bad in [&b"hello"[..], &[], &header[..36], &file::MAGIC] {
            assert!(census.add(bad).is_err());
        }
        let (eu, us, key) = (Region::new("eu").unwrap(), Region::new("us").unwrap(), KeyId::from_bytes([9; 32]));
        assert_eq!((census.in_region(&eu), census.in_region(&us), census.references(&key)), (2, 1, 3));
        assert_eq!((census.counts().count(), census.began_at()), (2, 5));
    }
}
