//! Import of a tenant's key into the local KMS (BYOK, feature `byok`), so that the key is never in plaintext on its way.
//!
//! 1. [`LocalKms::begin_import`] makes wrapping keys for this one import and gives their public halves in a ticket.
//! 2. The tenant wraps its key with one of them, on its HSM or with `openssl`.
//! 3. [`LocalKms::finish_import`] unwraps it, checks it, and keeps it as a KEK.
//!
//! The private halves rest where the KEKs do, under the root KEK if there is one, until the import is finished or its token
//! has expired (by the wall clock that the caller hands in); so a restart in between does no harm. Finishing replaces the file once, with the import gone and the KEK
//! there: whatever happens, it is the old file or the new one.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::crypto::aead::Refused;
use crate::crypto::key_transport::{Material, TransportKey, has_check_value, token_id};
use crate::crypto::random;
use crate::error::{Error, ErrorKind, Result};
use crate::key::kek::KekUri;
use crate::key::region::Region;
use crate::kms::import_ticket::{HPKE_INFO, ImportFormat, ImportTicket, KeyCheckValue};
use crate::kms::local::{LocalKms, take_brought_kek, uri};
use crate::kms::local_content::{Content, MAX_IMPORTS, StoredImport};
use crate::kms::local_under_root::{load_import, store_import};

/// How long a token is good for: a day, as with AWS KMS.
const LIFE_MILLIS: i64 = 24 * 60 * 60 * 1000;

impl LocalKms {
    /// Begins the import of a tenant's key as the KEK `local:NAME`. The ticket is good for 24 hours by `clock` and for one
    /// KEK. Making its RSA-4096 key takes about a second, on a thread of its own if a Tokio runtime is there. Several
    /// imports under one name may be under way; the first to finish gets it.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use strongroom::{ImportFormat, KeyCheckValue, LocalKms, Region, SystemClock};
    ///
    /// let kms = LocalKms::in_memory();
    /// let ticket = kms.begin_import("acme-2026", Region::new("eu-central-1")?, &SystemClock).await?;
    /// assert!(ticket.rsa_public_key_pem().starts_with("-----BEGIN PUBLIC KEY-----\n"));
    ///
    /// // The tenant wraps its key with it; here, something went wrong on the way back.
    /// let wrapped = [0; 512];
    /// let check_value = KeyCheckValue::from_hex("377822")?;
    /// let refused = kms
    ///     .finish_import(ticket.token(), ImportFormat::RsaesOaepSha256, &wrapped, &check_value, &SystemClock)
    ///     .await;
    /// assert!(refused.unwrap_err().to_string().contains("does not unwrap"));
    /// # Ok::<(), strongroom::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is not 1 to 64 of `A-Z a-z 0-9 . _ -`; `Conflict` if there is a KEK of that name;
    /// `Limit` if 64 imports are under way; those of the root KEK and of the file as [`LocalKms::open_under`].
    pub async fn begin_import(&self, name: &str, region: Region, clock: &dyn Clock) -> Result<ImportTicket> {
        let kek = uri(name)?;
        let room = |content: &Content| {
            content.first_version(name)?; // whether the name is free
            if content.imports.len() >= MAX_IMPORTS {
                return Err(Error::limit("64 imports are under way: finish or cancel some, or wait until they expire"));
            }
            Ok(())
        };
        self.drop_expired_imports(clock)?;
        room(&self.content()?)?;
        let keys = new_keys().await?;
        let hpke_public = keys.x25519_public().map_err(|Refused| no_keys())?;
        let mut token = [0; 32];
        random::from_os(&mut token)?;
        let token = base16ct::lower::encode_string(&token);
        let (id, expires_at) = (token_id(&token), clock.unix_millis().saturating_add(LIFE_MILLIS));
        let whose = (name, &region, expires_at);
        let import = store_import(self.root.as_deref(), &id, whose, Arc::new(keys.to_bytes())).await?;
        self.change(None, |content| {
            room(content)?;
            content.imports.insert(id, import);
            Ok(())
        })?;
        tracing::info!(kek = %kek, region = %region, expires_at, "import of a KEK begun");
        Ok(ImportTicket { kek, region, token, expires_at, rsa_public: keys.rsa_public().to_vec(), hpke_public })
    }

    /// Finishes an import: unwraps the tenant's key, checks it against `check_value`, and keeps it as the KEK of the
    /// ticket. What is refused leaves the import under way, to be tried again; the token is used up by success.
    ///
    /// # Errors
    /// `InvalidArgument` if the token is unknown, used up or expired, the bytes do not unwrap in that format with that
    /// ticket's key, the key is not 32 bytes long, all its bytes are equal, or its check value is another; `Conflict` if
    /// there is a KEK of that name by now; those of the root KEK and of the file as [`LocalKms::open_under`]. No error
    /// shows anything of the key.
    pub async fn finish_import(
        &self,
        token: &str,
        format: ImportFormat,
        wrapped: &[u8],
        check_value: &KeyCheckValue,
        clock: &dyn Clock,
    ) -> Result<KekUri> {
        let id = token_id(token);
        let import = self.content()?.imports.remove(&id).ok_or_else(unknown_token)?;
        let kek = uri(&import.name)?;
        if clock.unix_millis() >= import.expires_at {
            self.drop_expired_imports(clock)?;
            return Err(Error::invalid("the import token has expired: begin the import again").with_kek(kek.as_str()));
        }
        let finished = async {
            let version = self.content()?.first_version(&import.name)?;
            let private_keys = load_import(self.root.as_deref(), &id, &import).await?;
            let mut material = unwrap(&private_keys, format, &kek, wrapped)?;
            let key = take_brought_kek(&mut material).map_err(|e| Error::invalid(WEAK).with_source(e))?;
            if !has_check_value(&key, check_value.bytes()).map_err(|Refused| no_keys())? {
                return Err(Error::invalid(OTHER_CHECK_VALUE));
            }
            let StoredImport { name, region, .. } = &import;
            let held = self.at_rest(name, version, region, key).await?;
            self.change(Some((name, version, &held)), |content| {
                // Somebody else may have finished or cancelled it while the root KMS was asked.
                content.imports.remove(&id).ok_or_else(unknown_token)?;
                content.insert(name, region.clone(), version, held.stored())
            })
        };
        finished.await.map_err(|e| e.with_kek(kek.as_str()).with_operation("finish import"))?;
        tracing::info!(kek = %kek, region = %import.region, ?format, check_value = %check_value, "KEK imported");
        Ok(kek)
    }

    /// Gives an import up: its token is worth nothing from now on.
    ///
    /// # Errors
    /// `InvalidArgument` if the token is unknown, used up or expired.
    pub fn cancel_import(&self, token: &str) -> Result<()> {
        let id = token_id(token);
        self.change(None, |content| content.imports.remove(&id).map(|_| ()).ok_or_else(unknown_token))
    }

    /// Removes the wrapping keys of imports that have expired by `clock`, and says how many there were. The other calls
    /// about imports do so as well; call it now and then where none is made.
    ///
    /// # Errors
    /// Those of the file, as [`LocalKms::open`].
    pub fn drop_expired_imports(&self, clock: &dyn Clock) -> Result<usize> {
        let now = clock.unix_millis();
        let expired = |import: &StoredImport| now >= import.expires_at;
        if !self.content()?.imports.values().any(expired) {
            return Ok(0); // nothing to write
        }
        self.change(None, |content| {
            let before = content.imports.len();
            content.imports.retain(|_, import| !expired(import));
            Ok(before - content.imports.len())
        })
    }
}

const WEAK: &str = "what was wrapped is no 256-bit key";
const OTHER_CHECK_VALUE: &str = "the imported key has another check value: either another key was wrapped, or the value is \
                                 not AES-CMAC of 16 zero bytes (ANSI X9.24-1:2017)";

fn unknown_token() -> Error {
    Error::invalid("no import is under way with this token: it is mistyped, used up, cancelled or expired; begin again")
}

fn no_keys() -> Error {
    Error::new(ErrorKind::Unavailable, "the cipher backend could not make or use keys for an import")
}

/// Makes wrapping keys where that keeps no async task waiting.
async fn new_keys() -> Result<TransportKey> {
    let made = match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(TransportKey::generate).await.map_err(|e| no_keys().with_source(e))?,
        Err(_) => TransportKey::generate(),
    };
    made.map_err(|Refused| no_keys())
}

/// One error for all that keeps a wrapping from opening: which layer it was is nobody's business.
fn unwrap(private_keys: &Zeroizing<Vec<u8>>, format: ImportFormat, kek: &KekUri, wrapped: &[u8]) -> Result<Material> {
    let keys = TransportKey::from_bytes(private_keys)
        .map_err(|Refused| Error::invalid("the wrapping keys of this import are damaged: begin it again"))?;
    match format {
        ImportFormat::RsaesOaepSha256 => keys.open_oaep(wrapped),
        ImportFormat::RsaAesKeyWrapSha256 => keys.open_oaep_kwp(wrapped),
        ImportFormat::Hpke => keys.open_hpke(HPKE_INFO, kek.as_str().as_bytes(), wrapped),
    }
    .map_err(|Refused| {
        Error::invalid(match format {
            ImportFormat::RsaesOaepSha256 => {
                "the material does not unwrap: wrap it with this ticket's public key, RSA-OAEP with SHA-256 for the hash \
                 and for MGF1, no label, and send all 512 bytes"
            }
            ImportFormat::RsaAesKeyWrapSha256 => {
                "the material does not unwrap: wrap a fresh AES-256 key with this ticket's public key (RSA-OAEP, SHA-256 \
                 for the hash and for MGF1) and the material with that key (RFC 5649), and send 512 and 40 bytes in one"
            }
            ImportFormat::Hpke => {
                "the material does not unwrap: wrap it with this ticket's HPKE key, info and associated data, and send \
                 enc and ciphertext in one, 80 bytes"
            }
        })
    })
}
