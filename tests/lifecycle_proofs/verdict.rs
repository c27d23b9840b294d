//! The verdict on a store after a kill: what opens and what does not, which keys are there, and whether work goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use strongroom::{ErrorKind, Header, KeyId, KeyState, Strongroom, WalkOptions, Walked};

use crate::grounds::{Grounds, TENANT, channel, channel_of, kek, records, region};
use crate::operation::{Journal, LASTING, Operation, Said, Task};
use crate::table::{Message, Messages};

/// What was found broken. Each entry says what and where.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) messages_lost: Vec<String>,
    pub(crate) opened_wrongly: Vec<String>,
    pub(crate) keys_lost: Vec<String>,
    pub(crate) not_one_active: Vec<String>,
    pub(crate) not_recovered: Vec<String>,
}

impl Findings {
    pub(crate) fn add(&mut self, other: Self) {
        self.messages_lost.extend(other.messages_lost);
        self.opened_wrongly.extend(other.opened_wrongly);
        self.keys_lost.extend(other.keys_lost);
        self.not_one_active.extend(other.not_one_active);
        self.not_recovered.extend(other.not_recovered);
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &String> {
        let lost = self.messages_lost.iter().chain(&self.opened_wrongly).chain(&self.keys_lost);
        lost.chain(&self.not_one_active).chain(&self.not_recovered)
    }
}

/// How opening an envelope ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    Opens,
    Fails(ErrorName),
}

/// The kinds of errors that life-cycle decisions make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ErrorName {
    Revoked,
    Erased,
    Region,
    Other,
}

pub(crate) const OPENS: Ending = Ending::Opens;
pub(crate) const REVOKED: Ending = Ending::Fails(ErrorName::Revoked);
pub(crate) const ERASED: Ending = Ending::Fails(ErrorName::Erased);
pub(crate) const ELSEWHERE: Ending = Ending::Fails(ErrorName::Region);

/// Every envelope that was ever acknowledged on some grounds, also those that a reseal replaced since.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) envelopes: BTreeSet<Message>,
    /// Those that no longer open: erased, or left behind in a region that is no longer allowed.
    pub(crate) gone: BTreeMap<Message, Ending>,
}

/// What is legal for a message while, or after, `task` was under way and had said so much.
pub(crate) fn legal(task: Task, said: &Said, message: &Message) -> Vec<Ending> {
    let has = |what: &str| said.contains(what);
    match task.operation {
        Operation::Erase if message.channel == task.own_channel() => match () {
            () if has("erased") => vec![ERASED],
            () if has("carrying out") => vec![REVOKED, ERASED],
            () if has("waits") => vec![REVOKED],
            () => vec![OPENS, REVOKED],
        },
        Operation::Revoke if message.channel == task.own_channel() => match () {
            () if has("restored") => vec![OPENS],
            () if has("restoring") => vec![OPENS, REVOKED],
            () if has("revoked") => vec![REVOKED],
            () => vec![OPENS, REVOKED],
        },
        Operation::Migrate if Header::parse(&message.envelope).unwrap().region() == task.home => match () {
            () if has("finished") => vec![ELSEWHERE],
            () if has("finishing") => vec![OPENS, ELSEWHERE],
            () => vec![OPENS],
        },
        _ => vec![OPENS],
    }
}

async fn ending(room: &Strongroom, message: &Message) -> (Ending, String) {
    let scope = channel(room, &message.channel).await;
    match scope.open(&[("message", &message.id)], &message.envelope).await {
        Ok(text) if *text == *Message::text(&message.id).as_bytes() => (OPENS, String::new()),
        Ok(_) => (Ending::Fails(ErrorName::Other), "another text".to_owned()),
        Err(e) => {
            let name = match e.kind() {
                ErrorKind::Revoked => ErrorName::Revoked,
                ErrorKind::Erased => ErrorName::Erased,
                ErrorKind::Region => ErrorName::Region,
                _ => ErrorName::Other,
            };
            (Ending::Fails(name), e.to_string())
        }
    }
}

/// What a fresh process finds after a kill.
pub(crate) struct Aftermath<'a> {
    pub(crate) grounds: &'a Grounds,
    pub(crate) table: &'a Messages,
    pub(crate) task: Task,
    /// Where it happened, for the findings.
    pub(crate) place: String,
}

impl Aftermath<'_> {
    /// Judges, recovers, and judges again. Says how long the first open took, from the start of a fresh room.
    pub(crate) async fn settle(&self, known: &mut Known, findings: &mut Findings) -> Duration {
        known.envelopes.extend(self.table.all().await.into_iter().filter(|m| !known.gone.contains_key(m)));
        let said = Journal::read(self.grounds, self.task);
        let recovery = self.first_open(known, &said).await;
        let room = self.task.room(self.grounds).await;
        self.judge(&room, known, &said, findings).await;

        self.task.perform(&room, self.table, &mut Journal::of(self.grounds, self.task)).await;
        let said = Journal::read(self.grounds, self.task);
        known.envelopes.extend(self.table.all().await.into_iter().filter(|m| !known.gone.contains_key(m)));
        let room = self.task.room(self.grounds).await;
        self.judge(&room, known, &said, findings).await;
        self.check_recovered(&room, findings).await;
        self.bury(known).await;
        recovery
    }

    async fn first_open(&self, known: &Known, said: &Said) -> Duration {
        let began = Instant::now();
        let room = self.task.room(self.grounds).await;
        let opening = known.envelopes.iter().find(|m| legal(self.task, said, m) == [OPENS]);
        match opening {
            Some(message) => drop(ending(&room, message).await),
            None => drop(room.admin("a test", "to test").unwrap().tenant(TENANT).await.unwrap()),
        }
        began.elapsed()
    }

    async fn judge(&self, room: &Strongroom, known: &Known, said: &Said, findings: &mut Findings) {
        let place = &self.place;
        let mut of_channel: BTreeMap<(&str, &str), BTreeSet<Ending>> = BTreeMap::new();
        for message in &known.envelopes {
            let legal = legal(self.task, said, message);
            let (ending, why) = ending(room, message).await;
            if legal.len() > 1 {
                let at = Header::parse(&message.envelope).unwrap().region();
                of_channel.entry((&message.channel, at)).or_default().insert(ending);
            }
            let what = format!("{place}: {} in {}: {ending:?}, not {legal:?} ({why})", message.id, message.channel);
            match ending {
                _ if legal.contains(&ending) => {}
                OPENS => findings.opened_wrongly.push(what),
                Ending::Fails(_) => findings.messages_lost.push(what),
            }
        }
        for (channel, endings) in of_channel.into_iter().filter(|(_, endings)| endings.len() > 1) {
            findings.messages_lost.push(format!("{place}: {channel:?} is half decided: {endings:?}"));
        }
        let policy = room.admin("a test", "to test").unwrap().tenant(TENANT).await.unwrap().policy;
        for (message, was) in &known.gone {
            let at = region(Header::parse(&message.envelope).unwrap().region());
            // The tenant may have come back to a region that it left.
            let may_open = *was == ELSEWHERE && policy.allows(&at);
            match ending(room, message).await.0 {
                OPENS if !may_open => {
                    findings.opened_wrongly.push(format!("{place}: {} in {} is back", message.id, message.channel));
                }
                Ending::Fails(_) if may_open => {
                    findings.messages_lost.push(format!("{place}: {} in {} is gone", message.id, message.channel));
                }
                _ => {}
            }
        }
        self.judge_keys(room, known, findings).await;
    }

    async fn judge_keys(&self, room: &Strongroom, known: &Known, findings: &mut Findings) {
        let place = &self.place;
        let records = records(room).await;
        let ids: BTreeSet<KeyId> = records.iter().map(|r| r.key_id).collect();
        for message in known.envelopes.iter().chain(known.gone.keys()) {
            let key_id = KeyId::from_bytes(*Header::parse(&message.envelope).unwrap().key_id());
            if !ids.contains(&key_id) {
                findings.keys_lost.push(format!("{place}: {} has no record of key {key_id}", message.id));
            }
        }
        let mut active = BTreeMap::new();
        for record in records.iter().filter(|r| r.state == KeyState::Active) {
            *active.entry((record.scope.to_bytes(), &record.period)).or_insert(0) += 1;
        }
        let several = active.into_iter().filter(|(_, n)| *n != 1);
        findings.not_one_active.extend(several.map(|(at, n)| format!("{place}: {n} Active keys at {at:?}")));

        // Every key, also those of no message yet, unwraps; but for those that a decision covers, which export leaves out.
        let row = room.admin("a test", "to test").unwrap().tenant(TENANT).await.unwrap();
        let rules = row.revocations.iter().map(|r| &r.selector).chain(row.erasures.iter().map(|e| &e.selector));
        let rules: Vec<_> = rules.collect();
        let alive = records.iter().filter(|r| r.state != KeyState::Destroyed);
        let covered = |r: &&strongroom::KeyRecord| {
            rules.iter().any(|rule| rule.covers(&r.scope, r.period.as_ref(), Some(&r.key_id)))
        };
        let (covered, free): (Vec<_>, Vec<_>) = alive.partition(covered);
        let exported = room
            .admin("a test", "to test")
            .unwrap()
            .export(TENANT, strongroom::ExportTo::Foreign(kek("escrow")), &WalkOptions::default(), |_| Ok(()))
            .await
            .or_else(|e| Walked::of(&e).cloned().ok_or(e))
            .unwrap();
        if exported.done != free.len() as u64 || exported.failed != covered.len() as u64 {
            findings.keys_lost.push(format!(
                "{place}: of {} keys {} unwrap ({:?})",
                free.len(),
                exported.done,
                exported.first_failure
            ));
        }
    }

    async fn check_recovered(&self, room: &Strongroom, findings: &mut Findings) {
        let place = &self.place;
        let row = room.admin("a test", "to test").unwrap().tenant(TENANT).await.unwrap();
        let mut wrong = Vec::new();
        if row.rewrap.is_some() || !row.erasures.is_empty() || !row.revocations.is_empty() {
            wrong.push("an order stands on the tenant's row".to_owned());
        }
        let rewrapped = matches!(self.task.operation, Operation::Rewrap | Operation::Migrate);
        for record in records(room).await {
            let otherwise = record.wrapped.as_ref().is_some_and(|w| w.expression() != *row.policy.keks());
            if record.pending.is_some() || (rewrapped && otherwise) {
                wrong.push(format!("key {} is not rewrapped", record.key_id));
            }
            let own = channel_of(&record) == self.task.own_channel();
            if self.task.operation == Operation::Erase && own && record.state != KeyState::Destroyed {
                wrong.push(format!("key {} is not erased", record.key_id));
            }
        }
        let sealed = channel(room, LASTING[0]).await.seal(&[], b"work goes on").await;
        wrong.extend(sealed.err().map(|e| e.to_string()));
        findings.not_recovered.extend(wrong.into_iter().map(|what| format!("{place}: {what}")));
    }

    /// What the operation ended for good is expected to stay ended.
    async fn bury(&self, known: &mut Known) {
        let said = Journal::read(self.grounds, self.task);
        for message in std::mem::take(&mut known.envelopes) {
            match legal(self.task, &said, &message).as_slice() {
                [ended] if *ended != OPENS => drop(known.gone.insert(message, *ended)),
                _ => drop(known.envelopes.insert(message)),
            }
        }
        if self.task.operation == Operation::Erase {
            self.table.delete_channel(&self.task.own_channel()).await;
        }
    }
}
