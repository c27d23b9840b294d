//! Files at the handle of a scope: whose key they are under, and who gets it.

use std::sync::Arc;

use strongroom::testing::{FaultyKms, Operator};
use strongroom::{
    Error, ErrorKind, FileHead, FileOptions, LocalKms, MemoryKeyStore, Region, ScopeHandle, Selector, Strongroom,
    TenantPolicy,
};

use super::{CONTEXT, plain};

const HOME: &str = "eu-central-1";
const AWAY: &str = "us-east-1";

/// A room that serves `region` only, where `acme` and `globex` are at home.
struct House {
    room: Strongroom,
    kms: FaultyKms,
}

impl House {
    async fn of(region: &str) -> Self {
        let local = LocalKms::in_memory();
        let kms = FaultyKms::new(local.clone());
        let room = Strongroom::builder()
            .serving([region])
            .key_store(Arc::new(MemoryKeyStore::default()))
            .kms(kms.clone())
            .open_under(&Operator::default())
            .await;
        let region = Region::new(region).unwrap();
        for tenant in ["acme", "globex"] {
            let kek = local.create_kek(tenant, region.clone()).unwrap();
            let policy = TenantPolicy::new(kek, region.clone()).scope_by(["channel"]).allow_unbound_files();
            room.admin("a test", "to test").unwrap().enroll(tenant, policy).await.unwrap();
        }
        Self { room, kms }
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
