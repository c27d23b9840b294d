//! The test that decides. Every row of every kind, in the place of every other one of its kind, and taken away; every field of
//! every body, with every other value that this room knows; every index, at every other place. With a watermark and without
//! one, on a node that runs and on one that starts.
//!
//! A verdict for each: nothing seals under a key that was erased, given up, evicted or another's, and nothing opens that was
//! revoked, erased or suspended. Without a watermark an authentic row of before may be believed by a process that starts:
//! these cases are counted, and are the only ones.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use strongroom::testing::{row_body, with_body};
use strongroom::{ErrorKind, KeyId, KeyState, RowKey, Strongroom};

use crate::world::{Row, World, channel, key_id, kind, tenant, walk};

/// What a room holds in which something of each kind has happened.
struct Story {
    world: World,
    /// Rows of every kind and of every time, from other tenants, other incarnations and another room under the same root.
    pool: Vec<Row>,
    /// Messages that must not open: tenant, channel, envelope, and why.
    closed: Vec<(&'static str, &'static str, Vec<u8>, ErrorKind)>,
    /// Messages that open.
    open: Vec<(&'static str, &'static str, Vec<u8>)>,
    /// Keys that must never seal again.
    spent: BTreeSet<KeyId>,
}

const CHANNELS: [&str; 6] = ["live", "revoked", "erased", "compromised", "suspended", "evicted"];

async fn story() -> Story {
    let world = World::new().await;
    let mut pool = world.rows();
    let mut sealed = BTreeMap::new();
    for of in ["acme", "globex"] {
        for channel in CHANNELS {
            sealed.insert((of, channel), world.seal(&world.node, of, channel).await.unwrap());
        }
    }
    pool.extend(world.rows());
    let mut spent = BTreeSet::new();
    for of in ["acme", "globex"] {
        spent.extend(["erased", "compromised", "evicted"].map(|channel| key_id(&sealed[&(of, channel)])));
    }
    world.admin().evict().await.unwrap();
    // Made anew by the next message, but for the keys of channels that get none.
    pool.extend(world.rows());
    let admin = world.admin();
    for of in ["acme", "globex"] {
        admin.revoke(of, channel("revoked")).await.unwrap();
        let erasure = admin.erase(of, channel("erased"), Duration::ZERO).await.unwrap();
        admin.carry_out_erasure(of, &erasure.id, &walk()).await.unwrap();
        pool.extend(world.rows());
        admin.rotate_after_compromise(of, channel("compromised"), &walk()).await.unwrap();
        admin.suspend_opens(of, channel("suspended"), crate::world::NOW + 3_600_000).await.unwrap();
    }
    let mut open = Vec::new();
    for of in ["acme", "globex"] {
        open.push((of, "live", world.seal(&world.node, of, "live").await.unwrap()));
        for channel in ["live", "compromised", "evicted"] {
            open.push((of, channel, sealed[&(of, channel)].clone()));
        }
    }
    // Another room under the same root, with tenants of the same names.
    let staging = World::with_root(&world.operator.root).await;
    for of in ["acme", "globex"] {
        staging.seal(&staging.node, of, "live").await.unwrap();
    }
    pool.extend(staging.rows());
    pool.extend(world.rows());
    let closed = ["acme", "globex"]
        .into_iter()
        .flat_map(|of| {
            [("revoked", ErrorKind::Revoked), ("erased", ErrorKind::Erased), ("suspended", ErrorKind::Suspended)]
                .map(|(channel, why)| (of, channel, why))
        })
        .map(|(of, channel, why)| (of, channel, sealed[&(of, channel)].clone(), why))
        .collect();
    pool.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    pool.dedup();
    Story { world, pool, closed, open, spent }
}

fn same_kind(a: &RowKey, b: &RowKey) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

#[derive(Default)]
struct Tally {
    cases: u32,
    refused: u32,
    /// What a process without a watermark believed of authentic rows of before.
    believed: u32,
}

impl Story {
    /// What a node makes of the store as it is now.
    async fn verdict(&self, node: &Strongroom, watermark: bool, what: &str, tally: &mut Tally) {
        tally.cases += 1;
        for (of, channel, sealed, _) in &self.closed {
            if self.world.open(node, of, channel, sealed).await.is_err() {
                tally.refused += 1;
            } else {
                assert!(!watermark, "{what}: opened {of}'s {channel} message");
                tally.believed += 1;
            }
        }
        for of in ["acme", "globex"] {
            for channel in CHANNELS {
                if let Ok(sealed) = self.world.seal(node, of, channel).await {
                    let id = key_id(&sealed);
                    if self.spent.contains(&id) {
                        assert!(!watermark, "{what}: sealed {of}'s {channel} under a key that is over");
                        tally.believed += 1;
                    }
                    // The key of this very scope: nobody else's record serves.
                    let (record, _) = self.world.record(of, id);
                    assert_eq!(record.scope.get("channel"), Some(channel), "{what}");
                }
            }
        }
        for (of, channel, sealed) in &self.open {
            // Denial of service is the store's to give; a wrong text is not.
            drop(self.world.open(node, of, channel, sealed).await);
        }
    }

    async fn both(&self, what: &str, tally: &mut Tally) {
        let attacked = self.world.store.snapshot();
        for watermark in [true, false] {
            self.world.store.restore(&attacked);
            if let Ok(node) = self.world.try_fresh(watermark).await {
                self.verdict(&node, watermark, what, tally).await;
            } else {
                tally.cases += 1;
                tally.refused += 1;
            }
        }
        self.world.store.restore(&attacked);
        self.world.admin().purge_all();
        // It has seen the newest rows, and hears the watermark.
        self.verdict(&self.world.node, true, what, tally).await;
    }
}

#[tokio::test]
async fn every_row_in_the_place_of_every_other_one_of_its_kind() {
    let story = story().await;
    let honest = story.world.store.snapshot();
    let mut tally = Tally::default();
    for (key, bytes, index) in story.world.rows() {
        let others = story.pool.iter().filter(|row| same_kind(&row.0, &key) && row.1 != bytes);
        let candidates: Vec<_> = others.map(|row| Some(row.1.clone())).chain([None]).collect();
        for (n, candidate) in candidates.into_iter().enumerate() {
            // Pairs of journal entries decide nothing here: the journal's own test takes all of them.
            if matches!(key, RowKey::Journal(..)) && n % 16 != 0 {
                continue;
            }
            story.world.store.raw_put(&key, candidate, index.clone());
            story.both(&format!("{key:?} by row {n}"), &mut tally).await;
            story.world.store.restore(&honest);
        }
    }
    println!("{} cases, {} refusals, {} believed without a watermark", tally.cases, tally.refused, tally.believed);
    assert!(tally.cases > 300 && tally.believed > 0, "the limit without a watermark shows, and is one");
}

/// Every index in the place of every other one, and each row found where another is looked for.
#[tokio::test]
async fn every_index_at_every_other_place() {
    let story = story().await;
    let honest = story.world.store.snapshot();
    let mut tally = Tally::default();
    let keys: Vec<Row> = story.world.rows().into_iter().filter(|row| row.2.is_some()).collect();
    for (key, bytes, index) in &keys {
        let places = keys.iter().filter_map(|row| row.2.clone());
        let states = [KeyState::Active, KeyState::Deactivated, KeyState::Suspended, KeyState::Destroyed];
        let mut indices: Vec<_> = places
            .flat_map(|place| states.map(|state| strongroom::KeyIndex { state, ..place.clone() }))
            .filter(|other| Some(other) != index.as_ref())
            .collect();
        indices.dedup();
        for (n, other) in indices.into_iter().enumerate().filter(|(n, _)| n % 3 == 0) {
            story.world.store.raw_put(key, Some(bytes.clone()), Some(other));
            story.both(&format!("{key:?} at place {n}"), &mut tally).await;
            story.world.store.restore(&honest);
        }
    }
    println!("{} cases, {} refusals, {} believed", tally.cases, tally.refused, tally.believed);
    assert_eq!(tally.believed, 0, "an index alone widens nothing, with a watermark or without");
}

/// Every value of every member of a body, in the place of every other value of its type: nobody vouches for any of it.
#[tokio::test]
async fn every_field_with_every_other_value_that_the_room_knows() {
    let story = story().await;
    let honest = story.world.store.snapshot();
    let bodies: Vec<Value> =
        story.pool.iter().map(|row| serde_json::from_slice(&row_body(&row.0, &row.1).unwrap()).unwrap()).collect();
    let mut known = BTreeSet::new();
    for body in &bodies {
        leaves(body, &mut known);
    }
    let (mut edits, mut seen) = (0, BTreeSet::new());
    for (key, bytes, index) in story.world.rows() {
        let body: Value = serde_json::from_slice(&row_body(&key, &bytes).unwrap()).unwrap();
        for path in paths(&body) {
            let present = body.pointer(&path).unwrap();
            for other in known.iter().filter_map(|text| serde_json::from_str::<Value>(text).ok()) {
                if &other == present || std::mem::discriminant(&other) != std::mem::discriminant(present) {
                    continue;
                }
                let mut edited = body.clone();
                *edited.pointer_mut(&path).unwrap() = other;
                // Each kind of member once with all values, and every member with one.
                let member: String = path.chars().filter(|c| !c.is_ascii_digit()).collect();
                if !seen.insert((
                    format!("{key:?}").split('(').next().unwrap().to_owned(),
                    member,
                    edited.pointer(&path).unwrap().to_string(),
                )) {
                    continue;
                }
                let bytes = with_body(&key, &bytes, &serde_json::to_vec(&edited).unwrap()).unwrap();
                story.world.store.raw_put(&key, Some(bytes), index.clone());
                story.refuses(&key, &path).await;
                edits += 1;
                story.world.store.restore(&honest);
            }
        }
    }
    println!("{edits} edits");
    assert!(edits > 1_000);
}

impl Story {
    /// Whoever asks for this row is told that it is not authentic.
    async fn refuses(&self, key: &RowKey, path: &str) {
        let admin = self.world.admin();
        let what = format!("{key:?} {path}");
        match key {
            RowKey::Room => assert!(
                self.world.try_fresh(true).await.is_err() && self.world.try_fresh(false).await.is_err(),
                "{what}"
            ),
            RowKey::Fleet => assert_eq!(kind(admin.all_opens_suspended_until().await), ErrorKind::Tampered, "{what}"),
            RowKey::Tenant(of) => {
                assert_eq!(kind(self.world.node.tenant(of.as_str()).await), ErrorKind::Tampered, "{what}");
            }
            RowKey::Key(of, id) => {
                let page = admin.keys(of.as_str(), None, 1000).await.unwrap();
                let unreadable: Vec<_> = page.unreadable.iter().map(|(id, e)| (*id, e.kind())).collect();
                assert_eq!(unreadable, [(*id, ErrorKind::Tampered)], "{what}");
            }
            RowKey::Journal(of, _) => assert_eq!(kind(admin.journal(of.as_str()).await), ErrorKind::Tampered, "{what}"),
            RowKey::Kek(kek) => {
                let policy = strongroom::TenantPolicy::new(kek.clone(), crate::world::region());
                let enrolled = admin.enroll("third", policy.share_kek(kek.clone())).await;
                assert_eq!(kind(enrolled), ErrorKind::Tampered, "{what}");
            }
            _ => unreachable!(),
        }
    }
}

fn leaves(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| leaves(item, into)),
        Value::Object(members) => members.values().for_each(|member| leaves(member, into)),
        leaf => drop(into.insert(leaf.to_string())),
    }
}

fn paths(value: &Value) -> Vec<String> {
    let under = |name: String, value: &Value| paths(value).into_iter().map(move |path| format!("/{name}{path}"));
    match value {
        Value::Array(items) => items.iter().enumerate().flat_map(|(n, item)| under(n.to_string(), item)).collect(),
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, member)| under(name.replace('~', "~0").replace('/', "~1"), member))
            .collect(),
        _ => vec![String::new()],
    }
}

/// The same rows in another tenant's name, and a tenant's name of no one.
#[tokio::test]
async fn a_row_under_another_name_is_not_that_name_s() {
    let story = story().await;
    let honest = story.world.store.snapshot();
    for (from, to) in [("acme", "globex"), ("globex", "acme"), ("acme", "nobody")] {
        let row = story.world.row(&RowKey::Tenant(tenant(from))).1;
        story.world.store.raw_put(&RowKey::Tenant(tenant(to)), Some(row), None);
        for watermark in [true, false] {
            let node = story.world.fresh(watermark).await;
            let refused = kind(node.tenant(to).await);
            assert!(matches!(refused, ErrorKind::Tampered | ErrorKind::RolledBack), "{refused}");
        }
        story.world.store.restore(&honest);
    }
}
