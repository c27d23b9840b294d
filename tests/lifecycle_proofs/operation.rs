//! The operations in whose midst processes are killed. Each can be performed again after a crash, and then ends.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use strongroom::{FILE_SEALING_LIMIT, Selector, Strongroom, WalkOptions};

use crate::grounds::{Ahead, EU, Grounds, TENANT, US, channel, keks, region, serving_both};
use crate::table::{Message, Messages};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    /// The first messages of new channels.
    Create,
    Rotate,
    RotateAll,
    Rewrap,
    /// Erase, and carry out.
    Erase,
    /// Migrate the region, reseal the table, finish.
    Migrate,
    /// Revoke, and restore.
    Revoke,
}

impl Operation {
    pub(crate) const ALL: [Self; 7] =
        [Self::Create, Self::Rotate, Self::RotateAll, Self::Rewrap, Self::Erase, Self::Migrate, Self::Revoke];
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Create => "create",
            Self::Rotate => "rotate",
            Self::RotateAll => "rotate all",
            Self::Rewrap => "rewrap",
            Self::Erase => "erase",
            Self::Migrate => "migrate",
            Self::Revoke => "revoke",
        })
    }
}

/// One performance of an operation: the `step`-th thing that happens on its grounds, while the tenant is in `home`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    pub(crate) operation: Operation,
    pub(crate) step: u32,
    pub(crate) home: &'static str,
    /// Seconds that it let pass. Its rooms' alone: others run at the same time.
    pub(crate) passed: &'static AtomicU64,
}

/// What a process says of its progress, durably as far as a kill goes: a line before each thing and after it.
pub(crate) struct Journal {
    file: File,
}

/// What a process had said when it was killed.
pub(crate) type Said = BTreeSet<String>;

impl Journal {
    pub(crate) fn of(grounds: &Grounds, task: Task) -> Self {
        let path = grounds.path(&format!("journal-{}", task.step));
        Self { file: OpenOptions::new().create(true).append(true).open(path).unwrap() }
    }

    fn say(&mut self, what: &str) {
        self.file.write_all(format!("{what}\n").as_bytes()).unwrap();
    }

    pub(crate) fn read(grounds: &Grounds, task: Task) -> Said {
        let text = std::fs::read_to_string(grounds.path(&format!("journal-{}", task.step))).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// Channels that are there from the beginning, and stay.
pub(crate) const LASTING: [&str; 3] = ["C1", "C2", "C3"];

impl Task {
    pub(crate) fn parse(job: &str) -> Self {
        let [operation, step, home] = job.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let operation = Operation::ALL[operation.parse::<usize>().unwrap()];
        let home = if home == EU { EU } else { US };
        Self { operation, step: step.parse().unwrap(), home, passed: Box::leak(Box::default()) }
    }

    pub(crate) fn job(&self) -> String {
        let operation = Operation::ALL.iter().position(|o| *o == self.operation).unwrap();
        format!("{operation} {} {}", self.step, self.home)
    }

    /// The channel that this task alone touches.
    pub(crate) fn own_channel(&self) -> String {
        format!("own-{}", self.step)
    }

    /// Where a migration goes.
    pub(crate) fn destination(&self) -> &'static str {
        if self.home == EU { US } else { EU }
    }

    /// The date of this task: hours go by, and come back, so that there are several periods.
    pub(crate) fn clock(&self) -> Ahead {
        Ahead(Duration::from_secs(3600) * (self.step % 3), self.passed)
    }

    /// A room as a fresh process has it, at this task's date.
    pub(crate) async fn room(&self, grounds: &Grounds) -> Strongroom {
        let room = serving_both().clock(self.clock());
        room.key_store(grounds.store().await).kms(grounds.kms()).open_under(&grounds.operator()).await
    }

    /// What has to be there before. Not killed.
    pub(crate) async fn prepare(&self, room: &Strongroom, table: &Messages) {
        if matches!(self.operation, Operation::Erase | Operation::Revoke) {
            for n in 0..3 {
                self.send(room, table, &self.own_channel(), &format!("prepared-{n}")).await;
                room.admin("a test", "to test")
                    .unwrap()
                    .rotate(TENANT, &[("channel", &self.own_channel())])
                    .await
                    .unwrap();
            }
        }
    }

    /// Performs the operation, or what of it is left after a crash.
    pub(crate) async fn perform(&self, room: &Strongroom, table: &Messages, journal: &mut Journal) {
        let pages = WalkOptions::default().page(7).concurrency(4);
        let admin = room.admin("a test", "to test").unwrap();
        journal.say("began");
        match self.operation {
            Operation::Create => {
                for n in 0..3 {
                    self.send(room, table, &format!("new-{}-{n}", self.step), &format!("created-{n}")).await;
                }
            }
            Operation::Rotate => {
                for channel in LASTING {
                    // Twice: the first one may find no key to succeed, in an hour that is new.
                    for _ in 0..2 {
                        admin.rotate(TENANT, &[("channel", channel)]).await.unwrap();
                    }
                    self.send(room, table, channel, channel).await;
                }
            }
            Operation::RotateAll => {
                admin.rotate_all(TENANT, Selector::everything(), &pages).await.unwrap();
                for channel in LASTING {
                    self.send(room, table, channel, channel).await;
                }
            }
            Operation::Rewrap => {
                let walked = admin.rewrap(TENANT, keks(self.home, self.step), &pages).await.unwrap();
                assert_eq!(walked.failed, 0, "{:?}", walked.first_failure);
            }
            Operation::Erase => self.erase(room, journal, &pages).await,
            Operation::Migrate => self.migrate(room, table, journal, &pages).await,
            Operation::Revoke => self.revoke(room, journal).await,
        }
        journal.say("done");
    }

    async fn send(&self, room: &Strongroom, table: &Messages, to: &str, name: &str) {
        let id = format!("{:05}-{name}", self.step);
        if table.has(&id).await {
            return;
        }
        let scope = channel(room, to).await;
        let envelope = scope.seal(&[("message", &id)], Message::text(&id).as_bytes()).await.unwrap();
        table.put(&Message { id, channel: to.to_owned(), envelope }).await;
    }

    async fn erase(&self, room: &Strongroom, journal: &mut Journal, pages: &WalkOptions) {
        let admin = room.admin("a test", "to test").unwrap();
        let selector = Selector::fields([("channel", self.own_channel())]);
        let row = admin.tenant(TENANT).await.unwrap();
        let waiting = match row.erasures.into_iter().find(|e| e.selector == selector) {
            Some(waiting) => waiting,
            None if self.is_erased(room).await => return journal.say("erased"),
            None => admin.erase(TENANT, selector, Duration::ZERO).await.unwrap(),
        };
        journal.say("waits");
        journal.say("carrying out");
        admin.carry_out_erasure(TENANT, &waiting.id, pages).await.unwrap();
        journal.say("erased");
    }

    async fn is_erased(&self, room: &Strongroom) -> bool {
        let records = crate::grounds::records(room).await;
        let mut own = records.iter().filter(|r| r.scope.get("channel") == Some(&self.own_channel()));
        own.all(|r| r.state == strongroom::KeyState::Destroyed)
    }

    async fn migrate(&self, room: &Strongroom, table: &Messages, journal: &mut Journal, pages: &WalkOptions) {
        let (admin, to) = (room.admin("a test", "to test").unwrap(), self.destination());
        let walked = admin.migrate_region(TENANT, region(to), keks(to, self.step), pages).await.unwrap();
        assert_eq!(walked.failed, 0, "{:?}", walked.first_failure);
        let resealed = admin.reseal(TENANT, table, None, pages, |_| ()).await.unwrap();
        assert_eq!(resealed.failed, 0, "{:?}", resealed.first_failure);
        let cutoff = admin.cutoff(TENANT).await.unwrap();
        self.passed.fetch_add(FILE_SEALING_LIMIT.as_secs() + 3600, Ordering::SeqCst);
        let mut census = admin.census(&cutoff).unwrap();
        for message in table.all().await {
            census.add(&message.envelope).unwrap();
        }
        let census = census.complete().unwrap();
        journal.say("finishing");
        admin.finish_migration(TENANT, &region(self.home), &census).await.unwrap();
        journal.say("finished");
    }

    async fn revoke(&self, room: &Strongroom, journal: &mut Journal) {
        let selector = Selector::fields([("channel", self.own_channel())]);
        room.admin("a test", "to test").unwrap().revoke(TENANT, selector.clone()).await.unwrap();
        journal.say("revoked");
        journal.say("restoring");
        room.admin("a test", "to test").unwrap().restore(TENANT, selector).await.unwrap();
        journal.say("restored");
    }
}
