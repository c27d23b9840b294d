//! Floor 0: keys and bytes. Synchronous, no I/O. Published constructions only:
//! XAES-256-GCM (c2sp.org/XAES-256-GCM), XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), chunked encryption
//! (c2sp.org/chunked-encryption) and HKDF (RFC 5869), each checked against vectors that nobody here wrote; with feature `byok`
//! RSA-OAEP (RFC 8017), AES-KWP (RFC 5649) and HPKE (RFC 9180).

pub(crate) mod aead;
pub(crate) mod allotment;
pub(crate) mod chunked;
pub(crate) mod digest;
pub(crate) mod generation;
pub(crate) mod kdf;
#[cfg(feature = "byok")]
pub(crate) mod key_transport;
pub(crate) mod mac;
pub(crate) mod message;
pub(crate) mod random;
pub(crate) mod reader_keys;
pub(crate) mod secret;
pub(crate) mod signing;
pub(crate) mod split;
pub(crate) mod stack;
pub(crate) mod suite;
pub(crate) mod wiped;
pub(crate) mod writer;
pub(crate) mod xaes;

#[cfg(test)]
mod vectors;
