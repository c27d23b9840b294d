//! The bare aws-lc-rs cipher with a prebuilt key, in place: what everything else is a ratio to.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use strongroom::Suite;

use crate::contest::{Contest, timed};
use crate::copies::opening;

pub(crate) const BARE_SEAL: &str = "bare seal";
pub(crate) const BARE_OPEN: &str = "bare open";
pub(crate) const BARE_ASSOCIATED: &str = "bare seal, associated data as ours";

/// As long as the associated data of our messages here: the canonical form of `message=M77`.
const ASSOCIATED: [u8; 14] = [7; 14];

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

pub(crate) fn enter(contest: &mut Contest, suite: Suite, size: usize) {
    let (key, mut text) = (Bare::new(suite), vec![5; size]);
    contest.enter(BARE_SEAL, BARE_SEAL, timed(move || key.seal(&[], &mut text)));
    let (key, mut text) = (Bare::new(suite), vec![5; size]);
    contest.enter(BARE_ASSOCIATED, BARE_SEAL, timed(move || key.seal(&ASSOCIATED, &mut text)));
    let (key, mut text) = (Bare::new(suite), vec![5; size]);
    let tag = key.seal(&[], &mut text);
    contest.enter(BARE_OPEN, BARE_OPEN, opening(text, move |text| key.open(&tag, text)));
}
