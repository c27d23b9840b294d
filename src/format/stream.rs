//! Streams over the chunk state machine: bytes in slices of any length on one side, sealed chunks on the other. No I/O:
//! an adapter asks for [`space`](StreamSealer::space), fills it, and takes the [`output`](StreamSealer::output).
//!
//! Both directions keep one buffer of a few chunks, sealed or opened in place and wiped at the end.

use crate::crypto::aead::TAG_LEN;
use crate::crypto::wiped::Wiped;
use crate::error::{Error, Result};
use crate::format::chunk::{Decryptor, Encryptor};
use crate::format::layout::{CHUNK_LEN, SEALED_CHUNK_LEN};

/// Chunks that a stream collects before it asks its adapter to write them: 64 KiB.
const CHUNKS: usize = 4;

/// Bytes waiting to be taken out of a buffer, in order.
#[derive(Clone, Copy, Default)]
struct Waiting {
    start: usize,
    end: usize,
}

impl Waiting {
    fn of(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.start..self.end).unwrap_or_default()
    }

    fn take(&mut self, len: usize) {
        self.start = self.start.saturating_add(len).min(self.end);
    }

    fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// Seals plaintext given in slices of any length.
pub(crate) struct StreamSealer {
    encryptor: Encryptor,
    /// Sealed bytes that wait to be taken, then the chunk that is being filled, then free room.
    buffer: Wiped,
    waiting: Waiting,
    /// Bytes of plaintext in the chunk being filled, always less than a full chunk.
    filled: usize,
}

/// The sealed end of a file, waiting to be taken.
pub(crate) struct SealedEnd {
    buffer: Wiped,
    waiting: Waiting,
}

impl StreamSealer {
    /// `head` is put out before the first chunk.
    pub(crate) fn new(encryptor: Encryptor, head: &[u8]) -> Self {
        // The tag of an empty last chunk always finds room behind the others.
        let mut buffer = Wiped::zeroed(head.len() + CHUNKS * SEALED_CHUNK_LEN + TAG_LEN);
        for (to, from) in buffer.iter_mut().zip(head) {
            *to = *from;
        }
        Self { encryptor, buffer, waiting: Waiting { start: 0, end: head.len() }, filled: 0 }
    }

    /// Where the next plaintext goes. Empty only when output must be taken first.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.waiting.is_empty() && self.filled == 0 {
            self.waiting = Waiting::default();
        }
        let chunk = self.waiting.end;
        if chunk + SEALED_CHUNK_LEN + TAG_LEN > self.buffer.len() {
            return &mut [];
        }
        self.buffer.get_mut(chunk + self.filled..chunk + CHUNK_LEN).unwrap_or_default()
    }

    /// Says that `len` bytes of the space have been filled; seals the chunk if that completes it.
    ///
    /// # Errors
    /// `Limit` beyond 2^38 chunks.
    pub(crate) fn fill(&mut self, len: usize) -> Result<()> {
        self.filled = self.filled.saturating_add(len).min(CHUNK_LEN);
        if self.filled < CHUNK_LEN {
            return Ok(());
        }
        let end = self.waiting.end + SEALED_CHUNK_LEN;
        let chunk = self.buffer.get_mut(self.waiting.end..end).unwrap_or_default();
        self.encryptor.turn(1)?.seal(chunk)?;
        self.waiting.end = end;
        self.filled = 0;
        Ok(())
    }

    /// Sealed bytes to put out.
    pub(crate) fn output(&self) -> &[u8] {
        self.waiting.of(&self.buffer)
    }

    /// Says that the first `len` bytes of the output have been put out.
    pub(crate) fn take(&mut self, len: usize) {
        self.waiting.take(len);
    }

    /// Seals the last chunk. What is left to put out includes earlier output that was not taken.
    pub(crate) fn finish(mut self) -> Result<SealedEnd> {
        let end = self.waiting.end + self.filled + TAG_LEN;
        let chunk = self.buffer.get_mut(self.waiting.end..end).unwrap_or_default();
        self.encryptor.finish().seal(chunk)?;
        Ok(SealedEnd { buffer: self.buffer, waiting: Waiting { start: self.waiting.start, end } })
    }
}

impl SealedEnd {
    /// Sealed bytes to put out; nothing is left when empty.
    pub(crate) fn output(&self) -> &[u8] {
        self.waiting.of(&self.buffer)
    }

    /// Says that the first `len` bytes of the output have been put out.
    pub(crate) fn take(&mut self, len: usize) {
        self.waiting.take(len);
    }
}

/// Opens the chunks of a file, given in slices of any length from the first chunk on. It releases a chunk's plaintext
/// once that chunk is verified, and says that it has ended once the last one is.
pub(crate) struct StreamOpener {
    decryptor: Decryptor,
    /// Sealed chunks as they come; those before `chunk` are opened.
    buffer: Wiped,
    received: usize,
    /// Where the first chunk that is not opened yet starts.
    chunk: usize,
    number: u64,
    waiting: Waiting,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Refused,
}

impl StreamOpener {
    pub(crate) fn new(decryptor: Decryptor) -> Self {
        Self {
            decryptor,
            buffer: Wiped::zeroed(CHUNKS * SEALED_CHUNK_LEN),
            received: 0,
            chunk: 0,
            number: 0,
            waiting: Waiting::default(),
            state: State::Open,
        }
    }

    /// As if `number` full chunks had been opened: for vectors only.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn at(self, number: u64) -> Self {
        Self { number, ..self }
    }

    /// Where the next sealed bytes go. Empty only when output must be taken first, or after the end.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.state != State::Open {
            return &mut [];
        }
        if self.waiting.is_empty() && self.chunk == self.received {
            (self.chunk, self.received) = (0, 0);
        }
        self.buffer.get_mut(self.received..).unwrap_or_default()
    }

    /// Says that `len` bytes of the space have been filled.
    pub(crate) fn fill(&mut self, len: usize) {
        self.received = self.received.saturating_add(len).min(self.buffer.len());
    }

    /// Verified plaintext to take; empty when more sealed bytes are needed or the file has ended. Opens the next chunk
    /// when the one before is taken.
    ///
    /// # Errors
    /// `Unopenable`, and then at every further call.
    pub(crate) fn output(&mut self) -> Result<&[u8]> {
        if self.state == State::Refused {
            return Err(Error::unopenable_file());
        }
        let end = self.chunk + SEALED_CHUNK_LEN;
        if self.waiting.is_empty() && end <= self.received {
            let chunk = self.buffer.get_mut(self.chunk..end).unwrap_or_default();
            if let Err(refused) = self.decryptor.open_block(self.number, chunk) {
                return Err(self.refuse(refused));
            }
            self.waiting = Waiting { start: self.chunk, end: self.chunk + CHUNK_LEN };
            self.chunk = end;
            self.number += 1;
        }
        Ok(self.waiting.of(&self.buffer))
    }

    /// Says that the first `len` bytes of the output have been taken.
    pub(crate) fn take(&mut self, len: usize) {
        self.waiting.take(len);
    }

    /// Whether the last chunk has been verified: then the plaintext put out is the whole file.
    pub(crate) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Says that no more sealed bytes come; opens the last chunk. To be called when [`Self::output`] is empty.
    ///
    /// # Errors
    /// `Unopenable` if the file was truncated or its last chunk does not open.
    pub(crate) fn end(&mut self) -> Result<()> {
        if self.state == State::Ended {
            return Ok(());
        }
        let last = self.buffer.get_mut(self.chunk..self.received).unwrap_or_default();
        let opened = self.decryptor.open_last(self.number, last);
        match opened {
            Ok(len) if self.state == State::Open && self.waiting.is_empty() => {
                self.waiting = Waiting { start: self.chunk, end: self.chunk + len };
                self.state = State::Ended;
                Ok(())
            }
            Ok(_) => {
                Err(self.refuse(Error::unopenable_file().because("it was ended before all that was opened was taken")))
            }
            Err(refused) => Err(self.refuse(refused)),
        }
    }

    fn refuse(&mut self, refused: Error) -> Error {
        self.state = State::Refused;
        self.waiting = Waiting::default();
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::aead::Backend;
    use crate::crypto::chunked::{OpenKey, SALT_LEN, SealKey};
    use crate::crypto::secret::Secret;
    use crate::crypto::suite::Suite;
    use crate::error::ErrorKind;

    const HEAD: &[u8] = b"head";

    fn keys() -> (Encryptor, Decryptor) {
        let (input, salt) = (Secret::take(&mut [1; 32]), [4; SALT_LEN]);
        let (backend, suite) = (Backend::DEFAULT, Suite::Aes256Gcm);
        let seal = SealKey::with_salt(backend, suite, &input, salt, b"c").unwrap();
        let open = OpenKey::verified(backend, suite, &input, &salt, seal.commitment(), b"c").unwrap();
        (Encryptor::new(seal), Decryptor::new(open))
    }

    fn text(len: usize) -> Vec<u8> {
        (0..=250).cycle().take(len).collect()
    }

    /// The head and the sealed chunks of `text`, each sealed by itself.
    fn sealed(text: &[u8]) -> Vec<u8> {
        let (mut encryptor, _) = keys();
        let mut out = HEAD.to_vec();
        let chunks = text.chunks_exact(CHUNK_LEN);
        let mut last = [chunks.remainder(), &[0; TAG_LEN]].concat();
        for chunk in chunks {
            let mut chunk = [chunk, &[0; TAG_LEN]].concat();
            encryptor.turn(1).unwrap().seal(&mut chunk).unwrap();
            out.extend_from_slice(&chunk);
        }
        encryptor.finish().seal(&mut last).unwrap();
        out.extend_from_slice(&last);
        out
    }

    /// Copies what fits, and says how much.
    fn copy(from: &[u8], to: &mut [u8]) -> usize {
        let len = from.len().min(to.len());
        to[..len].copy_from_slice(&from[..len]);
        len
    }

    /// A stream that never ends fails, and does not fill the memory first.
    fn put_out(out: &mut Vec<u8>, part: &[u8], of: &[u8]) {
        out.extend_from_slice(part);
        assert!(
            out.len() <= of.len() + HEAD.len() + (of.len() / CHUNK_LEN + 1) * TAG_LEN,
            "more comes out than went in"
        );
    }

    /// Seals in slices of `given` bytes; output is taken in slices of `taken`, and only where no space is left.
    fn stream(text: &[u8], given: usize, taken: usize) -> Vec<u8> {
        let mut sealer = StreamSealer::new(keys().0, HEAD);
        let (mut rest, mut out) = (text, Vec::new());
        while !rest.is_empty() {
            let len = copy(&rest[..given.min(rest.len())], sealer.space());
            if len == 0 {
                assert!(!sealer.output().is_empty(), "neither space nor output");
                while !sealer.output().is_empty() {
                    let part = &sealer.output()[..taken.min(sealer.output().len())];
                    put_out(&mut out, part, text);
                    let len = part.len();
                    sealer.take(len);
                }
            }
            sealer.fill(len).unwrap();
            rest = &rest[len..];
        }
        let mut end = sealer.finish().unwrap();
        while !end.output().is_empty() {
            let part = &end.output()[..taken.min(end.output().len())];
            put_out(&mut out, part, text);
            let len = part.len();
            end.take(len);
        }
        out
    }

    /// Opens in slices, and says what was put out before it ended or was refused.
    fn open(chunks: &[u8], given: usize) -> (Vec<u8>, Result<()>) {
        let mut opener = StreamOpener::new(keys().1);
        let (mut rest, mut out) = (chunks, Vec::new());
        loop {
            let len = copy(&rest[..given.min(rest.len())], opener.space());
            opener.fill(len);
            rest = &rest[len..];
            loop {
                match opener.output() {
                    Ok([]) => break,
                    Ok(part) => {
                        let len = part.len().min(given);
                        put_out(&mut out, &part[..len], chunks);
                        opener.take(len);
                    }
                    Err(refused) => {
                        assert!(opener.output().is_err() && opener.end().is_err() && opener.space().is_empty());
                        return (out, Err(refused));
                    }
                }
            }
            if rest.is_empty() {
                break;
            }
        }
        assert!(!opener.has_ended());
        if let Err(refused) = opener.end() {
            assert!(opener.output().is_err() && opener.end().is_err() && !opener.has_ended());
            return (out, Err(refused));
        }
        assert!(opener.has_ended() && opener.end().is_ok() && opener.space().is_empty());
        out.extend_from_slice(opener.output().unwrap());
        let left = opener.output().unwrap().len();
        opener.take(left);
        assert!(opener.output().unwrap().is_empty());
        (out, Ok(()))
    }

    #[test]
    fn a_stream_is_the_chunks_whatever_the_slices() {
        for len in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, CHUNKS * CHUNK_LEN, 2 * CHUNKS * CHUNK_LEN + 77] {
            let (text, sealed) = (text(len), sealed(&text(len)));
            for step in [1_000, CHUNK_LEN - 1, CHUNK_LEN, 3 * CHUNK_LEN + 5, usize::MAX] {
                assert!(stream(&text, step, usize::MAX) == sealed, "{len} bytes by {step}");
                assert!(stream(&text, usize::MAX, step) == sealed, "{len} bytes, taken by {step}");
                let (opened, ended) = open(&sealed[HEAD.len()..], step);
                assert!(ended.is_ok() && opened == text, "{len} bytes opened by {step}");
            }
        }
    }

    #[test]
    fn what_was_verified_is_put_out_and_nothing_after_it() {
        let text = text(3 * CHUNK_LEN + 5);
        let sealed = sealed(&text).split_off(HEAD.len());
        for (at, chunks) in [(7, 0), (SEALED_CHUNK_LEN + 7, 1), (sealed.len() - 1, 3)] {
            let mut forged = sealed.clone();
            forged[at] ^= 1;
            for step in [1_000, usize::MAX] {
                let (opened, refused) = open(&forged, step);
                assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::Unopenable), "{at}");
                assert!(opened == text[..chunks * CHUNK_LEN], "{at}");
            }
        }
        for len in [0, TAG_LEN, SEALED_CHUNK_LEN, 2 * SEALED_CHUNK_LEN + 20, sealed.len() - 1] {
            let (opened, refused) = open(&sealed[..len], usize::MAX);
            assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::Unopenable), "{len}");
            assert!(opened == text[..len / SEALED_CHUNK_LEN * CHUNK_LEN], "{len}");
        }
    }

    #[test]
    fn who_ends_a_file_before_its_output_is_taken_is_refused() {
        let sealed = sealed(&text(CHUNK_LEN + 5)).split_off(HEAD.len());
        let mut opener = StreamOpener::new(keys().1);
        let len = copy(&sealed, opener.space());
        opener.fill(len);
        assert_eq!(opener.output().unwrap().len(), CHUNK_LEN);
        for _ in 0..2 {
            assert_eq!(opener.end().map_err(|e| e.kind()), Err(ErrorKind::Unopenable));
            assert!(opener.output().is_err() && !opener.has_ended());
        }
    }

    #[test]
    fn a_full_buffer_has_no_space_until_it_is_taken() {
        let mut sealer = StreamSealer::new(keys().0, HEAD);
        for chunk in 0..CHUNKS {
            assert_eq!(sealer.space().len(), CHUNK_LEN, "{chunk}");
            sealer.fill(CHUNK_LEN).unwrap();
        }
        assert!(sealer.space().is_empty());
        let full = HEAD.len() + CHUNKS * SEALED_CHUNK_LEN;
        assert_eq!(sealer.output().len(), full);
        sealer.take(full - 1);
        assert!(sealer.space().is_empty(), "a byte waits");
        sealer.take(5);
        assert!(sealer.output().is_empty());
        assert_eq!(sealer.space().len(), CHUNK_LEN);
        sealer.fill(CHUNK_LEN - 1).unwrap();
        assert_eq!((sealer.output().len(), sealer.space().len()), (0, 1));
        sealer.fill(9).unwrap();
        assert_eq!(sealer.output().len(), SEALED_CHUNK_LEN, "no more is filled than there is space");

        let mut opener = StreamOpener::new(keys().1);
        assert_eq!(opener.space().len(), CHUNKS * SEALED_CHUNK_LEN);
        opener.fill(usize::MAX);
        assert!(opener.space().is_empty());
    }
}
