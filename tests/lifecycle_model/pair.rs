//! Two nodes on one store, and the model beside them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use strongroom::testing::{ManualClock, Operator};
use strongroom::{
    Admin, ErrorKind, FILE_SEALING_LIMIT, Header, KekExpression, KekUri, KeyId, KeyState, KeyStore, LocalKms, Period,
    PeriodLabel, Region, Result, ScopeHandle, Selector, Strongroom, Suite, TenantPolicy, WalkOptions, Walked,
};

use crate::model::{Kind, Model, Place, Policy, Rule, State};
use crate::operation::{Deed, Edit, Operation, Target};

const TENANT: &str = "acme";
/// 2026-11-22T05:17:29.5Z
const NOW: i64 = 1_795_324_649_500;
/// Longer than the revocation bound.
const SETTLED: Duration = Duration::from_secs(6);
/// Keys stay in hand over several periods. What a sequence lets pass never ends in the last fifth of this, when keys are loaded
/// again ahead of their end: that happens by itself, and the model would not know when.
const TTL: Duration = Duration::from_secs(4 * 3600);

/// How often messages opened, and how often they did not for which reason: a model that is never asked proves nothing.
pub(crate) type Endings = Mutex<BTreeMap<String, u64>>;

/// A message, and the model's key that sealed it.
struct Message {
    channel: u8,
    key: usize,
    envelope: Vec<u8>,
}

pub(crate) struct Pair<'a> {
    endings: &'a Endings,
    nodes: [Strongroom; 2],
    /// Which node has not surely heard yet what the other one decided.
    stale: [bool; 2],
    kms: LocalKms,
    clock: ManualClock,
    model: Model,
    /// The ids of the model's keys, and of the model's erasures.
    ids: Vec<KeyId>,
    erasures: Vec<String>,
    messages: Vec<Message>,
    /// Envelopes that were sealed anew. They go on opening as their keys do.
    replaced: Vec<Message>,
}

fn region(place: Place) -> Region {
    Region::new(if place == Place::Eu { "eu-central-1" } else { "us-east-1" }).unwrap()
}

fn keks(expression: usize) -> KekExpression {
    let kek = |name: &str| KekUri::new(&format!("local:{name}")).unwrap();
    let [a, b, c, d] = ["0", "1", "2", "3"].map(kek);
    match expression {
        0 => a.into(),
        1 => b.into(),
        2 => KekExpression::any_of([a, b]),
        3 => KekExpression::all_of([a, b]),
        4 => KekExpression::any_of([KekExpression::from(a), KekExpression::all_of([b, c])]),
        5 => d.into(),
        _ => KekExpression::any_of([a, d]),
    }
}

fn policy(of: &Policy) -> TenantPolicy {
    let period = match of.kind {
        Kind::None => Period::None,
        Kind::Hour => Period::Hour,
        Kind::Day => Period::Day,
    };
    let policy = TenantPolicy::new(keks(of.keks), region(of.home))
        .scope_by(["channel"])
        .allow_unbound_messages()
        .period(period)
        .cache_ttl(TTL);
    let policy = policy.suite(if of.suite { Suite::ChaCha20Poly1305 } else { Suite::Aes256Gcm });
    let allowed = [Place::Eu, Place::Us].into_iter().filter(|place| of.allowed[*place as usize]);
    allowed.fold(policy, |policy, place| policy.allow_region(region(place)))
}

fn label(hour: i64) -> PeriodLabel {
    Period::Hour.label(hour * 3_600_000).unwrap().unwrap()
}

fn selector(rule: &Rule) -> Selector {
    match rule {
        Rule::Everything => Selector::everything(),
        Rule::Channel(c) => Selector::fields([("channel", c.to_string())]),
        Rule::Hours(from, to) => Selector::everything().from(label(*from)).to(label(*to)),
        Rule::HourOfChannel(c, hour) => {
            let hour = label(*hour).field().1.to_owned();
            Selector::fields([("channel", c.to_string()), ("hour", hour)])
        }
    }
}

fn kind<T>(result: Result<T>) -> std::result::Result<T, ErrorKind> {
    result.map_err(|e| e.kind())
}

fn done(walked: Result<Walked>) -> std::result::Result<(u64, u64), ErrorKind> {
    let walked = walked.or_else(|e| Walked::of(&e).cloned().ok_or(e));
    kind(walked).map(|walked| (walked.done, walked.failed))
}

impl<'a> Pair<'a> {
    pub(crate) async fn new(stores: [Arc<dyn KeyStore>; 2], endings: &'a Endings) -> Self {
        let (kms, clock) = (LocalKms::in_memory(), ManualClock::at(NOW));
        for name in 0..4 {
            let place = if name == 3 { Place::Us } else { Place::Eu };
            kms.create_kek(&name.to_string(), region(place)).unwrap();
        }
        let operator = Operator::default();
        let node = async |store| {
            let builder = Strongroom::builder().serving(["eu-central-1", "us-east-1"]).clock(clock.clone());
            builder.key_store(store).kms(kms.clone()).open_under(&operator).await
        };
        let [one, other] = stores;
        let nodes = [node(one).await, node(other).await];
        let first = Policy { keks: 0, home: Place::Eu, allowed: [false; 2], kind: Kind::Hour, suite: false };
        nodes[0].admin("a test", "to test").unwrap().enroll(TENANT, policy(&first)).await.unwrap();
        let model = Model {
            now: NOW,
            epoch: 1,
            policy: first,
            enabled: [true; 4],
            keys: Vec::new(),
            revoked: Vec::new(),
            lifted: Vec::new(),
            erasures: Vec::new(),
            rewrap: None,
            settled: true,
            finished: [false; 2],
        };
        let (ids, erasures, messages, replaced) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { endings, nodes, stale: [false; 2], kms, clock, model, ids, erasures, messages, replaced }
    }

    fn pass(&mut self, time: Duration) {
        self.clock.advance(time);
        self.model.now += i64::try_from(time.as_millis()).unwrap();
        if time >= SETTLED {
            self.stale = [false; 2];
        }
    }

    /// The node may not have heard yet: lets the bound pass.
    fn settle(&mut self, node: usize) {
        if self.stale[node] {
            self.pass(SETTLED);
        }
    }

    async fn scope(&self, node: usize, channel: u8) -> ScopeHandle {
        self.nodes[node].tenant(TENANT).await.unwrap().scope([("channel", channel.to_string().as_str())]).unwrap()
    }

    fn rule(&self, target: &Target) -> Rule {
        let hour = self.model.hour();
        match *target {
            Target::Everything => Rule::Everything,
            Target::Channel(c) => Rule::Channel(c),
            Target::Hours { back, many } => Rule::Hours(hour - back - many, hour - back),
            Target::HourOfChannel(c, back) => Rule::HourOfChannel(c, hour - back),
        }
    }

    /// What sealed is the key that the model says; a new one if the model made one.
    fn match_key(&mut self, key: usize, key_id: KeyId) {
        if key == self.ids.len() {
            assert!(!self.ids.contains(&key_id), "a key that was there already seals, and not a new one");
            self.ids.push(key_id);
        }
        assert_eq!(self.ids[key], key_id, "another key seals than the Active one");
    }

    pub(crate) async fn perform(&mut self, operation: &Operation) {
        let node = operation.node;
        let admin = self.nodes[node].admin("a test", "to test").unwrap();
        match &operation.deed {
            Deed::Seal(channel) => self.seal(node, *channel).await,
            Deed::Open(message) if !self.messages.is_empty() => {
                self.settle(node);
                self.open(node, &self.messages[message % self.messages.len()]).await;
            }
            Deed::Reseal(message) if !self.messages.is_empty() => {
                self.reseal(node, message % self.messages.len()).await;
            }
            Deed::Open(_) | Deed::Reseal(_) => {}
            Deed::Purge => drop(admin.purge(TENANT).unwrap()),
            Deed::PurgeAll => drop(admin.purge_all()),
            Deed::Disable(kek) => {
                self.kms.disable_kek(&kek.to_string()).unwrap();
                self.model.enabled[*kek] = false;
                self.pass(TTL + Duration::from_secs(1)); // what is cached may open until then
            }
            Deed::Enable(kek) => {
                self.kms.enable_kek(&kek.to_string()).unwrap();
                self.model.enabled[*kek] = true;
                self.pass(Duration::from_secs(1)); // a denial is remembered for so long
            }
            Deed::Advance(minutes) => self.pass(Duration::from_secs(60) * u32::try_from(*minutes).unwrap()),
            _ => {
                self.decide(&admin, &operation.deed).await;
                self.stale[1 - node] = true;
                let row = admin.tenant(TENANT).await.unwrap();
                assert_eq!((row.epoch, row.policy), (self.model.epoch, policy(&self.model.policy)));
            }
        }
    }

    async fn decide(&mut self, admin: &Admin, deed: &Deed) {
        let options = WalkOptions::default();
        match deed {
            Deed::Rotate(channel) => {
                let rotated = kind(admin.rotate(TENANT, &[("channel", &channel.to_string())]).await);
                let predicted = self.model.rotate(*channel);
                assert_eq!(rotated.err(), predicted.err());
                if let (Ok(key_id), Ok(key)) = (rotated, predicted) {
                    self.match_key(key, key_id);
                    self.model.epoch += 1; // the decision stands in the tenant's row
                }
            }
            Deed::RotateAll(target) => {
                let rule = self.rule(target);
                let rotated = kind(admin.rotate_all(TENANT, selector(&rule), &options).await);
                assert_eq!(rotated.map(|walked| walked.done), self.model.rotate_all(&rule));
            }
            Deed::Rewrap(to) => {
                let rewrapped = done(admin.rewrap(TENANT, keks(*to), &options).await);
                assert_eq!(rewrapped, self.model.rewrap(*to));
            }
            Deed::Migrate(to, expression) => {
                let migrated = done(admin.migrate_region(TENANT, region(*to), keks(*expression), &options).await);
                assert_eq!(migrated, self.model.migrate(*to, *expression));
            }
            Deed::Finish(from) => {
                let cutoff = admin.cutoff(TENANT).await.unwrap();
                self.pass(FILE_SEALING_LIMIT + TTL + Duration::from_secs(3600));
                let mut census = admin.census(&cutoff).unwrap();
                self.messages.iter().for_each(|message| census.add(&message.envelope).unwrap());
                let left = self.messages.iter().filter(|m| self.model.keys[m.key].place == *from).count();
                let any = !self.messages.is_empty();
                let census = if any { census.complete() } else { census.complete_without_envelopes() }.unwrap();
                let finished = kind(admin.finish_migration(TENANT, &region(*from), &census).await);
                assert_eq!(finished, self.model.finish(*from, left));
            }
            Deed::SetPolicy(edit) => {
                let edited = self.edited(edit);
                let row = admin.tenant(TENANT).await.unwrap();
                let set = kind(admin.set_policy(&row, policy(&edited)).await);
                assert_eq!(set, self.model.set_policy(edited));
            }
            other => self.revoke_or_erase(admin, other).await,
        }
    }

    fn edited(&self, edit: &Edit) -> Policy {
        let mut policy = self.model.policy;
        match *edit {
            Edit::Keks(keks) => policy.keks = keks,
            Edit::Period(kind) => policy.kind = kind,
            Edit::OtherSuite => policy.suite = !policy.suite,
            Edit::Home(place) => policy.home = place,
            Edit::Allow(place) => policy.allowed[place as usize] = true,
            Edit::Disallow(place) => policy.allowed[place as usize] = false,
        }
        policy
    }

    async fn revoke_or_erase(&mut self, admin: &Admin, deed: &Deed) {
        match deed {
            Deed::Revoke(target) => {
                let rule = self.rule(target);
                let revoked = kind(admin.revoke(TENANT, selector(&rule)).await);
                let predicted = self.model.revoke(rule);
                assert_eq!(revoked.as_ref().map(|_| ()), predicted.as_ref().map(|_| ()));
                // Where counting took too long it says so.
                let keys = revoked.ok().and_then(|revoked| revoked.keys);
                assert!(keys.is_none() || keys == predicted.ok(), "{keys:?}");
            }
            Deed::Restore(rule) => {
                // Where nothing is revoked, something that is not.
                let rules = &self.model.revoked;
                let rule = rules.get(rule % rules.len().max(1)).cloned().unwrap_or(Rule::Everything);
                let restored = kind(admin.restore(TENANT, selector(&rule)).await);
                assert_eq!(restored, self.model.restore(&rule));
            }
            Deed::Erase(target, minutes) => {
                let rule = self.rule(target);
                let wait = Duration::from_secs(60) * u32::try_from(*minutes).unwrap();
                let erasure = kind(admin.erase(TENANT, selector(&rule), wait).await);
                let is_new = erasure.as_ref().map(|erasure| !self.erasures.contains(&erasure.id)).map_err(|e| *e);
                assert_eq!(is_new, self.model.erase(rule, *minutes));
                self.erasures.extend(erasure.into_iter().filter(|_| is_new == Ok(true)).map(|erasure| erasure.id));
            }
            Deed::Undo(erasure) | Deed::CarryOut(erasure) if self.erasures.is_empty() => {
                let refused = admin.undo_erasure(TENANT, &erasure.to_string()).await;
                assert_eq!(kind(refused), Err(ErrorKind::InvalidArgument));
            }
            Deed::Undo(erasure) => {
                let at = erasure % self.erasures.len();
                admin.undo_erasure(TENANT, &self.erasures.remove(at)).await.unwrap();
                self.model.undo(at);
            }
            Deed::CarryOut(erasure) => {
                let at = erasure % self.erasures.len();
                let carried_out = admin.carry_out_erasure(TENANT, &self.erasures[at], &WalkOptions::default()).await;
                let predicted = self.model.carry_out(at);
                assert_eq!(kind(carried_out).map(|walked| walked.done), predicted);
                if predicted.is_ok() {
                    self.erasures.remove(at);
                }
            }
            other => unreachable!("{other:?} is no decision"),
        }
    }

    async fn seal(&mut self, node: usize, channel: u8) {
        self.settle(node);
        let sealed = kind(self.scope(node, channel).await.seal(&[], &[channel]).await);
        let predicted = self.model.seal(channel);
        assert_eq!(sealed.as_ref().err(), predicted.as_ref().err(), "seal in {channel} on node {node}");
        if let (Ok(envelope), Ok(key)) = (sealed, predicted) {
            self.keep(channel, key, envelope);
        }
    }

    fn keep(&mut self, channel: u8, key: usize, envelope: Vec<u8>) {
        let header = Header::parse(&envelope).unwrap();
        assert_eq!(header.region(), region(self.model.policy.home).as_str(), "sealed in another region than the home");
        self.match_key(key, KeyId::from_bytes(*header.key_id()));
        self.messages.push(Message { channel, key, envelope });
    }

    async fn reseal(&mut self, node: usize, at: usize) {
        self.settle(node);
        let Message { channel, key, envelope } = &self.messages[at];
        let (channel, key) = (*channel, *key);
        let resealed = kind(self.scope(node, channel).await.reseal(&[], envelope).await);
        let predicted = self.model.reseal(key);
        let shape = |of: bool| if of { "anew" } else { "as it was" };
        assert_eq!(
            resealed.as_ref().map(|r| shape(r.is_some())),
            predicted.as_ref().map(|p| shape(p.is_some())),
            "reseal of a message of {channel} on node {node}"
        );
        if let (Ok(Some(envelope)), Ok(Some(key))) = (resealed, predicted) {
            self.replaced.push(self.messages.remove(at));
            self.keep(channel, key, envelope);
        }
    }

    async fn open(&self, node: usize, message: &Message) {
        let opened = kind(self.scope(node, message.channel).await.open(&[], &message.envelope).await);
        let opened = opened.map(|text| assert_eq!(&*text, [message.channel]));
        let key = &self.model.keys[message.key];
        let name = opened.as_ref().map_or_else(ToString::to_string, |()| "opened".to_owned());
        *self.endings.lock().unwrap().entry(name).or_default() += 1;
        assert_eq!(opened, self.model.open(message.key), "a message under {key:?} on node {node}");
    }

    /// Every message on both nodes, with what they have cached and without; and every record.
    pub(crate) async fn check_everything(&mut self) {
        for node in [0, 1] {
            self.settle(node);
        }
        for cold in [false, true] {
            for node in [0, 1] {
                if cold {
                    self.nodes[node].admin("a test", "to test").unwrap().purge_all();
                }
                for message in self.messages.iter().chain(&self.replaced) {
                    self.open(node, message).await;
                }
            }
        }
        let records = self.nodes[0].admin("a test", "to test").unwrap().keys(TENANT, None, 1000).await.unwrap().keys;
        let records: BTreeMap<KeyId, _> = records.into_iter().map(|record| (record.key_id, record)).collect();
        assert_eq!(records.len(), self.ids.len());
        for (id, key) in self.ids.iter().zip(&self.model.keys) {
            let record = &records[id];
            let state = match key.state {
                State::Active => KeyState::Active,
                State::Deactivated => KeyState::Deactivated,
                State::Destroyed => KeyState::Destroyed,
            };
            let wrapped = record.wrapped.as_ref().map(strongroom::WrappedKey::expression);
            let predicted = (key.state != State::Destroyed).then(|| keks(key.keks));
            let own = record.transitions.last().unwrap().state; // the list says Suspended of what is revoked
            assert!(record.state == own || record.state == KeyState::Suspended);
            assert_eq!((own, wrapped, &record.pending), (state, predicted, &None));
            assert_eq!(record.region, region(key.place));
        }
    }
}
