//! Sealing and opening messages with the key cached, beside the bare aws-lc-rs cipher with a prebuilt key, in place.
//!
//! `cargo bench --bench message` lets criterion measure each by itself and then prints a table of ratios to the bare cipher
//! of the same run, measured by turns. `-- --quick` does both in less time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod contest;
mod room;

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::Criterion;
use strongroom::{Strongroom, Suite};
use tokio::runtime::Runtime;

use crate::contest::{Contest, Score, timed, turns};
use crate::room::{CONTEXT, TENANT, ready, room, scope};

const SIZES: [(usize, &str); 4] = [(64, "64 B"), (256, "256 B"), (1024, "1 KiB"), (4096, "4 KiB")];

/// How many envelopes of fresh writers are opened in turn: far more than the reader keys that a data key keeps.
const WRITERS: usize = 64;

/// The associated data of our messages here: label, header, tenant, context.
const ASSOCIATED: [u8; 113] = [7; 113];

/// How many copies of an envelope are opened in place before they are written anew, outside the measured time.
const COPIES: usize = 32;

const BARE_SEAL: &str = "bare seal";
const BARE_OPEN: &str = "bare open";

struct Bare(LessSafeKey);

impl Bare {
    fn new(suite: Suite) -> Self {
        let algorithm = match suite {
            Suite::Aes256Gcm => &aead::AES_256_GCM,
            Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
            _ => panic!("which cipher is that?"),
        };
        Self(LessSafeKey::new(UnboundKey::new(algorithm, &[7; 32]).unwrap()))
    }

    fn seal(&self, associated: &[u8], text: &mut [u8]) -> [u8; 16] {
        let nonce = Nonce::assume_unique_for_key([9; 12]);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(associated), text).unwrap();
        tag.as_ref().try_into().unwrap()
    }

    fn open(&self, tag: &[u8; 16], text: &mut [u8]) {
        let nonce = Nonce::assume_unique_for_key([9; 12]);
        self.0.open_in_place_separate_tag(nonce, Aad::empty(), tag, text).unwrap();
    }
}

/// Opening in place, of copies that are made outside the measured time.
fn opening(sealed: Vec<u8>, mut open: impl FnMut(&mut [u8])) -> impl FnMut(u64) -> Duration {
    let mut copies = vec![sealed.clone(); COPIES];
    move |mut left| {
        let mut spent = Duration::ZERO;
        while left > 0 {
            let batch = usize::try_from(left).unwrap_or(COPIES).min(COPIES);
            copies[..batch].iter_mut().for_each(|copy| copy.copy_from_slice(&sealed));
            let start = Instant::now();
            copies[..batch].iter_mut().for_each(|copy| open(black_box(copy)));
            spent += start.elapsed();
            left -= batch as u64;
        }
        spent
    }
}

/// Envelopes of one data key by as many writers: a key that is taken out of memory and loaded again starts a new one.
async fn by_fresh_writers(room: &Strongroom, plaintext: &[u8]) -> Vec<Vec<u8>> {
    let mut sealed = Vec::new();
    for _ in 0..WRITERS {
        room.admin().purge(TENANT).unwrap();
        sealed.push(scope(room).await.seal(&CONTEXT, plaintext).await.unwrap());
    }
    sealed
}

fn bare(contest: &mut Contest, suite: Suite, size: usize) {
    let (key, mut text) = (Bare::new(suite), vec![5; size]);
    contest.enter(BARE_SEAL, BARE_SEAL, timed(move || key.seal(&[], &mut text)));
    let (key, mut text) = (Bare::new(suite), vec![5; size]);
    contest.enter("bare seal, associated data as ours", BARE_SEAL, timed(move || key.seal(&ASSOCIATED, &mut text)));
    let (key, mut text) = (Bare::new(suite), vec![5; size]);
    let tag = key.seal(&[], &mut text);
    contest.enter(BARE_OPEN, BARE_OPEN, opening(text, move |text| key.open(&tag, text)));
}

async fn contest(suite: Suite, size: usize, title: &str) -> Contest {
    let mut contest = Contest::new(title);
    bare(&mut contest, suite, size);

    let plaintext = vec![5; size];
    let room = room(suite, |builder| builder).await;
    let foreign = by_fresh_writers(&room, &plaintext).await;
    let channel = scope(&room).await;
    let hot = channel.hot().await.unwrap();
    let sealed = channel.seal(&CONTEXT, &plaintext).await.unwrap();
    for _ in 0..3 {
        assert_eq!(*hot.open(&CONTEXT, &sealed).unwrap(), *plaintext); // and its reader key is kept
    }

    let (by, text) = (channel.clone(), plaintext.clone());
    contest.enter("ScopeHandle::seal", BARE_SEAL, timed(move || ready(by.seal(&CONTEXT, &text)).unwrap()));
    let (by, text) = (hot.clone(), plaintext.clone());
    contest.enter("HotScope::seal", BARE_SEAL, timed(move || by.seal(&CONTEXT, &text).unwrap()));
    let (by, mut out) = (hot.clone(), Vec::with_capacity(2 * size + 256));
    contest.enter(
        "HotScope::seal_into",
        BARE_SEAL,
        timed(move || {
            out.clear();
            by.seal_into(&CONTEXT, &plaintext, &mut out).unwrap();
            black_box(&out);
        }),
    );
    let (by, envelope) = (channel, sealed.clone());
    contest.enter("ScopeHandle::open", BARE_OPEN, timed(move || ready(by.open(&CONTEXT, &envelope)).unwrap()));
    let (by, envelope) = (hot.clone(), sealed.clone());
    contest.enter("HotScope::open", BARE_OPEN, timed(move || by.open(&CONTEXT, &envelope).unwrap()));
    let by = hot.clone();
    contest.enter(
        "HotScope::open_in_place",
        BARE_OPEN,
        opening(sealed, move |envelope| {
            by.open_in_place(&CONTEXT, envelope).unwrap();
        }),
    );
    let mut turn = 0;
    contest.enter(
        "HotScope::open, unknown writer",
        BARE_OPEN,
        timed(move || {
            turn = (turn + 1) % WRITERS;
            hot.open(&CONTEXT, &foreign[turn]).unwrap()
        }),
    );
    contest
}

fn print(suite: Suite, columns: &[Vec<Score>]) {
    println!("\nsuite {}: ratio to the bare cipher of the same turn (nanoseconds), medians\n", suite.byte());
    print!("| {:34} |", "");
    for (_, name) in SIZES {
        print!(" {name:>14} |");
    }
    println!("\n|{:-<36}|{}", "", format!("{:->15}:|", "").repeat(SIZES.len()));
    for row in 0..columns[0].len() {
        print!("| {:34} |", columns[0][row].name);
        for scores in columns {
            print!(" {:5.2} ({:6.0}) |", scores[row].ratio, scores[row].nanos);
        }
        println!();
    }
}

fn main() {
    let runtime = Runtime::new().unwrap();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(40)
        .configure_from_args();
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let mut contests: Vec<Contest> = SIZES
            .iter()
            .map(|(size, name)| runtime.block_on(contest(suite, *size, &format!("suite {}, {name}", suite.byte()))))
            .collect();
        for contest in &mut contests {
            contest.by_criterion(&mut criterion);
        }
        if turns() > 0 {
            let columns: Vec<Vec<Score>> = contests.iter_mut().map(|contest| contest.by_turns(turns())).collect();
            print(suite, &columns);
        }
    }
    criterion.final_summary();
}
