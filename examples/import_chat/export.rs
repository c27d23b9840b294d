//! A chat export in Slack's JSON layout: `channels.json` and `users.json`, and for each channel a folder with a file a day.

use std::error::Error;
use std::fs;
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Outcome;

/// What there is to import.
pub(crate) struct Export {
    pub(crate) workspace: String,
    pub(crate) channels: Vec<Channel>,
    /// Length of all messages' files together.
    pub(crate) bytes: u64,
}

/// A channel, a group or a direct conversation.
pub(crate) struct Channel {
    pub(crate) id: String,
    /// Its files in the order of their dates.
    pub(crate) days: Vec<PathBuf>,
}

/// One message.
pub(crate) struct Message<'a> {
    /// Slack's name for it within its channel: the second and a counter.
    pub(crate) ts: String,
    pub(crate) unix_millis: i64,
    /// Its bytes, spelled as in the export.
    pub(crate) json: &'a str,
}

#[derive(Deserialize)]
struct User {
    team_id: String,
}

#[derive(Deserialize)]
struct Conversation {
    id: String,
    name: Option<String>,
}

impl Export {
    /// Lists what is there; no message is read yet.
    pub(crate) fn open(folder: &Path) -> Outcome<Self> {
        let users: Vec<User> = serde_json::from_str(&read(&folder.join("users.json"))?)?;
        let workspace = users.into_iter().next().ok_or("users.json names no user, and so no workspace")?.team_id;
        let (mut channels, mut bytes) = (Vec::new(), 0);
        // Only channels.json is in every export; the others depend on what its owner may see.
        for list in ["channels.json", "groups.json", "mpims.json", "dms.json"] {
            if list != "channels.json" && !folder.join(list).exists() {
                continue;
            }
            let conversations: Vec<Conversation> = serde_json::from_str(&read(&folder.join(list))?)?;
            for Conversation { id, name } in conversations {
                // Direct conversations have no name: their folder bears the id.
                let days = days(&folder.join(name.as_ref().unwrap_or(&id)), &mut bytes)?;
                channels.push(Channel { id, days });
            }
        }
        Ok(Self { workspace, channels, bytes })
    }
}

/// The files of a channel's folder. A channel without messages may have none.
fn days(folder: &Path, bytes: &mut u64) -> Outcome<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| format!("{}: {e}", folder.display()))?,
    };
    let mut days = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "json") {
            *bytes += entry.metadata()?.len();
            days.push(entry.path());
        }
    }
    days.sort();
    Ok(days)
}

fn read(path: &Path) -> Outcome<String> {
    Ok(fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?)
}

/// A channel's messages of one day.
pub(crate) struct Day<'a> {
    path: &'a Path,
    text: String,
}

impl<'a> Day<'a> {
    pub(crate) fn read(path: &'a Path) -> Outcome<Self> {
        Ok(Self { path, text: read(path)? })
    }

    /// The messages by their times.
    pub(crate) fn messages(&self) -> Outcome<Vec<Message<'_>>> {
        let parse = || {
            let all: Vec<&RawValue> = serde_json::from_str(&self.text)?;
            let mut messages = all.into_iter().map(|json| Message::parse(json.get())).collect::<Outcome<Vec<_>>>()?;
            messages.sort_by(|a, b| a.ts.cmp(&b.ts));
            Ok(messages)
        };
        parse().map_err(|e: Box<dyn Error>| format!("{}: {e}", self.path.display()).into())
    }
}

impl<'a> Message<'a> {
    fn parse(json: &'a str) -> Outcome<Self> {
        #[derive(Deserialize)]
        struct Stamp {
            ts: String,
        }
        let Stamp { ts } = serde_json::from_str(json)?;
        let (seconds, micros) = ts.split_once('.').unwrap_or((&ts, "0"));
        let unix_millis = seconds.parse::<i64>()?.saturating_mul(1000) + i64::from(micros.parse::<u32>()? / 1000);
        Ok(Self { ts, unix_millis, json })
    }
}
