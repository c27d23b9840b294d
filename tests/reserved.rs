//! What FORMAT.md reserves for later: its vectors, which the Python reference made from that page alone. No release writes or
//! reads any of it, and today's readers refuse it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use serde_json::Value;
use strongroom::testing::reserved::{
    Audit, ReservedKey, open_own_key_file, padded, padme, seal_own_key_file, unpadded,
};
use strongroom::{Error, ErrorKind, Field, FileHead, Header, Suite};

/// The vectors of one kind, with their names.
fn of_kind(kind: &str, at_least: usize) -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/reserved");
    let read = |path: &Path| {
        let case: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        (path.file_name().unwrap().to_string_lossy().into_owned(), case)
    };
    let all = std::fs::read_dir(folder).unwrap().map(|entry| read(&entry.unwrap().path()));
    let cases: Vec<_> = all.filter(|(_, case)| case["kind"] == kind).collect();
    assert!(cases.len() >= at_least, "{} of {kind:?}", cases.len());
    cases
}

fn unhex(value: &Value) -> Vec<u8> {
    base16ct::lower::decode_vec(value.as_str().unwrap()).unwrap()
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.first_chunk().unwrap()
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap()
}

fn fields(pairs: &Value) -> Vec<Field<'_>> {
    let pairs = pairs.as_array().unwrap();
    pairs.iter().map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect()
}

fn suite(case: &Value) -> Suite {
    Suite::from_byte(u8::try_from(case["suite"].as_u64().unwrap()).unwrap()).unwrap()
}

/// The data key that `of` names, in the rest of the case.
fn key(case: &Value, of: &Value) -> ReservedKey {
    let (region, tenant) = (text(case, "region"), text(case, "tenant"));
    ReservedKey::new(&unhex(&of["data_key"]), suite(case), region, tenant, &fields(&of["scope"])).unwrap()
}

fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|e| e.kind())
}

/// The nonce of an envelope.
fn nonce(envelope: &[u8]) -> [u8; 24] {
    array(&envelope[3 + usize::from(envelope[2]) + 32..])
}

fn bent(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bent = bytes.to_vec();
    bent[at] ^= 1;
    bent
}

#[test]
fn keys_of_indexes_and_of_derived_data() {
    for (name, case) in of_kind("keys", 3) {
        let key = key(&case, &case);
        assert_eq!(key.index_key().unwrap()[..], unhex(&case["index_key"]), "{name}");
        assert_eq!(key.derived_key().unwrap()[..], unhex(&case["derived_key"]), "{name}");
    }
}

#[test]
fn padding() {
    for (_, case) in of_kind("padding", 1) {
        let lengths = case["padme"].as_array().unwrap();
        for pair in lengths {
            let [len, wanted] = [0, 1].map(|n| usize::try_from(pair[n].as_u64().unwrap()).unwrap());
            assert_eq!(padme(len), wanted, "{len}");
        }
        for row in case["padded"].as_array().unwrap() {
            let (plain, least, wanted) = (unhex(&row[0]), row[1].as_u64().unwrap(), unhex(&row[2]));
            assert_eq!(padded(&plain, usize::try_from(least).unwrap()), wanted);
            assert_eq!(unpadded(&wanted).unwrap(), plain);
        }
        for bad in case["refused"].as_array().unwrap() {
            assert_eq!(kind(unpadded(&unhex(bad))), Some(ErrorKind::Unopenable), "{bad}");
        }
        assert!(lengths.len() > 70);
    }
}

#[test]
fn padded_messages() {
    let (mut opened, mut refused) = (0, 0);
    for (name, case) in of_kind("padded message", 12) {
        let (key, own, envelope) = (key(&case, &case), fields(&case["context"]), unhex(&case["envelope"]));
        // A reader that does not know the flag.
        assert_eq!(kind(Header::parse(&envelope)), Some(ErrorKind::Malformed), "{name}");
        let Some(plain) = case.get("plaintext").map(unhex) else {
            assert_eq!(kind(key.open_padded(&own, &envelope)), Some(ErrorKind::Unopenable), "{name}");
            refused += 1;
            continue;
        };
        assert_eq!(key.open_padded(&own, &envelope).unwrap(), plain, "{name}");
        let least = if name.contains("256") { 256 } else { 0 };
        assert_eq!(key.seal_padded(&own, &nonce(&envelope), &plain, least).unwrap(), envelope, "{name}");
        for at in [0, 1, 2, 20, envelope.len() - 20, envelope.len() - 1] {
            assert!(key.open_padded(&own, &bent(&envelope, at)).is_err(), "{name}, byte {at}");
        }
        assert!(key.open_padded(&[], &envelope).is_err(), "{name}");
        opened += 1;
    }
    assert!(opened >= 6 && refused >= 6, "{opened} {refused}");
}

#[test]
fn files_with_a_key_of_their_own() {
    for (name, case) in of_kind("file", 2) {
        let (own, file, file_key) = (fields(&case["context"]), unhex(&case["file"]), unhex(&case["file_data_key"]));
        let (suite, region) = (suite(&case), text(&case, "region"));
        // A reader that does not know the flag.
        assert_eq!(kind(FileHead::parse(&file)), Some(ErrorKind::Malformed), "{name}");
        let mut opened = 0;
        for wrapped in case["wraps"].as_array().unwrap() {
            let (key, wrap) = (key(&case, wrapped), unhex(&wrapped["wrap"]));
            assert_eq!(kind(Header::parse(&wrap)), Some(ErrorKind::Malformed), "{name}");
            let unwrapped = key.unwrap(&wrap, &own);
            if wrapped["expect"] == "opens" {
                assert_eq!(unwrapped.unwrap(), file_key, "{name}");
                assert_eq!(key.wrap(&file_key, &own, &nonce(&wrap)).unwrap(), wrap, "{name}");
                assert_eq!(kind(key.unwrap(&wrap, &[("file", "F78")])), Some(ErrorKind::Unopenable), "{name}");
                opened += 1;
            } else {
                assert_eq!(kind(unwrapped), Some(ErrorKind::Unopenable), "{name}");
            }
        }
        assert_eq!(opened, 2, "{name}: of two scopes");
        let open = |own: &[Field<'_>], file: &[u8]| open_own_key_file(&file_key, suite, region, own, file);
        assert_eq!(open(&own, &file).unwrap(), unhex(&case["plaintext"]), "{name}");
        let salt = array(&file[8 + 3 + region.len() + 32..]);
        let again = seal_own_key_file(&file_key, suite, region, &own, salt, &unhex(&case["plaintext"]));
        assert_eq!(again.unwrap(), file, "{name}");
        assert_eq!(kind(open(&[], &file)), Some(ErrorKind::Unopenable), "{name}");
        for at in [0, 9, 20, 60, 90, file.len() - 1] {
            assert!(open(&own, &bent(&file, at)).is_err(), "{name}, byte {at}");
        }
    }
}

#[test]
fn audit_entries() {
    for (name, case) in of_kind("audit entry", 3) {
        let audit = Audit::new(array(&unhex(&case["audit_secret"])), text(&case, "tenant")).unwrap();
        assert_eq!(audit.key()[..], unhex(&case["audit_key"]), "{name}");
        let (salt, sealed, entry) = (unhex(&case["salt"]), unhex(&case["sealed"]), unhex(&case["entry"]));
        let body = Audit::body(&fields(&case["pairs"])).unwrap();
        assert_eq!(body, unhex(&case["body"]), "{name}");
        let made = audit.seal(&array(&salt), &body, &array(&sealed)).unwrap();
        assert_eq!((&made.0[..], &made.1), (&entry[..], &sealed), "{name}");
        let leaf = <sha2::Sha256 as sha2::Digest>::digest([&[0], &entry[..]].concat());
        assert_eq!(leaf[..], unhex(&case["leaf_hash"]), "{name}");
        assert_eq!(audit.open(&entry, &sealed).unwrap(), (array(&salt), body), "{name}");
        for at in [0, 23, 24, 56, sealed.len() - 1] {
            assert_eq!(kind(audit.open(&entry, &bent(&sealed, at))), Some(ErrorKind::Unopenable), "{name}, byte {at}");
        }
        assert_eq!(kind(audit.open(&bent(&entry, 0), &sealed)), Some(ErrorKind::Unopenable), "{name}");
        let another = Audit::new(array(&unhex(&case["audit_secret"])), "another").unwrap();
        assert_eq!(kind(another.open(&entry, &sealed)), Some(ErrorKind::Unopenable), "{name}");
    }
}
