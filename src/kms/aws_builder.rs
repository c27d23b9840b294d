//! Builds an `AwsKms`: credentials, roles, endpoints, deadlines, limits.

use std::sync::Mutex;
use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig};

use crate::error::{Error, Result};
use crate::key::kek::KekUri;
use crate::key::region::Region;
use crate::kms::aws::{AwsKms, pooled};
use crate::kms::aws_client::{ATTEMPT_TIMEOUT, AwsRole, CALL_TIMEOUT, Clients, http_client};
use crate::kms::aws_guard::{PLAIN_HTTP, is_safe};
use crate::kms::aws_policy::is_account;
use crate::kms::aws_retry::RetryPolicy;

/// Builds an [`AwsKms`].
#[must_use]
pub struct AwsKmsBuilder {
    pub(crate) clients: Clients,
    retry: RetryPolicy,
}

impl Default for AwsKmsBuilder {
    fn default() -> Self {
        let clients = Clients {
            config: None,
            given: [].into(),
            roles: [].into(),
            role_of: None,
            endpoint: None,
            endpoints: [].into(),
            sts_endpoint: None,
            use_fips: false,
            retry_budget: 50,
            most: 1_024,
            lanes: Mutex::default(),
        };
        let retry = RetryPolicy { attempts: 4, attempt_timeout: ATTEMPT_TIMEOUT, call_timeout: CALL_TIMEOUT };
        Self { clients, retry }
    }
}

impl AwsKmsBuilder {
    /// The embedder's own configuration instead of the environment's. Its region does not matter: each KEK's own is used.
    pub fn sdk_config(mut self, config: &SdkConfig) -> Self {
        self.clients.config = Some(pooled(config));
        self
    }

    /// The embedder's own client, for KEKs of that region that are reached without a role. May be given for several
    /// regions; with clients and no [`Self::sdk_config`], other regions are refused.
    pub fn client(mut self, region: &Region, client: aws_sdk_kms::Client) -> Self {
        self.clients.given.insert(region.as_str().to_owned(), client);
        self
    }

    /// KEKs of this account (the twelve digits in their ARN) are used by assuming this role. Accounts without one are used
    /// with this process's own credentials.
    ///
    /// Whoever may name a KEK in a policy chooses the account by it: before enrolling a tenant, check that its KEK is in
    /// *its* account ([`AwsKms::describe_key`]), or it would be served with another tenant's role and external id.
    pub fn role_for(mut self, account: &str, role: AwsRole) -> Self {
        self.clients.roles.insert(account.to_owned(), role);
        self
    }

    /// Asks the embedder for a KEK's role, on every call, before [`Self::role_for`]: for tenants who enrol while the
    /// process runs. It is called on the way to the KMS and must not wait.
    pub fn role_by(mut self, role_of: impl Fn(&KekUri) -> Option<AwsRole> + Send + Sync + 'static) -> Self {
        self.clients.role_of = Some(Box::new(role_of));
        self
    }

    /// Where AWS KMS answers, for all regions: an `https` URL, or `http` on this machine.
    pub fn endpoint(mut self, url: &str) -> Self {
        self.clients.endpoint = Some(url.to_owned());
        self
    }

    /// Where AWS KMS answers for one region, such as a VPC endpoint.
    pub fn endpoint_in(mut self, region: &Region, url: &str) -> Self {
        self.clients.endpoints.insert(region.as_str().to_owned(), url.to_owned());
        self
    }

    /// Where AWS STS answers, for roles.
    pub fn sts_endpoint(mut self, url: &str) -> Self {
        self.clients.sts_endpoint = Some(url.to_owned());
        self
    }

    /// Endpoints validated to FIPS 140, of KMS and STS. Not together with an endpoint of one's own.
    pub fn use_fips(mut self, fips: bool) -> Self {
        self.clients.use_fips = fips;
        self
    }

    /// How long one attempt may take. Default: 2 s. Calls of an import, which no message waits for, have at least 10 s.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.retry.attempt_timeout = timeout;
        self
    }

    /// How long a call may take with all its attempts. Default: 4.5 s, to answer within the room's deadline of 5 s.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.retry.call_timeout = timeout;
        self
    }

    /// How often a call is tried at most, if what failed may pass. Default: 4; 1 is never again.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.retry.attempts = attempts;
        self
    }

    /// How many retries an account of a region may have used up before they stop; ten successes give one back. Default: 50.
    pub fn retry_budget(mut self, retries: u32) -> Self {
        self.clients.retry_budget = retries;
        self
    }

    /// How many clients (region, account and role) are kept; beyond, the least recently used goes. Default: 1024.
    pub fn max_clients(mut self, most: usize) -> Self {
        self.clients.most = most;
        self
    }

    /// Builds it. Reads the environment's configuration unless a configuration or a client was given; calls nothing.
    ///
    /// # Errors
    /// `InvalidArgument` saying what is wrong: an account that has not twelve digits, an endpoint that is not `https` (or
    /// `http` on this machine), FIPS together with an endpoint, a zero limit.
    pub async fn build(mut self) -> Result<AwsKms> {
        self.check().map_err(|e| e.with_operation("build AwsKms"))?;
        if self.clients.config.is_none() && self.clients.given.is_empty() {
            let config = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client()).load().await;
            self.clients.config = Some(config);
        }
        Ok(self.finish())
    }

    pub(crate) fn finish(self) -> AwsKms {
        AwsKms::new(self.clients, self.retry)
    }

    fn check(&self) -> Result<()> {
        let clients = &self.clients;
        if let Some(account) = clients.roles.keys().find(|account| !is_account(account)) {
            return Err(Error::invalid(format!("an AWS account has twelve digits, not {account:?}")));
        }
        let mut endpoints = clients.endpoints.values().chain(&clients.endpoint).chain(&clients.sts_endpoint);
        if let Some(url) = endpoints.find(|url| !is_safe(url)) {
            return Err(Error::invalid(format!("{PLAIN_HTTP}, not {url:?}")));
        }
        if clients.use_fips && (clients.endpoint.is_some() || !clients.endpoints.is_empty()) {
            return Err(Error::invalid("FIPS endpoints and an endpoint of one's own exclude each other"));
        }
        let retry = &self.retry;
        if retry.attempts == 0 || retry.attempt_timeout.is_zero() || retry.call_timeout.is_zero() || clients.most == 0 {
            return Err(Error::invalid("attempts, timeouts and the limit of clients must not be zero"));
        }
        Ok(())
    }
}
