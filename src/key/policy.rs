//! Tenant policies: what a tenant decided about its keys.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::crypto::suite::Suite;
use crate::error::{Error, Result};
use crate::key::encryption_context::RESERVED;
use crate::key::kek::KekUri;
use crate::key::period::Period;
use crate::key::region::Region;
use crate::key::rotation::RotationPolicy;
use crate::key::scope::Scope;

/// Most fields of a scope.
pub const MAX_SCOPE_FIELDS: usize = 8;
/// Most KEKs that wrap one data key.
pub const MAX_KEKS: usize = 4;

/// What a tenant decided: which KEK, which region, what a data key covers and how long it serves.
///
/// ```
/// use std::time::Duration;
/// use strongroom::{KekUri, Period, Region, RotationPolicy, TenantPolicy};
///
/// let policy = TenantPolicy::new(KekUri::new("local:acme-2026")?, Region::new("eu-central-1")?)
///     .scope_by(["workspace", "channel"])
///     .period(Period::Hour)
///     .cache_ttl(Duration::from_secs(60))
///     .rotation(RotationPolicy::default().max_messages(1_000_000));
/// assert_eq!(policy.home_region().as_str(), "eu-central-1");
/// # Ok::<(), strongroom::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantPolicy {
    keks: Vec<KekUri>,
    region: Region,
    scope_fields: Vec<String>,
    period: Period,
    rotation: RotationPolicy,
    suite: Suite,
    cache_ttl_secs: u64,
    verify_new_keys: bool,
}

impl TenantPolicy {
    /// A policy with one KEK and a home region; one data key for the whole tenant, no periods, a cache time to live of
    /// five minutes.
    pub fn new(kek: KekUri, region: Region) -> Self {
        Self {
            keks: vec![kek],
            region,
            scope_fields: Vec::new(),
            period: Period::None,
            rotation: RotationPolicy::default(),
            suite: Suite::default(),
            cache_ttl_secs: 300,
            verify_new_keys: true,
        }
    }

    /// Wraps every new data key under this KEK as well; any one of them unwraps it (a replica, an escrow).
    pub fn or_kek(mut self, kek: KekUri) -> Self {
        self.keks.push(kek);
        self
    }

    /// Which fields make a scope, such as `["workspace", "channel"]`: 0 to 8 names, each 1 to 32 of `a-z 0-9 _ -`.
    pub fn scope_by<S: Into<String>>(mut self, fields: impl IntoIterator<Item = S>) -> Self {
        self.scope_fields = fields.into_iter().map(Into::into).collect();
        self
    }

    /// How often, by the calendar, a scope gets a new data key.
    pub fn period(mut self, period: Period) -> Self {
        self.period = period;
        self
    }

    /// When a data key is replaced before its period ends.
    pub fn rotation(mut self, rotation: RotationPolicy) -> Self {
        self.rotation = rotation;
        self
    }

    /// Which ciphers new data keys are for.
    pub fn suite(mut self, suite: Suite) -> Self {
        self.suite = suite;
        self
    }

    /// How long an unwrapped data key may stay in memory, in whole seconds from the unwrap: 1 second to 24 hours.
    /// This bounds the time from a revocation at the KMS, or in another process, to the last open here.
    pub fn cache_ttl(mut self, ttl: Duration) -> Self {
        self.cache_ttl_secs = ttl.as_secs();
        self
    }

    /// Whether a new data key's wrapping is unwrapped again and compared before anything is sealed under it (default:
    /// yes). It costs one more KMS call for each new data key, and catches a KMS that hands out wrappings it cannot
    /// open, before messages are lost to it.
    pub fn verify_new_keys(mut self, verify: bool) -> Self {
        self.verify_new_keys = verify;
        self
    }

    /// The KEKs that wrap new data keys.
    pub fn keks(&self) -> &[KekUri] {
        &self.keks
    }

    /// Where new data keys and envelopes belong.
    pub fn home_region(&self) -> &Region {
        &self.region
    }

    /// The fields that make a scope.
    pub fn scope_fields(&self) -> &[String] {
        &self.scope_fields
    }

    /// The calendar period of data keys.
    pub fn key_period(&self) -> Period {
        self.period
    }

    /// The rotation rules.
    pub fn rotation_policy(&self) -> RotationPolicy {
        self.rotation
    }

    /// The suite of new data keys.
    pub fn key_suite(&self) -> Suite {
        self.suite
    }

    /// How long an unwrapped data key may stay in memory.
    pub fn key_cache_ttl(&self) -> Duration {
        Duration::from_secs(self.cache_ttl_secs)
    }

    pub(crate) fn verifies_new_keys(&self) -> bool {
        self.verify_new_keys
    }

    /// Checks what the builder took as it came.
    ///
    /// # Errors
    /// `InvalidArgument` saying which setting is wrong.
    pub(crate) fn check(&self) -> Result<()> {
        if !(1..=MAX_KEKS).contains(&self.keks.len()) {
            return Err(Error::invalid("a policy names 1 to 4 KEKs"));
        }
        if self.keks.iter().enumerate().any(|(i, kek)| self.keks.iter().skip(i + 1).any(|other| other == kek)) {
            return Err(Error::invalid("a policy names a KEK twice"));
        }
        if self.scope_fields.len() > MAX_SCOPE_FIELDS {
            return Err(Error::invalid("a scope has at most 8 fields"));
        }
        for (i, field) in self.scope_fields.iter().enumerate() {
            if RESERVED.contains(&field.as_str()) || field.starts_with("aws") {
                return Err(Error::invalid(format!("{field:?} cannot be a scope field: the KMS context uses it")));
            }
            let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
            if !(1..=32).contains(&field.len()) || !field.bytes().all(is_name) {
                return Err(Error::invalid("a scope field's name has 1 to 32 of a-z, 0-9, '_' and '-'"));
            }
            if self.scope_fields.iter().skip(i + 1).any(|other| other == field) {
                return Err(Error::invalid("a policy names a scope field twice"));
            }
        }
        if !(1..=24 * 3600).contains(&self.cache_ttl_secs) {
            return Err(Error::invalid("the cache time to live is 1 second to 24 hours"));
        }
        self.rotation.check()
    }

    /// Checks that `scope` has exactly the policy's fields.
    ///
    /// # Errors
    /// `InvalidArgument` naming the fields that the policy wants.
    pub(crate) fn check_scope(&self, scope: &Scope) -> Result<()> {
        let wanted = &self.scope_fields;
        if scope.fields().count() == wanted.len() && wanted.iter().all(|field| scope.get(field).is_some()) {
            return Ok(());
        }
        Err(Error::invalid(format!("the tenant's policy scopes data keys by {wanted:?}; name exactly these fields")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> TenantPolicy {
        TenantPolicy::new(KekUri::new("local:a").unwrap(), Region::new("eu").unwrap())
    }

    #[test]
    fn every_wrong_setting_is_refused() {
        assert!(policy().check().is_ok());
        assert!(policy().scope_by(["workspace", "channel"]).check().is_ok());
        let many: Vec<_> = (0..9).map(|i| format!("f{i}")).collect();
        for bad in [
            policy().or_kek(KekUri::new("local:a").unwrap()),
            policy().scope_by(["tenant"]),
            policy().scope_by(["hour"]),
            policy().scope_by(["aws:x"]),
            policy().scope_by([""]),
            policy().scope_by(["A"]),
            policy().scope_by(["a", "a"]),
            policy().scope_by(many),
            policy().cache_ttl(Duration::ZERO),
            policy().cache_ttl(Duration::from_secs(86_401)),
            policy().rotation(RotationPolicy::default().max_messages(0)),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_scope_has_exactly_the_fields_of_the_policy() {
        let policy = policy().scope_by(["workspace", "channel"]);
        let scope = |fields: &[(&str, &str)]| Scope::new(fields).unwrap();
        assert!(policy.check_scope(&scope(&[("channel", "C"), ("workspace", "W")])).is_ok());
        assert!(policy.check_scope(&scope(&[("channel", "C")])).is_err());
        assert!(policy.check_scope(&scope(&[("channel", "C"), ("x", "W")])).is_err());
        assert!(policy.check_scope(&scope(&[("channel", "C"), ("workspace", "W"), ("x", "Y")])).is_err());
    }

    #[test]
    fn a_stored_policy_reads_back_and_unknown_settings_are_refused() {
        let policy = policy().scope_by(["channel"]).period(Period::Hour);
        let stored = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<TenantPolicy>(&stored).unwrap(), policy);
        let newer = stored.replacen('{', "{\"dual_control\":true,", 1);
        assert!(serde_json::from_str::<TenantPolicy>(&newer).is_err(), "a newer setting must not be dropped silently");
    }
}
