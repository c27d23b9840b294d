//! A key that is searched for wherever it must not be, and processes killed in the middle of an import.

use std::error::Error as _;
use std::fmt::{self, Write as _};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use strongroom::{
    Error, ImportFormat, KeyCheckValue, Kms, LocalKms, SqliteKeyStore, Strongroom, SystemClock, TenantPolicy,
};
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
    let kms = LocalKms::open_under(folder.path().join("keks.json"), operator, root_kek).await.unwrap();
    let store = SqliteKeyStore::open(folder.path().join("keys.db")).await.unwrap();
    let builder = Strongroom::builder().serving(["eu-central-1"]).key_store(store);
    let room = builder.kms(kms.clone()).build().unwrap();
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
        room.admin().enroll(&name, TenantPolicy::new(kek, region())).await.unwrap();
        room.tenant(&name).await.unwrap().scope([]).unwrap().seal(&[], b"hello").await.unwrap();
        keys.push(key);
    }
    let log = log.0.lock().unwrap().clone();
    assert!(log.contains("KEK imported") && log.contains("local:tenant-0"), "nothing was captured: {log}");
    assert!(errors.contains("another check value") && errors.contains("does not unwrap"));
    let files = files(folder.path());
    assert!(files.iter().any(|(name, bytes)| name.ends_with("keks.json") && !bytes.is_empty()));
    assert!(files.iter().any(|(name, _)| name.contains("keys.db")));
    for key in &keys {
        for (name, bytes) in &files {
            assert!(!shows(bytes, key), "{name} holds an imported key");
        }
        assert!(!shows(log.as_bytes(), key), "the log holds an imported key");
        assert!(!shows(errors.as_bytes(), key), "an error holds an imported key");
    }

    // The same search finds a key in a bare file, so that a search that can find nothing is not mistaken for a proof.
    let bare = folder.path().join("bare.json");
    LocalKms::open(&bare).unwrap().import_kek("acme", region(), &mut keys[0].clone()).unwrap();
    assert!(shows(&fs::read(&bare).unwrap(), &keys[0]));
}

const JOB: &str = "STRONGROOM_TEST_JOB";

/// Not a test: the process to kill. It finishes the same import over and over, putting the file back each time.
#[test]
#[ignore = "started by the test below"]
fn child() {
    let Ok(job) = std::env::var(JOB) else { return };
    let [folder, token, value] = job.split('\n').collect::<Vec<_>>().try_into().unwrap();
    let folder = Path::new(folder);
    let (begun, path) = (folder.join("begun.json"), folder.join("keks.json"));
    let (wrapped, value) = (fs::read(folder.join("wrapped.bin")).unwrap(), KeyCheckValue::from_hex(value).unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    loop {
        fs::copy(&begun, folder.join("copy.json")).unwrap();
        fs::rename(folder.join("copy.json"), &path).unwrap();
        let kms = LocalKms::open(&path).unwrap();
        println!("\nfinishing");
        runtime.block_on(kms.finish_import(token, ImportFormat::Hpke, &wrapped, &value, &SystemClock)).unwrap();
    }
}

#[tokio::test]
async fn kill_9_while_finishing_leaves_the_old_file_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let ticket = LocalKms::open(at("begun.json")).unwrap().begin_import("acme", region(), &SystemClock).await.unwrap();
    let key = material(32);
    let (wrapped, value) = (wrap(&ticket, ImportFormat::Hpke, &key), check_value(&key));
    fs::write(at("wrapped.bin"), &wrapped).unwrap();
    let (mut old, mut new) = (0, 0);
    for round in 1..=40 {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "canary::child", "--nocapture"])
            .env(JOB, format!("{}\n{}\n{value}", folder.path().display(), ticket.token()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Killed as soon as it says for the n-th time that it is finishing: somewhere from there on.
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let said = lines.by_ref().filter(|line| line.as_ref().unwrap() == "finishing").take(1 + round % 5).count();
        assert_eq!(said, 1 + round % 5, "the process to kill ended by itself");
        process.kill().unwrap();
        process.wait().unwrap();

        let kms = LocalKms::open(at("keks.json")).unwrap();
        let text = fs::read_to_string(at("keks.json")).unwrap();
        let (imported, under_way) = (kms.describe(ticket.kek()).await.is_ok(), text.contains("private_key"));
        assert_ne!(imported, under_way, "half an import after kill {round}");
        if under_way {
            old += 1;
            let finished = kms.finish_import(ticket.token(), ImportFormat::Hpke, &wrapped, &value, &SystemClock).await;
            finished.unwrap();
        } else {
            new += 1;
        }
    }
    assert_eq!(old + new, 40);
    println!("40 kills: {old} before, {new} after the import");
}
