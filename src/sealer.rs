//! Floor 5, the data plane: sealing and opening messages. Nothing here can change a key.

use std::sync::Arc;
use std::time::Duration;

use crate::crypto::message::SealFailure;
use crate::crypto::secret::Plaintext;
use crate::error::{Error, ErrorKind, Result};
use crate::format::context::Field;
use crate::format::header::Header;
use crate::format::message::{self, OVERHEAD};
use crate::key::id::{KeyId, TenantId};
use crate::key::scope::Scope;
use crate::keyring::Keyring;
use crate::keyring::cache::{CachedKey, SlotRef};
use crate::keyring::flight::Wanted;
use crate::keyring::hands::Held;
use crate::keyring::rows::TenantRow;

/// What errors of opening say was being done.
pub(crate) const OPEN: &str = "open";

/// Most tries to get a sealing key that still has time and messages left when it arrives.
const TRIES: usize = 4;

/// A tenant, as the data plane sees it. Cheap to clone.
///
/// It cannot reach the control plane:
///
/// ```compile_fail
/// async fn rotate(tenant: &strongroom::TenantHandle) { tenant.admin("ops@example.com", "an example")?; }
/// ```
/// ```compile_fail
/// async fn rotate(tenant: &strongroom::TenantHandle) { tenant.rotate(&[]).await; }
/// ```
#[derive(Clone)]
pub struct TenantHandle {
    keyring: Arc<Keyring>,
    row: Arc<TenantRow>,
}

impl TenantHandle {
    pub(crate) fn new(keyring: Arc<Keyring>, row: TenantRow) -> Self {
        Self { keyring, row: Arc::new(row) }
    }

    /// Whose.
    pub fn id(&self) -> &TenantId {
        &self.row.tenant
    }

    /// A handle of the scope with these fields, in any order. It names exactly the fields of the tenant's policy. No I/O.
    ///
    /// # Errors
    /// `InvalidArgument` if they are others than the policy's, a name is given twice or a value is empty; `Limit` beyond
    /// 512 bytes in canonical form.
    pub fn scope<'a>(&self, fields: impl AsRef<[Field<'a>]>) -> Result<ScopeHandle> {
        let scope = Scope::new(fields.as_ref())
            .and_then(|scope| self.row.policy.check_scope(&scope).map(|()| scope))
            .map_err(|e| e.with_operation("scope").with_tenant(self.row.tenant.as_str()))?;
        let slot = self.keyring.slot(&self.row.tenant, &scope);
        let (_, scope) = slot.at().clone();
        Ok(ScopeHandle { slot: Arc::new(slot), keyring: Arc::clone(&self.keyring), row: Arc::clone(&self.row), scope })
    }
}

/// Seals and opens the messages of one scope. Cheap to clone; clones and other handles of the scope share its key.
///
/// Sealing and opening are work, done where they are called, and a message may have 16 MiB: that takes some milliseconds on a machine
/// with AES instructions, and up to half a second without them. In async code hand what is longer than about 1 MiB to
/// `spawn_blocking`, with a [`HotScope`](crate::HotScope), whose page shows how; files have `seal_file` and `open_file`, which do so
/// by themselves.
///
/// # Errors of loading a key
///
/// A call whose key is not in hand loads it, and then fails as `Denied`, `Unavailable`, `Throttled` or `KeyMismatch` where the KMS does;
/// as `Revoked`, `Erased` or `UnknownTenant`, or, to open, as `Suspended`, where the tenant or its room decided so; as `RolledBack`,
/// `Tampered`, `Malformed` or `StoreInconsistent` where what the key store shows is not believed; as `StoreFault`, `Unavailable` or
/// `Throttled` where the store or the watermark says so. A policy or region that allows it no more is `Region` or `InvalidArgument`.
///
/// ```
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # use strongroom::*;
/// # let kms = LocalKms::in_memory();
/// # let region = Region::new("eu-central-1")?;
/// # let kek = kms.create_kek("acme", region.clone())?;
/// # let room = Strongroom::builder().serving(["eu-central-1"]).key_store(MemoryKeyStore::default()).kms(kms).trusting_the_key_store().build().await?;
/// # room.admin("ops@example.com", "an example")?.enroll("acme", TenantPolicy::new(kek, region).scope_by(["channel"]).bind(["message"])).await?;
/// let channel = room.tenant("acme").await?.scope([("channel", "C9")])?;
/// let sealed = channel.seal(&[("message", "M77")], b"hello").await?;
/// assert_eq!(&*channel.open(&[("message", "M77")], &sealed).await?, b"hello");
/// assert!(channel.open(&[("message", "M78")], &sealed).await.is_err());
/// # Ok::<(), Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ScopeHandle {
    pub(crate) keyring: Arc<Keyring>,
    row: Arc<TenantRow>,
    pub(crate) scope: Scope,
    pub(crate) slot: Arc<SlotRef>,
}

/// What became of a try with the keys in hand.
pub(crate) enum InHand<T> {
    /// Done, or failed for good.
    Done(Result<T>),
    /// No key in hand: load it.
    Missing,
}

impl ScopeHandle {
    /// Whose.
    pub fn tenant(&self) -> &TenantId {
        &self.row.tenant
    }

    /// The scope itself.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Seals a message under the scope's Active key: an envelope of 75 bytes more than the plaintext, plus the region's
    /// name ([`Self::sealed_len`]). `context` is authenticated, not stored, and has to be given again to open.
    ///
    /// With the key cached: no I/O, no waiting for a lock, one allocation.
    ///
    /// # Errors
    /// `Region` if the tenant's home region is not served here; as every load of a key
    /// ([`ScopeHandle`](crate::ScopeHandle#errors-of-loading-a-key)) if it is not in hand; `Limit` beyond 16 MiB or the
    /// limits of contexts; `InvalidArgument` for a context that lacks a field that the policy binds messages to
    /// ([`TenantPolicy::bind`]), or names one twice.
    ///
    /// [`TenantPolicy::bind`]: crate::TenantPolicy::bind
    pub async fn seal(&self, context: &[Field<'_>], plaintext: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(self.sealed_len(plaintext.len()));
        match self.seal_in_hand(context, plaintext, &mut out) {
            InHand::Done(sealed) => sealed,
            // In a box, so that the hot path does not carry the state of a load about.
            InHand::Missing => Box::pin(self.seal_loading(context, plaintext, &mut out)).await,
        }
        .map_err(|e| self.explain(e, "seal"))?;
        Ok(out)
    }

    /// How long the envelope of a message of `len` bytes is: 75 bytes and the region's name more. It goes by the home region that
    /// the tenant had when this handle was asked for: ask for another handle after a migration.
    pub fn sealed_len(&self, len: usize) -> usize {
        len.saturating_add(OVERHEAD + self.row.policy.home_region().as_str().len())
    }

    /// [`Self::seal`], appended to `out`; on failure `out` is as it was. Allocates only if `out` lacks room.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub async fn seal_into(&self, context: &[Field<'_>], plaintext: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match self.seal_in_hand(context, plaintext, out) {
            InHand::Done(sealed) => sealed,
            InHand::Missing => Box::pin(self.seal_loading(context, plaintext, out)).await,
        }
        .map_err(|e| self.explain(e, "seal"))
    }

    /// [`Self::open_in_place`] into a buffer of its own, wiped on drop.
    ///
    /// # Errors
    /// As [`Self::open_in_place`].
    pub async fn open(&self, context: &[Field<'_>], envelope: &[u8]) -> Result<Plaintext> {
        let mut text = Plaintext::empty();
        match self.open_in_hand(context, envelope, &mut text) {
            InHand::Done(opened) => opened,
            InHand::Missing => match Box::pin(self.load_for(envelope)).await {
                Ok(key) => self.open_with(&key, context, envelope, &mut text),
                Err(e) => Err(e),
            },
        }
        .map_err(|e| self.refused(e, envelope, OPEN))?;
        Ok(text)
    }

    /// Opens an envelope where it stands and returns the part of it that now is the plaintext; `context` is the one it was
    /// sealed with. No allocation. If it is refused after parsing, its ciphertext may be overwritten.
    ///
    /// # Errors
    /// `Malformed` if the bytes are no envelope; `Region` if its region is not served here (before any KMS or store call);
    /// `InvalidArgument` or `Limit` for a context with which nothing is sealed under its key; `Unopenable` if it does not
    /// open here, whatever the reason; as every load of a key ([`ScopeHandle`](crate::ScopeHandle#errors-of-loading-a-key))
    /// if it is not in hand.
    pub async fn open_in_place<'b>(&self, context: &[Field<'_>], envelope: &'b mut [u8]) -> Result<&'b mut [u8]> {
        let opened = match self.open_in_place_in_hand(context, envelope) {
            InHand::Done(opened) => opened,
            InHand::Missing => match Box::pin(self.load_for(envelope)).await {
                Ok(key) => self.open_in_place_with(&key, context, envelope),
                Err(e) => Err(e),
            },
        };
        self.opened_part(opened, envelope)
    }

    /// The plaintext of an envelope that was opened where it stood.
    pub(crate) fn opened_part<'b>(&self, opened: Result<()>, envelope: &'b mut [u8]) -> Result<&'b mut [u8]> {
        match opened {
            Ok(()) => message::opened_part(envelope).map_err(|e| self.explain(e, OPEN)),
            Err(e) => Err(self.refused(e, envelope, OPEN)),
        }
    }

    /// As [`Self::explain`]. Why an envelope does not open is told to the operator's log, not to the caller.
    #[cold]
    pub(crate) fn refused(&self, e: Error, envelope: &[u8], operation: &'static str) -> Error {
        if e.kind() == ErrorKind::Unopenable
            && let Ok(key_id) = named_key(envelope)
        {
            tracing::info!(tenant = %self.tenant(), %key_id, operation, reason = e.reason(), "an envelope does not open");
        }
        self.explain(e, operation)
    }

    pub(crate) fn explain(&self, e: Error, operation: &'static str) -> Error {
        let e = e.with_tenant(self.row.tenant.as_str());
        let e = if e.operation().is_empty() { e.with_operation(operation) } else { e };
        e.with_region(self.row.policy.home_region().as_str())
    }

    /// Seals with the key in the scope's slot. The hot path: one clock read, one exchange, the cipher.
    #[inline]
    pub(crate) fn seal_in_hand(&self, context: &[Field<'_>], plaintext: &[u8], out: &mut Vec<u8>) -> InHand<()> {
        match self.with_sealing_key_in_hand(plaintext.len(), |held, now| seal_with(held, now, context, plaintext, out))
        {
            InHand::Missing => self.seal_after_turn(context, plaintext, out),
            done @ InHand::Done(_) => done,
        }
    }

    /// The first seal of a period: with the key that was made ahead of time, if one waits. No I/O.
    #[cold]
    #[inline(never)]
    fn seal_after_turn(&self, context: &[Field<'_>], plaintext: &[u8], out: &mut Vec<u8>) -> InHand<()> {
        if !self.keyring.take_over(self.slot.slot()) {
            return InHand::Missing;
        }
        self.with_sealing_key_in_hand(plaintext.len(), |held, now| seal_with(held, now, context, plaintext, out))
    }

    /// Runs `work` on the Active key, if it is in hand and may be used now, for a message of `len` bytes.
    #[inline]
    pub(crate) fn with_sealing_key_in_hand<T>(
        &self,
        len: usize,
        work: impl FnOnce(&mut Held, Duration) -> InHand<T>,
    ) -> InHand<T> {
        let now = self.keyring.now();
        if !self.keyring.watch.is_leased(now) {
            return InHand::Missing;
        }
        let (mut done, mut wants_refresh) = (InHand::Missing, false);
        self.slot.slot().with(len, |held| {
            if now < held.key().seals_until {
                wants_refresh = held.key().wants_refresh(now);
                done = work(held, now);
            }
        });
        if wants_refresh {
            self.keyring.refresh(self.sealing());
        }
        done
    }

    async fn seal_loading(&self, context: &[Field<'_>], plaintext: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.keyring.check_served(self.row.policy.home_region().as_str())?;
        for _ in 0..TRIES {
            let key = self.keyring.sealing_key(&self.row.tenant, &self.scope).await?;
            if let InHand::Done(sealed) = self.seal_in_hand(context, plaintext, out) {
                return sealed;
            }
            // It was taken out again as soon as it had come: that it came is enough for this message.
            let now = self.keyring.now();
            if now < key.seals_until
                && let InHand::Done(sealed) = seal_with(&mut Held::new(key), now, context, plaintext, out)
            {
                return sealed;
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the sealing key was spent or expired each time it arrived: the KMS is slower than the policy's cache time to \
             live, or its rotation limits are too small; retry",
        ))
    }

    pub(crate) fn sealing(&self) -> Wanted {
        Wanted::Sealing(self.row.tenant.clone(), self.scope.clone())
    }

    /// Opens with a key in hand. What is opened comes into `text`.
    #[inline]
    pub(crate) fn open_in_hand(&self, context: &[Field<'_>], envelope: &[u8], text: &mut Plaintext) -> InHand<()> {
        if let Some(opened) = self.with_slot_key(envelope.len(), |held| held.open(envelope, context, text)) {
            return InHand::Done(opened);
        }
        match named_key(envelope) {
            Ok(key_id) => {
                let opened = self.with_key_id_in_hand(&key_id, |key| self.open_with(key, context, envelope, text));
                self.unless_elsewhere(opened, envelope)
            }
            Err(e) => InHand::Done(Err(e)),
        }
    }

    pub(crate) fn open_with(
        &self,
        key: &CachedKey,
        context: &[Field<'_>],
        envelope: &[u8],
        text: &mut Plaintext,
    ) -> Result<()> {
        let opened = self.is_of_scope(key).then(|| key.key.open(None, envelope, context, text)).flatten();
        opened.unwrap_or_else(|| Err(self.misnamed(envelope)))
    }

    fn open_in_place_with(&self, key: &CachedKey, context: &[Field<'_>], envelope: &mut [u8]) -> Result<()> {
        let opened = self.is_of_scope(key).then(|| key.key.open_in_place(None, envelope, context)).flatten();
        opened.unwrap_or_else(|| Err(self.misnamed(envelope)))
    }

    /// Why an envelope is refused whose header or scope is not the key's: as if the key were not cached.
    #[cold]
    fn misnamed(&self, envelope: &[u8]) -> Error {
        let header = Header::read(envelope).and_then(|(header, _)| {
            self.keyring.check_served(header.region())?;
            Ok(header)
        });
        match header.and_then(|_| message::parse(envelope)) {
            Ok(_) => Error::unopenable().because("its scope, region or suite is another than its key's"),
            Err(e) => e,
        }
    }

    /// Opens in place with a key in hand.
    #[inline]
    pub(crate) fn open_in_place_in_hand(&self, context: &[Field<'_>], envelope: &mut [u8]) -> InHand<()> {
        if let Some(opened) = self.with_slot_key(envelope.len(), |held| held.open_in_place(envelope, context)) {
            return InHand::Done(opened);
        }
        match named_key(envelope) {
            Ok(key_id) => {
                let opened = self.with_key_id_in_hand(&key_id, |key| self.open_in_place_with(key, context, envelope));
                self.unless_elsewhere(opened, envelope)
            }
            Err(e) => InHand::Done(Err(e)),
        }
    }

    /// The hot path of opening: runs `work` with the slot's key, for a message of `len` bytes, if it may be used now. `None` too
    /// if the message names another key.
    #[inline]
    fn with_slot_key(&self, len: usize, work: impl FnOnce(&mut Held) -> Option<Result<()>>) -> Option<Result<()>> {
        let now = self.keyring.now();
        if !self.keyring.watch.opens(now) {
            return None;
        }
        let (mut done, mut wants_refresh) = (None, false);
        self.slot.slot().with(len, |held| {
            if now < held.key().opens_until {
                done = work(held);
                wants_refresh = done.is_some() && held.key().wants_refresh(now);
            }
        });
        if wants_refresh && let Some(key) = self.slot.slot().current() {
            self.keyring.refresh(Wanted::Opening(self.row.tenant.clone(), *key.key.key_id()));
        }
        done
    }

    /// Runs `work` with the key of that id, if it is in hand. Whether it is of this scope, `work` asks.
    pub(crate) fn with_key_id_in_hand<T>(
        &self,
        key_id: &KeyId,
        work: impl FnOnce(&Arc<CachedKey>) -> Result<T>,
    ) -> InHand<T> {
        let now = self.keyring.now();
        if !self.keyring.watch.opens(now) {
            return InHand::Missing;
        }
        let found = self.keyring.cache.with_opening(&self.row.tenant, key_id, now, |key| {
            if key.wants_refresh(now) {
                self.keyring.refresh(Wanted::Opening(self.row.tenant.clone(), *key.key.key_id()));
            }
            work(key)
        });
        found.map_or(InHand::Missing, InHand::Done)
    }

    pub(crate) fn is_of_scope(&self, key: &CachedKey) -> bool {
        *key.key.scope() == self.scope
    }

    /// A key that is missing is not asked for if the envelope's region is not served here.
    fn unless_elsewhere<T>(&self, tried: InHand<T>, envelope: &[u8]) -> InHand<T> {
        if let InHand::Missing = tried
            && let Err(e) = Header::parse(envelope).and_then(|header| self.keyring.check_served(header.region()))
        {
            return InHand::Done(Err(e));
        }
        tried
    }

    /// Loads the key that opens `envelope`.
    async fn load_for(&self, envelope: &[u8]) -> Result<Arc<CachedKey>> {
        let key_id = KeyId::from_bytes(*message::parse(envelope)?.0.key_id());
        self.load_opening(&key_id).await
    }

    pub(crate) async fn load_opening(&self, key_id: &KeyId) -> Result<Arc<CachedKey>> {
        let key = self.keyring.opening_key(&self.row.tenant, key_id).await?;
        if self.keyring.now() < key.opens_until {
            return Ok(key);
        }
        Err(Error::new(ErrorKind::Unavailable, "the KMS took longer than the policy's cache time to live; retry"))
    }

    pub(crate) async fn load_sealing(&self) -> Result<Arc<CachedKey>> {
        self.keyring.check_served(self.row.policy.home_region().as_str())?;
        self.keyring.sealing_key(&self.row.tenant, &self.scope).await
    }
}

/// Which key an envelope names.
fn named_key(envelope: &[u8]) -> Result<KeyId> {
    Header::read(envelope).map(|(header, _)| KeyId::from_bytes(*header.key_id()))
}

/// A synchronous handle lacks the scope's Active key.
#[cold]
pub(crate) fn not_loaded_to_seal() -> Error {
    Error::new(ErrorKind::NotLoaded, "the scope's Active key is not in hand; await `refresh`, then seal again")
}

/// A synchronous handle lacks the key that an envelope names, which may be an older one: `refresh` does not load that.
#[cold]
pub(crate) fn not_loaded_to_open() -> Error {
    let message =
        "the key that this envelope names is not in hand; await `prepare` with this envelope, then open it again";
    Error::new(ErrorKind::NotLoaded, message)
}

#[inline]
pub(crate) fn seal_with(
    held: &mut Held,
    now: Duration,
    context: &[Field<'_>],
    plaintext: &[u8],
    out: &mut Vec<u8>,
) -> InHand<()> {
    match held.seal_into(now, context, plaintext, out) {
        Ok(()) => InHand::Done(Ok(())),
        Err(SealFailure::Failed(e)) => InHand::Done(Err(e)),
        Err(SealFailure::Spent) => InHand::Missing,
    }
}
