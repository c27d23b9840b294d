//! What an import accepts, and all that it refuses.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use strongroom::testing::{ManualClock, Operator, encryption_context};
use strongroom::{
    ErrorKind, ImportFormat, ImportTicket, KeyCheckValue, Kms, LocalKms, MemoryKeyStore, Region, Strongroom,
    SystemClock, TenantPolicy,
};

use super::tenant::{check_value, hpke, material, openssl, wrap};
use super::{FORMATS, region, root};

/// The imported KEK is the tenant's key, no more and no less: a KMS that was given the key raw unwraps what it wrapped.
async fn is_the_key(kms: &LocalKms, ticket: &ImportTicket, material: &[u8]) {
    let theirs = LocalKms::in_memory();
    theirs.import_kek(ticket.kek().name(), region(), &mut material.to_vec()).unwrap();
    let context = encryption_context("acme", "eu-central-1");
    let made = kms.generate(ticket.kek(), &context).await.unwrap();
    assert!(theirs.unwrap(ticket.kek(), &context, &made.wrapped).await.unwrap().ct_eq(&made.data_key));
}

async fn imports(format: ImportFormat) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    let (operator, root_kek) = root();
    let open = || LocalKms::open_under(&path, Arc::clone(&operator), root_kek.clone());
    let created = LocalKms::create_under(&path, Arc::clone(&operator), root_kek.clone()).await.unwrap();
    let ticket = created.begin_import("acme-2026", region(), &SystemClock).await.unwrap();
    let material = material(32);
    let wrapped = wrap(&ticket, format, &material);

    // The process was restarted in between.
    let kms = open().await.unwrap();
    let value = check_value(&material);
    let kek = kms.finish_import(ticket.token(), format, &wrapped, &value, &SystemClock).await.unwrap();
    assert_eq!(&kek, ticket.kek());
    is_the_key(&kms, &ticket, &material).await;
    assert!(!fs::read_to_string(&path).unwrap().contains("imports"), "the wrapping keys are still there");

    // And again; then something is sealed under the tenant's own key.
    let kms = open().await.unwrap();
    is_the_key(&kms, &ticket, &material).await;
    let room = Strongroom::builder().serving(["eu-central-1"]).key_store(MemoryKeyStore::default()).kms(kms);
    let room = room.open_under(&Operator::default()).await;
    room.admin("a test", "to test").unwrap().enroll("acme", TenantPolicy::new(kek, region())).await.unwrap();
    let scope = room.tenant("acme").await.unwrap().scope([]).unwrap();
    let sealed = scope.seal(&[("message", "M1")], b"hello").await.unwrap();
    assert_eq!(&*scope.open(&[("message", "M1")], &sealed).await.unwrap(), b"hello");
}

#[tokio::test]
async fn openssl_wraps_with_oaep() {
    imports(ImportFormat::RsaesOaepSha256).await;
}

#[tokio::test]
async fn openssl_wraps_with_oaep_and_aes_kwp() {
    imports(ImportFormat::RsaAesKeyWrapSha256).await;
}

#[tokio::test]
async fn hpke_wraps() {
    imports(ImportFormat::Hpke).await;
}

/// Nothing rests under a root KEK here: the wrapping keys are in the file, and gone when the import is finished.
#[tokio::test]
async fn an_import_into_a_bare_file_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    let ticket = LocalKms::create(&path).unwrap().begin_import("acme-2026", region(), &SystemClock).await.unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("\"format\": 2"));
    let (kms, material) = (LocalKms::open(&path).unwrap(), material(32));
    let wrapped = wrap(&ticket, ImportFormat::RsaesOaepSha256, &material);
    let value = check_value(&material);
    kms.finish_import(ticket.token(), ImportFormat::RsaesOaepSha256, &wrapped, &value, &SystemClock).await.unwrap();
    is_the_key(&LocalKms::open(&path).unwrap(), &ticket, &material).await;
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"format\": 1") && !text.contains("private_key"), "{}", text.len());
}

/// An import goes with the file when it comes under a root KEK, and is bound to what was promised.
#[tokio::test]
async fn an_import_under_way_is_adopted_and_cannot_be_altered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    let bare = LocalKms::create(&path).unwrap();
    let ticket = bare.begin_import("acme-2026", region(), &SystemClock).await.unwrap();
    let (operator, root_kek) = root();
    let kms = bare.adopt_root(operator, root_kek).await.unwrap();
    let good = fs::read_to_string(&path).unwrap();
    assert!(good.contains("sealed") && !good.contains("private_key"));
    let (key, format) = (material(32), ImportFormat::RsaAesKeyWrapSha256);
    let (wrapped, value) = (wrap(&ticket, format, &key), check_value(&key));
    let finish = || kms.finish_import(ticket.token(), format, &wrapped, &value, &SystemClock);
    let expires_at = ticket.expires_at_millis().to_string();
    for (from, to) in [
        (r#""name": "acme-2026""#, r#""name": "globex""#),
        (r#""region": "eu-central-1""#, r#""region": "us-east-1""#),
        (expires_at.as_str(), "9000000000000"),
    ] {
        assert!(good.contains(from), "{from}");
        fs::write(&path, good.replace(from, to)).unwrap();
        assert_eq!(finish().await.unwrap_err().kind(), ErrorKind::Denied, "{from} to {to}");
    }
    fs::write(&path, &good).unwrap();
    finish().await.unwrap();
    is_the_key(&kms, &ticket, &key).await;
}

#[tokio::test]
async fn the_ticket_is_what_it_says() {
    let kms = LocalKms::in_memory();
    let clock = ManualClock::at(1_000);
    let ticket = kms.begin_import("acme-2026", region(), &clock).await.unwrap();
    assert_eq!(ticket.expires_at_millis(), 1_000 + 24 * 3_600_000);
    assert_eq!((ticket.kek().as_str(), ticket.region().as_str()), ("local:acme-2026", "eu-central-1"));
    assert_eq!(ticket.token().len(), 64);
    assert!(!format!("{ticket:?}").contains(ticket.token()), "Debug shows the token");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.pem"), ticket.rsa_public_key_pem()).unwrap();
    let read = openssl(folder.path(), &["pkey", "-pubin", "-in", "a.pem", "-noout", "-text"]);
    assert!(read.contains("4096 bit"), "{read}");
    openssl(folder.path(), &["pkey", "-pubin", "-in", "a.pem", "-outform", "DER", "-out", "a.der"]);
    assert_eq!(fs::read(folder.path().join("a.der")).unwrap(), ticket.rsa_public_key_der());
}

/// Finishes with what must be refused, and checks that nothing changed: not the file, not the KMS.
struct Refusing<'a> {
    kms: &'a LocalKms,
    path: &'a Path,
    token: &'a str,
}

impl Refusing<'_> {
    async fn refuses(&self, what: &str, format: ImportFormat, wrapped: &[u8], value: &KeyCheckValue, says: &str) {
        let before = fs::read(self.path).unwrap();
        let refused = self.kms.finish_import(self.token, format, wrapped, value, &SystemClock).await;
        let refused = refused.err().unwrap_or_else(|| panic!("accepted: {what}"));
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{what}: {refused}");
        assert!(refused.to_string().contains(says), "{what}: {refused}");
        assert!(fs::read(self.path).unwrap() == before, "{what} changed the file");
        assert!(!self.path.with_extension("json.new").exists(), "{what} left a file behind");
    }
}

#[tokio::test]
async fn what_is_not_the_key_is_refused_and_the_import_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    let (operator, root_kek) = root();
    let kms = LocalKms::create_under(&path, operator, root_kek).await.unwrap();
    let ticket = kms.begin_import("acme-2026", region(), &SystemClock).await.unwrap();
    let other_ticket = kms.begin_import("globex-2026", region(), &SystemClock).await.unwrap();
    let key = material(32);
    let value = check_value(&key);
    let check = Refusing { kms: &kms, path: &path, token: ticket.token() };

    for format in FORMATS {
        let wrapped = wrap(&ticket, format, &key);
        let another = wrap(&other_ticket, format, &key);
        check.refuses("another ticket's wrapping key", format, &another, &value, "does not unwrap").await;
        for len in [0, 1, 31, 32, 79, 511, 512, 551].into_iter().filter(|len| *len < wrapped.len()) {
            check.refuses("truncated", format, &wrapped[..len], &value, "does not unwrap").await;
        }
        let long = [&wrapped[..], &[0]].concat();
        check.refuses("lengthened", format, &long, &value, "does not unwrap").await;
        for at in [0, wrapped.len() / 2, wrapped.len() - 1] {
            let mut altered = wrapped.clone();
            altered[at] ^= 1;
            check.refuses("altered", format, &altered, &value, "does not unwrap").await;
        }
        for other in FORMATS.into_iter().filter(|other| *other != format) {
            check.refuses("another format", other, &wrapped, &value, "does not unwrap").await;
        }
        for len in [1, 16, 24, 31, 33, 64] {
            let wrapped = wrap(&ticket, format, &material(len));
            check.refuses("another length", format, &wrapped, &value, "no 256-bit key").await;
        }
        for weak in [0, 1, 255] {
            let wrapped = wrap(&ticket, format, &[weak; 32]);
            check.refuses("uniform bytes", format, &wrapped, &check_value(&[weak; 32]), "no 256-bit key").await;
        }
        let stranger = check_value(&material(32));
        check.refuses("another check value", format, &wrapped, &stranger, "another check value").await;
    }
    // HPKE binds the name and what it is for.
    for (info, aad) in [(&b""[..], ticket.hpke_aad()), (ticket.hpke_info(), other_ticket.hpke_aad())] {
        let wrapped = hpke(ticket.hpke_public_key(), info, aad, &key);
        check.refuses("another info or name", ImportFormat::Hpke, &wrapped, &value, "does not unwrap").await;
    }

    // After all that, the import is still under way.
    let wrapped = wrap(&ticket, ImportFormat::RsaesOaepSha256, &key);
    let finish = || kms.finish_import(ticket.token(), ImportFormat::RsaesOaepSha256, &wrapped, &value, &SystemClock);
    finish().await.unwrap();
    is_the_key(&kms, &ticket, &key).await;
    check.refuses("a used token", ImportFormat::RsaesOaepSha256, &wrapped, &value, "used up").await;
    let check = Refusing { token: &"0".repeat(64), ..check };
    check.refuses("a token never given", ImportFormat::RsaesOaepSha256, &wrapped, &value, "mistyped").await;
    kms.cancel_import(other_ticket.token()).unwrap();
    let check = Refusing { token: other_ticket.token(), ..check };
    check.refuses("a cancelled import", ImportFormat::RsaesOaepSha256, &wrapped, &value, "cancelled").await;
    assert_eq!(kms.cancel_import(other_ticket.token()).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert!(!fs::read_to_string(&path).unwrap().contains("imports"));
}

#[tokio::test]
async fn a_token_expires_after_24_hours_and_its_wrapping_keys_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    let kms = LocalKms::create(&path).unwrap();
    let clock = ManualClock::at(0);
    let (early, key) = (kms.begin_import("early", region(), &clock).await.unwrap(), material(32));
    let late = kms.begin_import("late", region(), &clock).await.unwrap();
    let value = check_value(&key);
    clock.advance(Duration::from_millis(24 * 3_600_000 - 1));
    assert_eq!(kms.drop_expired_imports(&clock).unwrap(), 0);
    let wrapped = wrap(&early, ImportFormat::Hpke, &key);
    kms.finish_import(early.token(), ImportFormat::Hpke, &wrapped, &value, &clock).await.unwrap();

    clock.advance(Duration::from_millis(1));
    let wrapped = wrap(&late, ImportFormat::Hpke, &key);
    let refused = kms.finish_import(late.token(), ImportFormat::Hpke, &wrapped, &value, &clock).await.unwrap_err();
    assert_eq!((refused.kind(), refused.kek()), (ErrorKind::InvalidArgument, Some("local:late")));
    assert!(refused.to_string().contains("expired"), "{refused}");
    assert!(!fs::read_to_string(&path).unwrap().contains("private_key"), "the wrapping keys are still there");
    assert!(kms.describe(late.kek()).await.is_err());

    // Those of imports that nobody comes back to go with the next import, or on request.
    let forgotten = kms.begin_import("forgotten", region(), &clock).await.unwrap();
    clock.advance(Duration::from_hours(24));
    assert_eq!((kms.drop_expired_imports(&clock).unwrap(), kms.drop_expired_imports(&clock).unwrap()), (1, 0));
    assert!(kms.cancel_import(forgotten.token()).is_err());
}

#[tokio::test]
async fn a_name_is_given_once() {
    let kms = LocalKms::in_memory();
    for name in ["", "a/b", "a b", &"x".repeat(65)] {
        let refused = kms.begin_import(name, region(), &SystemClock).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{name:?}");
    }
    kms.create_kek("taken", region()).unwrap();
    let refused = kms.begin_import("taken", region(), &SystemClock).await.unwrap_err();
    assert_eq!((refused.kind(), refused.kek()), (ErrorKind::Conflict, Some("local:taken")));

    // Two imports under one name: the first to finish gets it.
    let one = kms.begin_import("acme", region(), &SystemClock).await.unwrap();
    let two = kms.begin_import("acme", Region::new("us-east-1").unwrap(), &SystemClock).await.unwrap();
    let key = material(32);
    let value = check_value(&key);
    for (ticket, expected) in [(&one, None), (&two, Some(ErrorKind::Conflict))] {
        let wrapped = wrap(ticket, ImportFormat::Hpke, &key);
        let finished = kms.finish_import(ticket.token(), ImportFormat::Hpke, &wrapped, &value, &SystemClock).await;
        assert_eq!(finished.err().map(|e| e.kind()), expected);
    }
    assert_eq!(kms.describe(one.kek()).await.unwrap().region, region());
}

#[tokio::test]
async fn sixty_four_imports_at_once_are_the_most() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keks.json");
    let kms = LocalKms::create(&path).unwrap();
    // Their keys are never looked at.
    let import = |id: usize, expires_at: i64| {
        format!(r#"{{"id":"{id:064x}","name":"n{id}","region":"eu","expires_at":{expires_at},"private_key":"00"}}"#)
    };
    let imports = |count: usize| {
        let all: Vec<_> = (0..count).map(|id| import(id, i64::MAX - i64::try_from(id).unwrap())).collect();
        format!(r#"{{"format":2,"keks":[],"imports":[{}]}}"#, all.join(","))
    };
    fs::write(&path, imports(64)).unwrap();
    let refused = kms.begin_import("acme", region(), &SystemClock).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Limit);
    // One of them expires: there is room again.
    let clock = ManualClock::at(i64::MAX - 63);
    kms.begin_import("acme", region(), &clock).await.unwrap();
}
