//! `orion`: `orion::aead`, XChaCha20-Poly1305 under a secret key in hand, as its documentation shows. It takes no associated
//! data, and knows neither tenants nor keys that are wrapped.

use std::sync::Arc;

use ::orion::aead::{self, SecretKey};

use crate::bare::{BARE_OPEN, BARE_SEAL};
use crate::contest::{Contest, timed};
use crate::peers::Peer;

pub(super) const PEER: Peer = Peer { package: "orion", how: "key in hand", seal: "orion, seal", open: "orion, open" };

pub(super) fn enter(contest: &mut Contest, size: usize) {
    let sealing = Arc::new(SecretKey::generate().unwrap());
    let opening = Arc::clone(&sealing);
    let text = vec![5; size];
    let sealed = aead::seal(&sealing, &text).unwrap();
    assert_eq!(aead::open(&opening, &sealed).unwrap(), text);
    contest.enter(PEER.seal, BARE_SEAL, timed(move || aead::seal(&sealing, &text).unwrap()));
    contest.enter(PEER.open, BARE_OPEN, timed(move || aead::open(&opening, &sealed).unwrap()));
}
