//! A chat export in Slack's JSON layout: `channels.json` and `users.json`, and for each channel a folder with a file a day.
//!
//! What is there and belongs to nothing that is listed is an error: it would be missing afterwards.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};

use icu_normalizer::ComposingNormalizerBorrowed;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Outcome;

/// What there is to import.
pub(crate) struct Export {
    pub(crate) workspace: String,
    pub(crate) channels: Vec<Channel>,
    /// Length of all messages' files together.
    pub(crate) bytes: u64,
    /// Listed, and without a folder: an export leaves out what has no messages.
    pub(crate) without_folder: Vec<String>,
    /// In channels' folders, and no day's messages (canvases, for instance).
    pub(crate) other_files: Vec<PathBuf>,
}

/// A channel, a group or a direct conversation.
pub(crate) struct Channel {
    pub(crate) id: String,
    /// Its files in the order of their dates.
    pub(crate) days: Vec<PathBuf>,
}

/// One message.
pub(crate) struct Message<'a> {
    /// Its name within its channel: Slack's, which is the second and a counter. A second one of that name is `…#2`.
    pub(crate) name: String,
    pub(crate) unix_millis: i64,
    /// Its bytes, spelled as in the export.
    pub(crate) json: &'a str,
}

#[derive(Deserialize)]
struct User {
    team_id: Option<String>,
}

#[derive(Deserialize)]
struct Conversation {
    id: String,
    name: Option<String>,
}

impl Export {
    /// Lists what is there; no message is read yet.
    pub(crate) fn open(folder: &Path) -> Outcome<Self> {
        let users: Vec<User> = parsed(&folder.join("users.json"))?;
        let workspace = users.into_iter().find_map(|user| user.team_id).filter(|id| !id.is_empty());
        let workspace = workspace.ok_or("users.json names nobody's team_id, and so no workspace")?;
        let mut folders = folders(folder)?;
        let (mut channels, mut bytes, mut listed) = (Vec::new(), 0, HashSet::new());
        let (mut without_folder, mut other_files) = (Vec::new(), Vec::new());
        for Conversation { id, name } in conversations(folder)? {
            if !listed.insert(id.clone()) {
                return Err(format!("{id} is listed twice").into());
            }
            // Direct conversations have no name: their folder bears the id.
            let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| id.clone());
            let days = if let Some(path) = folders.remove(&composed(&name)) {
                days(&path, &mut bytes, &mut other_files)?
            } else {
                without_folder.push(name);
                Vec::new()
            };
            channels.push(Channel { id, days });
        }
        if !folders.is_empty() {
            let of_nobody: Vec<_> = folders.into_values().map(|path| path.display().to_string()).collect();
            let missing = without_folder.join(", ");
            let of_nobody = of_nobody.join(", ");
            return Err(
                format!("no list names a conversation of {of_nobody}; listed without a folder: {missing}").into()
            );
        }
        Ok(Self { workspace, channels, bytes, without_folder, other_files })
    }
}

/// Of every list.
fn conversations(folder: &Path) -> Outcome<Vec<Conversation>> {
    let mut all: Vec<Conversation> = parsed(&folder.join("channels.json"))?;
    // Only channels.json is in every export; the others depend on what its owner may see.
    for list in ["groups.json", "mpims.json", "dms.json"].map(|list| folder.join(list)) {
        if list.exists() {
            all.append(&mut parsed(&list)?);
        }
    }
    Ok(all)
}

/// One name may be spelled in two ways, and unpacking changes one to the other: é, or e and an accent.
fn composed(name: &str) -> String {
    ComposingNormalizerBorrowed::new_nfc().normalize(name).into_owned()
}

/// The folders of the export by their names. They alone are read, whatever a list calls a conversation.
fn folders(export: &Path) -> Outcome<BTreeMap<String, PathBuf>> {
    let mut folders = BTreeMap::new();
    for entry in entries(export)? {
        let (name, path) = (name_of(&entry)?, entry.path());
        if path.is_dir()
            && name != "__MACOSX"
            && let Some(other) = folders.insert(composed(&name), path.clone())
        {
            return Err(format!("{} and {} have one name", other.display(), path.display()).into());
        }
    }
    Ok(folders)
}

/// The files of a channel's folder: `2026-03-02.json`.
fn days(folder: &Path, bytes: &mut u64, other_files: &mut Vec<PathBuf>) -> Outcome<Vec<PathBuf>> {
    let mut days = Vec::new();
    for entry in entries(folder)? {
        let of_a_day = |name: &str| {
            let shape: String = name.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            shape == "0000-00-00.json"
        };
        if of_a_day(&name_of(&entry)?) {
            *bytes += entry.metadata()?.len();
            days.push(entry.path());
        } else {
            other_files.push(entry.path());
        }
    }
    days.sort();
    Ok(days)
}

/// What a folder holds, but for what an operating system leaves there (`.DS_Store`, `._2026-03-02.json`).
fn entries(folder: &Path) -> Outcome<Vec<DirEntry>> {
    let listed = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut entries = listed.map_err(|e| format!("{}: {e}", folder.display()))?;
    entries.retain(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    Ok(entries)
}

fn name_of(entry: &DirEntry) -> Outcome<String> {
    let name = entry.file_name().into_string();
    Ok(name.map_err(|_| format!("{}: its name is no UTF-8", entry.path().display()))?)
}

fn read(path: &Path) -> Outcome<String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    // Some editors put a byte-order mark first, which is no JSON.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn parsed<T: for<'de> Deserialize<'de>>(path: &Path) -> Outcome<T> {
    Ok(serde_json::from_str(&read(path)?).map_err(|e| format!("{}: {e}", path.display()))?)
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

    /// The messages by their names. `seen` counts the channel's, over all of its days.
    pub(crate) fn messages(&self, seen: &mut HashMap<String, usize>) -> Outcome<Vec<Message<'_>>> {
        let mut parse = || {
            let all: Vec<&RawValue> = serde_json::from_str(&self.text)?;
            let mut messages = Vec::with_capacity(all.len());
            for json in all {
                let mut message = Message::parse(json.get())?;
                let times = seen.entry(message.name.clone()).or_default();
                *times += 1;
                if *times > 1 {
                    message.name = format!("{}#{times}", message.name);
                }
                messages.push(message);
            }
            messages.sort_by(|a, b| a.name.cmp(&b.name));
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
        Ok(Self { name: ts, unix_millis, json })
    }
}
