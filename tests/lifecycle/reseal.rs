use std::collections::BTreeMap;
use std::sync::Mutex;

use strongroom::{
    Admin, Census, CompleteCensus, Cutoff, EnvelopeRow, EnvelopeTable, Error, ErrorKind, Period, Resealed, Selector,
    Strongroom, Suite,
};

use crate::{Fleet, HOUR, channel, gently, key_id, kind};

/// The embedder's table of messages.
#[derive(Default)]
pub(crate) struct Table(Mutex<BTreeMap<String, EnvelopeRow>>);

impl Table {
    pub(crate) async fn seal(&self, node: &Strongroom, channel: &str, n: usize) {
        let id = format!("M{n:03}");
        let text = id.clone().into_bytes();
        let envelope = crate::channel(node, channel).await.seal(&[("message", &id)], &text).await.unwrap();
        let row = EnvelopeRow {
            id: id.clone(),
            scope: vec![("channel".into(), channel.into())],
            context: vec![("message".into(), id.clone())],
            envelope,
        };
        self.0.lock().unwrap().insert(id, row);
    }

    pub(crate) fn rows(&self) -> Vec<EnvelopeRow> {
        self.0.lock().unwrap().values().cloned().collect()
    }

    pub(crate) async fn all_open(&self, fleet: &Fleet) {
        for node in [&fleet.node, &fleet.other] {
            for row in self.rows() {
                let scope = channel(node, &row.scope[0].1).await;
                let text = scope.open(&[("message", &row.id)], &row.envelope).await.unwrap();
                assert_eq!(&*text, row.id.as_bytes());
            }
        }
    }

    pub(crate) fn census(&self) -> Census {
        self.counted(Census::begin(0))
    }

    pub(crate) fn proof(&self, admin: &Admin, cutoff: &Cutoff) -> CompleteCensus {
        self.counted(admin.census(cutoff).unwrap()).complete().unwrap()
    }

    fn counted(&self, mut census: Census) -> Census {
        self.rows().iter().for_each(|row| census.add(&row.envelope).unwrap());
        census
    }
}

#[async_trait::async_trait]
impl EnvelopeTable for Table {
    async fn page(&self, after: Option<&str>, limit: u32) -> Result<Vec<EnvelopeRow>, Error> {
        let later = |row: &EnvelopeRow| after.is_none_or(|after| row.id.as_str() > after);
        Ok(self.rows().into_iter().filter(later).take(limit as usize).collect())
    }

    async fn replace(&self, row: &EnvelopeRow, envelope: &[u8]) -> Result<bool, Error> {
        let mut rows = self.0.lock().unwrap();
        match rows.get_mut(&row.id) {
            Some(stored) if stored.envelope == row.envelope => {
                stored.envelope = envelope.to_vec();
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

#[tokio::test]
async fn only_what_is_under_an_old_key_is_sealed_anew() {
    let fleet = Fleet::new().await;
    let scope = channel(&fleet.node, "C9").await;
    let context = [("message", "M1")];
    let old = scope.seal(&context, b"hello").await.unwrap();
    assert_eq!(scope.reseal(&context, &old).await.unwrap(), None);
    fleet.node.admin("a test", "to test").unwrap().rotate("acme", &[("channel", "C9")]).await.unwrap();
    let new = scope.reseal(&context, &old).await.unwrap().unwrap();
    assert_ne!(key_id(&new), key_id(&old));
    assert_eq!(&*scope.open(&context, &new).await.unwrap(), b"hello");
    assert_eq!(scope.reseal(&context, &new).await.unwrap(), None);
    assert_eq!(kind(scope.reseal(&[("message", "M2")], &old).await), ErrorKind::Unopenable);
    assert_eq!(kind(scope.reseal(&context, b"plaintext").await), ErrorKind::Malformed);
    // Another suite in the policy is a reason, too.
    let admin = fleet.node.admin("a test", "to test").unwrap();
    crate::set_policy(&admin, |p| p.suite(Suite::ChaCha20Poly1305)).await.unwrap();
    let other = scope.reseal(&context, &new).await.unwrap().unwrap();
    assert_eq!(strongroom::Header::parse(&other).unwrap().suite(), Suite::ChaCha20Poly1305);
}

#[tokio::test]
async fn a_message_stays_in_its_hour() {
    let fleet = Fleet::with(|p| p.period(Period::Hour)).await;
    let scope = channel(&fleet.node, "C9").await;
    let mut old = Vec::new();
    for _ in 0..3 {
        for n in 0..4 {
            old.push((n.to_string(), scope.seal(&[("message", &n.to_string())], b"x").await.unwrap()));
        }
        fleet.clock.advance(HOUR);
    }
    fleet.node.admin("a test", "to test").unwrap().rotate_all("acme", Selector::everything(), &gently()).await.unwrap();
    let unwraps = fleet.kms.unwraps();
    for (message, old) in &old {
        let new = scope.reseal(&[("message", message)], old).await.unwrap().unwrap();
        let (was, is) = (fleet.record(old).await, fleet.record(&new).await);
        assert_eq!(was.period, is.period);
        assert_ne!(was.key_id, is.key_id);
        scope.open(&[("message", message)], &new).await.unwrap();
    }
    // Each of three new keys is proven once; each of three old ones, out of the cache by their time, unwrapped once.
    assert_eq!(fleet.kms.unwraps() - unwraps, 6);
    assert_eq!(fleet.records().await.len(), 6);
}

#[tokio::test]
async fn a_table_is_walked_resumed_and_raced() {
    let fleet = Fleet::new().await;
    let table = Table::default();
    for n in 0..20 {
        table.seal(&fleet.node, &format!("C{}", n % 4), n).await;
    }
    let admin = fleet.node.admin("a test", "to test").unwrap();
    admin.rotate_all("acme", Selector::everything(), &gently()).await.unwrap();
    // Somebody edits M005 and loses M007's bytes while the walk is at it.
    table.0.lock().unwrap().get_mut("M007").unwrap().envelope.truncate(80);
    let part = admin.reseal("acme", &table, Some("M010"), &gently(), |_| {}).await.unwrap();
    assert_eq!((part.seen, part.resealed, part.after.as_deref()), (9, 9, Some("M019")));
    let mut pages = 0;
    let part = admin.reseal("acme", &table, None, &gently(), |_| pages += 1).await.unwrap_err();
    let all = Resealed::of(&part).unwrap().clone();
    assert_eq!((all.seen, all.resealed, all.failed, pages), (20, 10, 1, 7));
    let (id, e) = all.first_failure.unwrap();
    assert_eq!((id.as_str(), e.kind()), ("M007", ErrorKind::Malformed));
    let again = admin.reseal("acme", &table, None, &gently(), |_| {}).await.unwrap_err();
    let again = Resealed::of(&again).unwrap();
    assert_eq!((again.resealed, again.current, again.failed), (0, 19, 1));
    table.0.lock().unwrap().remove("M007");
    table.all_open(&fleet).await;
    // A row that changes between reading and writing is left alone.
    let stale = EnvelopeRow { envelope: vec![1], ..table.rows()[0].clone() };
    assert!(!table.replace(&stale, b"x").await.unwrap());
    let (other, options) = (fleet.other.admin("a test", "to test").unwrap(), gently());
    let (one, two) = tokio::join!(
        admin.reseal("acme", &table, None, &options, |_| {}),
        other.reseal("acme", &table, None, &options, |_| {})
    );
    assert_eq!((one.unwrap().failed, two.unwrap().failed), (0, 0));
}
