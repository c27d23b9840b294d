//! The census: which data keys a tenant's envelopes still refer to, by their headers alone.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::format::file;
use crate::format::header::Header;
use crate::key::cutoff::Cutoff;
use crate::key::id::{KeyId, TenantId};
use crate::key::region::Region;

/// Counts the envelopes of one tenant by region and data key. Headers suffice; no key is needed.
///
/// Begun by [`Admin::census`](crate::Admin::census) and [complete](Self::complete), it proves as much as is put into it: every
/// table and bucket that holds envelopes of the tenant. Begun by itself it serves reports.
///
/// ```
/// # let envelope = [&[0xF5, 1, 5][..], b"eu-de", &[9; 32], &[0; 40]].concat();
/// # let now = 0;
/// let mut census = strongroom::Census::begin(now);
/// census.add(&envelope)?;
/// assert_eq!(census.references(&strongroom::KeyId::from_bytes([9; 32])), 1);
/// assert_eq!(census.references(&strongroom::KeyId::from_bytes([8; 32])), 0);
/// # Ok::<(), strongroom::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Census {
    began_at: i64,
    cutoff: Option<Arc<Cutoff>>,
    envelopes: BTreeMap<KeyId, BTreeMap<Region, u64>>,
    /// What was given to be counted, and is no envelope.
    refused: u64,
}

impl Census {
    /// A census of nothing yet, begun at `now` (Unix milliseconds): for reports. It proves no absence.
    pub fn begin(now: i64) -> Self {
        Self { began_at: now, cutoff: None, envelopes: BTreeMap::new(), refused: 0 }
    }

    pub(crate) fn after(cutoff: Arc<Cutoff>, now: i64) -> Self {
        Self { cutoff: Some(cutoff), ..Self::begin(now) }
    }

    /// Counts an envelope, message or file, by its first bytes: 131 suffice for a message, 139 for a file.
    ///
    /// # Errors
    /// `Malformed` if it is neither. Then the census cannot be completed any more: what is not counted is not proven.
    pub fn add(&mut self, envelope: &[u8]) -> Result<()> {
        let counted = self.count(envelope);
        self.refused += u64::from(counted.is_err());
        counted
    }

    fn count(&mut self, envelope: &[u8]) -> Result<()> {
        let header = Header::parse(envelope.strip_prefix(&file::MAGIC).unwrap_or(envelope))?;
        let region = Region::new(header.region())?;
        let of_key = self.envelopes.entry(KeyId::from_bytes(*header.key_id())).or_default();
        *of_key.entry(region).or_default() += 1;
        Ok(())
    }

    /// Says that every envelope of the tenant was counted.
    ///
    /// # Errors
    /// `Conflict` if something was no envelope; or if nothing was counted: a census that nobody fed says that every key can go.
    pub fn complete(self) -> Result<CompleteCensus> {
        if self.envelopes.is_empty() {
            let message = "the census counted no envelope; if the tenant has none, say so: complete_without_envelopes";
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        self.completed()
    }

    /// Says that the tenant has no envelope anywhere.
    ///
    /// # Errors
    /// `Conflict` if one was counted, or something was no envelope.
    pub fn complete_without_envelopes(self) -> Result<CompleteCensus> {
        if !self.envelopes.is_empty() {
            return Err(Error::new(ErrorKind::Conflict, "the census counted envelopes"));
        }
        self.completed()
    }

    fn completed(self) -> Result<CompleteCensus> {
        if self.refused > 0 {
            let message = format!(
                "{} rows given to the census are no envelopes and were not counted; what is not counted is not proven",
                self.refused
            );
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        Ok(CompleteCensus(self))
    }

    /// When it began, in Unix milliseconds.
    pub fn began_at(&self) -> i64 {
        self.began_at
    }

    /// How many envelopes refer to a data key.
    pub fn references(&self, key_id: &KeyId) -> u64 {
        self.envelopes.get(key_id).map_or(0, |regions| regions.values().sum())
    }

    /// How many envelopes are in a region.
    pub fn in_region(&self, region: &Region) -> u64 {
        self.envelopes.values().filter_map(|regions| regions.get(region)).sum()
    }

    /// Key, region and how many envelopes have both, in order.
    pub fn counts(&self) -> impl Iterator<Item = (&KeyId, &Region, u64)> {
        self.envelopes.iter().flat_map(|(id, regions)| regions.iter().map(move |(region, count)| (id, region, *count)))
    }
}

/// A census that says that it counted every envelope of the tenant: what proofs of absence are made of.
#[derive(Clone, Debug)]
pub struct CompleteCensus(Census);

impl Deref for CompleteCensus {
    type Target = Census;

    fn deref(&self) -> &Census {
        &self.0
    }
}

impl CompleteCensus {
    /// What sealed no more when it began.
    ///
    /// # Errors
    /// `InvalidArgument` if it was begun without that, or for another tenant.
    pub(crate) fn cutoff(&self, tenant: &TenantId) -> Result<&Cutoff> {
        let cutoff = self.0.cutoff.as_deref().filter(|cutoff| cutoff.tenant() == tenant);
        cutoff.ok_or_else(|| {
            Error::invalid("a census that is to prove something begins with this tenant's Admin::cutoff")
        })
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
        assert!(census.complete().is_err(), "four rows were no envelopes");
    }

    #[test]
    fn nothing_counted_is_nothing_proven() {
        let counted = |rows: u8| {
            let mut census = Census::begin(5);
            (0..rows).for_each(|n| census.add(&[&[0xF5, 1, 2][..], b"eu", &[n; 32]].concat()).unwrap());
            census
        };
        assert!(counted(0).complete().is_err() && counted(0).complete_without_envelopes().is_ok());
        assert!(counted(1).complete().is_ok() && counted(1).complete_without_envelopes().is_err());
        let acme = TenantId::new("acme").unwrap();
        assert!(counted(1).complete().unwrap().cutoff(&acme).is_err(), "begun without a cutoff");
    }
}
