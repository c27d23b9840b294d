//! Files against bare AES-256-GCM over the same 16 KiB chunks, against a plain copy and against `rage`, in one run.
//!
//! `memory` stays within the caches. `cores` and `path` take turns, so that a machine that slows down slows all of them, and
//! print medians. `path` is on the disk of the target directory. With the path of the `rage` binary in `RAGE` (`cargo
//! install rage` puts it and `rage-keygen` there), it is among them.

#![allow(clippy::unwrap_used, missing_docs)] // a bench may panic

use std::ffi::OsStr;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use strongroom::testing::FileKeys;
use strongroom::{FileHead, FileLayout, FileOptions, RangeSource, Suite};

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

/// Whether the command line asks for a bench that criterion does not run.
fn asked_for(name: &str) -> bool {
    let mut filters = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    filters.peek().is_none() || filters.any(|filter| name.contains(&filter))
}

type Contender<'a> = (&'a str, Box<dyn FnMut() + 'a>);

/// Runs all by turns and prints the median of each, and how many times faster than the first it is.
fn take_turns(group: &str, bytes: u64, before_each: impl Fn(), contenders: &mut [Contender<'_>]) {
    const ROUNDS: usize = 11;
    let mut times = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for ((_, run), times) in contenders.iter_mut().zip(&mut times) {
            before_each();
            let began = Instant::now();
            run();
            times.push(began.elapsed().as_secs_f64());
        }
    }
    for times in &mut times {
        times.sort_by(f64::total_cmp);
    }
    for ((name, _), sorted) in contenders.iter().zip(&times) {
        let [least, median, most] = [sorted[0], sorted[ROUNDS / 2], sorted[ROUNDS - 1]].map(|seconds| seconds * 1e3);
        let (rate, ratio) =
            (f64::from(u32::try_from(bytes >> 20).unwrap()) / median, times[0][ROUNDS / 2] * 1e3 / median);
        println!("{group}/{name:<32} {median:8.1} ms [{least:.1} to {most:.1}]  {rate:5.2} GiB/s  {ratio:.2} x");
    }
}

/// 256 MiB from a source that costs a memset to a sink that costs nothing, on one core and on all; and the bare cipher on
/// as many, without source, sink or order, which is the most that the machine has to give.
fn cores(_: &mut Criterion) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    const LEN: u64 = 256 << 20;
    if !asked_for("cores") {
        return;
    }
    let all = sched_getaffinity(None).unwrap();
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap());
    let count = all.count();
    let keys = keys();
    // Threads inherit the cores.
    let seal = |cpus: &CpuSet, workers: u32| {
        sched_setaffinity(None, cpus).unwrap();
        let options = FileOptions::new().workers(NonZeroUsize::new(workers as usize).unwrap());
        keys.sealer(CONTEXT).unwrap().pipe_blocking(Source(LEN), std::io::sink(), &options).unwrap();
    };
    let bare = |cpus: &CpuSet, threads: u32| {
        sched_setaffinity(None, cpus).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(move || seal_bare(LEN / u64::from(threads)));
            }
        });
    };
    let contenders: &mut [Contender<'_>] = &mut [
        ("seal, one core", Box::new(|| seal(&one, 1))),
        ("seal, all cores", Box::new(|| seal(&all, count))),
        ("bare, one core", Box::new(|| bare(&one, 1))),
        ("bare, all cores", Box::new(|| bare(&all, count))),
    ];
    take_turns("cores", LEN, || {}, contenders);
    sched_setaffinity(None, &all).unwrap();
}

/// The bare cipher over 1 MiB again and again.
fn seal_bare(len: u64) {
    let bare = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).unwrap());
    let mut block = vec![7; 1 << 20];
    for _ in 0..len >> 20 {
        for chunk in block.chunks_mut(CHUNK) {
            let nonce = Nonce::assume_unique_for_key([9; 12]);
            let _ = black_box(bare.seal_in_place_separate_tag(nonce, Aad::empty(), chunk).unwrap());
        }
    }
}

/// The plain copy to compare with: 1 MiB at a time, then durable if asked to.
fn copy(from: &Path, to: &Path, durably: bool) {
    let (mut from, mut to) = (File::open(from).unwrap(), File::create_new(to).unwrap());
    let mut buffer = vec![0; 1 << 20];
    loop {
        let len = from.read(&mut buffer).unwrap();
        if len == 0 {
            break;
        }
        to.write_all(&buffer[..len]).unwrap();
    }
    if durably {
        to.sync_all().unwrap();
    }
}

/// `rage` and the key pair it is to use.
struct Rage {
    binary: PathBuf,
    identity: PathBuf,
    recipient: String,
}

impl Rage {
    fn new(rage: PathBuf, identity: PathBuf) -> Self {
        let generated = Command::new(rage.with_file_name("rage-keygen")).output().unwrap().stdout;
        fs::write(&identity, &generated).unwrap();
        let generated = String::from_utf8(generated).unwrap();
        let recipient = generated.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
        Self { binary: rage, identity, recipient: recipient.to_owned() }
    }

    fn run(&self, arguments: &[&OsStr], to: &Path) {
        let mut command = Command::new(&self.binary);
        assert!(command.args(arguments).arg("-o").arg(to).status().unwrap().success());
    }

    fn seal(&self, from: &Path, to: &Path) {
        self.run(&["-r".as_ref(), self.recipient.as_ref(), from.as_ref()], to);
    }

    fn open(&self, from: &Path, to: &Path) {
        self.run(&["-d".as_ref(), "-i".as_ref(), self.identity.as_ref(), from.as_ref()], to);
    }
}

fn path(_: &mut Criterion) {
    const LEN: usize = 256 << 20;
    if !asked_for("path") {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let [from, to, sealed, age, identity] =
        ["from", "to", "sealed", "age", "identity"].map(|name| dir.path().join(name));
    fs::write(&from, vec![7; LEN]).unwrap();
    let keys = keys();
    let options = FileOptions::new();
    keys.sealer(CONTEXT).unwrap().seal_path_blocking(&from, &sealed, &options).unwrap();
    let head = FileHead::read_from(&mut File::open(&sealed).unwrap()).unwrap();
    let opener = || keys.opener(&head, CONTEXT).unwrap();
    let fresh = || {
        drop(fs::remove_file(&to));
        rustix::fs::sync();
    };
    let (source, target) = (|path: &Path| File::open(path).unwrap(), || File::create_new(&to).unwrap());
    let rage = std::env::var_os("RAGE").map(|rage| Rage::new(rage.into(), identity));

    let sync = || File::open(&to).unwrap().sync_all().unwrap();
    let seal = || keys.sealer(CONTEXT).unwrap().seal_path_blocking(&from, &to, &options).unwrap();
    let open = || opener().open_path_blocking(&sealed, &to, &options).unwrap();
    let mut contenders: Vec<Contender<'_>> = vec![
        ("plain copy, durable", Box::new(|| copy(&from, &to, true))),
        ("seal, durable", Box::new(seal)),
        ("open, durable", Box::new(open)),
    ];
    if let Some(rage) = &rage {
        rage.seal(&from, &age);
        contenders.push((
            "rage seals, then sync",
            Box::new(|| {
                rage.seal(&from, &to);
                sync();
            }),
        ));
        contenders.push((
            "rage opens, then sync",
            Box::new(|| {
                rage.open(&age, &to);
                sync();
            }),
        ));
    }
    take_turns("path", LEN as u64, fresh, &mut contenders);
    let mut contenders: Vec<Contender<'_>> = vec![
        ("plain copy, not durable", Box::new(|| copy(&from, &to, false))),
        (
            "seal, not durable",
            Box::new(|| keys.sealer(CONTEXT).unwrap().pipe_blocking(source(&from), target(), &options).unwrap()),
        ),
        (
            "open, not durable",
            Box::new(|| {
                let mut chunks = source(&sealed);
                FileHead::read_from(&mut chunks).unwrap();
                opener().pipe_blocking(chunks, target(), &options).unwrap();
            }),
        ),
    ];
    if let Some(rage) = &rage {
        contenders.push(("rage seals", Box::new(|| rage.seal(&from, &to))));
        contenders.push(("rage opens", Box::new(|| rage.open(&age, &to))));
    }
    take_turns("path", LEN as u64, fresh, &mut contenders);
}

/// A sealed file on disk, as a place to fetch ranges from.
struct OnDisk(Arc<File>);

#[async_trait::async_trait]
impl RangeSource for OnDisk {
    async fn fetch(&self, range: Range<u64>) -> Result<Bytes, strongroom::Error> {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
        self.0.read_exact_at(&mut bytes, range.start).unwrap();
        Ok(bytes.into())
    }
}

/// 64 KiB out of 1 GiB on disk, by fetching.
fn range(c: &mut Criterion) {
    const LEN: u64 = 1 << 30;
    const RANGE: Range<u64> = LEN / 2 + 1_000..LEN / 2 + 66_536;
    if !asked_for("range") {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("sealed");
    let keys = keys();
    let target = File::create_new(&path).unwrap();
    keys.sealer(CONTEXT).unwrap().pipe_blocking(Source(LEN), &target, &FileOptions::new()).unwrap();
    target.sync_all().unwrap();
    let sealed_len = target.metadata().unwrap().len();
    let file = Arc::new(File::open(&path).unwrap());
    let head = FileHead::read_from(&mut &*file).unwrap();
    let fetched = head.layout().sealed_range(RANGE, sealed_len).unwrap();
    println!("range: 64 KiB of plaintext fetch {} bytes", fetched.end - fetched.start);

    let reader = keys.opener(&head, CONTEXT).unwrap().ranges(OnDisk(Arc::clone(&file)), sealed_len).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let read = || runtime.block_on(reader.read_range(RANGE.start, RANGE.end - RANGE.start)).unwrap();
    let mut group = c.benchmark_group("range");
    group.throughput(Throughput::Bytes(64 << 10));
    group.bench_function("64 KiB out of 1 GiB, cached", |b| b.iter(read));
    group.bench_function("64 KiB out of 1 GiB, from the disk", |b| {
        let uncached = || rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        b.iter_batched(uncached, |()| read(), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, memory, cores, path, range);
criterion_main!(benches);
