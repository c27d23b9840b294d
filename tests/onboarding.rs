//! Onboarding, through the public API: the probe, key policies for AWS KMS, previews, and the call planner against a
//! simulation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may panic

#[path = "onboarding/evaluator.rs"]
mod evaluator;
#[path = "onboarding/plan.rs"]
mod plan;
#[path = "onboarding/policy.rs"]
mod policy;
#[path = "onboarding/preview.rs"]
mod preview;
#[path = "onboarding/probe.rs"]
mod probe;
#[path = "onboarding/records.rs"]
mod records;
