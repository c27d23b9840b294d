//! `ObjectWatermark` on stores that lose answers, lie or refuse.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use strongroom::testing::watermark_contract;
use strongroom::{ErrorKind, Mark, ObjectWatermark, Subject, Watermark};

use super::{mark, tenant};

/// What happens to a request to write.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// Written, and the answer is lost.
    Lost,
    /// Written, the answer lost, the request repeated by the client itself, and refused, since it is there.
    Repeated,
    /// The same, and what is read next fails too.
    LostForLong,
    /// Written, somebody else goes on from there, and the answer is lost.
    Overtaken(Mark),
    /// Somebody else writes this to the fleet's mark just before.
    Preceded(Mark),
    /// Not written.
    Failed,
    /// Not written, by an answer that says so for a reason that does not hold.
    Unfounded,
}

/// A bucket whose writes meet one fault after the other, and then none.
#[derive(Clone, Debug, Default)]
struct Faulty(Arc<State>);

#[derive(Debug, Default)]
struct State {
    bucket: InMemory,
    faults: Mutex<VecDeque<Fault>>,
    is_deaf: Mutex<bool>,
    /// How often it was written to, only to see what it makes of conditions.
    checks: Mutex<u32>,
    /// Of all writes, every third meets a fault too.
    every_third: Mutex<Option<usize>>,
}

fn lost() -> Error {
    Error::Generic { store: "the test", source: "the connection was reset".into() }
}

fn unmet(path: &Path) -> Error {
    Error::Precondition { path: path.to_string(), source: "the condition does not hold".into() }
}

impl Faulty {
    fn meets(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.faults.lock().unwrap().extend(faults);
    }

    fn fault(&self, location: &Path) -> Fault {
        if location.as_ref().ends_with("/conditions") {
            *self.0.checks.lock().unwrap() += 1;
            return Fault::None;
        }
        if let Some(fault) = self.0.faults.lock().unwrap().pop_front() {
            return fault;
        }
        let mut count = self.0.every_third.lock().unwrap();
        let Some(count) = count.as_mut() else { return Fault::None };
        *count += 1;
        match *count % 6 {
            0 => Fault::Lost,
            3 => Fault::Repeated,
            _ => Fault::None,
        }
    }

    /// Somebody else's advance of the fleet's mark, without faults.
    async fn somebody_writes(&self, to: Mark) {
        let theirs = self.watermark();
        let from = theirs.read(&Subject::Fleet).await.unwrap();
        assert!(theirs.advance(&Subject::Fleet, from.as_ref(), &to).await.unwrap());
    }

    fn watermark(&self) -> ObjectWatermark {
        ObjectWatermark::new(self.clone(), "rooms/test").unwrap()
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a faulty bucket")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let fault = self.fault(location);
        match fault {
            Fault::Failed => return Err(lost()),
            Fault::Unfounded => return Err(unmet(location)),
            Fault::Preceded(by) => self.somebody_writes(by).await,
            _ => {}
        }
        let written = self.0.bucket.put_opts(location, payload, opts).await?;
        match fault {
            Fault::Lost => return Err(lost()),
            Fault::Repeated => return Err(unmet(location)),
            Fault::LostForLong => *self.0.is_deaf.lock().unwrap() = true,
            Fault::Overtaken(by) => self.somebody_writes(by).await,
            _ => return Ok(written),
        }
        Err(lost())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if std::mem::take(&mut *self.0.is_deaf.lock().unwrap()) {
            return Err(lost());
        }
        self.0.bucket.get_opts(location, options).await
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.bucket.put_multipart_opts(at, options).await
    }
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.bucket.delete_stream(locations)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.bucket.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.bucket.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.bucket.copy_opts(from, to, options).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_contract_holds_while_every_third_answer_is_lost() {
    let bucket = Faulty::default();
    *bucket.0.every_third.lock().unwrap() = Some(0);
    watermark_contract(Arc::new(bucket.watermark())).await;
    assert!(bucket.0.every_third.lock().unwrap().unwrap() > 100);
}

/// The first mark and a later one: written by `If-None-Match` and by `If-Match`.
const STEPS: [(Option<u64>, u64); 2] = [(None, 1), (Some(1), 2)];

#[tokio::test]
async fn an_answer_that_was_lost_is_told_from_a_write_that_failed() {
    for fault in [Fault::Lost, Fault::Repeated] {
        let bucket = Faulty::default();
        let watermark = bucket.watermark();
        for (from, to) in STEPS {
            let (from, to) = (from.map(|epoch| mark(epoch, 1)), mark(to, 1));
            let advance = || watermark.advance(&Subject::Fleet, from.as_ref(), &to);
            // Nothing was written, whatever the answer says: not a win, and not somebody else's either.
            for failed in [Fault::Failed, Fault::Unfounded] {
                bucket.meets([failed]);
                assert_eq!(advance().await.unwrap_err().kind(), ErrorKind::Unavailable, "{failed:?}");
                assert_eq!(watermark.read(&Subject::Fleet).await.unwrap(), from, "{failed:?}");
            }
            bucket.meets([fault]);
            assert!(advance().await.unwrap(), "{fault:?}: it was written");
            assert!(advance().await.unwrap(), "a repeated advance");
            assert_eq!(watermark.read(&Subject::Fleet).await.unwrap(), Some(to));
        }
    }
}

#[tokio::test]
async fn where_nothing_can_be_read_either_whoever_asks_again_is_told() {
    let bucket = Faulty::default();
    let watermark = bucket.watermark();
    for (from, to) in STEPS {
        let (from, to) = (from.map(|epoch| mark(epoch, 1)), mark(to, 1));
        let advance = || watermark.advance(&Subject::Fleet, from.as_ref(), &to);
        bucket.meets([Fault::LostForLong]);
        assert_eq!(advance().await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(advance().await.unwrap());
        assert_eq!(watermark.read(&Subject::Fleet).await.unwrap(), Some(to));
    }
}

#[tokio::test]
async fn what_others_wrote_is_not_taken_for_ones_own() {
    let bucket = Faulty::default();
    let (one, other) = (bucket.watermark(), bucket.watermark());
    let (first, second, third) = (mark(1, 1), mark(2, 2), mark(3, 3));
    // Both read that there is no mark; the other one writes first.
    bucket.meets([Fault::Preceded(first)]);
    assert!(!one.advance(&Subject::Fleet, None, &second).await.unwrap());
    bucket.meets([Fault::Preceded(second)]);
    assert!(!one.advance(&Subject::Fleet, Some(&first), &third).await.unwrap());
    assert_eq!(other.read(&Subject::Fleet).await.unwrap(), Some(second));
    // One's own was written, the answer lost, and somebody went on from it: it cannot be told any more.
    bucket.meets([Fault::Overtaken(mark(4, 4))]);
    let unknown = one.advance(&Subject::Fleet, Some(&second), &third).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Unavailable);
    assert_eq!(one.read(&Subject::Fleet).await.unwrap(), Some(mark(4, 4)));
}

async fn refused(store: impl ObjectStore) -> strongroom::Error {
    let watermark = ObjectWatermark::new(store, "rooms/test").unwrap();
    watermark.advance(&Subject::Room, None, &mark(1, 1)).await.unwrap_err()
}

#[tokio::test]
async fn a_store_that_does_not_write_on_condition_is_refused_before_a_mark_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let e = refused(object_store::local::LocalFileSystem::new_with_prefix(&folder).unwrap()).await;
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    assert!(e.to_string().contains("does not write on condition"), "{e}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    for ignores in [Ignores::Both, Ignores::Create, Ignores::Update] {
        let bucket = Careless(InMemory::new(), ignores);
        let watermark = ObjectWatermark::new(bucket, "rooms/test").unwrap();
        let e = watermark.advance(&Subject::Room, None, &mark(1, 1)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{ignores:?}");
        assert!(e.to_string().contains("ignores conditions"), "{e}");
        assert_eq!(watermark.read(&Subject::Room).await.unwrap(), None);
    }
}

#[tokio::test]
async fn the_check_of_conditions_is_made_once() {
    let bucket = Faulty::default();
    for _ in 0..2 {
        let watermark = bucket.watermark();
        let subjects = ["a", "b", "c"].map(tenant);
        for subject in &subjects {
            let from = watermark.read(subject).await.unwrap();
            let to = mark(from.map_or(1, |mark| mark.epoch + 1), 1);
            assert!(watermark.advance(subject, from.as_ref(), &to).await.unwrap());
        }
    }
    // Three writes that find out, by the first handle; two by the second.
    assert_eq!(*bucket.0.checks.lock().unwrap(), 5);
}

#[tokio::test]
async fn an_object_that_is_not_the_mark_is_malformed_and_not_written_over() {
    let bucket = Faulty::default();
    let watermark = bucket.watermark();
    for name in ["a", "b"] {
        assert!(watermark.advance(&tenant(name), None, &mark(1, 1)).await.unwrap());
    }
    let [a, b] = ["rooms/test/tenants/a", "rooms/test/tenants/b"].map(|path| Path::parse(path).unwrap());
    let inside = &bucket.0.bucket;
    let text_of =
        async |path| String::from_utf8(inside.get(path).await.unwrap().bytes().await.unwrap().to_vec()).unwrap();
    let (good, of_b) = (text_of(&a).await, text_of(&b).await);
    let two = good.clone() + of_b.lines().last().unwrap() + "\n";
    for bad in
        ["", "x", of_b.as_str(), two.as_str(), &good[..good.len() - 1], &good.repeat(100), "strongroom watermark 1\n"]
    {
        inside.put(&a, bad.to_owned().into()).await.unwrap();
        let refused = [
            watermark.read(&tenant("a")).await.map(drop),
            watermark.advance(&tenant("a"), Some(&mark(1, 1)), &mark(2, 2)).await.map(drop),
            watermark.advance(&tenant("a"), None, &mark(2, 2)).await.map(drop),
        ];
        for refused in refused {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Malformed, "{bad}");
        }
        assert_eq!(text_of(&a).await, bad);
    }
    assert_eq!(watermark.read(&tenant("b")).await.unwrap(), Some(mark(1, 1)));
}

/// A bucket that takes conditions and does not look at them.
#[derive(Debug)]
struct Careless(InMemory, Ignores);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ignores {
    Create,
    Update,
    Both,
}

impl fmt::Display for Careless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a careless bucket")
    }
}

#[async_trait]
impl ObjectStore for Careless {
    async fn put_opts(&self, location: &Path, payload: PutPayload, mut opts: PutOptions) -> Result<PutResult> {
        let ignored = match opts.mode {
            PutMode::Overwrite => false,
            PutMode::Create => self.1 != Ignores::Update,
            PutMode::Update(_) => self.1 != Ignores::Create,
        };
        if ignored {
            opts.mode = PutMode::Overwrite;
        }
        self.0.put_opts(location, payload, opts).await
    }
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }
    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(at, options).await
    }
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}
