//! The onboarding probe: proves, before a tenant is enrolled, that its KEKs work and are safe.

use std::fmt;

use serde::Serialize;

use crate::admin::{Admin, explain};
use crate::crypto::secret::DataKey;
use crate::crypto::suite::Suite;
use crate::error::{Error, ErrorKind, Result};
use crate::format::context::Field;
use crate::key::encryption_context::EncryptionContext;
use crate::key::finding::{Expected, Finding, Outcome};
use crate::key::id::{KeyId, TenantId};
use crate::key::kek::KekUri;
use crate::key::policy::TenantPolicy;
use crate::key::record::KeyRecord;
use crate::key::scope::Scope;
use crate::key::state::KeyState;
use crate::key::tenant::TenantRecord;
use crate::key::wrapped_key::Wrapping;

/// The value of every scope field in a probe's encryption contexts: what the tenant's own trail shows of it.
const PROBE: &str = "strongroom-probe";
const ANOTHER: &str = "strongroom-probe-another";

/// One check of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The KEK checked; `None` for a check of the policy as a whole.
    pub kek: Option<KekUri>,
    /// Whether the tenant's messages depend on it: then it has to pass before the tenant is enrolled.
    pub required: bool,
    /// What was found.
    #[serde(flatten)]
    pub finding: Finding,
}

/// What a probe of a tenant's KEKs found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeReport {
    /// Whose.
    pub tenant: TenantId,
    /// When, in Unix milliseconds.
    pub at: i64,
    /// Check by check.
    pub checks: Vec<Check>,
}

impl ProbeReport {
    /// Whether the tenant can be enrolled: nothing failed, and nothing that its messages depend on is unknown.
    pub fn is_ready(&self) -> bool {
        let blocks = |check: &Check| match check.finding.outcome {
            Outcome::Fail => true,
            Outcome::Unknown => check.required,
            Outcome::Pass | Outcome::Warn => false,
        };
        !self.checks.iter().any(blocks)
    }

    /// The report as JSON.
    ///
    /// # Errors
    /// `InvalidArgument` if it cannot be encoded.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|e| Error::invalid("a report cannot be encoded").with_source(e))
    }
}

/// The report as a table.
impl fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tenant {}: {}", self.tenant, if self.is_ready() { "ready" } else { "NOT READY" })?;
        let mut about = None;
        for Check { kek, finding, .. } in &self.checks {
            if about != Some(kek) {
                writeln!(f, "{}", kek.as_ref().map_or("the policy as a whole", KekUri::as_str))?;
                about = Some(kek);
            }
            writeln!(f, "  {:<8} {:<24} {}", finding.outcome, finding.name, finding.detail)?;
            if !finding.what_to_do.is_empty() {
                writeln!(f, "  {:<8} {:<24} -> {}", "", "", finding.what_to_do)?;
            }
        }
        Ok(())
    }
}

impl Admin {
    /// Proves that each KEK of `policy` works and is safe for `tenant`, before [`Self::enroll`]: it is described, in a region
    /// that the policy allows; it makes and unwraps a data key; it refuses another tenant's and another scope's encryption
    /// context and altered bytes; it rewraps, if the KMS can; and whatever else the KMS itself knows of it
    /// ([`Kms::inspect`](crate::Kms::inspect)), against what is `expected`. About a dozen calls for each KEK, under encryption
    /// contexts whose scope fields say `strongroom-probe`. Nothing is stored, and nothing at the KMS is changed.
    ///
    /// A KEK that fails is a finding, not an error; a KEK that is stated to be where the policy allows none is not called.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use strongroom::*;
    /// # let kms = LocalKms::in_memory();
    /// # let region = Region::new("eu-central-1")?;
    /// # let kek = kms.create_kek("acme", region.clone())?;
    /// # let room = Strongroom::builder().serving(["eu-central-1"]).key_store(MemoryKeyStore::default()).kms(kms).trusting_the_key_store().build().await?;
    /// let policy = TenantPolicy::new(kek, region).scope_by(["channel"]).bind(["message"]);
    /// let report = room.admin("ops@example.com", "an example")?.probe("acme", &policy, &Expected::default()).await?;
    /// println!("{report}"); // a table for the tenant's administrator
    /// if report.is_ready() {
    ///     room.admin("ops@example.com", "an example")?.enroll("acme", policy).await?;
    /// }
    /// # Ok::<(), Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` for a wrong name or policy, `Region` if the home region is not served here.
    pub async fn probe(&self, tenant: &str, policy: &TenantPolicy, expected: &Expected) -> Result<ProbeReport> {
        let run = async {
            let id = TenantId::new(tenant)?;
            // A KEK in a wrong place is what the report is for.
            policy.check().or_else(|e| if e.kind() == ErrorKind::Region { Ok(()) } else { Err(e) })?;
            self.keyring.check_served(policy.home_region().as_str())?;
            let regions = policy.allowed_regions().chain([policy.home_region()]).cloned();
            let expected = regions.fold(expected.clone(), Expected::region);
            let at = self.keyring.clock.unix_millis();
            let contexts = Contexts::new(&id, policy, at)?;
            let mut probe = Probe { admin: self, tenant: &id, policy, contexts, checks: Vec::new() };
            for kek in policy.keks().keks() {
                probe.kek(kek, &expected).await;
            }
            probe.whole(at).await;
            let checks = probe.checks;
            Ok(ProbeReport { tenant: id, at, checks })
        };
        run.await.map_err(|e: Error| explain(e, "probe", tenant))
    }
}

/// The encryption context of the probe's data keys, and two that it must not unwrap under.
struct Contexts {
    own: EncryptionContext,
    other_tenant: EncryptionContext,
    /// Another scope; another suite where the policy has no scope fields.
    other_scope: EncryptionContext,
}

impl Contexts {
    fn new(tenant: &TenantId, policy: &TenantPolicy, at: i64) -> Result<Self> {
        let scope = scope(policy, PROBE)?;
        let (suite, period) = (policy.key_suite(), policy.key_period().label(at)?);
        let context = |tenant: &TenantId, suite: Suite, scope: &Scope| {
            EncryptionContext::new(tenant, policy.home_region(), suite, scope, period.as_ref())
        };
        let stranger = TenantId::new(if tenant.as_str() == PROBE { ANOTHER } else { PROBE })?;
        let other_suite = Suite::ALL.into_iter().find(|other| *other != suite).unwrap_or_default();
        let elsewhere = self::scope(policy, ANOTHER)?;
        Ok(Self {
            own: context(tenant, suite, &scope)?,
            other_tenant: context(&stranger, suite, &scope)?,
            other_scope: if policy.scope_fields().is_empty() {
                context(tenant, other_suite, &scope)?
            } else {
                context(tenant, suite, &elsewhere)?
            },
        })
    }
}

fn scope(policy: &TenantPolicy, value: &str) -> Result<Scope> {
    let fields: Vec<Field<'_>> = policy.scope_fields().iter().map(|name| (name.as_str(), value)).collect();
    Scope::new(&fields)
}

struct Probe<'a> {
    admin: &'a Admin,
    tenant: &'a TenantId,
    policy: &'a TenantPolicy,
    contexts: Contexts,
    checks: Vec<Check>,
}

impl Probe<'_> {
    async fn kek(&mut self, kek: &KekUri, expected: &Expected) {
        let kms = &self.admin.keyring.kms;
        if let (Err(e), Some(region)) = (self.policy.check_kek_region(kek), self.policy.kek_region(kek)) {
            self.checks.push(required(kek, elsewhere(region.as_str(), &e)));
            return;
        }
        match kms.describe(self.tenant, kek).await {
            Err(e) => self.checks.push(required(kek, refused("described", &e))),
            Ok(described) => {
                let enabled = Finding::new("enabled", Outcome::Pass, format!("version {}", described.version));
                let disabled = Finding::new("enabled", Outcome::Fail, "the KEK does not wrap or unwrap at present")
                    .advise("its owner enables it, or imports its key material");
                self.checks.push(required(kek, if described.enabled { enabled } else { disabled }));
                let region = described.region.as_str();
                let finding = match self.policy.check_region(&described.region) {
                    Ok(()) => Finding::new("region", Outcome::Pass, format!("in {region}, which the policy allows")),
                    Err(e) => elsewhere(region, &e),
                };
                self.checks.push(required(kek, finding));
            }
        }
        if let Some((data_key, wrapping)) = self.makes(kek).await {
            self.refuses(&data_key, &wrapping).await;
            self.rewraps(&data_key, &wrapping).await;
        }
        match kms.inspect(self.tenant, kek, expected).await {
            Ok(findings) => self.checks.extend(findings.into_iter().map(|finding| noted(kek, finding))),
            Err(e) => self.checks.push(noted(kek, Finding::new("inspected", Outcome::Unknown, e.to_string()))),
        }
    }

    /// Generates, or wraps, as the policy will have it; then unwraps and compares.
    async fn makes(&mut self, kek: &KekUri) -> Option<(DataKey, Wrapping)> {
        let kms = &self.admin.keyring.kms;
        let context = &self.contexts.own;
        let is_alone = self.policy.keks().keks().count() == 1;
        let mut made = None;
        if self.policy.keks().generates_under(kek) {
            match kms.generate(self.tenant, kek, context).await {
                Ok(generated) => made = Some((generated.data_key, generated.wrapped)),
                Err(e) => self.checks.push(required(kek, refused("generates", &e))),
            }
        }
        if !is_alone || made.is_none() {
            // KEKs that stand beside others are asked to wrap what was made elsewhere.
            let own = DataKey::random().ok()?;
            match kms.wrap(self.tenant, kek, context, &own).await {
                Ok(wrapped) if made.is_none() => made = Some((own, wrapped)),
                Ok(_) => {}
                Err(e) if self.policy.keks().generates_under(kek) => {
                    self.checks.push(noted(kek, refused("wraps", &e)));
                }
                Err(e) => self.checks.push(required(kek, refused("wraps", &e))),
            }
        }
        let (data_key, wrapped) = made?;
        let wrapping = Wrapping { kek: kek.clone(), wrapped };
        self.checks
            .push(required(kek, Finding::new("makes data keys", Outcome::Pass, "a data key was made and wrapped")));
        let finding = match kms.unwrap(self.tenant, &wrapping, context).await {
            Ok(key) if key.ct_eq(&data_key) => Finding::new("unwraps", Outcome::Pass, "the same data key came back"),
            Ok(_) => Finding::new("unwraps", Outcome::Fail, "another data key came back than was wrapped")
                .advise("do not use this KMS: messages sealed under its keys could not be opened again"),
            Err(e) => refused("unwraps", &e),
        };
        let works = finding.outcome == Outcome::Pass;
        self.checks.push(required(kek, finding));
        works.then_some((data_key, wrapping))
    }

    /// Whether what must not unwrap does not.
    async fn refuses(&mut self, data_key: &DataKey, wrapping: &Wrapping) {
        let Contexts { own, other_tenant, other_scope } = &self.contexts;
        let altered = |at: fn(usize) -> usize| {
            let mut wrapping = wrapping.clone();
            let place = at(wrapping.wrapped.len());
            wrapping.wrapped.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= 1);
            wrapping
        };
        let tries = [
            ("refuses another tenant", other_tenant, wrapping.clone()),
            ("refuses another scope", other_scope, wrapping.clone()),
            ("refuses altered bytes", own, altered(|len| len.saturating_sub(1))),
            ("refuses altered bytes", own, altered(|len| len / 2)),
        ];
        let mut findings: Vec<Finding> = Vec::new();
        for (name, context, wrapping) in tries {
            let opened = self.admin.keyring.kms.unwrap(self.tenant, &wrapping, context).await;
            let finding = match opened {
                Err(e) if e.kind() == ErrorKind::Denied => Finding::new(name, Outcome::Pass, "refused, as it must be"),
                Err(e) => Finding::new(name, Outcome::Unknown, e.to_string()).advise("probe again"),
                Ok(key) => {
                    let which = if key.ct_eq(data_key) { "the data key" } else { "some key" };
                    Finding::new(name, Outcome::Fail, format!("it gave {which} where it must refuse"))
                        .advise("do not use this KMS: it does not bind data keys to what they are for")
                }
            };
            match findings.last_mut() {
                Some(last) if last.name == finding.name && last.outcome == Outcome::Pass => *last = finding,
                Some(last) if last.name == finding.name => {}
                _ => findings.push(finding),
            }
        }
        self.checks.extend(findings.into_iter().map(|finding| required(&wrapping.kek, finding)));
    }

    /// Whether the KMS wraps again by itself. If it cannot, a later rewrap unwraps and wraps.
    async fn rewraps(&mut self, data_key: &DataKey, wrapping: &Wrapping) {
        const NAME: &str = "rewraps inside the KMS";
        let (kms, context) = (&self.admin.keyring.kms, &self.contexts.own);
        let finding = match kms.rewrap(self.tenant, wrapping, &wrapping.kek, context).await {
            Ok(None) => Finding::new(NAME, Outcome::Pass, "it does not; Admin::rewrap unwraps and wraps instead"),
            Ok(Some(wrapped)) => {
                let again = Wrapping { kek: wrapping.kek.clone(), wrapped };
                match kms.unwrap(self.tenant, &again, context).await {
                    Ok(key) if key.ct_eq(data_key) => Finding::new(NAME, Outcome::Pass, "the same data key came back"),
                    Ok(_) => Finding::new(NAME, Outcome::Fail, "another data key came back than was wrapped")
                        .advise("do not rewrap with this KMS"),
                    Err(e) => refused(NAME, &e),
                }
            }
            // Not needed for messages, only to leave this KEK one day.
            Err(e) => {
                Finding::new(NAME, Outcome::Warn, e.to_string()).advise("allow it before Admin::rewrap is called")
            }
        };
        self.checks.push(noted(&wrapping.kek, finding));
    }

    /// One data key made and opened the way the tenant's will be, through all its KEKs.
    async fn whole(&mut self, at: i64) {
        let failed = |check: &Check| check.required && check.finding.outcome != Outcome::Pass;
        if self.policy.keks().keks().count() < 2 || self.checks.iter().any(failed) {
            return;
        }
        let finding = match self.record(at).await {
            Ok(()) => {
                Finding::new("KEK expression", Outcome::Pass, format!("{} unwraps a data key", self.policy.keks()))
            }
            Err(e) => refused("KEK expression", &e),
        };
        self.checks.push(Check { kek: None, required: true, finding });
    }

    async fn record(&self, at: i64) -> Result<()> {
        let policy = self.policy;
        let row = TenantRecord::enrolled(self.tenant.clone(), policy.clone(), at)?;
        let (data_key, wrapped) = self.admin.keyring.generate(&row, policy.keks(), &self.contexts.own).await?;
        let record = KeyRecord {
            tenant: self.tenant.clone(),
            incarnation: row.incarnation,
            key_id: KeyId::of(&data_key, policy.key_suite())?,
            suite: policy.key_suite(),
            scope: scope(policy, PROBE)?,
            period: policy.key_period().label(at)?,
            region: policy.home_region().clone(),
            context_rules: policy.context_rules().clone(),
            state: KeyState::Active,
            state_since: at,
            wrapped: None,
            pending: None,
            wrapped_epoch: 1,
            made_epoch: 1,
            made_generation: 1,
            created_at: at,
            transitions: Vec::new(),
        };
        self.admin.keyring.prove(&row, &record, &wrapped).await.map(|_| ())
    }
}

fn elsewhere(region: &str, e: &Error) -> Finding {
    Finding::new("region", Outcome::Fail, e.to_string())
        .advise(format!("name a KEK in an allowed region, or allow {region} in the tenant's policy"))
}

fn required(kek: &KekUri, finding: Finding) -> Check {
    Check { kek: Some(kek.clone()), required: true, finding }
}

fn noted(kek: &KekUri, finding: Finding) -> Check {
    Check { kek: Some(kek.clone()), required: false, finding }
}

/// A call that should have worked. Errors of a KMS name the permission or the state to change.
fn refused(name: &str, e: &Error) -> Finding {
    let what_to_do = match e.kind() {
        ErrorKind::Denied => "change what the KMS says is missing, then probe again",
        ErrorKind::Unavailable | ErrorKind::Throttled => {
            "probe again; if it stays so, look at the network and at quotas"
        }
        _ => "correct the KEK's name or the configuration, then probe again",
    };
    let outcome = if e.is_retryable() { Outcome::Unknown } else { Outcome::Fail };
    Finding::new(name, outcome, e.to_string()).advise(what_to_do)
}
