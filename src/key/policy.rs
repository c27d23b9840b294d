//! Tenant policies: what a tenant decided about its keys.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use crate::crypto::suite::Suite;
use crate::error::{Error, ErrorKind, Result};
use crate::key::change::Forget;
use crate::key::context_rules::{ContextRules, RequiredFields};
use crate::key::encryption_context::RESERVED;
use crate::key::json::objects;
use crate::key::kek::KekUri;
use crate::key::kek_expression::{KekExpression, NEW_KEY_MEMBERS};
use crate::key::period::Period;
use crate::key::region::Region;
use crate::key::rotation::RotationPolicy;
use crate::key::scope::Scope;

/// Most fields of a scope.
pub const MAX_SCOPE_FIELDS: usize = 8;
/// Most regions that a tenant is allowed beside its home.
pub const MAX_ALLOWED_REGIONS: usize = 16;
/// Longest contact in bytes.
const MAX_CONTACT: usize = 200;

objects! {
    /// What a tenant decided: which KEK, which region, what a data key covers, what each message is bound to and how long a key
    /// serves.
    ///
    /// ```
    /// use std::time::Duration;
    /// use strongroom::{KekUri, Period, Region, RotationPolicy, TenantPolicy};
    ///
    /// let policy = TenantPolicy::new(KekUri::new("local:acme-2026")?, Region::new("eu-central-1")?)
    ///     .scope_by(["workspace", "channel"])
    ///     .bind(["message"])
    ///     .bind_files(["file"])
    ///     .period(Period::Hour)
    ///     .cache_ttl(Duration::from_secs(60))
    ///     .rotation(RotationPolicy::default().max_messages(1_000_000));
    /// assert_eq!(policy.home_region().as_str(), "eu-central-1");
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct TenantPolicy {
        keks: KekExpression,
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::key::json::present")]
        new_key_members: Option<u8>,
        region: Region,
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty", deserialize_with = "crate::key::json::distinct")]
        allowed_regions: BTreeSet<Region>,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::key::json::by_name")]
        kek_regions: BTreeMap<KekUri, Region>,
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty", deserialize_with = "crate::key::json::distinct")]
        shared_keks: BTreeSet<KekUri>,
        scope_fields: Vec<String>,
        #[serde(default)]
        context_rules: ContextRules,
        period: Period,
        rotation: RotationPolicy,
        suite: Suite,
        cache_ttl_secs: u64,
        verify_new_keys: bool,
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::key::json::present")]
        retention_secs: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::key::json::present")]
        contact: Option<String>,
    }
}

impl TenantPolicy {
    /// A policy with a KEK, or an expression of several, and a home region; one data key for the whole tenant, no periods, a cache time to live of
    /// five minutes; each context has at least one field with a value besides the scope's.
    pub fn new(keks: impl Into<KekExpression>, region: Region) -> Self {
        Self {
            keks: keks.into(),
            new_key_members: None,
            region,
            allowed_regions: BTreeSet::new(),
            kek_regions: BTreeMap::new(),
            shared_keks: BTreeSet::new(),
            scope_fields: Vec::new(),
            context_rules: ContextRules::default(),
            period: Period::None,
            rotation: RotationPolicy::default(),
            suite: Suite::default(),
            cache_ttl_secs: 300,
            verify_new_keys: true,
            retention_secs: None,
            contact: None,
        }
    }

    /// Wraps every new data key under this KEK as well; any one of them unwraps it (a replica, an escrow).
    pub fn or_kek(mut self, kek: KekUri) -> Self {
        self.keks = match self.keks {
            KekExpression::AnyOf(mut of) => {
                of.push(kek.into());
                KekExpression::AnyOf(of)
            }
            other => KekExpression::AnyOf(vec![other, kek.into()]),
        };
        self
    }

    /// Other KEKs for new data keys. Records that exist keep theirs until they are rewrapped (`Admin::rewrap`).
    pub fn wrapped_by(mut self, keks: impl Into<KekExpression>) -> Self {
        self.keks = keks.into();
        self
    }

    /// How many members of each `any_of` a new data key needs, 1 to 8: where so many wrapped it, those that do not answer, or are
    /// throttled, are left out. Default: all of them, so that while a replica or an escrow is down nothing new is sealed.
    ///
    /// With fewer, whoever can cut off an escrow's KMS has new keys made without the escrow. A *denial* is an answer: no key is made
    /// then, and none if a member wrapped it and cannot be asked to prove that ([`Self::verify_new_keys`]). A key that lacks members has them after [`Admin::rewrap`](crate::Admin::rewrap), which leaves nobody out; until
    /// then [`Admin::keys`](crate::Admin::keys) shows what it is wrapped for, and the log warned of it.
    ///
    /// ```
    /// use strongroom::{KekExpression, Region, TenantPolicy};
    ///
    /// let keks: KekExpression = "any_of(local:acme-eu, local:acme-replica)".parse()?;
    /// let policy = TenantPolicy::new(keks, Region::new("eu-central-1")?).new_key_members(1);
    /// assert_eq!(policy.members_of_new_keys(), Some(1));
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    pub fn new_key_members(mut self, members: u8) -> Self {
        self.new_key_members = Some(members);
        self
    }

    /// Another home region for new data keys and envelopes. What was sealed elsewhere opens as long as its region is
    /// allowed ([`Self::allow_region`]).
    pub fn home(mut self, region: Region) -> Self {
        self.region = region;
        self
    }

    /// [`Self::home`], with the old home allowed.
    pub(crate) fn moved_to(mut self, region: Region) -> Self {
        let old = std::mem::replace(&mut self.region, region);
        self.allowed_regions.remove(&self.region);
        if old != self.region {
            self.allowed_regions.insert(old);
        }
        self
    }

    /// Allows the tenant's KEKs and envelopes to be in this region too (at most 16 beside the home).
    pub fn allow_region(mut self, region: Region) -> Self {
        self.allowed_regions.insert(region);
        self
    }

    /// Undoes [`Self::allow_region`]: what was sealed there no longer opens.
    pub fn disallow_region(mut self, region: &Region) -> Self {
        self.allowed_regions.remove(region);
        self
    }

    /// States where a KEK is, for KEKs whose URI does not say (an ARN does). Used to refuse it before any call; what the
    /// KMS itself says at enrolment counts as well. A later policy that says nothing of the KEK leaves it standing.
    pub fn kek_in(mut self, kek: KekUri, region: Region) -> Self {
        self.kek_regions.insert(kek, region);
        self
    }

    /// Says that this KEK may serve other tenants too. A KEK serves one tenant unless every policy that names it says so.
    pub fn share_kek(mut self, kek: KekUri) -> Self {
        self.shared_keks.insert(kek);
        self
    }

    /// Whether a KEK may serve other tenants too.
    pub fn shares_kek(&self, kek: &KekUri) -> bool {
        self.shared_keks.contains(kek)
    }

    /// How long data keys outlive their period, in whole seconds. Each run of `Admin::apply_retention` puts those that are over to
    /// *wait* to be erased: from then on they neither seal nor open, and `Admin::carry_out_erasure` destroys them when the wait is
    /// over. Nothing is erased without these two calls. Needs a [`Self::period`].
    pub fn retain_for(mut self, time: Duration) -> Self {
        self.retention_secs = Some(time.as_secs());
        self
    }

    /// Who can restore what the tenant revoked, at most 200 bytes: a name, an address or a page. Errors name it.
    pub fn contact(mut self, contact: impl Into<String>) -> Self {
        self.contact = Some(contact.into());
        self
    }

    /// Which fields make a scope, such as `["workspace", "channel"]`: 0 to 8 names, each 1 to 32 of `a-z 0-9 _ -`.
    pub fn scope_by<S: Into<String>>(mut self, fields: impl IntoIterator<Item = S>) -> Self {
        self.scope_fields = fields.into_iter().map(Into::into).collect();
        self
    }

    /// Which fields the context of every message carries besides the scope's, such as `["message"]`: 1 to 8 names of 1 to 64
    /// bytes, each with a value that is not empty; a context may have more. Sealing and opening refuse one without them as
    /// `InvalidArgument`, so that a call site that leaves a field out, or misspells it, is found at once.
    ///
    /// By default at least one field is asked for, whatever its name. Files have rules of their own ([`Self::bind_files`]). A
    /// data key keeps the rules that it was made under: after a change scopes get new data keys, and older messages open with
    /// the context that they were sealed with.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use strongroom::*;
    /// # let kms = LocalKms::in_memory();
    /// # let region = Region::new("eu-central-1")?;
    /// # let kek = kms.create_kek("acme", region.clone())?;
    /// # let room = Strongroom::builder().serving(["eu-central-1"]).key_store(MemoryKeyStore::default()).kms(kms).trusting_the_key_store().build().await?;
    /// # let admin = room.admin("ops@example.com", "an example")?;
    /// admin.enroll("acme", TenantPolicy::new(kek, region).scope_by(["channel"]).bind(["message"])).await?;
    /// let channel = room.tenant("acme").await?.scope([("channel", "C9")])?;
    /// assert!(channel.seal(&[("message", "M77"), ("author", "U1")], b"hello").await.is_ok());
    /// for forgotten in [&[][..], &[("massage", "M77")], &[("message", "")]] {
    ///     let refused = channel.seal(forgotten, b"hello").await.unwrap_err();
    ///     assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    /// }
    /// # Ok::<(), Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bind<S: Into<String>>(mut self, fields: impl IntoIterator<Item = S>) -> Self {
        self.context_rules.messages = RequiredFields::named(fields);
        self
    }

    /// As [`Self::bind`], for files, such as `["file"]`. What messages are bound to does not count for them: without this a
    /// file's context has at least one field with a value, whatever its name.
    pub fn bind_files<S: Into<String>>(mut self, fields: impl IntoIterator<Item = S>) -> Self {
        self.context_rules.files = RequiredFields::named(fields);
        self
    }

    /// Lets messages be sealed without a context of their own, in place of [`Self::bind`]: bound to tenant and scope alone.
    /// Whoever can write where they are stored can then swap the messages of a scope unnoticed.
    pub fn allow_unbound_messages(mut self) -> Self {
        self.context_rules.messages = RequiredFields::Unbound;
        self
    }

    /// As [`Self::allow_unbound_messages`], for files, in place of [`Self::bind_files`].
    pub fn allow_unbound_files(mut self) -> Self {
        self.context_rules.files = RequiredFields::Unbound;
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
    /// yes). It costs as many more KMS calls for each new data key as the policy names KEKs, and catches a KMS that hands out
    /// wrappings it cannot open, before messages are lost to it.
    pub fn verify_new_keys(mut self, verify: bool) -> Self {
        self.verify_new_keys = verify;
        self
    }

    /// The KEKs that wrap new data keys.
    pub fn keks(&self) -> &KekExpression {
        &self.keks
    }

    /// How many members of each `any_of` a new data key needs; `None` stands for all.
    pub fn members_of_new_keys(&self) -> Option<u8> {
        self.new_key_members
    }

    /// The regions that the tenant is allowed beside its home.
    pub fn allowed_regions(&self) -> impl Iterator<Item = &Region> {
        self.allowed_regions.iter()
    }

    /// Whether envelopes, keys and KEKs of this tenant may be in `region`.
    pub fn allows(&self, region: &Region) -> bool {
        self.region == *region || self.allowed_regions.contains(region)
    }

    /// How long data keys outlive their period.
    pub fn retention(&self) -> Option<Duration> {
        self.retention_secs.map(Duration::from_secs)
    }

    /// Who can restore what the tenant revoked.
    pub fn restored_by(&self) -> &str {
        self.contact.as_deref().unwrap_or("its administrator")
    }

    /// Where a KEK is, as far as its URI or the policy says.
    pub(crate) fn kek_region(&self, kek: &KekUri) -> Option<Region> {
        kek.stated_region().or_else(|| self.kek_regions.get(kek).cloned())
    }

    /// Keeps what `before` says of where KEKs are and this policy does not say: what is left out loosens nothing. To say that a
    /// KEK is elsewhere, state that.
    pub(crate) fn keeping_kek_regions(mut self, before: &Self) -> Self {
        for (kek, region) in &before.kek_regions {
            self.kek_regions.entry(kek.clone()).or_insert_with(|| region.clone());
        }
        self
    }

    /// What nodes have to forget when `next` takes this policy's place. Each setting has its say: a new one does not compile
    /// before it has.
    pub(crate) fn forgotten_for(&self, next: &Self) -> Forget {
        let Self {
            keks: _,            // of new data keys; existing records keep theirs
            allowed_regions: _, // with `region`: what was allowed and is not any more
            shared_keks: _,     // about other tenants
            verify_new_keys: _, // about keys to come
            new_key_members: _, // as well
            retention_secs: _,  // an erasure says what it covers
            contact: _,         // words
            region,
            kek_regions,
            scope_fields,
            context_rules,
            period,
            rotation,
            suite,
            cache_ttl_secs,
        } = self;
        let narrower = next.cache_ttl_secs < *cache_ttl_secs
            || self.all_regions().any(|region| !next.allows(region))
            || next.kek_regions != *kek_regions;
        let seals_otherwise = next.region != *region
            || next.scope_fields != *scope_fields
            || next.context_rules != *context_rules
            || next.period != *period
            || next.rotation != *rotation
            || next.suite != *suite;
        if narrower {
            Forget::Keys
        } else if seals_otherwise {
            Forget::Sealing
        } else {
            Forget::Nothing
        }
    }

    fn all_regions(&self) -> impl Iterator<Item = &Region> {
        self.allowed_regions.iter().chain([&self.region])
    }

    /// Refuses a region, or a KEK that is stated to be in one, that the tenant does not allow. Asked before any KMS call.
    ///
    /// # Errors
    /// `Region`.
    pub(crate) fn check_kek_region(&self, kek: &KekUri) -> Result<()> {
        match self.kek_region(kek) {
            Some(region) => self.check_region(&region).map_err(|e| e.with_kek(kek.as_str())),
            None => Ok(()),
        }
    }

    /// # Errors
    /// `Region` if it is neither the tenant's home nor allowed.
    pub(crate) fn check_region(&self, region: &Region) -> Result<()> {
        if self.allows(region) {
            return Ok(());
        }
        let allowed: Vec<&str> = self.allowed_regions.iter().map(Region::as_str).collect();
        let message = format!("the tenant's home is {}, and beside it {allowed:?} are allowed", self.region);
        Err(Error::new(ErrorKind::Region, message).with_region(region.as_str()))
    }

    /// Where new data keys and envelopes belong.
    pub fn home_region(&self) -> &Region {
        &self.region
    }

    /// The fields that make a scope.
    pub fn scope_fields(&self) -> &[String] {
        &self.scope_fields
    }

    /// Whether new keys have this name, of a scope's field or of a period.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.period.name() == Some(name) || self.scope_fields.iter().any(|field| field == name)
    }

    /// What contexts of messages and files must carry.
    pub fn context_rules(&self) -> &ContextRules {
        &self.context_rules
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

    /// From which part of its time to live on a key in use is loaded again, ahead of its end.
    pub(crate) fn refreshed_after(cache_ttl: Duration) -> Duration {
        cache_ttl * 4 / 5
    }

    pub(crate) fn verifies_new_keys(&self) -> bool {
        self.verify_new_keys
    }

    /// Checks what the builder took as it came.
    ///
    /// # Errors
    /// `InvalidArgument` saying which setting is wrong.
    pub(crate) fn check(&self) -> Result<()> {
        self.keks.check()?;
        self.keks.keks().try_for_each(|kek| self.check_kek_region(kek))?;
        if self.allowed_regions.len() > MAX_ALLOWED_REGIONS {
            return Err(Error::invalid("a policy allows at most 16 regions beside the home"));
        }
        if self.contact.as_ref().is_some_and(|c| c.is_empty() || c.len() > MAX_CONTACT || c.contains(char::is_control))
        {
            return Err(Error::invalid("a policy's contact has 1 to 200 bytes on one line"));
        }
        if self.new_key_members.is_some_and(|members| !NEW_KEY_MEMBERS.contains(&members)) {
            return Err(Error::invalid("a new data key needs 1 to 8 members of each any_of (new_key_members)"));
        }
        if self.retention_secs.is_some() && self.period == Period::None {
            return Err(Error::invalid("keys without periods have no age to retain them by: set a period"));
        }
        if self.retention_secs == Some(0) {
            return Err(Error::invalid("the retention time must be at least a second"));
        }
        let scope_fields = self.scope_fields.iter().map(String::as_str);
        check_scope_fields(&scope_fields)?;
        self.context_rules.check(&scope_fields)?;
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

/// Which names the fields of a scope can have, and how many there can be.
///
/// # Errors
/// `InvalidArgument` saying what is wrong.
pub(crate) fn check_scope_fields<'a>(fields: &(impl Iterator<Item = &'a str> + Clone)) -> Result<()> {
    for (i, field) in fields.clone().enumerate() {
        if i >= MAX_SCOPE_FIELDS {
            return Err(Error::invalid("a scope has at most 8 fields"));
        }
        if RESERVED.contains(&field) || field.starts_with("aws") {
            return Err(Error::invalid(format!("{field:?} cannot be a scope field: the KMS context uses it")));
        }
        let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
        if !(1..=32).contains(&field.len()) || !field.bytes().all(is_name) {
            return Err(Error::invalid("a scope field's name has 1 to 32 of a-z, 0-9, '_' and '-'"));
        }
        if fields.clone().skip(i + 1).any(|other| other == field) {
            return Err(Error::invalid("a policy names a scope field twice"));
        }
    }
    Ok(())
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
            policy().bind(["message", "message"]),
            policy().scope_by(["channel"]).bind(["channel"]),
            policy().scope_by(["channel"]).bind_files(["channel"]),
            policy().bind([""; 0]),
            policy().bind_files([""]),
            policy().cache_ttl(Duration::ZERO),
            policy().cache_ttl(Duration::from_secs(86_401)),
            policy().rotation(RotationPolicy::default().max_messages(0)),
            policy().retain_for(Duration::from_secs(9)),
            policy().period(Period::Hour).retain_for(Duration::ZERO),
            policy().contact(""),
            policy().contact("a\nb"),
            policy().wrapped_by(KekUri::new("x:arn:aws:kms:us:1:key/a").unwrap()),
            policy().kek_in(KekUri::new("local:a").unwrap(), Region::new("us").unwrap()),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn keks_and_envelopes_stay_in_the_regions_allowed() {
        let (eu, us) = (Region::new("eu").unwrap(), Region::new("us").unwrap());
        let arn = KekUri::new("x:arn:aws:kms:us:1:key/a").unwrap();
        assert!(policy().check_region(&eu).is_ok());
        assert_eq!(policy().check_region(&us).unwrap_err().kind(), ErrorKind::Region);
        assert_eq!(policy().check_kek_region(&arn).unwrap_err().kind(), ErrorKind::Region);
        let both = policy().allow_region(us.clone()).wrapped_by(arn);
        assert!(both.check().is_ok() && both.check_region(&us).is_ok());
        assert!(both.disallow_region(&us).check().is_err());
    }

    #[test]
    fn a_change_forgets_what_it_takes_away() {
        let now = policy().allow_region(Region::new("us").unwrap());
        let us = Region::new("us").unwrap();
        for (next, forget) in [
            (now.clone(), Forget::Nothing),
            (now.clone().wrapped_by(KekUri::new("local:b").unwrap()).contact("x"), Forget::Nothing),
            (now.clone().cache_ttl(Duration::from_secs(301)), Forget::Nothing),
            (now.clone().cache_ttl(Duration::from_secs(299)), Forget::Keys),
            (now.clone().disallow_region(&us), Forget::Keys),
            (now.clone().kek_in(KekUri::new("local:old").unwrap(), Region::new("ap").unwrap()), Forget::Keys),
            (now.clone().home(us.clone()), Forget::Keys),
            (now.clone().allow_region(Region::new("eu").unwrap()).home(us), Forget::Sealing),
            (now.clone().period(Period::Day), Forget::Sealing),
            (now.clone().bind(["message"]), Forget::Sealing),
            (now.clone().allow_unbound_files(), Forget::Sealing),
            (now.clone().suite(Suite::ChaCha20Poly1305), Forget::Sealing),
        ] {
            assert_eq!(now.forgotten_for(&next), forget, "{next:?}");
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
        let policy = policy().scope_by(["channel"]).bind(["message"]).allow_unbound_files().period(Period::Hour);
        let stored = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<TenantPolicy>(&stored).unwrap(), policy);
        let without = stored.replace(r#""context_rules":{"messages":["message"],"files":"unbound"},"#, "");
        assert_ne!(without, stored);
        let strict = serde_json::from_str::<TenantPolicy>(&without).unwrap();
        assert_eq!(strict.context_rules(), &ContextRules::default(), "what is missing does not loosen");
        let newer = stored.replacen('{', "{\"dual_control\":true,", 1);
        assert!(serde_json::from_str::<TenantPolicy>(&newer).is_err(), "a newer setting must not be dropped silently");
    }

    #[test]
    fn limits_are_kept_to_the_last_one() {
        let many =
            |n: usize| (0..n).fold(policy(), |policy, i| policy.allow_region(Region::new(&format!("r{i}")).unwrap()));
        let (longest, eight) = ("x".repeat(MAX_CONTACT), (0..MAX_SCOPE_FIELDS).map(|i| format!("f{i}")));
        for good in [
            many(MAX_ALLOWED_REGIONS),
            policy().contact("x"),
            policy().contact(longest.clone()),
            policy().scope_by(eight),
            policy().cache_ttl(Duration::from_secs(1)),
            policy().cache_ttl(Duration::from_secs(86_400)),
            policy().period(Period::Hour).retain_for(Duration::from_secs(1)),
        ] {
            assert!(good.check().is_ok(), "{good:?}");
        }
        for bad in [
            many(MAX_ALLOWED_REGIONS + 1),
            policy().contact(longest + "x"),
            policy().scope_by(["awsome"]),
            policy().cache_ttl(Duration::from_secs(86_401)),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_set_is_what_is_read() {
        let us = Region::new("us").unwrap();
        let rotation = RotationPolicy::default().max_messages(7).max_age(Duration::from_secs(8));
        let set = policy()
            .allow_region(us.clone())
            .scope_by(["channel"])
            .period(Period::Day)
            .rotation(rotation)
            .suite(Suite::ChaCha20Poly1305)
            .allow_unbound_files()
            .bind(["thread", "message"])
            .cache_ttl(Duration::from_secs(9))
            .verify_new_keys(false)
            .retain_for(Duration::from_secs(10))
            .contact("security@acme");
        assert!(set.allowed_regions().eq([&us]));
        assert_eq!(set.scope_fields(), ["channel"]);
        assert_eq!((set.key_period(), set.rotation_policy()), (Period::Day, rotation));
        assert_eq!((rotation.messages(), rotation.age()), (7, Duration::from_secs(8)));
        assert_eq!((set.key_suite(), set.key_cache_ttl()), (Suite::ChaCha20Poly1305, Duration::from_secs(9)));
        let messages = RequiredFields::Named(vec!["message".into(), "thread".into()]);
        assert_eq!(set.context_rules(), &ContextRules { messages, files: RequiredFields::Unbound });
        assert_eq!((set.retention(), policy().retention()), (Some(Duration::from_secs(10)), None));
        assert_eq!((set.restored_by(), policy().restored_by()), ("security@acme", "its administrator"));
        assert!(!set.verifies_new_keys() && policy().verifies_new_keys());
        assert_eq!(TenantPolicy::refreshed_after(Duration::from_secs(300)), Duration::from_secs(240));
    }

    #[test]
    fn where_keks_are_is_kept_unless_another_place_is_stated() {
        let (eu, us) = (Region::new("eu").unwrap(), Region::new("us").unwrap());
        let [a, b] = ["local:a", "local:b"].map(|kek| KekUri::new(kek).unwrap());
        let before = policy().kek_in(a.clone(), eu.clone()).kek_in(b.clone(), us.clone());
        assert_eq!(policy().keeping_kek_regions(&before), before);
        let next = policy().kek_in(b.clone(), eu.clone()).keeping_kek_regions(&before);
        assert_eq!((next.kek_region(&a), next.kek_region(&b)), (Some(eu.clone()), Some(eu)));
    }

    #[test]
    fn a_tenant_that_moves_allows_where_it_was() {
        let (eu, us) = (Region::new("eu").unwrap(), Region::new("us").unwrap());
        let moved = policy().moved_to(us.clone());
        assert_eq!(moved.home_region(), &us);
        assert!(moved.allowed_regions().eq([&eu]));
        let stayed = moved.clone().moved_to(us.clone());
        assert!(stayed.allowed_regions().eq([&eu]), "its home is not beside itself");
        assert!(moved.moved_to(eu).allowed_regions().eq([&us]));
    }
}
