//! What stands between the SDK and the wire: no key bytes over plain HTTP to another machine, no reply without a bound.

use std::net::IpAddr;

use aws_sdk_kms::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_kms::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kms::error::BoxError;
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;

/// The longest reply that is read. The largest that KMS gives, import parameters, has some 6 KiB.
const MAX_REPLY: usize = 64 * 1024;

/// An interceptor of every call.
#[derive(Debug)]
pub(crate) struct Guard;

impl Intercept for Guard {
    fn name(&self) -> &'static str {
        "strongroom-guard"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if is_safe(context.request().uri()) { Ok(()) } else { Err(PLAIN_HTTP.into()) }
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        let unbounded = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(Limited::new(unbounded, MAX_REPLY));
        Ok(())
    }
}

pub(crate) const PLAIN_HTTP: &str = "an endpoint of AWS KMS is an https URL (http only on this machine's own loopback)";

/// HTTPS, or plain HTTP to this machine: plaintext keys travel in the bodies.
pub(crate) fn is_safe(url: &str) -> bool {
    if url.starts_with("https://") {
        return true;
    }
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return false;
    }
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine() {
        for good in
            ["https://kms.eu-central-1.amazonaws.com", "http://127.0.0.1:4566/", "http://localhost", "http://[::1]:1"]
        {
            assert!(is_safe(good), "{good}");
        }
        for bad in [
            "",
            "kms.eu-central-1.amazonaws.com",
            "ftp://127.0.0.1",
            "http://kms.eu-central-1.amazonaws.com",
            "http://127.0.0.1@evil.example/",
            "http://127.0.0.1.evil.example/",
            "http://localhost.evil.example",
            "http://10.0.0.1",
        ] {
            assert!(!is_safe(bad), "{bad}");
        }
    }
}
