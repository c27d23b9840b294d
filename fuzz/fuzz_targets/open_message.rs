//! Freshly sealed envelopes, edited: whatever differs in a bit is refused, on every suite and backend; what does not, opens.
//!
//! The input does not hold envelopes but what to seal and how to edit it, so that it reaches the cipher every time. A
//! fuzzer that stays before the door proves nothing: counts of what was opened and what the tag refused are printed.
#![no_main]

use std::collections::BTreeSet;
use std::num::NonZeroU8;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use strongroom::testing::vectors::{BACKENDS, BareKey};
use strongroom::{ErrorKind, Field, Header, Suite};

const REGION: &str = "eu-central-1";
const SCOPE: [Field<'_>; 1] = [("c", "C9")]; // a name that inputs come upon

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    suite: bool,
    backend: bool,
    nonce: [u8; 24],
    context: Vec<(&'a str, &'a str)>,
    plaintext: &'a [u8],
    edits: Vec<Edit<'a>>,
    /// Opens under this context; else under the one it was sealed with.
    opened_under: Option<Vec<(&'a str, &'a str)>>,
    /// Or under that one with a character of a field's value replaced by another: the same fields, the same lengths.
    reworded: Option<(u8, u8, bool)>,
}

#[derive(Arbitrary, Debug)]
enum Edit<'a> {
    Xor(u16, NonZeroU8),
    XorFromEnd(u16, NonZeroU8),
    Suite(u8),
    Cut(u16),
    CutFront(u8),
    Insert(u16, u8),
    Append(&'a [u8]),
    Swap(u16, u16),
    /// Everything from here on as another tenant sealed it: same data key, context and nonce.
    Stranger(u16),
    /// Everything up to here as the other suite sealed it.
    OtherSuite(u16),
}

/// One data key on every backend.
type OnEach = Vec<BareKey>;

/// `[suite][backend]`: the tenant's keys of one scope, and the same data keys in a stranger's hands.
struct Keys {
    ours: [OnEach; 2],
    strangers: [OnEach; 2],
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let of = |tenant: &str| {
        Suite::ALL.map(|suite| {
            let key = b"a data key of thirty-two bytes..";
            let on = |backend| BareKey::new(backend, key, suite, REGION, tenant, &SCOPE).expect("a good key");
            (0..BACKENDS).map(on).collect()
        })
    };
    Keys { ours: of("acme"), strangers: of("acmf") }
});

static RUNS: AtomicU64 = AtomicU64::new(0);
static OPENED: AtomicU64 = AtomicU64::new(0);
static REFUSED_BY_TAG: AtomicU64 = AtomicU64::new(0);
/// Runs from one line to the next.
const TELL: u64 = 1 << 14;

fn edit(bytes: &mut Vec<u8>, edit: &Edit<'_>, stranger: &[u8], other_suite: &[u8]) {
    let len = bytes.len();
    let at = |i: u16| usize::from(i).checked_rem(len).unwrap_or(0);
    match edit {
        _ if len == 0 => {}
        Edit::Xor(i, mask) => bytes[at(*i)] ^= mask.get(),
        Edit::XorFromEnd(i, mask) => bytes[len - 1 - at(*i)] ^= mask.get(),
        Edit::Suite(byte) => bytes[at(1)] = *byte,
        Edit::Cut(i) => bytes.truncate(at(*i)),
        Edit::CutFront(n) => drop(bytes.drain(..at((*n).into()))),
        Edit::Insert(i, byte) => bytes.insert(at(*i), *byte),
        Edit::Append(more) => bytes.extend_from_slice(more),
        Edit::Swap(i, j) => bytes.swap(at(*i), at(*j)),
        Edit::Stranger(i) => {
            bytes.truncate(at(*i));
            bytes.extend(stranger.iter().skip(at(*i)));
        }
        Edit::OtherSuite(i) => bytes.iter_mut().zip(other_suite).take(at(*i)).for_each(|(b, other)| *b = *other),
    }
}

/// `context` with a character of one value replaced, if that is of one byte.
fn reworded(context: &[(&str, &str)], (field, at, lower): (u8, u8, bool)) -> Vec<(String, String)> {
    let mut fields: Vec<_> = context.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    if let Some(field) = usize::from(field).checked_rem(fields.len())
        && let value = &mut fields[field].1
        && let Some(at) = usize::from(at).checked_rem(value.len())
        && value.as_bytes()[at].is_ascii()
    {
        value.replace_range(at..=at, if lower { "x" } else { "X" });
    }
    fields
}

/// What every backend says of it, once: they must agree.
fn open(keys: &OnEach, context: &[Field<'_>], envelope: &[u8]) -> Result<Vec<u8>, ErrorKind> {
    let mut answers = keys.iter().map(|key| key.open(context, envelope).map_err(|e| e.kind()));
    let first = answers.next().expect("there is a backend");
    assert!(answers.all(|answer| answer == first), "the backends disagree");
    first
}

fuzz_target!(|input: Input<'_>| {
    let suite = usize::from(input.suite);
    let (ours, strangers, others) = (&KEYS.ours[suite], &KEYS.strangers[suite], &KEYS.ours[1 - suite]);
    let backend = usize::from(input.backend) % BACKENDS;
    ours.iter().for_each(BareKey::forget); // an input by itself shows what it shows
    let by_writer = ours[backend].seal(&input.context, input.plaintext);
    let seal =
        |keys: &OnEach, backend: usize| keys[backend].seal_with_nonce(&input.context, &input.nonce, input.plaintext);
    let sealed = match (seal(ours, backend), seal(ours, BACKENDS - 1 - backend)) {
        (Ok(one), Ok(other)) => {
            assert_eq!(one, other, "the backends seal differently");
            one
        }
        (Err(one), Err(other)) => {
            assert_eq!(one.kind(), other.kind());
            assert!(matches!(one.kind(), ErrorKind::InvalidArgument | ErrorKind::Limit));
            assert_eq!(by_writer.map_err(|e| e.kind()), Err(one.kind()));
            return;
        }
        _ => panic!("the backends disagree about what can be sealed"),
    };
    assert_eq!(open(ours, &input.context, &sealed).as_deref(), Ok(input.plaintext));
    assert_eq!(open(ours, &input.context, &by_writer.expect("seals, too")).as_deref(), Ok(input.plaintext));
    OPENED.fetch_add(1, Ordering::Relaxed);

    let (stranger, other_suite) = (seal(strangers, 0).expect("seals"), seal(others, 0).expect("seals"));
    assert_eq!(open(ours, &input.context, &stranger), Err(ErrorKind::Unopenable), "another tenant's envelope");
    let mut edited = sealed.clone();
    input.edits.iter().take(8).for_each(|change| edit(&mut edited, change, &stranger, &other_suite));
    let reworded = input.reworded.map(|how| reworded(&input.context, how));
    let reworded: Option<Vec<_>> =
        reworded.as_ref().map(|fields| fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect());
    let under = input.opened_under.as_ref().or(reworded.as_ref()).unwrap_or(&input.context);
    let set = |fields: &[(&str, &str)]| {
        fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<BTreeSet<_>>()
    };
    let same = edited == sealed && under.len() == input.context.len() && set(under) == set(&input.context);
    match open(ours, under, &edited) {
        Ok(text) => {
            assert!(same, "opened what was not sealed so");
            assert_eq!(text, input.plaintext);
        }
        Err(kind) => {
            assert!(!same, "refused what was sealed so");
            let by_context =
                matches!(kind, ErrorKind::InvalidArgument | ErrorKind::Limit) && input.opened_under.is_some();
            assert!(by_context || matches!(kind, ErrorKind::Malformed | ErrorKind::Unopenable), "{kind}");
            if kind == ErrorKind::Unopenable && Header::parse(&edited).ok() == Header::parse(&sealed).ok() {
                REFUSED_BY_TAG.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    let runs = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
    if runs.is_multiple_of(TELL) {
        let (opened, refused) = (OPENED.load(Ordering::Relaxed), REFUSED_BY_TAG.load(Ordering::Relaxed));
        eprintln!("sealed in {runs} runs: {opened} opened again, {refused} changed and refused by the tag");
    }
});
