//! Whatever is done to a sealed file, it does not open; and a streaming opener has released only what was right so far.

use strongroom::testing::FileKeys;
use strongroom::{Error, ErrorKind, FileHead, Suite};

use super::{CHUNK, CONTEXT, SEALED_CHUNK, keys, open, open_streaming, plain, seal};

fn refused<T>(opened: Result<T, Error>, what: &str) {
    match opened {
        Ok(_) => panic!("{what}: opened"),
        Err(e) => assert!(matches!(e.kind(), ErrorKind::Unopenable | ErrorKind::Malformed), "{what}: {e}"),
    }
}

/// Refused by every way of opening, with nothing wrong released.
fn refused_everywhere(keys: &FileKeys, file: &[u8], plaintext: &[u8], what: &str) {
    refused(open(keys, file), what);
    let (released, verdict) = open_streaming(keys, file);
    refused(verdict, what);
    assert!(plaintext.starts_with(&released), "{what}: released {} wrong bytes", released.len());
    assert_eq!(released.len() % CHUNK, 0, "{what}: released part of a chunk");
}

#[test]
fn every_bit_flip_in_head_and_tags() {
    for suite in Suite::ALL {
        let plaintext = plain(2 * CHUNK + 5);
        let sealed = seal(suite, &plaintext);
        let head = FileHead::parse(&sealed).unwrap().as_bytes().len();
        let tags = [head + CHUNK, head + SEALED_CHUNK + CHUNK, sealed.len() - 16];
        let places = (0..head).chain(tags.into_iter().flat_map(|tag| tag..tag + 16));
        for at in places {
            for bit in 0..8 {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1 << bit;
                refused_everywhere(&keys(suite), &flipped, &plaintext, &format!("byte {at} bit {bit}"));
            }
        }
        // And a bit in the text of each chunk.
        for at in [head, head + CHUNK - 1, head + SEALED_CHUNK + 99, sealed.len() - 17] {
            let mut flipped = sealed.clone();
            flipped[at] ^= 0x10;
            refused_everywhere(&keys(suite), &flipped, &plaintext, &format!("byte {at}"));
        }
    }
}

#[test]
fn every_truncation_of_a_three_chunk_file() {
    let keys = keys(Suite::Aes256Gcm);
    let plaintext = plain(2 * CHUNK + 16_000);
    let sealed = seal(Suite::Aes256Gcm, &plaintext);
    let head = FileHead::parse(&sealed).unwrap();
    for len in 0..sealed.len() {
        let opened = if len < head.as_bytes().len() {
            FileHead::parse(&sealed[..len]).map(|_| ())
        } else {
            keys.opener(&head, CONTEXT).unwrap().open_bytes(&sealed[..len]).map(|_| ())
        };
        refused(opened, &format!("length {len}"));
    }
    // The streaming opener, at every 61st length and around each boundary.
    let boundaries = [head.as_bytes().len(), SEALED_CHUNK, 2 * SEALED_CHUNK, sealed.len()];
    let near = |len: usize| boundaries.iter().any(|b| len.abs_diff(*b) < 150);
    for len in (0..sealed.len()).filter(|len| len % 61 == 0 || near(*len)) {
        refused_everywhere(&keys, &sealed[..len], &plaintext, &format!("length {len}"));
    }
}

/// The chunks of `sealed` in another order or number.
fn rearranged(sealed: &[u8], order: &[usize]) -> Vec<u8> {
    let head = FileHead::parse(sealed).unwrap().as_bytes().len();
    let chunks: Vec<&[u8]> = sealed[head..].chunks(SEALED_CHUNK).collect();
    let mut file = sealed[..head].to_vec();
    for i in order {
        file.extend_from_slice(chunks[*i]);
    }
    file
}

#[test]
fn reordering_duplication_omission_and_appending() {
    for suite in Suite::ALL {
        let plaintext = plain(3 * CHUNK + 7);
        let sealed = seal(suite, &plaintext);
        assert_eq!(rearranged(&sealed, &[0, 1, 2, 3]), sealed);
        let orders: [&[usize]; 13] = [
            &[1, 0, 2, 3],
            &[0, 2, 1, 3],
            &[3, 0, 1, 2],
            &[0, 0, 2, 3],
            &[0, 1, 1, 2, 3],
            &[0, 1, 2, 2],
            &[0, 1, 2],
            &[1, 2, 3],
            &[0, 2, 3],
            &[3],
            &[0, 1, 2, 3, 3],
            &[0, 1, 2, 3, 0, 1, 2, 3],
            &[],
        ];
        for order in orders {
            refused_everywhere(&keys(suite), &rearranged(&sealed, order), &plaintext, &format!("{order:?}"));
        }
        for trailing in [1, 15, 16, 17, CHUNK, SEALED_CHUNK, SEALED_CHUNK + 16] {
            let longer = [&sealed[..], &vec![0; trailing]].concat();
            refused_everywhere(&keys(suite), &longer, &plaintext, &format!("{trailing} trailing bytes"));
        }
    }
}

#[test]
fn splicing_chunks_and_heads_of_files_under_one_key() {
    for suite in Suite::ALL {
        let plaintext = plain(2 * CHUNK + 5);
        let (one, other) = (seal(suite, &plaintext), seal(suite, &plaintext));
        assert_ne!(one, other, "a salt of its own for each file");
        let head = FileHead::parse(&one).unwrap().as_bytes().len();
        for at in [head - 56, head - 32, head, head + SEALED_CHUNK, head + 2 * SEALED_CHUNK] {
            let spliced = [&one[..at], &other[at..]].concat();
            if at == head - 56 {
                // Magic and header are equal: this is the other file.
                assert_eq!(spliced, other);
                continue;
            }
            refused_everywhere(&keys(suite), &spliced, &plaintext, &format!("spliced at {at}"));
        }
    }
}

#[test]
fn another_context_key_suite_or_kind_of_envelope() {
    for suite in Suite::ALL {
        let sealed = seal(suite, b"hello");
        let head = FileHead::parse(&sealed).unwrap();
        for context in [&[][..], &[("file", "F2")], &[("fila", "F1")], &[("file", "F1"), ("x", "")]] {
            refused(keys(suite).opener(&head, context), "another context");
        }
        let other_key = FileKeys::new(suite, *b"1123456789abcdef0123456789abcdef").unwrap();
        refused(other_key.opener(&head, CONTEXT), "another key");
        for other in Suite::ALL.into_iter().filter(|other| *other != suite) {
            refused(keys(other).opener(&head, CONTEXT), "another suite");
            let mut swapped = sealed.clone();
            swapped[9] = other.byte();
            refused(open(&keys(suite), &swapped), "another suite byte");
        }
        refused(FileHead::parse(&sealed[8..]), "a message's header");
    }
}

#[test]
fn an_opener_opens_its_own_file_only() {
    let keys = keys(Suite::Aes256Gcm);
    let (one, other) = (seal(Suite::Aes256Gcm, b"one"), seal(Suite::Aes256Gcm, b"two"));
    let opener = keys.opener(&FileHead::parse(&one).unwrap(), CONTEXT).unwrap();
    refused(opener.open_bytes(&other), "another file");
}

#[test]
fn a_refused_reader_stays_refused() {
    use std::io::Read;
    let keys = keys(Suite::Aes256Gcm);
    let mut sealed = seal(Suite::Aes256Gcm, &plain(3 * CHUNK));
    let head = FileHead::parse(&sealed).unwrap();
    sealed[head.as_bytes().len() + SEALED_CHUNK] ^= 1;
    let mut reader = keys.opener(&head, CONTEXT).unwrap().reader(&sealed[head.as_bytes().len()..]);
    let mut out = vec![0; CHUNK];
    reader.read_exact(&mut out).unwrap();
    for _ in 0..3 {
        assert_eq!(reader.read(&mut out).unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    }
    assert!(!reader.is_whole());
}
