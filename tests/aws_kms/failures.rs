//! What the network and a KMS under load do: injected by the proxy, counted there.

use std::sync::Arc;
use std::time::Duration;

use strongroom::{AwsKms, AwsKmsBuilder, ErrorKind, KekUri, Kms, MemoryKeyStore, Region};

use crate::proxy::{Answer, Proxy};
use crate::world::{
    admin, admin_in, assert_fails, builder, config, create_kek, enroll, generate, home, kms, open, room, root, seal,
    url,
};

struct Faulty {
    proxy: Proxy,
    kms: AwsKms,
    kek: KekUri,
}

/// A provider whose requests go through a proxy.
async fn faulty(edit: impl Fn(AwsKmsBuilder) -> AwsKmsBuilder) -> Faulty {
    let proxy = Proxy::before(url()).await;
    let kms = edit(builder(&proxy.url).await).build().await.unwrap();
    Faulty { proxy, kms, kek: create_kek(&admin().await).await }
}

fn throttled() -> Answer {
    Answer::Error { status: 400, code: "ThrottlingException", message: "Rate exceeded".to_owned() }
}

fn own(status: u16, body: &str) -> Answer {
    Answer::Own { status, body: body.to_owned() }
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    let Faulty { proxy, kms, kek } = faulty(|b| b).await;
    let (context, made) = generate(&kms, &kek).await;
    proxy.take_seen();
    let internal = Answer::Error { status: 500, code: "KMSInternalException", message: String::new() };
    for passing in [
        throttled(),
        internal,
        own(503, "<html>Service Unavailable</html>"),
        own(429, ""),
        own(200, "{\"KeyId\": [}"),
        own(200, "{}"),
        own(200, &format!("{{\"KeyId\": \"{}\"}}", kek.name())),
        Answer::CutShort,
    ] {
        proxy.next([passing.clone(), passing.clone()]);
        let unwrapped = kms.unwrap(&kek, &context, &made.wrapped).await;
        assert!(unwrapped.unwrap_or_else(|e| panic!("{passing:?}: {e}")).ct_eq(&made.data_key));
        assert_eq!(proxy.take_seen().len(), 3, "{passing:?}");
    }
}

#[tokio::test]
async fn attempts_end_and_the_last_failure_is_told() {
    let Faulty { proxy, kms, kek } = faulty(|b| b.attempts(3)).await;
    let (context, made) = generate(&kms, &kek).await;
    for (answer, kind, says, attempts) in [
        (throttled(), ErrorKind::Throttled, "quota", 3),
        (own(500, ""), ErrorKind::Unavailable, "500", 3),
        (own(200, "no JSON"), ErrorKind::Unavailable, "malformed", 3),
        (own(404, "not here"), ErrorKind::Unavailable, "is the endpoint an AWS KMS?", 1),
        (own(301, ""), ErrorKind::Unavailable, "301", 1),
        (
            Answer::Error { status: 400, code: "DisabledException", message: String::new() },
            ErrorKind::Denied,
            "kms:EnableKey",
            1,
        ),
        // The code counts, not the status.
        (
            Answer::Error { status: 500, code: "AccessDeniedException", message: "by policy".to_owned() },
            ErrorKind::Denied,
            "kms:Decrypt",
            1,
        ),
        (Answer::Error { status: 400, code: "Unheard", message: String::new() }, ErrorKind::Unavailable, "Unheard", 1),
    ] {
        proxy.take_seen();
        proxy.always(answer);
        let e = assert_fails(kms.unwrap(&kek, &context, &made.wrapped).await, kind, says);
        assert_eq!(e.operation(), "unwrap data key");
        assert_eq!(proxy.take_seen().len(), attempts, "{e}");
    }
}

#[tokio::test]
async fn a_budget_ends_retries_for_its_account_and_region() {
    let Faulty { proxy, kms, kek } = faulty(|b| b.retry_budget(5)).await;
    let (context, made) = generate(&kms, &kek).await;
    proxy.always(throttled());
    proxy.take_seen();
    for expected in [4, 3, 1, 1] {
        assert_fails(kms.unwrap(&kek, &context, &made.wrapped).await, ErrorKind::Throttled, "");
        assert_eq!(proxy.take_seen().len(), expected);
    }
    // Another account has its own.
    let other = KekUri::new(&kek.as_str().replace("000000000000", "999999999999")).unwrap();
    assert_fails(kms.unwrap(&other, &context, &made.wrapped).await, ErrorKind::Throttled, "");
    assert_eq!(proxy.take_seen().len(), 4);
}

#[tokio::test]
async fn silence_is_unavailable() {
    let short = Duration::from_secs(1);
    let Faulty { proxy, kms, kek } = faulty(|b| b.attempt_timeout(short).attempts(2)).await;
    let (context, made) = generate(&self::kms().await, &kek).await;
    proxy.always(Answer::Silence);
    assert_fails(kms.unwrap(&kek, &context, &made.wrapped).await, ErrorKind::Unavailable, "did not answer");
    assert_eq!(proxy.take_seen().len(), 2);
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let kek = create_kek(&admin().await).await;
    let kms = builder(&nobody).await.attempts(2).build().await.unwrap();
    assert_fails(kms.describe(&kek).await, ErrorKind::Unavailable, "cannot be reached");

    // Somebody there who does not speak TLS. No cryptography provider is installed for the process, and none is needed.
    let proxy = Proxy::before(url()).await;
    let kms = builder(&proxy.url.replace("http:", "https:")).await.attempts(1).build().await.unwrap();
    assert_fails(kms.describe(&kek).await, ErrorKind::Unavailable, "cannot be reached");
    assert_eq!(proxy.take_seen(), [""; 0]);
}

#[tokio::test]
async fn an_endless_reply_is_cut_off() {
    let Faulty { proxy, kms, kek } = faulty(|b| b.attempts(1)).await;
    let (context, made) = generate(&kms, &kek).await;
    proxy.next([Answer::Endless, own(200, &format!("{{\"Plaintext\":\"{}\"}}", "A".repeat(100_000)))]);
    for _ in 0..2 {
        assert_fails(kms.unwrap(&kek, &context, &made.wrapped).await, ErrorKind::Unavailable, "too long");
    }
}

#[tokio::test]
async fn an_answer_about_another_key_or_of_another_length_is_refused() {
    let Faulty { proxy, kms, kek } = faulty(|b| b).await;
    let (context, made) = generate(&kms, &kek).await;
    let (old, new) = (kek.name().to_owned(), kek.name().replace("key/", "key/mrk-"));
    proxy.always(Answer::Replace { old, new });
    proxy.take_seen();
    assert_fails(kms.unwrap(&kek, &context, &made.wrapped).await, ErrorKind::KeyMismatch, "another key");
    assert_fails(kms.generate(&kek, &context).await, ErrorKind::KeyMismatch, "another key");
    assert_fails(kms.wrap(&kek, &context, &made.data_key).await, ErrorKind::KeyMismatch, "another key");
    assert_fails(kms.describe(&kek).await, ErrorKind::KeyMismatch, "another key");
    assert_eq!(proxy.take_seen().len(), 4); // nothing was tried again

    // 31 bytes, none, 32 equal ones.
    let equal = "A".repeat(43) + "=";
    for plaintext in ["AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==", "", equal.as_str()] {
        let body = format!("{{\"KeyId\": \"{}\", \"Plaintext\": \"{plaintext}\"}}", kek.name());
        proxy.always(own(200, &body));
        assert_fails(kms.unwrap(&kek, &context, &made.wrapped).await, ErrorKind::KeyMismatch, "data key");
    }
    let oversized = "A".repeat(8_196);
    let body = format!("{{\"KeyId\": \"{}\", \"CiphertextBlob\": \"{oversized}\"}}", kek.name());
    proxy.always(own(200, &body));
    assert_fails(kms.wrap(&kek, &context, &made.data_key).await, ErrorKind::Unavailable, "6144");
}

// The SDK's own errors hold the raw reply; a plaintext key in one must not reach a log.
#[tokio::test]
async fn no_key_gets_into_an_error() {
    let Faulty { proxy, kms, kek } = faulty(|b| b.attempts(1)).await;
    let (context, made) = generate(&kms, &kek).await;
    let canary = "Y2FuYXJ5IGNhbmFyeSBjYW5hcnkgY2FuYXJ5IGNhISE=";
    let replies = [
        own(200, &format!("{{\"KeyId\": \"{}\", \"Plaintext\": \"{canary}\"", kek.name())),
        own(200, &format!("{{\"KeyId\": \"x\", \"Plaintext\": \"{canary}\"}}")),
        own(500, canary),
        Answer::Error { status: 400, code: "ValidationException", message: canary.to_owned() },
        Answer::Error { status: 400, code: "InvalidCiphertextException", message: canary.to_owned() },
    ];
    for reply in replies {
        proxy.always(reply);
        let e = kms.unwrap(&kek, &context, &made.wrapped).await.err().unwrap();
        let said = format!("{e} {e:?} {:?}", std::error::Error::source(&e));
        let hex = base16ct::lower::encode_string(b"canary");
        assert!(!said.contains("Y2FuYXJ5") && !said.contains("canary") && !said.contains(&hex), "{said}");
    }
    assert!(!format!("{kms:?}").contains("Credentials"), "{kms:?}");
}

#[tokio::test]
async fn throttling_keeps_the_cached_keys_and_denial_drops_them() {
    let Faulty { proxy, kms, kek } = faulty(|b| b.attempts(1)).await;
    let store = Arc::new(MemoryKeyStore::default());
    let (room, other) = (self::room(&store, kms).await, self::room(&store, self::kms().await).await);
    enroll(&room, &kek).await;
    let cached = seal(&room, "C1", b"one").await.unwrap();
    let not_cached = seal(&other, "C3", b"three").await.unwrap();
    for (answer, kind) in [(throttled(), ErrorKind::Throttled), (own(500, ""), ErrorKind::Unavailable)] {
        proxy.always(answer);
        let e = assert_fails(open(&room, "C3", &not_cached).await, kind, "");
        assert!(e.is_retryable());
        assert_eq!(open(&room, "C1", &cached).await.unwrap(), b"one");
    }
    proxy.always(Answer::Error { status: 400, code: "AccessDeniedException", message: "revoked".to_owned() });
    assert_fails(open(&room, "C3", &not_cached).await, ErrorKind::Denied, "AWS says: revoked");
    assert_eq!(room.cached_keys(), 0);
    assert_fails(open(&room, "C1", &cached).await, ErrorKind::Denied, "kms:Decrypt");
    proxy.always(Answer::Pass);
    assert_eq!(open(&room, "C1", &cached).await.unwrap(), b"one");
}

#[tokio::test]
async fn every_call_names_the_key_and_the_context() {
    let Faulty { proxy, kms, kek } = faulty(|b| b).await;
    let other = create_kek(&admin().await).await;
    let (context, made) = generate(&kms, &kek).await;
    kms.unwrap(&kek, &context, &made.wrapped).await.unwrap();
    let wrapped = kms.wrap(&kek, &context, &made.data_key).await.unwrap();
    kms.rewrap(&kek, &other, &context, &wrapped).await.unwrap();
    let seen = proxy.take_seen();
    assert_eq!(seen.len(), 4);
    for (request, operation) in seen.iter().zip(["GenerateDataKey", "Decrypt", "Encrypt", "ReEncrypt"]) {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("TrentService.{operation}\r\n")), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let (key, contexts): (_, &[&str]) = match operation {
            "ReEncrypt" => ("SourceKeyId", &["SourceEncryptionContext", "DestinationEncryptionContext"]),
            _ => ("KeyId", &["EncryptionContext"]),
        };
        assert_eq!(body[key], kek.name(), "{operation}");
        for name in contexts {
            assert_eq!(body[name]["tenant"], "acme");
            assert_eq!(body[name]["channel"], "C9");
            assert_eq!(body[name].as_object().unwrap().len(), context.fields().count());
        }
    }
    let last: serde_json::Value = serde_json::from_str(seen[3].split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(last["DestinationKeyId"], other.name());
}

#[tokio::test]
async fn what_is_no_arn_never_leaves_this_process() {
    let Faulty { proxy, kms, kek } = faulty(|b| b).await;
    let (context, made) = generate(&kms, &kek).await;
    proxy.take_seen();
    for bad in [
        "aws-kms:1234abcd-12ab-34cd-56ef-1234567890ab".to_owned(),
        "aws-kms:alias/acme".to_owned(),
        "local:acme".to_owned(),
        kek.as_str().replace("eu-central-1", "evil.example"),
    ] {
        let bad = KekUri::new(&bad).unwrap();
        for e in [
            kms.describe(&bad).await.err(),
            kms.generate(&bad, &context).await.err(),
            kms.unwrap(&bad, &context, &made.wrapped).await.err(),
            kms.describe_key(&bad).await.err(),
        ] {
            assert_eq!(e.unwrap().kind(), ErrorKind::InvalidArgument, "{bad}");
        }
    }
    assert_eq!(proxy.take_seen(), [""; 0]);
}

#[tokio::test]
async fn each_region_has_its_endpoint_and_given_clients_serve_their_region_alone() {
    let (here, there) = (Proxy::before(url()).await, Proxy::before(url()).await);
    let west = Region::new("eu-west-1").unwrap();
    let kms = builder("http://127.0.0.1:1")
        .await
        .endpoint_in(&home(), &here.url)
        .endpoint_in(&west, &there.url)
        .build()
        .await
        .unwrap();
    let (near, far) = (create_kek(&admin().await).await, create_kek(&admin_in("eu-west-1").await).await);
    assert_eq!(kms.describe(&near).await.unwrap().region, home());
    assert_eq!(kms.describe(&far).await.unwrap().region, west);
    assert_eq!((here.take_seen().len(), there.take_seen().len()), (1, 1));

    // The client's own retries and endpoint: the endpoint stays, the retries do not.
    let client = aws_sdk_kms::Client::new(&config(&here.url, root()).await);
    let given = AwsKms::from_client(&home(), client);
    here.next([throttled()]);
    given.describe(&near).await.unwrap();
    assert_eq!(here.take_seen().len(), 2);
    assert_fails(given.describe(&far).await, ErrorKind::InvalidArgument, "eu-west-1");
}

#[tokio::test]
async fn a_wrong_configuration_is_refused() {
    for (bad, says) in [
        (AwsKms::builder().endpoint("http://kms.example"), "https"),
        (AwsKms::builder().sts_endpoint("ftp://127.0.0.1"), "https"),
        (AwsKms::builder().endpoint("https://vpce.example").use_fips(true), "FIPS"),
        (AwsKms::builder().attempts(0), "zero"),
        (AwsKms::builder().attempt_timeout(Duration::ZERO), "zero"),
        (AwsKms::builder().max_clients(0), "zero"),
    ] {
        assert_fails(bad.build().await, ErrorKind::InvalidArgument, says);
    }
    // Whoever configures plain HTTP elsewhere, the SDK's environment included: no request goes out.
    let kms = AwsKms::from_sdk_config(&config("http://kms.example.invalid", root()).await);
    let kek = create_kek(&admin().await).await;
    assert_fails(kms.describe(&kek).await, ErrorKind::Unavailable, "https");
}

/// What AWS says of a key: enough of it for its state to be read.
fn in_state(kek: &KekUri, state: &str) -> Answer {
    let arn = kek.name();
    let id = arn.rsplit('/').next().unwrap();
    own(200, &format!("{{\"KeyMetadata\": {{\"KeyId\": \"{id}\", \"Arn\": \"{arn}\", \"KeyState\": \"{state}\"}}}}"))
}

/// `KMSInvalidStateException` is an external key store's timeout and its owner's decision alike: the key's state tells which.
#[tokio::test]
async fn denied_or_down_is_decided_by_the_key_s_state() {
    let Faulty { proxy, kms, kek } = faulty(|b| b.attempts(1)).await;
    let (context, made) = generate(&kms, &kek).await;
    let refused =
        |message: &str| Answer::Error { status: 400, code: "KMSInvalidStateException", message: message.to_owned() };
    for (message, state, kind) in [
        ("The external key store proxy did not respond in time.", "Enabled", ErrorKind::Unavailable),
        ("The custom key store is disconnected.", "Unavailable", ErrorKind::Denied),
        ("not said in so many words", "PendingDeletion", ErrorKind::Denied),
        ("it is unavailable", "Disabled", ErrorKind::Denied),
    ] {
        proxy.next([refused(message), in_state(&kek, state)]);
        let e = kms.unwrap(&kek, &context, &made.wrapped).await.err().unwrap();
        assert_eq!((e.kind(), e.kek()), (kind, Some(kek.as_str())), "{message}, {state}: {e}");
    }
    // Where AWS does not tell, nothing is taken for a denial that may be none.
    let silent = own(500, "");
    proxy.next([refused("The external key store proxy did not respond in time."), silent]);
    assert_eq!(kms.unwrap(&kek, &context, &made.wrapped).await.err().map(|e| e.kind()), Some(ErrorKind::Unavailable));
}
