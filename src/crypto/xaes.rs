//! XAES-256-GCM (c2sp.org/XAES-256-GCM): its key derivation ("Detailed key derivation algorithm"), and the whole of it for what
//! is sealed once in a while.
//!
//! The AES-256-GCM key depends on the first 12 bytes of the 24-byte nonce alone. A writer that keeps those 12 bytes (its
//! *prefix*) for a while pays the derivation once and then seals at nearly the price of plain AES-256-GCM, while what it
//! puts out stays exactly XAES-256-GCM.

use std::hint::black_box;

use zeroize::Zeroize;

use crate::crypto::aead::{AeadKey, Algorithm, Backend, BlockKey, Refused, TAG_LEN};
use crate::crypto::secret::Secret;
use crate::crypto::stack::{self, Depth};

/// Bytes of an XAES-256-GCM nonce.
pub(crate) const NONCE_LEN: usize = 24;
/// Bytes of the nonce that choose the AES-256-GCM key.
pub(crate) const PREFIX_LEN: usize = 12;

/// An XAES-256-GCM key, ready to derive AES-256-GCM keys.
pub(crate) struct XaesKey {
    backend: Backend,
    block: BlockKey,
    /// The CMAC subkey K1 (steps 1 and 2), computed once.
    k1: Secret<16>,
}

impl XaesKey {
    pub(crate) fn new(backend: Backend, key: &Secret<32>) -> Self {
        let nothing = Secret::take(&mut [0; 32]);
        stack::swept(Depth::PortableAes, || {
            let made = Self::expand(backend, key);
            // Round keys are left in up to 32 vector registers, and whoever stores all of them (a signal, the dynamic linker)
            // stores those. Safe Rust cannot wipe a register; but AES by AES instructions takes the same path whatever the key is,
            // so the same code run once more, with zeros, leaves something that is no secret where the first run left one.
            black_box(Self::expand(backend, black_box(&nothing)));
            made
        })
    }

    #[inline(never)] // or it would be two pieces of code
    fn expand(backend: Backend, key: &Secret<32>) -> Self {
        let block = BlockKey::new(key.expose());
        // 1. L = AES-256(K, 0^128)
        let mut l = [[0_u8; 16]; 2];
        block.encrypt_two(&mut l);
        // 2. If MSB1(L) = 0 then K1 = L << 1 else K1 = (L << 1) xor 0x87, without a branch on the secret bit.
        let mut wide = u128::from_be_bytes(l[0]);
        let carry = wide >> 127;
        wide = (wide << 1) ^ (carry * 0x87);
        let k1 = Secret::take(&mut wide.to_be_bytes());
        wide.zeroize();
        l.zeroize();
        Self { backend, block, k1 }
    }

    /// The AES-256-GCM key for all nonces that start with `prefix` (steps 3 to 5).
    pub(crate) fn derive(&self, prefix: &[u8; PREFIX_LEN]) -> Result<AeadKey, Refused> {
        // On every backend single blocks are the portable AES's.
        stack::swept(Depth::PortableAes, || self.derive_here(prefix))
    }

    fn derive_here(&self, prefix: &[u8; PREFIX_LEN]) -> Result<AeadKey, Refused> {
        // 3. M1 = 0x00 || 0x01 || 'X' || 0x00 || N[:12]    4. M2 = 0x00 || 0x02 || 'X' || 0x00 || N[:12]
        let mut block = [0; 16];
        block[4..].copy_from_slice(prefix);
        let (k1, prefix) = (u128::from_le_bytes(*self.k1.expose()), u128::from_le_bytes(block));
        let masked = |counter| (k1 ^ prefix ^ u128::from(u32::from_le_bytes([0, counter, b'X', 0]))).to_le_bytes();
        let mut blocks = [masked(1), masked(2)];
        // 5. Kx = AES-256(K, M1 xor K1) || AES-256(K, M2 xor K1)
        self.block.encrypt_two(&mut blocks);
        let derived = blocks.as_flattened_mut();
        let key = (&*derived).try_into().map_err(|_| Refused);
        let key = key.and_then(|key| AeadKey::new(self.backend, Algorithm::Aes256Gcm, key));
        derived.zeroize();
        key
    }

    /// Encrypts `from` into `to`, which is as long, and writes the tag. `nonce` is random: nobody counts.
    pub(crate) fn seal_from(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        from: &[u8],
        to: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Refused> {
        let (prefix, rest) = split(nonce)?;
        self.derive(prefix)?.seal_from(rest, aad, from, to, tag)
    }

    /// Verifies `from` and decrypts it into `to`, which is as long. When it refuses, `to` holds no plaintext.
    pub(crate) fn open_from(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        from: &[u8],
        to: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Refused> {
        let (prefix, rest) = split(nonce)?;
        self.derive(prefix)?.open_from(rest, aad, from, to, tag)
    }
}

/// The two halves of a 24-byte nonce: what chooses the key, and what AES-256-GCM gets (step 6).
#[inline]
pub(crate) fn split(nonce: &[u8; NONCE_LEN]) -> Result<(&[u8; PREFIX_LEN], &[u8; 12]), Refused> {
    match nonce.as_chunks() {
        ([prefix, rest], []) => Ok((prefix, rest)),
        _ => Err(Refused), // twice twelve are twenty-four
    }
}

/// As [`split`], to be written.
#[inline]
pub(crate) fn split_mut(nonce: &mut [u8; NONCE_LEN]) -> Result<(&mut [u8; PREFIX_LEN], &mut [u8; 12]), Refused> {
    match nonce.as_chunks_mut() {
        ([prefix, rest], []) => Ok((prefix, rest)),
        _ => Err(Refused),
    }
}
