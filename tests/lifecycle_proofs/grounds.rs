//! The grounds that processes share: a key store, a KEK file, a table of messages; and how a process is started on them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use strongroom::testing::Operator;
use strongroom::{
    Clock, KekExpression, KekUri, KeyRecord, KeyStore, LocalKms, Period, Region, ScopeHandle, Strongroom,
    StrongroomBuilder, SystemClock, TenantPolicy,
};

use crate::stores;
use crate::table::Messages;

pub(crate) const TENANT: &str = "acme";
pub(crate) const EU: &str = "eu-central-1";
pub(crate) const US: &str = "us-east-1";

const FOLDER: &str = "STRONGROOM_TEST_FOLDER";
const URL: &str = "STRONGROOM_TEST_URL";
const JOB: &str = "STRONGROOM_TEST_JOB";

/// Where a store, KEKs and messages are. Every process that is given it means the same ones.
#[derive(Clone)]
pub(crate) struct Grounds {
    folder: PathBuf,
    url: String,
}

/// The machine's clock, with the date set this much forward, and so many seconds passed on the clock that never goes back: nobody
/// waits for a day.
#[derive(Clone, Copy)]
pub(crate) struct Ahead(pub Duration, pub &'static AtomicU64);

impl Clock for Ahead {
    fn unix_millis(&self) -> i64 {
        SystemClock.unix_millis() + i64::try_from(self.0.as_millis()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic() + Duration::from_secs(self.1.load(Ordering::SeqCst))
    }
}

pub(crate) fn region(name: &str) -> Region {
    Region::new(name).unwrap()
}

pub(crate) fn kek(name: &str) -> KekUri {
    KekUri::new(&format!("local:{name}")).unwrap()
}

/// How tenants wrap their keys while they are in `region`; four ways each.
pub(crate) fn keks(region: &str, way: u32) -> KekExpression {
    let [a, b] = ["a", "b"].map(|name| kek(&format!("{name}-{region}")));
    match way % 4 {
        0 => a.into(),
        1 => b.into(),
        2 => KekExpression::any_of([a, b]),
        _ => KekExpression::all_of([b, a]),
    }
}

impl Grounds {
    /// Empty grounds in `folder`, with two KEKs in each of two regions, and an escrow's.
    pub(crate) fn lay(folder: &Path) -> Self {
        let kms = LocalKms::create(folder.join("keks.json")).unwrap();
        for at in [EU, US] {
            for name in ["a", "b"] {
                kms.create_kek(&format!("{name}-{at}"), region(at)).unwrap();
            }
        }
        kms.create_kek("escrow", region(EU)).unwrap();
        Self { folder: folder.to_owned(), url: stores::fresh(folder) }
    }

    /// [`Self::lay`], with the tenant enrolled: in the EU, scoped by channel.
    pub(crate) async fn enrolled(folder: &Path, period: Period) -> Self {
        let grounds = Self::lay(folder);
        let policy =
            TenantPolicy::new(keks(EU, 0), region(EU)).scope_by(["channel"]).allow_unbound_messages().period(period);
        grounds.room().await.admin("a test", "to test").unwrap().enroll(TENANT, policy).await.unwrap();
        grounds
    }

    /// What the parent gave this process: the grounds and its job. `None` if nobody did.
    pub(crate) fn given() -> Option<(Self, String)> {
        let folder = PathBuf::from(std::env::var_os(FOLDER)?);
        Some((Self { folder, url: std::env::var(URL).unwrap() }, std::env::var(JOB).unwrap()))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) async fn store(&self) -> Arc<dyn KeyStore> {
        stores::open(&self.url).await
    }

    pub(crate) fn kms(&self) -> LocalKms {
        LocalKms::open(self.path("keks.json")).unwrap()
    }

    pub(crate) async fn messages(&self) -> Messages {
        Messages::open(&self.path("messages.db")).await
    }

    /// The root and the watermark that all processes on these grounds share.
    pub(crate) fn operator(&self) -> Operator {
        Operator::in_folder(&self.path(""))
    }

    /// A room as a fresh process has it.
    pub(crate) async fn room(&self) -> Strongroom {
        serving_both().key_store(self.store().await).kms(self.kms()).open_under(&self.operator()).await
    }

    /// Starts the test of this binary that has this name as a process on these grounds. Its `job` is in its environment.
    pub(crate) fn start(&self, test: &str, job: &str) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(FOLDER, &self.folder)
            .env(URL, &self.url)
            .env(JOB, job)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

pub(crate) fn serving_both() -> StrongroomBuilder {
    Strongroom::builder().serving([EU, US])
}

/// Waits until the process prints a line that ends with `what`; what it prints afterwards can be read on.
pub(crate) fn wait_for(process: &mut Child, what: &str) -> BufReader<ChildStdout> {
    let mut out = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    while !line.trim_end().ends_with(what) {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "the process ended before it printed {what:?}");
    }
    out
}

pub(crate) async fn channel(room: &Strongroom, channel: &str) -> ScopeHandle {
    room.tenant(TENANT).await.unwrap().scope([("channel", channel)]).unwrap()
}

pub(crate) fn channel_of(record: &KeyRecord) -> &str {
    record.scope.get("channel").unwrap()
}

/// All of the tenant's key records.
pub(crate) async fn records(room: &Strongroom) -> Vec<KeyRecord> {
    let mut all: Vec<KeyRecord> = Vec::new();
    loop {
        let page =
            room.admin("a test", "to test").unwrap().keys(TENANT, all.last().map(|r| &r.key_id), 500).await.unwrap();
        assert!(page.unreadable.is_empty(), "{:?}", page.unreadable);
        if page.last.is_none() {
            return all;
        }
        all.extend(page.keys);
    }
}

/// A number from the environment, or what the short form takes.
pub(crate) fn asked(name: &str, otherwise: u32) -> u32 {
    std::env::var(name).map_or(otherwise, |n| n.parse().unwrap_or_else(|_| panic!("{name}={n} is no number")))
}
