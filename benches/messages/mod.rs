//! Sealing and opening messages with the key cached, in each way that strongroom offers.

use std::hint::black_box;

use strongroom::Suite;

use crate::bare::{BARE_OPEN, BARE_SEAL};
use crate::contest::{Contest, timed};
use crate::copies::opening;
use crate::room::{CONTEXT, by_fresh_writers, ready, room, scope};

pub(crate) const SIZES: [(usize, &str); 4] = [(64, "64 B"), (256, "256 B"), (1024, "1 KiB"), (4096, "4 KiB")];

pub(crate) const SEAL: &str = "ScopeHandle::seal";
pub(crate) const OPEN: &str = "ScopeHandle::open";
pub(crate) const SEAL_INTO: &str = "HotScope::seal_into";
pub(crate) const OPEN_IN_PLACE: &str = "HotScope::open_in_place";
pub(crate) const OPEN_UNKNOWN: &str = "HotScope::open, unknown writer";

/// How many envelopes of fresh writers are opened in turn: far more than the reader keys that a data key keeps.
const WRITERS: usize = 64;

pub(crate) async fn enter(contest: &mut Contest, suite: Suite, size: usize) {
    let plaintext = vec![5; size];
    let room = room(suite, |builder| builder).await;
    let foreign = by_fresh_writers(&room, &plaintext, WRITERS).await;
    let channel = scope(&room).await;
    let hot = channel.hot().await.unwrap();
    let sealed = channel.seal(&CONTEXT, &plaintext).await.unwrap();
    for _ in 0..3 {
        assert_eq!(*hot.open(&CONTEXT, &sealed).unwrap(), *plaintext); // and its reader key is kept
    }

    let (by, text) = (channel.clone(), plaintext.clone());
    contest.enter(SEAL, BARE_SEAL, timed(move || ready(by.seal(&CONTEXT, &text)).unwrap()));
    let (by, text) = (hot.clone(), plaintext.clone());
    contest.enter("HotScope::seal", BARE_SEAL, timed(move || by.seal(&CONTEXT, &text).unwrap()));
    let (by, mut out) = (hot.clone(), Vec::with_capacity(2 * size + 256));
    contest.enter(
        SEAL_INTO,
        BARE_SEAL,
        timed(move || {
            out.clear();
            by.seal_into(&CONTEXT, &plaintext, &mut out).unwrap();
            black_box(&out);
        }),
    );
    let (by, envelope) = (channel, sealed.clone());
    contest.enter(OPEN, BARE_OPEN, timed(move || ready(by.open(&CONTEXT, &envelope)).unwrap()));
    let (by, envelope) = (hot.clone(), sealed.clone());
    contest.enter("HotScope::open", BARE_OPEN, timed(move || by.open(&CONTEXT, &envelope).unwrap()));
    let by = hot.clone();
    contest.enter(
        OPEN_IN_PLACE,
        BARE_OPEN,
        opening(sealed, move |envelope| {
            by.open_in_place(&CONTEXT, envelope).unwrap();
        }),
    );
    let mut turn = 0;
    contest.enter(
        OPEN_UNKNOWN,
        BARE_OPEN,
        timed(move || {
            turn = (turn + 1) % WRITERS;
            hot.open(&CONTEXT, &foreign[turn]).unwrap()
        }),
    );
}
