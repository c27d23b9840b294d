//! Every adapter gives and takes the same bytes, at every size that a chunk boundary makes interesting.

use std::io::{Cursor, Read, Write};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use strongroom::testing::FileKeys;
use strongroom::{FileHead, FileLayout, Suite};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{CHUNK, CONTEXT, keys, open, open_streaming, plain};

/// 0, 1, and one less, equal to and one more than each number of chunks up to ten.
fn sizes() -> impl Iterator<Item = usize> {
    [0, 1].into_iter().chain((1..=10).flat_map(|n| [n * CHUNK - 1, n * CHUNK, n * CHUNK + 1]))
}

/// A reader that gives odd pieces.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.1 = self.1 * 7 % 9_973 + 1;
        let len = self.1.min(into.len());
        Read::read(&mut self.0, &mut into[..len])
    }
}

fn pieces(bytes: &[u8], len: usize) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> + Unpin {
    let pieces: Vec<_> = bytes.chunks(len).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces)
}

/// One file sealed in every way under one salt: all must be equal, and open in every way.
async fn all_ways(suite: Suite, plaintext: &[u8]) {
    let fresh = || keys(suite).sealer_with_salt(CONTEXT, [7; 24]).unwrap();
    let sealed = fresh().seal_bytes(plaintext).unwrap();
    let layout = FileLayout::of_region("eu-central-1").unwrap();
    assert_eq!(layout.sealed_len(plaintext.len() as u64).unwrap(), sealed.len() as u64);

    let mut writer = fresh().writer(Vec::new());
    for (i, piece) in plaintext.chunks(10_007).enumerate() {
        writer.write_all(piece).unwrap();
        if i % 3 == 0 {
            writer.flush().unwrap();
        }
    }
    assert!(writer.finish().unwrap() == sealed, "Write");

    let mut writer = fresh().async_writer(Vec::new());
    for (i, piece) in plaintext.chunks(20_011).enumerate() {
        writer.write_all(piece).await.unwrap();
        if i % 3 == 0 {
            writer.flush().await.unwrap();
        }
    }
    writer.shutdown().await.unwrap();
    assert!(writer.write_all(b"more").await.is_err());
    assert!(writer.into_inner() == sealed, "AsyncWrite");

    for len in [1_000, 16_384, 300_000] {
        let out: Vec<Bytes> = fresh().stream(pieces(plaintext, len)).try_collect().await.unwrap();
        assert!(out.concat() == sealed, "Stream");
    }

    assert!(&*open(&keys(suite), &sealed).unwrap() == plaintext, "bytes");
    let (released, verdict) = open_streaming(&keys(suite), &sealed);
    verdict.unwrap();
    assert!(released == plaintext, "Read");

    let mut source = Pieces(&sealed, 1);
    let head = FileHead::read_from(&mut source).unwrap();
    let opener = || keys(suite).opener(&head, CONTEXT).unwrap();
    let mut out = Vec::new();
    let mut reader = opener().reader(source);
    reader.read_to_end(&mut out).unwrap();
    assert!(reader.is_whole() && out == plaintext, "Read in pieces");

    let mut source = &sealed[..];
    assert_eq!(FileHead::read_from_async(&mut source).await.unwrap(), head);
    let mut reader = opener().async_reader(source);
    let mut out = Vec::new();
    reader.read_to_end(&mut out).await.unwrap();
    assert!(reader.is_whole() && out == plaintext, "AsyncRead");

    let body = &sealed[head.as_bytes().len()..];
    for len in [1_000, 16_400, 300_000] {
        let out: Vec<Bytes> = opener().stream(pieces(body, len)).try_collect().await.unwrap();
        assert!(out.concat() == plaintext, "Stream");
    }

    let mut out = Vec::new();
    opener().seekable(Cursor::new(&sealed)).unwrap().read_to_end(&mut out).unwrap();
    assert!(out == plaintext, "Seek");

    let ranges = opener().ranges(Bytes::from(sealed.clone()), sealed.len() as u64).unwrap();
    assert_eq!(ranges.verified_len().await.unwrap(), plaintext.len() as u64);
    assert!(*ranges.read_range(0, plaintext.len() as u64).await.unwrap() == *plaintext, "ranges");
}

#[tokio::test]
async fn every_adapter_at_every_chunk_boundary_to_ten_chunks() {
    for suite in Suite::ALL {
        for size in sizes() {
            all_ways(suite, &plain(size)).await;
        }
    }
}

#[test]
fn both_backends_give_the_same_file() {
    const KEY: [u8; 32] = *b"0123456789abcdef0123456789abcdef";
    for suite in Suite::ALL {
        for size in sizes() {
            let plaintext = plain(size);
            let seal =
                |keys: &FileKeys| keys.sealer_with_salt(CONTEXT, [7; 24]).unwrap().seal_bytes(&plaintext).unwrap();
            let portable = FileKeys::portable(suite, KEY).unwrap();
            let sealed = seal(&keys(suite));
            assert!(sealed == seal(&portable));
            assert!(*open(&portable, &sealed).unwrap() == *plaintext);
        }
    }
}

#[tokio::test]
async fn what_is_not_finished_is_refused() {
    let plaintext = plain(3 * CHUNK + 9);
    let keys = keys(Suite::Aes256Gcm);
    let mut out = Vec::new();
    let mut writer = keys.sealer(CONTEXT).unwrap().writer(&mut out);
    writer.write_all(&plaintext).unwrap();
    writer.flush().unwrap();
    drop(writer);
    assert!(out.len() > 3 * CHUNK, "flush writes the full chunks");
    assert!(open(&keys, &out).is_err());

    let failing = pieces(&plaintext, 10_000).chain(stream::iter([Err(std::io::Error::other("lost"))]));
    let sealed: Vec<_> = keys.sealer(CONTEXT).unwrap().stream(failing).collect().await;
    let (last, pieces) = sealed.split_last().unwrap();
    assert!(last.is_err(), "the stream ends with the error");
    let out: Vec<u8> = pieces.iter().flat_map(|piece| piece.as_ref().unwrap().to_vec()).collect();
    assert!(open(&keys, &out).is_err());
}

#[test]
fn a_failing_writer_loses_nothing_that_it_took() {
    /// Fails every third time at first, and takes little at once.
    struct Flaky(Vec<u8>, usize);
    impl Write for Flaky {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.1 += 1;
            if self.1.is_multiple_of(3) && self.1 < 60 {
                return Err(std::io::ErrorKind::WouldBlock.into());
            }
            Write::write(&mut self.0, &bytes[..bytes.len().min(5_000)])
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let plaintext = plain(20 * CHUNK);
    let keys = keys(Suite::Aes256Gcm);
    let mut flaky = Flaky(Vec::new(), 0);
    let mut writer = keys.sealer(CONTEXT).unwrap().writer(&mut flaky);
    let mut rest = &plaintext[..];
    while !rest.is_empty() {
        if let Ok(len) = writer.write(rest) {
            rest = &rest[len..];
        }
    }
    while writer.flush().is_err() {}
    writer.finish().unwrap();
    assert!(*open(&keys, &flaky.0).unwrap() == *plaintext);
}

/// A writer that would block is not lost with what it has not taken yet.
#[test]
fn a_writer_that_would_block_at_the_end_gets_the_rest_later() {
    struct Full(Vec<u8>, usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0.len() >= self.1 {
                return Err(std::io::ErrorKind::WouldBlock.into());
            }
            let len = bytes.len().min(self.1 - self.0.len());
            self.0.extend_from_slice(&bytes[..len]);
            Ok(len)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (plaintext, keys) = (plain(2 * CHUNK + 5), keys(Suite::Aes256Gcm));
    let mut writer = keys.sealer(CONTEXT).unwrap().writer(Full(Vec::new(), 0));
    writer.write_all(&plaintext).unwrap();
    let mut refused = 0;
    while let Err(e) = writer.try_finish() {
        assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock);
        assert!(writer.write(b"more").is_err(), "nothing comes behind the last chunk");
        writer.get_mut().1 += 1_000;
        refused += 1;
        assert!(refused < 100, "it does not get on");
    }
    assert!(refused > 30 && writer.try_finish().is_ok(), "{refused}");
    assert!(*open(&keys, &writer.into_inner().0).unwrap() == *plaintext);
}
