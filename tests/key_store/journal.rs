//! The journal: nobody takes a decision out of it, and what left under another KEK is said wherever it matters.

use std::time::Duration;

use strongroom::{Census, Ed25519Signer, ErrorKind, ExportTo, RowKey, Selector};

use crate::world::{World, channel, kind, tenant, walk};

#[tokio::test]
async fn every_decision_stands_in_the_journal_with_who_and_why() {
    let world = World::new().await;
    world.seal(&world.node, "acme", "C9").await.unwrap();
    let admin = world.node.admin("bob", "ticket 7").unwrap();
    admin.revoke("acme", channel("C9")).await.unwrap();
    admin.restore("acme", channel("C9")).await.unwrap();
    admin.rotate("acme", &[("channel", "C9")]).await.unwrap();
    admin.rotate_all("acme", Selector::everything(), &walk()).await.unwrap();
    admin.rotate_after_compromise("acme", channel("C9"), &walk()).await.unwrap();
    let row = admin.tenant("acme").await.unwrap();
    admin.set_policy(&row, row.policy.clone().cache_ttl(Duration::from_secs(60))).await.unwrap();
    let erasure = admin.erase("acme", channel("C1"), Duration::ZERO).await.unwrap();
    admin.undo_erasure("acme", &erasure.id).await.unwrap();
    let erasure = admin.erase("acme", channel("C9"), Duration::ZERO).await.unwrap();
    admin.carry_out_erasure("acme", &erasure.id, &walk()).await.unwrap();
    admin.suspend_opens("acme", channel("C2"), crate::world::NOW + 60_000).await.unwrap();
    admin.resume_opens("acme", channel("C2")).await.unwrap();
    let kek = world.local.create_kek("own", crate::world::region()).unwrap();
    admin.export("acme", ExportTo::Foreign(kek), &walk(), |_| Ok(())).await.unwrap();
    let keks: strongroom::KekExpression = "local:acme".parse().unwrap();
    admin.rewrap("acme", keks, &walk()).await.unwrap();
    let entries = admin.journal("acme").await.unwrap();
    let verbs: Vec<&str> = entries.iter().map(|entry| entry.decision.verb.as_str()).collect();
    assert_eq!(
        verbs,
        [
            "enroll",
            "revoke",
            "restore",
            "rotate",
            "rotate-all",
            "rotate-after-compromise",
            "set-policy",
            "erase",
            "undo-erasure",
            "erase",
            "begin-carrying-out-erasure",
            "carry-out-erasure",
            "suspend-opens",
            "resume-opens",
            "export",
            "rewrap",
            "finish-rewrap",
        ]
    );
    assert!(entries[1..].iter().all(|entry| (entry.actor.as_str(), entry.reason.as_str()) == ("bob", "ticket 7")));
    assert_eq!(entries[0].actor, "alice");
    assert!(entries.iter().zip(1..).all(|(entry, epoch)| entry.epoch == epoch), "one entry for each change of the row");
    let erased = &entries[11].decision;
    assert!(!erased.keys.is_empty(), "the keys that are gone are named");
}

#[tokio::test]
async fn dropped_moved_and_foreign_entries_are_found() {
    let world = World::new().await;
    for _ in 0..2 {
        for of in ["acme", "globex"] {
            world.admin().revoke(of, channel("C9")).await.unwrap();
            world.admin().restore(of, channel("C9")).await.unwrap();
        }
    }
    let honest = world.store.snapshot();
    let entry = |of: &str, number| RowKey::Journal(tenant(of), number);
    assert_eq!(world.admin().journal("acme").await.unwrap().len(), 5);
    for number in 1..=5 {
        let replacements: Vec<Option<Vec<u8>>> = std::iter::once(None)
            .chain((1..=5).filter(|other| *other != number).map(|other| Some(world.row(&entry("acme", other)).1)))
            .chain([Some(world.row(&entry("globex", number)).1), Some(world.row(&RowKey::Tenant(tenant("acme"))).1)])
            .collect();
        for bytes in replacements {
            world.store.raw_put(&entry("acme", number), bytes, None);
            for watermark in [true, false] {
                let node = world.fresh(watermark).await;
                // Whoever has no watermark has no control plane: the one that runs reads.
                let admin = if watermark { node.admin("bob", "an audit").unwrap() } else { world.admin() };
                assert_eq!(kind(admin.journal("acme").await), ErrorKind::Tampered, "entry {number}");
            }
            world.store.restore(&honest);
        }
    }
    // Taken from another incarnation: signed by this room's control plane, at its number.
    let before = world.row(&entry("acme", 1)).1;
    let other = World::new().await;
    other.store.raw_put(&entry("acme", 1), Some(before), None);
    assert_eq!(kind(other.admin().journal("acme").await), ErrorKind::Tampered);
}

/// An export, then a revocation, an erasure, a receipt: each says so.
#[tokio::test]
async fn what_was_exported_is_said_wherever_it_matters() {
    let world = World::new().await;
    world.seal(&world.node, "acme", "C9").await.unwrap();
    let admin = world.admin();
    let own = world.local.create_kek("own", crate::world::region()).unwrap();
    // A KEK that the policy does not name has to be named as foreign.
    let refused = admin.export("acme", ExportTo::Policy(own.clone()), &walk(), |_| Ok(())).await;
    assert_eq!(kind(refused), ErrorKind::InvalidArgument);
    let mut copies = 0;
    let to = ExportTo::Foreign(own.clone());
    let walked = admin
        .export("acme", to, &walk(), |_| {
            copies += 1;
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!((walked.done, copies), (1, 1));
    admin.revoke("acme", channel("C9")).await.unwrap();
    let report = admin.residency("acme", &Census::begin(0)).await.unwrap();
    assert!(!report.is_clean() && report.to_string().contains("FOREIGN EXPORT"), "{report}");
    assert_eq!((&report.exports[0].kek, report.exports[0].foreign), (&own, true));
    admin.restore("acme", channel("C9")).await.unwrap();
    let erasure = admin.erase("acme", channel("C9"), Duration::ZERO).await.unwrap();
    admin.carry_out_erasure("acme", &erasure.id, &walk()).await.unwrap();
    let signer = Ed25519Signer::from_seed(&mut b"thirty-two bytes of the operator".to_owned()).unwrap();
    let receipt = admin.receipt("acme", channel("C9"), Duration::ZERO, &signer).await.unwrap();
    let receipt = receipt.verify(&signer.public_key()).unwrap();
    assert_eq!(receipt.exports.len(), 1, "copies that no erasure reaches are stated");
    assert_eq!((receipt.erased.len(), receipt.as_listed), (1, true));
    let journal = admin.journal("acme").await.unwrap();
    let export = journal.iter().find(|entry| entry.decision.verb == "export").unwrap();
    assert!(export.decision.details.contains(&("kek".to_owned(), own.to_string())));
    // A KEK that the policy names needs no such word, and is noted all the same.
    let kek = "local:acme".parse().unwrap();
    admin.export("acme", ExportTo::Policy(kek), &walk(), |_| Ok(())).await.unwrap();
    let exports = admin.tenant("acme").await.unwrap().exports;
    assert_eq!(exports.iter().map(|export| export.foreign).collect::<Vec<_>>(), [true, false]);
}

/// A KEK serves one tenant unless all that have it say so, and no tenant's policy names the root.
#[tokio::test]
async fn a_kek_serves_one_tenant_and_the_root_none() {
    use strongroom::{KekUri, TenantPolicy};
    let world = World::new().await;
    let admin = world.admin();
    let policy = |kek: &str| TenantPolicy::new(kek.parse::<KekUri>().unwrap(), crate::world::region());
    let theirs: KekUri = "local:globex".parse().unwrap();
    for bad in [policy("local:globex"), policy("local:globex").share_kek(theirs.clone()), policy("local-root:root")] {
        assert_eq!(kind(admin.enroll("mallory", bad).await), ErrorKind::InvalidArgument);
    }
    assert_eq!(kind(admin.rewrap("acme", &theirs, &walk()).await), ErrorKind::InvalidArgument);
    let shared: KekUri = world.local.create_kek("shared", crate::world::region()).unwrap();
    let sharing = || policy("local:shared").share_kek(shared.clone());
    admin.enroll("one", sharing()).await.unwrap();
    assert_eq!(kind(admin.enroll("other", policy("local:shared")).await), ErrorKind::InvalidArgument);
    admin.enroll("other", sharing()).await.unwrap();
    // Another KEK's row in its place is not believed.
    let claim = world.row(&RowKey::Kek(shared)).1;
    world.store.raw_put(&RowKey::Kek(theirs.clone()), Some(claim), None);
    assert_eq!(kind(admin.enroll("mallory", policy("local:globex").share_kek(theirs)).await), ErrorKind::Tampered);
}
