//! `tink-aead`: AES-256-GCM under a keyset in hand, as its README shows. There is nothing between the call and the cipher
//! but the choice of the key by its 5-byte prefix.

use tink_core::Aead;

use crate::bare::{BARE_OPEN, BARE_SEAL};
use crate::contest::{Contest, timed};
use crate::peers::{ASSOCIATED, Peer};

pub(super) const PEER: Peer =
    Peer { package: "tink-aead", how: "keyset in hand", seal: "tink-aead, seal", open: "tink-aead, open" };

fn aead() -> Box<dyn Aead> {
    tink_aead::init();
    let keyset = tink_core::keyset::Handle::new(&tink_aead::aes256_gcm_key_template()).unwrap();
    tink_aead::new(&keyset).unwrap()
}

pub(super) fn enter(contest: &mut Contest, size: usize) {
    let opening = aead();
    let sealing = opening.box_clone();
    let text = vec![5; size];
    let sealed = opening.encrypt(&text, ASSOCIATED).unwrap();
    assert_eq!(opening.decrypt(&sealed, ASSOCIATED).unwrap(), text);
    contest.enter(PEER.seal, BARE_SEAL, timed(move || sealing.encrypt(&text, ASSOCIATED).unwrap()));
    contest.enter(PEER.open, BARE_OPEN, timed(move || opening.decrypt(&sealed, ASSOCIATED).unwrap()));
}
