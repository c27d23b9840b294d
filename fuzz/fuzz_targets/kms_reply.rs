//! A KMS that answers anything: errors of any kind, bytes bent, cut, lengthened, an earlier reply, another key. Whatever it
//! says, no wrong plaintext comes out, and once it is honest again every message that was ever sealed opens.
//!
//! One thing no caller can find out: a KMS that gives a false wrapping and, asked to unwrap it, gives the key that it should
//! have wrapped. So the liar here never unwraps a false wrapping to the very key that it was given out for.
//!
//! How often what was answered is printed, so that it can be seen that lies come and are caught.
#![no_main]

mod few;

use std::collections::VecDeque;
use std::num::NonZeroU8;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use arbitrary::Arbitrary;
use async_trait::async_trait;
use libfuzzer_sys::fuzz_target;
use strongroom::testing::{ManualClock, Operator, encryption_context};
use strongroom::{
    DataKey, EncryptionContext, Error, ErrorKind, Expected, GeneratedKey, KekDescription, KekExpression, KekUri, Kms,
    LocalKms, MemoryKeyStore, Period, Region, Result, ScopeHandle, Strongroom, Suite, TenantPolicy, WalkOptions,
    Walked,
};
use tokio::runtime::{Builder, Runtime};

use few::Few;

/// 2026-11-22T05:17:29.5Z
const NOW: i64 = 1_795_324_649_500;
const REGION: &str = "eu-central-1";
const TENANTS: [&str; 2] = ["acme", "globex"];
const KEKS: [&str; 3] = ["a", "b", "c"];

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    keks: u8,
    second_suite: bool,
    hours: bool,
    steps: Few<Step<'a>, 16>,
}

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    /// What the next replies are, one each; then they are honest again. Without the cache, the next step asks the KMS.
    Lies {
        purge: bool,
        lies: Few<Lie, 8>,
    },
    Seal {
        tenant: bool,
        channel: bool,
        text: &'a [u8],
    },
    Open(u8),
    Reseal(u8),
    Rotate {
        tenant: bool,
        channel: bool,
    },
    Rewrap {
        tenant: bool,
        keks: u8,
    },
    Probe {
        tenant: bool,
    },
    Purge,
    /// By this many tenths of the keys' time to live.
    Advance(u8),
    /// A wrapping, edited, to be unwrapped by the honest KMS.
    Blob {
        kek: u8,
        context: u8,
        wrapped: u8,
        edit: Option<Edit>,
    },
}

#[derive(Arbitrary, Clone, Debug)]
enum Lie {
    None,
    Fails(u8),
    Bytes(Edit),
    /// Counted back from the last one: any KEK's, tenant's or scope's.
    EarlierWrapping(u8),
    EarlierKey(u8),
    FreshKey,
    ShortKey,
    EqualBytesKey,
    /// It cannot rewrap.
    Declines,
    Disabled,
    Elsewhere,
}

#[derive(Arbitrary, Clone, Debug)]
enum Edit {
    Xor(u8, NonZeroU8),
    Cut(u8),
    Insert(u8, u8),
    Append(Vec<u8>),
    Empty,
    Huge,
}

fn edit(bytes: &mut Vec<u8>, edit: &Edit) {
    let len = bytes.len();
    let at = |i: u8| usize::from(i).checked_rem(len).unwrap_or(0);
    match edit {
        Edit::Xor(i, mask) => bytes.iter_mut().skip(at(*i)).take(1).for_each(|byte| *byte ^= mask.get()),
        Edit::Cut(i) => bytes.truncate(at(*i)),
        Edit::Insert(i, byte) => bytes.insert(at(*i), *byte),
        Edit::Append(more) => bytes.extend_from_slice(more),
        Edit::Empty => bytes.clear(),
        Edit::Huge => bytes.resize(6145, 7),
    }
}

const KINDS: [ErrorKind; 17] = [
    ErrorKind::Denied,
    ErrorKind::Unavailable,
    ErrorKind::Throttled,
    ErrorKind::Region,
    ErrorKind::Revoked,
    ErrorKind::Erased,
    ErrorKind::UnknownTenant,
    ErrorKind::Malformed,
    ErrorKind::Unopenable,
    ErrorKind::Limit,
    ErrorKind::Conflict,
    ErrorKind::KeyMismatch,
    ErrorKind::NotLoaded,
    ErrorKind::RolledBack,
    ErrorKind::InvalidArgument,
    ErrorKind::Io,
    ErrorKind::Cancelled,
];

/// A runtime for each input: see `lifecycle.rs`.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

/// KEKs cost time to make and are the same in every run.
static LOCAL: LazyLock<LocalKms> = LazyLock::new(|| {
    let kms = LocalKms::in_memory();
    for (name, n) in KEKS.iter().chain(&TENANTS).zip(1_u8..) {
        let mut raw = std::array::from_fn::<u8, 32, _>(|i| n.wrapping_mul(31) ^ u8::try_from(i).unwrap() | 0x80);
        kms.import_kek(name, region(), &mut raw).unwrap();
    }
    kms
});

/// `told` counts lies, `caught` steps that failed for one, `opened` messages that opened in the end.
struct Counts {
    runs: AtomicU64,
    told: AtomicU64,
    caught: AtomicU64,
    survived: AtomicU64,
    opened: AtomicU64,
    blobs: AtomicU64,
}

static COUNTS: Counts = Counts {
    runs: AtomicU64::new(0),
    told: AtomicU64::new(0),
    caught: AtomicU64::new(0),
    survived: AtomicU64::new(0),
    opened: AtomicU64::new(0),
    blobs: AtomicU64::new(0),
};
/// Runs from one line to the next.
const TELL: u64 = 1 << 10;

fn count(of: &AtomicU64) -> u64 {
    of.fetch_add(1, Ordering::Relaxed) + 1
}

fn region() -> Region {
    Region::new(REGION).unwrap()
}

fn kek(name: &str) -> KekUri {
    KekUri::new(&format!("local:{name}")).unwrap()
}

fn keks(expression: u8) -> KekExpression {
    let [a, b, c] = KEKS.map(kek);
    match expression % 6 {
        0 => a.into(),
        1 => b.into(),
        2 => KekExpression::any_of([a, b]),
        3 => KekExpression::all_of([a, b]),
        4 => KekExpression::any_of([KekExpression::from(a), KekExpression::all_of([b, c])]),
        _ => KekExpression::all_of([KekExpression::any_of([a, b]), c.into()]),
    }
}

/// The KMS between a room and the honest one.
#[derive(Clone, Default)]
struct Liar(Arc<Mutex<Ledger>>);

/// What it told, and to what end.
#[derive(Default)]
struct Ledger {
    lies: VecDeque<Lie>,
    /// How many of them were told so far, and of which kinds its errors were.
    told: usize,
    kinds: Vec<ErrorKind>,
    wrappings: Vec<Vec<u8>>,
    keys: Vec<[u8; 32]>,
    /// Each wrapping that was given out, and the key that it was given out for.
    claims: Vec<(Vec<u8>, [u8; 32])>,
    /// Keys that nobody ever saw, counted.
    fresh: u16,
}

fn back<T: Clone>(from: &[T], n: u8) -> Option<T> {
    from.iter().rev().nth(usize::from(n) % from.len().max(1)).cloned()
}

impl Ledger {
    /// A wrapping of `key`, or what is said to be one.
    fn wrapping(&mut self, lie: &Lie, honest: Vec<u8>, key: [u8; 32]) -> Vec<u8> {
        let mut given = honest.clone();
        match lie {
            Lie::Bytes(change) => edit(&mut given, change),
            Lie::EarlierWrapping(n) => given = back(&self.wrappings, *n).unwrap_or(given),
            _ => {}
        }
        self.told += usize::from(given != honest);
        self.wrappings.push(honest);
        self.claims.push((given.clone(), key));
        given
    }

    /// What `honest` is said to be: a key, or that there is none.
    fn key(&mut self, lie: &Lie, honest: [u8; 32], trusted: bool) -> Result<DataKey> {
        let mut given = match lie {
            Lie::EarlierKey(n) if trusted => back(&self.keys, *n).unwrap_or(honest).to_vec(),
            Lie::EarlierKey(_) | Lie::FreshKey => self.fresh_key(),
            Lie::ShortKey => honest[..16].to_vec(),
            Lie::EqualBytesKey => vec![9; 32],
            _ => honest.to_vec(),
        };
        self.told += usize::from(given != honest);
        self.keys.push(honest);
        DataKey::take(&mut given)
    }

    fn fresh_key(&mut self) -> Vec<u8> {
        self.fresh += 1;
        let mut key = b"a key that nobody ever had, no. ".to_vec();
        key[30..].copy_from_slice(&self.fresh.to_be_bytes());
        key
    }

    /// Whether every time that `wrapping` was given out, it was for `key`.
    fn was_given_out_for(&self, wrapping: &[u8], key: &[u8; 32]) -> bool {
        self.claims.iter().filter(|(given, _)| given == wrapping).all(|(_, claimed)| claimed == key)
    }
}

impl Liar {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap()
    }

    /// What becomes of the next reply.
    fn next(&self) -> Result<Lie> {
        let mut told = self.lock();
        let lie = told.lies.pop_front().unwrap_or(Lie::None);
        if let Lie::Fails(kind) = lie {
            let kind = KINDS[usize::from(kind) % KINDS.len()];
            told.told += 1;
            told.kinds.push(kind);
            return Err(Error::new(kind, "as the fuzzer asked"));
        }
        Ok(lie)
    }
}

#[async_trait]
impl Kms for Liar {
    fn scheme(&self) -> &'static str {
        "local"
    }

    async fn describe(&self, kek: &KekUri) -> Result<KekDescription> {
        let (lie, mut honest) = (self.next()?, LOCAL.describe(kek).await?);
        match lie {
            Lie::Disabled => honest.enabled = false,
            Lie::Elsewhere => honest.region = Region::new("us-east-1").unwrap(),
            _ => return Ok(honest),
        }
        self.lock().told += 1;
        Ok(honest)
    }

    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, data_key: &DataKey) -> Result<Vec<u8>> {
        let (lie, honest) = (self.next()?, LOCAL.wrap(kek, context, data_key).await?);
        Ok(self.lock().wrapping(&lie, honest, *data_key.expose()))
    }

    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey> {
        let (lie, honest) = (self.next()?, LOCAL.unwrap(kek, context, wrapped).await);
        let mut told = self.lock();
        match (lie, honest) {
            (lie, Ok(honest)) => {
                let trusted = told.was_given_out_for(wrapped, honest.expose());
                told.key(&lie, *honest.expose(), trusted)
            }
            // What does not unwrap, does: to a key that nobody ever saw.
            (Lie::EarlierKey(_) | Lie::FreshKey, Err(_)) => {
                told.told += 1;
                DataKey::take(&mut told.fresh_key())
            }
            (_, Err(e)) => Err(e),
        }
    }

    async fn generate(&self, kek: &KekUri, context: &EncryptionContext) -> Result<GeneratedKey> {
        let (lie, honest) = (self.next()?, LOCAL.generate(kek, context).await?);
        let mut told = self.lock();
        let data_key = told.key(&lie, *honest.data_key.expose(), true)?;
        let wrapped = told.wrapping(&lie, honest.wrapped, *data_key.expose());
        Ok(GeneratedKey { data_key, wrapped })
    }

    async fn rewrap(
        &self,
        from: &KekUri,
        to: &KekUri,
        context: &EncryptionContext,
        wrapped: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        let lie = self.next()?;
        if let Lie::Declines = lie {
            return Ok(None);
        }
        let key = LOCAL.unwrap(from, context, wrapped).await?;
        let honest = LOCAL.wrap(to, context, &key).await?;
        Ok(Some(self.lock().wrapping(&lie, honest, *key.expose())))
    }
}

struct Message {
    tenant: &'static str,
    channel: bool,
    text: Vec<u8>,
    envelope: Vec<u8>,
}

struct World {
    operator: Operator,
    room: Strongroom,
    store: Arc<MemoryKeyStore>,
    kms: Liar,
    clock: ManualClock,
    messages: Vec<Message>,
    rewrapped: [Option<u8>; 2],
}

fn tenant(second: bool) -> &'static str {
    TENANTS[usize::from(second)]
}

async fn scope(room: &Strongroom, tenant: &str, channel: bool) -> Result<ScopeHandle> {
    room.tenant(tenant).await?.scope([("channel", if channel { "C8" } else { "C9" })])
}

async fn room(operator: &Operator, store: &Arc<MemoryKeyStore>, kms: impl Kms, clock: &ManualClock) -> Strongroom {
    let builder = Strongroom::builder().serving([REGION]).clock(clock.clone());
    builder.key_store(Arc::clone(store)).kms(kms).open_under(operator).await
}

impl World {
    async fn new(input: &Input<'_>) -> Self {
        let (store, kms, clock) = (Arc::default(), Liar::default(), ManualClock::at(NOW));
        let operator = Operator::default();
        let room = room(&operator, &store, kms.clone(), &clock).await;
        for tenant in TENANTS {
            let policy = TenantPolicy::new(keks(input.keks), region())
                .scope_by(["channel"])
                .period(if input.hours { Period::Hour } else { Period::None })
                .suite(Suite::ALL[usize::from(input.second_suite)]);
            // Both tenants are under the same ones.
            let policy = KEKS.map(kek).into_iter().fold(policy, TenantPolicy::share_kek);
            room.admin("a test", "to test").unwrap().enroll(tenant, policy).await.unwrap();
        }
        Self { operator, room, store, kms, clock, messages: Vec::new(), rewrapped: [None; 2] }
    }

    async fn step(&mut self, step: &Step<'_>) -> Result<()> {
        match step {
            Step::Lies { purge, lies } => {
                if *purge {
                    self.room.admin("a test", "to test").unwrap().purge_all();
                }
                self.kms.lock().lies = lies.iter().cloned().collect();
            }
            Step::Seal { tenant: whose, channel, text } => {
                let tenant = tenant(*whose);
                let envelope = scope(&self.room, tenant, *channel).await?.seal(&[("message", "M1")], text).await?;
                self.messages.push(Message { tenant, channel: *channel, text: text.to_vec(), envelope });
            }
            Step::Open(n) => self.open(&self.room, *n).await?,
            Step::Reseal(n) => self.reseal(*n).await?,
            Step::Rotate { tenant: whose, channel } => {
                let channel = if *channel { "C8" } else { "C9" };
                self.room.admin("a test", "to test").unwrap().rotate(tenant(*whose), &[("channel", channel)]).await?;
            }
            Step::Rewrap { tenant: whose, keks: to } => {
                self.rewrapped[usize::from(*whose)] = Some(*to);
                let admin = self.room.admin("a test", "to test").unwrap();
                match admin.rewrap(tenant(*whose), keks(*to), &WalkOptions::default()).await {
                    Err(e) if Walked::of(&e).is_some() => {
                        return Err(Error::new(ErrorKind::Unavailable, "some records are not rewrapped yet"));
                    }
                    walked => drop(walked?),
                }
            }
            Step::Probe { tenant: whose } => {
                let row = self.room.admin("a test", "to test").unwrap().tenant(tenant(*whose)).await?;
                self.room.admin("a test", "to test").unwrap().probe(tenant(*whose), &row.policy, &Expected::default()).await?;
            }
            Step::Purge => drop(self.room.admin("a test", "to test").unwrap().purge_all()),
            Step::Advance(tenths) => self.clock.advance(Duration::from_secs(30) * u32::from(*tenths)),
            Step::Blob { kek, context, wrapped, edit } => self.blob(*kek, *context, *wrapped, edit.as_ref()).await,
        }
        Ok(())
    }

    async fn open(&self, room: &Strongroom, n: u8) -> Result<()> {
        let Some(message) = self.messages.get(usize::from(n) % self.messages.len().max(1)) else { return Ok(()) };
        let scope = scope(room, message.tenant, message.channel).await?;
        let opened = scope.open(&[("message", "M1")], &message.envelope).await?;
        assert_eq!(*opened, message.text[..], "a wrong plaintext");
        Ok(())
    }

    async fn reseal(&mut self, n: u8) -> Result<()> {
        let Some(message) = self.messages.get(usize::from(n) % self.messages.len().max(1)) else { return Ok(()) };
        let Message { tenant, channel, ref text, ref envelope } = *message;
        let text = text.clone();
        let resealed = scope(&self.room, tenant, channel).await?.reseal(&[("message", "M1")], envelope).await?;
        // The old one stays: it has to open as well.
        self.messages.extend(resealed.map(|envelope| Message { tenant, channel, text, envelope }));
        Ok(())
    }

    /// The local KMS by itself: nothing but the bytes that it gave unwrap, and only with their KEK and context.
    async fn blob(&self, of: u8, context: u8, wrapped: u8, change: Option<&Edit>) {
        let contexts = TENANTS.map(|tenant| encryption_context(tenant, REGION));
        let kek = |n: u8| kek(KEKS[usize::from(n) % KEKS.len()]);
        let pick = |n: u8| &contexts[usize::from(n) % contexts.len()];
        let key = DataKey::take(&mut b"a key of the fuzzer's own choice".to_vec()).unwrap();
        let genuine = LOCAL.wrap(&kek(of), pick(context), &key).await.unwrap();
        // The other KEK and context are named in the high bits; an earlier wrapping is one of a room's, if there is any.
        let (other_kek, other_context) = (kek(of / 16), pick(context / 16));
        let mut bytes = back(&self.kms.lock().wrappings, wrapped).filter(|_| wrapped > 128).unwrap_or(genuine.clone());
        if let Some(change) = change {
            edit(&mut bytes, change);
        }
        let same = bytes == genuine && other_kek == kek(of) && other_context == pick(context);
        match LOCAL.unwrap(&other_kek, other_context, &bytes).await {
            Ok(unwrapped) => assert!(same && unwrapped.ct_eq(&key), "a wrapping that nobody made unwraps"),
            Err(e) => assert!(!same && e.kind() == ErrorKind::Denied, "{e}"),
        }
        count(&COUNTS.blobs);
    }

    async fn open_all(&self, room: &Strongroom) {
        for n in 0..self.messages.len() {
            self.open(room, u8::try_from(n).unwrap()).await.expect("with an honest KMS every message opens");
            count(&COUNTS.opened);
        }
    }

    /// The KMS is honest again.
    async fn settle(mut self) {
        self.kms.lock().lies.clear();
        self.room.admin("a test", "to test").unwrap().purge_all();
        self.open_all(&self.room).await;
        self.open_all(&room(&self.operator, &self.store, LOCAL.clone(), &self.clock).await).await;
        for (whose, to) in [false, true].into_iter().zip(self.rewrapped) {
            if let Some(keks) = to {
                self.step(&Step::Rewrap { tenant: whose, keks }).await.expect("an honest KMS rewraps");
            }
        }
        if self.rewrapped != [None, None] {
            self.open_all(&room(&self.operator, &self.store, LOCAL.clone(), &self.clock).await).await;
        }
    }
}

/// A step fails only for a lie, and then with an error that says so.
fn check_refusal(e: &Error, world: &World, told_before: usize) {
    let told = world.kms.lock();
    assert!(told.told > told_before, "failed without a lie: {e}");
    let ours = [ErrorKind::Denied, ErrorKind::Unavailable, ErrorKind::KeyMismatch, ErrorKind::Region];
    assert!(ours.contains(&e.kind()) || told.kinds.contains(&e.kind()), "{e}");
    count(&COUNTS.caught);
}

fuzz_target!(|input: Input<'_>| {
    runtime().block_on(async {
        let mut world = World::new(&input).await;
        for step in input.steps.iter() {
            let before = world.kms.lock().told;
            let done = world.step(step).await;
            match done {
                Err(e) => check_refusal(&e, &world, before),
                Ok(()) if world.kms.lock().told > before => drop(count(&COUNTS.survived)),
                Ok(()) => {}
            }
        }
        COUNTS.told.fetch_add(world.kms.lock().told as u64, Ordering::Relaxed);
        world.settle().await;
    });
    let runs = count(&COUNTS.runs);
    if runs.is_multiple_of(TELL) {
        let [told, caught, survived, opened, blobs] =
            [&COUNTS.told, &COUNTS.caught, &COUNTS.survived, &COUNTS.opened, &COUNTS.blobs]
                .map(|of| of.load(Ordering::Relaxed));
        eprintln!(
            "{runs} runs: {told} lies told, {caught} steps failed for them and {survived} did not; {opened} times a message \
             opened in the end; {blobs} wrappings unwrapped or refused by themselves"
        );
    }
});
