//! Stored rows, altered: those of data keys, tenants and logged changes, as SQL stores keep them. What reads back is within
//! the limits and writes the same row again; and through a room whose store returns it, nothing opens or seals that the
//! genuine rows would not, whatever they were made of.
//!
//! Inputs edit the rows of a small world that is made once, so that most of them get past the columns' own checks. How far
//! they came is printed.
#![no_main]

#[path = "key_record/edits.rs"]
mod edits;
mod few;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use async_trait::async_trait;
use libfuzzer_sys::fuzz_target;
use strongroom::limits::{
    MAX_ALLOWED_REGIONS, MAX_KEKS, MAX_REGION, MAX_SCOPE, MAX_SCOPE_FIELDS, MAX_TENANT, MAX_WRAPPED,
};
use strongroom::testing::{ChangeRow, KeyRow, ManualClock, TenantRow};
use strongroom::{
    Change, Changes, Error, ErrorKind, Forget, Header, KekExpression, KekUri, KeyId, KeyRecord, KeyState, KeyStore,
    LocalKms, MemoryKeyStore, Period, PeriodLabel, Placed, Region, Result, Scope, Selector, Strongroom, Suite,
    TenantId, TenantPolicy, TenantRecord,
};
use tokio::runtime::{Builder, Runtime};

use edits::{KeyEdit, Selected, TenantEdit, edit_key, edit_tenant, one, pick};
use few::Few;

/// 2026-11-22T05:17:29.5Z
const NOW: i64 = 1_795_324_649_500;
const REGIONS: [&str; 2] = ["eu-central-1", "us-east-1"];
const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
const CHANNELS: [&str; 2] = ["C9", "C8"];
const TEXT: &[u8] = b"what was sealed";

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    key: u8,
    key_edits: Few<KeyEdit<'a>, 5>,
    tenant_edits: Few<TenantEdit<'a>, 3>,
    change: Option<(Selected<'a>, &'a str)>,
    /// Which message is opened, if not the row's own.
    message: Option<u8>,
}

struct Sealed {
    record: KeyRecord,
    envelope: Vec<u8>,
}

/// What is genuine: three tenants' rows, a data key in each state that has one, and a message under each.
struct World {
    kms: LocalKms,
    tenants: Vec<TenantRow>,
    keys: Vec<Sealed>,
    rows: Vec<KeyRow>,
    leaves: Vec<String>,
}

/// A runtime for each input: see `lifecycle.rs`.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

static WORLD: LazyLock<World> = LazyLock::new(|| runtime().block_on(World::new()));

fn kek(name: &str) -> KekUri {
    KekUri::new(&format!("local:{name}")).unwrap()
}

fn region(n: usize) -> Region {
    Region::new(REGIONS[n]).unwrap()
}

fn build(store: impl KeyStore, kms: &LocalKms) -> Strongroom {
    let builder = Strongroom::builder().serving(REGIONS).clock(ManualClock::at(NOW));
    builder.key_store(store).kms(kms.clone()).trusting_the_key_store().build().await.unwrap()
}

impl World {
    async fn new() -> Self {
        let (kms, store) = (LocalKms::in_memory(), Arc::new(MemoryKeyStore::default()));
        for name in ["acme", "escrow", "globex"] {
            kms.create_kek(name, region(0)).unwrap();
        }
        kms.create_kek("over-there", region(1)).unwrap();
        let room = build(Arc::clone(&store), &kms);
        let [acme, escrow, globex, over_there] = ["acme", "escrow", "globex", "over-there"].map(kek);
        let policies = [
            TenantPolicy::new(acme.clone(), region(0)).period(Period::Hour).contact("the owner"),
            TenantPolicy::new(KekExpression::any_of([globex, over_there]), region(0))
                .allow_region(region(1))
                .period(Period::Hour),
            TenantPolicy::new(KekExpression::all_of([acme, escrow]), region(0)).suite(Suite::ChaCha20Poly1305),
        ];
        let mut envelopes = Vec::new();
        for (tenant, policy) in TENANTS.into_iter().zip(policies) {
            room.admin("a test", "to test").unwrap().enroll(tenant, policy.scope_by(["channel"])).await.unwrap();
            for (channel, rotate) in [(CHANNELS[0], false), (CHANNELS[0], true), (CHANNELS[1], false)] {
                if rotate {
                    room.admin("a test", "to test").unwrap().rotate(tenant, &[("channel", channel)]).await.unwrap();
                }
                let scope = room.tenant(tenant).await.unwrap().scope([("channel", channel)]).unwrap();
                envelopes.push((tenant, scope.seal(&[], TEXT).await.unwrap()));
            }
        }
        let (mut tenants, mut keys) = (Vec::new(), Vec::new());
        for tenant in TENANTS {
            tenants.push(TenantRow::of(&room.admin("a test", "to test").unwrap().tenant(tenant).await.unwrap()).unwrap());
        }
        for (tenant, envelope) in envelopes {
            let key_id = KeyId::from_bytes(*Header::parse(&envelope).unwrap().key_id());
            let record = store.key(&TenantId::new(tenant).unwrap(), &key_id).await.unwrap().unwrap();
            keys.push(Sealed { record, envelope });
        }
        let rows: Vec<_> = keys.iter().map(|key| KeyRow::of(&key.record).unwrap()).collect();
        let leaf = |wrapping: &strongroom::Wrapping| one(wrapping.kek.as_str(), &wrapping.wrapped);
        let wrappings = keys.iter().filter_map(|key| key.record.wrapped.as_ref()).flat_map(|w| w.wrappings());
        let leaves = wrappings.map(leaf).collect();
        Self { kms, tenants, keys, rows, leaves }
    }
}

fn is_name(name: &str, max: usize, also: &[u8]) -> bool {
    (1..=max).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || also.contains(&b))
}

fn check_keks(keks: &KekExpression, level: usize) {
    assert!(level <= 3, "KEKs nested too deep");
    if let KekExpression::AnyOf(of) | KekExpression::AllOf(of) = keks {
        assert!(of.len() >= 2, "a group of less than two");
        for member in of {
            check_keks(member, level + 1);
        }
    }
}

/// FORMAT.md's limits, in plain words.
fn check_key(record: &KeyRecord) {
    assert!((1..=usize::from(MAX_TENANT)).contains(&record.tenant.as_str().len()));
    assert!(is_name(record.region.as_str(), MAX_REGION, b"-"));
    assert!(record.scope.to_bytes().len() <= MAX_SCOPE);
    assert!(record.scope.fields().count() <= MAX_SCOPE_FIELDS, "too many scope fields");
    for (name, value) in record.scope.fields() {
        assert!(is_name(name, 32, b"_-"), "a scope field of the name {name:?}");
        assert!(!value.is_empty());
    }
    assert_eq!(record.wrapped.is_none(), record.state == KeyState::Destroyed);
    assert!(record.revision > 0 && record.wrapped_epoch > 0);
    for wrapped in record.wrapped.iter().chain(record.pending.as_ref().map(|p| &p.wrapped)) {
        let keks = wrapped.expression();
        assert!(keks.keks().count() <= MAX_KEKS);
        check_keks(&keks, 0);
        assert!(wrapped.wrappings().all(|w| (1..=MAX_WRAPPED).contains(&w.wrapped.len())));
    }
}

/// How many keys it names is checked when it is made: too many or none do no harm.
fn check_selector(selector: &Selector) {
    if let Some(keys) = selector.key_ids() {
        assert!(keys.is_sorted(), "a selector in which its keys are not found");
    }
}

fn check_tenant(record: &TenantRecord) {
    assert!(record.epoch > 0, "an epoch that no row has");
    assert!(record.revocations.len() <= 1000 && record.erasures.len() <= 1000);
    record.revocations.iter().for_each(|r| check_selector(&r.selector));
    record.erasures.iter().for_each(|e| check_selector(&e.selector));
    let policy = &record.policy;
    check_keks(policy.keks(), 0);
    assert!(policy.allowed_regions().count() <= MAX_ALLOWED_REGIONS);
    assert!(policy.scope_fields().len() <= MAX_SCOPE_FIELDS);
    assert!(policy.scope_fields().iter().all(|name| is_name(name, 32, b"_-")));
    assert!((1..=86_400).contains(&policy.key_cache_ttl().as_secs()));
}

/// What reads, writes a row that reads the same and writes the same again. Columns that are not JSON are the very same.
fn read_key(row: &KeyRow) -> Option<KeyRecord> {
    let record = row.read().inspect_err(check_malformed).ok()?;
    check_key(&record);
    let written = KeyRow::of(&record).expect("what was read can be written");
    assert_eq!(written.read().as_ref().ok(), Some(&record));
    let (wrapped, pending) = (written.wrapped, written.pending);
    assert_eq!(KeyRow { wrapped: row.wrapped.clone(), pending: row.pending.clone(), ..written }, *row);
    // Of the same key JSON is the same, white space and escapes apart.
    let json = |text: &Option<String>| text.as_ref().map(|t| serde_json::from_str::<serde_json::Value>(t).unwrap());
    assert_eq!((json(&wrapped), json(&pending)), (json(&row.wrapped), json(&row.pending)));
    Some(record)
}

fn read_tenant(row: &TenantRow) -> Option<TenantRecord> {
    let record = row.read().inspect_err(check_malformed).ok()?;
    check_tenant(&record);
    let written = TenantRow::of(&record).expect("what was read can be written");
    assert_eq!(written.read().ok(), Some(record.clone()));
    Some(record)
}

fn check_malformed(e: &Error) {
    assert_eq!(e.kind(), ErrorKind::Malformed, "{e}");
}

fn check_change(selected: &Selected<'_>, forget: &str) {
    let row = ChangeRow { tenant: TENANTS[0].to_owned(), selector: selected.json(), forget: forget.to_owned() };
    match row.read() {
        Ok(change) => {
            check_selector(&change.selector);
            let known = ["nothing", "sealing"].contains(&forget);
            assert_eq!(change.forget == Forget::Keys, !known, "what is not known forgets most");
            assert_eq!(ChangeRow::of(&change).unwrap().read().unwrap(), change);
        }
        Err(e) => check_malformed(&e),
    }
}

/// A store that has one key and one tenant, whatever it is asked for.
struct Shown {
    tenant: TenantRecord,
    key: KeyRecord,
}

fn unasked<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unavailable, "this store only shows"))
}

#[async_trait]
impl KeyStore for Shown {
    async fn tenant(&self, _: &TenantId) -> Result<Option<TenantRecord>> {
        Ok(Some(self.tenant.clone()))
    }

    async fn insert_tenant(&self, _: &TenantRecord) -> Result<()> {
        unasked()
    }

    async fn update_tenant(&self, _: &TenantRecord, _: &Change) -> Result<()> {
        unasked()
    }

    async fn tenants(&self, _: Option<&TenantId>, _: u32) -> Result<Vec<TenantRecord>> {
        unasked()
    }

    async fn announce(&self, _: &Change) -> Result<()> {
        unasked()
    }

    async fn changes(&self, _: Option<u64>, _: u32) -> Result<Changes> {
        Ok(Changes::default())
    }

    async fn key(&self, _: &TenantId, _: &KeyId) -> Result<Option<KeyRecord>> {
        Ok(Some(self.key.clone()))
    }

    async fn active_key(&self, _: &TenantId, _: &Scope, _: Option<&PeriodLabel>) -> Result<Option<KeyRecord>> {
        Ok(Some(self.key.clone()))
    }

    async fn insert_active(&self, _: &KeyRecord) -> Result<Placed> {
        unasked()
    }

    async fn succeed(&self, _: &KeyId, _: &KeyRecord) -> Result<Placed> {
        unasked()
    }

    async fn update_keys(&self, _: &[KeyRecord]) -> Result<Vec<bool>> {
        unasked()
    }

    async fn keys(&self, _: &TenantId, _: Option<&KeyId>, _: u32) -> Result<Vec<KeyRecord>> {
        unasked()
    }
}

/// What a wrapping is bound to, and the region that stands in every envelope.
fn bound(record: &KeyRecord) -> (&TenantId, &KeyId, Suite, &Scope, Option<&PeriodLabel>, &Region) {
    (&record.tenant, &record.key_id, record.suite, &record.scope, record.period.as_ref(), &record.region)
}

/// Whether the tenant's row lets this key be used.
fn allowed(tenant: &TenantRecord, key: &KeyRecord) -> bool {
    let covers = |s: &Selector| s.covers(&key.scope, key.period.as_ref(), Some(&key.key_id));
    tenant.tenant == key.tenant
        && tenant.policy.allows(&key.region)
        && !tenant.revocations.iter().any(|r| covers(&r.selector))
        && !tenant.erasures.iter().any(|e| covers(&e.selector))
}

const OUTCOMES: [&str; 10] = [
    "opened",
    "sealed",
    "key mismatch",
    "denied",
    "revoked",
    "erased",
    "region",
    "unavailable",
    "invalid argument",
    "otherwise",
];
static RUNS: AtomicU64 = AtomicU64::new(0);
static READ: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static ENDED: [AtomicU64; OUTCOMES.len()] = [const { AtomicU64::new(0) }; OUTCOMES.len()];
/// Runs from one line to the next.
const TELL: u64 = 1 << 12;

fn count(outcome: &str) {
    let at = OUTCOMES.iter().position(|name| *name == outcome).unwrap_or(OUTCOMES.len() - 1);
    ENDED[at].fetch_add(1, Ordering::Relaxed);
}

fn refused(e: &Error, tenant: &TenantRecord, key: &KeyRecord) {
    let keks =
        key.wrapped.as_ref().map(strongroom::WrappedKey::expression).into_iter().chain([tenant.policy.keks().clone()]);
    let no_such_kms = keks.flat_map(|e| e.keks().cloned().collect::<Vec<_>>()).any(|kek| kek.scheme() != "local");
    let pending_elsewhere = key.pending.is_some();
    let known = matches!(
        e.kind(),
        ErrorKind::Malformed
            | ErrorKind::KeyMismatch
            | ErrorKind::Denied
            | ErrorKind::Unopenable
            | ErrorKind::Revoked
            | ErrorKind::Erased
            | ErrorKind::Region
            | ErrorKind::UnknownTenant
            | ErrorKind::Unavailable
    );
    let other_scope = e.operation() == "scope" && e.kind() == ErrorKind::InvalidArgument;
    let misconfigured = (no_such_kms || pending_elsewhere) && e.kind() == ErrorKind::InvalidArgument;
    assert!(known || other_scope || misconfigured, "{e}");
    count(&e.kind().to_string());
}

/// Opens a genuine message, and seals one, in the scope of that message, through a room that is shown these rows.
async fn use_rows(tenant: TenantRecord, key: KeyRecord, genuine: &Sealed) {
    let mine = &genuine.record;
    let room = build(Shown { tenant: tenant.clone(), key: key.clone() }, &WORLD.kms);
    let scope = match room.tenant(mine.tenant.as_str()).await {
        Ok(handle) => handle.scope(mine.scope.fields().collect::<Vec<_>>()),
        Err(e) => Err(e),
    };
    let scope = match scope {
        Ok(scope) => scope,
        Err(e) => return refused(&e, &tenant, &key),
    };
    let usable = allowed(&tenant, &key) && matches!(key.state, KeyState::Active | KeyState::Deactivated);
    match scope.open(&[], &genuine.envelope).await {
        Ok(text) => {
            assert_eq!(&*text, TEXT);
            assert_eq!(bound(&key), bound(mine), "opened with another key's row");
            assert!(usable, "opened what the rows do not allow");
            count("opened");
        }
        Err(e) => {
            let as_written = bound(&key) == bound(mine) && key.wrapped == mine.wrapped && usable;
            let keks_allowed = tenant.policy == WORLD.policy_of(mine);
            assert!(!(as_written && keks_allowed), "refused what is genuine: {e}");
            refused(&e, &tenant, &key);
        }
    }
    match scope.seal(&[], TEXT).await {
        Ok(envelope) => {
            assert_eq!(key.state, KeyState::Active, "sealed under a key that is not Active");
            assert!(usable, "sealed under what the rows do not allow");
            let header = Header::parse(&envelope).unwrap();
            assert_eq!(header.key_id(), key.key_id.as_bytes());
            let genuine = WORLD.keys.iter().find(|k| bound(&k.record) == bound(&key));
            let genuine = genuine.expect("sealed under a key that nobody made");
            assert_eq!(genuine.record.scope, mine.scope, "sealed under another scope's key");
            assert_eq!(scope.open(&[], &envelope).await.as_deref().ok(), Some(TEXT));
            count("sealed");
        }
        Err(e) => refused(&e, &tenant, &key),
    }
}

impl World {
    fn tenant_of(&self, key: &KeyRecord) -> &TenantRow {
        self.tenants.iter().find(|row| row.tenant == key.tenant.as_str()).unwrap()
    }

    fn policy_of(&self, key: &KeyRecord) -> TenantPolicy {
        self.tenant_of(key).read().unwrap().policy
    }
}

fuzz_target!(|input: Input<'_>| {
    let world = &*WORLD;
    let own = pick(&world.keys, input.key);
    let genuine = input.message.map_or(own, |n| pick(&world.keys, n));
    let mut key = KeyRow::of(&own.record).unwrap();
    input.key_edits.iter().for_each(|edit| edit_key(&mut key, edit));
    let mut tenant = world.tenant_of(&genuine.record).clone();
    input.tenant_edits.iter().for_each(|edit| edit_tenant(&mut tenant, edit));
    if let Some((selected, forget)) = &input.change {
        check_change(selected, forget);
    }
    let (key, tenant) = (read_key(&key), read_tenant(&tenant));
    READ[0].fetch_add(key.is_some().into(), Ordering::Relaxed);
    READ[1].fetch_add(tenant.is_some().into(), Ordering::Relaxed);
    if let (Some(key), Some(tenant)) = (key, tenant) {
        runtime().block_on(use_rows(tenant, key, genuine));
    }
    let runs = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
    if runs.is_multiple_of(TELL) {
        let ended: Vec<_> =
            OUTCOMES.iter().zip(&ENDED).map(|(name, n)| format!("{name} {}", n.load(Ordering::Relaxed))).collect();
        let [keys, tenants] = [&READ[0], &READ[1]].map(|n| n.load(Ordering::Relaxed));
        eprintln!("{runs} rows: {keys} of keys and {tenants} of tenants read; {}", ended.join(", "));
    }
});
