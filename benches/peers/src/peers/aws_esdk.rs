//! `aws-esdk`: the raw AES keyring, whose wrapping key is in this process. Its Rust release has no caching materials manager,
//! so each message gets a data key, derives from it and wraps it; with a KMS keyring each would also be a call. The suite is
//! the committing one without a signature, as its documentation advises where sealer and opener trust each other; its default
//! also signs each message with ECDSA P-384.

use std::collections::HashMap;

use ::aws_esdk::client::Client;
use ::aws_esdk::material_providers::client::Client as MaterialProviders;
use ::aws_esdk::material_providers::types::keyring::KeyringRef;
use ::aws_esdk::material_providers::types::material_providers_config::MaterialProvidersConfig;
use ::aws_esdk::material_providers::types::{AesWrappingAlg, EsdkAlgorithmSuiteId};
use ::aws_esdk::types::aws_encryption_sdk_config::AwsEncryptionSdkConfig;
use tokio::runtime::{Handle, Runtime};

use crate::bare::{BARE_OPEN, BARE_SEAL};
use crate::contest::{Contest, timed};
use crate::peers::Peer;

pub(super) const PEER: Peer =
    Peer { package: "aws-esdk", how: "raw AES keyring", seal: "aws-esdk, seal", open: "aws-esdk, open" };

#[derive(Clone)]
struct Esdk {
    runtime: Handle,
    client: Client,
    keyring: KeyringRef,
    context: HashMap<String, String>,
}

impl Esdk {
    fn new(runtime: &Runtime) -> Self {
        let providers = MaterialProviders::from_conf(MaterialProvidersConfig::builder().build().unwrap()).unwrap();
        let keyring = providers
            .create_raw_aes_keyring()
            .key_name("acme-2026")
            .key_namespace("chat")
            .wrapping_key(vec![7; 32])
            .wrapping_alg(AesWrappingAlg::AlgAes256GcmIv12Tag16)
            .send();
        let context = [("workspace", "W1"), ("channel", "C9"), ("message", "M77")];
        Self {
            runtime: runtime.handle().clone(),
            client: Client::from_conf(AwsEncryptionSdkConfig::builder().build().unwrap()).unwrap(),
            keyring: runtime.block_on(keyring).unwrap(),
            context: context.map(|(field, value)| (field.to_owned(), value.to_owned())).into(),
        }
    }

    fn seal(&self, text: &[u8]) -> Vec<u8> {
        let call = self
            .client
            .encrypt()
            .plaintext(text)
            .keyring(self.keyring.clone())
            .encryption_context(self.context.clone())
            .algorithm_suite_id(EsdkAlgorithmSuiteId::AlgAes256GcmHkdfSha512CommitKey)
            .send();
        self.runtime.block_on(call).unwrap().ciphertext.unwrap().into_inner()
    }

    fn open(&self, sealed: &[u8]) -> Vec<u8> {
        let call = self
            .client
            .decrypt()
            .ciphertext(sealed)
            .keyring(self.keyring.clone())
            .encryption_context(self.context.clone())
            .send();
        self.runtime.block_on(call).unwrap().plaintext.unwrap().into_inner()
    }
}

pub(super) fn enter(contest: &mut Contest, runtime: &Runtime, size: usize) {
    let sealing = Esdk::new(runtime);
    let opening = sealing.clone();
    let text = vec![5; size];
    let sealed = sealing.seal(&text);
    assert_eq!(opening.open(&sealed), text);
    contest.enter(PEER.seal, BARE_SEAL, timed(move || sealing.seal(&text)));
    contest.enter(PEER.open, BARE_OPEN, timed(move || opening.open(&sealed)));
}
