//! Any range gives the bytes of the plaintext, fetches only its chunks, and never an end that is not the file's.

use std::io::{Cursor, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use futures_util::TryStreamExt;
use proptest::prelude::*;
use strongroom::{Error, ErrorKind, FileHead, RangeReader, RangeSource, Suite};

use super::{CHUNK, CONTEXT, SEALED_CHUNK, keys, plain, seal};

const LEN: usize = 12 * CHUNK + 345;

static PLAIN: LazyLock<Vec<u8>> = LazyLock::new(|| plain(LEN));
static SEALED: LazyLock<Vec<u8>> = LazyLock::new(|| seal(Suite::Aes256Gcm, &PLAIN));

/// Remembers what was fetched.
#[derive(Clone)]
struct Spy {
    file: Bytes,
    fetched: Arc<Mutex<Vec<Range<u64>>>>,
}

#[async_trait::async_trait]
impl RangeSource for Spy {
    async fn fetch(&self, range: Range<u64>) -> Result<Bytes, Error> {
        self.fetched.lock().unwrap().push(range.clone());
        self.file.fetch(range).await
    }
}

fn spy(file: &[u8]) -> (Spy, Result<RangeReader<Spy>, Error>) {
    let spy = Spy { file: Bytes::copy_from_slice(file), fetched: Arc::default() };
    let opener = keys(Suite::Aes256Gcm).opener(&FileHead::parse(file).unwrap(), CONTEXT).unwrap();
    (spy.clone(), opener.ranges(spy, file.len() as u64))
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    result.err().map(|e| e.kind()).expect("refused")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_range_by_fetching(a in 0..=LEN, b in 0..=LEN) {
        let (start, end) = (a.min(b), a.max(b));
        let (spy, reader) = spy(&SEALED);
        let reader = reader.unwrap();
        let got = block_on(reader.read_range(start as u64, (end - start) as u64)).unwrap();
        prop_assert!(*got == PLAIN[start..end]);
        let fetched = spy.fetched.lock().unwrap().clone();
        if start == end {
            prop_assert!(fetched.is_empty());
        } else {
            let chunks = (start / CHUNK..(end - 1) / CHUNK + 1).len() as u64;
            prop_assert_eq!(fetched.len(), 1);
            prop_assert!(fetched[0].end - fetched[0].start <= chunks * SEALED_CHUNK as u64);
        }
        let streamed: Vec<Bytes> =
            block_on(reader.stream(start as u64, (end - start) as u64).try_collect()).unwrap();
        prop_assert!(streamed.concat() == PLAIN[start..end]);
    }

    #[test]
    fn any_walk_by_seeking(steps in proptest::collection::vec((0..3_u8, 0..=LEN, 0..40_000_usize), 1..12)) {
        let opener = keys(Suite::Aes256Gcm).opener(&FileHead::parse(&SEALED).unwrap(), CONTEXT).unwrap();
        let mut ours = opener.seekable(Cursor::new(&*SEALED)).unwrap();
        let mut theirs = Cursor::new(&*PLAIN);
        for (whence, to, len) in steps {
            let position = i64::try_from(theirs.position()).unwrap();
            let to = i64::try_from(to).unwrap();
            let to = match whence {
                0 => SeekFrom::Start(to.unsigned_abs()),
                1 => SeekFrom::Current(to - position),
                _ => SeekFrom::End(-to),
            };
            prop_assert_eq!(ours.seek(to).unwrap(), theirs.seek(to).unwrap());
            let (mut a, mut b) = (Vec::new(), Vec::new());
            ours.by_ref().take(len as u64).read_to_end(&mut a).unwrap();
            theirs.by_ref().take(len as u64).read_to_end(&mut b).unwrap();
            prop_assert!(a == b);
        }
    }
}

#[test]
fn a_long_range_is_streamed_in_pieces_of_a_mebibyte() {
    let plaintext = plain(200 * CHUNK);
    let (spy, reader) = spy(&seal(Suite::Aes256Gcm, &plaintext));
    let reader = reader.unwrap();
    let got: Vec<Bytes> = block_on(reader.stream(100, 199 * CHUNK as u64).try_collect()).unwrap();
    assert!(got.concat() == plaintext[100..100 + 199 * CHUNK]);
    let fetched = spy.fetched.lock().unwrap();
    assert_eq!(fetched.len(), 4);
    assert!(fetched.iter().all(|range| range.end - range.start <= 64 * SEALED_CHUNK as u64));
}

#[test]
fn behind_the_end_is_refused_of_a_verified_length_only() {
    let (_, reader) = spy(&SEALED);
    let reader = reader.unwrap();
    for (offset, len) in [(0, LEN as u64 + 1), (LEN as u64, 1), (LEN as u64 + 1, 0), (u64::MAX, 1), (1, u64::MAX)] {
        assert_eq!(kind(block_on(reader.read_range(offset, len))), ErrorKind::InvalidArgument);
        let streamed: Result<Vec<Bytes>, _> = block_on(reader.stream(offset, len).try_collect());
        assert_eq!(kind(streamed), ErrorKind::InvalidArgument);
    }
    let opener = keys(Suite::Aes256Gcm).opener(&FileHead::parse(&SEALED).unwrap(), CONTEXT).unwrap();
    let mut seekable = opener.seekable(Cursor::new(&*SEALED)).unwrap();
    seekable.seek(SeekFrom::Start(5)).unwrap();
    for to in [
        SeekFrom::Start(LEN as u64 + 1),
        SeekFrom::Start(u64::MAX),
        SeekFrom::End(1),
        SeekFrom::End(i64::MIN),
        SeekFrom::Current(-6),
        SeekFrom::Current(i64::MAX),
    ] {
        assert_eq!(seekable.seek(to).unwrap_err().kind(), std::io::ErrorKind::InvalidInput, "{to:?}");
    }
    assert_eq!(seekable.stream_position().unwrap(), 5, "a refused seek moves nothing");
    assert_eq!(seekable.seek(SeekFrom::End(0)).unwrap(), LEN as u64);
    assert_eq!(seekable.read(&mut [0; 9]).unwrap(), 0);
}

/// A cut that leaves a length which a sealed file can have: nothing but the last chunk can tell.
#[test]
fn a_file_cut_short_reads_up_to_the_cut_and_never_ends() {
    let head = FileHead::parse(&SEALED).unwrap();
    let cut = &SEALED[..head.as_bytes().len() + 5 * SEALED_CHUNK + 1_000];
    let (_, reader) = spy(cut);
    let reader = reader.unwrap();
    let claimed = reader.claimed_len();
    assert_eq!(claimed, (5 * CHUNK + 984) as u64);
    assert!(*block_on(reader.read_range(0, 5 * CHUNK as u64)).unwrap() == PLAIN[..5 * CHUNK]);
    assert_eq!(kind(block_on(reader.verified_len())), ErrorKind::Unopenable);
    assert_eq!(kind(block_on(reader.read_range(5 * CHUNK as u64, 1))), ErrorKind::Unopenable);
    assert_eq!(kind(block_on(reader.read_range(claimed, 1))), ErrorKind::Unopenable, "not: behind the end");

    let opener = || keys(Suite::Aes256Gcm).opener(&head, CONTEXT).unwrap();
    let mut seekable = opener().seekable(Cursor::new(cut)).unwrap();
    let mut out = Vec::new();
    let refused = seekable.read_to_end(&mut out).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidData);
    assert!(out == PLAIN[..5 * CHUNK]);
    seekable.seek(SeekFrom::Start(claimed)).unwrap();
    assert!(seekable.read(&mut [0; 1]).is_err(), "the claimed end is not the end");
    assert_eq!(seekable.seek(SeekFrom::End(0)).unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    assert_eq!(seekable.seek(SeekFrom::Start(claimed + 1)).unwrap_err().kind(), std::io::ErrorKind::InvalidData);

    // Cut between two chunks: no sealed file has this length.
    let cut = &SEALED[..head.as_bytes().len() + 5 * SEALED_CHUNK];
    assert_eq!(kind(spy(cut).1), ErrorKind::Malformed);
    assert_eq!(kind(opener().seekable(Cursor::new(cut))), ErrorKind::Malformed);
}

#[test]
fn a_source_that_lies_is_refused() {
    struct Liar(i64);
    #[async_trait::async_trait]
    impl RangeSource for Liar {
        async fn fetch(&self, range: Range<u64>) -> Result<Bytes, Error> {
            let end = range.end.saturating_add_signed(self.0).min(SEALED.len() as u64);
            Bytes::copy_from_slice(&SEALED).fetch(range.start..end).await
        }
    }
    for lie in [-1, 1, -16_400] {
        let opener = keys(Suite::Aes256Gcm).opener(&FileHead::parse(&SEALED).unwrap(), CONTEXT).unwrap();
        let reader = opener.ranges(Box::new(Liar(lie)) as Box<dyn RangeSource>, SEALED.len() as u64).unwrap();
        // It says nothing of the file: a short answer may pass, and who answers more does not know ranges.
        let expected = if lie < 0 { ErrorKind::Unavailable } else { ErrorKind::InvalidArgument };
        assert_eq!(kind(block_on(reader.read_range(0, 20_000))), expected);
    }
    // A store that says another length than the file has.
    for wrong in [SEALED.len() - 1, SEALED.len() + 1, SEALED.len() + SEALED_CHUNK] {
        let opener = keys(Suite::Aes256Gcm).opener(&FileHead::parse(&SEALED).unwrap(), CONTEXT).unwrap();
        let longer = [&SEALED[..], &vec![0; 2 * SEALED_CHUNK]].concat();
        let reader = opener.ranges(Bytes::from(longer), wrong as u64).unwrap();
        assert_eq!(kind(block_on(reader.verified_len())), ErrorKind::Unopenable);
    }
}
