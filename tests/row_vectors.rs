//! What a key store keeps (FORMAT.md, section 11), against the Python reference in both directions: its rows and whole rooms, made
//! from that page alone, here; and what a room wrote, there.
#![cfg(feature = "testing")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use strongroom::testing::{BareRoom, ManualClock};
use strongroom::{
    Error, ErrorKind, ExportTo, FileWatermark, Header, KekExpression, KekUri, KeyId, KeyIndex, KeyStore as _, LocalKms,
    LocalRoot, MemoryKeyStore, Period, Region, RowKey, ScopeHandle, Selector, Strongroom, StrongroomBuilder, Suite,
    TenantId, TenantPolicy, WalkOptions, Walked,
};

const FOLDER: &str = "tests/vectors/rows";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

fn unhex(value: &Value) -> Vec<u8> {
    base16ct::lower::decode_vec(value.as_str().expect("hex")).expect("hex")
}

fn bytes<const N: usize>(value: &Value) -> [u8; N] {
    unhex(value).try_into().expect("its length")
}

/// The vectors of a folder, with their names.
fn vectors(folder: &str) -> Vec<(String, Value)> {
    let paths = fs::read_dir(repository().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let json = paths.filter(|path| path.extension().is_some_and(|e| e == "json"));
    json.map(|path| {
        let vector = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        (path.file_name().unwrap().to_string_lossy().into_owned(), vector)
    })
    .collect()
}

/// The vector's room, with the earliest `upto` of its generations.
fn bare(v: &Value, upto: usize) -> BareRoom {
    if v["room"].is_null() {
        return BareRoom::trusting();
    }
    let keys = |it: &Value| (bytes(&it["row_key"]), bytes(&it["control_seed"]));
    let generations: Vec<_> = v["generations"].as_array().unwrap().iter().map(keys).take(upto).collect();
    BareRoom::new(v["room"].as_str().unwrap(), bytes(&v["incarnation"]), &generations).unwrap()
}

#[test]
fn every_row_verifies_or_is_refused() {
    let (mut verified, mut tampered, mut malformed, mut wrong) = (0, 0, 0, Vec::new());
    for (name, v) in vectors(FOLDER) {
        let kind = u8::try_from(v["kind"].as_u64().unwrap()).unwrap();
        let outcome = bare(&v, usize::MAX).verify(kind, &unhex(&v["row"]));
        let (count, as_expected) = match v["expect"].as_str().unwrap() {
            "verifies" => (&mut verified, outcome.as_ref().is_ok_and(|digest| v["digest"] == digest.to_string())),
            "tampered" => (&mut tampered, outcome.as_ref().is_err_and(|e| e.kind() == ErrorKind::Tampered)),
            "malformed" => (&mut malformed, outcome.as_ref().is_err_and(|e| e.kind() == ErrorKind::Malformed)),
            other => panic!("{name}: {other}"),
        };
        *count += 1;
        if !as_expected {
            wrong.push(format!("{name}: {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(verified >= 30 && tampered >= 150 && malformed >= 150, "{verified} {tampered} {malformed}");
}

/// From the same keys and the same record come the same bytes, tags and signatures too.
#[test]
fn rows_made_here_are_the_reference_s_byte_for_byte() {
    let mut made = 0;
    for (name, v) in vectors(FOLDER).into_iter().filter(|(_, v)| v["expect"] == "verifies") {
        let (kind, row) = (u8::try_from(v["kind"].as_u64().unwrap()).unwrap(), unhex(&v["row"]));
        let generation = u32::from_be_bytes(row[2..6].try_into().unwrap());
        let room = bare(&v, usize::try_from(generation).unwrap());
        let again = room.make(kind, v["body"].as_str().unwrap().as_bytes()).expect(&name);
        assert_eq!(hex(&again), hex(&row), "{name}");
        made += 1;
    }
    assert!(made >= 30, "{made}");
}

fn key_of(name: &Value) -> RowKey {
    let tenant = || TenantId::new(name[1].as_str().unwrap()).unwrap();
    match name[0].as_str().unwrap() {
        "room" => RowKey::Room,
        "fleet" => RowKey::Fleet,
        "tenant" => RowKey::Tenant(tenant()),
        "key" => RowKey::Key(tenant(), KeyId::from_hex(name[2].as_str().unwrap()).unwrap()),
        "journal" => RowKey::Journal(tenant(), name[2].as_u64().unwrap()),
        "kek" => RowKey::Kek(KekUri::new(name[1].as_str().unwrap()).unwrap()),
        other => panic!("{other}"),
    }
}

/// Writes a file that nobody else may read.
fn private(path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// A vector of rooms/, put together.
struct World {
    v: Value,
    folder: tempfile::TempDir,
    store: Arc<MemoryKeyStore>,
}

impl World {
    fn of(v: Value) -> Self {
        let (folder, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryKeyStore::default()));
        for (name, field) in [("root.json", "root_file"), ("keks.json", "kek_file"), ("watermark", "watermark")] {
            if let Some(text) = v[field].as_str() {
                private(&folder.path().join(name), text);
            }
        }
        for row in v["rows"].as_array().unwrap() {
            let index = (row["name"][0] == "key").then(|| KeyIndex {
                scope: serde_json::from_value(row["scope"].clone()).unwrap(),
                period: serde_json::from_value(row["period"].clone()).unwrap(),
                state: serde_json::from_value(row["state"].clone()).unwrap(),
            });
            let bytes = [unhex(&row["front"]), row["body"].as_str().unwrap().as_bytes().to_vec()].concat();
            store.raw_put(&key_of(&row["name"]), Some(bytes), index);
        }
        Self { v, folder, store }
    }

    /// A process that starts now.
    async fn node(&self) -> Result<Strongroom, Error> {
        let at = |name| self.folder.path().join(name);
        let builder = builder(&self.store, LocalKms::open(at("keks.json"))?, self.v["now"].as_i64().unwrap());
        let builder = builder.room(self.v["room"].as_str().unwrap()).root(LocalRoot::open(at("root.json"))?);
        let builder = match self.v["watermark"] {
            Value::Null => builder.without_rollback_protection(),
            _ => builder.watermark(FileWatermark::open(at("watermark"))?),
        };
        builder.build().await
    }

    fn tenant(&self) -> &str {
        self.v["tenant"].as_str().unwrap()
    }

    /// The key's row in the vector.
    fn listed(&self) -> &Value {
        let is_it = |row: &&Value| row["name"] == json!(["key", self.v["tenant"], self.v["key_id"]]);
        self.v["rows"].as_array().unwrap().iter().find(is_it).unwrap()
    }

    async fn scope(&self, fields: &Value) -> Result<ScopeHandle, Error> {
        let fields: Vec<(String, String)> = serde_json::from_value(fields.clone()).unwrap();
        let handle = self.node().await?.tenant(self.tenant()).await?;
        handle.scope(fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>())
    }

    async fn believed(&self) -> Result<(), Error> {
        self.node().await?.tenant(self.tenant()).await.map(drop)
    }

    /// An envelope of that key that nobody sealed: where the key opens, it comes as far as its tag.
    async fn opens(&self) -> Result<(), Error> {
        let record: Value = serde_json::from_str(self.listed()["body"].as_str().unwrap()).unwrap();
        let suite: Suite = serde_json::from_value(record["suite"].clone()).unwrap();
        let region = record["region"].as_str().unwrap().as_bytes();
        let head = [&[0xF5, suite.byte(), u8::try_from(region.len()).unwrap()], region].concat();
        let envelope = [&head[..], &unhex(&self.v["key_id"]), &[0; 40]].concat();
        let refused = self.scope(&record["scope"]).await?.open(&[("message", "M1")], &envelope).await.unwrap_err();
        if refused.kind() == ErrorKind::Unopenable { Ok(()) } else { Err(refused) }
    }

    async fn seals(&self) -> Result<bool, Error> {
        let sealed = self.scope(&self.listed()["scope"]).await?.seal(&[("message", "M1")], b"hello").await?;
        Ok(Header::parse(&sealed)?.key_id().as_slice() == unhex(&self.v["key_id"]))
    }

    async fn journal(&self) -> Result<(), Error> {
        self.node().await?.admin("a test", "to test")?.journal(self.tenant()).await.map(drop)
    }
}

fn builder(store: &Arc<MemoryKeyStore>, kms: LocalKms, now: i64) -> StrongroomBuilder {
    let builder = Strongroom::builder().serving(["eu-central-1", "us-east-1"]).key_store(Arc::clone(store)).kms(kms);
    builder.clock(ManualClock::at(now))
}

/// Rooms that were made from FORMAT.md alone, root, KEKs, watermark and all: believed, opened and sealed under as that page says.
#[tokio::test]
async fn every_room_is_taken_for_what_it_is() {
    let (mut rooms, mut sealing, mut wrong) = (0, 0, Vec::new());
    for (name, v) in vectors(&format!("{FOLDER}/rooms")) {
        let world = World::of(v);
        let mut hold = |field: &str, outcome: Result<bool, Error>| {
            if world.v[field] != outcome.as_ref().is_ok_and(|it| *it) {
                wrong.push(format!("{name}: {field}: {outcome:?}"));
            }
        };
        hold("believed", world.believed().await.map(|()| true));
        hold("opens", world.opens().await.map(|()| true));
        if !world.v["watermark"].is_null() {
            hold("journal", world.journal().await.map(|()| true)); // the control plane needs a watermark
        }
        hold("seals", world.seals().await); // the last one: it may make another key
        rooms += 1;
        sealing += u32::from(world.v["seals"] == true);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(rooms >= 100 && sealing >= 20, "{rooms} rooms, {sealing} seal");
}

fn python() -> PathBuf {
    let given = std::env::var_os("STRONGROOM_PYTHON").map(PathBuf::from);
    let python = given.unwrap_or_else(|| repository().join(".venv/bin/python"));
    assert!(python.exists(), "{} is missing: run scripts/test, which installs it", python.display());
    python
}

/// What the reference answers, line by line.
fn ask(requests: &[Value]) -> Vec<Value> {
    let script = repository().join("tests/reference/strongroom_reference_rows.py");
    let mut process =
        Command::new(python()).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python starts");
    let lines = requests.iter().fold(String::new(), |lines, request| lines + &request.to_string() + "\n");
    let mut input = process.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = process.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "the reference failed");
    let answers = String::from_utf8(output.stdout).unwrap();
    answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_reference_passes_its_own_tests_and_the_vectors_are_its_own() {
    for arguments in [["strongroom_reference_rows.py", "--self-test"], ["make_row_vectors.py", "--check"]] {
        let script = repository().join("tests/reference").join(arguments[0]);
        let done = Command::new(python()).arg(script).arg(arguments[1]).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stdout));
    }
}

/// 2026-11-22T05:17:29.5Z
const NOW: i64 = 1_795_324_649_500;

/// Every verb of the control plane, and then: the reference reads every row, follows the journals, and comes to keys by nothing
/// but FORMAT.md, the root and the KEKs.
#[tokio::test]
async fn the_reference_reads_what_a_room_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (root, watermark) =
        (LocalRoot::create(at("root.json")).unwrap(), FileWatermark::create(at("watermark")).unwrap());
    let (kms, store) = (LocalKms::create(at("keks.json")).unwrap(), Arc::new(MemoryKeyStore::default()));
    let eu = Region::new("eu-central-1").unwrap();
    for name in ["acme", "second-holder", "later"] {
        kms.create_kek(name, eu.clone()).unwrap();
    }
    let mut raw: [u8; 32] = std::array::from_fn(|i| u8::try_from(i * 7 % 251).unwrap());
    let taken_along = hex(&raw);
    let escrow = kms.import_kek("escrow", eu.clone(), &mut raw).unwrap();
    let builder = builder(&store, kms, NOW).room("chat-eu").root(root.clone()).watermark(watermark);
    builder.create_room("alice", "a new fleet").await.unwrap();
    let room = builder.build().await.unwrap();
    let admin = room.admin("alice", "\"quotes\", Zürich 🍵").unwrap();
    let both: KekExpression = "all_of(local:acme, local:second-holder)".parse().unwrap();
    let policy =
        TenantPolicy::new(both, eu).scope_by(["workspace", "channel"]).period(Period::Hour).contact("ops@example.com");
    admin.enroll("acme", policy.clone()).await.unwrap();
    let seal = async |channel: &str| {
        let scope = room.tenant("acme").await.unwrap().scope([("workspace", "W1"), ("channel", channel)]).unwrap();
        let sealed = scope.seal(&[("message", "M1")], b"hello").await.unwrap();
        *Header::parse(&sealed).unwrap().key_id()
    };
    let channel = |name: &str| Selector::fields([("channel", name)]);
    let walk = WalkOptions::default();
    for name in ["C1\u{1f}\"\\", "revoked", "erased", "compromised", "suspended"] {
        seal(name).await;
    }
    let row = admin.tenant("acme").await.unwrap();
    admin.set_policy(&row, policy.suite(Suite::ChaCha20Poly1305)).await.unwrap();
    admin.revoke("acme", channel("revoked")).await.unwrap();
    admin.revoke("acme", channel("revoked, too")).await.unwrap();
    admin.restore("acme", channel("revoked, too")).await.unwrap();
    let erasure = admin.erase("acme", channel("erased"), Duration::ZERO).await.unwrap();
    admin.carry_out_erasure("acme", &erasure.id, &walk).await.unwrap();
    let erasure = admin.erase("acme", channel("undone"), Duration::from_secs(9)).await.unwrap();
    admin.undo_erasure("acme", &erasure.id).await.unwrap();
    admin.erase("acme", channel("waiting"), Duration::from_secs(9)).await.unwrap();
    admin.rotate_after_compromise("acme", channel("compromised"), &walk).await.unwrap();
    admin.suspend_opens("acme", channel("suspended"), NOW + 1).await.unwrap();
    admin.rotate("acme", &[("workspace", "W1"), ("channel", "rotated")]).await.unwrap();
    admin.rotate_all("acme", channel("rotated"), &walk).await.unwrap();
    root.rotate().unwrap();
    admin.evict().await.unwrap();
    let key_id = seal("live").await;
    let later: KekExpression = "any_of(local:later, all_of(local:acme, local:second-holder))".parse().unwrap();
    let walked = admin.rewrap("acme", later, &walk).await.unwrap();
    assert_eq!(walked.failed, 0);
    let mut requests = Vec::new();
    let exported = admin
        .export("acme", ExportTo::Foreign(escrow), &walk, |key| {
            let text = serde_json::to_string(&key).unwrap();
            requests.push(json!({"op": "export", "exported": text, "keks": {"escrow": taken_along}}));
            Ok(())
        })
        .await;
    // What is revoked or erased is left behind, and said to be.
    let exported = Walked::of(&exported.unwrap_err()).cloned().unwrap();
    assert!(exported.done >= 3 && exported.failed == 2, "{exported:?}");
    admin.suspend_all_opens(NOW + 1).await.unwrap();
    admin.resume_all_opens().await.unwrap();

    let read = |name: &str| fs::read_to_string(at(name)).unwrap();
    let mut rows: Vec<Value> =
        store.raw_rows().into_iter().map(|(key, bytes, index)| listed(&key, &bytes, index)).collect();
    for (number, bytes) in store.log(Some(0), 1000).await.unwrap().entries {
        let (front, body) = bytes.split_at(72);
        rows.push(json!({"name": ["log", number], "front": hex(front), "body": std::str::from_utf8(body).unwrap()}));
    }
    let everything = json!({"op": "every_row", "room": "chat-eu", "root_file": read("root.json"), "kek_file": read("keks.json"),
        "watermark": read("watermark"), "now": NOW, "rows": rows, "tenant": "acme", "key_id": hex(&key_id)});
    let mut room = everything.clone();
    room["op"] = "room".into();
    requests.extend([room, everything]);
    let mut answers = ask(&requests);
    let counts = answers.pop().unwrap();
    let of = |kind: &str| counts[kind].as_u64().unwrap();
    assert!(of("room") == 1 && of("fleet") == 1 && of("tenant") == 1 && of("kek") >= 3, "{counts}");
    assert!(of("key") >= 7 && of("journal") >= 15 && of("log") >= 8, "{counts}");
    let taken = answers.pop().unwrap();
    assert_eq!(taken, json!({"believed": true, "opens": true, "seals": true, "journal": true}));
    assert!(answers.iter().all(|answer| answer["ok"] == true) && answers.len() >= 3, "{answers:?}");
}

fn listed(key: &RowKey, bytes: &[u8], index: Option<KeyIndex>) -> Value {
    let (name, front) = match key {
        RowKey::Room => (json!(["room"]), 72),
        RowKey::Fleet => (json!(["fleet"]), 72),
        RowKey::Tenant(tenant) => (json!(["tenant", tenant]), 72),
        RowKey::Key(tenant, id) => (json!(["key", tenant, id]), 38),
        RowKey::Journal(tenant, number) => (json!(["journal", tenant, number]), 72),
        RowKey::Kek(kek) => (json!(["kek", kek]), 72),
        other => panic!("{other:?}"),
    };
    let (front, body) = bytes.split_at(front);
    let mut row = json!({"name": name, "front": hex(front), "body": std::str::from_utf8(body).unwrap()});
    if let Some(index) = index {
        row["scope"] = json!(index.scope);
        row["period"] = json!(index.period);
        row["state"] = json!(index.state);
    }
    row
}
