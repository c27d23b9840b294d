//! Rows that somebody else wrote, and the log's length.

use strongroom::{ErrorKind, KeyId, KeyStore, Scope, TenantId};

use crate::{Fixture, active, is_written, put, raw, tenant};

#[tokio::test]
async fn rows_of_names_that_cannot_be_one_are_passed_over() {
    let f = Fixture::new().await;
    for name in ["b", "d"] {
        assert!(is_written(f.store.put(&[put(&tenant(name), None, name.as_bytes()), active(name, 7)], None).await));
    }
    for name in ["''", "'a/b'", "'c c'", "'c d'", "'c' || char(0)", "CAST(x'63ff' AS TEXT)", "'z€'"] {
        f.tamper(&format!("INSERT INTO tenants (tenant, digest, row) VALUES ({name}, x'', x'')")).await;
    }
    for id in ["x''", "x'07'", "zeroblob(31)", "zeroblob(33)"] {
        let row = format!("('b', {id}, x'', '', 'active' || hex({id}), x'', x'')");
        f.tamper(&format!("INSERT INTO data_keys VALUES {row}")).await;
    }
    f.tamper("INSERT INTO journal VALUES ('b', -5, x'', x''), ('b', 0, x'', x''), ('b', 3, x'', x'03')").await;
    let named = |name: &str| (TenantId::new(name).unwrap(), name.as_bytes().to_vec());
    assert_eq!(f.store.tenants(None, 10).await.unwrap(), [named("b"), named("d")]);
    // A page that is not full is the last one.
    assert_eq!(f.store.tenants(None, 1).await.unwrap(), [named("b")]);
    assert_eq!(f.store.tenants(Some(&named("b").0), 1).await.unwrap(), [named("d")]);
    assert_eq!(f.store.tenants(Some(&named("d").0), 1).await.unwrap(), []);
    let b = named("b").0;
    for limit in [1, 10] {
        assert_eq!(f.store.keys(&b, None, limit).await.unwrap(), [(KeyId::from_bytes([7; 32]), vec![7])]);
        assert_eq!(f.store.journal(&b, 0, limit).await.unwrap(), [(3, vec![3])]);
    }
    // The Active key is not passed over: there is one, and none could be made.
    f.tamper("UPDATE data_keys SET key_id = x'07000000' WHERE row = x'07' AND tenant = 'b'").await;
    let scope = Scope::new(&[("channel", "C7")]).unwrap();
    assert_eq!(f.store.active(&b, &scope, None).await.unwrap_err().kind(), ErrorKind::Malformed);
    assert!(f.store.active(&named("d").0, &scope, None).await.unwrap().is_some());
}

#[tokio::test]
async fn a_store_that_does_not_say_which_it_is_is_none() {
    for table in ["store_identity", "log_end"] {
        let f = Fixture::new().await;
        f.tamper(&format!("DELETE FROM {table}")).await;
        let refused = f.store.log(Some(0), 10).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Malformed, "{table}: {refused}");
        assert!(
            f.store.put(&[put(&tenant("acme"), None, b"1")], Some(&|_| Vec::new())).await.is_err()
                || table != "log_end"
        );
    }
}

#[tokio::test]
async fn the_log_is_trimmed() {
    let f = Fixture::new().await;
    f.tamper("UPDATE log_end SET seq = 20000").await;
    let many = "WITH RECURSIVE n(seq) AS (SELECT 9000 UNION ALL SELECT seq + 1 FROM n WHERE seq < 20000)
        INSERT INTO changes SELECT seq, x'01' FROM n";
    f.tamper(many).await;
    assert!(is_written(f.store.put(&[], Some(&|number| number.to_be_bytes().to_vec())).await));
    let log = f.store.log(Some(0), 20_000).await.unwrap();
    assert_eq!((log.entries.len(), log.end), (10_000, 20_001));
    assert_eq!(log.entries[0].0, 10_002);
    assert_eq!(log.entries[9_999], (20_001, 20_001_u64.to_be_bytes().to_vec()));
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM changes").fetch_one(&mut raw(&f.path()).await).await.unwrap();
    assert_eq!(left, 10_000);
}

// What needs a human is not an outage to be waited out.
#[tokio::test]
async fn a_corrupt_file_is_said_to_be_corrupt_and_not_to_be_retried() {
    let f = Fixture::new().await;
    for n in 0..50 {
        assert!(is_written(f.store.put(&[put(&tenant(&format!("T{n}")), None, &[7; 3_000])], None).await));
    }
    f.store.close().await;
    let path = f.path();
    let mut bytes = std::fs::read(&path).unwrap();
    // Behind the first page, by which it is known.
    bytes[4096..].fill(0xA5);
    std::fs::write(&path, bytes).unwrap();
    let refused = match strongroom::SqliteKeyStore::open(&path).await {
        Ok(store) => store.tenants(None, 100).await.unwrap_err(),
        Err(e) => e,
    };
    assert!(refused.kind() == strongroom::ErrorKind::StoreFault && !refused.is_retryable(), "{refused}");
    assert!(refused.to_string().contains("corrupt"), "{refused}");
}
