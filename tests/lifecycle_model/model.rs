//! The model: what the documentation says of the life cycle, in as little code as will do. No caches, no nodes, no store.

use strongroom::ErrorKind;

/// KEKs 0 to 2 are in the EU, 3 in the US.
pub(crate) const KEKS: usize = 4;
pub(crate) const EXPRESSIONS: usize = 7;
const HOUR: i64 = 3_600_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Eu,
    Us,
}

/// How the policy cuts time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    None,
    Hour,
    Day,
}

/// A period: its kind and which one since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Kind, pub(crate) i64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Active,
    Deactivated,
    Destroyed,
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) channel: u8,
    pub(crate) span: Span,
    pub(crate) place: Place,
    suite: bool,
    pub(crate) state: State,
    pub(crate) keks: usize,
    epoch: u64,
}

/// What a decision covers; both hours included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Everything,
    Channel(u8),
    Hours(i64, i64),
    HourOfChannel(u8, i64),
}

impl Rule {
    fn covers(&self, channel: u8, span: Span) -> bool {
        match *self {
            Self::Everything => true,
            Self::Channel(c) => c == channel,
            Self::Hours(from, to) => span.0 == Kind::Hour && (from..=to).contains(&span.1),
            Self::HourOfChannel(c, hour) => c == channel && span == Span(Kind::Hour, hour),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) keks: usize,
    pub(crate) home: Place,
    pub(crate) allowed: [bool; 2],
    pub(crate) kind: Kind,
    pub(crate) suite: bool,
}

impl Policy {
    fn allows(&self, place: Place) -> bool {
        self.home == place || self.allowed[place as usize]
    }

    fn moved(mut self, to: Place, keks: usize) -> Self {
        if self.home != to {
            self.allowed[self.home as usize] = true;
        }
        self.allowed[to as usize] = false;
        self.home = to;
        self.keks = keks;
        self
    }
}

/// The KEKs of an expression, from left to right.
fn members(expression: usize) -> &'static [usize] {
    [&[0_usize][..], &[1], &[0, 1], &[0, 1], &[0, 1, 2], &[3], &[0, 3]][expression]
}

pub(crate) struct Model {
    pub(crate) now: i64,
    pub(crate) epoch: u64,
    pub(crate) policy: Policy,
    pub(crate) enabled: [bool; KEKS],
    pub(crate) keys: Vec<Key>,
    pub(crate) revoked: Vec<Rule>,
    /// What was revoked, and lifted again.
    pub(crate) lifted: Vec<Rule>,
    /// What waits, from when on it can be carried out, and how many minutes that is after it was asked for.
    pub(crate) erasures: Vec<(Rule, i64, i64)>,
    /// To which KEKs, since which epoch.
    pub(crate) rewrap: Option<(usize, u64)>,
    /// Whether every record is wrapped for the policy's KEKs, but for a rewrap under way.
    pub(crate) settled: bool,
    /// Whether a migration was finished from each place.
    pub(crate) finished: [bool; 2],
}

type Predicted<T> = Result<T, ErrorKind>;

impl Model {
    pub(crate) fn hour(&self) -> i64 {
        self.now / HOUR
    }

    fn span(&self) -> Span {
        match self.policy.kind {
            Kind::None => Span(Kind::None, 0),
            Kind::Hour => Span(Kind::Hour, self.hour()),
            Kind::Day => Span(Kind::Day, self.hour() / 24),
        }
    }

    /// Whether a data key wrapped like this can be unwrapped.
    fn unwraps(&self, expression: usize) -> bool {
        let [a, b, c, d] = self.enabled;
        [a, b, a || b, a && b, a || (b && c), d, a || d][expression]
    }

    fn wraps(&self, expression: usize) -> bool {
        members(expression).iter().all(|kek| self.enabled[*kek])
    }

    fn check_policy(&self, policy: &Policy) -> Predicted<()> {
        for kek in members(policy.keks) {
            if !policy.allows(if *kek == 3 { Place::Us } else { Place::Eu }) {
                return Err(ErrorKind::Region);
            }
            if !self.enabled[*kek] {
                return Err(ErrorKind::Denied);
            }
        }
        Ok(())
    }

    fn check_not_revoked(&self, channel: u8, span: Span) -> Predicted<()> {
        let mut rules = self.revoked.iter().chain(self.erasures.iter().map(|(rule, ..)| rule));
        if rules.any(|rule| rule.covers(channel, span)) { Err(ErrorKind::Revoked) } else { Ok(()) }
    }

    fn active(&self, channel: u8, span: Span) -> Option<usize> {
        let mut there = self.keys.iter().enumerate().filter(|(_, k)| k.channel == channel && k.span == span);
        there.find(|(_, k)| k.state == State::Active).map(|(at, _)| at)
    }

    fn is_as_the_policy_says(&self, key: usize) -> bool {
        let key = &self.keys[key];
        key.place == self.policy.home && key.suite == self.policy.suite
    }

    /// A new Active key, the last one.
    fn make(&mut self, channel: u8, span: Span) -> Predicted<usize> {
        if !self.wraps(self.policy.keks) {
            return Err(ErrorKind::Denied);
        }
        if let Some(old) = self.active(channel, span) {
            self.keys[old].state = State::Deactivated;
        }
        let Policy { keks, home: place, suite, .. } = self.policy;
        self.keys.push(Key { channel, span, place, suite, state: State::Active, keks, epoch: self.epoch });
        Ok(self.keys.len() - 1)
    }

    fn seal_in(&mut self, channel: u8, span: Span) -> Predicted<usize> {
        self.check_not_revoked(channel, span)?;
        match self.active(channel, span) {
            Some(key) if self.is_as_the_policy_says(key) => {
                if self.unwraps(self.keys[key].keks) {
                    Ok(key)
                } else {
                    Err(ErrorKind::Denied)
                }
            }
            _ => self.make(channel, span),
        }
    }

    /// The key that seals.
    pub(crate) fn seal(&mut self, channel: u8) -> Predicted<usize> {
        self.seal_in(channel, self.span())
    }

    pub(crate) fn open(&self, key: usize) -> Predicted<()> {
        let key = &self.keys[key];
        if !self.policy.allows(key.place) {
            return Err(ErrorKind::Region);
        }
        self.check_not_revoked(key.channel, key.span)?;
        match key.state {
            State::Destroyed => Err(ErrorKind::Erased),
            _ if self.unwraps(key.keks) => Ok(()),
            _ => Err(ErrorKind::Denied),
        }
    }

    /// The key under which a message of `key` is sealed anew; `None` if it need not be.
    pub(crate) fn reseal(&mut self, key: usize) -> Predicted<Option<usize>> {
        let Key { state, channel, span, .. } = self.keys[key];
        let is_revoked = self.check_not_revoked(channel, span).is_err();
        if state == State::Active && self.is_as_the_policy_says(key) && !is_revoked {
            return Ok(None);
        }
        self.open(key)?;
        let now = self.span();
        let stays = span.0 == now.0;
        self.seal_in(channel, if stays { span } else { now }).map(Some)
    }

    pub(crate) fn rotate(&mut self, channel: u8) -> Predicted<usize> {
        self.check_not_revoked(channel, self.span())?;
        self.make(channel, self.span())
    }

    /// A rule about hours means something where the policy has hours, or some key has one.
    fn check_rule(&self, rule: &Rule) -> Predicted<()> {
        let has_hours = self.policy.kind == Kind::Hour || self.keys.iter().any(|key| key.span.0 == Kind::Hour);
        match rule {
            Rule::Hours(..) | Rule::HourOfChannel(..) if !has_hours => Err(ErrorKind::InvalidArgument),
            _ => Ok(()),
        }
    }

    pub(crate) fn rotate_all(&mut self, rule: &Rule) -> Predicted<u64> {
        self.check_rule(rule)?;
        self.epoch += 1;
        let due = |k: &&mut Key| k.state == State::Active && rule.covers(k.channel, k.span);
        Ok(self.keys.iter_mut().filter(due).map(|key| key.state = State::Deactivated).count() as u64)
    }

    /// How many keys it covers.
    pub(crate) fn revoke(&mut self, rule: Rule) -> Predicted<u64> {
        self.check_rule(&rule)?;
        let covered = self.keys.iter().filter(|key| rule.covers(key.channel, key.span)).count() as u64;
        if !self.revoked.contains(&rule) {
            self.revoked.push(rule);
            self.epoch += 1;
        }
        Ok(covered)
    }

    pub(crate) fn restore(&mut self, rule: &Rule) -> Predicted<()> {
        let Some(at) = self.revoked.iter().position(|r| r == rule) else {
            return if self.lifted.contains(rule) { Ok(()) } else { Err(ErrorKind::InvalidArgument) };
        };
        self.lifted.push(self.revoked.remove(at));
        self.epoch += 1;
        Ok(())
    }

    /// Whether it is a new one, and not one that waits already.
    pub(crate) fn erase(&mut self, rule: Rule, minutes: i64) -> Predicted<bool> {
        self.check_rule(&rule)?;
        if self.erasures.iter().any(|(waits, _, for_minutes)| *waits == rule && *for_minutes == minutes) {
            return Ok(false);
        }
        self.erasures.push((rule, self.now + minutes * 60_000, minutes));
        self.epoch += 1;
        Ok(true)
    }

    pub(crate) fn undo(&mut self, erasure: usize) {
        self.erasures.remove(erasure);
        self.epoch += 1;
    }

    /// How many keys it destroys.
    pub(crate) fn carry_out(&mut self, erasure: usize) -> Predicted<u64> {
        if self.erasures[erasure].1 > self.now {
            return Err(ErrorKind::Conflict);
        }
        let (rule, ..) = self.erasures.remove(erasure);
        self.epoch += 2; // it begins, and it ends
        let due = |k: &&mut Key| k.state != State::Destroyed && rule.covers(k.channel, k.span);
        Ok(self.keys.iter_mut().filter(due).map(|key| key.state = State::Destroyed).count() as u64)
    }

    /// How many keys are done, and how many could not be.
    pub(crate) fn rewrap(&mut self, to: usize) -> Predicted<(u64, u64)> {
        let policy = Policy { keks: to, ..self.policy };
        self.check_policy(&policy)?;
        self.policy = policy;
        self.epoch += 1;
        self.rewrap = Some((to, self.epoch));
        Ok(self.walk())
    }

    fn walk(&mut self) -> (u64, u64) {
        let (to, since) = self.rewrap.unwrap();
        let (mut done, mut failed) = (0, 0);
        for at in 0..self.keys.len() {
            let key = &self.keys[at];
            if key.state == State::Destroyed || (key.epoch >= since && key.keks == to) {
                continue;
            }
            if self.unwraps(key.keks) && self.wraps(to) {
                self.keys[at].keks = to;
                self.keys[at].epoch = since;
                done += 1;
            } else {
                failed += 1;
            }
        }
        if failed == 0 {
            self.rewrap = None;
            self.settled = true;
            self.epoch += 1;
        }
        (done, failed)
    }

    pub(crate) fn set_policy(&mut self, policy: Policy) -> Predicted<()> {
        self.check_policy(&policy)?;
        if policy == self.policy {
            return Ok(()); // nothing to write
        }
        if self.rewrap.is_some() && policy.keks != self.policy.keks {
            return Err(ErrorKind::Conflict);
        }
        self.settled &= policy.keks == self.policy.keks;
        self.policy = policy;
        self.epoch += 1;
        Ok(())
    }

    pub(crate) fn migrate(&mut self, to: Place, keks: usize) -> Predicted<(u64, u64)> {
        let moved = self.policy.moved(to, keks);
        if self.policy == moved && self.rewrap.is_none() && self.settled {
            return Ok((0, 0));
        }
        if self.policy != moved || self.rewrap.is_none() {
            self.check_policy(&moved)?;
            self.policy = moved;
            self.epoch += 1;
            self.rewrap = Some((keks, self.epoch));
        }
        Ok(self.walk())
    }

    /// `left` says how many envelopes are there still.
    pub(crate) fn finish(&mut self, from: Place, left: usize) -> Predicted<()> {
        if from == self.policy.home {
            return Err(ErrorKind::InvalidArgument);
        }
        if !self.policy.allows(from) {
            let was_there = self.finished[from as usize] || self.keys.iter().any(|key| key.place == from);
            return if was_there { Ok(()) } else { Err(ErrorKind::InvalidArgument) };
        }
        if left > 0 || self.rewrap.is_some() {
            return Err(ErrorKind::Conflict);
        }
        self.policy.allowed[from as usize] = false;
        self.finished[from as usize] = true;
        self.epoch += 1;
        Ok(())
    }
}
