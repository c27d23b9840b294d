//! Standbys behind their primary, and what was lost with it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strongroom::{
    ErrorKind, KeyStore, PostgresKeyStore, PostgresOptions, RowKey, ScopeHandle, Selector, SqliteKeyStore, Strongroom,
    TenantId,
};
use tokio::time::timeout;

use crate::cluster::{Cluster, Database, connect, execute};
use crate::switch::Switch;
use crate::{HANGS, House, channel, key_id};

fn hasty() -> PostgresOptions {
    PostgresOptions::default().timeout(Duration::from_secs(2))
}

fn primary() -> Arc<Cluster> {
    Arc::new(Cluster::start(&["fsync=off", "wal_level=replica", "max_wal_senders=4"]))
}

/// A standby that has everything its primary has.
async fn standby_of(database: &Database) -> (Cluster, String) {
    let standby = database.cluster.standby();
    let url = database.url.replace(&format!(":{}/", database.cluster.port()), &format!(":{}/", standby.port()));
    let (mut here, mut there) = (database.raw().await, connect(&url).await);
    let written: String = sqlx::query_scalar("SELECT pg_current_wal_lsn()::text").fetch_one(&mut here).await.unwrap();
    let caught_up = async {
        let replayed = "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn";
        while !sqlx::query_scalar::<_, bool>(replayed).bind(&written).fetch_one(&mut there).await.unwrap() {}
    };
    timeout(HANGS, caught_up).await.expect("the standby does not follow");
    (standby, url)
}

/// What of a standby that is behind is measured: the last open after the revocation returned, and what is said then.
pub(crate) struct Behind {
    pub(crate) last_open: Option<Duration>,
    pub(crate) refusals: Vec<ErrorKind>,
}

/// A node is led to a standby whose replay is paused; another one, at the primary, revokes.
pub(crate) async fn revoked_behind_a_standby(bound: Duration) -> Behind {
    let (database, house) = (Database::on(primary(), "").await, House::new(bound));
    let room = house.room(Arc::new(database.store_with(&hasty()).await)).await;
    house.enroll(&room, "acme").await;
    let (standby, standby_url) = standby_of(&database).await;
    let switch = Switch::to(database.cluster.port()).await;
    let led =
        PostgresKeyStore::connect_with(&switch.url(&database.url, database.cluster.port()), &hasty()).await.unwrap();
    let node = house.room(Arc::new(led)).await;
    let (here, there) = (channel(&room, "acme", "C1").await, channel(&node, "acme", "C1").await);
    let sealed = here.seal(&[], b"x").await.unwrap();
    there.open(&[], &sealed).await.unwrap();
    execute(&mut connect(&standby_url).await, "SELECT pg_wal_replay_pause()").await;
    switch.turn(standby.port());
    room.admin("a test", "to test").unwrap().revoke("acme", Selector::everything()).await.unwrap();
    let revoked = Instant::now();
    let (mut last_open, mut refusals) = (None, Vec::new());
    while revoked.elapsed() < 3 * bound {
        let began = revoked.elapsed();
        match timeout(HANGS, there.open(&[], &sealed)).await.expect("hangs") {
            Ok(_) => last_open = Some(began),
            Err(e) => refusals.push(e.kind()),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // A process that is started at the standby opens nothing either.
    let store = PostgresKeyStore::connect_with(&standby_url, &hasty()).await.unwrap();
    let started = house.room(Arc::new(store)).await;
    let refused = match started.tenant("acme").await {
        Ok(acme) => acme.scope([("channel", "C1")]).unwrap().open(&[], &sealed).await.err(),
        Err(e) => Some(e),
    };
    refusals.push(refused.expect("a process at a standby that is behind opened what is revoked").kind());
    Behind { last_open, refusals }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_opens_past_the_bound_at_a_standby_that_is_behind() {
    let bound = Duration::from_secs(2);
    let behind = revoked_behind_a_standby(bound).await;
    assert!(behind.last_open.is_none_or(|at| at <= bound), "opened {:?} after the revocation", behind.last_open);
    let expected = [ErrorKind::Unavailable, ErrorKind::Revoked, ErrorKind::RolledBack];
    assert!(behind.refusals.iter().all(|kind| expected.contains(kind)), "{:?}", behind.refusals);
}

/// Messages that were sealed after a fail-over and one bound, and those among them whose key the store does not have.
pub(crate) struct Lost {
    pub(crate) sealed: usize,
    pub(crate) under_missing_keys: usize,
    pub(crate) refusals: Vec<ErrorKind>,
}

/// Seals in all channels from the fail-over on, and looks up the keys of what was sealed when the lease was over.
async fn sealed_since(house: &House, scopes: &[ScopeHandle], store: &dyn KeyStore) -> Lost {
    let began = Instant::now();
    let (mut sealed, mut refusals) = (Vec::new(), Vec::new());
    while began.elapsed() < 4 * house.bound {
        for scope in scopes {
            let at = began.elapsed();
            match timeout(HANGS, scope.seal(&[], b"x")).await.expect("hangs") {
                Ok(message) if at > house.bound => sealed.push(key_id(&message)),
                Ok(_) => {}
                Err(e) => refusals.push(e.kind()),
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut under_missing_keys = 0;
    for key in &sealed {
        let row = store.get(&RowKey::Key(TenantId::new("acme").unwrap(), *key)).await.unwrap();
        under_missing_keys += usize::from(row.is_none());
    }
    refusals.dedup();
    Lost { sealed: sealed.len(), under_missing_keys, refusals }
}

/// A channel that the standby knows, and some whose keys were made after it had stopped to follow.
async fn channels_of_before_and_since(room: &Strongroom, stop_following: impl AsyncFnOnce()) -> Vec<ScopeHandle> {
    let mut scopes = vec![channel(room, "acme", "before").await];
    scopes[0].seal(&[], b"x").await.unwrap();
    stop_following().await;
    for name in ["since-1", "since-2", "since-3"] {
        scopes.push(channel(room, "acme", name).await);
    }
    for scope in &scopes {
        scope.seal(&[], b"x").await.unwrap();
    }
    scopes
}

pub(crate) async fn failed_over(bound: Duration) -> Lost {
    let (database, house) = (Database::on(primary(), "").await, House::new(bound));
    let switch = Switch::to(database.cluster.port()).await;
    let url = switch.url(&database.url, database.cluster.port());
    let room = house.room(Arc::new(PostgresKeyStore::connect_with(&url, &hasty()).await.unwrap())).await;
    house.enroll(&room, "acme").await;
    let standby = std::cell::OnceCell::new();
    let stop_following = async || {
        let (cluster, url) = standby_of(&database).await;
        let mut db = connect(&url).await;
        execute(&mut db, "ALTER SYSTEM SET primary_conninfo = ''").await;
        execute(&mut db, "SELECT pg_reload_conf()").await;
        let stopped = async {
            let receives = "SELECT count(*) FROM pg_stat_wal_receiver";
            while sqlx::query_scalar::<_, i64>(receives).fetch_one(&mut db).await.unwrap() > 0 {}
        };
        timeout(HANGS, stopped).await.expect("it goes on following");
        let _ = standby.set((cluster, url));
    };
    let scopes = channels_of_before_and_since(&room, stop_following).await;
    let (standby, standby_url) = standby.into_inner().unwrap();
    database.cluster.crash();
    standby.promote();
    switch.turn(standby.port());
    let promoted = PostgresKeyStore::connect_with(&standby_url, &hasty()).await.unwrap();
    sealed_since(&house, &scopes, &promoted).await
}

// What was written in the last seconds is not on the server that goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_fail_over_that_lost_seconds_nothing_is_sealed_under_a_missing_key() {
    let lost = failed_over(Duration::from_secs(2)).await;
    assert_eq!(lost.under_missing_keys, 0, "of {}", lost.sealed);
    assert!(lost.sealed > 0, "what the standby knows seals on: {:?}", lost.refusals);
    assert!(lost.refusals.contains(&ErrorKind::StoreInconsistent), "{:?}", lost.refusals);
}

fn replace(path: &Path, with: &Path) {
    let copy = path.with_extension("copy");
    fs::copy(with, &copy).unwrap();
    for beside in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(beside);
        let _ = fs::remove_file(name); // it may not be there
    }
    fs::rename(copy, path).unwrap();
}

pub(crate) async fn file_put_back(bound: Duration) -> Lost {
    let (folder, house) = (tempfile::tempdir().unwrap(), House::new(bound));
    let (path, backup) = (folder.path().join("keys.db"), folder.path().join("backup.db"));
    let store = Arc::new(SqliteKeyStore::create(&path).await.unwrap());
    let room = house.room(Arc::<SqliteKeyStore>::clone(&store)).await;
    house.enroll(&room, "acme").await;
    let scopes = channels_of_before_and_since(&room, async || store.backup(&backup).await.unwrap()).await;
    replace(&path, &backup);
    let put_back = SqliteKeyStore::open(&path).await.unwrap();
    sealed_since(&house, &scopes, &put_back).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_older_copy_of_the_file_was_put_back_nothing_is_sealed_under_a_missing_key() {
    let lost = file_put_back(Duration::from_secs(1)).await;
    assert_eq!(lost.under_missing_keys, 0, "of {}", lost.sealed);
    assert!(lost.sealed > 0, "what the copy knows seals on: {:?}", lost.refusals);
    assert!(lost.refusals.contains(&ErrorKind::StoreInconsistent), "{:?}", lost.refusals);
}
