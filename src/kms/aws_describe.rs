//! What AWS KMS says of a key: state, origin, where it is and who manages it; and the key behind an alias.

use aws_sdk_kms::primitives::DateTime;
use aws_sdk_kms::types::{KeyManagerType, KeyMetadata, MultiRegionKey, OriginType};

use crate::error::Result;
use crate::key::kek::KekUri;
use crate::key::region::Region;
use crate::kms::aws::{AwsKms, SCHEME, Target};
use crate::kms::aws_arn::{KeyArn, NamedBy};
use crate::kms::aws_error::{Operation, failure};
use crate::kms::aws_retry::Failure;

/// What AWS KMS says of a key. Words are AWS's own, such as `PendingDeletion` or `EXTERNAL`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AwsKeyDescription {
    /// The key itself, by its key ARN: what an alias pointed to when asked.
    pub kek: KekUri,
    /// Where it is.
    pub region: Region,
    /// Whose account it is in.
    pub account: String,
    /// `Enabled`, `Disabled`, `PendingDeletion`, `PendingImport`, `Creating`, `Updating`, `Unavailable`…
    pub state: String,
    /// `CUSTOMER`, or `AWS` for a key that AWS manages and whose policy nobody can change.
    pub manager: String,
    /// Where its material comes from: `AWS_KMS`, `EXTERNAL` (imported), `AWS_CLOUDHSM` or `EXTERNAL_KEY_STORE`.
    pub origin: String,
    /// `SYMMETRIC_DEFAULT` for a key that can be a KEK.
    pub spec: String,
    /// `ENCRYPT_DECRYPT` for a key that can be a KEK.
    pub usage: String,
    /// Which key material wraps at present, where AWS says so.
    pub material: Option<String>,
    /// Its family, for a multi-region key.
    pub multi_region: Option<AwsMultiRegion>,
    /// When imported material expires, in Unix milliseconds.
    pub material_expires_at: Option<i64>,
    /// When a key scheduled for deletion goes, in Unix milliseconds.
    pub deleted_at: Option<i64>,
}

/// The family of a multi-region key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AwsMultiRegion {
    /// Whether this one is the primary.
    pub is_primary: bool,
    /// The primary's region.
    pub primary_region: String,
    /// The regions of the replicas.
    pub replica_regions: Vec<String>,
}

/// Whether and how AWS rotates a key's material by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AwsKeyRotation {
    /// Whether it does.
    pub enabled: bool,
    /// How often, in days.
    pub period_days: Option<i32>,
    /// When next, in Unix milliseconds.
    pub next_at: Option<i64>,
}

impl AwsKeyDescription {
    /// Whether it wraps and unwraps at present.
    pub fn is_enabled(&self) -> bool {
        self.state == "Enabled"
    }

    /// The key's id in its ARN.
    pub(crate) fn key_id(&self) -> &str {
        self.kek.name().rsplit('/').next().unwrap_or_default()
    }
}

impl AwsKms {
    /// Everything that AWS KMS says of a key (`DescribeKey`).
    ///
    /// # Errors
    /// As [`Kms::describe`](crate::Kms::describe).
    pub async fn describe_key(&self, kek: &KekUri) -> Result<AwsKeyDescription> {
        let target = self.target(kek).await?;
        let attempt = || async {
            let sent = target.lane.client.describe_key().key_id(target.arn.text).send().await;
            let reply = sent.map_err(|e| failure(Operation::DescribeKey, &e))?;
            let metadata = reply.key_metadata.ok_or_else(|| Failure::malformed("it has no key metadata"))?;
            target.check_key(metadata.arn.as_deref())?;
            described(&target, metadata)
        };
        self.call(Operation::DescribeKey, &target, attempt).await
    }

    /// The key that an alias points to now, as a KEK named by its key ARN; a key ARN is itself.
    ///
    /// # Errors
    /// As [`Kms::describe`](crate::Kms::describe).
    pub async fn resolve(&self, kek: &KekUri) -> Result<KekUri> {
        self.describe_key(kek).await.map(|description| description.kek)
    }

    /// Whether AWS rotates the key's material by itself (`GetKeyRotationStatus`).
    ///
    /// # Errors
    /// `InvalidArgument` for a key whose origin allows no rotation; else as [`Kms::describe`](crate::Kms::describe).
    pub async fn key_rotation(&self, kek: &KekUri) -> Result<AwsKeyRotation> {
        // GetKeyRotationStatus takes no alias.
        let kek = match KeyArn::of(kek)?.key {
            NamedBy::Id(_) => kek.clone(),
            NamedBy::Alias(_) => self.resolve(kek).await?,
        };
        let target = self.target(&kek).await?;
        let attempt = || async {
            let sent = target.lane.client.get_key_rotation_status().key_id(target.arn.text).send().await;
            let reply = sent.map_err(|e| failure(Operation::GetKeyRotationStatus, &e))?;
            Ok(AwsKeyRotation {
                enabled: reply.key_rotation_enabled,
                period_days: reply.rotation_period_in_days,
                next_at: millis(reply.next_rotation_date.as_ref()),
            })
        };
        self.call(Operation::GetKeyRotationStatus, &target, attempt).await
    }
}

fn described(target: &Target<'_>, key: KeyMetadata) -> Result<AwsKeyDescription, Failure> {
    let (Some(state), Some(spec), Some(usage)) = (key.key_state, key.key_spec, key.key_usage) else {
        return Err(Failure::malformed("it does not say the key's state or what it is for"));
    };
    let arn = key.arn.unwrap_or_default();
    let multi_region = key.multi_region_configuration.map(|family| {
        let region_of = |key: MultiRegionKey| key.region.unwrap_or_default();
        AwsMultiRegion {
            is_primary: family.multi_region_key_type.is_some_and(|kind| kind.as_str() == "PRIMARY"),
            primary_region: family.primary_key.map(region_of).unwrap_or_default(),
            replica_regions: family.replica_keys.unwrap_or_default().into_iter().map(region_of).collect(),
        }
    });
    let text = |word: Option<&str>| word.unwrap_or_default().to_owned();
    Ok(AwsKeyDescription {
        kek: KekUri::new(&format!("{SCHEME}:{arn}")).map_err(Failure::for_good)?,
        region: Region::new(target.arn.region).map_err(Failure::for_good)?,
        account: target.arn.account.to_owned(),
        state: state.as_str().to_owned(),
        manager: text(key.key_manager.as_ref().map(KeyManagerType::as_str)),
        origin: text(key.origin.as_ref().map(OriginType::as_str)),
        spec: spec.as_str().to_owned(),
        usage: usage.as_str().to_owned(),
        material: key.current_key_material_id.filter(|id| !id.is_empty()),
        multi_region,
        material_expires_at: millis(key.valid_to.as_ref()),
        deleted_at: millis(key.deletion_date.as_ref()),
    })
}

/// Unix milliseconds; a moment that has none is as good as not said.
pub(crate) fn millis(at: Option<&DateTime>) -> Option<i64> {
    at.and_then(|at| at.to_millis().ok())
}
