//! The secrets that the watched process works with, and what is derived from them (FORMAT.md), computed once more here: the
//! watched process never holds anything to compare with.

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use hmac::Mac;
use sha2::{Digest, Sha512};
use strongroom::Suite;

use crate::inmate::{CONTEXT, Masked};

/// What the watched process is given, masked.
pub(crate) const KEYS: usize = 6;
pub(crate) const TEXT_LEN: usize = 4_096;

pub(crate) fn kek() -> [u8; 32] {
    drawn("kek")
}

pub(crate) fn data_key(n: usize) -> [u8; 32] {
    drawn(&format!("data key {n}"))
}

/// Looks random, so that no piece of it is anywhere by chance.
pub(crate) fn text() -> Vec<u8> {
    (0..TEXT_LEN / 64).flat_map(|n| Sha512::digest(format!("text {n}"))).collect()
}

pub(crate) fn masked() -> Vec<Masked> {
    let mut all = vec![Masked::of(&kek()), Masked::of(&text())];
    all.extend((0..KEYS).map(|n| Masked::of(&data_key(n))));
    all
}

fn drawn(what: &str) -> [u8; 32] {
    *Sha512::digest(what).first_chunk().unwrap()
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 64] {
    let mut mac = <hmac::Hmac<Sha512> as hmac::KeyInit>::new_from_slice(key).unwrap();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// HKDF-Expand-SHA-512, one block of it or two.
fn expand<const N: usize>(key: &[u8], info: &[u8]) -> [u8; N] {
    let first = hmac(key, &[info, &[1]]);
    let second = hmac(key, &[&first, info, &[2]]);
    *[first, second].as_flattened().first_chunk().unwrap()
}

/// What HKDF-Extract-SHA-512 makes of a key: as good as the key.
pub(crate) fn extracted(key: &[u8; 32]) -> [u8; 64] {
    hmac(&[], &[key])
}

/// And what stands between, from which it is made without the key: the inner hash, as a digest and as words of the machine.
pub(crate) fn half_extracted(key: &[u8; 32]) -> [[u8; 64]; 2] {
    let digest: [u8; 64] = Sha512::digest([&[0x36; 128][..], key].concat()).into();
    let words = digest.as_chunks().0.iter().flat_map(|word| u64::from_be_bytes(*word).to_ne_bytes());
    [digest, *words.collect::<Vec<_>>().first_chunk().unwrap()]
}

/// What HMAC-SHA-512 makes of a key before it sees a message: as good as the key. SHA-512's state is eight words as the
/// machine stores them.
pub(crate) fn hmac_states(key: &[u8]) -> Vec<u8> {
    // FIPS 180-4, section 5.3.5.
    const INITIAL: [u64; 8] = [
        0x6a09_e667_f3bc_c908,
        0xbb67_ae85_84ca_a73b,
        0x3c6e_f372_fe94_f82b,
        0xa54f_f53a_5f1d_36f1,
        0x510e_527f_ade6_82d1,
        0x9b05_688c_2b3e_6c1f,
        0x1f83_d9ab_fb41_bd6b,
        0x5be0_cd19_137e_2179,
    ];
    let state = |pad: u8| {
        let mut block = [pad; 128];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        let mut state = INITIAL;
        sha2::block_api::compress512(&mut state, &[block]);
        state
    };
    [state(0x36), state(0x5C)].concat().iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// What a data key becomes for `purpose`: `key-id` or `file`.
fn derived(data_key: &[u8; 32], suite: Suite, purpose: &str) -> [u8; 32] {
    expand(&extracted(data_key), format!("strongroom/v1/{}/{purpose}", suite.name()).as_bytes())
}

pub(crate) fn file_key(data_key: &[u8; 32], suite: Suite) -> [u8; 32] {
    derived(data_key, suite, "file")
}

/// The message key of data key `n`, which is tenant `acme`'s of channel `Cn`.
pub(crate) fn message_key(n: usize, suite: Suite) -> [u8; 32] {
    let (data_key, region) = (data_key(n), b"eu-central-1");
    let scope = strongroom::testing::vectors::canonical_context(&[("channel", &format!("C{n}"))]).unwrap();
    let header = [&[0xF5, suite.byte(), 12], &region[..], &derived(&data_key, suite, "key-id")].concat();
    expand(&extracted(&data_key), &[b"strongroom/v1/message", &header[..], b"\x04acme", &scope].concat())
}

/// The CMAC subkey K1 of XAES-256-GCM.
pub(crate) fn k1(message_key: &[u8; 32]) -> [u8; 16] {
    let l = u128::from_be_bytes(encrypted(message_key, [0; 16]));
    ((l << 1) ^ ((l >> 127) * 0x87)).to_be_bytes()
}

/// The AES-256-GCM key of XAES-256-GCM, or the subkey of XChaCha20-Poly1305, that a message with this nonce is sealed under.
pub(crate) fn message_subkey(message_key: &[u8; 32], suite: Suite, nonce: &[u8; 24]) -> [u8; 32] {
    if suite != Suite::Aes256Gcm {
        let head: &[u8; 16] = nonce.first_chunk().unwrap();
        return chacha20::hchacha::<chacha20::R20>(message_key.into(), head.into()).into();
    }
    let half = |n: u8| {
        let mut block = [0; 16];
        block[..4].copy_from_slice(&[0, n, b'X', 0]);
        block[4..].copy_from_slice(&nonce[..12]);
        block.iter_mut().zip(k1(message_key)).for_each(|(byte, mask)| *byte ^= mask);
        encrypted(message_key, block)
    };
    *[half(1), half(2)].concat().first_chunk().unwrap()
}

fn encrypted(key: &[u8; 32], block: [u8; 16]) -> [u8; 16] {
    let mut block = aes::Block::from(block);
    aes::Aes256Enc::new(key.into()).encrypt_block(&mut block);
    block.into()
}

/// The AEAD key of a file with this head, of tenant `acme` and channel `C4`. The commitment, which is derived with it, shows
/// that it is the right one.
pub(crate) fn file_subkey(data_key: &[u8; 32], suite: Suite, head: &[u8]) -> [u8; 32] {
    let (header, prefix) = head[8..].split_at(head.len() - 8 - 56);
    let (salt, commitment) = prefix.split_at(24);
    let fields = strongroom::testing::vectors::canonical_context(&[("channel", "C4"), CONTEXT[0]]).unwrap();
    let aead: &[u8] = if suite == Suite::Aes256Gcm { b"AEAD_AES_256_GCM" } else { b"AEAD_CHACHA20_POLY1305" };
    let context = [b"strongroom/v1/file", header, b"\x04acme", &fields].concat();
    let info = [b"c2sp.org/chunked-encryption@v1+", aead, b"\0", salt, &context].concat();
    let schedule: [u8; 76] = expand(&file_key(data_key, suite), &info);
    assert_eq!(&schedule[44..], commitment);
    *schedule.first_chunk().unwrap()
}

/// An AES-256 key schedule behind the key itself (FIPS 197, section 5.2): round keys 2 to 14, in the order of their bytes.
pub(crate) fn round_keys(key: &[u8; 32]) -> Vec<u8> {
    let sub = sbox();
    let mut words: Vec<[u8; 4]> = key.as_chunks().0.to_vec();
    let mut rcon = 1_u8;
    for i in 8..60 {
        let mut word = words[i - 1];
        if i % 8 == 0 {
            word.rotate_left(1);
        }
        if i % 4 == 0 {
            word = word.map(|byte| sub[usize::from(byte)]);
        }
        if i % 8 == 0 {
            word[0] ^= rcon;
            rcon = times(rcon, 2);
        }
        words.push(std::array::from_fn(|n| word[n] ^ words[i - 8][n]));
    }
    words[8..].concat()
}

/// In AES's field of 2^8 elements.
fn times(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b > 0 {
        product ^= if b & 1 == 1 { a } else { 0 };
        a = (a << 1) ^ if a & 0x80 == 0 { 0 } else { 0x1B };
        b >>= 1;
    }
    product
}

fn sbox() -> Vec<u8> {
    let inverse = |a: u8| (1..=255).find(|b| times(a, *b) == 1).unwrap_or(0);
    let affine = |b: u8| (0..5).fold(0x63, |sum, n| sum ^ b.rotate_left(n));
    (0..=255).map(|a| affine(inverse(a))).collect()
}

/// The last round key encrypts what the schedule's owner says it does: FIPS 197, appendix A.3.
#[test]
fn the_schedule_is_that_of_fips_197() {
    let key = base16ct::lower::decode_vec("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4").unwrap();
    let schedule = round_keys(key.first_chunk().unwrap());
    assert_eq!(schedule.len(), 13 * 16);
    assert_eq!(base16ct::lower::encode_string(&schedule[..4]), "9ba35411");
    assert_eq!(base16ct::lower::encode_string(&schedule[13 * 16 - 4..]), "706c631e");
}
