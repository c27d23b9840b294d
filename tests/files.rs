//! Files through the public interface: sizes, adapters, tampering, ranges, paths, and a process that is killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may panic

#[path = "files/adapters.rs"]
mod adapters;
#[path = "files/kill.rs"]
mod kill;
#[path = "files/paths.rs"]
mod paths;
#[path = "files/ranges.rs"]
mod ranges;
#[path = "files/reference.rs"]
mod reference;
#[path = "files/scope.rs"]
mod scope;
#[path = "files/tampering.rs"]
mod tampering;

use std::io::Read;

use strongroom::testing::FileKeys;
use strongroom::{Error, FileHead, Plaintext, Suite};

/// Bytes of plaintext in a full chunk, and of a sealed one.
const CHUNK: usize = 16_384;
const SEALED_CHUNK: usize = CHUNK + 16;
const CONTEXT: &[(&str, &str)] = &[("file", "F1")];

fn keys(suite: Suite) -> FileKeys {
    FileKeys::new(suite, *b"0123456789abcdef0123456789abcdef").unwrap()
}

/// Bytes of which no two chunks are equal.
fn plain(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 31) ^ (i >> 8) ^ (i >> 14)).to_le_bytes()[0]).collect()
}

fn seal(suite: Suite, plaintext: &[u8]) -> Vec<u8> {
    keys(suite).sealer(CONTEXT).unwrap().seal_bytes(plaintext).unwrap()
}

/// Opens a whole file in memory.
fn open(keys: &FileKeys, file: &[u8]) -> Result<Plaintext, Error> {
    keys.opener(&FileHead::parse(file)?, CONTEXT)?.open_bytes(file)
}

/// What a streaming opener releases before it ends or refuses, and which.
fn open_streaming(keys: &FileKeys, mut file: &[u8]) -> (Vec<u8>, Result<(), Error>) {
    let mut released = Vec::new();
    let opened = FileHead::read_from(&mut file).and_then(|head| keys.opener(&head, CONTEXT)).and_then(|opener| {
        let read = opener.reader(file).read_to_end(&mut released);
        read.map(|_| ()).map_err(|e| e.downcast::<Error>().unwrap())
    });
    (released, opened)
}
