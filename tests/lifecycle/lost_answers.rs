//! Every verb of the control plane whose write is committed and whose answer is lost, on both key stores: repeated, it succeeds, and
//! what stands then is what one call whose answer came leaves. Of the others, `create_room` and `enroll_anew` are tried where rooms
//! and enrolments are, and `resume_rewrap` and `resume_eviction` are such repeats themselves.
//!
//! PostgreSQL's answers are lost on the wire: a proxy takes the server's reply to a COMMIT and closes the connection. SQLite has no
//! wire: its call returns an error after the work is done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use strongroom::testing::{Failpoints, ManualClock, Operator};
use strongroom::{
    Admin, CompleteCensus, Error, ErrorKind, ExportTo, KekExpression, KeyId, KeyState, KeyStore, LocalKms, Period,
    PostgresKeyStore, Selector, Strongroom, TenantPolicy, TenantRecord,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::{DAY, EU, NOW, US, WRITERS, gently, region};

/// Which answer is lost next.
#[derive(Default)]
struct Loss {
    /// Of the commits to come, the one with this number; 0 stands for none.
    number: AtomicU32,
    has_lost: AtomicBool,
}

impl Loss {
    fn arm(&self, number: u32) {
        self.has_lost.store(false, Ordering::SeqCst);
        self.number.store(number, Ordering::SeqCst);
    }

    /// Whether an answer was lost since.
    fn disarm(&self) -> bool {
        self.number.store(0, Ordering::SeqCst);
        self.has_lost.load(Ordering::SeqCst)
    }

    /// A commit: whether its answer is to be lost.
    fn takes_this(&self) -> bool {
        let counted = self.number.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        let takes = counted == Ok(1);
        self.has_lost.fetch_or(takes, Ordering::SeqCst);
        takes
    }
}

/// Stands between a client and a server on loopback. Gives its own port.
async fn proxy(server: u16, loss: Arc<Loss>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
            tokio::spawn(hand_on(client, server, Arc::clone(&loss)));
        }
    });
    port
}

/// Hands on what both say, until an answer is to be lost or one of them goes.
async fn hand_on(mut client: TcpStream, mut server: TcpStream, loss: Arc<Loss>) {
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut is_lost = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(read @ 1..) = read else { return };
                // A simple query: its text stands in it as it is.
                if asked[..read].windows(7).any(|bytes| bytes == b"COMMIT\0") {
                    is_lost = loss.takes_this();
                }
                if server.write_all(&asked[..read]).await.is_err() { return }
            }
            read = server.read(&mut answered) => {
                let Ok(read @ 1..) = read else { return };
                if is_lost { return }
                if client.write_all(&answered[..read]).await.is_err() { return }
            }
        }
    }
}

struct World {
    room: Strongroom,
    kms: LocalKms,
    clock: ManualClock,
    loss: Arc<Loss>,
    /// What a verb was given the first time, and is given again: by tenant.
    given: Mutex<BTreeMap<String, Given>>,
}

#[derive(Clone)]
struct Given {
    row: TenantRecord,
    census: Option<Arc<CompleteCensus>>,
    erasure: Option<String>,
    old_keys: Vec<KeyId>,
}

type Call = for<'a> fn(&'a World, &'a str) -> BoxFuture<'a, Result<(), Error>>;

struct Verb {
    name: &'static str,
    /// What happened before.
    before: Call,
    call: Call,
}

/// Most commits of a verb of which each loses its answer once: an eviction writes as many as there are tenants, and each try makes one.
const MOST: u32 = 8;

fn channel_one() -> Selector {
    Selector::fields([("channel", "C1")])
}

impl World {
    async fn on(store: impl KeyStore, loss: Arc<Loss>) -> Self {
        let (kms, clock) = (LocalKms::in_memory(), ManualClock::at(NOW));
        // A key ahead of time would be a commit of nobody's.
        let builder = Strongroom::builder().serving([EU, US]).key_store(store).kms(kms.clone()).keys_ahead(false);
        let room = builder.clock(clock.clone()).open_under(&Operator::default()).await;
        Self { room, kms, clock, loss, given: Mutex::default() }
    }

    fn admin(&self) -> Admin {
        self.room.admin("a test", "to test").unwrap()
    }

    fn policy(tenant: &str) -> TenantPolicy {
        let kek: KekExpression = format!("local:{tenant}").parse().unwrap();
        TenantPolicy::new(kek, region(EU))
            .scope_by(["channel"])
            .allow_unbound_messages()
            .period(Period::Hour)
            .retain_for(DAY)
    }

    fn given(&self, tenant: &str) -> Given {
        self.given.lock().unwrap()[tenant].clone()
    }

    async fn seal(&self, tenant: &str, channel: &str) -> Result<Vec<u8>, Error> {
        self.room.tenant(tenant).await?.scope([("channel", channel)])?.seal(&[], b"x").await
    }

    /// Remembers the row as it is, and a census by which nothing is under any key.
    async fn give(&self, tenant: &str) -> Result<(), Error> {
        let row = self.admin().tenant(tenant).await?;
        let erasure = row.erasures.first().map(|erasure| erasure.id.clone());
        let keys = self.admin().keys(tenant, None, 1000).await?.keys;
        let old_keys = keys.iter().filter(|key| key.state != KeyState::Active).map(|key| key.key_id).collect();
        self.given.lock().unwrap().insert(tenant.to_owned(), Given { row, census: None, erasure, old_keys });
        Ok(())
    }

    async fn count(&self, tenant: &str) -> Result<(), Error> {
        let cutoff = self.admin().cutoff(tenant).await?;
        self.clock.advance(WRITERS);
        let census = self.admin().census(&cutoff)?.complete_without_envelopes()?;
        self.given.lock().unwrap().get_mut(tenant).unwrap().census = Some(Arc::new(census));
        Ok(())
    }

    /// What stands, of all that a verb can change, without what differs from call to call.
    async fn picture(&self, tenant: &str) -> String {
        let row = self.admin().tenant(tenant).await.unwrap();
        let page = self.admin().keys(tenant, None, 1000).await.unwrap();
        assert!(page.unreadable.is_empty());
        let keys: BTreeSet<String> = page
            .keys
            .iter()
            .map(|key| {
                let keks = key.wrapped.as_ref().map(|wrapped| wrapped.expression().to_string());
                format!("{} {} {:?} {keks:?} {}", key.scope, key.region, key.state, key.pending.is_some())
            })
            .collect();
        let journal = self.admin().journal(tenant).await.unwrap();
        let verbs: BTreeSet<&str> = journal.iter().map(|entry| entry.decision.verb.as_str()).collect();
        let selectors = |of: Vec<&Selector>| of.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let revoked: Vec<_> = row.revocations.iter().map(|it| &it.selector).collect();
        let suspended: Vec<_> = row.suspensions.iter().map(|it| &it.selector).collect();
        let waiting: Vec<_> = row.erasures.iter().map(|it| it.selector.to_string()).collect();
        let (erased, compromised) = (row.erased.len(), row.compromised.len());
        let exports: Vec<_> = row.exports.iter().map(|it| it.kek.to_string()).collect();
        let picture = format!(
            "revoked {:?}\nsuspended {:?}\nwaiting {waiting:?}\nrewrap {}\nKEKs {:?}\nfloors {erased} {compromised}\n\
             exports {exports:?}\npolicy {:?}\nverbs {verbs:?}\nkeys {keys:#?}",
            selectors(revoked),
            selectors(suspended),
            row.rewrap.is_some(),
            row.keks.iter().map(|it| it.keks.to_string()).collect::<Vec<_>>(),
            row.policy,
        );
        // The clock goes on from one tenant to the next.
        let (first, hours) = picture.split_once("hour=").map_or((&*picture, None), |(first, rest)| (first, Some(rest)));
        let rest = hours.unwrap_or_default().split("hour=").map(|hour| hour.get(14..).unwrap_or_default());
        [first].into_iter().chain(rest).collect::<Vec<_>>().join("HOUR").replace(tenant, "TENANT")
    }

    /// A tenant of its own for each answer that a verb can lose, and one that loses none.
    async fn try_out(&self, verb: &Verb) -> u32 {
        let name = |number: u32| format!("{}-{number}-", verb.name);
        for number in 0..=MOST {
            let tenant = name(number);
            for kek in [tenant.clone(), format!("{tenant}2")] {
                self.kms.create_kek(&kek, region(EU)).unwrap();
            }
            self.kms.create_kek(&format!("{tenant}us"), region(US)).unwrap();
            (verb.before)(self, &tenant).await.unwrap_or_else(|e| panic!("before {tenant}: {e}"));
            self.loss.arm(number);
            let first = (verb.call)(self, &tenant).await;
            let lost = self.loss.disarm();
            let what = format!("{}, with the answer to commit {number} lost", verb.name);
            if !lost {
                first.unwrap_or_else(|e| panic!("{what}: {e}"));
            } else if let Err(e) = first {
                assert!(e.kind() == ErrorKind::Unavailable && e.is_retryable(), "{what}: {e}");
                (verb.call)(self, &tenant).await.unwrap_or_else(|e| panic!("{what}, repeated: {e}"));
            }
            assert_eq!(self.picture(&tenant).await, self.picture(&name(0)).await, "{what}");
            if number > 0 && !lost {
                return number - 1;
            }
        }
        MOST
    }
}

fn nothing<'a>(_: &'a World, _: &'a str) -> BoxFuture<'a, Result<(), Error>> {
    Box::pin(async { Ok(()) })
}

/// Enrolled, with a message in each of two channels.
fn enrolled<'a>(world: &'a World, tenant: &'a str) -> BoxFuture<'a, Result<(), Error>> {
    Box::pin(async move {
        world.admin().enroll(tenant, World::policy(tenant)).await?;
        for channel in ["C1", "C2"] {
            world.seal(tenant, channel).await?;
        }
        world.give(tenant).await
    })
}

macro_rules! call {
    (|$world:ident, $tenant:ident| $body:expr) => {{
        fn call<'a>($world: &'a World, $tenant: &'a str) -> BoxFuture<'a, Result<(), Error>> {
            Box::pin(async move {
                let _done = $body;
                Ok(())
            })
        }
        call
    }};
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn verbs() -> Vec<Verb> {
    let verb = |name, before, call| Verb { name, before, call };
    vec![
        verb("enroll", nothing, call!(|w, t| w.admin().enroll(t, World::policy(t)).await?)),
        verb("ensure-enrolled", nothing, call!(|w, t| w.admin().ensure_enrolled(t, World::policy(t), None).await?)),
        verb(
            "set-policy",
            enrolled,
            call!(|w, t| w
                .admin()
                .set_policy(&w.given(t).row, World::policy(t).cache_ttl(Duration::from_secs(9)))
                .await?),
        ),
        verb("revoke", enrolled, call!(|w, t| w.admin().revoke(t, channel_one()).await?)),
        verb(
            "restore",
            call!(|w, t| {
                enrolled(w, t).await?;
                w.admin().revoke(t, channel_one()).await?
            }),
            call!(|w, t| w.admin().restore(t, channel_one()).await?),
        ),
        verb("suspend", enrolled, call!(|w, t| w.admin().suspend_opens(t, channel_one(), i64::MAX - 1).await?)),
        verb(
            "resume",
            call!(|w, t| {
                enrolled(w, t).await?;
                w.admin().suspend_opens(t, channel_one(), i64::MAX - 1).await?;
            }),
            call!(|w, t| w.admin().resume_opens(t, channel_one()).await?),
        ),
        verb("erase", enrolled, call!(|w, t| w.admin().erase(t, channel_one(), DAY).await?)),
        verb(
            "erase-and-undo",
            enrolled,
            call!(|w, t| {
                let erasure = match w.admin().erase(t, channel_one(), DAY).await {
                    Err(_) => w.admin().erase(t, channel_one(), DAY).await?,
                    erasure => erasure?,
                };
                w.admin().undo_erasure(t, &erasure.id).await?;
            }),
        ),
        verb(
            "undo-erasure",
            erased_at(Duration::from_secs(1)),
            call!(|w, t| { w.admin().undo_erasure(t, &w.given(t).erasure.unwrap()).await? }),
        ),
        verb(
            "carry-out",
            erased_at(Duration::ZERO),
            call!(|w, t| { w.admin().carry_out_erasure(t, &w.given(t).erasure.unwrap(), &gently()).await? }),
        ),
        verb("rotate", enrolled, call!(|w, t| w.admin().rotate(t, &[("channel", "C1")]).await?)),
        verb(
            "rotate-all",
            enrolled,
            call!(|w, t| { w.admin().rotate_all(t, Selector::everything(), &gently()).await? }),
        ),
        verb(
            "compromise",
            enrolled,
            call!(|w, t| { w.admin().rotate_after_compromise(t, channel_one(), &gently()).await? }),
        ),
        verb(
            "rewrap",
            enrolled,
            call!(|w, t| {
                let to: KekExpression = format!("local:{t}2").parse()?;
                w.admin().rewrap(t, to, &gently()).await?
            }),
        ),
        verb(
            "migrate",
            enrolled,
            call!(|w, t| {
                let to: KekExpression = format!("local:{t}us").parse()?;
                w.admin().migrate_region(t, region(US), to, &gently()).await?
            }),
        ),
        verb(
            "finish-migration",
            call!(|w, t| {
                enrolled(w, t).await?;
                let to: KekExpression = format!("local:{t}us").parse()?;
                w.admin().migrate_region(t, region(US), to, &gently()).await?;
                w.count(t).await?;
            }),
            call!(|w, t| w.admin().finish_migration(t, &region(EU), w.given(t).census.as_ref().unwrap()).await?),
        ),
        verb(
            "retention",
            call!(|w, t| {
                enrolled(w, t).await?;
                w.clock.advance(2 * DAY);
            }),
            call!(|w, t| w.admin().apply_retention(t, DAY, &gently()).await?),
        ),
        verb(
            "retire",
            call!(|w, t| {
                enrolled(w, t).await?;
                w.admin().rotate(t, &[("channel", "C1")]).await?;
                w.give(t).await?;
                w.count(t).await?;
            }),
            call!(|w, t| {
                w.admin().retire(t, &w.given(t).old_keys, w.given(t).census.as_ref().unwrap(), DAY).await?
            }),
        ),
        verb(
            "force-retire",
            call!(|w, t| {
                enrolled(w, t).await?;
                w.admin().rotate(t, &[("channel", "C1")]).await?;
                w.give(t).await?;
            }),
            call!(|w, t| w.admin().force_retire_losing_data(t, &w.given(t).old_keys, DAY).await?),
        ),
        verb(
            "export",
            enrolled,
            call!(|w, t| {
                let to = ExportTo::Policy(format!("local:{t}").parse()?);
                w.admin().export(t, to, &gently(), |_| Ok(())).await?
            }),
        ),
        verb(
            "remove-destroyed",
            call!(|w, t| {
                erased_at(Duration::ZERO)(w, t).await?;
                w.admin().carry_out_erasure(t, &w.given(t).erasure.unwrap(), &gently()).await?;
                w.clock.advance(3 * DAY);
            }),
            call!(|w, t| w.admin().remove_destroyed(t, 2 * DAY, &gently()).await?),
        ),
        verb("suspend-all", enrolled, call!(|w, _t| w.admin().suspend_all_opens(i64::MAX - 1).await?)),
        verb("resume-all", enrolled, call!(|w, _t| w.admin().resume_all_opens().await?)),
        verb("evict", enrolled, call!(|w, _t| w.admin().evict().await?)),
    ]
}

/// A channel that waits to be erased, for so long.
fn erased_at(wait: Duration) -> Call {
    if wait.is_zero() {
        call!(|w, t| {
            enrolled(w, t).await?;
            w.admin().erase(t, channel_one(), Duration::ZERO).await?;
            w.give(t).await?;
        })
    } else {
        call!(|w, t| {
            enrolled(w, t).await?;
            w.admin().erase(t, channel_one(), DAY).await?;
            w.give(t).await?;
        })
    }
}

async fn every_verb_may_be_repeated(world: World) {
    for verb in verbs() {
        let lost = world.try_out(&verb).await;
        assert!(lost > 0, "{}: no answer was lost", verb.name);
    }
}

#[tokio::test]
async fn every_verb_whose_answer_was_lost_may_be_repeated_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let loss = Arc::new(Loss::default());
    let losing = Arc::clone(&loss);
    let path: &Path = &folder.path().join("keys.db");
    let store = Failpoints::new(strongroom::testing::sqlite(path).await, move |point| {
        if point.strip_suffix("after").is_some_and(|point| point.starts_with("store.put.")) && losing.takes_this() {
            return Err(Error::new(ErrorKind::Unavailable, "the answer is lost"));
        }
        Ok(())
    });
    every_verb_may_be_repeated(World::on(store, loss).await).await;
}

#[tokio::test]
async fn every_verb_whose_answer_was_lost_may_be_repeated_in_postgresql() {
    let database = crate::cluster::Database::new().await;
    let loss = Arc::new(Loss::default());
    let server = database.cluster.port();
    let port = proxy(server, Arc::clone(&loss)).await;
    let url = database.url.replace(&format!(":{server}/"), &format!(":{port}/"));
    assert_ne!(url, database.url);
    let store = PostgresKeyStore::connect(&url).await.unwrap();
    every_verb_may_be_repeated(World::on(store, loss).await).await;
}
