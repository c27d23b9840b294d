//! The synchronous handle: for code that seals and opens where it cannot await.

use crate::crypto::secret::Plaintext;
use crate::error::{Error, Result};
use crate::format::context::Field;
use crate::format::header::Header;
use crate::key::id::KeyId;
use crate::sealer::{InHand, OPEN, ScopeHandle, not_loaded_to_open, not_loaded_to_seal};

/// A scope whose key is in hand: seals and opens without awaiting, or says [`NotLoaded`](crate::ErrorKind::NotLoaded).
///
/// Its key ends like any other: by its time to live, by rotation, by revocation. While calls go on it is loaded again in the
/// background before it expires; after `NotLoaded`, await [`Self::refresh`] (to seal) or [`Self::prepare`] with the very envelope
/// (to open, also under an older key) and retry.
///
/// Long messages are for other threads than an executor's. Sealing and opening are work, not waiting, and go on for as long as the
/// cipher takes: for 16 MiB some milliseconds on a machine with AES instructions, and up to half a second without them. In async
/// code hand what is longer than about 1 MiB over:
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # use strongroom::*;
/// # let kms = LocalKms::in_memory();
/// # let region = Region::new("eu-central-1")?;
/// # let kek = kms.create_kek("acme", region.clone())?;
/// # let room = Strongroom::builder().serving(["eu-central-1"]).key_store(MemoryKeyStore::default()).kms(kms).trusting_the_key_store().build().await?;
/// # room.admin("ops@example.com", "an example")?.enroll("acme", TenantPolicy::new(kek, region).bind(["message"])).await?;
/// # let scope = room.tenant("acme").await?.scope([])?;
/// # let long = vec![0; 1 << 20];
/// let hot = scope.hot().await?;
/// let sealed = tokio::task::spawn_blocking(move || hot.seal(&[("message", "M1")], &long)).await.expect("no panic")?;
/// # assert_eq!(sealed.len(), scope.sealed_len(1 << 20));
/// # Ok::<(), Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// In a process that is forked off it goes on sealing and opening, under nonces of its own, for as long as the lease lasts that it
/// inherited: at most the [revocation bound](crate::StrongroomBuilder::revocation_bound). Then it says `NotLoaded` and cannot be
/// refreshed, because a Tokio runtime does not survive `fork`: build another room there.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # use strongroom::*;
/// # let kms = LocalKms::in_memory();
/// # let region = Region::new("eu-central-1")?;
/// # let kek = kms.create_kek("acme", region.clone())?;
/// # let room = Strongroom::builder().serving(["eu-central-1"]).key_store(MemoryKeyStore::default()).kms(kms).trusting_the_key_store().build().await?;
/// # room.admin("ops@example.com", "an example")?.enroll("acme", TenantPolicy::new(kek, region).bind(["message"])).await?;
/// # let scope = room.tenant("acme").await?.scope([])?;
/// let hot = scope.hot().await?;
/// let mut buffer = Vec::with_capacity(4096);
/// hot.seal_into(&[("message", "M1")], b"hello", &mut buffer)?; // no await, no allocation
/// assert_eq!(hot.open_in_place(&[("message", "M1")], &mut buffer)?, b"hello");
/// # Ok::<(), Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct HotScope {
    scope: ScopeHandle,
}

impl ScopeHandle {
    /// A synchronous handle of this scope, its sealing key loaded.
    ///
    /// # Errors
    /// As [`ScopeHandle::seal`]'s for keys.
    pub async fn hot(&self) -> Result<HotScope> {
        let hot = HotScope { scope: self.clone() };
        hot.refresh().await?;
        Ok(hot)
    }
}

impl HotScope {
    /// Loads the scope's Active key.
    ///
    /// # Errors
    /// As [`ScopeHandle::seal`]'s for keys.
    pub async fn refresh(&self) -> Result<()> {
        self.scope.load_sealing().await.map(|_| ()).map_err(|e| self.scope.explain(e, "refresh"))
    }

    /// Loads the key that opens `envelope`.
    ///
    /// # Errors
    /// As [`ScopeHandle::open`]'s for keys; `Malformed` if the bytes are no envelope.
    pub async fn prepare(&self, envelope: &[u8]) -> Result<()> {
        let loaded = match Header::parse(envelope) {
            Ok(header) => match self.scope.keyring.check_served(header.region()) {
                Ok(()) => self.scope.load_opening(&KeyId::from_bytes(*header.key_id())).await,
                Err(e) => Err(e),
            },
            Err(e) => Err(e),
        };
        loaded.map(|_| ()).map_err(|e| self.scope.refused(e, envelope, "prepare"))
    }

    /// As [`ScopeHandle::seal`], with the key in hand.
    ///
    /// # Errors
    /// `NotLoaded` if there is none: await [`Self::refresh`]; else as [`ScopeHandle::seal`]'s for messages.
    pub fn seal(&self, context: &[Field<'_>], plaintext: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(self.scope.sealed_len(plaintext.len()));
        let sealed = in_hand(self.scope.seal_in_hand(context, plaintext, &mut out), not_loaded_to_seal);
        sealed.map_err(|e| self.scope.explain(e, "seal"))?;
        Ok(out)
    }

    /// As [`ScopeHandle::seal_into`], with the key in hand.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub fn seal_into(&self, context: &[Field<'_>], plaintext: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let sealed = in_hand(self.scope.seal_in_hand(context, plaintext, out), not_loaded_to_seal);
        sealed.map_err(|e| self.scope.explain(e, "seal"))
    }

    /// As [`ScopeHandle::open`], with the key in hand.
    ///
    /// # Errors
    /// `NotLoaded` if there is none: await [`Self::prepare`] with this envelope; `Malformed`, `Region`, `InvalidArgument`, `Limit` or `Unopenable` as there.
    pub fn open(&self, context: &[Field<'_>], envelope: &[u8]) -> Result<Plaintext> {
        let mut text = Plaintext::empty();
        let opened = in_hand(self.scope.open_in_hand(context, envelope, &mut text), not_loaded_to_open);
        opened.map_err(|e| self.scope.refused(e, envelope, OPEN))?;
        Ok(text)
    }

    /// As [`ScopeHandle::open_in_place`], with the key in hand.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_in_place<'b>(&self, context: &[Field<'_>], envelope: &'b mut [u8]) -> Result<&'b mut [u8]> {
        let opened = in_hand(self.scope.open_in_place_in_hand(context, envelope), not_loaded_to_open);
        self.scope.opened_part(opened, envelope)
    }
}

#[inline]
fn in_hand<T>(tried: InHand<T>, missing: fn() -> Error) -> Result<T> {
    match tried {
        InHand::Done(done) => done,
        InHand::Missing => Err(missing()),
    }
}
