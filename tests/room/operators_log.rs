//! Why something does not open: one kind and one sentence to the caller, the reason to the operator's log.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use strongroom::{Error, ErrorKind, FileHead};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::House;

/// What the whole process tells its log, a line an event, as operators have it by default; with the thread that told it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(ThreadId, String)>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push((thread::current().id(), line.0));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Log {
    /// What this thread told since it was asked last that something does not open.
    fn take(&self) -> Vec<String> {
        let told = std::mem::take(&mut *self.0.lock().unwrap());
        let ours = told
            .into_iter()
            .filter(|(thread, line)| *thread == thread::current().id() && line.contains("does not open"));
        ours.map(|(_, line)| line).collect()
    }
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

/// On one thread, the test's, so that other tests' lines are told from its own.
#[tokio::test(flavor = "current_thread")]
async fn a_refusal_is_one_sentence_to_the_caller_and_a_reason_with_the_key_id_to_the_operator() {
    let house = House::with(strongroom::TenantPolicy::allow_unbound_files).await;
    let (scope, other) = (house.channel("acme", "C9").await, house.channel("acme", "C8").await);
    let sealed = scope.seal(&[("message", "M-secret-77")], b"the plaintext").await.unwrap();
    let key_id = strongroom::KeyId::from_bytes(*strongroom::Header::parse(&sealed).unwrap().key_id()).to_string();
    let of_nobody = flipped(&sealed, 3 + 12 + 5);
    let altered = flipped(&sealed, sealed.len() - 1);
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).unwrap();
    let hot = scope.hot().await.unwrap();
    log.take();
    let mut said = Vec::new();
    let context: &[(&str, &str)] = &[("message", "M-secret-77")];
    for _cold_then_warm in 0..2 {
        let tried: [(&str, Error); 6] = [
            ("no key record", scope.open(context, &of_nobody).await.err().unwrap()),
            ("altered", scope.open(context, &altered).await.err().unwrap()),
            ("context is another", scope.open(&[("message", "M2")], &sealed).await.err().unwrap()),
            ("context is another", scope.open_in_place(&[], &mut sealed.clone()).await.err().unwrap()),
            ("scope", other.open(context, &sealed).await.err().unwrap()),
            ("altered", hot.open(context, &altered).err().unwrap()),
        ];
        let lines = log.take();
        assert_eq!(lines.len(), tried.len(), "{lines:?}");
        for ((reason, e), line) in tried.iter().zip(lines) {
            assert!(line.contains(reason) && line.contains("tenant=acme"), "{line}");
            assert!(line.contains(&key_id) != (*reason == "no key record") && line.contains("key_id="), "{line}");
            assert!(!line.contains("secret") && !line.contains("plaintext"), "{line}");
            assert_eq!(e.kind(), ErrorKind::Unopenable);
            said.push(format!("{e} {e:?}"));
        }
    }
    assert!(said.iter().all(|one| *one == said[0]), "{said:#?}");

    let file = scope.file_sealer(&[]).await.unwrap().seal_bytes(b"a picture").unwrap();
    let (head, altered) = (FileHead::parse(&file).unwrap(), flipped(&file, file.len() - 1));
    log.take();
    let tried = [
        ("altered", scope.file_opener(&[], &head).await.unwrap().open_bytes(&altered).err().unwrap()),
        ("cut short", scope.file_opener(&[], &head).await.unwrap().open_bytes(head.as_bytes()).err().unwrap()),
        ("context is another", scope.file_opener(&[("file", "F-secret")], &head).await.err().unwrap()),
        ("scope", other.file_opener(&[], &head).await.err().unwrap()),
    ];
    let lines = log.take();
    assert_eq!(lines.len(), tried.len(), "{lines:?}");
    for ((reason, e), line) in tried.iter().zip(lines) {
        assert!(line.contains(reason) && line.contains("tenant=acme") && line.contains(&key_id), "{line}");
        assert!(!line.contains("secret") && !line.contains("picture"), "{line}");
        assert_eq!(e.to_string(), tried[0].1.to_string());
    }
}
