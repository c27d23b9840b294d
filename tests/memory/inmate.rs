//! The watched process: works with the secrets it is handed, and stands still at each step until it is told to go on.
//!
//! It gets its secrets masked and unmasks them only into buffers that the crate takes or that it wipes itself, so that every
//! copy that is found is one that somebody forgot.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use strongroom::testing::{ManualClock, Operator};
use strongroom::{
    DataKey, EncryptionContext, Error, FileOptions, GeneratedKey, KekDescription, KekUri, KeyStore, Kms, LocalKms,
    MemoryKeyStore, Region, ScopeHandle, Selector, Strongroom, Suite, TenantPolicy,
};
use zeroize::Zeroize;

use crate::{SECRETS, STORE, SUITE};

const MASK: u8 = 0xA5;
pub(crate) const CONTEXT: [(&str, &str); 1] = [("message", "M77")];
pub(crate) const TTL: Duration = Duration::from_secs(300);
/// Keys that the cache holds for the tenant.
pub(crate) const QUOTA: usize = 2;

/// A secret as it may lie about.
#[derive(Clone)]
pub(crate) struct Masked(Vec<u8>);

impl Masked {
    pub(crate) fn of(secret: &[u8]) -> Self {
        Self(secret.iter().map(|byte| byte ^ MASK).collect())
    }

    pub(crate) fn hex(&self) -> String {
        base16ct::lower::encode_string(&self.0)
    }

    /// Into one allocation, which the caller wipes.
    fn unmask(&self) -> Vec<u8> {
        let mut secret = self.0.clone();
        for byte in &mut secret {
            *byte ^= MASK;
        }
        secret
    }
}

/// Tells the watcher where this process stands, and waits.
fn step(name: &str, public: &[u8]) {
    println!("\nat {name} {}", base16ct::lower::encode_string(public));
    io::stdin().lock().read_line(&mut String::new()).unwrap();
}

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Works,
    /// Panics, or never answers, with an unwrapped key in hand.
    Panics,
    Hangs,
}

/// The local KMS, except that it makes the data keys it is told to.
#[derive(Clone)]
struct Chosen {
    local: LocalKms,
    keys: Arc<Mutex<VecDeque<Masked>>>,
    mood: Arc<Mutex<Mood>>,
}

#[async_trait]
impl Kms for Chosen {
    fn scheme(&self) -> &'static str {
        "local"
    }

    async fn describe(&self, kek: &KekUri) -> Result<KekDescription, Error> {
        self.local.describe(kek).await
    }

    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, data_key: &DataKey) -> Result<Vec<u8>, Error> {
        self.local.wrap(kek, context, data_key).await
    }

    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey, Error> {
        let data_key = self.local.unwrap(kek, context, wrapped).await?;
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Works => {}
            Mood::Panics => panic!("as the test asked"),
            Mood::Hangs => std::future::pending().await,
        }
        Ok(data_key)
    }

    async fn generate(&self, kek: &KekUri, context: &EncryptionContext) -> Result<GeneratedKey, Error> {
        let chosen = self.keys.lock().unwrap().pop_front().expect("a key for each channel");
        let data_key = DataKey::take(&mut chosen.unmask())?;
        let wrapped = self.local.wrap(kek, context, &data_key).await?;
        Ok(GeneratedKey { data_key, wrapped })
    }
}

/// One process's work from beginning to end.
struct Inmate {
    room: Strongroom,
    kms: Chosen,
    clock: ManualClock,
    text: Masked,
}

#[test]
#[ignore = "the process that the tests look at"]
fn inmate() {
    let secrets = std::env::var(SECRETS).expect("started by a test");
    let mut secrets: VecDeque<_> =
        secrets.split(',').map(|hex| Masked(base16ct::lower::decode_vec(hex).unwrap())).collect();
    let (kek, text) = (secrets.pop_front().unwrap(), secrets.pop_front().unwrap());
    step("start", &[]);
    let mut leak = kek.unmask();
    step("leaked", &[]);
    leak.zeroize();
    step("wiped", &[]);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let inmate = Inmate::new(&kek, text, secrets).await;
        step("kek in use", &[]);
        inmate.messages().await;
        inmate.ends_of_keys().await;
        inmate.mishaps().await;
        inmate.files().await;
    });
    drop(runtime);
    step("closed", &[]);
}

impl Inmate {
    async fn new(kek: &Masked, text: Masked, keys: VecDeque<Masked>) -> Self {
        let local = LocalKms::in_memory();
        let region = Region::new("eu-central-1").unwrap();
        let kek = local.import_kek("acme", region.clone(), &mut kek.unmask()).unwrap();
        let kms = Chosen { local, keys: Arc::new(Mutex::new(keys)), mood: Arc::new(Mutex::new(Mood::Works)) };
        let clock = ManualClock::at(1_795_324_649_500);
        let room = Strongroom::builder()
            .serving(["eu-central-1"])
            .key_store(store().await)
            .kms(kms.clone())
            .kms_deadline(Duration::from_millis(200))
            .cached_keys_per_tenant(QUOTA)
            .clock(clock.clone())
            .open_under(&Operator::default())
            .await;
        let suite = if std::env::var(SUITE).unwrap() == "1" { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 };
        let policy = TenantPolicy::new(kek, region).scope_by(["channel"]).suite(suite).cache_ttl(TTL);
        room.admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
        Self { room, kms, clock, text }
    }

    async fn channel(&self, n: usize) -> ScopeHandle {
        self.room.tenant("acme").await.unwrap().scope([("channel", format!("C{n}").as_str())]).unwrap()
    }

    async fn seal(&self, channel: usize) -> Vec<u8> {
        let mut text = self.text.unmask();
        let sealed = self.channel(channel).await.seal(&CONTEXT, &text).await.unwrap();
        text.zeroize();
        sealed
    }

    async fn open(&self, channel: usize, envelope: &[u8]) {
        drop(self.channel(channel).await.open(&CONTEXT, envelope).await.unwrap());
    }

    fn forget(&self) {
        self.room.admin("a test", "to test").unwrap().purge("acme").unwrap();
    }

    async fn messages(&self) {
        let first = self.seal(0).await;
        step("sealed", nonce(&first));
        let scope = self.channel(0).await;
        let opened = scope.open(&CONTEXT, &first).await.unwrap();
        step("opened", &[]);
        drop(opened);
        step("plaintext dropped", &[]);
        let mut forged = first.clone();
        *forged.last_mut().unwrap() ^= 1;
        scope.open(&CONTEXT, &forged).await.unwrap_err();
        scope.open_in_place(&CONTEXT, &mut forged).await.unwrap_err();
        let rows = [strongroom::PageRow { context: &CONTEXT, envelope: &first }; 3];
        drop(scope.open_page(&rows).await);
        scope.hot().await.unwrap().open(&[("message", "M78")], &first).unwrap_err();
        step("opened, refused, paged", &[]);
        self.clock.advance(Duration::from_secs(60));
        let second = self.seal(0).await;
        step("writer replaced", nonce(&second));
        self.clock.advance(Duration::from_secs(60));
        let third = self.seal(0).await;
        step("writer retired", nonce(&third));
        self.forget();
        step("purged", &[]);
        self.open(0, &first).await;
        step("loaded to open", &[]);
        self.open(0, &second).await;
        self.open(0, &second).await;
        step("reader key kept", &[]);
    }

    async fn ends_of_keys(&self) {
        let sealed = [self.seal(1).await, self.seal(2).await];
        step("evicted", &[nonce(&sealed[0]), nonce(&sealed[1])].concat());
        let held = self.channel(1).await.hot().await.unwrap();
        self.room
            .admin("a test", "to test")
            .unwrap()
            .revoke("acme", Selector::fields([("channel", "C1")]))
            .await
            .unwrap();
        step("revoked", &[]);
        drop(held);
        self.clock.advance(TTL);
        step("expired", &[]);
    }

    /// A panic or an end half-way leaves nothing behind.
    async fn mishaps(&self) {
        let third = self.seal(3).await;
        let hot = self.channel(3).await.hot().await.unwrap();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let opened = hot.open(&CONTEXT, &third).unwrap();
            assert!(opened.is_empty(), "as the test asked");
        }));
        assert!(caught.is_err());
        step("panicked with a plaintext", nonce(&third));
        self.forget();
        for mood in [Mood::Panics, Mood::Hangs] {
            *self.kms.mood.lock().unwrap() = mood;
            hot.prepare(&third).await.unwrap_err();
        }
        *self.kms.mood.lock().unwrap() = Mood::Works;
        step("panicked and timed out with a key", &[]);
    }

    async fn files(&self) {
        let scope = self.channel(4).await;
        let sealer = scope.file_sealer(&CONTEXT).await.unwrap();
        let head = sealer.head().as_bytes().to_vec();
        step("sealing a file", &head);
        let mut text = self.text.unmask();
        let whole = sealer.seal_bytes(&text).unwrap();
        text.zeroize();
        drop(
            scope
                .file_opener(&CONTEXT, &strongroom::FileHead::parse(&whole).unwrap())
                .await
                .unwrap()
                .open_bytes(&whole),
        );
        step("file sealed and opened", &[]);
        let sealer = scope.file_sealer(&CONTEXT).await.unwrap();
        let head = sealer.head().clone();
        let mut long = Vec::new();
        // Longer than one block, so that all workers take part.
        let source = Unmasking { text: &self.text, left: 3 << 20 };
        sealer.pipe_blocking(source, &mut long, &FileOptions::new()).unwrap();
        let opener = || async { scope.file_opener(&CONTEXT, &head).await.unwrap() };
        let chunks = &long[head.as_bytes().len()..];
        opener().await.pipe_blocking(chunks, io::sink(), &FileOptions::new()).unwrap();
        step("file piped", &[]);
        let mut buffer = vec![0; 5_000];
        let mut reader = opener().await.reader(chunks);
        while reader.read(&mut buffer).unwrap() > 0 {}
        buffer.zeroize();
        drop(reader);
        let ranges = opener().await.ranges(bytes::Bytes::from(long.clone()), long.len() as u64).unwrap();
        drop(ranges.read_range(100_000, 50_000).await.unwrap());
        // To the end, and from in the middle of a chunk to in the middle of another: what was opened beside it goes, too.
        ranges.stream(0, ranges.claimed_len()).for_each(async |piece| drop(piece.unwrap())).await;
        let mut some = std::pin::pin!(ranges.stream(20_000, 2 << 20));
        some.next().await.unwrap().unwrap();
        step("a stream under way", &[]);
        some.set(ranges.stream(0, 0));
        step("streams of ranges read", &[]);
        let pieces =
            || futures_util::stream::iter(chunks.chunks(50_000).map(|piece| Ok::<_, io::Error>(piece.to_vec().into())));
        opener().await.stream(pieces()).for_each(async |piece| drop(piece.unwrap())).await;
        let mut left = opener().await.stream(pieces());
        left.next().await.unwrap().unwrap();
        drop(left);
        step("file read", &[]);
    }
}

#[cfg_attr(not(feature = "sqlite"), allow(clippy::unused_async))]
async fn store() -> Arc<dyn KeyStore> {
    match std::env::var(STORE).unwrap().as_str() {
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let path = format!("{}/keys.db", std::env::var(crate::FOLDER).unwrap());
            Arc::new(strongroom::testing::sqlite(path).await)
        }
        _ => Arc::new(MemoryKeyStore::default()),
    }
}

/// The nonce of an envelope: behind version, suite, region and key id.
fn nonce(envelope: &[u8]) -> &[u8] {
    let at = 3 + "eu-central-1".len() + 32;
    &envelope[at..at + 24]
}

/// The text over and over, unmasked on its way into the reader's own buffer.
struct Unmasking<'a> {
    text: &'a Masked,
    left: usize,
}

impl Read for Unmasking<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let text = &self.text.0;
        let at = self.left % text.len();
        let from = text.len() - if at == 0 { text.len() } else { at };
        let len = out.len().min(text.len() - from).min(self.left);
        for (to, byte) in out.iter_mut().zip(&text[from..from + len]) {
            *to = byte ^ MASK;
        }
        self.left -= len;
        Ok(len)
    }
}
