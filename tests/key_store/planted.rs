//! Records that an attacker makes by FORMAT.md, under KEKs of her own, and puts in as a tenant's Active key.

use strongroom::testing::{TakenOverNode, context_of, row_body, with_body};
use strongroom::{ErrorKind, KekUri, KeyId, KeyRecord, Kms, RowKey, WrappedKey, Wrapping};

use crate::world::{World, channel, key_id, kind, known_key, tenant, walk};

/// What the KMS binds a data key of acme's channel to, told by FORMAT.md alone.
async fn wrapped_for_mallory(world: &World, record: &KeyRecord) -> WrappedKey {
    let kek = "local:mallory".parse().unwrap();
    let context = context_of(record).unwrap();
    let wrapped = world.local.wrap(&kek, &context, &known_key().0).await.unwrap();
    WrappedKey::One(Wrapping { kek, wrapped })
}

/// A stranger with a KEK of her own in the same KMS, and write access to the store.
#[tokio::test]
async fn a_stranger_s_key_in_the_active_key_s_place_is_not_sealed_under() {
    let world = World::new().await;
    let sealed = world.seal(&world.node, "acme", "C9").await.unwrap();
    let (record, row) = world.record("acme", key_id(&sealed));
    let (_, mine) = known_key();
    let mut planted = record.clone();
    (planted.key_id, planted.wrapped) = (mine, Some(wrapped_for_mallory(&world, &record).await));
    world.store.raw_put(&row.0, None, None);
    world.plant_without_keys(&planted, &row, row.2.clone());
    for watermark in [true, false] {
        let node = world.fresh(watermark).await;
        assert_eq!(kind(world.seal(&node, "acme", "C9").await), ErrorKind::Tampered);
    }
    // A later rewrap does not wash it: it is counted as failed and passed over.
    let walked = world.admin().rewrap("acme", "local:acme".parse::<KekUri>().unwrap(), &walk()).await;
    assert!(walked.is_err() || walked.unwrap().failed > 0);
    let after = world.row(&RowKey::Key(tenant("acme"), mine));
    let bytes = row_body(&after.0, &after.1).unwrap();
    assert!(String::from_utf8(bytes).unwrap().contains("local:mallory"), "nobody wrapped it for an honest KEK");
    let node = world.fresh(true).await;
    assert_eq!(kind(world.seal(&node, "acme", "C9").await), ErrorKind::Tampered);
}

/// The same by a node that was taken over: it tags what it likes. The tenant's row still says which KEKs there are.
#[tokio::test]
async fn a_kek_that_only_a_record_names_is_not_asked() {
    let world = World::new().await;
    let sealed = world.seal(&world.node, "acme", "C9").await.unwrap();
    let (record, row) = world.record("acme", key_id(&sealed));
    let mut planted = record.clone();
    (planted.key_id, planted.wrapped) = (known_key().1, Some(wrapped_for_mallory(&world, &record).await));
    world.store.raw_put(&row.0, None, None);
    let bytes = TakenOverNode::of(&world.node).tag(&planted).unwrap();
    world.store.raw_put(&RowKey::Key(tenant("acme"), planted.key_id), Some(bytes), row.2.clone());
    let node = world.fresh(true).await;
    let asked = world.kms.calls();
    assert_eq!(kind(world.seal(&node, "acme", "C9").await), ErrorKind::Tampered);
    assert_eq!(kind(world.open(&node, "acme", "C9", &envelope_of(&sealed, planted.key_id)).await), ErrorKind::Tampered);
    assert_eq!(world.kms.calls(), asked, "a KMS was asked with a KEK that the tenant's row does not know");
}

/// One holder of an `all_of` makes a record that needs her alone.
#[tokio::test]
async fn one_holder_of_all_of_cannot_do_without_the_other() {
    let world = World::new().await;
    let sealed = world.seal(&world.node, "acme", "C9").await.unwrap();
    let (record, row) = world.record("acme", key_id(&sealed));
    let context = context_of(&record).unwrap();
    let kek: KekUri = "local:acme".parse().unwrap();
    let wrapped = world.local.wrap(&kek, &context, &known_key().0).await.unwrap();
    let mut alone = record.clone();
    (alone.key_id, alone.wrapped) = (known_key().1, Some(WrappedKey::One(Wrapping { kek, wrapped })));
    world.store.raw_put(&row.0, None, None);
    let bytes = TakenOverNode::of(&world.node).tag(&alone).unwrap();
    world.store.raw_put(&RowKey::Key(tenant("acme"), alone.key_id), Some(bytes), row.2.clone());
    let node = world.fresh(true).await;
    assert_eq!(kind(world.seal(&node, "acme", "C9").await), ErrorKind::Tampered, "the shape is checked, too");
}

/// A component of a split key is bound to a purpose of its own: no holder's component is a data key.
#[tokio::test]
async fn a_component_is_not_a_data_key() {
    let world = World::new().await;
    world.seal(&world.node, "acme", "C9").await.unwrap();
    let component = world.kms.last_context().unwrap();
    assert_eq!(component.get("purpose"), Some("data-key-component"));
    world.seal(&world.node, "globex", "C9").await.unwrap();
    assert_eq!(world.kms.last_context().unwrap().get("purpose"), Some("data-key"));
}

/// A rewritten tenant's row with the next epoch is nobody's.
#[tokio::test]
async fn a_rewritten_tenant_row_is_not_believed() {
    let world = World::new().await;
    let sealed = world.seal(&world.node, "acme", "C9").await.unwrap();
    world.admin().revoke("acme", channel("C9")).await.unwrap();
    let row = world.row(&RowKey::Tenant(tenant("acme")));
    let body = String::from_utf8(row_body(&row.0, &row.1).unwrap()).unwrap();
    let lifted = body.replace("\"epoch\":2", "\"epoch\":3").replace("\"revocations\":[", "\"revocations\":[],\"x\":[");
    for edited in
        [lifted, body.replace("\"epoch\":2", "\"epoch\":3"), body.replace("local:second-holder", "local:mallory")]
    {
        assert_ne!(edited, body);
        let bytes = with_body(&row.0, &row.1, edited.as_bytes()).unwrap();
        world.store.raw_put(&row.0, Some(bytes), None);
        for watermark in [true, false] {
            let node = world.fresh(watermark).await;
            assert_eq!(kind(world.open(&node, "acme", "C9", &sealed).await), ErrorKind::Tampered);
            assert_eq!(kind(world.seal(&node, "acme", "C8").await), ErrorKind::Tampered);
        }
        assert_eq!(kind(world.admin().restore("acme", channel("C9")).await), ErrorKind::Tampered);
    }
}

/// The header of an envelope with another key's id in it.
fn envelope_of(sealed: &[u8], id: KeyId) -> Vec<u8> {
    let header = 3 + crate::world::EU.len();
    [&sealed[..header], id.as_bytes(), &sealed[header + 32..]].concat()
}
