//! The contract of [`Kms`](crate::Kms), as a suite that every provider runs.

use crate::crypto::secret::DataKey;
use crate::crypto::suite::Suite;
use crate::error::{ErrorKind, Result};
use crate::key::encryption_context::EncryptionContext;
use crate::key::id::TenantId;
use crate::key::kek::KekUri;
use crate::key::period::Period;
use crate::key::region::Region;
use crate::key::scope::Scope;
use crate::kms::Kms;

fn context(tenant: &str, region: &str, channel: &str, suite: Suite, at: i64) -> EncryptionContext {
    EncryptionContext::new(
        &TenantId::new(tenant).unwrap(),
        &Region::new(region).unwrap(),
        suite,
        &Scope::new(&[("channel", channel)]).unwrap(),
        Period::Hour.label(at).unwrap().as_ref(),
    )
    .unwrap()
}

/// The encryption context of a data key of `tenant` in `region`, for tests of a KMS by itself.
pub fn encryption_context(tenant: &str, region: &str) -> EncryptionContext {
    context(tenant, region, "C9", Suite::Aes256Gcm, 0)
}

fn denied<T>(result: Result<T>, what: &str) {
    match result {
        Ok(_) => panic!("contract broken: {what} was accepted"),
        Err(e) => assert_eq!(e.kind(), ErrorKind::Denied, "contract broken: {what}: {e}"),
    }
}

/// Checks the contract of [`Kms`] on two KEKs of the same KMS, and on one that it does not have. Panics at the first breach,
/// saying which.
pub async fn kms_contract(kms: &dyn Kms, kek: &KekUri, other_kek: &KekUri, unknown_kek: &KekUri) {
    assert_eq!(kms.scheme(), kek.scheme());
    let description = kms.describe(kek).await.expect("a KEK that is there can be described");
    assert!(description.enabled);
    assert!(!description.version.is_empty());
    let mine = context("acme", "eu-central-1", "C9", Suite::Aes256Gcm, 0);

    let made = kms.generate(kek, &mine).await.expect("generate");
    let again = kms.unwrap(kek, &mine, &made.wrapped).await.expect("unwrap what was generated");
    assert!(made.data_key.ct_eq(&again), "contract broken: generate and unwrap give different keys");
    let second = kms.generate(kek, &mine).await.expect("generate");
    assert!(!made.data_key.ct_eq(&second.data_key), "contract broken: a key was generated twice");

    let key = DataKey::random().unwrap();
    let (one, two) = (kms.wrap(kek, &mine, &key).await.unwrap(), kms.wrap(kek, &mine, &key).await.unwrap());
    assert_ne!(one, two, "contract broken: two wraps of a key are equal");
    for wrapped in [&one, &two] {
        assert!(kms.unwrap(kek, &mine, wrapped).await.expect("unwrap").ct_eq(&key));
        assert!(!wrapped.windows(32).any(|w| w == key.expose()), "contract broken: the wrapping shows the key");
    }

    for other in [
        context("acmf", "eu-central-1", "C9", Suite::Aes256Gcm, 0),
        context("acme", "eu-central-2", "C9", Suite::Aes256Gcm, 0),
        context("acme", "eu-central-1", "C8", Suite::Aes256Gcm, 0),
        context("acme", "eu-central-1", "C9", Suite::ChaCha20Poly1305, 0),
        context("acme", "eu-central-1", "C9", Suite::Aes256Gcm, 3_600_000),
    ] {
        denied(kms.unwrap(kek, &other, &one).await, "another encryption context");
    }
    denied(kms.unwrap(other_kek, &mine, &one).await, "another KEK");
    denied(kms.unwrap(unknown_kek, &mine, &one).await, "an unknown KEK");
    denied(kms.wrap(unknown_kek, &mine, &key).await, "wrapping under an unknown KEK");
    denied(kms.generate(unknown_kek, &mine).await, "generating under an unknown KEK");
    denied(kms.describe(unknown_kek).await, "describing an unknown KEK");

    for i in 0..one.len() {
        let mut altered = one.clone();
        altered[i] ^= 0x40;
        denied(kms.unwrap(kek, &mine, &altered).await, "an altered wrapping");
    }
    for len in [0, 1, one.len() / 2, one.len() - 1] {
        denied(kms.unwrap(kek, &mine, &one[..len]).await, "a truncated wrapping");
    }
    denied(kms.unwrap(kek, &mine, &[&one[..], &[0]].concat()).await, "a lengthened wrapping");

    rewrap_contract(kms, kek, other_kek, unknown_kek).await;
}

/// A KMS that wraps again inside itself does what unwrapping and wrapping would do, and refuses what they would.
async fn rewrap_contract(kms: &dyn Kms, kek: &KekUri, other_kek: &KekUri, unknown_kek: &KekUri) {
    let mine = context("acme", "eu-central-1", "C9", Suite::Aes256Gcm, 0);
    let key = DataKey::random().unwrap();
    let old = kms.wrap(kek, &mine, &key).await.unwrap();
    for to in [other_kek, kek] {
        // None is an answer, too: then it is the caller who unwraps and wraps.
        let Some(new) = kms.rewrap(kek, to, &mine, &old).await.expect("rewrap") else { continue };
        assert_ne!(new, old, "contract broken: rewrap gave the old wrapping");
        let again = kms.unwrap(to, &mine, &new).await.expect("unwrap what was rewrapped");
        assert!(again.ct_eq(&key), "contract broken: rewrap gave another key");
        assert!(kms.unwrap(kek, &mine, &old).await.expect("the old wrapping still unwraps").ct_eq(&key));
        let theirs = context("acme", "eu-central-1", "C8", Suite::Aes256Gcm, 0);
        denied(kms.unwrap(to, &theirs, &new).await, "another encryption context after a rewrap");
        denied(kms.rewrap(kek, to, &theirs, &old).await, "rewrapping with another encryption context");
        denied(kms.rewrap(unknown_kek, to, &mine, &old).await, "rewrapping from an unknown KEK");
        denied(kms.rewrap(kek, unknown_kek, &mine, &old).await, "rewrapping to an unknown KEK");
        let wrong_from = if to == kek { other_kek } else { to };
        denied(kms.rewrap(wrong_from, to, &mine, &old).await, "rewrapping from another KEK");
        let (mut altered, middle) = (old.clone(), old.len() / 2);
        altered[middle] ^= 1;
        denied(kms.rewrap(kek, to, &mine, &altered).await, "rewrapping an altered wrapping");
        if to != kek {
            denied(kms.unwrap(kek, &mine, &new).await, "the old KEK after a rewrap to another");
        }
    }
}
