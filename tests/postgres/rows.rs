//! Rows that cannot be, and rows that somebody changed.

use strongroom::{ErrorKind, LocalKms, Period, Region, ScopeHandle, Strongroom, TenantPolicy};

use crate::cluster::{Database, execute};

struct Fixture {
    database: Database,
    room: Strongroom,
    scope: ScopeHandle,
    sealed: Vec<u8>,
}

impl Fixture {
    /// A tenant `acme` with two channels, one message sealed in each.
    async fn new() -> Self {
        let database = Database::new().await;
        let kms = LocalKms::in_memory();
        let region = Region::new("eu-central-1").unwrap();
        let kek = kms.create_kek("acme", region.clone()).unwrap();
        let room = Strongroom::builder()
            .serving(["eu-central-1", "eu-central-2"])
            .key_store(database.store().await)
            .kms(kms)
            .trusting_the_key_store()
            .build()
            .await
            .unwrap();
        let policy = TenantPolicy::new(kek, region)
            .scope_by(["channel"])
            .period(Period::Month)
            .allow_region(Region::new("eu-central-2").unwrap());
        room.admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
        let acme = room.tenant("acme").await.unwrap();
        acme.scope([("channel", "C8")]).unwrap().seal(&[], b"8").await.unwrap();
        let scope = acme.scope([("channel", "C9")]).unwrap();
        let sealed = scope.seal(&[], b"9").await.unwrap();
        room.admin("a test", "to test").unwrap().purge("acme").unwrap();
        // What somebody who owns the database can do, constraints or not.
        let dropped = "DO $$ DECLARE it record; BEGIN
            FOR it IN SELECT conname, conrelid::regclass AS place FROM pg_constraint
                WHERE contype = 'c' AND connamespace = 'strongroom'::regnamespace
            LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', it.place, it.conname); END LOOP; END $$";
        execute(&mut database.raw().await, dropped).await;
        Self { database, room, scope, sealed }
    }

    /// Tampers with the rows, and undoes it.
    async fn with<T>(&self, table: &str, set: &str, check: impl AsyncFnOnce(&Self) -> T) -> T {
        let mut db = self.database.raw().await;
        let which = if table == "data_keys" { r"WHERE position('\x4339'::bytea IN scope) > 0" } else { "" };
        execute(&mut db, &format!("CREATE TABLE before AS TABLE {table}")).await;
        assert!(execute(&mut db, &format!("UPDATE {table} SET {set} {which}")).await > 0, "{set} changed nothing");
        let checked = check(self).await;
        let undo = format!(
            "SET session_replication_role = replica; DELETE FROM {table};
            INSERT INTO {table} TABLE before; DROP TABLE before; SET session_replication_role = DEFAULT"
        );
        execute(&mut db, &undo).await;
        self.room.admin("a test", "to test").unwrap().purge("acme").unwrap();
        checked
    }
}

#[tokio::test]
async fn rows_that_cannot_be_are_malformed() {
    let f = Fixture::new().await;
    for set in [
        "suite = 9",
        "suite = -1",
        r"scope = scope || '\xff'",
        r"scope = '\x43390000'",
        "period = 'minute=1'",
        "region = 'EU'",
        "region = ''",
        "state = 'happy'",
        "state = 'destroyed'",
        "state = 'destroyed', wrapped = NULL, pending = '{\"epoch\":1,\"key\":{\"kek\":\"local:a\",\"wrapped\":\"00\"}}'",
        "wrapped = ''",
        "wrapped = '[]'",
        "wrapped = NULL",
        "wrapped = '{\"kek\":\"local:acme\",\"wrapped\":\"\"}'",
        "wrapped = '{\"kek\":\"nope\",\"wrapped\":\"00\"}'",
        "wrapped = '{\"all_of\":[{\"kek\":\"local:acme\",\"wrapped\":\"00\"}]}'",
        "pending = '{}'",
        "wrapped_epoch = 0",
        "revision = 0",
        "revision = -5",
    ] {
        f.with("data_keys", set, async |f: &Fixture| {
            let refused = f.scope.open(&[], &f.sealed).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Malformed, "{set}: {refused}");
            assert_eq!(
                f.room.admin("a test", "to test").unwrap().keys("acme", None, 10).await.unwrap_err().kind(),
                ErrorKind::Malformed,
                "{set}"
            );
        })
        .await;
    }
    for set in [
        "policy = '{}'",
        "policy = 'x'",
        "policy = jsonb_set(policy::jsonb, '{cache_ttl_secs}', '999999999')::text",
        "revocations = '{}'",
        "erasures = '{}'",
        "rewrap = '{}'",
        "epoch = -1",
    ] {
        f.with("tenants", set, async |f: &Fixture| {
            assert_eq!(f.scope.open(&[], &f.sealed).await.unwrap_err().kind(), ErrorKind::Malformed, "{set}");
            assert!(f.room.tenant("acme").await.is_err());
        })
        .await;
    }
    assert_eq!(&*f.scope.open(&[], &f.sealed).await.unwrap(), b"9", "the tampering was not undone");
}

// tink #672, CVE-2026-6550: what the store says is bound by the KMS or checked against the key itself.
#[tokio::test]
async fn rows_that_somebody_changed_open_nothing() {
    let f = Fixture::new().await;
    let other_channel = r"(SELECT wrapped FROM data_keys WHERE position('\x4338'::bytea IN scope) > 0)";
    for (set, kind) in [
        ("region = 'eu-central-2'".to_owned(), ErrorKind::Denied),
        ("period = 'month=1999-01'".to_owned(), ErrorKind::Denied),
        ("suite = 2".to_owned(), ErrorKind::Denied),
        (format!("wrapped = {other_channel}"), ErrorKind::Denied),
        (r"scope = '\x01076368616e6e656c00024337'".to_owned(), ErrorKind::Denied),
        ("state = 'suspended'".to_owned(), ErrorKind::Revoked),
        ("state = 'destroyed', wrapped = NULL".to_owned(), ErrorKind::Erased),
    ] {
        f.with("data_keys", &set, async |f: &Fixture| {
            let refused = f.scope.open(&[], &f.sealed).await.unwrap_err();
            assert_eq!(refused.kind(), kind, "{set}: {refused}");
        })
        .await;
    }
    // The row of another key under this key's id, wrapped for exactly this scope: only the commitment can tell.
    f.room.admin("a test", "to test").unwrap().rotate("acme", &[("channel", "C9")]).await.unwrap();
    let successor =
        r"wrapped = (SELECT wrapped FROM data_keys WHERE state = 'active' AND position('\x4339'::bytea IN scope) > 0)";
    f.with("data_keys", successor, async |f: &Fixture| {
        assert_eq!(f.scope.open(&[], &f.sealed).await.unwrap_err().kind(), ErrorKind::KeyMismatch);
    })
    .await;
}
