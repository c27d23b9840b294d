//! What AWS KMS knows of a KEK that its owner should: for `Admin::probe`. Reads only.
//!
//! Whether we could delete or disable the key is not tried: AWS documents `DryRun` for cryptographic operations and grants
//! ("Testing your permissions", AWS KMS Developer Guide, November 2026), not for `ScheduleKeyDeletion`, `DisableKey` or
//! `PutKeyPolicy`; and no order of authorisation and validation is documented that would make a request with an invalid
//! waiting period both harmless and telling. So the key policy is read instead, and what it leaves open is said.

use crate::error::{Error, Result};
use crate::key::finding::{Expected, Finding, Outcome};
use crate::key::kek::KekUri;
use crate::kms::aws::AwsKms;
use crate::kms::aws_arn::{KeyArn, NamedBy};
use crate::kms::aws_describe::AwsKeyDescription;
use crate::kms::aws_error::{Operation, failure};
use crate::kms::aws_grants;

impl AwsKms {
    /// The KEK's key policy (`GetKeyPolicy`): JSON, as its owner wrote it.
    ///
    /// # Errors
    /// As [`Kms::describe`](crate::Kms::describe).
    pub async fn key_policy(&self, kek: &KekUri) -> Result<String> {
        // Takes no alias.
        let kek = match KeyArn::of(kek)?.key {
            NamedBy::Id(_) => kek.clone(),
            NamedBy::Alias(_) => self.resolve(kek).await?,
        };
        let target = self.target(&kek).await?;
        let attempt = || async {
            let call = target.lane.client.get_key_policy().key_id(target.arn.text).policy_name("default");
            let reply = call.send().await.map_err(|e| failure(Operation::GetKeyPolicy, &e))?;
            Ok(reply.policy.unwrap_or_default())
        };
        self.call(Operation::GetKeyPolicy, &target, attempt).await
    }

    pub(crate) async fn findings(&self, kek: &KekUri, expected: &Expected) -> Result<Vec<Finding>> {
        let key = self.describe_key(kek).await?;
        let mut found = vec![account(&key, expected), manager(&key), origin(&key)];
        found.push(replicas(&key, expected));
        if matches!(KeyArn::of(kek)?.key, NamedBy::Alias(_)) {
            let detail = format!("the KEK is named by an alias, which points to {} now", key.kek);
            let advice = "name the key itself, unless the alias will never be moved: data keys do not follow it";
            found.push(Finding::new("alias", Outcome::Warn, detail).advise(advice));
        }
        found.push(self.rotation(&key).await);
        let unread = |e: Error| {
            let advice = "allow kms:GetKeyPolicy for the probe, or check who may delete, disable or re-policy the KEK";
            vec![Finding::new("key policy", Outcome::Unknown, e.to_string()).advise(advice)]
        };
        let policy = self.key_policy(&key.kek).await;
        found.extend(policy.map_or_else(unread, |text| aws_grants::findings(&text, &key.account, expected)));
        Ok(found)
    }

    async fn rotation(&self, key: &AwsKeyDescription) -> Finding {
        const NAME: &str = "rotation";
        if key.origin != "AWS_KMS" {
            let detail = format!("AWS does not rotate keys of origin {} by itself", key.origin);
            return Finding::new(NAME, Outcome::Pass, detail);
        }
        match self.key_rotation(&key.kek).await {
            Ok(rotation) if rotation.enabled => {
                let days = rotation.period_days.map_or_else(String::new, |days| format!(", every {days} days"));
                Finding::new(NAME, Outcome::Pass, format!("AWS rotates its material{days}"))
            }
            Ok(_) => Finding::new(NAME, Outcome::Warn, "AWS does not rotate its material by itself")
                .advise("enable rotation (kms:EnableKeyRotation), or rotate by Admin::rewrap to a new KEK"),
            Err(e) => Finding::new(NAME, Outcome::Unknown, e.to_string())
                .advise("allow kms:GetKeyRotationStatus for the probe"),
        }
    }
}

fn account(key: &AwsKeyDescription, expected: &Expected) -> Finding {
    const NAME: &str = "account";
    let is = &key.account;
    match expected.expected_account() {
        Some(account) if account == is => Finding::new(NAME, Outcome::Pass, format!("{is}, as expected")),
        Some(account) => Finding::new(NAME, Outcome::Fail, format!("{is}, where {account} is expected"))
            .advise("ask the tenant for a KEK in its own account: whoever owns the KEK decides over the messages"),
        None => Finding::new(NAME, Outcome::Unknown, format!("{is}; which one is expected was not said"))
            .advise("say it: Expected::account"),
    }
}

fn manager(key: &AwsKeyDescription) -> Finding {
    const NAME: &str = "manager";
    if key.manager == "CUSTOMER" {
        return Finding::new(NAME, Outcome::Pass, "the tenant manages it");
    }
    Finding::new(NAME, Outcome::Fail, format!("{:?} manages it", key.manager))
        .advise("name a customer managed key: of others the tenant can change neither policy nor state")
}

fn origin(key: &AwsKeyDescription) -> Finding {
    const NAME: &str = "origin";
    let detail = format!("its material comes from {}", key.origin);
    match key.material_expires_at {
        Some(at) => Finding::new(NAME, Outcome::Warn, format!("{detail} and expires at {at} (Unix milliseconds)"))
            .advise("plan to import it again before then: without it nothing opens"),
        None => Finding::new(NAME, Outcome::Pass, detail),
    }
}

fn replicas(key: &AwsKeyDescription, expected: &Expected) -> Finding {
    const NAME: &str = "multi-region";
    let Some(family) = &key.multi_region else {
        return Finding::new(NAME, Outcome::Pass, "a key of one region: its material never leaves it");
    };
    let allowed = |region: &str| expected.regions().any(|r| r.as_str() == region);
    let all = family.replica_regions.iter().chain([&family.primary_region]);
    let outside: Vec<&str> = all.map(String::as_str).filter(|region| !allowed(region)).collect();
    if outside.is_empty() {
        let detail = "a multi-region key, in allowed regions only at present; its owner can copy it to others";
        return Finding::new(NAME, Outcome::Warn, detail)
            .advise("deny kms:ReplicateKey, or use a single-region key where residency is strict");
    }
    Finding::new(NAME, Outcome::Fail, format!("the same material is in {outside:?}, which the policy does not allow"))
        .advise("delete those replicas, allow their regions, or use a single-region key")
}
