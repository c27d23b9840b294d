//! An attacker who may do anything to the key store between any two calls, and who took over a node that was evicted since.
//!
//! The model says of each message whether a decision that was confirmed closed it. Whatever the attacker does, nothing is sealed
//! under a key that he knows, and nothing that is closed opens: on nodes that run, and on one that starts, with the fleet's
//! watermark. What he may do is deny.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use strongroom::testing::{
    ManualClock, MemorySnapshot, Operator, TakenOverNode, context_of, key_id_of, row_body, with_body,
};
use strongroom::{
    DataKey, Header, KekUri, KeyId, KeyIndex, KeyRecord, KeyState, Kms, LocalKms, MemoryKeyStore, Region, Result,
    RowKey, Selector, Strongroom, TenantPolicy, WalkOptions, WrappedKey, Wrapping,
};

const TENANTS: [&str; 2] = ["acme", "globex"];
const EU: &str = "eu-central-1";
const BOUND: Duration = Duration::from_secs(5);

/// What happens next. Numbers choose, modulo what there is.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Seal { node: bool, of: usize, channel: usize },
    Open { node: bool, message: usize },
    Revoke { of: usize, channel: usize },
    Restore { of: usize, channel: usize },
    Erase { of: usize, channel: usize },
    GiveUp { of: usize, channel: usize },
    Suspend { of: usize, channel: usize },
    Evict,
    Restart { node: bool },
    Pass,
    Attack(Attack),
}

#[derive(Clone, Debug)]
pub(crate) enum Attack {
    Remember,
    PutBack(usize),
    Delete(usize),
    Replace {
        row: usize,
        by: usize,
    },
    Move {
        row: usize,
        to: usize,
        state: usize,
    },
    /// A record of his own making, under the authenticator of another or, if he has it, a row key.
    Plant {
        like: usize,
        key: u8,
        tagged: bool,
        later: u64,
    },
    /// One bit of a row, flipped.
    Bend {
        row: usize,
        bit: usize,
    },
    DropLog,
    ForgeLog,
}

/// What came of it: a siege in which nothing is ever sealed or opened proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) sealed: usize,
    pub(crate) opened: usize,
    pub(crate) planted: usize,
}

struct Message {
    of: usize,
    channel: usize,
    envelope: Vec<u8>,
    /// An erasure of it was confirmed.
    erased: bool,
}

/// What was decided of a channel.
#[derive(Clone, Copy, Default)]
struct Decided {
    revoked: bool,
    suspended: bool,
    /// A decision failed: it may stand or not.
    unknown: bool,
}

type Row = (RowKey, Vec<u8>, Option<KeyIndex>);

struct Siege {
    operator: Operator,
    store: Arc<MemoryKeyStore>,
    kms: LocalKms,
    clock: ManualClock,
    nodes: [Strongroom; 2],
    messages: Vec<Message>,
    decided: [[Decided; 2]; 2],
    /// Keys that he knows, or that were given up.
    known: BTreeSet<KeyId>,
    given_up: BTreeSet<KeyId>,
    pool: Vec<Row>,
    snapshots: Vec<MemorySnapshot>,
    thief: Option<TakenOverNode>,
    outcome: Outcome,
}

fn channel(n: usize) -> [(&'static str, &'static str); 1] {
    [("channel", ["C0", "C1"][n])]
}

fn selector(n: usize) -> Selector {
    Selector::fields(channel(n))
}

fn id_of(envelope: &[u8]) -> KeyId {
    KeyId::from_bytes(*Header::parse(envelope).unwrap().key_id())
}

impl Siege {
    async fn new() -> Self {
        let (kms, clock) = (LocalKms::in_memory(), ManualClock::at(1_795_324_649_500));
        let region = Region::new(EU).unwrap();
        let keks = TENANTS.map(|name| kms.create_kek(name, region.clone()).unwrap());
        kms.create_kek("mallory", region.clone()).unwrap();
        let (operator, store) = (Operator::default(), Arc::new(MemoryKeyStore::default()));
        let node = async || {
            let builder = Strongroom::builder().serving([EU]).key_store(Arc::clone(&store)).kms(kms.clone());
            builder.clock(clock.clone()).revocation_bound(BOUND).open_under(&operator).await
        };
        let nodes = [node().await, node().await];
        for (name, kek) in TENANTS.iter().zip(keks) {
            let policy = TenantPolicy::new(kek, region.clone()).scope_by(["channel"]);
            nodes[0].admin("alice", "a siege").unwrap().enroll(name, policy).await.unwrap();
        }
        Self {
            pool: store.raw_rows(),
            snapshots: vec![store.snapshot()],
            operator,
            store,
            kms,
            clock,
            nodes,
            messages: Vec::new(),
            decided: Default::default(),
            known: BTreeSet::new(),
            given_up: BTreeSet::new(),
            thief: None,
            outcome: Outcome::default(),
        }
    }

    async fn restart(&self) -> Result<Strongroom> {
        let builder = Strongroom::builder().serving([EU]).key_store(Arc::clone(&self.store)).kms(self.kms.clone());
        self.operator.equip(builder.clock(self.clock.clone()).revocation_bound(BOUND)).build().await
    }

    async fn seal(&mut self, node: usize, of: usize, n: usize) {
        let sealed = async {
            self.nodes[node].tenant(TENANTS[of]).await?.scope(channel(n))?.seal(&[("message", "M1")], b"x").await
        };
        let Ok(envelope) = sealed.await else { return };
        let id = id_of(&envelope);
        assert!(!self.known.contains(&id), "sealed under a key that the attacker knows");
        assert!(!self.given_up.contains(&id), "sealed under a key that was given up");
        assert!(!self.decided[of][n].revoked || self.decided[of][n].unknown, "sealed in a revoked channel");
        self.outcome.sealed += 1;
        self.messages.push(Message { of, channel: n, envelope, erased: false });
    }

    async fn open(&mut self, node: usize, at: usize) {
        let message = &self.messages[at];
        let decided = self.decided[message.of][message.channel];
        let opened = async {
            let scope = self.nodes[node].tenant(TENANTS[message.of]).await?.scope(channel(message.channel))?;
            scope.open(&[("message", "M1")], &message.envelope).await
        };
        let Ok(text) = opened.await else { return };
        assert_eq!(&*text, b"x");
        assert!(!message.erased, "opened what was erased");
        assert!(decided.unknown || !(decided.revoked || decided.suspended), "opened what was closed");
        self.outcome.opened += 1;
    }

    async fn decide(&mut self, step: &Step) {
        let Ok(admin) = self.nodes[0].admin("alice", "a siege") else { return };
        let walk = WalkOptions::default();
        let (of, n, done) = match step {
            Step::Revoke { of, channel } => {
                (*of, *channel, admin.revoke(TENANTS[*of], selector(*channel)).await.is_ok())
            }
            Step::Restore { of, channel } if self.decided[*of][*channel].revoked => {
                (*of, *channel, admin.restore(TENANTS[*of], selector(*channel)).await.is_ok())
            }
            Step::Suspend { of, channel } => {
                let until = 1_795_324_649_500 + 86_400_000;
                (*of, *channel, admin.suspend_opens(TENANTS[*of], selector(*channel), until).await.is_ok())
            }
            Step::GiveUp { of, channel } => {
                let given_up = admin.rotate_after_compromise(TENANTS[*of], selector(*channel), &walk).await;
                if given_up.is_ok() {
                    let theirs = self.messages.iter().filter(|m| m.of == *of && m.channel == *channel);
                    self.given_up.extend(theirs.map(|m| id_of(&m.envelope)));
                }
                return;
            }
            Step::Erase { of, channel } => {
                let erased = async {
                    let erasure = admin.erase(TENANTS[*of], selector(*channel), Duration::ZERO).await?;
                    admin.carry_out_erasure(TENANTS[*of], &erasure.id, &walk).await
                };
                match erased.await {
                    Ok(_) => {
                        for message in self.messages.iter_mut().filter(|m| m.of == *of && m.channel == *channel) {
                            message.erased = true;
                        }
                    }
                    Err(_) => self.decided[*of][*channel].unknown = true,
                }
                return;
            }
            Step::Evict => {
                let thief = TakenOverNode::of(&self.nodes[1]);
                if admin.evict().await.is_ok() {
                    self.thief = Some(thief);
                }
                return;
            }
            _ => return,
        };
        let decided = &mut self.decided[of][n];
        match step {
            _ if !done => decided.unknown = true,
            Step::Revoke { .. } => decided.revoked = true,
            Step::Restore { .. } => decided.revoked = false,
            _ => decided.suspended = true,
        }
    }

    async fn attack(&mut self, attack: &Attack) {
        let rows = self.store.raw_rows();
        if rows.is_empty() {
            return;
        }
        match attack {
            Attack::Remember => {
                self.pool.extend(rows);
                self.snapshots.push(self.store.snapshot());
            }
            Attack::PutBack(n) => {
                let snapshot = &self.snapshots[n % self.snapshots.len()];
                self.store.restore(snapshot);
            }
            Attack::Delete(n) => self.store.raw_put(&rows[n % rows.len()].0, None, None),
            Attack::Replace { row, by } => {
                let (key, _, index) = &rows[row % rows.len()];
                self.store.raw_put(key, Some(self.pool[by % self.pool.len()].1.clone()), index.clone());
            }
            Attack::Move { row, to, state } => {
                let (key, bytes, index) = &rows[row % rows.len()];
                let places: Vec<_> = rows.iter().filter_map(|row| row.2.clone()).collect();
                if index.is_some() && !places.is_empty() {
                    let states = [KeyState::Active, KeyState::Deactivated, KeyState::Suspended, KeyState::Destroyed];
                    let index = KeyIndex { state: states[*state], ..places[to % places.len()].clone() };
                    self.store.raw_put(key, Some(bytes.clone()), Some(index));
                }
            }
            Attack::Plant { like, key, tagged, later } => self.plant(&rows, *like, *key, *tagged, *later).await,
            Attack::Bend { row, bit } => {
                let (key, mut bytes, index) = rows[row % rows.len()].clone();
                let bit = bit % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                self.store.raw_put(&key, Some(bytes), index);
            }
            Attack::DropLog => self.store.raw_log_set(Vec::new()),
            Attack::ForgeLog => {
                use strongroom::KeyStore as _;
                self.store.put(&[], Some(&|_| b"forged".to_vec())).await.unwrap();
            }
        }
    }

    async fn plant(&mut self, rows: &[Row], like: usize, key: u8, tagged: bool, later: u64) {
        let records: Vec<_> = rows.iter().filter(|row| row.2.is_some()).collect();
        let Some(row) = records.get(like % records.len().max(1)) else { return };
        let Ok(record) = row_body(&row.0, &row.1).map(|body| serde_json::from_slice::<KeyRecord>(&body)) else {
            return;
        };
        let Ok(record) = record else { return };
        let data_key = DataKey::take(&mut [&[key][..], b"hirty-two bytes of the attacker"].concat()).unwrap();
        // Under a KEK of his own, or under the tenant's: anybody may ask a KMS that answers him.
        let kek: KekUri = if key.is_multiple_of(2) {
            "local:mallory".parse().unwrap()
        } else {
            format!("local:{}", record.tenant).parse().unwrap()
        };
        let wrapped = self.kms.wrap(&kek, &context_of(&record).unwrap(), &data_key).await.unwrap();
        let id = key_id_of(&data_key, record.suite).unwrap();
        let mut planted = KeyRecord { key_id: id, wrapped: Some(WrappedKey::One(Wrapping { kek, wrapped })), ..record };
        planted.made_epoch += later;
        planted.wrapped_epoch += later;
        planted.pending = None;
        let index = KeyIndex { scope: planted.scope.clone(), period: planted.period.clone(), state: KeyState::Active };
        let bytes = match &self.thief {
            Some(thief) if tagged => thief.tag(&planted).unwrap(),
            _ => with_body(&row.0, &row.1, &serde_json::to_vec(&planted).unwrap()).unwrap(),
        };
        self.known.insert(id);
        self.outcome.planted += 1;
        // In the place of the one that is there.
        self.store.raw_put(&row.0, None, None);
        self.store.raw_put(&RowKey::Key(planted.tenant.clone(), id), Some(bytes), Some(index));
    }
}

pub(crate) async fn run(steps: &[Step]) -> Outcome {
    let mut siege = Siege::new().await;
    for step in steps {
        match step {
            Step::Seal { node, of, channel } => siege.seal((*node).into(), *of, *channel).await,
            Step::Open { node, message } => {
                if !siege.messages.is_empty() {
                    let at = message % siege.messages.len();
                    siege.open((*node).into(), at).await;
                }
            }
            Step::Restart { node } => {
                if let Ok(fresh) = siege.restart().await {
                    siege.nodes[usize::from(*node)] = fresh;
                }
            }
            Step::Pass => siege.clock.advance(BOUND),
            Step::Attack(attack) => siege.attack(attack).await,
            decision => {
                siege.decide(decision).await;
                siege.clock.advance(BOUND); // elsewhere it holds within the bound
            }
        }
    }
    for at in 0..siege.messages.len() {
        for node in 0..2 {
            siege.open(node, at).await;
        }
    }
    siege.outcome
}
