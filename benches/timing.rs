//! Does time tell where secrets differ? The test of dudect (Reparaz, Balasch, Verbauwhede: "Dude, is my code constant time?",
//! DATE 2017): two classes of inputs in random turns, and Welch's t between their times; |t| of 4.5 or more says that they
//! can be told apart. `cargo bench --bench timing`; an argument says how many measurements (100000).
//!
//! Outside of CI: a machine that does other things too says little. Hence five repetitions, each with its t at the worst of
//! several crops, and a comparison that does leak, which has to be found out.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use rand::rngs::{StdRng, SysRng};
use rand::{RngExt, SeedableRng};
use strongroom::testing::vectors::same_key_id;
use strongroom::testing::{Operator, encryption_context};
use strongroom::{EncryptionContext, HotScope, KeyId, Kms, LocalKms, MemoryKeyStore, Region, Strongroom, TenantPolicy};

/// From here on two classes differ (dudect's own bound).
const DIFFERENT: f64 = 4.5;
/// The comparison that leaks has to be at least here.
const CONTROL: f64 = 10.0;
const REPETITIONS: usize = 5;
/// Percent of the measurements, from the fastest on, that are compared: interrupts only ever add time.
const CROPS: [usize; 6] = [100, 99, 95, 90, 75, 50];

/// Sums for Welch's t, numerically stable (Welford).
#[derive(Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let off = value - self.mean;
        self.mean += off / self.count;
        self.squares += off * (value - self.mean);
    }

    fn variance_of_mean(&self) -> f64 {
        self.squares / (self.count - 1.0) / self.count
    }
}

/// Welch's t of the times of class 0 and class 1 that are at most `limit`.
fn welch(times: &[(usize, u64)], limit: u64) -> f64 {
    let mut classes = [Moments::default(), Moments::default()];
    times.iter().filter(|(_, time)| *time <= limit).for_each(|(class, time)| classes[*class].add(*time as f64));
    let [a, b] = &classes;
    (a.mean - b.mean) / (a.variance_of_mean() + b.variance_of_mean()).sqrt()
}

/// Of all crops, the t that is farthest from 0. A crop without one of the classes has none.
fn worst(times: &[(usize, u64)]) -> f64 {
    let mut sorted: Vec<_> = times.iter().map(|(_, time)| *time).collect();
    sorted.sort_unstable();
    let at = |percent: usize| sorted[(sorted.len() * percent / 100).max(1) - 1];
    let ts = CROPS.map(|percent| welch(times, at(percent))).into_iter().filter(|t| t.is_finite());
    ts.max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap()
}

/// Times `batch` runs of `work` on one of two inputs at a time, which stands in the same place whichever it is.
fn measure(measurements: usize, batch: usize, inputs: [&[u8]; 2], mut work: impl FnMut(&[u8])) -> Vec<(usize, u64)> {
    let mut place = inputs[0].to_vec();
    let mut classes = StdRng::try_from_rng(&mut SysRng).unwrap();
    let mut once = || {
        let class = usize::from(classes.random::<bool>());
        // Both are copied, so that both are in the caches alike.
        place.copy_from_slice(black_box(inputs[1 - class]));
        place.copy_from_slice(black_box(inputs[class]));
        let start = Instant::now();
        (0..batch).for_each(|_| work(black_box(&place)));
        (class, u64::try_from(start.elapsed().as_nanos()).unwrap())
    };
    (0..measurements / 10).for_each(|_| _ = once());
    (0..measurements).map(|_| once()).collect()
}

type Work<'a> = Box<dyn FnMut(&[u8]) + 'a>;

struct Case<'a> {
    what: &'static str,
    /// Runs for one measurement, so that a clock of nanoseconds is fine enough.
    batch: usize,
    inputs: [&'a [u8]; 2],
    work: Work<'a>,
}

/// Prints the t of each repetition and returns how many say that the classes differ.
fn report(measurements: usize, case: &mut Case<'_>, bound: f64) -> usize {
    let ts: Vec<_> =
        (0..REPETITIONS).map(|_| worst(&measure(measurements, case.batch, case.inputs, &mut case.work))).collect();
    let told = ts.iter().filter(|t| t.abs() >= bound).count();
    let list: Vec<_> = ts.iter().map(|t| format!("{t:8.2}")).collect();
    println!("{:<58} {}   {told} of {REPETITIONS} tell them apart", case.what, list.join(" "));
    told
}

/// Polls once: nothing here waits.
fn ready<T>(call: impl Future<Output = T>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => unreachable!("nothing here waits"),
    }
}

/// `bytes` with one bit flipped at `at`, from the end if negative.
fn flipped(bytes: &[u8], at: isize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    let at = if at < 0 { flipped.len() - at.unsigned_abs() } else { at.unsigned_abs() };
    flipped[at] ^= 1;
    flipped
}

/// What must not be done: leaves at the first byte that differs.
#[inline(never)]
fn leaking(a: &[u8], b: &[u8]) -> bool {
    a.iter().zip(b).all(|(a, b)| black_box(a) == black_box(b))
}

async fn hot() -> HotScope {
    let kms = LocalKms::in_memory();
    let region = Region::new("eu-central-1").unwrap();
    let kek = kms.create_kek("acme", region.clone()).unwrap();
    let room = Strongroom::builder().serving(["eu-central-1"]).key_store(MemoryKeyStore::default()).kms(kms);
    let room = room.open_under(&Operator::default()).await;
    room.admin("a test", "to test")
        .unwrap()
        .enroll("acme", TenantPolicy::new(kek, region).bind(["message"]))
        .await
        .unwrap();
    room.tenant("acme").await.unwrap().scope([]).unwrap().hot().await.unwrap()
}

fn main() {
    let measurements = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(100_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();

    let id = [0x5A; 32];
    let own = KeyId::from_bytes(id);
    let ids = [flipped(&id, 0), flipped(&id, -1)];
    let id_of = |bytes: &[u8]| KeyId::from_bytes(bytes.try_into().unwrap());

    let kms = LocalKms::in_memory();
    let kek = kms.create_kek("acme", Region::new("eu-central-1").unwrap()).unwrap();
    let context = |tenant: &[u8]| encryption_context(std::str::from_utf8(tenant).unwrap(), "eu-central-1");
    let right = context(b"acme");
    let wrapped = ready(kms.generate(&kek, &right)).unwrap().wrapped;
    let unwrap =
        |context: &EncryptionContext, wrapped: &[u8]| drop(black_box(ready(kms.unwrap(&kek, context, wrapped))));
    let tags = [flipped(&wrapped, -16), flipped(&wrapped, -1)];
    // With a tenant's name behind the wrapping, for a context that is made in the same place for both.
    let contexts = [[&wrapped[..], b"acmf"].concat(), [&tags[0][..], b"acme"].concat()];

    let hot = runtime.block_on(hot());
    let sealed = hot.seal(&[("message", "M77")], &[7; 256]).unwrap();
    let open = |sealed: &[u8]| drop(black_box(hot.open(&[("message", "M77")], sealed)));
    let sealed_tags = [flipped(&sealed, -16), flipped(&sealed, -1)];
    let texts = [flipped(&sealed, -17), flipped(&sealed, -16)];
    let ends = [flipped(&sealed, -64), flipped(&sealed, -1)];
    let starts = [flipped(&sealed, -272), flipped(&sealed, -17)];

    println!("Welch's t, worst of {} crops, {measurements} measurements, {REPETITIONS} repetitions:", CROPS.len());
    let mut controls = [
        Case {
            what: "control: a comparison that leaves early",
            batch: 100,
            inputs: [&ids[0], &ids[1]],
            work: Box::new(|bytes| _ = black_box(leaking(bytes, &id))),
        },
        Case {
            what: "control: the same of 64 bytes, after a whole opening",
            batch: 1,
            inputs: [&ends[0], &ends[1]],
            work: Box::new(|bytes| {
                open(bytes);
                let end = |envelope: &[u8]| *envelope.last_chunk::<64>().unwrap();
                black_box(leaking(&end(bytes), &end(&sealed)));
            }),
        },
    ];
    let found_out = controls.iter_mut().all(|control| report(measurements, control, CONTROL) == REPETITIONS);
    let mut cases = [
        Case {
            what: "key id: first or last byte differs",
            batch: 100,
            inputs: [&ids[0], &ids[1]],
            work: Box::new(|bytes| _ = black_box(same_key_id(&own, &id_of(bytes)))),
        },
        Case {
            what: "unwrap: first or last byte of the tag wrong",
            batch: 1,
            inputs: [&tags[0], &tags[1]],
            work: Box::new(|bytes| unwrap(&right, bytes)),
        },
        Case {
            what: "unwrap: context or tag wrong",
            batch: 1,
            inputs: [&contexts[0], &contexts[1]],
            work: Box::new(|bytes| {
                let (wrapped, tenant) = bytes.split_at(bytes.len() - 4);
                unwrap(&context(tenant), wrapped);
            }),
        },
        Case {
            what: "open: first or last byte of the tag wrong",
            batch: 1,
            inputs: [&sealed_tags[0], &sealed_tags[1]],
            work: Box::new(open),
        },
        Case { what: "open: ciphertext or tag wrong", batch: 1, inputs: [&texts[0], &texts[1]], work: Box::new(open) },
        Case {
            what: "open: first or last byte of the ciphertext wrong",
            batch: 1,
            inputs: [&starts[0], &starts[1]],
            work: Box::new(open),
        },
    ];
    let told: Vec<_> = cases.iter_mut().map(|case| (case.what, report(measurements, case, DIFFERENT))).collect();
    assert!(found_out, "a control was not found out: the figures say nothing on this machine");
    // Other work on the machine can make one repetition differ; a leak makes all.
    let leaks: Vec<_> = told.iter().filter(|(_, told)| 2 * told > REPETITIONS).map(|(what, _)| what).collect();
    assert!(leaks.is_empty(), "time tells: {leaks:?}");
}
