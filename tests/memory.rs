//! Memory hygiene: after drop, eviction, revocation, expiry, panic and timeout no byte of a key, nor of a plaintext that the
//! API promises to wipe, is left in the process's memory.
//!
//! A child process does the work and stands still at each step; this one, which alone knows what to look for, reads all
//! of its writable memory: heap, stacks, statics, what AWS-LC and SQLite allocated. Each step names what is in use, which
//! must be found (so the looking can fail), and nothing else may be.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "memory/inmate.rs"]
mod inmate;
#[path = "memory/scan.rs"]
mod scan;
#[path = "memory/secrets.rs"]
mod secrets;

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use scan::{Find, Needles, scan};
use strongroom::Suite;

pub(crate) const SECRETS: &str = "STRONGROOM_TEST_SECRETS";
pub(crate) const STORE: &str = "STRONGROOM_TEST_STORE_KIND";
pub(crate) const SUITE: &str = "STRONGROOM_TEST_SUITE";
pub(crate) const FOLDER: &str = "STRONGROOM_TEST_FOLDER";

/// Bytes of a plaintext that may be found: what the cipher's code leaves in a vector register is nobody's in safe Rust to
/// wipe.
const REGISTER: usize = 16;
/// And from a panic on: its unwinding calls functions that are bound when they are first called, and the dynamic linker stores
/// all vector registers side by side while it looks for one. Of keys then what one register holds may be found: AWS-LC's
/// AES-GCM for AVX-512 leaves the last two round keys in `zmm30` and `zmm31`, each four times. Never a whole key in a row.
const REGISTERS: usize = 16 * REGISTER;

/// A process and what is looked for in it.
struct Watched {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    needles: Needles,
    suite: Suite,
    /// How many bytes may be left that were in registers.
    stored: usize,
    /// What was found and should not be there, and the other way round.
    wrong: Vec<String>,
}

impl Watched {
    fn start(store: &str, suite: Suite, folder: &std::path::Path) -> Self {
        let masked: Vec<_> = secrets::masked().iter().map(inmate::Masked::hex).collect();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "inmate::inmate", "--ignored", "--nocapture"])
            .env(SECRETS, masked.join(","))
            .env(STORE, store)
            .env(SUITE, suite.byte().to_string())
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()) // the panics it is asked for
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut needles = Needles::new();
        needles.add("kek", &secrets::kek());
        needles.add("kek's schedule", &secrets::round_keys(&secrets::kek()));
        needles.add("kek's k1", &secrets::k1(&secrets::kek()));
        needles.add("text", &secrets::text());
        for n in 0..secrets::KEYS {
            let data_key = secrets::data_key(n);
            let (message_key, file_key) = (secrets::message_key(n, suite), secrets::file_key(&data_key, suite));
            needles.add(&format!("data key {n}"), &data_key);
            let extracted = secrets::extracted(&data_key);
            needles.add(&format!("data key {n} extracted"), &extracted);
            needles.add(&format!("data key {n} extracted, its HMAC"), &secrets::hmac_states(&extracted));
            for half in secrets::half_extracted(&data_key) {
                needles.add(&format!("data key {n} extracted by half"), &half);
            }
            needles.add(&format!("file key {n}'s HMAC"), &secrets::hmac_states(&file_key));
            needles.add(&format!("message key {n}"), &message_key);
            if suite == Suite::Aes256Gcm {
                needles.add(&format!("message schedule {n}"), &secrets::round_keys(&message_key));
                needles.add(&format!("k1 {n}"), &secrets::k1(&message_key));
            }
            needles.add(&format!("file key {n}"), &file_key);
        }
        Self { child, lines, needles, suite, stored: REGISTER, wrong: Vec::new() }
    }

    /// Waits until the process stands at `step`, and returns what it says of it.
    fn reach(&mut self, step: &str) -> Vec<u8> {
        let said = self.lines.by_ref().map(|line| line.unwrap()).find(|line| line.starts_with("at "));
        let said = said.unwrap_or_else(|| panic!("the process ended before {step:?}"));
        let (at, public) = said.strip_prefix("at ").unwrap().rsplit_once(' ').unwrap();
        assert_eq!(at, step);
        base16ct::lower::decode_vec(public).unwrap()
    }

    fn go_on(&mut self) {
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
    }

    fn find(&self) -> Vec<Find> {
        scan(self.child.id(), &self.needles)
    }

    /// At `step`, exactly these are found. Returns what the process says.
    fn at(&mut self, step: &str, in_use: &[&str]) -> Vec<u8> {
        let public = self.reach(step);
        self.holds(step, in_use);
        self.go_on();
        public
    }

    fn holds(&mut self, step: &str, in_use: &[&str]) {
        let mut finds = self.find();
        for name in in_use {
            if !finds.iter().any(|find| find.what == *name) {
                self.wrong.push(format!("{step}: {name} is in use but not found: the looking is broken"));
            }
        }
        finds.retain(|find| !in_use.contains(&find.what.as_str()));
        let copies = finds.chunk_by(Find::is_followed_by);
        let left = |what: &str| match self.stored {
            stored if what == "text" || cfg!(not(feature = "aws-lc-rs")) => stored,
            REGISTERS => REGISTER,
            _ => 0,
        };
        let copies = copies.filter(|copy| Find::copied(copy) > left(&copy[0].what));
        self.wrong.extend(copies.map(|copy| format!("{step}: {}", Find::copy(copy))));
    }

    /// The key that a message was sealed under, `name`d, is looked for from now on.
    fn learn_subkey(&mut self, name: &str, key: usize, nonce: &[u8]) {
        let message_key = secrets::message_key(key, self.suite);
        let subkey = secrets::message_subkey(&message_key, self.suite, nonce.try_into().unwrap());
        self.needles.add(name, &subkey);
        if self.suite == Suite::Aes256Gcm {
            self.needles.add(name, &secrets::round_keys(&subkey));
        }
    }

    fn learn_file_key(&mut self, name: &str, key: usize, head: &[u8]) {
        let key = secrets::file_subkey(&secrets::data_key(key), self.suite, head);
        self.needles.add(name, &key);
        if self.suite == Suite::Aes256Gcm {
            self.needles.add(name, &secrets::round_keys(&key));
        }
    }
}

/// What of key `n` is in memory while it is cached.
fn cached(suite: Suite, n: usize) -> Vec<String> {
    let mut names = vec![format!("message key {n}"), format!("file key {n}")];
    if suite == Suite::Aes256Gcm {
        names.extend([format!("message schedule {n}"), format!("k1 {n}")]);
    }
    names
}

/// Runs one process through all its steps. The subkeys of suite 2 live for one message each: they are never found.
fn watch(store: &str, suite: Suite) {
    let folder = tempfile::tempdir().unwrap();
    let process = &mut Watched::start(store, suite, folder.path());
    process.at("start", &[]);
    process.at("leaked", &["kek"]);
    process.at("wiped", &[]);
    process.at("kek in use", &["kek"]);
    messages(process);
    ends_of_keys(process);
    mishaps(process);
    files(process);
    process.at("closed", &[]);
    assert!(process.child.wait().unwrap().success());
    assert!(process.wrong.is_empty(), "{}", process.wrong.join("\n"));
}

fn messages(process: &mut Watched) {
    let nonce = process.reach("sealed");
    process.learn_subkey("subkey 0 a", 0, &nonce);
    process.stands("sealed", &[0], &["subkey 0 a"]);
    process.passes("opened", &[0], &["subkey 0 a", "text"]);
    process.passes("plaintext dropped", &[0], &["subkey 0 a"]);
    process.passes("opened, refused, paged", &[0], &["subkey 0 a"]);
    let nonce = process.reach("writer replaced");
    process.learn_subkey("subkey 0 b", 0, &nonce);
    // The first prefix's key is kept to open with.
    process.stands("writer replaced", &[0], &["subkey 0 a", "subkey 0 b"]);
    let nonce = process.reach("writer retired");
    process.learn_subkey("subkey 0 c", 0, &nonce);
    process.stands("writer retired", &[0], &["subkey 0 a", "subkey 0 c"]);
    process.passes("purged", &[], &[]);
    process.passes("loaded to open", &[0], &[]);
    process.passes("reader key kept", &[0], &["subkey 0 b"]);
}

fn ends_of_keys(process: &mut Watched) {
    let nonces = process.reach("evicted");
    process.learn_subkey("subkey 1", 1, &nonces[..24]);
    process.learn_subkey("subkey 2", 2, &nonces[24..]);
    process.stands("evicted", &[1, 2], &["subkey 1", "subkey 2"]);
    process.passes("revoked", &[2], &["subkey 2"]);
    process.reach("expired");
    // The sweeper comes by each second.
    let deadline = Instant::now() + Duration::from_secs(3);
    while process.find().iter().any(|find| find.what != "kek") && Instant::now() < deadline {
        std::thread::yield_now();
    }
    process.stands("expired", &[], &[]);
}

fn mishaps(process: &mut Watched) {
    let nonce = process.reach("panicked with a plaintext");
    process.stored = REGISTERS;
    process.learn_subkey("subkey 3", 3, &nonce);
    process.stands("panicked with a plaintext", &[3], &["subkey 3"]);
    process.passes("panicked and timed out with a key", &[], &[]);
}

fn files(process: &mut Watched) {
    let head = process.reach("sealing a file");
    process.learn_file_key("file subkey", 4, &head);
    process.stands("sealing a file", &[4], &["file subkey"]);
    process.passes("file sealed and opened", &[4], &[]);
    process.passes("file piped", &[4], &[]);
    process.passes("a stream under way", &[4], &[]);
    process.passes("streams of ranges read", &[4], &[]);
    process.passes("file read", &[4], &[]);
}

impl Watched {
    /// [`Self::stands`] once it is reached.
    fn passes(&mut self, step: &str, keys: &[usize], others: &[&str]) {
        self.reach(step);
        self.stands(step, keys, others);
    }

    /// The KEK, what is in memory of these cached keys, and `others` are found and nothing else; then the process goes on.
    fn stands(&mut self, step: &str, keys: &[usize], others: &[&str]) {
        let cached: Vec<_> = keys.iter().flat_map(|n| cached(self.suite, *n)).collect();
        let mut in_use: Vec<_> = cached.iter().map(String::as_str).chain(["kek"]).collect();
        let keeps_subkeys = self.suite == Suite::Aes256Gcm;
        in_use.extend(others.iter().filter(|name| keeps_subkeys || !name.starts_with("subkey")));
        self.holds(step, &in_use);
        self.go_on();
    }
}

#[test]
fn nothing_is_left_of_keys_and_plaintexts() {
    watch("memory", Suite::Aes256Gcm);
}

#[test]
fn nothing_is_left_of_those_of_the_second_suite() {
    watch("memory", Suite::ChaCha20Poly1305);
}

#[cfg(feature = "sqlite")]
#[test]
fn nothing_is_left_with_a_database() {
    watch("sqlite", Suite::Aes256Gcm);
}
