//! The room's own rows: another room's under the same root, a second one, one that is gone, one of before, and racing creators.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use strongroom::testing::{ManualClock, Operator};
use strongroom::{
    DataKey, EncryptionContext, Error, ErrorKind, KekDescription, KekUri, Kms, LocalKms, Mark, MemoryKeyStore, Root,
    RowKey, Strongroom, StrongroomBuilder, Subject, Watermark,
};
use tokio::sync::{Barrier, Notify};
use tokio::task::JoinSet;

use crate::world::{EU, NOW, World, kind};

fn builder(operator: &Operator, store: &Arc<MemoryKeyStore>, name: &str) -> StrongroomBuilder {
    let builder = Strongroom::builder().serving([EU]).key_store(Arc::clone(store)).kms(LocalKms::in_memory());
    let builder = builder.clock(ManualClock::at(NOW)).room(name).root(operator.root.clone());
    builder.watermark(Arc::clone(&operator.watermark))
}

#[tokio::test]
async fn building_never_creates_a_room() {
    let (operator, store) = (Operator::default(), Arc::new(MemoryKeyStore::default()));
    assert_eq!(kind(builder(&operator, &store, "chat").build().await), ErrorKind::InvalidArgument);
    assert!(store.raw_rows().is_empty());
    builder(&operator, &store, "chat").create_room("alice", "a start").await.unwrap();
    assert_eq!(kind(builder(&operator, &store, "chat").create_room("alice", "again").await), ErrorKind::Conflict);
    builder(&operator, &store, "chat").build().await.unwrap();
    // Neither by another name, nor without a root, nor under another one.
    assert_eq!(kind(builder(&operator, &store, "staging").build().await), ErrorKind::InvalidArgument);
    let trusting = Strongroom::builder().serving([EU]).key_store(Arc::clone(&store)).kms(LocalKms::in_memory());
    assert_eq!(kind(trusting.clone().trusting_the_key_store().build().await), ErrorKind::InvalidArgument);
    assert_eq!(kind(trusting.build().await), ErrorKind::InvalidArgument);
    let other = Operator { root: Operator::default().root, watermark: Arc::clone(&operator.watermark) };
    assert_eq!(kind(builder(&other, &store, "chat").build().await), ErrorKind::Denied);
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_finished() {
    let (operator, store) = (Operator::default(), Arc::new(MemoryKeyStore::default()));
    builder(&operator, &store, "chat").create_room("alice", "a start").await.unwrap();
    // As if it had ended before the watermark took note.
    let again = Operator { root: operator.root.clone(), ..Operator::default() };
    builder(&again, &store, "chat").create_room("alice", "again").await.unwrap();
    let mark = operator.watermark.read(&Subject::Room).await.unwrap();
    assert!(mark.is_some() && again.watermark.read(&Subject::Room).await.unwrap() == mark);
    builder(&again, &store, "chat").build().await.unwrap();
}

const RACERS: usize = 8;

/// A root's KMS that answers the first call of each racer when all have made it: by then each has seen that there is no room.
struct Start {
    kms: LocalKms,
    racers: AtomicUsize,
    line: Barrier,
}

#[async_trait::async_trait]
impl Kms for Start {
    fn scheme(&self) -> &str {
        self.kms.scheme()
    }

    async fn describe(&self, kek: &KekUri) -> Result<KekDescription, Error> {
        self.kms.describe(kek).await
    }

    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, key: &DataKey) -> Result<Vec<u8>, Error> {
        if self.racers.fetch_add(1, Ordering::SeqCst) < RACERS {
            self.line.wait().await;
        }
        self.kms.wrap(kek, context, key).await
    }

    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey, Error> {
        self.kms.unwrap(kek, context, wrapped).await
    }
}

/// A watermark that keeps the first who would raise it waiting until all others are through: who wrote the room's row comes last.
struct Finish {
    watermark: Arc<dyn Watermark>,
    is_first: AtomicBool,
    others: Notify,
}

#[async_trait::async_trait]
impl Watermark for Finish {
    async fn read(&self, subject: &Subject) -> Result<Option<Mark>, Error> {
        self.watermark.read(subject).await
    }

    async fn advance(&self, subject: &Subject, from: Option<&Mark>, to: &Mark) -> Result<bool, Error> {
        if self.is_first.swap(false, Ordering::SeqCst) {
            self.others.notified().await;
        }
        self.watermark.advance(subject, from, to).await
    }
}

#[tokio::test]
async fn of_racing_creators_one_creates() {
    let (operator, store, kms) = (Operator::default(), Arc::new(MemoryKeyStore::default()), LocalKms::in_memory());
    let kek = kms.create_kek("root", EU.parse().unwrap()).unwrap();
    let start = Start { kms, racers: AtomicUsize::new(0), line: Barrier::new(RACERS) };
    let finish = Arc::new(Finish {
        watermark: Arc::clone(&operator.watermark),
        is_first: AtomicBool::new(true),
        others: Notify::new(),
    });
    let one = builder(&operator, &store, "chat").root(Root::new(start, kek).unwrap()).watermark(Arc::clone(&finish));
    let mut racers = JoinSet::new();
    for n in 0..RACERS {
        let one = one.clone();
        racers.spawn(async move { one.create_room(&format!("racer {n}"), "a race").await });
    }
    let mut ended = Vec::new();
    while let Some(racer) = racers.join_next().await {
        ended.push(racer.unwrap().map_err(|e| e.kind()));
        if racers.len() == 1 {
            finish.others.notify_one();
        }
    }
    assert_eq!(ended.iter().filter(|ended| **ended == Err(ErrorKind::Conflict)).count(), RACERS - 1, "{ended:?}");
    assert_eq!(ended.last(), Some(&Ok(())), "who wrote the row");
    one.build().await.unwrap();
}

/// Staging under the same root, by another name or, carelessly, by the same one.
#[tokio::test]
async fn another_room_s_row_is_not_this_one_s() {
    let world = World::new().await;
    for name in ["staging", Operator::ROOM] {
        let store = Arc::new(MemoryKeyStore::default());
        let staging = Operator { root: world.operator.root.clone(), ..Operator::default() };
        builder(&staging, &store, name).create_room("mallory", "staging").await.unwrap();
        let honest = world.store.snapshot();
        for key in [RowKey::Room, RowKey::Fleet] {
            let theirs = store.raw_rows().into_iter().find(|row| row.0 == key).unwrap().1;
            world.store.raw_put(&key, Some(theirs), None);
        }
        for watermark in [true, false] {
            let built = world.try_fresh(watermark).await;
            match (name == Operator::ROOM, watermark) {
                (false, _) => assert_eq!(kind(built), ErrorKind::InvalidArgument),
                (true, true) => assert_eq!(kind(built), ErrorKind::RolledBack),
                // The limit without a watermark: it starts, as staging's, and believes none of this room's rows.
                (true, false) => {
                    let node = built.unwrap();
                    assert_eq!(kind(world.seal(&node, "acme", "C9").await), ErrorKind::Tampered);
                }
            }
        }
        world.store.restore(&honest);
    }
}

#[tokio::test]
async fn a_room_s_row_that_is_gone_or_of_before_is_refused() {
    let world = World::new().await;
    let before = world.row(&RowKey::Room);
    world.admin().evict().await.unwrap();
    let after = world.row(&RowKey::Room);
    world.store.raw_put(&before.0, Some(before.1.clone()), None);
    assert_eq!(kind(world.try_fresh(true).await), ErrorKind::RolledBack);
    // Without a watermark a process believes the generation before, whose keys the evicted node has.
    assert!(world.try_fresh(false).await.is_ok());
    world.store.raw_put(&before.0, None, None);
    assert_eq!(kind(world.try_fresh(true).await), ErrorKind::RolledBack);
    assert_eq!(kind(world.try_fresh(false).await), ErrorKind::InvalidArgument);
    // Every bit of it counts.
    for bit in (0..after.1.len() * 8).step_by(97) {
        let mut edited = after.1.clone();
        edited[bit / 8] ^= 1 << (bit % 8);
        world.store.raw_put(&after.0, Some(edited), None);
        assert!(world.try_fresh(true).await.is_err() && world.try_fresh(false).await.is_err(), "bit {bit}");
    }
    world.store.raw_put(&after.0, Some(after.1), None);
    world.fresh(true).await;
}

/// An evicted control plane writes the room back to the generation that it knows, as the next version of its row.
#[tokio::test]
async fn an_evicted_control_plane_does_not_bring_its_generation_back() {
    use strongroom::testing::{TakenOverControlPlane, row_body};
    let world = World::new().await;
    let thief = TakenOverControlPlane::of(&world.node).await.unwrap();
    let before = world.row(&RowKey::Room);
    world.admin().evict().await.unwrap();
    let after = world.row(&RowKey::Room);
    let mut body = String::from_utf8(row_body(&before.0, &before.1).unwrap()).unwrap();
    let digest = strongroom::RowDigest::of(&after.1);
    body = body.replace("\"epoch\":1,\"predecessor\":null", &format!("\"epoch\":3,\"predecessor\":\"{digest}\""));
    assert!(body.contains("\"epoch\":3"));
    let forged = thief.sign_text(&before.0, &body).unwrap();
    world.store.raw_put(&RowKey::Room, Some(forged), None);
    for watermark in [true, false] {
        assert!(world.try_fresh(watermark).await.is_err(), "the watermark: {watermark}");
    }
    // Nodes that run have no lease on a store whose room they do not believe; and nobody is evicted in vain.
    assert!(world.admin().evict().await.is_err());
    world.store.raw_put(&RowKey::Room, Some(after.1), None);
    world.settle();
    world.seal(&world.node, "acme", "C9").await.unwrap();
}

/// The control plane needs a watermark: it would sign what an older copy says.
#[tokio::test]
async fn without_a_watermark_there_is_no_control_plane() {
    let world = World::new().await;
    assert_eq!(kind(world.fresh(false).await.admin("alice", "a test")), ErrorKind::InvalidArgument);
    for (actor, reason) in [("", "why"), ("who", ""), ("who\n", "why")] {
        assert_eq!(kind(world.node.admin(actor, reason)), ErrorKind::InvalidArgument);
    }
}
