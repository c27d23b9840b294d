//! Finding a key: in hand, or in the file, which another process may have changed.
//!
//! Each call looks whether the file is the one that was read. What it says then counts: KEKs and versions that were added,
//! disabled, destroyed. What rests under a root KEK and is new is unwrapped when it is needed: so an outage of the root's KMS
//! stops nobody who does not need a new key.

use std::sync::{PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::key::kek::KekUri;
use crate::kms::local::{HeldKey, LocalKms, no_such_kek};
use crate::kms::local_wrapping::not_wrapped_here;

/// How long a failure of the root KEK is told to those who come next, instead of asking it again.
const REMEMBERED: Duration = Duration::from_secs(5);

enum Found {
    Key(u32, HeldKey),
    NoVersion,
    NoKek,
}

/// What a look at the file came to.
pub(crate) enum Looked {
    /// What is in hand is what is in the file.
    AsTheFile,
    /// This process is at the file, and may wait there for another one.
    Busy,
}

impl LocalKms {
    /// The key of `version` of `kek`, or of its newest version.
    ///
    /// # Errors
    /// `Denied` if there is none or the KEK is disabled; those of the file and of the root KEK if nobody knows.
    pub(crate) async fn key(&self, kek: &KekUri, version: Option<u32>) -> Result<(u32, HeldKey)> {
        let looked = self.look();
        if let Found::Key(version, key) = self.find(kek, version)? {
            return Ok((version, key));
        }
        self.wait_for(looked?).await?;
        let fetched = self.fetch(kek, version).await;
        match (self.find(kek, version)?, fetched) {
            (Found::Key(version, key), _) => Ok((version, key)),
            // Under the newest version in hand as well: an outage of the root's KMS stops no tenant.
            (_, Err(e)) => version.is_none().then(|| self.newest_in_hand(kek)).flatten().ok_or(e),
            (Found::NoVersion, Ok(())) => Err(not_wrapped_here()),
            (Found::NoKek, Ok(())) => Err(no_such_kek(kek.name())),
        }
    }

    /// Takes over what another process changed in the file.
    ///
    /// # Errors
    /// Those of the file; the KEKs stay as they were.
    pub(crate) fn look(&self) -> Result<Looked> {
        if self.file.as_ref().is_none_or(|file| file.is_taken()) {
            return Ok(Looked::AsTheFile);
        }
        let medium = match self.medium.try_lock() {
            Ok(medium) => medium,
            Err(TryLockError::Poisoned(e)) => e.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(Looked::Busy),
        };
        let taken = self.take_over(&medium);
        if let Err(e) = &taken {
            tracing::warn!(error = %e, "the KEK file was changed and does not read; going on with the KEKs as they were");
        }
        taken.map(|()| Looked::AsTheFile)
    }

    /// Where somebody else was at the file, waits for it: who does not find a key in hand must not be told that there is none.
    pub(crate) async fn wait_for(&self, looked: Looked) -> Result<()> {
        if let Looked::AsTheFile = looked {
            return Ok(());
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return self.reload() };
        let kms = self.clone();
        let ended_early =
            |e| Error::new(ErrorKind::Unavailable, "the reading of the KEK file ended early; retry").with_source(e);
        runtime.spawn_blocking(move || kms.reload()).await.map_err(ended_early)?
    }

    fn find(&self, kek: &KekUri, version: Option<u32>) -> Result<Found> {
        let keks = self.keks.read().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = keks.get(kek.name()) else { return Ok(Found::NoKek) };
        if !found.enabled {
            return Err(Error::new(ErrorKind::Denied, "the KEK is disabled; its owner can enable it"));
        }
        let version = version.unwrap_or(found.newest);
        Ok(found.versions.get(&version).map_or(Found::NoVersion, |key| Found::Key(version, key.clone())))
    }

    fn newest_in_hand(&self, kek: &KekUri) -> Option<(u32, HeldKey)> {
        let keks = self.keks.read().unwrap_or_else(PoisonError::into_inner);
        keks.get(kek.name())?.versions.last_key_value().map(|(version, key)| (*version, key.clone()))
    }

    /// Has the root KEK, if there is one, unwrap what another process added.
    async fn fetch(&self, kek: &KekUri, version: Option<u32>) -> Result<()> {
        if self.root.is_none() {
            return Ok(());
        }
        let mut failed = self.fetching.lock().await;
        if let Found::Key(..) = self.find(kek, version)? {
            return Ok(()); // who came before has fetched it
        }
        if let Some((since, e)) = &*failed
            && since.elapsed() < REMEMBERED
        {
            return Err(e.clone());
        }
        let fetched = self.fetch_all().await;
        *failed = fetched.as_ref().err().map(|e| (Instant::now(), e.clone()));
        fetched
    }
}
