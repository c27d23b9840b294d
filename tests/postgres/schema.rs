//! Versions of the schema, who migrates, names and orders.

use std::sync::Arc;

use strongroom::{ErrorKind, KeyStore, PostgresKeyStore, PostgresOptions, RowKey, TenantId};

use crate::cluster::{Database, execute};
use crate::{log, put, tenant, written};

#[tokio::test]
async fn a_schema_of_a_later_version_is_refused_untouched() {
    let database = Database::new().await;
    written(&database.store().await, &[put(&tenant("acme"), None, b"1")]).await;
    let mut db = database.raw().await;
    execute(&mut db, "INSERT INTO migrations (version) VALUES (99); ALTER TABLE tenants ADD COLUMN later text").await;
    let refused = PostgresKeyStore::connect(&database.url).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.to_string().contains("99"), "{refused}");
    let versions: Vec<i64> =
        sqlx::query_scalar("SELECT version FROM migrations ORDER BY version").fetch_all(&mut db).await.unwrap();
    assert_eq!(versions, [1, 99]);
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
