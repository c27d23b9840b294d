//! A sealed file, mutated, opened in every way with the right key: nothing opens but the file itself, and a streaming,
//! seeking or range opener never releases a byte that is not the file's at that place.
//!
//! The key, the salt and the context are fixed, so that the fuzzer gets past the commitment; with the second suite too.

#![no_main]

use std::io::{Cursor, Read, Seek, SeekFrom};
use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use strongroom::testing::FileKeys;
use strongroom::{FileHead, Suite};

const CONTEXT: &[(&str, &str)] = &[("file", "F1")];
const SEALED_CHUNK: usize = 16_400;

static KEYS: LazyLock<[FileKeys; 2]> =
    LazyLock::new(|| Suite::ALL.map(|suite| FileKeys::new(suite, *b"0123456789abcdef0123456789abcdef").unwrap()));

#[derive(Arbitrary, Debug)]
enum Change {
    Flip { at: u32, bits: u8 },
    Cut { at: u32 },
    CutChunks { chunks: u8, more: u8 },
    Append { bytes: Vec<u8> },
    Swap { one: u8, other: u8 },
    Repeat { chunk: u8 },
    Drop { chunk: u8 },
}

#[derive(Arbitrary, Debug)]
struct Input {
    second_suite: bool,
    len: u32,
    changes: Vec<Change>,
    pieces: Vec<u16>,
    seeks: Vec<(u8, i32, u16)>,
}

fn change(file: &mut Vec<u8>, head: usize, change: &Change) {
    let chunk = |n: u8| head + usize::from(n % 4) * SEALED_CHUNK;
    match change {
        Change::Flip { at, bits } => {
            let len = file.len().max(1);
            if let Some(byte) = file.get_mut(*at as usize % len) {
                *byte ^= bits;
            }
        }
        Change::Cut { at } => file.truncate(*at as usize % (file.len() + 1)),
        Change::CutChunks { chunks, more } => file.truncate(chunk(*chunks) + usize::from(*more)),
        Change::Append { bytes } => file.extend_from_slice(bytes),
        Change::Swap { one, other } => {
            let (one, other) = (chunk(*one), chunk(*other));
            for i in 0..SEALED_CHUNK {
                if one + i < file.len() && other + i < file.len() {
                    file.swap(one + i, other + i);
                }
            }
        }
        Change::Repeat { chunk: n } => {
            let at = chunk(*n);
            if let Some(copy) = file.get(at..at + SEALED_CHUNK).map(<[u8]>::to_vec) {
                file.splice(at..at, copy);
            }
        }
        Change::Drop { chunk: n } => {
            let at = chunk(*n);
            if at + SEALED_CHUNK <= file.len() {
                file.drain(at..at + SEALED_CHUNK);
            }
        }
    }
}

/// Gives pieces of lengths that the fuzzer chose.
struct Pieces<'a> {
    rest: &'a [u8],
    lens: std::iter::Cycle<std::slice::Iter<'a, u16>>,
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let len = self.lens.next().map_or(into.len(), |len| usize::from(*len) + 1).min(into.len());
        self.rest.read(&mut into[..len])
    }
}

fn run(input: &Input) {
    let plaintext: Vec<u8> = (0..input.len % 70_000).map(|i| ((i * 31) ^ (i >> 8)).to_le_bytes()[0]).collect();
    let keys = &KEYS[usize::from(input.second_suite)];
    let honest = keys.sealer_with_salt(CONTEXT, [7; 24]).unwrap().seal_bytes(&plaintext).unwrap();
    let head_len = FileHead::parse(&honest).unwrap().as_bytes().len();
    let mut file = honest.clone();
    for one in input.changes.iter().take(8) {
        change(&mut file, head_len, one);
    }
    let is_honest = file == honest;
    let Ok(head) = FileHead::parse(&file) else {
        assert!(!is_honest);
        return;
    };
    let opener = || keys.opener(&head, CONTEXT);
    let Ok(whole) = opener() else {
        assert!(!is_honest);
        return;
    };
    match whole.open_bytes(&file) {
        Ok(text) => assert!(is_honest && *text == *plaintext),
        Err(_) => assert!(!is_honest),
    }

    let mut released = Vec::new();
    let pieces = Pieces { rest: &file[head_len..], lens: input.pieces.iter().cycle() };
    let read = opener().unwrap().reader(pieces).read_to_end(&mut released);
    assert_eq!(read.is_ok(), is_honest);
    assert!(plaintext.starts_with(&released));

    let Ok(mut seekable) = opener().unwrap().seekable(Cursor::new(&file)) else {
        assert!(!is_honest);
        return;
    };
    let ranges = opener().unwrap().ranges(Bytes::copy_from_slice(&file), file.len() as u64).unwrap();
    for (whence, to, len) in input.seeks.iter().take(16) {
        let to = match whence % 3 {
            0 => SeekFrom::Start(u64::from(to.unsigned_abs())),
            1 => SeekFrom::Current((*to).into()),
            _ => SeekFrom::End((*to).into()),
        };
        let Ok(at) = seekable.seek(to) else { continue };
        let mut got = Vec::new();
        let read = seekable.by_ref().take(u64::from(*len)).read_to_end(&mut got);
        // Whatever was released is the plaintext's at that place.
        let at = usize::try_from(at).unwrap();
        assert!(got.is_empty() || plaintext.get(at..at + got.len()) == Some(&got[..]));
        if read.is_ok() && got.len() < usize::from(*len) {
            assert_eq!(at + got.len(), plaintext.len(), "an end that is not the file's");
        }
        if let Ok(text) = futures_executor::block_on(ranges.read_range(at as u64, (*len).into())) {
            // A range of no bytes is read without a request and so without verifying anything: it says nothing of the length.
            let expected = if *len == 0 { Some(&[][..]) } else { plaintext.get(at..at + usize::from(*len)) };
            assert_eq!(expected, Some(&*text));
        }
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) {
        run(&input);
    }
});
