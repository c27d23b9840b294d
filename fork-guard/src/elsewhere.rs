//! Systems without `fork`: nothing copies the words.

use std::io;

use crate::Words;

static WORDS: Words = Words::zero();

#[inline]
pub(crate) fn words() -> &'static Words {
    &WORDS
}

#[allow(clippy::unnecessary_wraps)] // it can fail elsewhere
pub(crate) fn guarded() -> io::Result<&'static Words> {
    Ok(&WORDS)
}
