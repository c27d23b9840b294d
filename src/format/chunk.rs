//! The chunk state machine of files (c2sp.org/chunked-encryption, "Message chunking" and "AEAD usage"), in place.
//!
//! "The message is split into chunks of 16 KiB, except the final chunk which MUST be shorter than 16 KiB, and MAY be
//! empty." So there is one chunking for each length, a full chunk is never the last, and an opener that misses the short
//! one knows that the file was truncated.
//!
//! An [`Encryptor`] gives every chunk number out once, as a [`Turn`] or the [`LastTurn`], which can be sealed on any
//! thread but only once: none of the three can be cloned, and sealing consumes. (Nor does a copy of the process seal with them:
//! `crypto::chunked`.) A *block* is some full chunks one after
//! the other, each with room for its tag, so that it is read, sealed in place, and written in one piece.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::crypto::aead::{Refused, TAG_LEN};
use crate::crypto::chunked::{OpenKey, SealKey};
use crate::error::{Error, Result};
use crate::format::layout::{CHUNK_LEN, MAX_CHUNKS, SEALED_CHUNK_LEN};

/// Seals one file, from its first chunk to its last. Move-only: a file cannot be sealed twice from the middle.
pub(crate) struct Encryptor {
    key: Arc<SealKey>,
    next: u64,
    end: Option<End>,
}

/// Until when a file can be sealed to its end.
pub(crate) struct End {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) at: Duration,
}

impl End {
    /// # Errors
    /// `Limit` if that is over.
    fn check(end: Option<&Self>) -> Result<()> {
        if end.is_some_and(|end| end.clock.monotonic() >= end.at) {
            return Err(Error::limit(
                "the file took longer to seal than a day, and its data key may be retired by now; seal it again from its start",
            ));
        }
        Ok(())
    }
}

/// Full chunks whose numbers have been given out to be sealed once.
pub(crate) struct Turn {
    key: Arc<SealKey>,
    first: u64,
    chunks: u64,
}

/// The last chunk, to be sealed once.
pub(crate) struct LastTurn {
    key: Arc<SealKey>,
    number: u64,
    end: Option<End>,
}

impl Encryptor {
    pub(crate) fn new(key: SealKey) -> Self {
        Self { key: Arc::new(key), next: 0, end: None }
    }

    /// Seals nothing more from then on.
    pub(crate) fn ending(mut self, end: End) -> Self {
        self.end = Some(end);
        self
    }

    /// What stands before the first chunk: salt and commitment.
    pub(crate) fn prefix(&self) -> impl Iterator<Item = u8> + '_ {
        self.key.salt().iter().chain(self.key.commitment()).copied()
    }

    /// Gives out the numbers of the next `chunks` full chunks.
    ///
    /// # Errors
    /// `Limit` if no number would be left for the last chunk: "If the chunk counter reaches or exceeds 2^38 while
    /// encrypting or decrypting, implementations MUST abort." And `Limit` if the file's time is over.
    pub(crate) fn turn(&mut self, chunks: usize) -> Result<Turn> {
        End::check(self.end.as_ref())?;
        let first = self.next;
        let next = first.checked_add(chunks as u64).filter(|next| *next < MAX_CHUNKS);
        self.next = next.ok_or_else(too_long)?;
        Ok(Turn { key: Arc::clone(&self.key), first, chunks: chunks as u64 })
    }

    /// Ends the file: only its last chunk is left to seal.
    pub(crate) fn finish(self) -> LastTurn {
        LastTurn { key: self.key, number: self.next, end: self.end }
    }

    /// As if `next` full chunks had been sealed: for vectors only.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn at(mut self, next: u64) -> Self {
        self.next = next;
        self
    }
}

fn too_long() -> Error {
    Error::limit("a file has at most 2^38 chunks of 16 KiB")
}

fn altered() -> Error {
    Error::unopenable_file().because("a chunk was altered or moved, or the file was cut short")
}

fn cut() -> Error {
    Error::unopenable_file().because("no sealed file ends like this: it was cut short")
}

/// A length that the floors above never pass.
fn wrong_length() -> Error {
    Error::invalid("a block consists of whole chunks, and a last chunk is short")
}

fn seal_chunk(key: &SealKey, number: u64, chunk: &mut [u8]) -> Result<()> {
    let (text, tag) = chunk.split_last_chunk_mut::<TAG_LEN>().ok_or_else(wrong_length)?;
    key.seal(number, text, tag)
}

/// Seals `text` into `chunk`, which has 16 bytes more.
fn seal_chunk_from(key: &SealKey, number: u64, text: &[u8], chunk: &mut [u8]) -> Result<()> {
    let (to, tag) = chunk.split_last_chunk_mut::<TAG_LEN>().ok_or_else(wrong_length)?;
    key.seal_from(number, text, to, tag)
}

impl Turn {
    /// Seals `text`, which consists of full chunks, into `block`.
    pub(crate) fn seal_from(self, text: &[u8], block: &mut [u8]) -> Result<()> {
        let chunks = text.chunks_exact(CHUNK_LEN).zip(block.chunks_exact_mut(SEALED_CHUNK_LEN));
        if chunks.len() as u64 != self.chunks {
            return Err(wrong_length());
        }
        (self.first..)
            .zip(chunks)
            .try_for_each(|(number, (text, chunk))| seal_chunk_from(&self.key, number, text, chunk))
    }

    /// Seals `block` in place: for each chunk 16 384 bytes of plaintext, then 16 bytes of room for the tag.
    pub(crate) fn seal(self, block: &mut [u8]) -> Result<()> {
        if block.len() as u64 != self.chunks * SEALED_CHUNK_LEN as u64 {
            return Err(wrong_length());
        }
        (self.first..)
            .zip(block.chunks_exact_mut(SEALED_CHUNK_LEN))
            .try_for_each(|(number, chunk)| seal_chunk(&self.key, number, chunk))
    }
}

impl LastTurn {
    /// Seals `text`, of less than 16 384 bytes, into `chunk`, which has 16 bytes more.
    pub(crate) fn seal_from(self, text: &[u8], chunk: &mut [u8]) -> Result<()> {
        End::check(self.end.as_ref())?;
        if chunk.len() >= SEALED_CHUNK_LEN {
            return Err(wrong_length());
        }
        seal_chunk_from(&self.key, self.number, text, chunk)
    }

    /// Seals the last chunk in place: less than 16 384 bytes of plaintext, then 16 bytes of room for the tag.
    pub(crate) fn seal(self, chunk: &mut [u8]) -> Result<()> {
        End::check(self.end.as_ref())?;
        if chunk.len() >= SEALED_CHUNK_LEN {
            return Err(wrong_length());
        }
        seal_chunk(&self.key, self.number, chunk)
    }
}

/// Opens the chunks of one file, in any order and on any thread; the commitment has been checked.
#[derive(Clone)]
pub(crate) struct Decryptor(Arc<OpenKey>);

impl Decryptor {
    pub(crate) fn new(key: OpenKey) -> Self {
        Self(Arc::new(key))
    }

    /// Opens the full chunks of `block` in place, numbered from `first`. Their plaintext stays where it was, 16 384 bytes
    /// of every 16 400.
    ///
    /// # Errors
    /// `Unopenable` if any of them does not open or there can be no such chunk; then that one is wiped.
    pub(crate) fn open_block(&self, first: u64, block: &mut [u8]) -> Result<()> {
        if !block.len().is_multiple_of(SEALED_CHUNK_LEN) {
            return Err(wrong_length());
        }
        // The last number belongs to a short chunk.
        let chunks = (block.len() / SEALED_CHUNK_LEN) as u64;
        if first.checked_add(chunks).is_none_or(|end| end >= MAX_CHUNKS) {
            return Err(altered());
        }
        (first..)
            .zip(block.chunks_exact_mut(SEALED_CHUNK_LEN))
            .try_for_each(|(number, chunk)| self.open_chunk(number, chunk))
    }

    /// Opens the last chunk in place and returns the length of its plaintext. Whoever has opened it knows that the file
    /// ends here: "the final chunk [...] MUST be shorter than 16 KiB".
    ///
    /// # Errors
    /// `Unopenable` if it does not open, is full, or is shorter than a tag.
    pub(crate) fn open_last(&self, number: u64, chunk: &mut [u8]) -> Result<usize> {
        if number >= MAX_CHUNKS || chunk.len() >= SEALED_CHUNK_LEN {
            return Err(cut());
        }
        self.open_chunk(number, chunk)?;
        Ok(chunk.len() - TAG_LEN)
    }

    /// Opens the whole file that `chunks` are into `text`, which has the length of its plaintext.
    ///
    /// # Errors
    /// `Unopenable` if any chunk does not open, or the lengths are no sealed file's.
    pub(crate) fn open_all(&self, chunks: &[u8], text: &mut [u8]) -> Result<()> {
        let full = chunks.len() / SEALED_CHUNK_LEN;
        let (sealed, last) = chunks.split_at_checked(full * SEALED_CHUNK_LEN).ok_or_else(cut)?;
        let (texts, last_text) = text.split_at_mut_checked(full * CHUNK_LEN).ok_or_else(cut)?;
        let pairs = sealed.chunks_exact(SEALED_CHUNK_LEN).zip(texts.chunks_exact_mut(CHUNK_LEN));
        (0..).zip(pairs).try_for_each(|(number, (chunk, text))| self.open_chunk_from(number, chunk, text))?;
        self.open_chunk_from(full as u64, last, last_text)
    }

    fn open_chunk_from(&self, number: u64, chunk: &[u8], text: &mut [u8]) -> Result<()> {
        let (sealed, tag) = chunk.split_last_chunk::<TAG_LEN>().ok_or_else(cut)?;
        self.0.open_from(number, sealed, text, tag).map_err(|Refused| altered())
    }

    fn open_chunk(&self, number: u64, chunk: &mut [u8]) -> Result<()> {
        let (text, tag) = chunk.split_last_chunk_mut::<TAG_LEN>().ok_or_else(cut)?;
        self.0.open(number, text, tag).map_err(|Refused| altered())
    }
}

/// Bytes of plaintext that a block of `sealed` bytes holds, a short last chunk included.
pub(crate) fn plain_part(sealed: usize) -> usize {
    sealed / SEALED_CHUNK_LEN * CHUNK_LEN + (sealed % SEALED_CHUNK_LEN).saturating_sub(TAG_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::aead::Backend;
    use crate::crypto::chunked::SALT_LEN;
    use crate::crypto::secret::Secret;
    use crate::crypto::suite::Suite;
    use crate::error::ErrorKind;

    fn pair(suite: Suite) -> (Encryptor, Decryptor) {
        let input = || Secret::take(&mut [1; 32]);
        let seal = SealKey::draw(Backend::DEFAULT, suite, &input(), b"c").unwrap();
        let open = OpenKey::verified(Backend::DEFAULT, suite, &input(), seal.salt(), seal.commitment(), b"c").unwrap();
        (Encryptor::new(seal), Decryptor::new(open))
    }

    fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
        result.err().map(|e| e.kind())
    }

    #[test]
    fn the_counter_ends_at_2_to_the_38() {
        for suite in Suite::ALL {
            let (encryptor, decryptor) = pair(suite);
            let mut encryptor = encryptor.at(MAX_CHUNKS - 2);
            let mut block = vec![5; SEALED_CHUNK_LEN];
            encryptor.turn(1).unwrap().seal(&mut block).unwrap();
            decryptor.open_block(MAX_CHUNKS - 2, &mut block).unwrap();
            // One number is left, for the last chunk.
            assert_eq!(kind(encryptor.turn(1)), Some(ErrorKind::Limit));
            assert_eq!(kind(encryptor.turn(usize::MAX)), Some(ErrorKind::Limit));
            // A full chunk of that number is none, even if sealed under the right key.
            let mut full = vec![5; SEALED_CHUNK_LEN];
            seal_chunk(&encryptor.key, MAX_CHUNKS - 1, &mut full).unwrap();
            assert_eq!(kind(decryptor.open_block(MAX_CHUNKS - 1, &mut full)), Some(ErrorKind::Unopenable));
            let mut last = vec![6; 20];
            encryptor.finish().seal(&mut last).unwrap();
            assert_eq!(decryptor.open_last(MAX_CHUNKS - 1, &mut last).unwrap(), 4);
            for number in [MAX_CHUNKS - 1, MAX_CHUNKS, u64::MAX] {
                assert_eq!(kind(decryptor.open_block(number, &mut block)), Some(ErrorKind::Unopenable));
            }
            for number in [MAX_CHUNKS, u64::MAX] {
                assert_eq!(kind(decryptor.open_last(number, &mut last)), Some(ErrorKind::Unopenable));
            }
        }
    }

    #[test]
    fn from_one_place_to_another_is_the_same_as_in_place() {
        let (salt, context) = ([4; SALT_LEN], b"c");
        let key = || {
            let input = Secret::take(&mut [1; 32]);
            let key = SealKey::with_salt(Backend::DEFAULT, Suite::Aes256Gcm, &input, salt, context).unwrap();
            let open = OpenKey::verified(Backend::DEFAULT, Suite::Aes256Gcm, &input, &salt, key.commitment(), context);
            (Encryptor::new(key), Decryptor::new(open.unwrap()))
        };
        let text: Vec<u8> = (0..=250).cycle().take(2 * CHUNK_LEN + 5).collect();
        let (full, last) = text.split_at(2 * CHUNK_LEN);

        let (mut in_place, decryptor) = key();
        assert!(in_place.prefix().eq(in_place.key.salt().iter().chain(in_place.key.commitment()).copied()));
        let mut sealed: Vec<u8> = full.chunks(CHUNK_LEN).flat_map(|text| [text, &[0; TAG_LEN]].concat()).collect();
        in_place.turn(2).unwrap().seal(&mut sealed).unwrap();
        sealed.extend_from_slice(&[last, &[0; TAG_LEN]].concat());
        in_place.finish().seal(&mut sealed[2 * SEALED_CHUNK_LEN..]).unwrap();

        let (mut moved, _) = key();
        let mut elsewhere = vec![0; sealed.len()];
        let (blocks, end) = elsewhere.split_at_mut(2 * SEALED_CHUNK_LEN);
        moved.turn(2).unwrap().seal_from(full, blocks).unwrap();
        moved.finish().seal_from(last, end).unwrap();
        assert_eq!(elsewhere, sealed);

        assert_eq!(plain_part(sealed.len()), text.len());
        assert_eq!((plain_part(0), plain_part(15), plain_part(17)), (0, 0, 1));
        let mut opened = vec![0; text.len()];
        decryptor.open_all(&sealed, &mut opened).unwrap();
        assert_eq!(opened, text);
        for wrong in [text.len() - 1, text.len() + 1, 0] {
            assert_eq!(kind(decryptor.open_all(&sealed, &mut vec![0; wrong])), Some(ErrorKind::Unopenable), "{wrong}");
        }
        // Without its last chunk, the file ends with a chunk of no bytes, which has no tag.
        let truncated = decryptor.open_all(&sealed[..2 * SEALED_CHUNK_LEN], &mut opened[..2 * CHUNK_LEN]);
        assert_eq!(kind(truncated), Some(ErrorKind::Unopenable));
    }

    #[test]
    fn a_turn_takes_text_of_its_own_length_only() {
        let (mut encryptor, _) = pair(Suite::Aes256Gcm);
        let text = vec![5; 3 * CHUNK_LEN];
        for chunks in [0, 1, 3] {
            let mut block = vec![0; chunks * SEALED_CHUNK_LEN];
            let refused = encryptor.turn(2).unwrap().seal_from(&text[..chunks * CHUNK_LEN], &mut block);
            assert_eq!(kind(refused), Some(ErrorKind::InvalidArgument), "{chunks}");
        }
        let full = encryptor.finish().seal_from(&text[..CHUNK_LEN], &mut vec![0; SEALED_CHUNK_LEN]);
        assert_eq!(kind(full), Some(ErrorKind::InvalidArgument));
    }

    #[test]
    fn a_full_last_chunk_is_refused_even_if_honestly_sealed() {
        let (mut encryptor, decryptor) = pair(Suite::Aes256Gcm);
        let mut chunk = vec![5; SEALED_CHUNK_LEN];
        encryptor.turn(1).unwrap().seal(&mut chunk).unwrap();
        assert_eq!(kind(decryptor.open_last(0, &mut chunk.clone())), Some(ErrorKind::Unopenable));
        decryptor.open_block(0, &mut chunk).unwrap();
        assert_eq!(kind(encryptor.finish().seal(&mut chunk)), Some(ErrorKind::InvalidArgument));
    }

    #[test]
    fn a_refused_chunk_holds_no_plaintext() {
        let (mut encryptor, decryptor) = pair(Suite::Aes256Gcm);
        let mut block = vec![5; 2 * SEALED_CHUNK_LEN];
        encryptor.turn(2).unwrap().seal(&mut block).unwrap();
        block[SEALED_CHUNK_LEN + 7] ^= 1;
        assert!(decryptor.open_block(0, &mut block).is_err());
        assert!(block[SEALED_CHUNK_LEN..2 * SEALED_CHUNK_LEN - TAG_LEN].iter().all(|b| *b == 0));
    }

    #[test]
    fn a_turn_takes_a_block_of_its_own_length_only() {
        let (mut encryptor, decryptor) = pair(Suite::Aes256Gcm);
        for len in [0, SEALED_CHUNK_LEN, 2 * SEALED_CHUNK_LEN - 1, 3 * SEALED_CHUNK_LEN] {
            let refused = encryptor.turn(2).unwrap().seal(&mut vec![0; len]);
            assert_eq!(kind(refused), Some(ErrorKind::InvalidArgument), "{len}");
        }
        assert_eq!(kind(decryptor.open_block(0, &mut [0; 20])), Some(ErrorKind::InvalidArgument));
        assert_eq!(kind(decryptor.open_last(0, &mut [0; 15])), Some(ErrorKind::Unopenable));
        assert_eq!(kind(encryptor.finish().seal(&mut [0; 15])), Some(ErrorKind::InvalidArgument));
    }
}
