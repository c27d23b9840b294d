//! Working buffers that held plaintext: wiped in one piece on drop.

use std::ops::{Deref, DerefMut};

use zeroize::Zeroize;

/// A buffer of fixed length, wiped on drop. As a slice: wiping a `Vec` goes byte by byte and would cost as much as the
/// cipher.
pub(crate) struct Wiped(Box<[u8]>);

impl Wiped {
    pub(crate) fn zeroed(len: usize) -> Self {
        Self(vec![0; len].into())
    }
}

impl Deref for Wiped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Wiped {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        (*self.0).zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_has_its_length_and_keeps_what_is_written() {
        let mut buffer = Wiped::zeroed(5);
        assert_eq!(*buffer, [0; 5]);
        buffer.copy_from_slice(b"hello");
        assert_eq!(&*buffer, b"hello");
    }
}
