//! The bare RustCrypto ciphers with a prebuilt key, in place: what the portable backend is a ratio to.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;
use strongroom::Suite;

use crate::contest::{Contest, timed};
use crate::copies::opening;

pub(crate) const BARE_SEAL: &str = "bare seal";
pub(crate) const BARE_OPEN: &str = "bare open";
pub(crate) const BARE_ASSOCIATED: &str = "bare seal, associated data as ours";

/// As long as the associated data of our messages here: the canonical form of `message=M77`.
const ASSOCIATED: [u8; 14] = [7; 14];
const NONCE: [u8; 12] = [9; 12];

fn enter_cipher<C: AeadInOut + KeyInit + 'static>(contest: &mut Contest, size: usize) {
    let key = || C::new_from_slice(&[7; 32]).unwrap();
    let seal = |key: &C, associated: &[u8], text: &mut [u8]| {
        let nonce = NONCE.as_slice().try_into().unwrap();
        key.encrypt_inout_detached(nonce, associated, text.into()).unwrap()
    };
    let (bare, mut text) = (key(), vec![5; size]);
    contest.enter(BARE_SEAL, BARE_SEAL, timed(move || seal(&bare, &[], &mut text)));
    let (bare, mut text) = (key(), vec![5; size]);
    contest.enter(BARE_ASSOCIATED, BARE_SEAL, timed(move || seal(&bare, &ASSOCIATED, &mut text)));
    let (bare, mut text) = (key(), vec![5; size]);
    let tag = seal(&bare, &[], &mut text);
    contest.enter(
        BARE_OPEN,
        BARE_OPEN,
        opening(text, move |text| {
            let nonce = NONCE.as_slice().try_into().unwrap();
            bare.decrypt_inout_detached(nonce, &[], text.as_mut_slice().into(), &tag).unwrap();
        }),
    );
}

pub(crate) fn enter(contest: &mut Contest, suite: Suite, size: usize) {
    match suite {
        Suite::Aes256Gcm => enter_cipher::<Aes256Gcm>(contest, size),
        Suite::ChaCha20Poly1305 => enter_cipher::<ChaCha20Poly1305>(contest, size),
        _ => panic!("which cipher is that?"),
    }
}
