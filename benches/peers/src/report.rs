//! The table: a row for each way of sealing and opening, a column for each size.

use std::fmt::Write as _;

use strongroom::Suite;

use crate::bare::{BARE_ASSOCIATED, BARE_OPEN, BARE_SEAL};
use crate::contest::Score;
use crate::goals::goal;
use crate::messages::{OPEN, OPEN_IN_PLACE, OPEN_UNKNOWN, SEAL, SEAL_INTO, SIZES};

/// Which rows there are, in their order, and how the table calls them; the peers come after them.
const OURS: &[(&str, &str)] = &[
    (BARE_SEAL, "bare cipher, seal"),
    (BARE_ASSOCIATED, "bare cipher with our 14 bytes of associated data"),
    (SEAL, "`ScopeHandle::seal`, new `Vec`"),
    (SEAL_INTO, "`HotScope::seal_into`"),
    (BARE_OPEN, "bare cipher, open"),
    (OPEN, "`ScopeHandle::open`, new buffer, kept reader key"),
    (OPEN_IN_PLACE, "`HotScope::open_in_place`, kept reader key"),
    (OPEN_UNKNOWN, "`HotScope::open`, writer not seen before"),
];

pub(crate) struct Table {
    suite: Suite,
    /// The scores of each size.
    columns: Vec<Vec<Score>>,
}

impl Table {
    pub(crate) fn of(suite: Suite, columns: Vec<Vec<Score>>) -> Self {
        Self { suite, columns }
    }

    /// The nanoseconds of `name` with the size of column `at`.
    pub(crate) fn nanos(&self, name: &str, at: usize) -> f64 {
        self.row(name)[at].nanos
    }

    fn row(&self, name: &str) -> Vec<&Score> {
        self.columns.iter().filter_map(|scores| scores.iter().find(|score| score.name == name)).collect()
    }

    /// The goals are of suite 1: who has no AES instructions pays for that already.
    fn goal(&self, name: &str) -> Option<[f64; 4]> {
        goal(name).filter(|_| self.suite == Suite::Aes256Gcm)
    }

    pub(crate) fn markdown(&self) -> String {
        let cipher = match self.suite {
            Suite::Aes256Gcm => "AES-256-GCM",
            _ => "ChaCha20-Poly1305",
        };
        let backend = if cfg!(feature = "aws-lc-rs") { "aws-lc-rs" } else { "RustCrypto" };
        let mut out = format!("| times bare `{backend}` {cipher} (ns) |");
        for (_, size) in SIZES {
            write!(out, " {size} |").unwrap();
        }
        out.push_str("\n|---|---|---|---|---|\n");
        for (name, label) in OURS {
            self.write_row(&mut out, name, label);
        }
        for (name, label) in crate::peers::labels() {
            self.write_row(&mut out, name, &label);
        }
        out
    }

    fn write_row(&self, out: &mut String, name: &str, label: &str) {
        let scores = self.row(name);
        if scores.is_empty() {
            return;
        }
        write!(out, "| {label} |").unwrap();
        for score in &scores {
            write!(out, " {:.2} ({:.0}) |", score.ratio, score.nanos).unwrap();
        }
        out.push('\n');
        if let Some(goals) = self.goal(name) {
            out.push_str("| *goal* |");
            for (goal, score) in goals.iter().zip(&scores) {
                let missed = if score.ratio > *goal { ", missed" } else { "" };
                write!(out, " *{goal:.2}{missed}* |").unwrap();
            }
            out.push('\n');
        }
    }

    /// How many goals this run kept.
    pub(crate) fn verdict(&self) -> String {
        let kept: Vec<bool> = OURS
            .iter()
            .filter_map(|(name, _)| self.goal(name).map(|goals| (goals, self.row(name))))
            .flat_map(|(goals, scores)| {
                goals.into_iter().zip(scores).map(|(goal, score)| score.ratio <= goal).collect::<Vec<_>>()
            })
            .collect();
        format!("{} of {} goals kept", kept.iter().filter(|kept| **kept).count(), kept.len())
    }
}
