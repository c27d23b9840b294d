//! Key policies for AWS KMS, compiled from a tenant's policy: what the backend is allowed, and what a revocation denies.
//!
//! Pure text: it needs no SDK and calls nobody, so it is there without the feature `aws-kms`, for the tools that write
//! policies where no backend runs. What it relies on, as the *AWS KMS Developer Guide* and the *IAM User Guide* had it in
//! November 2026: "AWS KMS condition keys" (`kms:EncryptionContext:…`, `kms:EncryptionContextKeys`), "Key policies in AWS
//! KMS", "IAM policy elements: Variables and tags", "Condition operators", and `PutKeyPolicy` (32 KiB, characters).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::key::encryption_context::{ALWAYS, PURPOSE};
use crate::key::id::TenantId;
use crate::key::kek::KekUri;
use crate::key::period::PeriodLabel;
use crate::key::policy::TenantPolicy;
use crate::key::region::Region;
use crate::key::revocation::{PERIODS, Selector};
use crate::kms::aws_range::patterns;

/// Most bytes of a key policy (`PutKeyPolicy`, November 2026). AWS does not raise it.
pub const MAX_KEY_POLICY: usize = 32 * 1024;

/// The version that knows policy variables, and so their escapes.
const VERSION: &str = "2012-10-17";
const CONTEXT: &str = "kms:EncryptionContext:";
const CONTEXT_KEYS: &str = "kms:EncryptionContextKeys";

/// Everything that takes an encryption context. A denial names more than any backend is allowed, so that what somebody adds
/// to the allowances later does not slip past it.
const CRYPTOGRAPHIC: [&str; 4] = ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"];

/// The key policy of one of a tenant's KEKs in AWS KMS: the least that the backend needs, and the denials that suspend part
/// of the tenant's data keys.
///
/// What is allowed is bound to this tenant's encryption contexts: tenant, regions, purpose, and no other names than ours. A
/// denial names a channel, an hour or whatever the tenant's scopes have; it works in the tenant's own account, whatever
/// this backend does. Keys that a backend has cached open until their time to live ends; `Admin::revoke` ends them at once.
///
/// ```
/// use strongroom::{AwsKeyPolicy, KekUri, Period, PeriodLabel, Region, Selector, TenantPolicy};
///
/// let kek = KekUri::new("aws-kms:arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")?;
/// let tenant = TenantPolicy::new(&kek, Region::new("eu-central-1")?).scope_by(["channel"]).bind(["message"]).period(Period::Hour);
/// let policy = AwsKeyPolicy::new("acme", &tenant, &kek)?.principal("arn:aws:iam::999988887777:role/chat")?;
/// println!("{}", policy.document(&[])?); // to paste
///
/// let first = PeriodLabel::new("hour=2026-11-22T05Z")?;
/// let last = PeriodLabel::new("hour=2026-11-22T08Z")?;
/// let morning = Selector::fields([("channel", "C9")]).from(first).to(last);
/// assert!(policy.document(&[morning])?.contains("2026-11-22T06Z"));
/// # Ok::<(), strongroom::Error>(())
/// ```
///
/// # What is not shown by a test
///
/// No server that runs here evaluates key policies, so the statements are tested with an evaluator of our own, written from
/// the guides named above. Only an account at AWS shows that AWS agrees: the operators on `kms:EncryptionContext:…`, the
/// escape `${$}`, Latin-1 characters in values, and a denial that reaches sessions of roles and grants.
#[derive(Clone, Debug)]
#[must_use]
pub struct AwsKeyPolicy {
    tenant: TenantId,
    policy: TenantPolicy,
    earlier: Vec<TenantPolicy>,
    /// `arn:PARTITION`, and the account that owns the KEK.
    partition: String,
    account: String,
    makes_by: &'static str,
    principals: Vec<String>,
    administrators: Vec<String>,
    rewraps: bool,
    inspects: bool,
}

impl AwsKeyPolicy {
    /// The policy of `kek`, which is one of those that `policy` names.
    ///
    /// # Errors
    /// `InvalidArgument` if the tenant's policy is wrong or does not name the KEK, or that is no ARN of a KMS key.
    pub fn new(tenant: &str, policy: &TenantPolicy, kek: &KekUri) -> Result<Self> {
        let made = || {
            policy.check()?;
            if !policy.keks().keks().any(|named| named == kek) {
                return Err(Error::invalid("the tenant's policy does not name this KEK"));
            }
            let parts: Vec<&str> = kek.name().splitn(6, ':').collect();
            let ("aws-kms", ["arn", partition, "kms", _, account, key]) = (kek.scheme(), parts.as_slice()) else {
                return Err(Error::invalid("a key policy is for a KEK in AWS KMS: aws-kms:arn:aws:kms:…"));
            };
            if !is_account(account) || !(key.starts_with("key/") || key.starts_with("alias/")) {
                return Err(Error::invalid("the KEK's name is no ARN of a KMS key or alias"));
            }
            Ok(Self {
                tenant: TenantId::new(tenant)?,
                policy: policy.clone(),
                earlier: Vec::new(),
                partition: (*partition).to_owned(),
                account: (*account).to_owned(),
                makes_by: if policy.keks().generates_under(kek) { "kms:GenerateDataKey" } else { "kms:Encrypt" },
                principals: Vec::new(),
                administrators: Vec::new(),
                rewraps: false,
                inspects: false,
            })
        };
        made().map_err(|e: Error| e.with_operation("compile key policy").with_kek(kek.as_str()))
    }

    /// Adds a principal of the backend: a role or a user, `arn:aws:iam::999988887777:role/chat`. A role's sessions are it.
    ///
    /// # Errors
    /// `InvalidArgument` if that is no ARN of a role or a user in the KEK's partition: sessions end, and accounts and wildcards are too
    /// wide.
    pub fn principal(mut self, arn: &str) -> Result<Self> {
        self.check_principal(arn, &["role/", "user/"])?;
        self.principals.push(arn.to_owned());
        Ok(self)
    }

    /// Adds an administrator of the KEK. Without any, the tenant's account is one, as AWS makes it by default: then its IAM
    /// policies decide who administers.
    ///
    /// # Errors
    /// `InvalidArgument` if that is no ARN of a role, a user or an account in the KEK's partition.
    pub fn administrator(mut self, arn: &str) -> Result<Self> {
        self.check_principal(arn, &["role/", "user/", "root"])?;
        self.administrators.push(arn.to_owned());
        Ok(self)
    }

    /// A principal of another partition (`aws-cn`, `aws-us-gov`) is none here: AWS refuses a key policy that names one.
    fn check_principal(&self, arn: &str, kinds: &[&str]) -> Result<()> {
        check_principal(arn, kinds)?;
        if arn.split(':').nth(1) == Some(self.partition.as_str()) {
            return Ok(());
        }
        let message = format!("{arn:?} is of another partition than the KEK, which is in {:?}", self.partition);
        Err(Error::invalid(message).with_operation("compile key policy"))
    }

    /// Also allows what `Admin::rewrap` needs beyond unwrapping: re-encryption from and to this KEK and, where AWS cannot
    /// do that because the other KEK is in another region, account or KMS, wrapping.
    pub fn rewraps(mut self) -> Self {
        self.rewraps = true;
        self
    }

    /// Also allows what `Admin::probe` reads: the key policy and the rotation status.
    pub fn inspects(mut self) -> Self {
        self.inspects = true;
        self
    }

    /// Keeps allowing data keys that were made under an earlier policy of the tenant: its regions, scope fields and period.
    pub fn earlier(mut self, policy: &TenantPolicy) -> Self {
        self.earlier.push(policy.clone());
        self
    }

    /// The whole document: who administers, what the backend is allowed, what is denied. As JSON, to paste.
    ///
    /// # Errors
    /// As [`Self::allow`] and [`Self::deny`]; `Limit` if it is longer than AWS takes.
    pub fn document(&self, denied: &[Selector]) -> Result<String> {
        let administrators = match self.administrators.as_slice() {
            [] => vec![format!("arn:{}:iam::{}:root", self.partition, self.account)],
            named => named.to_vec(),
        };
        let mut statements = vec![json!({
            "Sid": "Administration", "Effect": "Allow", "Principal": { "AWS": administrators },
            "Action": "kms:*", "Resource": "*",
        })];
        statements.extend(self.allowed()?);
        for (number, selector) in (1..).zip(denied) {
            statements.push(self.denied(selector, &format!("StrongroomRevoke{number}"))?);
        }
        let text = encode(&json!({ "Version": VERSION, "Statement": statements }))?;
        if text.len() > MAX_KEY_POLICY {
            return Err(Error::limit(format!(
                "the key policy has {} bytes and AWS takes {MAX_KEY_POLICY}: deny less here, or join the selectors; \
                 Admin::revoke holds a thousand of them",
                text.len()
            ))
            .with_operation("compile key policy"));
        }
        Ok(text)
    }

    /// The statements that allow the backend what it needs, as a JSON list, for a policy that exists.
    ///
    /// # Errors
    /// `InvalidArgument` if no principal is named.
    pub fn allow(&self) -> Result<String> {
        encode(&Value::Array(self.allowed()?))
    }

    /// The statement that denies the data keys that `selector` covers, and only those, to everybody. `sid` tells it apart
    /// in the policy: letters and digits.
    ///
    /// Remove the statement to restore. An open range (`from` without `to`) is denied as such: keys to come as well.
    ///
    /// # Errors
    /// `InvalidArgument` if the selector could cover nothing, names keys by their ids (which AWS does not know: select by
    /// scope and period), or has a value that no key policy can say.
    pub fn deny(&self, selector: &Selector, sid: &str) -> Result<String> {
        if sid.is_empty() || !sid.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Error::invalid("a statement's id has letters and digits").with_operation("compile key policy"));
        }
        encode(&self.denied(selector, sid)?)
    }

    fn policies(&self) -> impl Iterator<Item = &TenantPolicy> {
        self.earlier.iter().chain([&self.policy])
    }

    fn allowed(&self) -> Result<Vec<Value>> {
        if self.principals.is_empty() {
            return Err(Error::invalid("name the backend's principal: AwsKeyPolicy::principal")
                .with_operation("compile key policy"));
        }
        let mut about = vec!["kms:DescribeKey"];
        if self.inspects {
            about.extend(["kms:GetKeyPolicy", "kms:GetKeyRotationStatus"]);
        }
        let mut opens = vec!["kms:Decrypt"];
        if self.rewraps {
            opens.extend(["kms:Encrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo"]);
        }
        let statement = |sid: &str, actions: &[&str]| {
            json!({
                "Sid": sid, "Effect": "Allow", "Principal": { "AWS": self.principals },
                "Action": actions, "Resource": "*",
            })
        };
        let home = [self.policy.home_region()].into_iter().collect();
        let everywhere = self.policies().flat_map(|p| p.allowed_regions().chain([p.home_region()])).collect();
        let with = |mut statement: Value, condition: Value| {
            if let Some(statement) = statement.as_object_mut() {
                statement.insert("Condition".to_owned(), condition);
            }
            statement
        };
        Ok(vec![
            // Has no encryption context, so no condition on one could ever hold.
            statement("StrongroomDescribe", &about),
            with(statement("StrongroomMake", &[self.makes_by]), self.ours(&home, &names(&[&self.policy]))?),
            with(
                statement("StrongroomOpen", &opens),
                self.ours(&everywhere, &names(&self.policies().collect::<Vec<_>>()))?,
            ),
        ])
    }

    /// The encryption contexts of this tenant's data keys in `regions`. `ForAllValues` alone would also hold for no context
    /// at all; that the tenant's name must be there rules that out.
    fn ours(&self, regions: &BTreeSet<&Region>, names: &BTreeSet<String>) -> Result<Value> {
        let regions: Vec<&str> = regions.iter().map(|region| region.as_str()).collect();
        Ok(json!({
            "StringEquals": {
                format!("{CONTEXT}tenant"): literal(self.tenant.as_str())?,
                format!("{CONTEXT}region"): regions,
                format!("{CONTEXT}purpose"): PURPOSE,
            },
            "ForAllValues:StringEquals": { CONTEXT_KEYS: names },
        }))
    }

    fn denied(&self, selector: &Selector, sid: &str) -> Result<Value> {
        let made = || {
            selector.check()?;
            let known = |name: &&str| PERIODS.contains(name) || self.policies().any(|policy| policy.names(name));
            if let Some(name) = selector.names().find(|name| !known(name)) {
                let message = format!("{name:?} is not a scope field of this tenant; the statement would deny nothing");
                return Err(Error::invalid(message));
            }
            if selector.key_ids().is_some() {
                return Err(Error::invalid("AWS KMS does not know data keys by their ids; select by scope and period"));
            }
            let mut equal = BTreeMap::from([(format!("{CONTEXT}tenant"), json!(literal(self.tenant.as_str())?))]);
            let mut like = BTreeMap::new();
            for (name, value) in selector.conditions() {
                equal.insert(format!("{CONTEXT}{name}"), json!(literal(value)?));
            }
            if let Some((name, labels)) = range_of(selector) {
                let into = if labels.iter().any(|label| label.contains('?')) { &mut like } else { &mut equal };
                into.insert(format!("{CONTEXT}{name}"), json!(labels));
            }
            let mut condition = BTreeMap::from([("StringEquals", equal)]);
            if !like.is_empty() {
                condition.insert("StringLike", like);
            }
            // To everybody: a principal or a grant that is added later does not slip past it.
            Ok(json!({
                "Sid": sid, "Effect": "Deny", "Principal": { "AWS": "*" },
                "Action": CRYPTOGRAPHIC, "Resource": "*", "Condition": condition,
            }))
        };
        made().map_err(|e: Error| e.with_operation("compile key policy").with_tenant(self.tenant.as_str()))
    }
}

/// The names in the encryption contexts of data keys made under these policies.
fn names(policies: &[&TenantPolicy]) -> BTreeSet<String> {
    let of_policy = |policy: &&TenantPolicy| {
        let period = policy.key_period().name().map(str::to_owned);
        policy.scope_fields().iter().cloned().chain(period).collect::<Vec<_>>()
    };
    policies.iter().flat_map(of_policy).chain(ALWAYS.map(str::to_owned)).collect()
}

/// The selector's range of periods: the name of its field, and what is in it. `None` if there is none, or if a field names
/// one period of it, which then says it all.
fn range_of(selector: &Selector) -> Option<(&str, Vec<String>)> {
    let (from, to) = selector.periods();
    let (name, _) = from.or(to).map(PeriodLabel::field)?;
    if selector.conditions().any(|(field, _)| PERIODS.contains(&field)) {
        return None; // a checked rule names a period of its range
    }
    let value = |label: Option<&PeriodLabel>| label.map(|label| label.field().1.to_owned());
    Some((name, patterns(value(from).as_deref(), value(to).as_deref())))
}

/// A value as `StringEquals` takes it literally: there `*` and `?` are themselves, but `${…}` would be a policy variable, so
/// its `$` is written as the variable that stands for one.
fn literal(value: &str) -> Result<String> {
    if value.chars().any(|c| c.is_control() || c > '\u{ff}') {
        return Err(Error::invalid(format!(
            "{value:?} has characters that a key policy does not take (printable Latin-1 only); select by another field, \
             or use Admin::revoke"
        )));
    }
    Ok(value.replace("${", "${$}{"))
}

/// Whether `text` is the number of an AWS account.
pub(crate) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

fn check_principal(arn: &str, kinds: &[&str]) -> Result<()> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_/-".contains(&b);
    match parts.as_slice() {
        ["arn", partition, "iam", "", account, who]
            if !partition.is_empty()
                && partition.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
                && is_account(account)
                && who.bytes().all(is_name)
                && kinds.iter().any(|kind| match kind.strip_suffix('/') {
                    Some(_) => who.strip_prefix(kind).is_some_and(|name| !name.is_empty()),
                    None => who == kind,
                }) =>
        {
            Ok(())
        }
        _ => Err(Error::invalid(format!("{arn:?} is not arn:aws:iam::ACCOUNT: and one of {kinds:?}"))
            .with_operation("compile key policy")),
    }
}

fn encode(value: &Value) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|e| Error::invalid("a key policy cannot be encoded").with_source(e))
}
