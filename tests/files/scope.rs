//! Files at the handle of a scope: whose key they are under, and who gets it.

use std::io::{Cursor, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use strongroom::testing::{FaultyKms, ManualClock, Operator};
use strongroom::{
    Error, ErrorKind, FileHead, FileOptions, LocalKms, MemoryKeyStore, Region, ScopeHandle, Selector, Strongroom,
    TenantPolicy,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{CONTEXT, plain};

const HOME: &str = "eu-central-1";
const AWAY: &str = "us-east-1";

/// A room that serves `region` only, where `acme` and `globex` are at home.
struct House {
    room: Strongroom,
    kms: FaultyKms,
    clock: ManualClock,
}

impl House {
    async fn of(region: &str) -> Self {
        let local = LocalKms::in_memory();
        let (kms, clock) = (FaultyKms::new(local.clone()), ManualClock::at(1_795_324_649_500));
        let room = Strongroom::builder()
            .serving([region])
            .key_store(Arc::new(MemoryKeyStore::default()))
            .kms(kms.clone())
            .clock(clock.clone())
            .open_under(&Operator::default())
            .await;
        let region = Region::new(region).unwrap();
        for tenant in ["acme", "globex"] {
            let kek = local.create_kek(tenant, region.clone()).unwrap();
            let policy = TenantPolicy::new(kek, region.clone()).scope_by(["channel"]).allow_unbound_files();
            room.admin("a test", "to test").unwrap().enroll(tenant, policy).await.unwrap();
        }
        Self { room, kms, clock }
    }

    async fn channel(&self, tenant: &str, channel: &str) -> ScopeHandle {
        self.room.tenant(tenant).await.unwrap().scope([("channel", channel)]).unwrap()
    }
}

fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    result.err().map(|e| e.kind()).expect("refused")
}

async fn seal(scope: &ScopeHandle) -> (Vec<u8>, FileHead) {
    let sealed = scope.file_sealer(CONTEXT).await.unwrap().seal_bytes(&plain(20_000)).unwrap();
    let head = FileHead::parse(&sealed).unwrap();
    (sealed, head)
}

/// Whether the other's keys are in hand or have to be asked for makes no difference.
#[tokio::test]
async fn a_file_opens_under_its_own_tenant_scope_and_context_only() {
    for warm in [false, true] {
        let house = House::of(HOME).await;
        let own = house.channel("acme", "C9").await;
        let others = [house.channel("acme", "C8").await, house.channel("globex", "C9").await];
        let (sealed, head) = seal(&own).await;
        if warm {
            for other in &others {
                seal(other).await;
            }
        } else {
            house.room.admin("a test", "to test").unwrap().purge("acme").unwrap();
        }
        for other in &others {
            assert_eq!(kind(other.file_opener(CONTEXT, &head).await), ErrorKind::Unopenable);
        }
        let contexts: [&[(&str, &str)]; 4] =
            [&[], &[("file", "F2")], &[("fil", "F1")], &[("file", "F1"), ("page", "1")]];
        for context in contexts {
            assert_eq!(kind(own.file_opener(context, &head).await), ErrorKind::Unopenable, "{context:?}");
        }
        let opened = own.file_opener(CONTEXT, &head).await.unwrap().open_bytes(&sealed).unwrap();
        assert!(*opened == *plain(20_000));
    }
}

#[tokio::test]
async fn paths_refuse_another_scope_and_leave_nothing() {
    let house = House::of(HOME).await;
    let (own, other) = (house.channel("acme", "C9").await, house.channel("acme", "C8").await);
    let dir = tempfile::tempdir().unwrap();
    let [from, sealed, back] = ["from", "sealed", "back"].map(|name| dir.path().join(name));
    std::fs::write(&from, plain(20_000)).unwrap();
    own.seal_file(CONTEXT, &from, &sealed, FileOptions::new()).await.unwrap();
    assert_eq!(kind(other.open_file(CONTEXT, &sealed, &back, FileOptions::new()).await), ErrorKind::Unopenable);
    assert_eq!(kind(own.open_file(&[], &sealed, &back, FileOptions::new()).await), ErrorKind::Unopenable);
    assert!(!back.exists());
    own.open_file(CONTEXT, &sealed, &back, FileOptions::new()).await.unwrap();
    assert!(std::fs::read(&back).unwrap() == plain(20_000));
}

/// The key is unknown here as well: had the store been asked first, it would be `Unopenable`.
#[tokio::test]
async fn a_region_that_is_not_served_is_refused_before_any_call() {
    let (here, away) = (House::of(HOME).await, House::of(AWAY).await);
    let (_, head) = seal(&away.channel("acme", "C9").await).await;
    let scope = here.channel("acme", "C9").await;
    let before = here.kms.calls();
    assert_eq!(kind(scope.file_opener(CONTEXT, &head).await), ErrorKind::Region);
    assert_eq!(here.kms.calls(), before);
}

#[tokio::test]
async fn after_a_revocation_nothing_new_is_sealed_or_opened() {
    let house = House::of(HOME).await;
    let admin = house.room.admin("a test", "to test").unwrap();
    let (own, other) = (house.channel("acme", "C9").await, house.channel("acme", "C8").await);
    let (sealed, head) = seal(&own).await;
    let under_way = own.file_opener(CONTEXT, &head).await.unwrap();
    let selector = Selector::fields([("channel", "C9")]);
    admin.revoke("acme", selector.clone()).await.unwrap();
    assert_eq!(kind(own.file_sealer(CONTEXT).await), ErrorKind::Revoked);
    assert_eq!(kind(own.file_opener(CONTEXT, &head).await), ErrorKind::Revoked);
    assert!(other.file_sealer(CONTEXT).await.is_ok());
    // An opener holds the key of its one file.
    assert!(under_way.open_bytes(&sealed).is_ok());
    admin.restore("acme", selector).await.unwrap();
    assert!(own.file_opener(CONTEXT, &head).await.unwrap().open_bytes(&sealed).is_ok());
}

/// Whichever way a file is opened or sealed, who reads the error knows whose it was and what was being done.
#[tokio::test]
async fn an_error_of_any_adapter_names_tenant_region_and_operation() {
    let house = House::of(HOME).await;
    let scope = house.channel("acme", "C9").await;
    let (mut sealed, head) = seal(&scope).await;
    let end = sealed.len() - 1;
    sealed[end] ^= 1;
    let opener = || async { scope.file_opener(CONTEXT, &head).await.unwrap() };
    let (len, chunks) = (sealed.len() as u64, &sealed[head.as_bytes().len()..]);
    let folder = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
    std::fs::write(&from, &sealed).unwrap();
    let ours = |e: std::io::Error| e.downcast::<Error>().unwrap();

    let mut errors = vec![
        opener().await.open_bytes(&sealed).err().unwrap(),
        ours(opener().await.reader(chunks).read_to_end(&mut Vec::new()).unwrap_err()),
        ours(opener().await.async_reader(chunks).read_to_end(&mut Vec::new()).await.unwrap_err()),
        opener().await.seekable(Cursor::new(&sealed)).unwrap().verified_len().unwrap_err(),
        ours(opener().await.seekable(Cursor::new(&sealed)).unwrap().read_to_end(&mut Vec::new()).unwrap_err()),
        ours(opener().await.seekable(Cursor::new(&sealed)).unwrap().seek(SeekFrom::End(1)).unwrap_err()),
        opener().await.seekable(Cursor::new(&[0; 7])).err().unwrap(),
        opener().await.pipe_blocking(chunks, Vec::new(), &FileOptions::new()).unwrap_err(),
        opener().await.open_path_blocking(&from, &to, &FileOptions::new()).unwrap_err(),
        scope.open_file(CONTEXT, &from, &to, FileOptions::new()).await.unwrap_err(),
        scope.file_opener(&[("file", "F2")], &head).await.err().unwrap(),
    ];
    let mut stream =
        opener().await.stream(futures_util::stream::iter([Ok::<_, Error>(Bytes::copy_from_slice(chunks))]));
    errors.extend(stream.next().await.unwrap().and(stream.next().await.unwrap()).err().map(ours));
    let ranges = opener().await.ranges(Bytes::from(sealed.clone()), len).unwrap();
    errors.push(ranges.verified_len().await.unwrap_err());
    errors.push(ranges.read_range(19_000, 1_000).await.unwrap_err());
    errors.push(Box::pin(ranges.stream(19_000, 1_000)).next().await.unwrap().unwrap_err());
    errors.push(opener().await.ranges(Bytes::new(), 7).err().unwrap());
    assert_eq!(errors.len(), 16);
    for e in &errors {
        assert!(["open file", "read range"].contains(&e.operation()), "{e}");
        assert!(e.to_string().contains("file") && !e.to_string().contains("envelope"), "{e}");
    }

    let sealer = || async { scope.file_sealer(CONTEXT).await.unwrap() };
    let sealing = [
        sealer().await.seal_bytes_into(b"text", &mut [0; 3]).unwrap_err(),
        sealer().await.seal_path_blocking(folder.path(), &to, &FileOptions::new()).unwrap_err(),
        scope.seal_file(CONTEXT, folder.path().join("no such"), &to, FileOptions::new()).await.unwrap_err(),
        scope.file_sealer(&[("channel", "C9")]).await.err().unwrap(),
    ];
    assert!(sealing.iter().all(|e| e.operation() == "seal file"), "{sealing:?}");
    for e in errors.iter().chain(&sealing) {
        assert_eq!((e.tenant(), e.region()), (Some("acme"), Some(HOME)), "{e}");
    }
}

/// What was not sealed within its day seals nothing more, and says whose file it was.
#[tokio::test]
async fn an_error_of_any_sealing_adapter_names_tenant_region_and_operation() {
    let house = House::of(HOME).await;
    let scope = house.channel("acme", "C9").await;
    let sealer = || async { scope.file_sealer(CONTEXT).await.unwrap() };
    let [bytes, writer, async_writer, stream] = [sealer().await, sealer().await, sealer().await, sealer().await];
    house.clock.advance(strongroom::FILE_SEALING_LIMIT);
    let ours = |e: std::io::Error| e.downcast::<Error>().unwrap();
    let mut async_writer = async_writer.async_writer(Vec::new());
    let plaintext = futures_util::stream::iter([Ok::<_, Error>(Bytes::from_static(b"text"))]);
    let errors = [
        bytes.seal_bytes(b"text").unwrap_err(),
        ours(writer.writer(Vec::new()).finish().unwrap_err()),
        ours(async_writer.shutdown().await.unwrap_err()),
        ours(stream.stream(plaintext).next().await.unwrap().unwrap_err()),
    ];
    for e in errors {
        assert_eq!(
            (e.kind(), e.operation(), e.tenant(), e.region()),
            (ErrorKind::Limit, "seal file", Some("acme"), Some(HOME)),
            "{e}"
        );
    }
}
