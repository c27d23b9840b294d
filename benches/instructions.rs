//! One operation, over and over, for an instruction counter to watch: `instructions OPERATION COUNT`.
//!
//! `scripts/instructions` runs it under callgrind, which counts inside of [`measured`] only: making the room costs some
//! 32 million instructions, and 100 000 more or less from run to run.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod room;

use std::hint::black_box;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use strongroom::Suite;

use crate::room::{CONTEXT, by_fresh_writers, ready, room, scope};

const SIZE: usize = 256;
const WRITERS: usize = 16;
const WARM_UP: usize = 2 * WRITERS;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(operation), Some(count)) = (arguments.next(), arguments.next()) else {
        return; // `cargo bench` and `cargo test` run every bench; this one is for the script
    };
    let Ok(count) = count.parse() else {
        return;
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(&operation, count));
}

async fn run(operation: &str, count: usize) {
    let plaintext = [5; SIZE];
    let room = room(Suite::Aes256Gcm, |builder| builder).await;
    let foreign = by_fresh_writers(&room, &plaintext, WRITERS).await;
    let channel = scope(&room).await;
    let hot = channel.hot().await.unwrap();
    let sealed = channel.seal(&CONTEXT, &plaintext).await.unwrap();
    for _ in 0..3 {
        hot.open(&CONTEXT, &sealed).unwrap(); // its reader key is kept
    }
    let bare = LessSafeKey::new(UnboundKey::new(&aead::AES_256_GCM, &[7; 32]).unwrap());
    let mut repeat = |count| {
        let nonce = || Nonce::assume_unique_for_key([9; 12]);
        let (mut text, mut out, mut copy) = (plaintext, Vec::with_capacity(2 * SIZE), sealed.clone());
        for foreign in foreign.iter().cycle().take(count) {
            match operation {
                "bare" => drop(black_box(bare.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut text).unwrap())),
                "seal" => drop(black_box(ready(channel.seal(&CONTEXT, &plaintext)).unwrap())),
                "seal_into" => {
                    out.clear();
                    hot.seal_into(&CONTEXT, &plaintext, &mut out).unwrap();
                }
                "open" => drop(black_box(ready(channel.open(&CONTEXT, &sealed)).unwrap())),
                "open_in_place" => {
                    copy.copy_from_slice(&sealed);
                    black_box(hot.open_in_place(&CONTEXT, &mut copy).unwrap());
                }
                "open_unknown_writer" => drop(black_box(hot.open(&CONTEXT, foreign).unwrap())),
                unknown => panic!("there is no operation {unknown:?}"),
            }
            black_box(&out);
        }
    };
    repeat(WARM_UP);
    measured(&mut repeat, count);
}

/// Named by `scripts/instructions`.
#[inline(never)]
fn measured(repeat: &mut dyn FnMut(usize), count: usize) {
    repeat(black_box(count));
    black_box(());
}
