//! Files against bare AES-256-GCM over the same 16 KiB chunks, and against a plain copy, in one run.
//!
//! `memory` and `read` stay within the caches; `cores` is pinned to one core and then let loose; `path` is durable (both
//! sides sync) on the disk of the target directory.

#![allow(clippy::unwrap_used, missing_docs)] // a bench may panic

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strongroom::testing::FileKeys;
use strongroom::{FileHead, FileLayout, FileOptions, Suite};

const CHUNK: usize = 16_384;
const CONTEXT: &[(&str, &str)] = &[("file", "F1")];
const KEY: [u8; 32] = *b"0123456789abcdef0123456789abcdef";

fn keys() -> FileKeys {
    FileKeys::new(Suite::Aes256Gcm, KEY).unwrap()
}

/// 256 KiB: fits the second-level cache with its ciphertext.
fn memory(c: &mut Criterion) {
    const LEN: usize = 16 * CHUNK;
    let mut group = c.benchmark_group("memory");
    group.throughput(Throughput::Bytes(LEN as u64));
    let plaintext = vec![7; LEN];
    let bare = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).unwrap());
    let nonce = |chunk: usize| {
        let mut nonce = [9; 12];
        nonce[4..].copy_from_slice(&(chunk as u64).to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    };
    let mut buffer = plaintext.clone();
    group.bench_function("bare AES-256-GCM, seal in place", |b| {
        b.iter(|| {
            for (i, chunk) in buffer.chunks_mut(CHUNK).enumerate() {
                let _ = black_box(bare.seal_in_place_separate_tag(nonce(i), Aad::empty(), chunk).unwrap());
            }
        });
    });
    let len = FileLayout::of_region("eu-central-1").unwrap().sealed_len(LEN as u64).unwrap();
    let mut out = vec![0; usize::try_from(len).unwrap()];
    group.bench_function("seal_bytes_into", |b| {
        b.iter(|| keys().sealer(CONTEXT).unwrap().seal_bytes_into(&plaintext, &mut out).unwrap());
    });
    let sealing = keys();
    // Also where a filter leaves the benches before out.
    sealing.sealer(CONTEXT).unwrap().seal_bytes_into(&plaintext, &mut out).unwrap();
    group.bench_function("seal_bytes_into, key in hand", |b| {
        b.iter(|| sealing.sealer(CONTEXT).unwrap().seal_bytes_into(&plaintext, &mut out).unwrap());
    });
    group.bench_function("seal_bytes, key in hand", |b| {
        b.iter(|| sealing.sealer(CONTEXT).unwrap().seal_bytes(&plaintext).unwrap());
    });
    group.bench_function("SealWriter to a sink, key in hand", |b| {
        b.iter(|| {
            let mut writer = sealing.sealer(CONTEXT).unwrap().writer(std::io::sink());
            writer.write_all(&plaintext).unwrap();
            writer.finish().unwrap();
        });
    });
    let head = FileHead::parse(&out).unwrap();
    group.bench_function("open_bytes, key in hand", |b| {
        b.iter(|| sealing.opener(&head, CONTEXT).unwrap().open_bytes(&out).unwrap());
    });
    group.finish();
}

/// Gives the same block again and again.
struct Source(u64);

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let len = usize::try_from(self.0).unwrap_or(usize::MAX).min(into.len());
        into[..len].fill(7);
        self.0 -= len as u64;
        Ok(len)
    }
}

/// 64 MiB from a source that costs a memset to a sink that costs nothing, on one core and on all.
fn cores(c: &mut Criterion) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    const LEN: u64 = 64 << 20;
    let mut group = c.benchmark_group("cores");
    group.throughput(Throughput::Bytes(LEN)).sample_size(20);
    let all = sched_getaffinity(None).unwrap();
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap());
    let keys = keys();
    let mut run = |name: &str, cpus: &CpuSet| {
        // Threads inherit it.
        sched_setaffinity(None, cpus).unwrap();
        let workers = std::num::NonZeroUsize::new(cpus.count() as usize).unwrap();
        let options = FileOptions::new().workers(workers);
        group.bench_function(name, |b| {
            b.iter(|| keys.sealer(CONTEXT).unwrap().pipe_blocking(Source(LEN), std::io::sink(), &options).unwrap());
        });
    };
    run("one", &one);
    run("all", &all);
    group.finish();
}

/// The plain copy to compare with: 1 MiB at a time, then durable.
fn copy(from: &Path, to: &Path) {
    let (mut from, mut to) = (File::open(from).unwrap(), File::create_new(to).unwrap());
    let mut buffer = vec![0; 1 << 20];
    loop {
        let len = from.read(&mut buffer).unwrap();
        if len == 0 {
            break;
        }
        to.write_all(&buffer[..len]).unwrap();
    }
    to.sync_all().unwrap();
}

fn path(c: &mut Criterion) {
    const LEN: usize = 256 << 20;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let [from, to, sealed] = ["from", "to", "sealed"].map(|name| dir.path().join(name));
    fs::write(&from, vec![7; LEN]).unwrap();
    let keys = keys();
    let options = FileOptions::new();
    keys.sealer(CONTEXT).unwrap().seal_path_blocking(&from, &sealed, &options).unwrap();
    let head = FileHead::read_from(&mut File::open(&sealed).unwrap()).unwrap();
    let mut group = c.benchmark_group("path");
    group.throughput(Throughput::Bytes(LEN as u64)).sample_size(10);
    let fresh = || drop(fs::remove_file(&to));
    group.bench_function("plain copy, synced", |b| b.iter_batched(fresh, |()| copy(&from, &to), BATCH));
    group.bench_function("seal", |b| {
        b.iter_batched(
            fresh,
            |()| keys.sealer(CONTEXT).unwrap().seal_path_blocking(&from, &to, &options).unwrap(),
            BATCH,
        );
    });
    group.bench_function("open", |b| {
        b.iter_batched(
            fresh,
            |()| keys.opener(&head, CONTEXT).unwrap().open_path_blocking(&sealed, &to, &options).unwrap(),
            BATCH,
        );
    });
    group.finish();
}

const BATCH: criterion::BatchSize = criterion::BatchSize::PerIteration;

/// 64 KiB out of 1 GiB, by fetching.
fn range(c: &mut Criterion) {
    const LEN: u64 = 1 << 30;
    let keys = keys();
    let mut sealed = Vec::new();
    keys.sealer(CONTEXT).unwrap().pipe_blocking(Source(LEN), &mut sealed, &FileOptions::new()).unwrap();
    let (head, sealed_len) = (FileHead::parse(&sealed).unwrap(), sealed.len() as u64);
    let sealed = Bytes::from(sealed);
    let reader = keys.opener(&head, CONTEXT).unwrap().ranges(sealed, sealed_len).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut group = c.benchmark_group("range");
    group.throughput(Throughput::Bytes(64 << 10));
    let fetched = head.layout().sealed_range(LEN / 2 + 1_000..LEN / 2 + 66_536, sealed_len).unwrap();
    println!("a range of 64 KiB fetches {} bytes", fetched.end - fetched.start);
    group.bench_function("64 KiB out of 1 GiB", |b| {
        b.iter(|| runtime.block_on(reader.read_range(LEN / 2 + 1_000, 64 << 10)).unwrap());
    });
    group.finish();
}

criterion_group!(benches, memory, cores, path, range);
criterion_main!(benches);
