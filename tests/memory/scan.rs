//! Looks for secrets in another process's memory.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes of a piece: what a spilled general-purpose register holds.
const PIECE: usize = 8;
/// And how many of them, its first, make a find: what fits beside the tag of an enum. Of 2^27 bytes scanned, none is one by chance.
const ENOUGH: usize = 7;
/// Read at once.
const BLOCK: usize = 1 << 20;
const PAGE: usize = 4096;
static UNTOUCHED: [u8; PAGE + ENOUGH] = [0; PAGE + ENOUGH];

/// Secrets to look for. Any 7 bytes of one, from a multiple of 8 on, are a find: half a copy is a copy.
pub(crate) struct Needles {
    names: Vec<String>,
    /// Whose, and from which of its bytes on.
    pieces: HashMap<[u8; ENOUGH], (usize, usize)>,
    /// Whether some piece starts with these two bytes: most places are left at once.
    starts: Vec<bool>,
}

impl Needles {
    pub(crate) fn new() -> Self {
        Self { names: Vec::new(), pieces: HashMap::new(), starts: vec![false; 1 << 16] }
    }

    pub(crate) fn add(&mut self, name: &str, secret: &[u8]) {
        assert!(!secret.is_empty() && secret.len().is_multiple_of(PIECE), "{name}: whole pieces");
        self.names.push(name.to_owned());
        for (n, piece) in secret.as_chunks::<PIECE>().0.iter().enumerate() {
            let piece: [u8; ENOUGH] = *piece.first_chunk().unwrap();
            self.starts[start(piece)] = true;
            let before = self.pieces.insert(piece, (self.names.len() - 1, n * PIECE));
            assert!(before.is_none_or(|(other, _)| self.names[other] == name), "{name} is no secret of its own");
        }
    }
}

impl Needles {
    fn find_in(&self, bytes: &[u8], mut found: impl FnMut((usize, usize), usize)) {
        for (offset, piece) in bytes.array_windows::<ENOUGH>().enumerate() {
            if self.starts[start(*piece)]
                && let Some(what) = self.pieces.get(piece)
            {
                found(*what, offset);
            }
        }
    }
}

fn start(bytes: [u8; ENOUGH]) -> usize {
    usize::from(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// A piece of a secret, and where.
pub(crate) struct Find {
    pub(crate) what: String,
    from_byte: usize,
    address: u64,
    mapping: String,
}

impl Find {
    /// Whether `next` is the next piece of the same copy.
    pub(crate) fn is_followed_by(&self, next: &Self) -> bool {
        let what = self.what == next.what && self.from_byte + PIECE == next.from_byte;
        what && self.address + PIECE as u64 == next.address
    }

    /// Bytes in a run of pieces.
    pub(crate) fn copied(pieces: &[Self]) -> usize {
        pieces.len() * PIECE
    }

    /// Says what a run of pieces is.
    pub(crate) fn copy(pieces: &[Self]) -> String {
        let first = &pieces[0];
        let Self { what, from_byte, address, mapping } = first;
        format!("{} bytes of {what}, from its byte {from_byte} on, at {address:#x} in {mapping}", Self::copied(pieces))
    }
}

/// Every piece of `needles` in the writable memory of the process: heap, stacks, statics, whatever it mapped.
pub(crate) fn scan(pid: u32, needles: &Needles) -> Vec<Find> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut finds = Vec::new();
    let mut scanned = 0;
    for mapping in maps.lines() {
        let mut columns = mapping.split_ascii_whitespace();
        let (range, rights) = (columns.next().unwrap(), columns.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|hex| u64::from_str_radix(hex, 16).unwrap());
        scanned += scan_mapping(&memory, from, to, needles, |(what, from_byte), address| {
            finds.push(Find {
                what: needles.names[what].clone(),
                from_byte,
                address,
                mapping: place(from, to, mapping),
            });
        });
    }
    assert!(scanned > 100_000, "only {scanned} bytes of memory could be read");
    finds
}

fn scan_mapping(
    memory: &File,
    from: u64,
    to: u64,
    needles: &Needles,
    mut found: impl FnMut((usize, usize), u64),
) -> u64 {
    let mut block = vec![0; BLOCK + ENOUGH - 1];
    let mut at = from;
    while at < to {
        // Blocks overlap, so that no piece is cut in two.
        let wanted = usize::try_from(to - at).unwrap_or(usize::MAX).min(block.len());
        let Ok(read) = memory.read_at(&mut block[..wanted], at) else { return at - from };
        for page in (0..read).step_by(PAGE) {
            // With the start of the next one. Most pages were never touched, and no secret is all zero.
            let bytes = &block[page..read.min(page + PAGE + ENOUGH - 1)];
            if bytes != &UNTOUCHED[..bytes.len()] {
                needles.find_in(bytes, |what, offset| found(what, at + (page + offset) as u64));
            }
        }
        if read < ENOUGH {
            return to - from;
        }
        at += (read + 1 - ENOUGH) as u64;
    }
    to - from
}

/// A stack of a thread is a mapping of its size (std's default of 2 MiB) without a name.
fn place(from: u64, to: u64, mapping: &str) -> String {
    match mapping.split_ascii_whitespace().nth(5) {
        Some(name) => name.to_owned(),
        None if to - from == 2 << 20 => "a thread's stack".to_owned(),
        None => "an anonymous mapping".to_owned(),
    }
}
