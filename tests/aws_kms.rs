//! `AwsKms` against real server processes over HTTP.
//!
//! One suite, two servers, because neither is right alone. `cargo test` runs every test on ministack; the test
//! [`on_localstack`] runs this binary again, all of it, in a network of its own with LocalStack. What each server gets
//! wrong stands in `aws_kms/servers.rs` as a list, and tests assert the wrong behaviour too, so that the list stays true:
//!
//! | | ministack | LocalStack |
//! |---|---|---|
//! | altered bytes, or another KEK, unwrap | to garbage | refused, the contract suite passes |
//! | ReEncrypt | unknown: callers unwrap and wrap | works |
//! | import | checked | wrong material is an internal error, tokens and expiry are ignored |
//! | IAM and external ids | enforced | not enforced |
//!
//! `scripts/kms-servers` installs both; a server that does not start fails the tests.
//!
//! Throttling, failures, silence, and malformed and oversized replies come from a proxy in front of the server
//! (`aws_kms/proxy.rs`).
//!
//! What no server here can show, and only an account at AWS does:
//!
//! - conditions on `kms:EncryptionContext:…` in key policies and grants, hence a tenant that denies one channel or one hour;
//! - a `Deny` in a key policy (ministack shows a missing `Allow` in IAM), and permissions across accounts;
//! - real request quotas and what they do to neighbours;
//! - imported material that expires by itself (here it is deleted, which leads to the same state), other material than the
//!   first being refused (the proxy answers so), and rotation of material;
//! - FIPS and VPC endpoints, TLS to AWS.
#![cfg(feature = "aws-kms")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may panic

#[path = "aws_kms/contract.rs"]
mod contract;
#[path = "aws_kms/credentials.rs"]
mod credentials;
#[path = "aws_kms/example.rs"]
mod example;
#[path = "aws_kms/failures.rs"]
mod failures;
#[path = "aws_kms/import.rs"]
mod import;
#[path = "aws_kms/keys.rs"]
mod keys;
#[path = "aws_kms/probe.rs"]
mod probe;
#[path = "aws_kms/proxy.rs"]
mod proxy;
#[path = "aws_kms/servers.rs"]
mod servers;
#[path = "aws_kms/world.rs"]
mod world;

/// The whole suite again, on the second server. Needs Linux's network namespaces.
#[cfg(target_os = "linux")]
#[test]
fn on_localstack() {
    servers::run_the_suite_on_localstack();
}
