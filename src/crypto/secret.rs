//! Secrets: wiped on drop, never cloned, never printed, compared only in constant time.
//!
//! Every place that looks at a secret's bytes calls `expose`, so that `grep expose` lists them all.

use std::fmt;
use std::ops::{Deref, Range};

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::random;
use crate::error::{Error, ErrorKind, Result};

/// `N` secret bytes on the heap (so that moving the owner leaves no copy behind), wiped on drop.
pub(crate) struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Room for a secret that `fill` writes in place.
    pub(crate) fn filled_by<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0)?;
        Ok(secret)
    }

    /// Takes the secret out of `source` and wipes it there.
    pub(crate) fn take(source: &mut [u8; N]) -> Self {
        let mut secret = Self(Box::new([0; N]));
        secret.0.copy_from_slice(source);
        source.zeroize();
        secret
    }

    /// The bytes. Grep for `expose` to find every use.
    pub(crate) fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// Equality in time that depends on nothing but `N`.
    pub(crate) fn ct_eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A data key (DEK): 256 bits, known to this process only between an unwrap and the end of its time in the cache.
///
/// Implementers of `Kms` take and return it; embedders never see one. It is wiped on drop, has no `Clone`, `Debug` or
/// `PartialEq`, and is compared in constant time:
///
/// ```compile_fail
/// fn leak(key: &strongroom::DataKey) -> strongroom::DataKey { key.clone() }
/// ```
/// ```compile_fail
/// fn print(key: &strongroom::DataKey) -> String { format!("{key:?}") }
/// ```
/// ```compile_fail
/// fn compare(a: &strongroom::DataKey, b: &strongroom::DataKey) -> bool { a == b }
/// ```
/// ```
/// let mut reply = *b"thirty-two bytes from some KMS..";
/// let key = strongroom::DataKey::take(&mut reply)?;
/// assert_eq!(reply, [0; 32]); // the source is wiped
/// assert!(key.ct_eq(&strongroom::DataKey::take(&mut b"thirty-two bytes from some KMS..".to_vec())?));
/// # Ok::<(), strongroom::Error>(())
/// ```
pub struct DataKey(Secret<32>);

impl DataKey {
    /// The length of a data key in bytes.
    pub const LEN: usize = 32;

    /// Takes the key out of `source` and wipes it there.
    ///
    /// # Errors
    /// `KeyMismatch` if `source` is not 32 bytes long or all its bytes are equal: no KMS makes such a key.
    pub fn take(source: &mut [u8]) -> Result<Self> {
        let uniform = is_uniform(source);
        let taken = match <&mut [u8; 32]>::try_from(&mut *source) {
            Ok(bytes) if !uniform => Ok(Self(Secret::take(bytes))),
            Ok(_) => Err("the KMS returned a data key whose bytes are all equal"),
            Err(_) => Err("the KMS returned a data key that is not 32 bytes long"),
        };
        source.zeroize();
        taken.map_err(|why| Error::new(ErrorKind::KeyMismatch, why))
    }

    /// A fresh data key from the operating system's random generator.
    ///
    /// # Errors
    /// `Unavailable` if the operating system gives no randomness; never a weaker key.
    pub fn random() -> Result<Self> {
        Secret::filled_by(|into| random::from_os(into)).map(Self)
    }

    /// A KEK on its way to a KMS that wraps it, as it wraps any key.
    pub(crate) fn of_kek(kek: &Secret<32>) -> Result<Self> {
        Self::take(&mut *Zeroizing::new(*kek.expose()))
    }

    /// A KEK on its way back from there.
    pub(crate) fn into_kek(self) -> Secret<32> {
        self.0
    }

    /// The key bytes, for wrapping. Grep for `expose` to find every use.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// Equality in constant time.
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0)
    }
}

/// Whether all bytes are equal (or there are none): the shape of an unset or placeholder key. Looks at all of them, whatever
/// they are.
pub(crate) fn is_uniform(bytes: &[u8]) -> bool {
    let first = bytes.first().copied().unwrap_or_default();
    bytes.iter().fold(0, |differing, byte| differing | (byte ^ first)) == 0
}

/// What an envelope contained; its whole allocation is wiped on drop.
///
/// Reads like a byte slice. `Debug` shows only the length.
pub struct Plaintext(Vec<u8>);

impl Plaintext {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn empty() -> Self {
        Self(Vec::new())
    }

    /// Puts `bytes` behind what is there, which mostly is nothing.
    #[inline]
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Keeps only `range`, moved to the front.
    pub(crate) fn keep(&mut self, range: Range<usize>) {
        let end = range.end.min(self.0.len());
        let start = range.start.min(end);
        self.0.copy_within(start..end, 0);
        self.0.truncate(end - start);
    }

    /// The bytes in a `Vec` of the caller's, who from now on answers for wiping them.
    pub fn into_unwiped(mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

impl Deref for Plaintext {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Plaintext {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plaintext({} bytes)", self.0.len())
    }
}

impl Drop for Plaintext {
    fn drop(&mut self) {
        // The whole allocation, as slices: zeroize fills those at once, a Vec's bytes one by one.
        self.0.spare_capacity_mut().zeroize();
        self.0.as_mut_slice().zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_and_short_data_keys_are_refused_and_wiped() {
        for mut bad in [vec![], vec![1; 31], vec![1; 33], vec![0; 32], vec![9; 32]] {
            let len = bad.len();
            let refused = DataKey::take(&mut bad).err().map(|e| e.kind());
            assert_eq!(refused, Some(ErrorKind::KeyMismatch), "{len} bytes");
            assert!(bad.iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn comparison_sees_every_byte() {
        let mut bytes = *b"0123456789abcdef0123456789abcdef";
        let key = DataKey::take(&mut bytes.clone()).unwrap();
        for i in 0..32 {
            bytes[i] ^= 1;
            assert!(!key.ct_eq(&DataKey::take(&mut bytes.clone()).unwrap()));
            bytes[i] ^= 1;
        }
        assert!(key.ct_eq(&DataKey::take(&mut bytes).unwrap()));
    }

    #[test]
    fn a_part_of_a_plaintext_is_kept_within_its_bounds() {
        for (range, kept) in [(2..5, &b"234"[..]), (0..10, b"0123456789"), (7..99, b"789"), (99..100, b""), (4..4, b"")]
        {
            let mut text = Plaintext::new(b"0123456789".to_vec());
            text.keep(range.clone());
            assert_eq!((&*text, text.as_ref()), (kept, kept), "{range:?}");
            assert_eq!(text.into_unwiped(), kept, "{range:?}");
        }
    }

    #[test]
    fn plaintext_does_not_print_itself() {
        assert_eq!(format!("{:?}", Plaintext::new(b"hush".to_vec())), "Plaintext(4 bytes)");
    }
}
