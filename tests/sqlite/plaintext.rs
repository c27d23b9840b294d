//! What the file and its log hold of keys and messages, whoever reads them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha512};
use strongroom::testing::Operator;
use strongroom::{
    DataKey, EncryptionContext, GeneratedKey, KekDescription, KekUri, Kms, LocalKms, Region, Result, Selector,
    Strongroom, TenantPolicy, WalkOptions,
};

const TEXT: &[u8] = b"a message that nobody but its readers may read";

/// The local KMS, making data keys that it tells.
#[derive(Clone)]
struct Telling {
    local: LocalKms,
    told: Arc<Mutex<Vec<Vec<u8>>>>,
    wrappings: Arc<Mutex<Vec<Vec<u8>>>>,
}

#[async_trait]
impl Kms for Telling {
    fn scheme(&self) -> &'static str {
        "local"
    }

    async fn describe(&self, kek: &KekUri) -> Result<KekDescription> {
        self.local.describe(kek).await
    }

    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, data_key: &DataKey) -> Result<Vec<u8>> {
        let wrapped = self.local.wrap(kek, context, data_key).await?;
        self.wrappings.lock().unwrap().push(wrapped.clone());
        Ok(wrapped)
    }

    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey> {
        self.local.unwrap(kek, context, wrapped).await
    }

    async fn generate(&self, kek: &KekUri, context: &EncryptionContext) -> Result<GeneratedKey> {
        let mut key = {
            let mut told = self.told.lock().unwrap();
            let key = drawn(&format!("data key {}", told.len()));
            told.push(key.to_vec());
            key
        };
        let data_key = DataKey::take(&mut key)?;
        let wrapped = self.wrap(kek, context, &data_key).await?;
        Ok(GeneratedKey { data_key, wrapped })
    }
}

/// Looks random, so that no part of it is anywhere by chance.
fn drawn(what: &str) -> [u8; 32] {
    *Sha512::digest(what).first_chunk().unwrap()
}

/// The bytes as programs write them, whole and by half: raw, as hexadecimal, as base64, as a list of numbers.
fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for part in [secret, &secret[..secret.len() / 2], &secret[secret.len() / 2..]] {
        let numbers = part.iter().map(u8::to_string).collect::<Vec<_>>();
        let texts = [
            base16ct::lower::encode_string(part),
            base16ct::upper::encode_string(part),
            STANDARD_NO_PAD.encode(part),
            URL_SAFE_NO_PAD.encode(part),
            numbers.join(","),
        ];
        all.push(part.to_vec());
        all.extend(texts.map(String::into_bytes));
    }
    all
}

/// All that the folder holds, a file after the other: the database, its log, what SQLite puts beside them.
fn everything_in(folder: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.flat_map(|path| std::fs::read(path).unwrap()).collect()
}

fn holds(haystack: &[u8], secret: &[u8]) -> bool {
    spellings(secret).iter().any(|needle| haystack.windows(needle.len()).any(|window| window == needle))
}

#[tokio::test]
async fn no_data_key_no_kek_and_no_message_stands_in_the_file_or_its_log_in_any_spelling() {
    let folder = tempfile::tempdir().unwrap();
    let store = strongroom::testing::sqlite(folder.path().join("keys.db")).await;
    let local = LocalKms::in_memory();
    let region = Region::new("eu-central-1").unwrap();
    let mut keks = HashMap::new();
    for name in ["acme", "acme-2027", "escrow"] {
        let kek = drawn(name);
        keks.insert(name, kek.to_vec());
        local.import_kek(name, region.clone(), &mut kek.to_vec()).unwrap();
    }
    let kms = Telling { local, told: Arc::default(), wrappings: Arc::default() };
    let room = Strongroom::builder().serving(["eu-central-1"]).key_store(store).kms(kms.clone());
    let room = room.open_under(&Operator::default()).await;
    let policy =
        TenantPolicy::new("local:acme".parse::<KekUri>().unwrap(), region).scope_by(["channel"]).bind(["message"]);
    let admin = room.admin("ops@example.com", "a test").unwrap();
    admin.enroll("acme", policy).await.unwrap();
    for channel in ["C1", "C2", "C3"] {
        let scope = room.tenant("acme").await.unwrap().scope([("channel", channel)]).unwrap();
        let sealed = scope.seal(&[("message", "M1")], TEXT).await.unwrap();
        admin.rotate("acme", &[("channel", channel)]).await.unwrap();
        scope.seal(&[("message", "M2")], TEXT).await.unwrap();
        assert_eq!(&*scope.open(&[("message", "M1")], &sealed).await.unwrap(), TEXT);
    }
    let rewrapped = admin.rewrap("acme", "local:acme-2027".parse::<KekUri>().unwrap(), &WalkOptions::default()).await;
    assert_eq!(rewrapped.unwrap().done, 6);
    admin.revoke("acme", Selector::fields([("channel", "C2")])).await.unwrap();

    let stored = everything_in(folder.path());
    let told = kms.told.lock().unwrap().clone();
    assert_eq!(told.len(), 6, "each scope had two keys");
    // The looking finds what is there: the wrappings that stand in the records now.
    let wrappings = kms.wrappings.lock().unwrap().clone();
    assert!(wrappings[6..].iter().filter(|wrapped| holds(&stored, wrapped)).count() >= 6, "the looking is broken");
    for (what, secret) in told.iter().map(|key| ("a data key", key)).chain(keks.values().map(|kek| ("a KEK", kek))) {
        assert!(!holds(&stored, secret), "{what} stands in the store");
    }
    assert!(!holds(&stored, TEXT), "a message stands in the store");
}
