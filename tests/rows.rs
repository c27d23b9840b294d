//! Stored rows that no store was given: found by `fuzz/fuzz_targets/key_record.rs`, or while its properties were written. They are
//! refused as `Malformed`, whole.

use strongroom::testing::{KeyRow, ManualClock, TenantRow};
use strongroom::{
    ErrorKind, KeyStore, LocalKms, MemoryKeyStore, Region, Strongroom, TenantId, TenantPolicy, TenantRecord,
};

fn key_row() -> KeyRow {
    KeyRow {
        tenant: "acme".to_owned(),
        key_id: vec![7; 32],
        suite: 1,
        scope: b"\x01\x07channel\0\x02C9".to_vec(),
        period: String::new(),
        region: "eu-central-1".to_owned(),
        state: "active".to_owned(),
        state_since: 0,
        wrapped: Some(r#"{"kek":"local:acme","wrapped":"00"}"#.to_owned()),
        pending: None,
        wrapped_epoch: 1,
        created_at: 0,
        revision: 1,
    }
}

fn tenant_record() -> TenantRecord {
    let kms = LocalKms::in_memory();
    let region = Region::new("eu-central-1").unwrap();
    let kek = kms.create_kek("acme", region.clone()).unwrap();
    TenantRecord {
        tenant: TenantId::new("acme").unwrap(),
        policy: TenantPolicy::new(kek, region).scope_by(["channel"]),
        revocations: Vec::new(),
        erasures: Vec::new(),
        rewrap: None,
        enrolled_at: 0,
        epoch: 1,
    }
}

fn malformed<T>(read: strongroom::Result<T>, what: &str) {
    assert_eq!(read.err().map(|e| e.kind()), Some(ErrorKind::Malformed), "{what}");
}

/// Canonical bytes of a scope of these fields, whether a policy could name them or not.
fn scope(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(fields.len()).unwrap()];
    for (name, value) in fields {
        bytes.push(u8::try_from(name.len()).unwrap());
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(value.as_bytes());
    }
    bytes
}

#[test]
fn a_scope_that_no_policy_names_is_malformed_and_not_the_callers_mistake() {
    assert!(key_row().read().is_ok());
    let names: Vec<_> = (0..9).map(|n| format!("f{n}")).collect();
    let nine: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
    for (fields, what) in [
        (&nine[..], "nine fields"),
        (&[("tenant", "globex")], "a name of the encryption context"),
        (&[("Channel", "C9")], "a capital letter"),
        (&[("channel", &"x".repeat(512))], "more than 512 bytes"),
    ] {
        malformed(KeyRow { scope: scope(fields), ..key_row() }.read(), what);
    }
}

#[test]
fn a_tenant_row_beyond_its_limits_is_malformed() {
    let row = TenantRow::of(&tenant_record()).unwrap();
    assert_eq!(row.read().unwrap(), tenant_record());
    malformed(TenantRow { epoch: 0, ..row.clone() }.read(), "epoch 0");
    let policy = row.policy.replace(r#""cache_ttl_secs":300"#, r#""cache_ttl_secs":86401"#);
    malformed(TenantRow { policy, ..row.clone() }.read(), "a key in memory for more than a day");
    let rules = vec![r#"{"selector":{},"since":1}"#; 1001].join(",");
    malformed(TenantRow { revocations: format!("[{rules}]"), ..row }.read(), "1001 revocations");
}

/// A store that checks nothing, as one that somebody else wrote.
#[tokio::test]
async fn a_room_takes_no_tenant_row_beyond_its_limits() {
    let store = std::sync::Arc::new(MemoryKeyStore::default());
    store.insert_tenant(&TenantRecord { epoch: 0, ..tenant_record() }).await.unwrap();
    let room = Strongroom::builder()
        .serving(["eu-central-1"])
        .key_store(store)
        .kms(LocalKms::in_memory())
        .clock(ManualClock::at(0))
        .trusting_the_key_store()
        .build()
        .await
        .unwrap();
    malformed(room.tenant("acme").await, "epoch 0");
}
