//! A room with two tenants, an attacker who holds its key store, and what the attacker may do.

use std::sync::Arc;
use std::time::Duration;

use strongroom::testing::{FaultyKms, ManualClock, Operator, key_id_of, row_body, with_body};
use strongroom::{
    Admin, DataKey, Error, ErrorKind, Header, KekExpression, KeyId, KeyIndex, KeyRecord, LocalKms, MemoryKeyStore,
    Region, RowKey, ScopeHandle, Selector, Strongroom, Suite, TenantId, TenantPolicy, WalkOptions,
};

/// 2026-11-22T05:17:29.5Z
pub(crate) const NOW: i64 = 1_795_324_649_500;
pub(crate) const EU: &str = "eu-central-1";
pub(crate) const BOUND: Duration = Duration::from_secs(5);

pub(crate) type Row = (RowKey, Vec<u8>, Option<KeyIndex>);

pub(crate) struct World {
    pub(crate) operator: Operator,
    pub(crate) store: Arc<MemoryKeyStore>,
    pub(crate) local: LocalKms,
    pub(crate) kms: FaultyKms,
    pub(crate) clock: ManualClock,
    /// A node that has run since the beginning.
    pub(crate) node: Strongroom,
}

pub(crate) fn region() -> Region {
    Region::new(EU).unwrap()
}

pub(crate) fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    match result {
        Ok(_) => panic!("accepted"),
        Err(e) => e.kind(),
    }
}

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub(crate) fn channel(name: &str) -> Selector {
    Selector::fields([("channel", name)])
}

pub(crate) fn key_id(envelope: &[u8]) -> KeyId {
    KeyId::from_bytes(*Header::parse(envelope).unwrap().key_id())
}

pub(crate) fn walk() -> WalkOptions {
    WalkOptions::default()
}

impl World {
    /// acme needs `local:acme` and `local:second-holder` together; globex has a KEK of its own.
    pub(crate) async fn new() -> Self {
        Self::of(Operator::default()).await
    }

    /// Another room of the same name under the same root: staging.
    pub(crate) async fn with_root(root: &strongroom::LocalRoot) -> Self {
        Self::of(Operator { root: root.clone(), ..Operator::default() }).await
    }

    async fn of(operator: Operator) -> Self {
        let local = LocalKms::in_memory();
        for name in ["acme", "second-holder", "globex", "mallory"] {
            local.create_kek(name, region()).unwrap();
        }
        let (kms, clock) = (FaultyKms::new(local.clone()), ManualClock::at(NOW));
        let store = Arc::new(MemoryKeyStore::default());
        let node = Self::builder(&store, &kms, &clock).open_under(&operator).await;
        let world = Self { operator, store, local, kms, clock, node };
        let keks: KekExpression = "all_of(local:acme, local:second-holder)".parse().unwrap();
        world.enroll("acme", keks).await;
        world.enroll("globex", "local:globex".parse().unwrap()).await;
        world
    }

    fn builder(store: &Arc<MemoryKeyStore>, kms: &FaultyKms, clock: &ManualClock) -> strongroom::StrongroomBuilder {
        let builder = Strongroom::builder().serving([EU]).key_store(Arc::clone(store)).kms(kms.clone());
        builder.clock(clock.clone()).revocation_bound(BOUND)
    }

    pub(crate) async fn enroll(&self, name: &str, keks: KekExpression) {
        let policy = TenantPolicy::new(keks, region()).scope_by(["channel"]);
        self.admin().enroll(name, policy).await.unwrap();
    }

    pub(crate) fn admin(&self) -> Admin {
        self.node.admin("alice", "a test").unwrap()
    }

    /// A process that starts now, with the fleet's watermark or without one.
    pub(crate) async fn try_fresh(&self, watermark: bool) -> Result<Strongroom, Error> {
        let builder = Self::builder(&self.store, &self.kms, &self.clock);
        if watermark {
            return self.operator.equip(builder).build().await;
        }
        let builder = builder.room(Operator::ROOM).root(self.operator.root.clone());
        builder.without_rollback_protection().build().await
    }

    pub(crate) async fn fresh(&self, watermark: bool) -> Strongroom {
        self.try_fresh(watermark).await.unwrap()
    }

    pub(crate) async fn seal(&self, node: &Strongroom, of: &str, channel: &str) -> Result<Vec<u8>, Error> {
        scope(node, of, channel).await?.seal(&[("message", "M1")], b"hello").await
    }

    pub(crate) async fn open(&self, node: &Strongroom, of: &str, channel: &str, sealed: &[u8]) -> Result<(), Error> {
        let opened = scope(node, of, channel).await?.open(&[("message", "M1")], sealed).await?;
        assert_eq!(&*opened, b"hello");
        Ok(())
    }

    /// Leases end, so that every node hears what was decided, or that it has not.
    pub(crate) fn settle(&self) {
        self.clock.advance(BOUND);
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        self.store.raw_rows()
    }

    pub(crate) fn row(&self, key: &RowKey) -> Row {
        self.rows().into_iter().find(|row| row.0 == *key).unwrap()
    }

    /// The record of a data key, as anybody reads it.
    pub(crate) fn record(&self, of: &str, id: KeyId) -> (KeyRecord, Row) {
        let row = self.row(&RowKey::Key(tenant(of), id));
        (serde_json::from_slice(&row_body(&row.0, &row.1).unwrap()).unwrap(), row)
    }

    /// Puts a record of the attacker's own in the place that `index` says, under the authenticator of `like`.
    pub(crate) fn plant_without_keys(&self, record: &KeyRecord, like: &Row, index: Option<KeyIndex>) {
        let bytes = with_body(&like.0, &like.1, &serde_json::to_vec(record).unwrap()).unwrap();
        self.store.raw_put(&RowKey::Key(record.tenant.clone(), record.key_id), Some(bytes), index);
    }
}

pub(crate) async fn scope(node: &Strongroom, of: &str, channel: &str) -> Result<ScopeHandle, Error> {
    node.tenant(of).await?.scope([("channel", channel)])
}

/// A data key that the attacker chose, and its id.
pub(crate) fn known_key() -> (DataKey, KeyId) {
    let key = DataKey::take(&mut b"thirty-two bytes of the attacker".to_vec()).unwrap();
    let id = key_id_of(&key, Suite::default()).unwrap();
    (key, id)
}
