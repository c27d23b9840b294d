//! Rows that somebody else wrote, and the log's length.

use strongroom::{ErrorKind, KeyState, KeyStore, TenantId};

use crate::cluster::{Database, execute};
use crate::{key_id, log, put, put_key, scope, tenant, written};

#[tokio::test]
async fn rows_of_names_that_cannot_be_one_are_passed_over() {
    let database = Database::new().await;
    let store = database.store().await;
    for name in ["acme", "beta"] {
        written(&store, &[put(&tenant(name), None, name.as_bytes())]).await;
    }
    written(&store, &[put_key(7, 7, KeyState::Active, None, b"7")]).await;
    let mut db = database.raw().await;
    let names = "('', '', ''), ('a/b', '', ''), ('ad astra', '', ''), ('ae', '', ''), ('z€', '', ''), (repeat('b', 65), '', '')";
    execute(&mut db, &format!("INSERT INTO tenants VALUES {names}; DELETE FROM tenants WHERE tenant = 'ae'")).await;
    execute(
        &mut db,
        r"INSERT INTO data_keys SELECT 'acme', id, '', '', id::text, '', ''
            FROM unnest(ARRAY[''::bytea, '\x07', decode(repeat('00', 31), 'hex'), decode(repeat('00', 33), 'hex')]) AS id;
        INSERT INTO journal VALUES ('acme', -5, '', ''), ('acme', 0, '', ''), ('acme', 3, '', '\x03')",
    )
    .await;
    let named = |name: &str| (TenantId::new(name).unwrap(), name.as_bytes().to_vec());
    assert_eq!(store.tenants(None, 10).await.unwrap(), [named("acme"), named("beta")]);
    // A page that is not full is the last one.
    assert_eq!(store.tenants(None, 1).await.unwrap(), [named("acme")]);
    assert_eq!(store.tenants(Some(&named("acme").0), 1).await.unwrap(), [named("beta")]);
    assert_eq!(store.tenants(Some(&named("beta").0), 1).await.unwrap(), []);
    let acme = named("acme").0;
    for limit in [1, 10] {
        assert_eq!(store.keys(&acme, None, limit).await.unwrap(), [(key_id(7), b"7".to_vec())]);
        assert_eq!(store.journal(&acme, 0, limit).await.unwrap(), [(3, vec![3])]);
    }
    // The Active key is not passed over: there is one, and none could be made.
    execute(&mut db, r"UPDATE data_keys SET key_id = '\x0708' WHERE row = '7'").await;
    assert_eq!(store.active(&acme, &scope(7), None).await.unwrap_err().kind(), ErrorKind::Malformed);
}

#[tokio::test]
async fn a_store_that_does_not_say_which_it_is_is_none() {
    for table in ["store_identity", "log_end"] {
        let database = Database::new().await;
        let store = database.store().await;
        execute(&mut database.raw().await, &format!("DELETE FROM {table}")).await;
        let refused = store.log(Some(0), 10).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Malformed, "{table}: {refused}");
    }
}

#[tokio::test]
async fn the_log_is_trimmed() {
    let database = Database::new().await;
    let store = database.store().await;
    let many = r"UPDATE log_end SET seq = 20000;
        INSERT INTO changes (seq, entry) SELECT seq, '\x01' FROM generate_series(9000, 20000) AS seq";
    execute(&mut database.raw().await, many).await;
    log(&store).await.unwrap();
    let log = store.log(Some(0), 20_000).await.unwrap();
    assert_eq!((log.entries.len(), log.end), (10_000, 20_001));
    assert_eq!(log.entries[0].0, 10_002);
    assert_eq!(log.entries[9_999], (20_001, 20_001_u64.to_be_bytes().to_vec()));
}
