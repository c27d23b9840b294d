//! BYOK into AWS KMS: the customer's own key material in a KMS key, wrapped by the customer for AWS alone. It never passes
//! through here in the clear, and there is no RSA in this crate: the customer's HSM or `openssl` wraps.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_kms::primitives::{Blob, DateTime};
use aws_sdk_kms::types::{AlgorithmSpec, ExpirationModelType, KeySpec, KeyUsageType, OriginType, WrappingKeySpec};

use crate::error::{Error, ErrorKind, Result};
use crate::key::kek::KekUri;
use crate::key::region::Region;
use crate::kms::aws::{AwsKms, SCHEME};
use crate::kms::aws_arn::KeyArn;
use crate::kms::aws_describe::millis;
use crate::kms::aws_error::{Operation, failure};
use crate::kms::aws_policy::is_account;
use crate::kms::aws_retry::Failure;

/// Bytes of an RSA-4096 ciphertext.
const RSA_4096: usize = 512;
/// Bytes of 32 bytes wrapped with AES-KWP (RFC 5649).
const KWP_OF_A_KEY: usize = 40;
/// Most bytes of an import token and of a public key in DER: AWS's own bounds.
const MAX_TOKEN: usize = 6144;
const MAX_PUBLIC_KEY: usize = 8192;

/// How the customer wraps the key material, always for the RSA-4096 public key of the [`AwsImportParameters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AwsWrappingAlgorithm {
    /// RSAES-OAEP with SHA-256 and MGF1 with SHA-256: 512 bytes.
    RsaesOaepSha256,
    /// A one-time AES-256 key under RSAES-OAEP with SHA-256, followed by the material under that key with AES-KWP
    /// (RFC 5649): 552 bytes. What most HSMs do.
    RsaAesKeyWrapSha256,
}

impl AwsWrappingAlgorithm {
    /// The name that AWS gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RsaesOaepSha256 => "RSAES_OAEP_SHA_256",
            Self::RsaAesKeyWrapSha256 => "RSA_AES_KEY_WRAP_SHA_256",
        }
    }

    /// How long 256 bits are, wrapped.
    fn wrapped_len(self) -> usize {
        match self {
            Self::RsaesOaepSha256 => RSA_4096,
            Self::RsaAesKeyWrapSha256 => RSA_4096 + KWP_OF_A_KEY,
        }
    }

    fn spec(self) -> AlgorithmSpec {
        match self {
            Self::RsaesOaepSha256 => AlgorithmSpec::RsaesOaepSha256,
            Self::RsaAesKeyWrapSha256 => AlgorithmSpec::RsaAesKeyWrapSha256,
        }
    }
}

/// Until when imported material serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AwsMaterialExpiry {
    /// Until it is deleted.
    Never,
    /// Until this moment in Unix milliseconds; AWS deletes it then. At most 365 days ahead.
    At(i64),
}

/// What the customer needs to wrap key material for one KEK: valid for 24 hours, for that KEK and algorithm alone.
///
/// Nothing in it is secret. The customer takes [`Self::wrapping_public_key`] and gives back the wrapped material:
///
/// ```text
/// # RSAES_OAEP_SHA_256
/// openssl rand -out material.bin 32
/// openssl pkeyutl -encrypt -pubin -keyform DER -inkey wrapping-key.der -in material.bin -out wrapped.bin \
///     -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256
///
/// # RSA_AES_KEY_WRAP_SHA_256
/// openssl rand -out once.bin 32
/// openssl enc -id-aes256-wrap-pad -K "$(xxd -p -c 64 once.bin)" -iv A65959A6 -in material.bin -out inner.bin
/// openssl pkeyutl -encrypt -pubin -keyform DER -inkey wrapping-key.der -in once.bin -out outer.bin \
///     -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256
/// cat outer.bin inner.bin > wrapped.bin
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct AwsImportParameters {
    kek: KekUri,
    algorithm: AwsWrappingAlgorithm,
    wrapping_public_key: Vec<u8>,
    token: Vec<u8>,
    expires_at: i64,
}

impl AwsImportParameters {
    /// The same parameters again, from where the embedder kept them until the customer came back.
    ///
    /// # Errors
    /// `InvalidArgument` if the KEK is none of AWS KMS, or a part has an impossible length.
    pub fn from_parts(
        kek: KekUri,
        algorithm: AwsWrappingAlgorithm,
        wrapping_public_key: Vec<u8>,
        token: Vec<u8>,
        expires_at: i64,
    ) -> Result<Self> {
        KeyArn::of(&kek)?;
        if !(1..=MAX_PUBLIC_KEY).contains(&wrapping_public_key.len()) || !(1..=MAX_TOKEN).contains(&token.len()) {
            return Err(Error::invalid(
                "import parameters have a public key of at most 8192 and a token of at most 6144 bytes",
            ));
        }
        Ok(Self { kek, algorithm, wrapping_public_key, token, expires_at })
    }

    /// The KEK that the material is for.
    pub fn kek(&self) -> &KekUri {
        &self.kek
    }

    /// How to wrap it.
    pub fn algorithm(&self) -> AwsWrappingAlgorithm {
        self.algorithm
    }

    /// The RSA-4096 public key to wrap it with: DER, SubjectPublicKeyInfo.
    pub fn wrapping_public_key(&self) -> &[u8] {
        &self.wrapping_public_key
    }

    /// AWS's token, to be given back with the material.
    pub fn token(&self) -> &[u8] {
        &self.token
    }

    /// Until when AWS accepts it, in Unix milliseconds.
    pub fn expires_at(&self) -> i64 {
        self.expires_at
    }
}

impl fmt::Debug for AwsImportParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kek, algorithm, expires_at, .. } = self;
        write!(f, "AwsImportParameters({kek}, {}, expires at {expires_at})", algorithm.name())
    }
}

/// A KMS key to be made, waiting for imported material.
#[derive(Clone, Debug)]
#[must_use]
pub struct NewAwsKek {
    region: Region,
    account: String,
    description: String,
    multi_region: bool,
}

impl NewAwsKek {
    /// In this region of this account, used with the role of [`AwsKmsBuilder::role_for`](crate::AwsKmsBuilder::role_for)
    /// where there is one, else with this process's own credentials.
    ///
    /// # Errors
    /// `InvalidArgument` if the account has not twelve digits.
    pub fn new(region: Region, account: &str) -> Result<Self> {
        if !is_account(account) {
            return Err(Error::invalid(format!("an AWS account has twelve digits, not {account:?}")));
        }
        Ok(Self { region, account: account.to_owned(), description: String::new(), multi_region: false })
    }

    /// What AWS shows of the key. Nothing confidential.
    pub fn description(mut self, text: &str) -> Self {
        text.clone_into(&mut self.description);
        self
    }

    /// A multi-region key. The same material is then imported into each replica too.
    pub fn multi_region(mut self) -> Self {
        self.multi_region = true;
        self
    }
}

impl AwsKms {
    /// Makes a KMS key without material (origin `EXTERNAL`), to import into. Tried once: a second try could make a second
    /// key. Usually the tenant makes its key itself and only names it.
    ///
    /// # Errors
    /// `Denied` without `kms:CreateKey`, `Limit` at the account's quota, else as [`Kms`](crate::Kms). `KeyMismatch` if the
    /// key is not in the account asked for: then the credentials or the role are another account's.
    pub async fn create_import_key(&self, new: &NewAwsKek) -> Result<KekUri> {
        let lane = self.clients().lane_in(new.region.as_str(), &new.account).await?;
        let attempt = || async {
            let call = lane.client.create_key().origin(OriginType::External).key_usage(KeyUsageType::EncryptDecrypt);
            let call = call.key_spec(KeySpec::SymmetricDefault).multi_region(new.multi_region);
            let sent = call.description(&new.description).send().await;
            let reply = sent.map_err(|e| failure(Operation::CreateKey, &e))?;
            reply.key_metadata.and_then(|key| key.arn).ok_or_else(|| Failure::for_good(unnamed()))
        };
        let arn = self.run(Operation::CreateKey, &lane, attempt).await?;
        match KeyArn::parse(&arn) {
            Some(key) if (key.region, key.account) == (new.region.as_str(), new.account.as_str()) => {
                KekUri::new(&format!("{SCHEME}:{arn}"))
            }
            _ => Err(Error::new(
                ErrorKind::KeyMismatch,
                "the new key is not in the region and account asked for; whose are the credentials?",
            )),
        }
    }

    /// Asks for what the customer needs to wrap key material for `kek`, whose origin is `EXTERNAL`. Each time for a first
    /// import, and again after the material expired or was deleted.
    ///
    /// # Errors
    /// `InvalidArgument` if the KEK's material comes from elsewhere; else as [`Kms`](crate::Kms).
    pub async fn import_parameters(
        &self,
        kek: &KekUri,
        algorithm: AwsWrappingAlgorithm,
    ) -> Result<AwsImportParameters> {
        let target = self.target(kek).await?;
        let attempt = || async {
            let call = target.lane.client.get_parameters_for_import().key_id(target.arn.text);
            let call = call.wrapping_algorithm(algorithm.spec()).wrapping_key_spec(WrappingKeySpec::Rsa4096);
            let reply = call.send().await.map_err(|e| failure(Operation::GetParametersForImport, &e))?;
            target.check_key(reply.key_id.as_deref())?;
            let bytes = |blob: Option<Blob>| blob.map(Blob::into_inner).unwrap_or_default();
            let expires_at = millis(reply.parameters_valid_to.as_ref());
            let expires_at = expires_at.ok_or_else(|| Failure::malformed("it does not say when the token expires"))?;
            let (public_key, token) = (bytes(reply.public_key), bytes(reply.import_token));
            AwsImportParameters::from_parts(kek.clone(), algorithm, public_key, token, expires_at)
                .map_err(|e| Failure::malformed(&e.to_string()))
        };
        self.call(Operation::GetParametersForImport, &target, attempt).await
    }

    /// Imports key material that the customer wrapped as `parameters` say. The KEK then wraps and unwraps; AWS keeps the
    /// material only there, so the customer must keep its own copy. The same call imports again after expiry or deletion:
    /// AWS takes only the very same material.
    ///
    /// # Errors
    /// `InvalidArgument` if the parameters have expired, the material is not wrapped with their public key and algorithm,
    /// is not 32 bytes, is other material than the first time, or the expiry has passed; else as [`Kms`](crate::Kms).
    pub async fn import_key_material(
        &self,
        parameters: &AwsImportParameters,
        wrapped_material: &[u8],
        expiry: AwsMaterialExpiry,
    ) -> Result<()> {
        let kek = &parameters.kek;
        let checked = check_import(parameters, wrapped_material.len(), expiry);
        checked.map_err(|e| e.with_operation(Operation::ImportKeyMaterial.name()).with_kek(kek.as_str()))?;
        let target = self.target(kek).await?;
        let attempt = || async {
            let call = target.lane.client.import_key_material().key_id(target.arn.text);
            let call = call.import_token(Blob::new(parameters.token.as_slice()));
            let call = call.encrypted_key_material(Blob::new(wrapped_material));
            let call = match expiry {
                AwsMaterialExpiry::Never => call.expiration_model(ExpirationModelType::KeyMaterialDoesNotExpire),
                AwsMaterialExpiry::At(at) => {
                    call.expiration_model(ExpirationModelType::KeyMaterialExpires).valid_to(DateTime::from_millis(at))
                }
            };
            call.send().await.map(drop).map_err(|e| failure(Operation::ImportKeyMaterial, &e))
        };
        self.call(Operation::ImportKeyMaterial, &target, attempt).await?;
        tracing::info!(%kek, ?expiry, "key material imported");
        Ok(())
    }

    /// Deletes imported key material now: the kill switch. The KEK stays, denies everything, and works again once the same
    /// material is imported again. Data keys already cached here end at the next denied unwrap, at the latest after the
    /// policy's cache time to live; to end them at once, revoke the tenant too.
    ///
    /// # Errors
    /// `Denied` without `kms:DeleteImportedKeyMaterial`; `InvalidArgument` if the KEK's origin is not `EXTERNAL`; else as
    /// [`Kms`](crate::Kms).
    pub async fn delete_key_material(&self, kek: &KekUri) -> Result<()> {
        let target = self.target(kek).await?;
        let attempt = || async {
            let sent = target.lane.client.delete_imported_key_material().key_id(target.arn.text).send().await;
            sent.map(drop).map_err(|e| failure(Operation::DeleteImportedKeyMaterial, &e))
        };
        self.call(Operation::DeleteImportedKeyMaterial, &target, attempt).await?;
        tracing::warn!(%kek, "imported key material deleted");
        Ok(())
    }
}

fn unnamed() -> Error {
    Error::new(ErrorKind::Unavailable, "AWS KMS made a key and did not say which")
}

/// What would fail anyway, said without a call and in plain words.
fn check_import(parameters: &AwsImportParameters, len: usize, expiry: AwsMaterialExpiry) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
    let has_passed = |at: i64| u128::try_from(at).map_or(true, |at| at <= now);
    if has_passed(parameters.expires_at) {
        return Err(Error::invalid("the import parameters are older than 24 hours; ask for new ones"));
    }
    let algorithm = parameters.algorithm;
    if len != algorithm.wrapped_len() {
        return Err(Error::invalid(format!(
            "the wrapped material has {len} bytes; 32 bytes wrapped with {} for an RSA-4096 key have {}",
            algorithm.name(),
            algorithm.wrapped_len()
        )));
    }
    match expiry {
        AwsMaterialExpiry::At(at) if has_passed(at) => {
            Err(Error::invalid("the material would have expired already; its expiry is in Unix milliseconds"))
        }
        _ => Ok(()),
    }
}
