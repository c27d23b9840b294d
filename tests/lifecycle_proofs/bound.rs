//! The revocation bound: from the return of a revocation to the last open of any process that opens as fast as it can.

use std::io::{BufRead, Write};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, channel as queue};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use strongroom::testing::Failpoints;
use strongroom::{Clock, Error, ErrorKind, Period, Selector, SystemClock};

use crate::grounds::{Grounds, TENANT, asked, channel, serving_both, wait_for};
use crate::table::Message;

const BOUND: Duration = Duration::from_secs(1);
/// `SystemClock` is as of the kernel's last tick.
const TICK: Duration = Duration::from_millis(10);
const PROCESSES: usize = 4;
const DAY: i64 = 24 * 3600 * 1000;

/// One clock for all processes, in nanoseconds.
fn now() -> u64 {
    let t = clock_gettime(ClockId::Boottime);
    u64::try_from(t.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap()
}

/// The machine's clock, whose date jumps when the parent says so.
#[derive(Clone, Default)]
struct Jumping(Arc<AtomicI64>);

impl Clock for Jumping {
    fn unix_millis(&self) -> i64 {
        SystemClock.unix_millis() + self.0.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }
}

/// Not a test: opens the one message over and over, and says when that begins and ceases to work.
#[test]
#[ignore = "started by the test below"]
fn process_that_opens() {
    let Some((grounds, _)) = Grounds::given() else { return };
    let (clock, deaf, over) = (Jumping::default(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let hears = Arc::clone(&deaf);
    let hook = move |point: &'static str| match point {
        "store.log.before" if hears.load(Ordering::SeqCst) => {
            Err(Error::new(ErrorKind::Unavailable, "the store stands still, as the test asked"))
        }
        _ => Ok(()),
    };
    obey(clock.clone(), Arc::clone(&deaf), Arc::clone(&over));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let builder = serving_both().revocation_bound(BOUND).clock(clock).kms(grounds.kms());
        let room =
            builder.key_store(Failpoints::new(grounds.store().await, hook)).open_under(&grounds.operator()).await;
        let message = grounds.messages().await.all().await.remove(0);
        let scope = channel(&room, &message.channel).await;
        let (mut works, mut last) = (false, 0);
        println!("\nready");
        while !over.load(Ordering::SeqCst) {
            let began = now();
            match scope.open(&[("message", &message.id)], &message.envelope).await {
                Ok(_) => {
                    last = began;
                    if !std::mem::replace(&mut works, true) {
                        println!("\nopens {began}");
                    }
                }
                // A store that is slow on a busy machine: nothing is opened, and what was decided is heard later.
                Err(e) if e.kind() == ErrorKind::Unavailable && !deaf.load(Ordering::SeqCst) => {}
                Err(e) if std::mem::replace(&mut works, false) => println!("\n{} {last}", e.kind()),
                Err(_) => {}
            }
            tokio::task::yield_now().await; // what hears of decisions runs on the same threads
        }
    });
}

/// Does what the parent writes, a line each.
fn obey(clock: Jumping, deaf: Arc<AtomicBool>, over: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            match line.unwrap().split_once(' ').unwrap() {
                ("days", days) => clock.0.store(days.parse::<i64>().unwrap() * DAY, Ordering::SeqCst),
                ("deaf", how) => {
                    deaf.store(how == "yes", Ordering::SeqCst);
                    println!("\ndeaf {}", now());
                }
                (what, _) => panic!("the parent wrote {what}"),
            }
        }
        over.store(true, Ordering::SeqCst);
    });
}

/// The processes, and what they say: who, what, and when it began.
struct Openers {
    processes: Vec<Child>,
    said: Receiver<(usize, String, u64)>,
}

impl Openers {
    fn start(grounds: &Grounds) -> Self {
        let (tell, said) = queue();
        let mut processes: Vec<_> = (0..PROCESSES).map(|_| grounds.start("bound::process_that_opens", "")).collect();
        for (who, process) in processes.iter_mut().enumerate() {
            let (printed, tell) = (wait_for(process, "ready"), tell.clone());
            std::thread::spawn(move || {
                for line in printed.lines().map_while(Result::ok) {
                    if let Some((what, when)) = line.rsplit_once(' ')
                        && let Ok(when) = when.parse()
                    {
                        let _ = tell.send((who, what.to_owned(), when));
                    }
                }
            });
        }
        Self { processes, said }
    }

    fn tell(&mut self, line: &str) {
        for process in &mut self.processes {
            writeln!(process.stdin.as_mut().unwrap(), "{line}").unwrap();
        }
    }

    /// Waits until each has said `what`, and returns when each began.
    fn all(&self, what: &str) -> [u64; PROCESSES] {
        let mut at = [None; PROCESSES];
        while at.iter().any(Option::is_none) {
            let (who, said, when) = self.said.recv_timeout(Duration::from_secs(120)).expect("a process says nothing");
            assert_eq!(said, what);
            at[who] = Some(when);
        }
        at.map(|when| when.unwrap())
    }

    fn end(mut self) {
        for process in &mut self.processes {
            drop(process.stdin.take());
            assert!(process.wait().unwrap().success());
        }
    }
}

fn revoke_and_measure(trials: u32) {
    let _server = crate::stores::server();
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let grounds = runtime.block_on(Grounds::enrolled(folder.path(), Period::Hour));
    let (admin, selector) = (runtime.block_on(grounds.room()), Selector::fields([("channel", "C9")]));
    runtime.block_on(async {
        let id = "M77".to_owned();
        let scope = channel(&admin, "C9").await;
        let envelope = scope.seal(&[("message", &id)], Message::text(&id).as_bytes()).await.unwrap();
        grounds.messages().await.put(&Message { id, channel: "C9".to_owned(), envelope }).await;
    });
    let mut openers = Openers::start(&grounds);
    let _: [u64; PROCESSES] = openers.all("opens");
    let mut late: Vec<Duration> = Vec::new();
    for trial in 0..trials {
        openers.tell(["days 1", "days -1", "days 0"][trial as usize % 3]);
        runtime.block_on(admin.admin("a test", "to test").unwrap().revoke(TENANT, selector.clone())).unwrap();
        let revoked = now();
        let last = openers.all("revoked").into_iter().max().unwrap();
        late.push(Duration::from_nanos(last.saturating_sub(revoked)));
        runtime.block_on(admin.admin("a test", "to test").unwrap().restore(TENANT, selector.clone())).unwrap();
        openers.all("opens");
    }
    late.sort();
    let (median, most) = (late[late.len() / 2], late[late.len() - 1]);
    println!(
        "{trials} revocations, {PROCESSES} processes, bound {BOUND:?}: last open after {median:?} (median), {most:?} (most)"
    );
    assert!(most <= BOUND + TICK, "a message was opened {most:?} after its revocation");

    // A store that stands still: what is cached ends with the lease.
    openers.tell("deaf yes");
    let deaf = openers.all("deaf");
    let last = openers.all("unavailable");
    let late: Vec<_> =
        last.iter().zip(deaf).map(|(last, deaf)| Duration::from_nanos(last.saturating_sub(deaf))).collect();
    println!("a store that stands still: last opens after {late:?}");
    assert!(late.iter().all(|late| *late <= BOUND + TICK), "opened for longer without hearing: {late:?}");
    openers.tell("deaf no");
    openers.end();
}

#[test]
fn no_process_opens_later_than_the_bound_after_a_revocation() {
    revoke_and_measure(asked("STRONGROOM_TRIALS", 20));
}
