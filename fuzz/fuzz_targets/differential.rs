//! Messages and files, sealed by both backends and the Python reference (`tests/reference/`, written from FORMAT.md
//! alone), edited, and opened by all of them under perhaps other parameters: they seal the same bytes and give the same
//! answer, opened, malformed or unopenable.
//!
//! The reference runs as two processes that answer line by line. It needs `.venv`, which `scripts/test` makes, or another
//! Python with `tests/reference/requirements.txt`, named by `STRONGROOM_PYTHON`.
//!
//! How often all opened, and refused with which word, is printed.
#![no_main]

mod few;

use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use strongroom::testing::FileKeys;
use strongroom::testing::vectors::{BACKENDS, BareKey, canonical_context};
use strongroom::{ErrorKind, Field, FileHead, Result, Suite};

use few::Few;

const DATA_KEYS: [&[u8; 32]; 2] = [b"a data key of thirty-two bytes..", b"0123456789abcdef0123456789abcdef"];
const TENANTS: [&str; 3] = ["acme", "acmf", "a"];
const REGIONS: [&str; 4] = ["eu-central-1", "eu-central-2", "e", "region-of-exactly-32-characters-"];
const SCOPES: [&[Field<'_>]; 4] =
    [&[("workspace", "W1"), ("channel", "C9")], &[("workspace", "W1")], &[], &[("workspace", "W1"), ("channel", "C8")]];
/// What `FileKeys` are of.
const FILE_SCOPE: &[Field<'_>] = SCOPES[0];
const CHUNK: usize = 16_384;
const SEALED_CHUNK: usize = CHUNK + 16;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Message(Message<'a>),
    File(File<'a>),
}

#[derive(Arbitrary, Debug)]
struct Message<'a> {
    party: Party,
    nonce: [u8; 24],
    context: Few<Field<'a>, 5>,
    plaintext: &'a [u8],
    edits: Few<Edit<'a>, 4>,
    opener: Option<Opener<'a>>,
}

/// Whose key, as indices.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Party {
    data_key: bool,
    second_suite: bool,
    tenant: u8,
    region: u8,
    scope: u8,
}

/// Who opens, if it is not who sealed.
#[derive(Arbitrary, Debug)]
enum Opener<'a> {
    Party(Party),
    Context(Few<Field<'a>, 5>),
    /// The sealer's context with one value changed.
    Value(u8, &'a str),
    /// The sealer's context backwards: the same.
    Backwards,
}

#[derive(Arbitrary, Debug)]
struct File<'a> {
    second_suite: bool,
    salt: [u8; 24],
    context: Few<Field<'a>, 5>,
    chunks: u8,
    /// How much longer, or shorter, than whole chunks.
    more: i16,
    edits: Few<Edit<'a>, 4>,
    chunk_edits: Few<ChunkEdit, 3>,
    other_context: bool,
}

#[derive(Arbitrary, Debug)]
enum Edit<'a> {
    Xor(u16, NonZeroU8),
    XorFromEnd(u16, NonZeroU8),
    Set(u8, u8),
    Cut(u16),
    CutFront(u8),
    Insert(u16, u8),
    Append(&'a [u8]),
}

#[derive(Arbitrary, Debug)]
enum ChunkEdit {
    Swap(u8, u8),
    Drop(u8),
    Repeat(u8),
    CutAt(u8),
}

static OPENED: AtomicU64 = AtomicU64::new(0);
static MALFORMED: AtomicU64 = AtomicU64::new(0);
static UNOPENABLE: AtomicU64 = AtomicU64::new(0);
static RUNS: AtomicU64 = AtomicU64::new(0);
/// Runs from one line to the next.
const TELL: u64 = 1 << 12;

/// One of the reference's scripts as a process that answers line by line. It ends with this one.
struct Reference {
    _process: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

static MESSAGES: LazyLock<Mutex<Reference>> = LazyLock::new(|| Reference::start("strongroom_reference.py"));
static FILES: LazyLock<Mutex<Reference>> = LazyLock::new(|| Reference::start("strongroom_reference_file.py"));

impl Reference {
    fn start(script: &str) -> Mutex<Self> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let given = std::env::var_os("STRONGROOM_PYTHON").map(PathBuf::from);
        let python = given.unwrap_or_else(|| repository.join(".venv/bin/python"));
        let mut command = Command::new(&python);
        command.arg(repository.join("tests/reference").join(script)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let started = command.spawn();
        let mut process =
            started.unwrap_or_else(|e| panic!("{}: {e}; run scripts/test, which makes it", python.display()));
        let (ask, answers) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Mutex::new(Self { _process: process, ask, answers })
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.ask, "{request}").expect("the reference reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("the reference failed on {request}: {e}"))
    }
}

fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

fn unhex(value: &Value) -> Vec<u8> {
    base16ct::lower::decode_vec(value.as_str().expect("hex")).expect("hex")
}

impl Party {
    fn suite(self) -> Suite {
        Suite::ALL[usize::from(self.second_suite)]
    }

    fn names(self) -> (&'static str, &'static str) {
        (TENANTS[usize::from(self.tenant) % TENANTS.len()], region(self.region))
    }

    fn scope(self) -> &'static [Field<'static>] {
        SCOPES[usize::from(self.scope) % SCOPES.len()]
    }

    fn data_key(self) -> &'static [u8; 32] {
        DATA_KEYS[usize::from(self.data_key)]
    }

    fn key(self, backend: usize) -> BareKey {
        let (tenant, region) = self.names();
        BareKey::new(backend, self.data_key(), self.suite(), region, tenant, self.scope()).unwrap()
    }

    fn request(self, op: &str, context: &[Field<'_>]) -> Value {
        let (tenant, region) = self.names();
        json!({
            "op": op, "data_key": hex(self.data_key()), "suite": self.suite().byte(), "region": region, "tenant": tenant,
            "scope": self.scope(), "context": context,
        })
    }
}

fn region(n: u8) -> &'static str {
    REGIONS[usize::from(n) % REGIONS.len()]
}

fn edit(bytes: &mut Vec<u8>, edit: &Edit<'_>) {
    let len = bytes.len();
    let at = |i: u16| usize::from(i).checked_rem(len).unwrap_or(0);
    match edit {
        _ if len == 0 => {}
        Edit::Xor(i, mask) => bytes[at(*i)] ^= mask.get(),
        Edit::XorFromEnd(i, mask) => bytes[len - 1 - at(*i)] ^= mask.get(),
        Edit::Set(i, byte) => bytes[at((*i).into())] = *byte,
        Edit::Cut(i) => bytes.truncate(at(*i)),
        Edit::CutFront(n) => drop(bytes.drain(..at((*n).into()))),
        Edit::Insert(i, byte) => bytes.insert(at(*i), *byte),
        Edit::Append(more) => bytes.extend_from_slice(more),
    }
}

/// What all say: the plaintext, or `malformed` or `unopenable`.
type Answer = std::result::Result<Vec<u8>, String>;

fn ours(answer: Result<Vec<u8>>) -> Answer {
    answer.map_err(|e| {
        assert!(matches!(e.kind(), ErrorKind::Malformed | ErrorKind::Unopenable), "{e}");
        e.kind().to_string()
    })
}

/// All say the same; and it opens exactly if `same`, the envelope and who opens it are what was sealed.
fn check(answers: &[Answer], same: bool, plaintext: &[u8]) {
    assert!(answers.iter().all(|answer| answer == &answers[0]), "they disagree: {answers:?}");
    let counter = match &answers[0] {
        Ok(text) => {
            assert!(same && text == plaintext, "opened what was not sealed so");
            &OPENED
        }
        Err(kind) => {
            assert!(!same, "refused what was sealed so: {kind}");
            if kind == "malformed" { &MALFORMED } else { &UNOPENABLE }
        }
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

fn message(input: &Message<'_>) {
    let Message { party, context, plaintext, .. } = input;
    // A caller's mistakes are the target `context`'s to judge.
    let together = |party: Party, own: &[Field<'_>]| canonical_context(&[party.scope(), own].concat());
    let (Ok(_), Ok(canonical)) = (together(*party, context), canonical_context(context)) else { return };
    let mut reference = MESSAGES.lock().unwrap();
    let mut request = party.request("seal", context);
    request["nonce"] = hex(&input.nonce).into();
    request["plaintext"] = hex(plaintext).into();
    let theirs = unhex(&reference.ask(&request)["envelope"]);
    for backend in 0..BACKENDS {
        let sealed = party.key(backend).seal_with_nonce(context, &input.nonce, plaintext).unwrap();
        assert_eq!(sealed, theirs, "backend {backend} seals otherwise than the reference");
    }
    let mut envelope = theirs.clone();
    input.edits.iter().for_each(|change| edit(&mut envelope, change));
    let (mut opener, mut opened_under) = (*party, context.to_vec());
    match &input.opener {
        Some(Opener::Party(other)) => opener = *other,
        Some(Opener::Context(other)) => opened_under = other.to_vec(),
        Some(Opener::Value(i, value)) => {
            let at = usize::from(*i).checked_rem(context.len()).unwrap_or(0);
            opened_under.iter_mut().skip(at).take(1).for_each(|field| field.1 = value);
        }
        Some(Opener::Backwards) => opened_under.reverse(),
        None => {}
    }
    let (Ok(_), Ok(canonical_then)) = (together(opener, &opened_under), canonical_context(&opened_under)) else { return };
    let mut request = opener.request("open", &opened_under);
    request["envelope"] = hex(&envelope).into();
    let answer = reference.ask(&request);
    let theirs_says = match answer["ok"].as_str().expect("an answer") {
        "opens" => Ok(unhex(&answer["plaintext"])),
        refusal => Err(refusal.to_owned()),
    };
    let ours = (0..BACKENDS).map(|backend| ours(opener.key(backend).open(&opened_under, &envelope)));
    let who = |party: Party| (party.names(), party.scope(), party.data_key, party.second_suite);
    let same = envelope == theirs && canonical == canonical_then && who(opener) == who(*party);
    check(&ours.chain([theirs_says]).collect::<Vec<_>>(), same, plaintext);
}

/// The same data key on each backend, by suite.
static FILE_KEYS: LazyLock<[Vec<FileKeys>; 2]> = LazyLock::new(|| {
    Suite::ALL.map(|suite| {
        vec![FileKeys::new(suite, *DATA_KEYS[0]).unwrap(), FileKeys::portable(suite, *DATA_KEYS[0]).unwrap()]
    })
});

fn chunk_edit(file: &mut Vec<u8>, head: usize, change: &ChunkEdit) {
    let chunk = |n: u8| {
        let start = head + usize::from(n % 4) * SEALED_CHUNK;
        start.min(file.len())..(start + SEALED_CHUNK).min(file.len())
    };
    match change {
        ChunkEdit::Swap(one, other) => {
            let (one, other) = (chunk((*one).min(*other)), chunk((*one).max(*other)));
            if one.end <= other.start {
                let (first, second) = (file[one.clone()].to_vec(), file[other.clone()].to_vec());
                file.splice(other, first);
                file.splice(one, second);
            }
        }
        ChunkEdit::Drop(n) => drop(file.drain(chunk(*n))),
        ChunkEdit::Repeat(n) => {
            let copy = file[chunk(*n)].to_vec();
            let at = chunk(*n).start;
            file.splice(at..at, copy);
        }
        ChunkEdit::CutAt(n) => file.truncate(chunk(*n).start),
    }
}

fn file(input: &File<'_>) {
    let context = &input.context[..];
    let together = |own: &[Field<'_>]| canonical_context(&[FILE_SCOPE, own].concat());
    let whole = usize::from(input.chunks % 4) * CHUNK;
    let len = whole.saturating_add_signed(input.more.into()) % (3 * CHUNK + 100);
    let plaintext: Vec<u8> = (0..len).map(|i| ((i * 31) ^ (i >> 8)).to_le_bytes()[0]).collect();
    if together(context).is_err() {
        return;
    }
    let party = Party { data_key: false, second_suite: input.second_suite, tenant: 0, region: 0, scope: 0 };
    let keys = &FILE_KEYS[usize::from(input.second_suite)];
    let mut sealed: Vec<_> = keys
        .iter()
        .map(|key| key.sealer_with_salt(context, input.salt).unwrap().seal_bytes(&plaintext).unwrap())
        .collect();
    let mut reference = FILES.lock().unwrap();
    let mut request = party.request("seal_file", context);
    request["salt"] = hex(&input.salt).into();
    request["plaintext"] = hex(&plaintext).into();
    sealed.push(unhex(&reference.ask(&request)["file"]));
    assert!(sealed.iter().all(|file| file == &sealed[0]), "they seal files differently");

    let honest = &sealed[0];
    let head = FileHead::parse(honest).unwrap().as_bytes().len();
    let mut edited = honest.clone();
    input.chunk_edits.iter().for_each(|change| chunk_edit(&mut edited, head, change));
    input.edits.iter().for_each(|change| edit(&mut edited, change));
    let other = [("file of another", "name")];
    let mine = if input.other_context { &other[..] } else { context };
    let open = |keys: &FileKeys| {
        let head = FileHead::parse(&edited)?;
        keys.opener(&head, mine)?.open_bytes(&edited).map(|text| text.to_vec())
    };
    let mut answers: Vec<_> = keys.iter().map(|keys| ours(open(keys))).collect();
    let mut request = party.request("open_file", mine);
    request["file"] = hex(&edited).into();
    let answer = reference.ask(&request);
    answers.push(match answer["refused"].as_str() {
        None => Ok(unhex(&answer["plaintext"])),
        Some(refusal) => Err(refusal.to_owned()),
    });
    let same_context = together(mine).unwrap() == together(context).unwrap();
    check(&answers, edited == *honest && same_context, &plaintext);
}

fuzz_target!(|input: Input<'_>| {
    match &input {
        Input::Message(input) => message(input),
        Input::File(input) => file(input),
    }
    let runs = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
    if runs.is_multiple_of(TELL) {
        let [opened, malformed, unopenable] = [&OPENED, &MALFORMED, &UNOPENABLE].map(|of| of.load(Ordering::Relaxed));
        eprintln!("{runs} runs: all opened {opened}, found {malformed} malformed and refused {unopenable}");
    }
});
