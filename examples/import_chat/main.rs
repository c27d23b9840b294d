//! Imports a chat export in Slack's JSON layout: seals every message into a SQLite table under a data key for its
//! workspace, channel and hour, reads the table back, compares every byte with the export, and counts.
//!
//! `cargo run --release --example import_chat [EXPORT [FOLDER]]`: imports EXPORT (default: the small export beside this
//! file) into `messages.db` in FOLDER, which it makes (default: a temporary one).

mod export;
mod figures;
mod table;

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use strongroom::{
    Clock, LocalKms, PageRow, Period, Region, ScopeHandle, Strongroom, SystemClock, TenantPolicy, create_local,
    open_local,
};

use export::{Day, Export};
use figures::{CountingKms, Figures, ReplayClock, progress};
use table::Table;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const REGION: &str = "eu-central-1";
const TENANT: &str = "acme";
/// Rows opened at once: what a client shows when it scrolls.
const PAGE: usize = 100;

#[tokio::main]
async fn main() -> Outcome {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let bundled = || Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/slack-export");
    let export = Export::open(&arguments.next().unwrap_or_else(bundled))?;
    let temporary = tempfile::tempdir()?;
    let folder = arguments.next().unwrap_or_else(|| temporary.path().join("import"));
    std::fs::create_dir(&folder).map_err(|e| format!("cannot make the folder {}: {e}", folder.display()))?;

    let table = Table::make(&folder.join("messages.db")).await?;
    let mut figures = Figures::default();
    seal_all(&export, &folder, &table, &mut figures).await?;
    open_all(&export, &folder, &table, &mut figures).await?;
    figures.print(&export);
    Ok(())
}

/// The folder's room on one machine. Sealing and opening have one each, as two processes would.
async fn room(folder: &Path, clock: impl Clock) -> Outcome<(Strongroom, LocalKms, CountingKms)> {
    let local = if folder.join("keys.db").exists() { open_local(folder).await? } else { create_local(folder).await? };
    let kms = CountingKms::new(local.kms().clone());
    let room = local.builder_with_kms(kms.clone()).serving([REGION]).clock(clock).build().await?;
    Ok((room, local.kms().clone(), kms))
}

async fn scope(room: &Strongroom, export: &Export, channel: &str) -> Outcome<ScopeHandle> {
    Ok(room.tenant(TENANT).await?.scope([("workspace", export.workspace.as_str()), ("channel", channel)])?)
}

async fn seal_all(export: &Export, folder: &Path, table: &Table, figures: &mut Figures) -> Outcome {
    // Replays history: the room's wall clock shows the time of the message at hand, so that each gets the data key of the
    // hour in which it was written, not of the hour of the import.
    let clock = ReplayClock::default();
    let (room, local, kms) = room(folder, clock.clone()).await?;
    let kek = local.create_kek("acme-2026", Region::new(REGION)?)?;
    let policy = TenantPolicy::new(kek, Region::new(REGION)?)
        .scope_by(["workspace", "channel"])
        .bind(["message"])
        .period(Period::Hour);
    room.admin("ops@example.com", "an example")?.enroll(TENANT, policy).await?;

    let bar = progress(export.bytes, "sealing")?;
    let mut hours = HashSet::new();
    let mut hour = None;
    for channel in &export.channels {
        let scope = scope(&room, export, &channel.id).await?;
        let mut seen = HashMap::new();
        for day in &channel.days {
            let day = Day::read(day)?;
            let mut rows = Vec::new();
            for message in day.messages(&mut seen)? {
                clock.show(message.unix_millis);
                let now = Period::Hour.label(message.unix_millis)?;
                if now != hour {
                    // A sealing key in hand is used until its hour ends by the monotonic clock, which does not jump with
                    // the replayed one: let the next seal ask again.
                    room.admin("ops@example.com", "an example")?.purge(TENANT)?;
                    hour.clone_from(&now);
                }
                let started = Instant::now();
                let envelope = scope.seal(&[("message", message.name.as_str())], message.json.as_bytes()).await?;
                figures.sealing += started.elapsed();
                figures.sealed(message.json.len(), envelope.len());
                hours.insert((&channel.id, now));
                bar.inc(message.json.len() as u64);
                rows.push((message.name, envelope));
            }
            table.insert(&channel.id, rows).await?;
        }
    }
    bar.finish_and_clear();
    let mut last = None;
    loop {
        let page = room.admin("ops@example.com", "an example")?.keys(TENANT, last.as_ref(), 1000).await?.keys;
        let Some(key) = page.last() else { break };
        last = Some(key.key_id);
        figures.data_keys += page.len();
    }
    check(figures.data_keys == hours.len(), "there is one data key for each channel and hour")?;
    figures.kms_calls_sealing = kms.calls();
    Ok(())
}

async fn open_all(export: &Export, folder: &Path, table: &Table, figures: &mut Figures) -> Outcome {
    let (room, _, kms) = room(folder, SystemClock).await?;
    let bar = progress(export.bytes, "opening")?;
    for channel in &export.channels {
        let scope = scope(&room, export, &channel.id).await?;
        let mut seen = HashMap::new();
        for day in &channel.days {
            let day = Day::read(day)?;
            for messages in day.messages(&mut seen)?.chunks(PAGE) {
                let (Some(first), Some(last)) = (messages.first(), messages.last()) else { continue };
                let rows = table.page(&channel.id, &first.name, &last.name).await?;
                check(rows.len() == messages.len(), "the table has as many rows as the export has messages")?;
                let contexts: Vec<_> = rows.iter().map(|(ts, _)| [("message", ts.as_str())]).collect();
                let page: Vec<_> =
                    rows.iter().zip(&contexts).map(|((_, envelope), context)| PageRow { context, envelope }).collect();
                let started = Instant::now();
                let opened = scope.open_page(&page).await;
                figures.opening += started.elapsed();
                for (message, text) in messages.iter().zip(opened) {
                    check(*text? == *message.json.as_bytes(), "every byte is as it was")?;
                    figures.opened += 1;
                    bar.inc(message.json.len() as u64);
                }
            }
        }
    }
    bar.finish_and_clear();
    check(figures.opened == figures.messages, "every message is opened")?;
    figures.kms_calls_opening = kms.calls();
    Ok(())
}

fn check(holds: bool, what: &str) -> Outcome {
    if holds { Ok(()) } else { Err(format!("not so: {what}").into()) }
}
