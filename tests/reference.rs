//! The format against implementations and vectors that are not ours to bend: the golden vectors under `tests/vectors`, and
//! the Python reference, written from FORMAT.md alone, in both directions.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use strongroom::testing::Operator;
use strongroom::testing::vectors::{BACKENDS, BareKey, canonical_context};
use strongroom::{
    ErrorKind, Field, FileHead, Kms, LocalKms, MemoryKeyStore, RangeSource, Region, Strongroom, Suite, TenantPolicy,
};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

fn unhex(value: &Value) -> Vec<u8> {
    base16ct::lower::decode_vec(value.as_str().expect("hex")).expect("hex")
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap_or_else(|| panic!("no {field} in {case}"))
}

fn suite(case: &Value) -> Suite {
    let byte = case["suite"].as_u64().and_then(|n| u8::try_from(n).ok());
    byte.and_then(Suite::from_byte).expect("a suite")
}

fn fields<'a>(case: &'a Value, field: &str) -> Vec<Field<'a>> {
    let pairs = case[field].as_array().unwrap_or_else(|| panic!("no {field} in {case}"));
    pairs.iter().map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect()
}

/// Runs every vector of a folder on every backend; `open` opens what the field `envelope` names. Returns how many opened,
/// did not parse and were refused.
fn golden(folder: &str, envelope: &str, open: impl Fn(&BareKey, &[Field<'_>], &[u8]) -> OpenResult) -> [usize; 3] {
    let mut outcomes = [0; 3];
    for entry in fs::read_dir(repository().join(folder)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let case: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        for backend in 0..BACKENDS {
            let data_key = unhex(&case["data_key"]);
            let (region, tenant, scope) = (text(&case, "region"), text(&case, "tenant"), fields(&case, "scope"));
            let key = BareKey::new(backend, &data_key, suite(&case), region, tenant, &scope);
            let outcome = open(&key.unwrap(), &fields(&case, "context"), &unhex(&case[envelope]));
            let kind = match text(&case, "expect") {
                "opens" => {
                    check_plaintext(&case, &outcome.unwrap_or_else(|e| panic!("{name}: {e}")), &name);
                    outcomes[0] += 1;
                    continue;
                }
                "malformed" => ErrorKind::Malformed,
                "unopenable" => ErrorKind::Unopenable,
                other => panic!("{name}: {other}"),
            };
            assert_eq!(outcome.expect_err(&name).kind(), kind, "{name}");
            outcomes[if kind == ErrorKind::Malformed { 1 } else { 2 }] += 1;
        }
    }
    outcomes
}

type OpenResult = Result<Vec<u8>, strongroom::Error>;

fn check_plaintext(case: &Value, opened: &[u8], name: &str) {
    if case["plaintext"].is_string() {
        assert_eq!(opened, unhex(&case["plaintext"]), "{name}");
    } else {
        assert_eq!(opened.len() as u64, case["plaintext_len"].as_u64().unwrap(), "{name}");
        let digest = <sha2::Sha256 as sha2::Digest>::digest(opened);
        assert_eq!(hex(&digest), text(case, "plaintext_sha256"), "{name}");
    }
}

#[test]
fn golden_messages_on_every_backend() {
    let [opened, malformed, unopenable] = golden("tests/vectors", "envelope", BareKey::open);
    assert!(opened >= 40 && malformed >= 30 && unopenable >= 130, "{opened} {malformed} {unopenable}");
}

#[test]
fn golden_files_on_every_backend() {
    let [opened, malformed, unopenable] = golden("tests/vectors/files", "file", BareKey::open_file);
    assert!(opened >= 9 && malformed >= 14 && unopenable >= 25, "{opened} {malformed} {unopenable}");
}

/// The longest file that there can be, of which some chunks are there.
struct Far {
    head_len: u64,
    len: u64,
    chunks: BTreeMap<u64, Vec<u8>>,
}

#[async_trait::async_trait]
impl RangeSource for Far {
    async fn fetch(&self, range: Range<u64>) -> Result<Bytes, strongroom::Error> {
        assert!(range.end <= self.len, "{range:?} of {}", self.len);
        let byte = |at: u64| {
            let at = at - self.head_len;
            self.chunks.get(&(at / 16_400)).map_or(0, |chunk| chunk[usize::try_from(at % 16_400).unwrap()])
        };
        Ok(range.map(byte).collect())
    }
}

/// A counter of 16 bits, one that is signed, or one of the other end, seals the first chunks of a file as everybody does.
#[tokio::test]
async fn chunks_far_into_a_file_on_every_backend() {
    const LAST: u64 = (1 << 38) - 1;
    let mut checked = 0;
    for entry in fs::read_dir(repository().join("tests/vectors/files/far")).unwrap() {
        let case: Value = serde_json::from_slice(&fs::read(entry.unwrap().path()).unwrap()).unwrap();
        let context = fields(&case, "context");
        let head = FileHead::parse(&unhex(&case["head"])).unwrap();
        let head_len = head.as_bytes().len();
        let salt: [u8; 24] = head.as_bytes()[head_len - 56..head_len - 32].try_into().unwrap();
        // By number: the plaintext, and the digest of the chunk.
        let given: BTreeMap<u64, (Vec<u8>, &str)> = case["chunks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|chunk| {
                let fill = chunk["fill"].as_u64().map(|fill| vec![u8::try_from(fill).unwrap(); 16_384]);
                let plaintext = fill.unwrap_or_else(|| unhex(&chunk["last"]));
                (chunk["number"].as_u64().unwrap(), (plaintext, text(chunk, "sealed_sha256")))
            })
            .collect();
        assert!(given.len() >= 19 && given.contains_key(&65_536) && given[&LAST].0 == b"the end");
        for backend in 0..BACKENDS {
            let (region, tenant, scope) = (text(&case, "region"), text(&case, "tenant"), fields(&case, "scope"));
            let key = BareKey::new(backend, &unhex(&case["data_key"]), suite(&case), region, tenant, &scope).unwrap();
            let mut chunks = BTreeMap::new();
            for &first in given.keys().filter(|number| **number == 0 || !given.contains_key(&(**number - 1))) {
                let run: Vec<&(Vec<u8>, &str)> = (first..).map_while(|number| given.get(&number)).collect();
                let plaintext = run.iter().flat_map(|(plaintext, _)| plaintext).copied().collect::<Vec<u8>>();
                // As a stream, and on all chunks at once.
                let sealer = || key.file_sealer_at(&context, salt, first).unwrap();
                let mut writer = sealer().writer(Vec::new());
                writer.write_all(&plaintext).unwrap();
                let sealed = writer.finish().unwrap();
                assert_eq!(sealed, sealer().seal_bytes(&plaintext).unwrap(), "from chunk {first}");
                assert_eq!(sealed[..head_len], *head.as_bytes());
                let sealed = &sealed[head_len..];
                for (number, (chunk, (_, digest))) in (first..).zip(sealed.chunks(16_400).zip(&run)) {
                    assert_eq!(hex(&<sha2::Sha256 as sha2::Digest>::digest(chunk)), **digest, "chunk {number}");
                    chunks.insert(number, chunk.to_vec());
                    checked += 1;
                }
                let open_from = |first| key.open_file_from(&context, &head, first, sealed);
                assert_eq!(open_from(first).unwrap(), plaintext, "from chunk {first}");
                for wrong in [first ^ (1 << 16), first ^ (1 << 24), first ^ (1 << 32), first.swap_bytes() >> 26] {
                    if wrong != first && wrong < LAST {
                        assert_eq!(open_from(wrong).unwrap_err().kind(), ErrorKind::Unopenable, "{first} as {wrong}");
                    }
                }
            }
            // By ranges of the longest file.
            let opener = key.file_opener(&context, &head).unwrap();
            let len = head_len as u64 + LAST * 16_400 + 7 + 16;
            let ranges = opener.ranges(Far { head_len: head_len as u64, len, chunks }, len).unwrap();
            assert_eq!(ranges.verified_len().await.unwrap(), LAST * 16_384 + 7);
            for (number, (plaintext, _)) in &given {
                let range = ranges.read_range(number * 16_384, plaintext.len() as u64).await.unwrap();
                assert_eq!(*range, **plaintext, "chunk {number}");
            }
            assert_eq!(ranges.read_range(65_538 * 16_384, 1).await.unwrap_err().kind(), ErrorKind::Unopenable);
        }
    }
    assert!(checked >= 2 * 2 * 19, "{checked}");
}

/// The Python reference as a process that answers line by line.
struct Reference {
    process: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Reference {
    fn start() -> Self {
        let mut process = Command::new(python())
            .arg(repository().join("tests/reference/strongroom_reference.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the Python reference starts; scripts/test installs what it needs");
        let ask = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { process, ask, answers }
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.ask, "{request}").expect("the reference reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("the reference failed on {request}: {e}"))
    }

    fn finish(self) {
        let Self { mut process, ask, answers } = self;
        drop((ask, answers));
        assert!(process.wait().unwrap().success());
    }
}

fn python() -> PathBuf {
    let given = std::env::var_os("STRONGROOM_PYTHON").map(PathBuf::from);
    let python = given.unwrap_or_else(|| repository().join(".venv/bin/python"));
    assert!(python.exists(), "{} is missing: run scripts/test, which installs it", python.display());
    python
}

#[derive(Debug, Clone)]
struct Case {
    data_key: [u8; 32],
    suite: Suite,
    region: String,
    tenant: String,
    scope: Vec<(String, String)>,
    context: Vec<(String, String)>,
    nonce: [u8; 24],
    plaintext: Vec<u8>,
}

fn cases() -> impl Strategy<Value = Case> {
    // No name of the scope has a capital, and each of the own fields has one: none is in both.
    let scope = prop::collection::btree_map("[a-z0-9_-]{1,8}", ".{1,12}", 0..4);
    let own = prop::collection::btree_map(".{0,7}[A-Z]", ".{0,12}", 0..5);
    (
        any::<[u8; 32]>().prop_filter("no KMS makes it", |k| k.iter().any(|b| *b != k[0])),
        prop::sample::select(&Suite::ALL[..]),
        "[a-z0-9-]{1,32}",
        "[A-Za-z0-9._:@-]{1,64}",
        scope.prop_map(|map| map.into_iter().rev().collect()),
        own.prop_map(|map| map.into_iter().rev().collect()),
        any::<[u8; 24]>(),
        prop::collection::vec(any::<u8>(), 0..300),
    )
        .prop_map(|(data_key, suite, region, tenant, scope, context, nonce, plaintext)| Case {
            data_key,
            suite,
            region,
            tenant,
            scope,
            context,
            nonce,
            plaintext,
        })
}

impl Case {
    fn request(&self, op: &str) -> Value {
        json!({
            "op": op, "data_key": hex(&self.data_key), "suite": self.suite.byte(), "region": self.region,
            "tenant": self.tenant, "scope": self.scope, "context": self.context, "nonce": hex(&self.nonce),
            "plaintext": hex(&self.plaintext),
        })
    }
}

fn borrowed(pairs: &[(String, String)]) -> Vec<Field<'_>> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[test]
fn the_python_reference_agrees_in_both_directions() {
    let reference = std::cell::RefCell::new(Reference::start());
    let config = Config { cases: 1_000, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&cases(), |case| {
            let (scope, context) = (borrowed(&case.scope), borrowed(&case.context));
            let mut reference = reference.borrow_mut();
            let theirs = unhex(&reference.ask(&case.request("seal"))["envelope"]);
            for backend in 0..BACKENDS {
                let key =
                    BareKey::new(backend, &case.data_key, case.suite, &case.region, &case.tenant, &scope).unwrap();
                let ours = key.seal_with_nonce(&context, &case.nonce, &case.plaintext).unwrap();
                prop_assert_eq!(&ours, &theirs);
                prop_assert_eq!(key.open(&context, &theirs).unwrap(), case.plaintext.clone());
                let id = reference.ask(&case.request("key_id"));
                prop_assert_eq!(unhex(&id["key_id"]), key.key_id().as_bytes().to_vec());
            }
            let mut request = case.request("open");
            request["envelope"] = hex(&theirs).into();
            let opened = reference.ask(&request);
            prop_assert_eq!(&opened["ok"], "opens");
            prop_assert_eq!(unhex(&opened["plaintext"]), case.plaintext.clone());
            let forms = reference.ask(&case.request("context"));
            prop_assert_eq!(unhex(&forms["scope"]), canonical_context(&scope).unwrap());
            prop_assert_eq!(unhex(&forms["own"]), canonical_context(&context).unwrap());
            prop_assert_eq!(unhex(&forms["together"]), canonical_context(&[&scope[..], &context].concat()).unwrap());
            Ok(())
        })
        .unwrap();
    reference.into_inner().finish();
}

/// What a room seals, the reference opens with nothing but the KEK, the record and FORMAT.md.
#[tokio::test]
async fn the_python_reference_unwraps_and_opens_what_a_room_sealed() {
    let mut raw: [u8; 32] = std::array::from_fn(|i| u8::try_from(i * 7 % 251).unwrap());
    let kek_hex = hex(&raw);
    let kms = LocalKms::in_memory();
    let region = Region::new("eu-central-1").unwrap();
    let kek = kms.import_kek("acme-2026", region.clone(), &mut raw).unwrap();
    let room = Strongroom::builder()
        .serving(["eu-central-1"])
        .key_store(MemoryKeyStore::default())
        .kms(kms.clone())
        .open_under(&Operator::default())
        .await;
    let mut reference = Reference::start();
    for (tenant, suite) in [("acme", Suite::Aes256Gcm), ("globex", Suite::ChaCha20Poly1305)] {
        let policy = TenantPolicy::new(kek.clone(), region.clone())
            .scope_by(["workspace", "channel"])
            .period(strongroom::Period::Hour)
            .suite(suite)
            .share_kek(kek.clone());
        room.admin("a test", "to test").unwrap().enroll(tenant, policy).await.unwrap();
        let scope = room.tenant(tenant).await.unwrap().scope([("workspace", "W1"), ("channel", "C9")]).unwrap();
        let sealed = scope.seal(&[("message", "M77")], b"hello").await.unwrap();
        let record = room.admin("a test", "to test").unwrap().keys(tenant, None, 1).await.unwrap().keys.remove(0);

        let period = record.period.as_ref().unwrap().to_string();
        let (period_name, period_value) = period.split_once('=').unwrap();
        let kms_context = json!([
            ["tenant", tenant],
            ["region", "eu-central-1"],
            ["purpose", "data-key"],
            ["suite", suite.name()],
            ["workspace", "W1"],
            ["channel", "C9"],
            [period_name, period_value],
        ]);
        let unwrap = json!({"op": "local_unwrap", "kek": kek_hex, "kek_name": "acme-2026", "context": kms_context,
            "wrapped": hex(&record.wrapped.as_ref().unwrap().wrappings().next().unwrap().wrapped)});
        let data_key = reference.ask(&unwrap)["data_key"].clone();
        assert!(data_key.is_string(), "the reference does not unwrap");
        let opened = reference.ask(&json!({"op": "open", "data_key": data_key, "suite": suite.byte(),
            "region": "eu-central-1", "tenant": tenant, "envelope": hex(&sealed),
            "scope": [["workspace", "W1"], ["channel", "C9"]], "context": [["message", "M77"]]}));
        assert_eq!(opened["ok"], "opens");
        assert_eq!(unhex(&opened["plaintext"]), b"hello");
    }
    assert_eq!(kms.scheme(), "local");
    reference.finish();
}

#[test]
fn the_reference_passes_its_own_tests_and_the_vectors_are_its_own() {
    for arguments in [
        ["strongroom_reference.py", "--self-test"],
        ["strongroom_reference_file.py", "--self-test"],
        ["strongroom_reference_reserved.py", "--self-test"],
        ["make_vectors.py", "--check"],
        ["make_file_vectors.py", "--check"],
        ["make_reserved_vectors.py", "--check"],
    ] {
        let script = repository().join("tests/reference").join(arguments[0]);
        let done = Command::new(python()).arg(script).arg(arguments[1]).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}
