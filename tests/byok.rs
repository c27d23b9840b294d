//! Import of tenants' keys into the local KMS, with material wrapped by the real `openssl`.
#![cfg(all(feature = "byok", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may panic

#[path = "byok/canary.rs"]
mod canary;
#[path = "byok/ceremony.rs"]
mod ceremony;
#[path = "byok/kill.rs"]
mod kill;
#[cfg(target_os = "linux")]
#[path = "byok/memory.rs"]
mod memory;
#[path = "byok/tenant.rs"]
mod tenant;

use std::sync::Arc;

use strongroom::{ImportFormat, KekUri, Kms, LocalKms, Region};

const FORMATS: [ImportFormat; 3] =
    [ImportFormat::RsaesOaepSha256, ImportFormat::RsaAesKeyWrapSha256, ImportFormat::Hpke];

fn region() -> Region {
    Region::new("eu-central-1").unwrap()
}

/// An operator's KMS with a root KEK.
fn root() -> (Arc<dyn Kms>, KekUri) {
    let operator = LocalKms::in_memory();
    let kek = operator.create_kek("root", region()).unwrap();
    (Arc::new(operator), kek)
}
