//! Versions of the schema, who migrates, names and orders.

use std::sync::Arc;
use std::time::{Duration, Instant};

use strongroom::{ErrorKind, KeyStore, PostgresKeyStore, PostgresOptions, RowKey, TenantId};

use crate::cluster::{Database, execute};
use crate::{log, put, tenant, written};

#[tokio::test]
async fn a_schema_of_a_later_version_is_refused_untouched() {
    let database = Database::new().await;
    written(&database.store().await, &[put(&tenant("acme"), None, b"1")]).await;
    let mut db = database.raw().await;
    // What uses it has to know it.
    execute(&mut db, "INSERT INTO migrations (version, least_known) VALUES (99, 2)").await;
    let refused = PostgresKeyStore::connect(&database.url).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.to_string().contains("99"), "{refused}");
    let versions: Vec<i64> =
        sqlx::query_scalar("SELECT version FROM migrations ORDER BY version").fetch_all(&mut db).await.unwrap();
    assert_eq!(versions, [1, 99]);
}

/// N beside N-1: what a later version only added keeps no node of this one from running and from starting.
#[tokio::test]
async fn a_node_goes_on_beside_a_later_schema_that_only_adds() {
    let database = Database::new().await;
    let running = database.store().await;
    written(&running, &[put(&tenant("acme"), None, b"1")]).await;
    let later =
        "ALTER TABLE tenants ADD COLUMN later text; ALTER TABLE data_keys ADD COLUMN later bigint NOT NULL DEFAULT 7;
        CREATE TABLE later (n bigint); CREATE INDEX later_index ON journal (digest);
        INSERT INTO migrations (version, least_known) VALUES (2, 1), (3, 1)";
    execute(&mut database.raw().await, later).await;
    let started = database.store().await;
    for (store, new) in [(&running, "running"), (&started, "started")] {
        assert_eq!(store.get(&tenant("acme")).await.unwrap().unwrap(), b"1");
        written(store, &[put(&tenant(new), None, b"1")]).await;
        log(store).await.unwrap();
    }
    assert_eq!(started.tenants(None, 10).await.unwrap().len(), 3);
    let count = "SELECT count(*) FROM strongroom.migrations";
    let versions: i64 = sqlx::query_scalar(count).fetch_one(&mut database.raw().await).await.unwrap();
    assert_eq!(versions, 3, "it was changed");
}

/// Calls end within a second here. A migration waits for another one, and a statement of it works, for far longer, and is not cut off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_is_not_cut_off_by_the_timeout_of_calls() {
    const CALLS: Duration = Duration::from_secs(1);
    let database = Database::new().await;
    // A database whose indexes take their time.
    let slow =
        "CREATE FUNCTION public.slow() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(2); END $$;
        CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION public.slow()";
    execute(&mut database.raw().await, slow).await;
    let mut other = database.raw().await;
    execute(&mut other, "SELECT pg_advisory_lock(x'7374726f6e67726d'::bigint)").await;
    let options = PostgresOptions::default().timeout(CALLS);
    let connecting = tokio::spawn({
        let (url, options) = (database.url.clone(), options.clone());
        async move { PostgresKeyStore::connect_with(&url, &options).await }
    });
    let mut watching = database.raw().await;
    let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)";
    let began = Instant::now();
    let mut waited = false;
    // It waits, and tries again, until long after any call would have ended.
    while began.elapsed() < CALLS * 3 || !waited {
        waited |= sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut watching).await.unwrap();
        assert!(!connecting.is_finished(), "{:?}", connecting.await.unwrap().err());
        assert!(began.elapsed() < Duration::from_secs(60), "it never waited");
    }
    execute(&mut other, "SELECT pg_advisory_unlock_all()").await;
    let store = connecting.await.unwrap().unwrap();
    written(&store, &[put(&tenant("acme"), None, b"1")]).await;
    // Who waits in vain says so when the time for migrations is over.
    execute(&mut other, "SELECT pg_advisory_lock(x'7374726f6e67726d'::bigint)").await;
    let elsewhere = options.schema("elsewhere").migration_timeout(CALLS * 2);
    let refused = PostgresKeyStore::connect_with(&database.url, &elsewhere).await.err().unwrap();
    assert_eq!((refused.kind(), refused.operation()), (ErrorKind::Unavailable, "migrate the key store"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_connect_to_a_new_database_at_once() {
    let database = Arc::new(Database::new().await);
    let connecting: Vec<_> = (0..8)
        .map(|n| {
            let database = Arc::clone(&database);
            tokio::spawn(async move {
                let store = database.store_with(&PostgresOptions::default().max_connections(2)).await;
                written(&store, &[put(&tenant(&format!("T{n}")), None, b"1")]).await;
            })
        })
        .collect();
    for connected in connecting {
        connected.await.unwrap();
    }
    assert_eq!(database.store().await.tenants(None, 10).await.unwrap().len(), 8);
    let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM strongroom.migrations")
        .fetch_one(&mut database.raw().await)
        .await
        .unwrap();
    assert_eq!(applied, 1, "one of them migrated");
    let identities: i64 = sqlx::query_scalar("SELECT count(*) FROM strongroom.store_identity")
        .fetch_one(&mut database.raw().await)
        .await
        .unwrap();
    assert_eq!(identities, 1, "one of them named it");
}

#[tokio::test]
async fn a_user_who_owns_nothing_can_use_what_is_there() {
    let database = Database::new().await;
    written(&database.store().await, &[put(&tenant("acme"), None, b"1")]).await;
    let grants = "DROP ROLE IF EXISTS app; CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA strongroom TO app;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA strongroom TO app";
    execute(&mut database.raw().await, grants).await;
    let url = database.url.replace("postgres@", "app@");
    let store = PostgresKeyStore::connect(&url).await.unwrap();
    log(&store).await.unwrap();
    assert_eq!(store.get(&tenant("acme")).await.unwrap().unwrap(), b"1");
    written(&store, &[put(&tenant("acme"), Some(b"1"), b"2"), put(&RowKey::Room, None, b"room")]).await;
    assert_eq!(store.log(None, 0).await.unwrap().end, 1);
    // But not create it.
    let elsewhere = PostgresOptions::default().schema("elsewhere");
    let refused = PostgresKeyStore::connect_with(&url, &elsewhere).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::StoreFault);
    assert!(refused.to_string().contains("permission"), "{refused}");
    store.close().await;
    execute(&mut database.raw().await, "DROP OWNED BY app; DROP ROLE app").await;
}

#[tokio::test]
async fn schemas_of_one_database_know_nothing_of_each_other() {
    let database = Database::new().await;
    let one = database.store_with(&PostgresOptions::default().schema("one")).await;
    let other = database.store_with(&PostgresOptions::default().schema("other")).await;
    written(&one, &[put(&tenant("acme"), None, b"1")]).await;
    assert_eq!(other.tenants(None, 10).await.unwrap(), []);
    written(&other, &[put(&tenant("acme"), None, b"1")]).await;
    let bad = PostgresOptions::default().schema("public; DROP SCHEMA one CASCADE");
    let refused = PostgresKeyStore::connect_with(&database.url, &bad).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn tenants_come_in_the_order_of_their_bytes_whatever_the_locale() {
    let cluster = crate::cluster::Cluster::shared();
    let with = "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en'";
    let database = Database::on(cluster, with).await;
    let store = database.store().await;
    let in_order = ["A", "B", "_", "a", "a-b", "aa", "b"];
    for name in in_order {
        written(&store, &[put(&tenant(name), None, name.as_bytes())]).await;
    }
    let mut paged = Vec::new();
    while let Some((next, _)) = store.tenants(paged.last(), 1).await.unwrap().pop() {
        paged.push(next);
    }
    assert_eq!(paged.iter().map(TenantId::as_str).collect::<Vec<_>>(), in_order);
}
