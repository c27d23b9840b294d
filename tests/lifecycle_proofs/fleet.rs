//! Sixteen processes rotate, rewrap, reseal and use one tenant at once.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;

use strongroom::{ErrorKind, KeyState, Period, Resealed, Strongroom, WalkOptions};

use crate::grounds::{EU, Grounds, TENANT, asked, channel, kek, keks, records, wait_for};
use crate::table::{Message, Messages};

const PROCESSES: u32 = 16;
const CHANNELS: u64 = 8;

/// A small generator (splitmix64): rounds have to differ between processes, and to be the same again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

struct Member {
    room: Strongroom,
    table: Messages,
    index: u32,
    dice: Dice,
    /// Calls that others got in between of, so often that the caller had to repeat them.
    repeated: u32,
}

impl Member {
    async fn round(&mut self, round: u32) {
        let to = format!("C{}", self.dice.below(CHANNELS));
        match self.dice.below(100) {
            0..45 => self.send(round, &to).await,
            45..70 => self.open_one(round).await,
            70..90 => self.rotate(&to).await,
            90..96 => self.reseal(round).await,
            _ => self.rewrap().await,
        }
    }

    async fn send(&mut self, round: u32, to: &str) {
        let id = format!("{round:05}-{:02}", self.index);
        let scope = channel(&self.room, to).await;
        let envelope = loop {
            match scope.seal(&[("message", &id)], Message::text(&id).as_bytes()).await {
                Err(e) if e.kind() == ErrorKind::Unavailable => self.repeated += 1,
                sealed => break sealed.unwrap(),
            }
        };
        self.table.put(&Message { id, channel: to.to_owned(), envelope }).await;
    }

    async fn open_one(&mut self, round: u32) {
        let id = format!("{:05}-{:02}", self.dice.below(u64::from(round) + 1), self.dice.below(u64::from(PROCESSES)));
        if let Some(message) = self.table.get(&id).await {
            open(&self.room, &message).await;
        }
    }

    async fn rotate(&mut self, to: &str) {
        loop {
            match self.room.admin("a test", "to test").unwrap().rotate(TENANT, &[("channel", to)]).await {
                Err(e) if e.kind() == ErrorKind::Unavailable => self.repeated += 1,
                rotated => {
                    rotated.unwrap();
                    return;
                }
            }
        }
    }

    /// The messages of the last rounds, whoever sent them.
    async fn reseal(&mut self, round: u32) {
        let after = format!("{:05}", round.saturating_sub(8));
        let resealing = self.room.admin("a test", "to test").unwrap();
        let options = WalkOptions::default().page(50);
        let resealed = resealing.reseal(TENANT, &self.table, Some(&after), &options, |_| ()).await;
        let resealed = resealed.or_else(|e| Resealed::of(&e).cloned().ok_or(e)).unwrap();
        if let Some((id, e)) = resealed.first_failure {
            assert_eq!(e.kind(), ErrorKind::Unavailable, "{id}: {e}");
            self.repeated += 1;
        }
    }

    async fn rewrap(&mut self) {
        let way = u32::try_from(self.dice.below(2)).unwrap();
        loop {
            match self
                .room
                .admin("a test", "to test")
                .unwrap()
                .rewrap(TENANT, keks(EU, way), &WalkOptions::default())
                .await
            {
                // Another process wants the other KEK; its order counts now.
                Err(e) if e.kind() == ErrorKind::Conflict => return,
                Err(e) if e.kind() == ErrorKind::Unavailable => self.repeated += 1,
                walked => return assert_eq!(walked.unwrap().failed, 0),
            }
        }
    }
}

async fn open(room: &Strongroom, message: &Message) {
    let opened = channel(room, &message.channel).await.open(&[("message", &message.id)], &message.envelope).await;
    assert_eq!(&*opened.unwrap(), Message::text(&message.id).as_bytes());
}

/// Not a test: a process of the fleet.
#[test]
#[ignore = "started by the test below"]
fn process_of_the_fleet() {
    let Some((grounds, job)) = Grounds::given() else { return };
    let [index, rounds] = job.split(' ').map(|n| n.parse().unwrap()).collect::<Vec<u32>>().try_into().unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (room, table) = (grounds.room().await, grounds.messages().await);
        let mut member = Member { room, table, index, dice: Dice(u64::from(index)), repeated: 0 };
        println!("\nready");
        std::io::stdin().read_line(&mut String::new()).unwrap();
        for round in 0..rounds {
            member.round(round).await;
        }
        println!("\nrepeated {}", member.repeated);
    });
}

async fn judge(grounds: &Grounds) -> (usize, usize) {
    let room = grounds.room().await;
    let (messages, keys) = (grounds.messages().await.all().await, records(&room).await);
    for message in &messages {
        open(&room, message).await;
    }
    let mut active: BTreeMap<_, u32> = BTreeMap::new();
    for key in &keys {
        assert!(matches!(key.state, KeyState::Active | KeyState::Deactivated));
        *active.entry((key.scope.to_bytes(), &key.period)).or_default() += u32::from(key.state == KeyState::Active);
    }
    assert!(active.values().all(|n| *n == 1), "not one Active key per scope and period: {active:?}");
    let exported = room
        .admin("a test", "to test")
        .unwrap()
        .export(TENANT, strongroom::ExportTo::Foreign(kek("escrow")), &WalkOptions::default(), |_| Ok(()))
        .await
        .unwrap();
    assert_eq!((exported.done, exported.failed), (keys.len() as u64, 0), "{:?}", exported.first_failure);
    let row = room.admin("a test", "to test").unwrap().tenant(TENANT).await.unwrap();
    assert_eq!(row.rewrap, None, "a rewrap stands although nobody was killed");
    for key in &keys {
        let wrapped = key.wrapped.as_ref().unwrap().expression();
        assert_eq!((&wrapped, &key.pending), (row.policy.keks(), &None), "{} was left behind", key.key_id);
    }
    (messages.len(), keys.len())
}

/// As many rounds in all, by sixteen processes.
fn run(rounds: u32) {
    let _server = crate::stores::server();
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let grounds = runtime.block_on(Grounds::enrolled(folder.path(), Period::None));
    let each = rounds.div_ceil(PROCESSES);
    let mut fleet: Vec<_> =
        (0..PROCESSES).map(|index| grounds.start("fleet::process_of_the_fleet", &format!("{index} {each}"))).collect();
    let printed: Vec<_> = fleet.iter_mut().map(|process| wait_for(process, "ready")).collect();
    let began = Instant::now();
    for process in &mut fleet {
        writeln!(process.stdin.as_mut().unwrap(), "go").unwrap();
    }
    let mut repeated = 0;
    for (process, printed) in fleet.iter_mut().zip(printed) {
        let lines: Vec<_> = std::io::BufRead::lines(printed).map(|line| line.unwrap()).collect();
        assert!(process.wait().unwrap().success(), "a process failed: {lines:#?}");
        repeated += lines.iter().find_map(|l| l.strip_prefix("repeated ")?.parse::<u32>().ok()).unwrap();
    }
    let took = began.elapsed();
    let (messages, keys) = runtime.block_on(judge(&grounds));
    println!(
        "{PROCESSES} processes, {} rounds in {:.1} s: {messages} messages, {keys} keys, none lost; {repeated} calls repeated",
        each * PROCESSES,
        took.as_secs_f64()
    );
}

#[test]
fn sixteen_processes_at_once_keep_one_active_key_and_lose_nothing() {
    run(asked("STRONGROOM_ROUNDS", 320));
}
