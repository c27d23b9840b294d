//! A node of the data plane that was taken over, and evicted: it kept the row key of its generation.

use strongroom::testing::{TakenOverNode, context_of, key_id_of};
use strongroom::{DataKey, ErrorKind, KeyId, KeyRecord, Kms, Period, RowKey, TenantPolicy, WrappedKey, Wrapping};

use crate::world::{EU, World, key_id, kind, region, scope, tenant};

/// A key that the attacker knows, made as a node of the fleet would make it, in the place of `like`'s.
async fn plant(world: &World, thief: &TakenOverNode, like: &KeyRecord, n: u8) -> (KeyId, RowKey) {
    let data_key = DataKey::take(&mut [&[n][..], b"hirty-two bytes of the attacker"].concat()).unwrap();
    let kek: strongroom::KekUri = "local:globex".parse().unwrap();
    let wrapped = world.local.wrap(&kek, &context_of(like).unwrap(), &data_key).await.unwrap();
    let id = key_id_of(&data_key, like.suite).unwrap();
    let planted = KeyRecord { key_id: id, wrapped: Some(WrappedKey::One(Wrapping { kek, wrapped })), ..like.clone() };
    let key = RowKey::Key(tenant("globex"), id);
    let index =
        strongroom::KeyIndex { scope: planted.scope.clone(), period: planted.period.clone(), state: planted.state };
    world.store.raw_put(&key, Some(thief.tag(&planted).unwrap()), Some(index));
    (id, key)
}

/// Plants for the present hour, the next one and the year 2030, of this epoch and of five later: none is ever sealed under.
#[tokio::test]
async fn an_evicted_node_s_plants_are_never_sealed_under() {
    let world = World::new().await;
    let kek = world.local.create_kek("hourly", region()).unwrap();
    let policy = TenantPolicy::new("local:globex".parse::<strongroom::KekUri>().unwrap(), region());
    let policy = policy.scope_by(["channel"]).period(Period::Hour).share_kek(kek);
    let row = world.admin().tenant("globex").await.unwrap();
    world.admin().set_policy(&row, policy).await.unwrap();
    let sealed = world.seal(&world.node, "globex", "C9").await.unwrap();
    let (honest, row) = world.record("globex", key_id(&sealed));
    let thief = TakenOverNode::of(&world.node);
    assert_eq!(thief.generation(), 1);
    let walked = world.admin().evict().await.unwrap();
    assert_eq!((walked.seen, walked.done, walked.failed), (2, 2, 0));
    world.store.raw_put(&row.0, None, None);
    let hours = [("hour=2026-11-22T05Z", 0_u64), ("hour=2026-11-22T06Z", 3_600), ("hour=2030-01-01T00Z", 97_872_151)];
    let mut planted = Vec::new();
    for (n, (hour, _)) in (0..).zip(&hours) {
        for (m, later) in [0_u64, 5].into_iter().enumerate() {
            let mut like = honest.clone();
            like.period = Some(hour.parse().unwrap());
            (like.made_epoch, like.wrapped_epoch) = (like.made_epoch + later, like.wrapped_epoch + later);
            // As made in its own generation, and as made in the one that came after it.
            for made in [1, 2] {
                like.made_generation = made;
                let number = n * 8 + u8::try_from(m).unwrap() * 2 + u8::try_from(made).unwrap();
                let (id, key) = plant(&world, &thief, &like, number).await;
                planted.push((id, world.row(&key), *hour));
            }
        }
    }
    let mut passed = 0;
    for (hour, at) in hours {
        world.clock.advance(std::time::Duration::from_secs(at - passed));
        passed = at;
        for (_, row, _) in planted.iter().filter(|(.., of)| *of == hour) {
            // Each by itself in the index: of two Active ones a store would show one.
            for (_, other, _) in &planted {
                world.store.raw_put(&other.0, None, None);
            }
            world.store.raw_put(&row.0, Some(row.1.clone()), row.2.clone());
            for watermark in [true, false] {
                let node = world.fresh(watermark).await;
                match world.seal(&node, "globex", "C9").await {
                    Ok(sealed) => assert!(planted.iter().all(|(id, ..)| *id != key_id(&sealed)), "{hour}"),
                    // Of an epoch that the tenant has not reached.
                    Err(e) => assert!(matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Tampered), "{e}"),
                }
            }
        }
    }
}

/// The record says that it was made under the new generation, and only the old one's key vouches for that.
#[tokio::test]
async fn an_evicted_node_does_not_get_around_it_by_claiming_the_new_generation() {
    let world = World::new().await;
    let sealed = world.seal(&world.node, "globex", "C9").await.unwrap();
    let (honest, row) = world.record("globex", key_id(&sealed));
    let thief = TakenOverNode::of(&world.node);
    world.admin().evict().await.unwrap();
    world.store.raw_put(&row.0, None, None);
    let claims = KeyRecord { made_generation: honest.made_generation + 1, ..honest };
    let (id, _) = plant(&world, &thief, &claims, 1).await;
    for watermark in [true, false] {
        let node = world.fresh(watermark).await;
        assert_eq!(kind(world.seal(&node, "globex", "C9").await), ErrorKind::Tampered);
        let header = 3 + EU.len();
        let envelope = [&sealed[..header], id.as_bytes(), &sealed[header + 32..]].concat();
        assert_eq!(kind(world.open(&node, "globex", "C9", &envelope).await), ErrorKind::Tampered);
    }
}

/// What was sealed before the eviction opens after it, on nodes that run and on new ones; and every scope gets a new key.
#[tokio::test]
async fn an_eviction_costs_no_message_and_every_scope_gets_a_new_key() {
    let world = World::new().await;
    let other = world.fresh(true).await;
    let mut sealed = Vec::new();
    for of in ["acme", "globex"] {
        for channel in ["C1", "C2"] {
            sealed.push((of, channel, world.seal(&other, of, channel).await.unwrap()));
        }
    }
    world.admin().evict().await.unwrap();
    world.settle();
    for node in [&world.node, &other, &world.fresh(true).await, &world.fresh(false).await] {
        for (of, channel, envelope) in &sealed {
            world.open(node, of, channel, envelope).await.unwrap();
            assert_ne!(key_id(&world.seal(node, of, channel).await.unwrap()), key_id(envelope), "{of} {channel}");
        }
    }
    // Once more: generations add up.
    world.admin().evict().await.unwrap();
    world.settle();
    for (of, channel, envelope) in &sealed {
        world.open(&other, of, channel, envelope).await.unwrap();
    }
    let journal = world.admin().journal("acme").await.unwrap();
    assert_eq!(journal.iter().filter(|entry| entry.decision.verb == "sign-anew").count(), 2);
}

/// A node that was not evicted plants for an epoch that has not come: the row that was read says which ones there were.
#[tokio::test]
async fn a_record_of_an_epoch_to_come_is_not_sealed_under() {
    let world = World::new().await;
    let sealed = world.seal(&world.node, "globex", "C9").await.unwrap();
    let (honest, row) = world.record("globex", key_id(&sealed));
    let mut like = honest.clone();
    (like.made_epoch, like.wrapped_epoch) = (honest.made_epoch + 5, honest.made_epoch + 5);
    world.store.raw_put(&row.0, None, None);
    let (id, _) = plant(&world, &TakenOverNode::of(&world.node), &like, 1).await;
    let node = world.fresh(true).await;
    assert_eq!(kind(world.seal(&node, "globex", "C9").await), ErrorKind::Unavailable);
    let handle = scope(&node, "globex", "C9").await.unwrap();
    let header = 3 + EU.len();
    let envelope = [&sealed[..header], id.as_bytes(), &sealed[header + 32..]].concat();
    assert!(handle.open(&[("message", "M1")], &envelope).await.is_err());
}

/// Who has the row key has not the control plane's: it signs no tenant's row.
#[tokio::test]
async fn a_data_plane_s_role_is_denied_the_control_plane_s_key() {
    use strongroom::testing::{Failpoints, Operator};
    let world = World::new().await;
    // The root's policy, as an operator writes it: this role unwraps with purpose `room` only. A role that is denied the other
    // purpose is denied every decision.
    let root = strongroom::Root::new(DataPlaneRole(world.operator.root.clone()), world.operator.root.kek()).unwrap();
    let builder =
        strongroom::Strongroom::builder().serving([EU]).key_store(Failpoints::new(world.store.clone(), |_| Ok(())));
    let builder = builder.kms(world.kms.clone()).clock(world.clock.clone()).watermark(world.operator.watermark.clone());
    let node = builder.room(Operator::ROOM).root(root).build().await.unwrap();
    let sealed = world.seal(&node, "acme", "C9").await.unwrap();
    world.open(&node, "acme", "C9", &sealed).await.unwrap();
    let admin = node.admin("mallory", "an attack").unwrap();
    assert_eq!(kind(admin.restore("acme", crate::world::channel("C9")).await), ErrorKind::InvalidArgument);
    assert_eq!(kind(admin.revoke("acme", crate::world::channel("C9")).await), ErrorKind::Denied);
    assert_eq!(kind(admin.evict().await), ErrorKind::Denied);
}

/// A role that the root's policy denies the purpose `control`.
struct DataPlaneRole(strongroom::LocalRoot);

#[async_trait::async_trait]
impl Kms for DataPlaneRole {
    fn scheme(&self) -> &str {
        self.0.scheme()
    }

    async fn describe(&self, kek: &strongroom::KekUri) -> strongroom::Result<strongroom::KekDescription> {
        self.0.describe(kek).await
    }

    async fn wrap(
        &self,
        kek: &strongroom::KekUri,
        _: &strongroom::EncryptionContext,
        _: &DataKey,
    ) -> strongroom::Result<Vec<u8>> {
        Err(strongroom::Error::new(ErrorKind::Denied, "a data plane wraps nothing under the root")
            .with_kek(kek.as_str()))
    }

    async fn unwrap(
        &self,
        kek: &strongroom::KekUri,
        context: &strongroom::EncryptionContext,
        wrapped: &[u8],
    ) -> strongroom::Result<DataKey> {
        if context.get("purpose") == Some("room") {
            return self.0.unwrap(kek, context, wrapped).await;
        }
        Err(strongroom::Error::new(ErrorKind::Denied, "not for a data plane").with_kek(kek.as_str()))
    }
}
