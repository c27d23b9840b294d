//! A key that is searched for wherever it must not be.

use std::error::Error as _;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use strongroom::testing::Operator;
use strongroom::{Error, LocalKms, Strongroom, SystemClock, TenantPolicy};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::tenant::{check_value, material, wrap};
use super::{FORMATS, region, root};

/// Keeps every field of every event, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        writeln!(self.0.lock().unwrap(), "{field}={value:?}").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        attributes.record(&mut self.clone());
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn everything(error: &Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(e) = source {
        write!(text, " {e} {e:?}").unwrap();
        source = e.source();
    }
    text
}

/// The key as it is, and as texts write it.
fn shapes(key: &[u8]) -> Vec<Vec<u8>> {
    let standard = base64::engine::general_purpose::STANDARD_NO_PAD.encode(key);
    let url = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key);
    let (lower, upper) = (base16ct::lower::encode_string(key), base16ct::upper::encode_string(key));
    let decimals = format!("{key:?}");
    let texts = [standard, url, lower, upper, decimals.trim_matches(['[', ']']).to_owned()];
    [key.to_vec()].into_iter().chain(texts.map(String::into_bytes)).collect()
}

fn shows(bytes: &[u8], key: &[u8]) -> bool {
    shapes(key).iter().any(|shape| bytes.windows(shape.len()).any(|window| window == &shape[..]))
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

#[tokio::test]
async fn no_copy_of_the_key_is_left_anywhere() {
    let log = Log::default();
    // The whole process's: what other threads log about this import counts as well.
    tracing::subscriber::set_global_default(log.clone()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (operator, root_kek) = root();
    let kms = LocalKms::create_under(folder.path().join("keks.json"), operator, root_kek).await.unwrap();
    let store = strongroom::testing::sqlite(folder.path().join("keys.db")).await;
    let builder = Strongroom::builder().serving(["eu-central-1"]).key_store(store);
    let room = builder.kms(kms.clone()).open_under(&Operator::default()).await;
    let (mut keys, mut errors) = (Vec::new(), String::new());
    for (i, format) in FORMATS.into_iter().enumerate() {
        let (key, name) = (material(32), format!("tenant-{i}"));
        let ticket = kms.begin_import(&name, region(), &SystemClock).await.unwrap();
        let (wrapped, value) = (wrap(&ticket, format, &key), check_value(&key));
        // Refusals first: they see the key, too. Another check value, another length, cut short.
        let other_value = check_value(&material(32));
        let another = wrap(&ticket, format, &[&key[..], b"!"].concat());
        let cut = &wrapped[..wrapped.len() - 1];
        for (wrapped, value) in [(&wrapped[..], &other_value), (&another, &value), (cut, &value)] {
            let refused = kms.finish_import(ticket.token(), format, wrapped, value, &SystemClock).await.unwrap_err();
            errors += &everything(&refused);
        }
        let kek = kms.finish_import(ticket.token(), format, &wrapped, &value, &SystemClock).await.unwrap();
        let again = kms.finish_import(ticket.token(), format, &wrapped, &value, &SystemClock).await.unwrap_err();
        errors += &everything(&again);
        errors += &everything(&kms.add_raw_kek(&name, region(), &mut key.clone()).await.unwrap_err());
        room.admin("a test", "to test")
            .unwrap()
            .enroll(&name, TenantPolicy::new(kek, region()).allow_unbound_messages())
            .await
            .unwrap();
        room.tenant(&name).await.unwrap().scope([]).unwrap().seal(&[], b"hello").await.unwrap();
        keys.push(key);
    }
    let text = log.0.lock().unwrap().clone();
    assert!(text.contains("KEK imported") && text.contains("local:tenant-0"), "nothing was captured: {text}");
    assert!(errors.contains("another check value") && errors.contains("does not unwrap"));
    let files = files(folder.path());
    assert!(files.iter().any(|(name, bytes)| name.ends_with("keks.json") && !bytes.is_empty()));
    assert!(files.iter().any(|(name, _)| name.contains("keys.db")));
    for key in &keys {
        for (name, bytes) in &files {
            assert!(!shows(bytes, key), "{name} holds an imported key");
        }
        assert!(!shows(text.as_bytes(), key), "the log holds an imported key");
        assert!(!shows(errors.as_bytes(), key), "an error holds an imported key");
    }

    // The same search finds a key in a bare file, so that a search that can find nothing is not mistaken for a proof.
    let bare = folder.path().join("bare.json");
    LocalKms::create(&bare).unwrap().import_kek("acme", region(), &mut keys[0].clone()).unwrap();
    assert!(shows(&fs::read(&bare).unwrap(), &keys[0]));
    let text = log.0.lock().unwrap().clone();
    assert!(text.contains(&format!("path={}", bare.display())) && text.contains("unencrypted in a file"), "{text}");
}
