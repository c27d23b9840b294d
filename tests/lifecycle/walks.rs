//! What a walk over many rows, or a proof of absence, may not be mistaken for.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use strongroom::testing::{Failpoints, Fault};
use strongroom::{
    Census, Cutoff, DataKey, EncryptionContext, EnvelopeRow, EnvelopeTable, Error, ErrorKind, FILE_SEALING_LIMIT,
    KekDescription, KekUri, KeyId, Kms, LocalKms, MemoryKeyStore, Resealed, RowKey, Selector, Strongroom, TenantPolicy,
    WalkOptions, Walked,
};

use crate::{EU, Fleet, HOUR, US, WRITERS, channel, gently, key_id, kind, region};

async fn fill(fleet: &Fleet, channels: usize) -> Vec<Vec<u8>> {
    let mut sealed = Vec::new();
    for n in 0..channels {
        sealed.push(channel(&fleet.node, &format!("C{n}")).await.seal(&[], b"x").await.unwrap());
    }
    sealed
}

#[tokio::test]
async fn a_file_under_way_is_not_lost_to_a_retirement() {
    let fleet = Fleet::new().await;
    let scope = channel(&fleet.node, "C9").await;
    let sealer = scope.file_sealer(&[]).await.unwrap();
    let id = KeyId::from_bytes(*sealer.head().header().key_id());
    let mut writer = scope.file_sealer(&[]).await.unwrap().writer(Vec::new());
    writer.write_all(b"an upload").unwrap();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    admin.rotate("acme", &[("channel", "C9")]).await.unwrap();
    let cutoff = admin.cutoff("acme").await.unwrap();
    // As long as a file may be sealed under the key, it is not counted.
    fleet.clock.advance(FILE_SEALING_LIMIT - Duration::from_millis(1));
    assert_eq!(kind(admin.census(&cutoff)), ErrorKind::Conflict);
    let sealed = sealer.seal_bytes(b"an upload").unwrap();
    fleet.clock.advance(Duration::from_secs(600));
    let mut census = admin.census(&cutoff).unwrap();
    census.add(&sealed).unwrap();
    let refused = admin.retire("acme", &[id], &census.complete().unwrap(), HOUR).await;
    assert_eq!(kind(refused), ErrorKind::Conflict);
    // And when it is counted, no file is finished any more that was begun before.
    let cut_short = writer.finish().unwrap_err();
    assert!(cut_short.to_string().contains("longer to seal than a day"), "{cut_short}");
}

#[tokio::test]
async fn a_census_that_counted_nothing_proves_nothing() {
    let fleet = Fleet::new().await;
    let old = channel(&fleet.node, "C9").await.seal(&[], b"old").await.unwrap();
    let admin = fleet.node.admin("a test", "to test").unwrap();
    admin.rotate("acme", &[("channel", "C9")]).await.unwrap();
    let cutoff = admin.cutoff("acme").await.unwrap();
    fleet.clock.advance(WRITERS);
    assert_eq!(kind(admin.census(&cutoff).unwrap().complete()), ErrorKind::Conflict);
    let mut census = admin.census(&cutoff).unwrap();
    assert!(census.add(b"plaintext").is_err());
    census.add(&old).unwrap();
    assert_eq!(kind(census.complete()), ErrorKind::Conflict, "a row was passed over");
    // Nor does one that this room did not begin, or began for another tenant.
    let mut census = Census::begin(0);
    census.add(&channel(&fleet.node, "C9").await.seal(&[], b"new").await.unwrap()).unwrap();
    let census = census.complete().unwrap();
    assert_eq!(kind(admin.retire("acme", &[key_id(&old)], &census, HOUR).await), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn a_walk_that_did_nothing_is_not_ok() {
    let fleet = Fleet::new().await;
    fill(&fleet, 5).await;
    let new = fleet.kek("acme-2027", EU);
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let kms = fleet.kms.clone();
    let options = gently().on_progress(move |_| kms.set(Fault::Fails(ErrorKind::Unavailable)));
    assert!(admin.rewrap("acme", &new, &options).await.is_err());
    let refused = admin.resume_rewrap("acme", &gently()).await.unwrap_err();
    assert_eq!((refused.kind(), refused.is_retryable()), (ErrorKind::Unavailable, true));
    let walked = Walked::of(&refused).unwrap();
    assert_eq!((walked.seen, walked.done, walked.failed, walked.failed_keys.len()), (5, 0, 2, 2));
}

#[tokio::test]
async fn a_rewrap_that_is_asked_for_again_takes_up_the_kek_s_newest_version() {
    let fleet = Fleet::new().await;
    fill(&fleet, 6).await;
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let same: KekUri = "local:acme".parse().unwrap();
    fleet.local.rotate_kek("acme").unwrap();
    // It ends after its first page.
    let kms = fleet.kms.clone();
    let options = gently().on_progress(move |_| kms.set(Fault::Fails(ErrorKind::Unavailable)));
    drop(admin.rewrap("acme", &same, &options).await);
    fleet.kms.set(Fault::None);
    let before = fleet.records().await;
    fleet.local.rotate_kek("acme").unwrap();
    admin.rewrap("acme", &same, &gently()).await.unwrap();
    let after = fleet.records().await;
    let as_before = before.iter().zip(&after).filter(|(b, a)| b.wrapped == a.wrapped).count();
    assert_eq!(as_before, 0, "records are still under the version of before");
}

#[tokio::test]
async fn a_migration_that_is_asked_for_again_when_it_is_done_wraps_nothing() {
    let fleet = Fleet::new().await;
    fill(&fleet, 5).await;
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let home = fleet.kek("acme-us", US);
    assert_eq!(admin.migrate_region("acme", region(US), &home, &gently()).await.unwrap().done, 5);
    let epoch = admin.tenant("acme").await.unwrap().epoch;
    assert_eq!(admin.migrate_region("acme", region(US), &home, &gently()).await.unwrap().done, 0);
    assert_eq!(admin.tenant("acme").await.unwrap().epoch, epoch);
}

#[tokio::test]
async fn a_region_that_the_tenant_never_had_is_not_finished() {
    let fleet = Fleet::new().await;
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let home = fleet.kek("acme-us", US);
    let early = admin.cutoff("acme").await.unwrap();
    admin.migrate_region("acme", region(US), &home, &gently()).await.unwrap();
    let cutoff = admin.cutoff("acme").await.unwrap();
    fleet.clock.advance(WRITERS);
    let none = |cutoff: &Cutoff| admin.census(cutoff).unwrap().complete_without_envelopes().unwrap();
    let misspelt = admin.finish_migration("acme", &region("eu-centrall-1"), &none(&cutoff)).await;
    assert_eq!(kind(misspelt), ErrorKind::InvalidArgument);
    assert!(admin.tenant("acme").await.unwrap().policy.allows(&region(EU)));
    let at_home = admin.finish_migration("acme", &region(EU), &none(&early)).await;
    assert_eq!(kind(at_home), ErrorKind::Conflict, "the tenant was still at home there at that cutoff");
    admin.finish_migration("acme", &region(EU), &none(&cutoff)).await.unwrap();
    assert!(!admin.tenant("acme").await.unwrap().policy.allows(&region(EU)));
}

#[tokio::test(start_paused = true)]
async fn a_pace_holds_within_a_page_too() {
    let fleet = Fleet::new().await;
    fill(&fleet, 40).await;
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let new = fleet.kek("acme-2027", EU);
    let (before, options) = (fleet.kms.calls(), WalkOptions::default().per_second(10));
    let rewrap = admin.rewrap("acme", &new, &options);
    assert!(tokio::time::timeout(Duration::from_millis(950), rewrap).await.is_err());
    // One describes the KEK; each of ten records costs a rewrap and a proof.
    let calls = fleet.kms.calls() - before;
    assert!(calls <= 1 + 2 * 10, "{calls} calls in the first second");
}

/// A local KMS that notes when it is asked.
#[derive(Clone)]
struct Noting(LocalKms, Arc<Mutex<Vec<tokio::time::Instant>>>);

impl Noting {
    fn note(&self) {
        self.1.lock().unwrap().push(tokio::time::Instant::now());
    }
}

#[async_trait::async_trait]
impl Kms for Noting {
    fn scheme(&self) -> &str {
        self.0.scheme()
    }

    async fn describe(&self, kek: &KekUri) -> Result<KekDescription, Error> {
        self.0.describe(kek).await
    }

    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, key: &DataKey) -> Result<Vec<u8>, Error> {
        self.note();
        self.0.wrap(kek, context, key).await
    }

    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey, Error> {
        self.note();
        self.0.unwrap(kek, context, wrapped).await
    }
}

/// Each KMS call of a walk has its turn, those that prove what was wrapped too, and those of each holder of an expression.
#[tokio::test(start_paused = true)]
async fn no_walk_asks_the_kms_more_often_than_its_pace() {
    let kms = Noting(LocalKms::in_memory(), Arc::default());
    let builder = Strongroom::builder().serving([EU]).key_store(MemoryKeyStore::default()).kms(kms.clone());
    let room = builder.trusting_the_key_store().build().await.unwrap();
    let admin = room.admin("a test", "to test").unwrap();
    for name in ["a", "b", "c", "acme"] {
        kms.0.create_kek(name, region(EU)).unwrap();
    }
    let both = |one: &str| -> strongroom::KekExpression { format!("all_of(local:{one}, local:c)").parse().unwrap() };
    let policy = TenantPolicy::new(both("a"), region(EU)).scope_by(["channel"]).allow_unbound_messages();
    admin.enroll("acme", policy).await.unwrap();
    for n in 0..30 {
        channel(&room, &format!("C{n}")).await.seal(&[], b"x").await.unwrap();
    }
    let options = WalkOptions::default().per_second(10);
    let worst = |what: &str, each: usize| {
        let times = std::mem::take(&mut *kms.1.lock().unwrap());
        assert_eq!(times.len(), 30 * each, "{what}: KMS calls of 30 records");
        let within = |at: &tokio::time::Instant| {
            times.iter().filter(|other| *other >= at && **other < *at + Duration::from_secs(1)).count()
        };
        // One operation of two holders asks both at once.
        let most = times.iter().map(within).max().unwrap();
        assert!(most <= 10 + 2, "{what}: {most} KMS calls within a second");
    };
    kms.1.lock().unwrap().clear();
    admin.rewrap("acme", both("b"), &options).await.unwrap();
    worst("rewrap", 2 + 2 + 2);
    admin.rewrap("acme", both("b"), &options).await.unwrap();
    worst("rewrap under the same KEKs", 2 + 2 + 2);
    let to = strongroom::ExportTo::Foreign("local:acme".parse().unwrap());
    admin.export("acme", to, &options, |_| Ok(())).await.unwrap();
    worst("export", 2 + 2);
    // Where no KMS is asked, records have the pace.
    let began = tokio::time::Instant::now();
    assert_eq!(admin.rotate_all("acme", Selector::everything(), &options).await.unwrap().done, 30);
    assert!(began.elapsed() >= Duration::from_secs(2), "30 records at 10 a second took {:?}", began.elapsed());
    let erasure = admin.erase("acme", Selector::everything(), Duration::ZERO).await.unwrap();
    let began = tokio::time::Instant::now();
    assert_eq!(admin.carry_out_erasure("acme", &erasure.id, &options).await.unwrap().done, 30);
    assert!(began.elapsed() >= Duration::from_secs(2), "30 records at 10 a second took {:?}", began.elapsed());
}

#[tokio::test]
async fn rows_that_do_not_read_are_named_and_passed_over() {
    let fleet = Fleet::new().await;
    let sealed = fill(&fleet, 4).await;
    let bad = key_id(&sealed[1]);
    let key = RowKey::Key(strongroom::TenantId::new("acme").unwrap(), bad);
    let (_, mut bytes, index) = fleet.store.raw_rows().into_iter().find(|(at, ..)| *at == key).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fleet.store.raw_put(&key, Some(bytes), index);
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let page = admin.keys("acme", None, 100).await.unwrap();
    assert_eq!((page.keys.len(), page.unreadable[0].0), (3, bad));
    let preview = admin.preview("acme", &Selector::everything()).await.unwrap();
    assert!(preview.to_string().contains(&bad.to_string()), "{preview}");
    let others_done = |part: Error| {
        let walked = Walked::of(&part).unwrap();
        assert_eq!((walked.done, walked.failed, walked.failed_keys.clone()), (3, 1, vec![bad]), "{part}");
        assert!(part.to_string().contains(&bad.to_string()), "{part}");
    };
    others_done(admin.rotate_all("acme", Selector::everything(), &gently()).await.unwrap_err());
    others_done(admin.rewrap("acme", &fleet.kek("acme-2027", EU), &gently()).await.unwrap_err());
    let this = Selector::fields([("channel", "C0")]);
    let erasure = admin.erase("acme", this, Duration::ZERO).await.unwrap();
    let carried_out = admin.carry_out_erasure("acme", &erasure.id, &gently()).await.unwrap();
    assert_eq!((carried_out.done, carried_out.failed_keys), (1, vec![bad]));
    let scope = channel(&fleet.node, "C0").await;
    assert_eq!(kind(scope.open(&[], &sealed[0]).await), ErrorKind::Erased);
}

/// A local KMS that denies some scopes and throttles the first calls.
#[derive(Clone)]
struct Choosy {
    local: LocalKms,
    denied: Arc<Mutex<BTreeSet<String>>>,
    throttled: Arc<Mutex<u32>>,
}

impl Choosy {
    fn check(&self, context: &EncryptionContext) -> Result<(), Error> {
        let mut throttled = self.throttled.lock().unwrap();
        if *throttled > 0 {
            *throttled -= 1;
            return Err(Error::new(ErrorKind::Throttled, "slow down"));
        }
        let denied = self.denied.lock().unwrap();
        if context.fields().any(|(_, value)| denied.contains(value)) {
            return Err(Error::new(ErrorKind::Denied, "not what was wrapped"));
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Kms for Choosy {
    fn scheme(&self) -> &str {
        self.local.scheme()
    }

    async fn describe(&self, kek: &KekUri) -> Result<KekDescription, Error> {
        self.local.describe(kek).await
    }

    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, key: &DataKey) -> Result<Vec<u8>, Error> {
        self.check(context)?;
        self.local.wrap(kek, context, key).await
    }

    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey, Error> {
        self.check(context)?;
        self.local.unwrap(kek, context, wrapped).await
    }
}

async fn choosy(channels: usize) -> (Strongroom, Choosy, Arc<MemoryKeyStore>) {
    let kms = Choosy { local: LocalKms::in_memory(), denied: Arc::default(), throttled: Arc::default() };
    let store = Arc::new(MemoryKeyStore::default());
    let builder = Strongroom::builder().serving([EU]).key_store(Arc::clone(&store)).kms(kms.clone());
    let room = builder.trusting_the_key_store().build().await.unwrap();
    let kek = kms.local.create_kek("acme", region(EU)).unwrap();
    let policy = TenantPolicy::new(kek, region(EU)).scope_by(["channel"]).allow_unbound_messages();
    room.admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
    for n in 0..channels {
        channel(&room, &format!("C{n}")).await.seal(&[], b"x").await.unwrap();
    }
    (room, kms, store)
}

#[tokio::test]
async fn records_that_cannot_be_done_stop_no_walk_when_they_come_first() {
    let (room, kms, _) = choosy(8).await;
    let admin = room.admin("a test", "to test").unwrap();
    let first = admin.keys("acme", None, 4).await.unwrap().keys;
    kms.denied.lock().unwrap().extend(first.iter().map(|key| key.scope.get("channel").unwrap().to_owned()));
    let new = kms.local.create_kek("acme-2027", region(EU)).unwrap();
    drop(admin.rewrap("acme", &new, &gently().page(1)).await);
    let done = admin.keys("acme", None, 100).await.unwrap().keys;
    let done = done.iter().filter(|key| key.wrapped.as_ref().unwrap().expression() == (&new).into()).count();
    assert_eq!(done, 4, "of eight, four cannot be done");
}

#[tokio::test(start_paused = true)]
async fn a_throttled_walk_slows_down_and_gets_there() {
    let (room, kms, _) = choosy(8).await;
    let admin = room.admin("a test", "to test").unwrap();
    let new = kms.local.create_kek("acme-2027", region(EU)).unwrap();
    *kms.throttled.lock().unwrap() = 3;
    let began = tokio::time::Instant::now();
    assert_eq!(admin.rewrap("acme", &new, &WalkOptions::default()).await.unwrap().done, 8);
    assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
}

/// A table that is read in an order of its own.
struct Ordered(Mutex<Vec<EnvelopeRow>>, fn(&str, &str) -> bool);

#[async_trait::async_trait]
impl EnvelopeTable for Ordered {
    async fn page(&self, after: Option<&str>, limit: u32) -> Result<Vec<EnvelopeRow>, Error> {
        let later = |row: &&EnvelopeRow| after.is_none_or(|after| (self.1)(after, &row.id));
        Ok(self.0.lock().unwrap().iter().filter(later).take(limit as usize).cloned().collect())
    }

    async fn replace(&self, row: &EnvelopeRow, envelope: &[u8]) -> Result<bool, Error> {
        let mut rows = self.0.lock().unwrap();
        rows.iter_mut().find(|stored| stored.id == row.id).unwrap().envelope = envelope.to_vec();
        Ok(true)
    }
}

async fn numbered(fleet: &Fleet, ids: impl Iterator<Item = usize>, after: fn(&str, &str) -> bool) -> Ordered {
    let scope = channel(&fleet.node, "C9").await;
    let mut rows = Vec::new();
    for id in ids {
        let envelope = scope.seal(&[], b"x").await.unwrap();
        let scope = vec![("channel".to_owned(), "C9".to_owned())];
        rows.push(EnvelopeRow { id: id.to_string(), scope, context: Vec::new(), envelope });
    }
    fleet.node.admin("a test", "to test").unwrap().rotate("acme", &[("channel", "C9")]).await.unwrap();
    Ordered(Mutex::new(rows), after)
}

fn number(id: &str) -> u64 {
    id.parse().unwrap()
}

#[tokio::test]
async fn a_table_with_numbers_for_ids_is_resealed_to_its_end() {
    let fleet = Fleet::new().await;
    let table = numbered(&fleet, 1..=120, |after, id| number(after) < number(id)).await;
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let resealed = admin.reseal("acme", &table, None, &gently(), |_| {}).await.unwrap();
    assert_eq!(resealed.resealed, 120);
}

#[tokio::test]
async fn a_table_without_an_order_is_refused() {
    let fleet = Fleet::new().await;
    // As a heap has them: every id once, in no order.
    let table = numbered(&fleet, (0..100).map(|n| n * 37 % 100), |after, id| number(after) < number(id)).await;
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let refused = admin.reseal("acme", &table, None, &gently(), |_| {}).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    let walked = Resealed::of(&refused).unwrap();
    assert!(walked.resealed > 0 && walked.after.is_some(), "how far it was is not lost: {walked:?}");
}

#[tokio::test]
async fn a_residency_report_sees_keks_whose_region_was_withdrawn_and_wrappings_that_wait() {
    let fleet = Fleet::new().await;
    fill(&fleet, 3).await;
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let (us, census) = (fleet.kek("acme-us", US), Census::begin(0));
    let policy = admin.tenant("acme").await.unwrap().policy.allow_region(region(US));
    let row = admin.tenant("acme").await.unwrap();
    admin.set_policy(&row, policy).await.unwrap();
    // A node that cannot read back what it wrote leaves wrappings that wait.
    let store = Failpoints::new(Arc::clone(&fleet.store), |point| match point {
        "store.get.key.before" => Err(Error::new(ErrorKind::Unavailable, "the database is away")),
        _ => Ok(()),
    });
    let builder = Strongroom::builder().serving([EU]).key_store(store).kms(fleet.kms.clone());
    let cut_off = builder.clock(fleet.clock.clone()).open_under(&fleet.operator).await;
    drop(cut_off.admin("a test", "to test").unwrap().rewrap("acme", &us, &gently()).await.unwrap_err());
    let report = admin.residency("acme", &census).await.unwrap();
    assert!(report.is_clean() && report.rows[0].kek_regions.contains(&region(US)), "{report:?}");
    admin.resume_rewrap("acme", &gently()).await.unwrap();
    // The URI `local:acme-us` does not say where that is.
    let local: KekUri = "local:acme".parse().unwrap();
    let policy = admin.tenant("acme").await.unwrap().policy.wrapped_by(local).disallow_region(&region(US));
    let row = admin.tenant("acme").await.unwrap();
    admin.set_policy(&row, policy).await.unwrap();
    let report = admin.residency("acme", &census).await.unwrap();
    assert!(!report.is_clean() && report.misplaced_keys.len() == 3, "{report}");
    fleet.kms.set(Fault::Fails(ErrorKind::Unavailable));
    let report = admin.residency("acme", &census).await.unwrap();
    assert!(!report.is_clean() && report.unknown_keks.contains(&us), "{report}");
}

#[tokio::test]
async fn a_preview_tells_hours_and_days_apart() {
    let fleet = Fleet::with(|p| p.period(strongroom::Period::Hour)).await;
    let admin = fleet.node.admin("a test", "to test").unwrap();
    let scope = channel(&fleet.node, "C9").await;
    for _ in 0..2 {
        scope.seal(&[], b"x").await.unwrap();
        fleet.clock.advance(HOUR);
    }
    let policy = admin.tenant("acme").await.unwrap().policy.period(strongroom::Period::Day);
    let row = admin.tenant("acme").await.unwrap();
    admin.set_policy(&row, policy).await.unwrap();
    channel(&fleet.node, "C9").await.seal(&[], b"x").await.unwrap();
    let preview = admin.preview("acme", &Selector::everything()).await.unwrap();
    for row in &preview.rows {
        let (first, last) = (row.first.clone().unwrap(), row.last.clone().unwrap());
        assert_eq!(first.field().0, last.field().0, "{preview}");
    }
    assert_eq!(preview.rows.iter().map(|row| row.keys).sum::<u64>(), 3);
}

#[tokio::test]
async fn a_preview_says_no_key_to_come_where_new_keys_are_of_another_kind_of_period() {
    let fleet = Fleet::with(|p| p.period(strongroom::Period::Hour)).await;
    let admin = fleet.node.admin("a test", "to test").unwrap();
    channel(&fleet.node, "C9").await.seal(&[], b"x").await.unwrap();
    let label = |text| strongroom::PeriodLabel::new(text).unwrap();
    let this_hour = label("hour=2026-11-22T05Z");
    let covers_new = async |selector: Selector| admin.preview("acme", &selector).await.unwrap().covers_new;
    assert!(covers_new(Selector::everything().from(this_hour.clone())).await);
    assert!(covers_new(Selector::everything().to(this_hour.clone())).await);
    crate::set_policy(&admin, |p| p.period(strongroom::Period::Day)).await.unwrap();
    for over in [
        Selector::everything().from(this_hour.clone()),
        Selector::everything().from(this_hour.clone()).to(label("hour=2026-11-22T09Z")),
        Selector::everything().to(label("hour=2026-12-22T05Z")),
        Selector::fields([("hour", "2026-11-22T05Z")]),
    ] {
        assert!(!covers_new(over.clone()).await, "{over}: new keys are of days");
    }
    assert!(covers_new(Selector::everything().from(label("day=2026-11-22"))).await);
    crate::set_policy(&admin, |p| p.period(strongroom::Period::None)).await.unwrap();
    assert!(!covers_new(Selector::everything().from(this_hour)).await, "new keys have no period");
}
