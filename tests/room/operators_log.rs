//! Why something does not open: one kind and one sentence to the caller, the reason to the operator's log.

use strongroom::{Error, ErrorKind, FileHead};

use crate::House;
use crate::captured_log::CapturedLog;

/// In every line that says why something does not open.
const REFUSED: &str = "does not open";

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
    let log = CapturedLog::from(tracing::Level::INFO);
    tracing::subscriber::set_global_default(log.clone()).unwrap();
    let hot = scope.hot().await.unwrap();
    log.take(REFUSED);
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
        let lines = log.take(REFUSED);
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
    log.take(REFUSED);
    let tried = [
        ("altered", scope.file_opener(&[], &head).await.unwrap().open_bytes(&altered).err().unwrap()),
        ("cut short", scope.file_opener(&[], &head).await.unwrap().open_bytes(head.as_bytes()).err().unwrap()),
        ("context is another", scope.file_opener(&[("file", "F-secret")], &head).await.err().unwrap()),
        ("scope", other.file_opener(&[], &head).await.err().unwrap()),
    ];
    let lines = log.take(REFUSED);
    assert_eq!(lines.len(), tried.len(), "{lines:?}");
    for ((reason, e), line) in tried.iter().zip(lines) {
        assert!(line.contains(reason) && line.contains("tenant=acme") && line.contains(&key_id), "{line}");
        assert!(!line.contains("secret") && !line.contains("picture"), "{line}");
        assert_eq!(e.to_string(), tried[0].1.to_string());
    }
}
