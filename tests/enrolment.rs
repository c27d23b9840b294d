//! Enrolment where something tells of an earlier one: on a key store that lost rows, or was emptied.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may panic

use std::path::PathBuf;
use std::sync::Arc;

use sqlx::ConnectOptions as _;
use strongroom::testing::Operator;
use strongroom::{
    Error, ErrorKind, KeyStore, LocalKms, MemoryKeyStore, Region, RowKey, SqliteKeyStore, Strongroom, Subject,
    TenantPolicy, Watermark as _,
};

const ALL: [&str; 4] = ["tenants", "journal", "data_keys", "keks"];

/// A key store from which rows can be lost.
enum Place {
    Memory(Arc<MemoryKeyStore>),
    Sqlite { path: PathBuf, _folder: tempfile::TempDir },
}

impl Place {
    async fn all() -> [Self; 2] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.db");
        SqliteKeyStore::create(&path).await.unwrap().close().await;
        [Self::Memory(Arc::default()), Self::Sqlite { path, _folder: folder }]
    }

    async fn store(&self) -> Arc<dyn KeyStore> {
        match self {
            Self::Memory(store) => Arc::clone(store) as Arc<dyn KeyStore>,
            Self::Sqlite { path, .. } => Arc::new(SqliteKeyStore::open(path).await.unwrap()),
        }
    }

    /// Loses rows of these kinds.
    async fn lose(&self, tables: &[&str]) {
        match self {
            Self::Memory(store) => {
                for (key, ..) in store.raw_rows() {
                    let table = match &key {
                        RowKey::Tenant(_) => "tenants",
                        RowKey::Journal(..) => "journal",
                        RowKey::Key(..) => "data_keys",
                        RowKey::Kek(_) => "keks",
                        _ => continue,
                    };
                    if tables.contains(&table) {
                        store.raw_put(&key, None, None);
                    }
                }
            }
            Self::Sqlite { path, .. } => {
                let mut db = sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.unwrap();
                for table in tables {
                    let delete = sqlx::AssertSqlSafe(format!("DELETE FROM {table}"));
                    sqlx::raw_sql(delete).execute(&mut db).await.unwrap();
                }
            }
        }
    }
}

/// A backend with one tenant, and one message of it.
struct World {
    place: Place,
    kms: LocalKms,
    operator: Operator,
    sealed: Vec<u8>,
}

impl World {
    async fn new(place: Place) -> Self {
        let kms = LocalKms::in_memory();
        kms.create_kek("acme", region()).unwrap();
        let mut world = Self { place, kms, operator: Operator::default(), sealed: Vec::new() };
        let room = world.start().await;
        room.admin("alice", "a new customer").unwrap().enroll("acme", policy()).await.unwrap();
        world.sealed = seal(&room).await.unwrap();
        world
    }

    fn builder(&self, store: Arc<dyn KeyStore>) -> strongroom::StrongroomBuilder {
        Strongroom::builder().serving(["eu-central-1"]).key_store(store).kms(self.kms.clone())
    }

    /// A process that starts now.
    async fn start(&self) -> Strongroom {
        self.builder(self.place.store().await).open_under(&self.operator).await
    }

    async fn admin(&self) -> strongroom::Admin {
        self.start().await.admin("bob", "it is not known").unwrap()
    }

    /// The watermark is lost as well: it has the room's marks and no tenant's.
    async fn forget_marks(&mut self) {
        let fresh = Operator { root: self.operator.root.clone(), ..Operator::default() };
        for subject in [Subject::Room, Subject::Fleet] {
            let mark = self.operator.watermark.read(&subject).await.unwrap().unwrap();
            assert!(fresh.watermark.advance(&subject, None, &mark).await.unwrap());
        }
        self.operator = fresh;
    }
}

fn region() -> Region {
    Region::new("eu-central-1").unwrap()
}

fn policy() -> TenantPolicy {
    TenantPolicy::new(strongroom::KekUri::new("local:acme").unwrap(), region()).scope_by(["channel"]).bind(["message"])
}

async fn seal(room: &Strongroom) -> Result<Vec<u8>, Error> {
    let scope = room.tenant("acme").await?.scope([("channel", "C9")])?;
    scope.seal(&[("message", "M1")], b"hello").await
}

async fn open(room: &Strongroom, sealed: &[u8]) -> Result<(), Error> {
    let scope = room.tenant("acme").await?.scope([("channel", "C9")])?;
    scope.open(&[("message", "M1")], sealed).await.map(drop)
}

fn refused<T>(result: Result<T, Error>, kind: ErrorKind) {
    let e = result.err().expect("begun anew, and what was sealed is lost");
    assert_eq!((e.kind(), e.tenant()), (kind, Some("acme")), "{e}");
    assert!(e.to_string().contains("estore its newest copy"), "{e}");
    assert!(!e.is_retryable());
}

#[tokio::test]
async fn a_tenant_that_the_watermark_remembers_is_not_enrolled_anew_unawares() {
    for place in Place::all().await {
        let world = World::new(place).await;
        world.place.lose(&ALL).await;
        let admin = world.admin().await;
        refused(admin.enroll("acme", policy()).await, ErrorKind::RolledBack);
        assert_eq!(admin.ensure_enrolled("acme", policy(), None).await.unwrap_err().kind(), ErrorKind::RolledBack);
    }
}

/// With the watermark lost too, rows that are left tell.
#[tokio::test]
async fn a_tenant_of_which_rows_are_left_is_not_enrolled_anew_unawares() {
    for lost in [
        &["tenants"][..],
        &["tenants", "journal", "keks"],
        &["tenants", "data_keys", "keks"],
        &["tenants", "data_keys", "journal"],
    ] {
        for place in Place::all().await {
            let mut world = World::new(place).await;
            world.place.lose(lost).await;
            world.forget_marks().await;
            let admin = world.admin().await;
            refused(admin.enroll("acme", policy()).await, ErrorKind::StoreInconsistent);
            refused(admin.ensure_enrolled("acme", policy(), None).await, ErrorKind::StoreInconsistent);
            assert_eq!(
                admin.tenant("acme").await.unwrap_err().kind(),
                ErrorKind::UnknownTenant,
                "it was begun: {lost:?}"
            );
        }
    }
}

/// Where all is gone, only the embedder can tell: by an envelope that it holds.
#[tokio::test]
async fn an_envelope_that_is_held_tells_that_a_tenant_began_before() {
    for place in Place::all().await {
        let mut world = World::new(place).await;
        let admin = world.admin().await;
        assert!(!admin.ensure_enrolled("acme", policy(), Some(&world.sealed)).await.unwrap(), "it is enrolled");
        assert!(!admin.ensure_enrolled("acme", policy(), None).await.unwrap());
        let garbled = admin.ensure_enrolled("acme", policy(), Some(b"no envelope")).await.unwrap_err();
        assert_eq!(garbled.kind(), ErrorKind::Malformed);
        // A key record that is gone is a loss, too.
        world.place.lose(&["data_keys"]).await;
        refused(admin.ensure_enrolled("acme", policy(), Some(&world.sealed)).await, ErrorKind::StoreInconsistent);
        world.place.lose(&ALL).await;
        world.forget_marks().await;
        let admin = world.admin().await;
        refused(admin.ensure_enrolled("acme", policy(), Some(&world.sealed)).await, ErrorKind::StoreInconsistent);
        // A file says as much.
        let file = [b"\x8ESRFILE\n", &world.sealed[..35 + "eu-central-1".len()], &[0; 56][..]].concat();
        let said = admin.ensure_enrolled("acme", policy(), Some(&file)).await.unwrap_err();
        assert_eq!(said.kind(), ErrorKind::StoreInconsistent, "{said}");
        // Who holds none begins; once, however many start.
        let other = world.admin().await;
        let (one, two) =
            tokio::join!(admin.ensure_enrolled("acme", policy(), None), other.ensure_enrolled("acme", policy(), None));
        assert!(one.unwrap() || two.unwrap());
        assert!(!admin.ensure_enrolled("acme", policy(), None).await.unwrap());
        refused(admin.ensure_enrolled("acme", policy(), Some(&world.sealed)).await, ErrorKind::StoreInconsistent);
        let sealed = seal(&world.start().await).await.unwrap();
        assert!(!admin.ensure_enrolled("acme", policy(), Some(&sealed)).await.unwrap());
    }
}

/// Whoever means it says so by name; then all goes on, whatever was left.
#[tokio::test]
async fn what_is_begun_anew_by_name_goes_on_and_gives_up_what_was() {
    for (lost, marks) in
        [(&ALL[..], true), (&["tenants"], true), (&["tenants"], false), (&["tenants", "data_keys"], false)]
    {
        for place in Place::all().await {
            let mut world = World::new(place).await;
            let running = world.start().await;
            open(&running, &world.sealed).await.unwrap();
            // Some decisions more, which the new journal meets.
            for _ in 0..3 {
                world.admin().await.rotate("acme", &[("channel", "C9")]).await.unwrap();
            }
            let admin = world.admin().await;
            assert_eq!(
                admin.enroll_anew("acme", policy()).await.unwrap_err().kind(),
                ErrorKind::Conflict,
                "it is enrolled"
            );
            open(&running, &world.sealed).await.unwrap();
            world.place.lose(lost).await;
            if !marks {
                world.forget_marks().await;
            }
            let admin = world.admin().await;
            assert!(admin.enroll("acme", policy()).await.is_err());
            admin.enroll_anew("acme", policy()).await.unwrap();
            admin.enroll_anew("acme", policy()).await.unwrap(); // its answer was lost
            let room = world.start().await;
            let sealed = seal(&room).await.unwrap();
            open(&room, &sealed).await.unwrap();
            assert!(open(&room, &world.sealed).await.is_err(), "of before");
            for _ in 0..6 {
                admin.rotate("acme", &[("channel", "C9")]).await.unwrap();
            }
            let journal = admin.journal("acme").await.unwrap();
            assert_eq!((journal[0].decision.verb.as_str(), journal.len()), ("enroll-anew", 7));
            assert_eq!(admin.enroll("acme", policy()).await.unwrap_err().kind(), ErrorKind::Conflict);
            open(&world.start().await, &sealed).await.unwrap();
        }
    }
}

/// A room that is made where another one's tenants stand would read none of them.
#[tokio::test]
async fn a_room_is_not_made_in_a_store_that_lost_its_room() {
    for place in Place::all().await {
        let world = World::new(place).await;
        match &world.place {
            Place::Memory(store) => [RowKey::Room, RowKey::Fleet].iter().for_each(|key| store.raw_put(key, None, None)),
            Place::Sqlite { .. } => world.place.lose(&["single_rows"]).await,
        }
        let elsewhere = Operator { root: world.operator.root.clone(), ..Operator::default() };
        let builder = elsewhere.equip(world.builder(world.place.store().await));
        let e = builder.create_room("alice", "it is gone").await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::StoreInconsistent, "{e}");
    }
}
