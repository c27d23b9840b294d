//! Clients of AWS KMS: one for each region and set of credentials, made on demand, kept, bounded in number.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::sts::AssumeRoleProvider;
use aws_config::{Region, SdkConfig};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::{Config, RuntimeComponents, SharedCredentialsProvider, SharedHttpClient};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Connector, tls};
use aws_smithy_types::retry::RetryConfig;

use crate::error::{Error, Result};
use crate::key::kek::KekUri;
use crate::kms::aws_arn::KeyArn;
use crate::kms::aws_guard::Guard;
use crate::kms::aws_policy::is_account;
use crate::kms::aws_retry::RetryBudget;

/// The session's name in the tenant's own trail.
const SESSION: &str = "strongroom";

/// A role in a tenant's account that this backend assumes to use the tenant's KEKs.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AwsRole {
    arn: String,
    external_id: Option<String>,
}

impl AwsRole {
    /// The role with this ARN, such as `arn:aws:iam::111122223333:role/strongroom`.
    ///
    /// # Errors
    /// `InvalidArgument` if it is no ARN of a role.
    pub fn new(arn: &str) -> Result<Self> {
        let parts: Vec<_> = arn.splitn(6, ':').collect();
        let good = matches!(parts.as_slice(), ["arn", partition, "iam", "", account, role]
            if partition.starts_with("aws") && is_account(account) && role.starts_with("role/"));
        if !good || arn.len() > 2048 || !arn.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::invalid(
                "a role is named by its ARN, such as arn:aws:iam::111122223333:role/strongroom",
            ));
        }
        Ok(Self { arn: arn.to_owned(), external_id: None })
    }

    /// The external id that the role's trust policy asks for. Make one for each tenant and never take it from the tenant:
    /// otherwise a tenant that names another tenant's role gets in.
    ///
    /// # Errors
    /// `InvalidArgument` if it has not 2 to 1224 of `A-Z a-z 0-9 + = , . @ : / _ -`.
    pub fn external_id(mut self, id: &str) -> Result<Self> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@:/_-".contains(&b);
        if !(2..=1224).contains(&id.len()) || !id.bytes().all(good) {
            return Err(Error::invalid("an external id has 2 to 1224 of A-Z a-z 0-9 + = , . @ : / _ -"));
        }
        self.external_id = Some(id.to_owned());
        Ok(self)
    }

    /// The role's ARN.
    pub fn arn(&self) -> &str {
        &self.arn
    }
}

/// Without the external id, which has no business in logs.
impl fmt::Debug for AwsRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AwsRole({})", self.arn)
    }
}

type RoleOf = dyn Fn(&KekUri) -> Option<AwsRole> + Send + Sync;

/// Which client answers for a KEK.
pub(crate) struct Clients {
    /// Where clients are made from; `None` if the embedder handed in all there are.
    pub(crate) config: Option<SdkConfig>,
    /// The embedder's own, by region.
    pub(crate) given: HashMap<String, Client>,
    pub(crate) roles: HashMap<String, AwsRole>,
    pub(crate) role_of: Option<Box<RoleOf>>,
    pub(crate) endpoint: Option<String>,
    pub(crate) endpoints: HashMap<String, String>,
    pub(crate) sts_endpoint: Option<String>,
    pub(crate) use_fips: bool,
    pub(crate) retry_budget: u32,
    pub(crate) most: usize,
    pub(crate) lanes: Mutex<Lanes>,
}

/// The lanes in use, each with the moment of its last use.
#[derive(Default)]
pub(crate) struct Lanes {
    by_key: HashMap<LaneKey, (Arc<Lane>, u64)>,
    uses: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LaneKey {
    region: String,
    account: String,
    role: Option<AwsRole>,
}

/// The client of a region and credentials, with the retry budget of one account: an account that is throttled does not use
/// up the retries of the others.
pub(crate) struct Lane {
    key: LaneKey,
    pub(crate) client: Client,
    pub(crate) budget: RetryBudget,
}

impl Lane {
    /// Whether one call with one set of credentials reaches keys of both.
    pub(crate) fn shares_client_with(&self, other: &Self) -> bool {
        (&self.key.region, &self.key.role) == (&other.key.region, &other.key.role)
    }
}

impl Clients {
    /// The lane of a KEK.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no client of its region and nothing to make one from.
    pub(crate) async fn lane(&self, kek: &KekUri, arn: &KeyArn<'_>) -> Result<Arc<Lane>> {
        let role = self.role_of.as_ref().and_then(|f| f(kek)).or_else(|| self.roles.get(arn.account).cloned());
        self.lane_of(arn.region, arn.account, role).await
    }

    /// The lane of a region and an account, for keys that do not exist yet.
    pub(crate) async fn lane_in(&self, region: &str, account: &str) -> Result<Arc<Lane>> {
        self.lane_of(region, account, self.roles.get(account).cloned()).await
    }

    async fn lane_of(&self, region: &str, account: &str, role: Option<AwsRole>) -> Result<Arc<Lane>> {
        let key = LaneKey { region: region.to_owned(), account: account.to_owned(), role };
        let known = {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(lane) = lanes.used(&key) {
                return Ok(lane);
            }
            lanes.client_of(&key)
        };
        // Outside the lock: making a client may wait. Of two that race, the first in stays.
        let client = match known {
            Some(client) => client,
            None => self.connect(&key).await?,
        };
        let lane = Arc::new(Lane { key, client, budget: RetryBudget::new(self.retry_budget) });
        Ok(self.lanes.lock().unwrap_or_else(PoisonError::into_inner).keep(lane, self.most))
    }

    async fn connect(&self, key: &LaneKey) -> Result<Client> {
        if let (Some(client), None) = (self.given.get(&key.region), &key.role) {
            return Ok(Client::from_conf(guarded(client.config().to_builder())));
        }
        let Some(config) = &self.config else {
            let what =
                format!("no AWS KMS client for the region {} was handed in; add one, or an SdkConfig", key.region);
            return Err(Error::invalid(what));
        };
        let region = Region::new(key.region.clone());
        let mut builder = aws_sdk_kms::config::Builder::from(config).region(region.clone());
        if let Some(role) = &key.role {
            builder = builder.credentials_provider(self.assume(config, role, region).await);
        }
        if let Some(endpoint) = self.endpoints.get(&key.region).or(self.endpoint.as_ref()) {
            builder = builder.endpoint_url(endpoint);
        }
        if self.use_fips {
            builder = builder.use_fips(true);
        }
        tracing::debug!(region = key.region, account = key.account, role = ?key.role, "new client of AWS KMS");
        Ok(Client::from_conf(guarded(builder)))
    }

    async fn assume(&self, config: &SdkConfig, role: &AwsRole, region: Region) -> SharedCredentialsProvider {
        // Retries are this crate's policy alone: a failed AssumeRole fails the attempt.
        let mut sts = config.to_builder().retry_config(RetryConfig::disabled());
        sts.set_endpoint_url(self.sts_endpoint.clone().or_else(|| config.endpoint_url().map(str::to_owned)));
        if self.use_fips {
            sts = sts.use_fips(true);
        }
        let mut assumed =
            AssumeRoleProvider::builder(&role.arn).configure(&sts.build()).region(region).session_name(SESSION);
        if let Some(id) = &role.external_id {
            assumed = assumed.external_id(id);
        }
        SharedCredentialsProvider::new(assumed.build().await)
    }
}

impl Lanes {
    fn used(&mut self, key: &LaneKey) -> Option<Arc<Lane>> {
        self.uses += 1;
        let (lane, last) = self.by_key.get_mut(key)?;
        *last = self.uses;
        Some(Arc::clone(lane))
    }

    /// The client of the same region and credentials, if another account uses it.
    fn client_of(&self, key: &LaneKey) -> Option<Client> {
        let same = |lane: &&Arc<Lane>| (&lane.key.region, &lane.key.role) == (&key.region, &key.role);
        self.by_key.values().map(|(lane, _)| lane).find(same).map(|lane| lane.client.clone())
    }

    /// Keeps a lane, or the one that was faster; beyond `most` the least recently used goes.
    fn keep(&mut self, lane: Arc<Lane>, most: usize) -> Arc<Lane> {
        if let Some(first) = self.used(&lane.key) {
            return first;
        }
        if self.by_key.len() >= most.max(1) {
            let oldest = self.by_key.iter().min_by_key(|(_, (_, last))| *last).map(|(key, _)| key.clone());
            oldest.map(|key| self.by_key.remove(&key));
        }
        self.by_key.insert(lane.key.clone(), (Arc::clone(&lane), self.uses));
        lane
    }
}

/// The SDK's retries off, in favour of ours, and the guard on every call.
fn guarded(builder: aws_sdk_kms::config::Builder) -> Config {
    builder.retry_config(RetryConfig::disabled()).interceptor(Guard).build()
}

/// One pool of connections for all clients, with rustls on aws-lc and the proxy of the environment, as the SDK's own.
pub(crate) fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_with_connector_fn(|settings, components| {
        let mode = tls::rustls_provider::CryptoMode::AwsLc;
        let mut connector = Connector::builder().tls_provider(tls::Provider::Rustls(mode));
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        connector.build()
    })
}

/// The names of everything, and no credentials.
impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients")
            .field("given", &self.given.keys().collect::<Vec<_>>())
            .field("roles", &self.roles)
            .field("endpoint", &self.endpoint)
            .field("endpoints", &self.endpoints)
            .field("use_fips", &self.use_fips)
            .finish_non_exhaustive()
    }
}

/// How long attempts and calls may take if the embedder says nothing: within the room's own deadline of 5 s.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_millis(4_500);

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(account: &str) -> Arc<Lane> {
        let config = SdkConfig::builder().behavior_version(aws_config::BehaviorVersion::latest()).build();
        let key = LaneKey { region: "eu".to_owned(), account: account.to_owned(), role: None };
        Arc::new(Lane { key, client: Client::new(&config), budget: RetryBudget::new(1) })
    }

    #[test]
    fn lanes_are_bounded_and_the_least_recently_used_goes() {
        let mut lanes = Lanes::default();
        let (a, b, c) = (lane("a"), lane("b"), lane("c"));
        lanes.keep(Arc::clone(&a), 2);
        lanes.keep(Arc::clone(&b), 2);
        assert!(lanes.used(&a.key).is_some());
        lanes.keep(Arc::clone(&c), 2);
        assert_eq!(lanes.by_key.len(), 2);
        assert!(lanes.used(&b.key).is_none());
        assert!(lanes.used(&a.key).is_some() && lanes.used(&c.key).is_some());
        // Of two that race, the first stays.
        assert!(Arc::ptr_eq(&lanes.keep(lane("a"), 2), &a));
    }

    #[test]
    fn roles_and_external_ids_are_checked() {
        let role = AwsRole::new("arn:aws:iam::111122223333:role/path/strongroom").unwrap();
        let with_id = role.clone().external_id("tenant-7f3a").unwrap();
        assert!(!format!("{with_id:?}").contains("7f3a"));
        for bad in ["", "x", "a b", "é é"] {
            assert!(role.clone().external_id(bad).is_err(), "{bad}");
        }
        for bad in [
            "",
            "strongroom",
            "arn:aws:iam::1:role/a",
            "arn:aws:iam::111122223333:user/a",
            "arn:aws:sts::111122223333:role/a",
        ] {
            assert!(AwsRole::new(bad).is_err(), "{bad}");
        }
    }
}
