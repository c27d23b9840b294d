//! kill -9 in the middle of `finish_import`: the file is the old one or the new one.
//!
//! The test binary starts itself again as the process that is killed.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use strongroom::{
    DataKey, EncryptionContext, ImportFormat, ImportTicket, KekDescription, KekUri, KeyCheckValue, Kms, LocalKms,
    Result, SystemClock,
};

use super::region;
use super::tenant::{check_value, material, wrap};

const JOB: &str = "STRONGROOM_TEST_JOB";

/// A root KMS, the same in every process, that says when it is asked the last thing before the file is written.
struct Announcing(LocalKms);

fn root() -> (Arc<dyn Kms>, KekUri) {
    let kms = LocalKms::in_memory();
    let kek =
        kms.import_kek("root", region(), &mut std::array::from_fn::<u8, 32, _>(|i| u8::try_from(i).unwrap())).unwrap();
    (Arc::new(Announcing(kms)), kek)
}

#[async_trait::async_trait]
impl Kms for Announcing {
    fn scheme(&self) -> &str {
        self.0.scheme()
    }
    async fn describe(&self, kek: &KekUri) -> Result<KekDescription> {
        self.0.describe(kek).await
    }
    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, key: &DataKey) -> Result<Vec<u8>> {
        self.0.wrap(kek, context, key).await
    }
    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> Result<DataKey> {
        if context.get("purpose") == Some("local-kek") {
            println!("\nwriting");
        }
        self.0.unwrap(kek, context, wrapped).await
    }
}

async fn open(path: &Path) -> LocalKms {
    let (kms, kek) = root();
    LocalKms::open_under(path, kms, kek).await.unwrap()
}

/// Not a test: the process to kill. It finishes one import and waits for its end.
#[test]
#[ignore = "started by the test below"]
fn child() {
    let Ok(job) = std::env::var(JOB) else { return };
    let [folder, token, value] = job.split('\n').collect::<Vec<_>>().try_into().unwrap();
    let folder = Path::new(folder);
    let wrapped = fs::read(folder.join("wrapped.bin")).unwrap();
    let value = KeyCheckValue::from_hex(value).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let kms = open(&folder.join("keks.json")).await;
        kms.finish_import(token, ImportFormat::Hpke, &wrapped, &value, &SystemClock).await.unwrap();
    });
    println!("\nwritten");
    std::io::stdin().lines().for_each(drop);
}

struct Process {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(folder: &Path, ticket: &ImportTicket, value: &KeyCheckValue) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "kill::child", "--nocapture"])
            .env(JOB, format!("{}\n{}\n{value}", folder.display(), ticket.token()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    fn wait_until_it_says(&mut self, what: &str) {
        assert!(self.lines.any(|line| line.unwrap() == what), "the process ended before it was {what}");
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[tokio::test]
async fn kill_9_while_finishing_leaves_the_old_file_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (kms, kek) = root();
    let kms = LocalKms::create_under(at("keks.json"), kms, kek).await.unwrap();
    let ticket = kms.begin_import("acme", region(), &SystemClock).await.unwrap();
    let key = material(32);
    let (wrapped, value) = (wrap(&ticket, ImportFormat::Hpke, &key), check_value(&key));
    fs::write(at("wrapped.bin"), &wrapped).unwrap();
    let begun = fs::read(at("keks.json")).unwrap();

    let mut whole = Process::start(folder.path(), &ticket, &value);
    whole.wait_until_it_says("writing");
    let from = Instant::now();
    whole.wait_until_it_says("written");
    let took = from.elapsed();
    whole.kill();

    let (mut old, mut new) = (0, 0);
    for round in 0..400_u32 {
        fs::write(at("keks.json"), &begun).unwrap();
        let mut process = Process::start(folder.path(), &ticket, &value);
        process.wait_until_it_says("writing");
        // The moment is what is varied: a golden-ratio sequence covers the time of the write evenly.
        std::thread::sleep(Duration::from_secs_f64(took.as_secs_f64() * 1.2 * (f64::from(round) * 0.618_034).fract()));
        process.kill();

        let kms = open(&at("keks.json")).await;
        let under_way = fs::read_to_string(at("keks.json")).unwrap().contains("\"imports\"");
        assert_ne!(kms.describe(ticket.kek()).await.is_ok(), under_way, "half an import after kill {round}");
        if under_way {
            assert!(fs::read(at("keks.json")).unwrap() == begun);
            let finished = kms.finish_import(ticket.token(), ImportFormat::Hpke, &wrapped, &value, &SystemClock);
            finished.await.unwrap();
            old += 1;
        } else {
            new += 1;
        }
        if round >= 30 && old >= 5 && new >= 5 {
            break;
        }
    }
    println!("{} kills within {took:?}: {old} before, {new} after the import", old + new);
    assert!(old >= 5 && new >= 5, "the kills came all too early or all too late: {old} old, {new} new");
}
