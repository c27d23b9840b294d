//! The house rules: which floor may name which, where backends, SDKs and SQL may be named, names and sizes of files.
//!
//! The tree is read as text (`house/source.rs`), comments and test code set aside, and each rule is a function from files
//! to [`Violation`]s. Beside the test over the real tree, every rule is fed snippets that break it: a test that cannot
//! fail is worthless.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may panic

#[path = "house/source.rs"]
mod source;

use std::collections::HashSet;
use std::fmt;
use std::io::Write as _;

use source::{File, Kind, Name, house, lex, matches, tree};

// ---------------------------------------------------------------------------------------------------------------------
// The rules, as tables.

/// Who stands where: a file names only lower floors and its own module. A new top-level module is added here.
const FLOORS: &[(&str, i32)] = &[
    ("error", CELLAR),
    ("clock", GROUND),
    ("core_dump", GROUND),
    ("retry", GROUND),
    ("shared_file", GROUND),
    ("sync", GROUND),
    ("crypto", 0),
    ("format", 1),
    ("key", 2),
    ("kms", 3),
    ("store", 3),
    ("row", 3),
    ("watermark", 3),
    ("keyring", 4),
    ("sealer", FACADE),
    ("page", FACADE),
    ("hot", FACADE),
    ("admin", FACADE),
    ("plan", FACADE),
    ("reseal", FACADE),
    ("room", FACADE),
    ("local_room", FACADE),
    ("file", FACADE),
    ("testing", 6),
];
const CELLAR: i32 = -2;
const GROUND: i32 = -1;
/// Async starts here; below, everything is synchronous and without I/O.
const FIRST_ASYNC: i32 = 3;
/// The one floor whose modules may name each other.
const FACADE: i32 = 5;

/// Modules that never name a certain other one although the floors alone would allow it.
const STRANGERS: &[(&str, &str)] = &[
    // kms, store and format do not know each other.
    ("kms", "format"),
    ("store", "format"),
    // The data plane cannot reach the control plane.
    ("sealer", "admin"),
    ("page", "admin"),
    ("hot", "admin"),
    ("file", "admin"),
    // A plan is arithmetic over policies: it needs no room.
    ("plan", "kms"),
    ("plan", "store"),
    ("plan", "keyring"),
    ("plan", "admin"),
];

/// Crates with a home: (crates, homes). A trailing `*` is any ending; a home is that file, or the folder of that name.
const HOMES: &[(&[&str], &[&str])] = &[
    (&["aws_lc_rs", "aws_lc_sys"], &["src/crypto/aead", "src/crypto/key_transport"]),
    (&["aes", "aes_gcm", "chacha20", "chacha20poly1305"], &["src/crypto/aead"]),
    (&["hpke"], &["src/crypto/key_transport"]),
    (&["hkdf"], &["src/crypto/kdf"]),
    (&["hmac"], &["src/crypto/kdf", "src/crypto/mac"]),
    (&["sha2"], &["src/crypto/kdf", "src/crypto/mac", "src/crypto/digest"]),
    (&["ed25519_dalek"], &["src/crypto/signing"]),
    (&["rand", "rand_core", "getrandom"], &["src/crypto/random"]),
    (&["object_store"], &["src/watermark/object"]),
    (&["strongroom_fork_guard"], &["src/crypto/generation"]),
    (&["sqlx", "libsqlite3_sys"], &["src/store/sqlite", "src/store/postgres"]),
    (
        &["aws_sdk_*", "aws_config", "aws_credential_types", "aws_types", "aws_smithy_*", "http_body_util"],
        &["src/kms/aws*"],
    ),
];

/// Below [`FIRST_ASYNC`] and above the ground nobody names these: time is handed in, and I/O happens upstairs.
const IMPURE: &[&[&str]] =
    &[&["tokio"], &["std", "fs"], &["std", "net"], &["std", "process"], &["Instant", "now"], &["SystemTime", "now"]];

/// The names that say nothing.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc"];

/// How long a file and a function may be, in lines that are not tests: where to stop and think, and where the test fails.
const THINK: Sizes = Sizes { file: 500, function: 70 };
const STOP: Sizes = Sizes { file: 700, function: 120 };

#[derive(Clone, Copy)]
struct Sizes {
    file: usize,
    function: usize,
}

/// One broken rule, at one line.
#[derive(Debug)]
struct Violation {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The rules, as functions.

fn every_module_has_a_floor(files: &[File]) -> Vec<Violation> {
    let lost = files.iter().filter(|f| !f.is_lib() && floor_of(f.module()).is_none());
    lost.map(|f| f.violation(1, format!("say which floor `{}` is on: FLOORS in tests/house.rs", f.module()))).collect()
}

/// Imports point downwards only.
fn floors(files: &[File]) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in files {
        let Some(floor) = floor_of(file.module()) else { continue };
        for name in file.names().iter().filter(|n| n.root() == "crate") {
            let Some(other) = name.segments.get(1).map(String::as_str) else { continue };
            if other == file.module() || file.module() == "testing" {
                continue;
            }
            let Some(other_floor) = floor_of(other) else {
                let what = format!("`{name}`: name it by its module, so that its floor can be seen");
                found.push(file.violation(name.line, what));
                continue;
            };
            let level = floor == other_floor && floor != FACADE;
            if level || other_floor > floor || STRANGERS.contains(&(file.module(), other)) {
                let what = format!("`{}` must not name `{other}` (`{name}`)", file.module());
                found.push(file.violation(name.line, what));
            }
        }
    }
    found
}

/// `super` stays inside the top-level module and climbs one step at most, so that [`floors`] sees every name.
fn no_climbing_out(files: &[File]) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in files.iter().filter(|f| !f.is_lib()) {
        for name in file.names() {
            let climbs = name.segments.iter().take_while(|s| *s == "super" || *s == "self");
            let climbs = climbs.filter(|s| *s == "super").count();
            if climbs > 1 || climbs >= file.depth() + name.inline_depth {
                found.push(file.violation(name.line, format!("`{name}` climbs out: write `crate::…` in full")));
            }
        }
    }
    found
}

/// Backends, generators, databases and SDKs are named in one place each.
fn crates_at_home(files: &[File]) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in files {
        let names = file.names();
        // A module or an import of ours may bear a crate's name.
        let ours: HashSet<_> = names.iter().filter(|n| n.is_ours()).filter_map(Name::binding).collect();
        for name in names.iter().filter(|n| n.imported || n.segments.len() > 1) {
            for (crates, homes) in HOMES {
                let here = homes.iter().any(|home| file.lives_at(home));
                if !here && crates.iter().any(|c| matches(c, name.root())) && !ours.contains(name.root()) {
                    let what = format!("`{}` is named only in {}", name.root(), homes.join(", "));
                    found.push(file.violation(name.line, what));
                }
            }
        }
    }
    found
}

/// SQL is written in `store` and nowhere else. Upper-case keywords, or lower-case openings that no sentence starts with.
fn sql_in_store(files: &[File]) -> Vec<Violation> {
    const KEYWORDS: &[&str] =
        &["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP", "PRAGMA", "BEGIN", "COMMIT", "ROLLBACK"];
    const OPENINGS: &[&str] = &[
        "select * from",
        "insert into",
        "insert or",
        "delete from",
        "create table",
        "create index",
        "create unique index",
        "alter table",
        "drop table",
        "begin immediate",
    ];
    let mut found = Vec::new();
    for file in files.iter().filter(|f| !f.path.starts_with("src/store/") && f.path != "src/store.rs") {
        for text in file.code().filter(|t| t.kind == Kind::Text) {
            let sql = text.text.replace("\\n", " ").replace('\\', " ");
            let first = sql.split(|c: char| !c.is_alphanumeric() && c != '_').find(|w| !w.is_empty());
            let starts_bare = sql.trim_start().starts_with(|c: char| c.is_alphabetic());
            let lower = sql.trim_start().to_lowercase();
            if starts_bare && first.is_some_and(|w| KEYWORDS.contains(&w))
                || OPENINGS.iter().any(|opening| lower.starts_with(opening))
            {
                let what = format!("SQL outside src/store: \"{}…\"", sql.trim().chars().take(30).collect::<String>());
                found.push(file.violation(text.line, what));
            }
        }
    }
    found
}

/// Floors 0 to 2 are synchronous and pure: no async, no I/O, no clock read.
fn sync_and_pure_below_floor_3(files: &[File]) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in files.iter().filter(|f| floor_of(f.module()).is_some_and(|floor| floor < FIRST_ASYNC)) {
        for word in file.code().filter(|t| t.kind == Kind::Word && matches!(t.text.as_str(), "async" | "await")) {
            found.push(file.violation(word.line, format!("`{}` below floor {FIRST_ASYNC}", word.text)));
        }
        // The ground is where the machine's clock is read.
        let above_ground = floor_of(file.module()) > Some(GROUND);
        for name in file.names().iter().filter(|_| above_ground) {
            let impure = |path: &&&[&str]| name.segments.windows(path.len()).any(|w| w == **path);
            if let Some(path) = IMPURE.iter().find(impure) {
                let what = format!("`{}` below floor {FIRST_ASYNC}: time and bytes are handed in", path.join("::"));
                found.push(file.violation(name.line, what));
            }
        }
    }
    found
}

/// Nothing unsafe, unfinished or printed; tests included.
fn no_banned_words(files: &[File]) -> Vec<Violation> {
    const MACROS: &[&str] = &["todo", "unimplemented", "dbg", "print", "println", "eprint", "eprintln"];
    let mut found = Vec::new();
    for file in files {
        for (at, token) in file.tokens.iter().enumerate().filter(|(_, t)| t.kind == Kind::Word) {
            let called = file.tokens.get(at + 1).is_some_and(|t| t.is("!"));
            if token.text == "unsafe" || (called && MACROS.contains(&token.text.as_str())) {
                let bang = if called { "!" } else { "" };
                found.push(file.violation(token.line, format!("`{}{bang}` has no place in src", token.text)));
            }
        }
    }
    found
}

/// One concept, one file, named after it.
fn names_that_say_something(files: &[File]) -> Vec<Violation> {
    let empty = |path: &str| path.trim_end_matches(".rs").split('/').any(|part| EMPTY_NAMES.contains(&part));
    let found = files.iter().filter(|f| empty(&f.path));
    found.map(|f| f.violation(1, "name the file after its one concept".to_owned())).collect()
}

/// Files and functions longer than `limit`, test lines aside.
fn sizes(files: &[File], limit: Sizes) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in files {
        let lines = file.lines_of_code();
        if lines > limit.file {
            found.push(file.violation(1, format!("file of {lines} lines (over {})", limit.file)));
        }
        for (name, line, lines) in file.functions() {
            if lines > limit.function {
                found.push(file.violation(line, format!("fn {name} of {lines} lines (over {})", limit.function)));
            }
        }
    }
    found
}

fn sizes_that_stop(files: &[File]) -> Vec<Violation> {
    sizes(files, STOP)
}

type Rule = fn(&[File]) -> Vec<Violation>;
const RULES: &[Rule] = &[
    every_module_has_a_floor,
    floors,
    no_climbing_out,
    crates_at_home,
    sql_in_store,
    sync_and_pure_below_floor_3,
    no_banned_words,
    names_that_say_something,
    sizes_that_stop,
];

fn floor_of(module: &str) -> Option<i32> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

// ---------------------------------------------------------------------------------------------------------------------
// The test over the real tree.

#[test]
fn the_house_stands() {
    let files = tree();
    assert!(files.iter().any(File::is_lib) && files.len() > 10, "only {} files found", files.len());
    let mut broken: Vec<_> = RULES.iter().flat_map(|rule| rule(&files)).map(|v| v.to_string()).collect();
    broken.sort();
    assert!(broken.is_empty(), "the house rules (CONTRIBUTING.md) are broken:\n{}", broken.join("\n"));
}

#[test]
fn long_files_and_functions_are_reported() {
    let files = tree();
    // Not by eprintln!, which the test harness swallows when a test passes.
    for long in sizes(&files, THINK) {
        let _ = writeln!(std::io::stderr(), "stop and think: {long}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Each rule sees what breaks it, and lets pass what does not.

/// What `rule` says of one file, as `line: what` (the path is known).
fn flagged(rule: Rule, path: &str, text: &str) -> Vec<String> {
    rule(&house([(path, text)])).iter().map(|v| format!("{}: {}", v.line, v.what)).collect()
}

#[track_caller]
fn refuses(rule: Rule, path: &str, text: &str) {
    assert_eq!(flagged(rule, path, text).len(), 1, "{:?} of {path}: {text}", flagged(rule, path, text));
}

#[track_caller]
fn accepts(rule: Rule, path: &str, text: &str) {
    assert_eq!(flagged(rule, path, text), [""; 0], "{path}: {text}");
}

#[test]
fn a_module_without_a_floor_is_flagged() {
    assert!(flagged(every_module_has_a_floor, "src/attic/mod.rs", "")[0].contains("say which floor `attic`"));
    refuses(every_module_has_a_floor, "src/attic.rs", "");
    accepts(every_module_has_a_floor, "src/kms/aws/mod.rs", "");
    accepts(every_module_has_a_floor, "src/lib.rs", "");
}

#[test]
fn a_name_from_a_higher_floor_is_flagged() {
    refuses(floors, "src/crypto/kdf.rs", "use crate::key::id::KeyId;");
    refuses(floors, "src/key/record.rs", "fn f() -> crate::store::Row { todo!() }");
    refuses(floors, "src/key.rs", "use crate::{error::Error, crypto::{self, kdf}, keyring::Cache as C};");
    refuses(floors, "src/keyring/load.rs", "impl<T: crate::sealer::Seal> Load for T {}");
    refuses(floors, "src/keyring/load.rs", "pub(in crate::room) fn f() {}");
    refuses(floors, "src/sealer.rs", "use crate::testing::Faults;");
    refuses(floors, "src/format/header.rs", "#[cfg(any(test, feature = \"testing\"))] use crate::key::id;");
    accepts(floors, "src/key/record.rs", "use crate::{clock::Clock, crypto::kdf, error::Error, format, key::id};");
    accepts(floors, "src/keyring/load.rs", "use crate::{kms::Kms, store::KeyStore, key::id};");
    accepts(floors, "src/room.rs", "use crate::{admin::Admin, sealer::Sealer, keyring};");
    accepts(floors, "src/testing/kms.rs", "use crate::{Error, kms::Kms, room::Room};");
    accepts(floors, "src/lib.rs", "pub use crate::room::Room;");
}

#[test]
fn strangers_on_one_floor_are_flagged() {
    refuses(floors, "src/kms/local.rs", "use crate::store::KeyStore;");
    refuses(floors, "src/kms/local.rs", "use crate::format::header;");
    refuses(floors, "src/store/memory.rs", "use crate::kms::Kms;");
    refuses(floors, "src/store/memory.rs", "use crate::format::header;");
    refuses(floors, "src/watermark/file.rs", "use crate::store::KeyStore;");
    accepts(floors, "src/watermark/file.rs", "use crate::{key::id, shared_file::SharedFile};");
    refuses(floors, "src/clock.rs", "use crate::crypto::kdf;");
    refuses(floors, "src/error.rs", "use crate::clock::Clock;");
    refuses(floors, "src/sealer.rs", "use crate::admin::Admin;");
    accepts(floors, "src/clock.rs", "use crate::error::Error;");
    accepts(floors, "src/store/memory.rs", "use crate::{key::record, crypto::secret, clock::Clock, store::KeyStore};");
}

#[test]
fn a_name_by_way_of_the_crate_root_is_flagged() {
    refuses(floors, "src/kms/local.rs", "use crate::Strongroom;");
    refuses(floors, "src/kms/local.rs", "use crate::*;");
    refuses(no_climbing_out, "src/kms/aws/retry.rs", "use super::super::Kms;");
    refuses(no_climbing_out, "src/kms.rs", "use super::store;");
    refuses(no_climbing_out, "src/kms/mod.rs", "fn f() { super::store::put() }");
    refuses(no_climbing_out, "src/kms/mod.rs", "use self::super::store;");
    accepts(no_climbing_out, "src/kms/local.rs", "use super::Kms;");
    accepts(no_climbing_out, "src/kms/mod.rs", "mod sealed { use super::Kms; } use self::sealed::S;");
    refuses(no_climbing_out, "src/kms/mod.rs", "mod sealed { pub trait S {} } use super::store;");
}

#[test]
fn a_crate_away_from_home_is_flagged() {
    refuses(crates_at_home, "src/format/header.rs", "use aes_gcm::Aes256Gcm;");
    refuses(crates_at_home, "src/crypto/xaes.rs", "fn f() { let k = ::aws_lc_rs::aead::X; }");
    refuses(crates_at_home, "src/crypto/secret.rs", "use {rand::Rng, subtle::Choice};");
    refuses(crates_at_home, "src/crypto/secret.rs", "use rand as r;");
    refuses(crates_at_home, "src/crypto/random.rs", "use strongroom_fork_guard::Generation;");
    refuses(crates_at_home, "src/crypto/secret.rs", "extern crate rand;");
    refuses(crates_at_home, "src/kms/local_import.rs", "use hpke::kem::Kem;");
    refuses(crates_at_home, "src/crypto/key_transport.rs", "use aes_gcm::Aes256Gcm;");
    accepts(crates_at_home, "src/crypto/key_transport.rs", "use aws_lc_rs::rsa::KeySize; use hpke::Kem;");
    refuses(crates_at_home, "src/key/id.rs", "type H = sha2::Sha512;");
    refuses(crates_at_home, "src/store/mod.rs", "#[derive(sqlx::FromRow)] struct Row;");
    refuses(crates_at_home, "src/error.rs", "impl From<sqlx::Error> for Error {}");
    refuses(crates_at_home, "src/kms/router.rs", "use aws_sdk_kms::Client;");
    refuses(crates_at_home, "src/kms/mod.rs", "use aws_credential_types::Credentials;");
    refuses(crates_at_home, "src/watermark/mod.rs", "use object_store::ObjectStore;");
    accepts(crates_at_home, "src/watermark/object.rs", "use object_store::ObjectStore;");
    accepts(crates_at_home, "src/crypto/random.rs", "use rand::Rng;");
    accepts(crates_at_home, "src/crypto/generation.rs", "pub(crate) use strongroom_fork_guard::Process;");
    accepts(crates_at_home, "src/store/sqlite/mod.rs", "use sqlx::SqlitePool;");
    accepts(crates_at_home, "src/store/sqlite.rs", "fn f() { sqlx::query!(\"SELECT 1\") }");
    accepts(crates_at_home, "src/kms/aws_errors.rs", "use aws_sdk_kms::Client;");
    accepts(crates_at_home, "src/key/id.rs", "// rand::rng()\nfn f(rand: u8) { let hmac = [rand]; hmac.len(); }");
    accepts(crates_at_home, "src/key/id.rs", "use crate::crypto::aes; mod hmac; fn f() { aes::g(); hmac::h(); }");
}

#[test]
fn sql_outside_store_is_flagged() {
    refuses(sql_in_store, "src/keyring/load.rs", "const Q: &str = \"SELECT 1\";");
    refuses(sql_in_store, "src/admin.rs", "f(r#\"\n  UPDATE \"keys\" SET state = 1\"#);");
    refuses(sql_in_store, "src/admin.rs", "f(\"\\\n  insert into keys values (1)\");");
    refuses(sql_in_store, "src/admin.rs", "f(\"BEGIN\")");
    accepts(sql_in_store, "src/store/sqlite/rows.rs", "const Q: &str = \"SELECT 1\";");
    accepts(sql_in_store, "src/admin.rs", "/// SELECT\nf(\"update the policy\", \"-----BEGIN KEY\", \"CREATED\", 'S')");
}

#[test]
fn async_and_io_below_floor_3_are_flagged() {
    refuses(sync_and_pure_below_floor_3, "src/key/policy.rs", "pub async fn f() {}");
    refuses(sync_and_pure_below_floor_3, "src/clock.rs", "fn f() { g().await }");
    refuses(sync_and_pure_below_floor_3, "src/key/policy.rs", "fn f() { std::time::SystemTime::now(); }");
    refuses(sync_and_pure_below_floor_3, "src/format/reader.rs", "use std::{fmt, fs::File};");
    refuses(sync_and_pure_below_floor_3, "src/crypto/kdf.rs", "use tokio::sync::Mutex;");
    accepts(sync_and_pure_below_floor_3, "src/kms/local.rs", "async fn f() { tokio::fs::read(p).await; }");
    accepts(sync_and_pure_below_floor_3, "src/clock.rs", "fn f() { std::time::Instant::now(); }");
    accepts(sync_and_pure_below_floor_3, "src/key/policy.rs", "// async\nfn f(now: Instant) { r#\"async fn\"#; }");
}

#[test]
fn unsafe_unfinished_and_printing_code_is_flagged() {
    refuses(no_banned_words, "src/lib.rs", "fn f() { unsafe { g() } }");
    refuses(no_banned_words, "src/kms/local.rs", "fn f() { todo!() }");
    refuses(no_banned_words, "src/kms/local.rs", "fn f() { unimplemented!(\"later\") }");
    refuses(no_banned_words, "src/kms/local.rs", "fn f() { std::println!() }");
    refuses(no_banned_words, "src/kms/local.rs", "#[cfg(test)] mod tests { fn f() { dbg!(1); } }");
    accepts(
        no_banned_words,
        "src/lib.rs",
        "#![forbid(unsafe_code)]\n// todo!()\nfn f() { print(\"dbg!\", todo != 1) }",
    );
}

#[test]
fn a_name_that_says_nothing_is_flagged() {
    refuses(names_that_say_something, "src/kms/util.rs", "");
    refuses(names_that_say_something, "src/common/mod.rs", "");
    refuses(names_that_say_something, "src/store/helpers/row.rs", "");
    accepts(names_that_say_something, "src/store/commons_clause.rs", "");
}

#[test]
fn long_files_and_functions_are_flagged() {
    let body = |lines: usize| format!("fn f(a: [u8; 2]) {{\n{}}}\n", "g(\"{\", '{');\n".repeat(lines - 2));
    refuses(sizes_that_stop, "src/room.rs", &body(121));
    accepts(sizes_that_stop, "src/room.rs", &body(120));
    accepts(sizes_that_stop, "src/room.rs", &format!("trait T {{ fn f(); }}\n{}", body(120)));
    refuses(sizes_that_stop, "src/room.rs", &"// a\n".repeat(701));
    accepts(sizes_that_stop, "src/room.rs", &"// a\n".repeat(700));
    let tests = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", body(20), body(900));
    accepts(sizes_that_stop, "src/room.rs", &tests);
    let long = sizes(&house([("src/room.rs", body(71))]), THINK);
    assert_eq!(long[0].to_string(), "src/room.rs:1: fn f of 71 lines (over 70)");
}

#[test]
fn test_code_is_set_aside_and_nothing_else() {
    let bad = "use crate::room::Room;";
    for test in [
        format!("#[cfg(test)] mod tests {{ {bad} }}"),
        format!("#[cfg(test)]\n#[allow(dead_code)]\npub(crate) mod tests {{ fn f() {{ }} {bad} }}"),
        format!("#[cfg(test)] {bad}"),
        format!("#[test] fn f() {{ {bad} }}"),
        format!("#[cfg(all(test, feature = \"sqlite\"))] mod tests {{ {bad} }}"),
        format!("#![cfg(test)] {bad}"),
        "struct S { #[cfg(test)] room: crate::room::Room, b: u8 }".to_owned(),
    ] {
        accepts(floors, "src/kms/local.rs", &test);
    }
    for code in [
        format!("#[cfg(test)] mod tests {{ const B: char = '}}'; const S: &str = \"}}\"; }} {bad}"),
        format!("#[cfg(test)] use std::{{fs, io}}; {bad}"),
        format!("#[cfg(test)] fn f(a: [u8; 2]) {{}} {bad}"),
        format!("#[cfg(not(test))] mod tests {{ {bad} }}"),
        format!("/* /* nested */ */ impl<'a> S<'a> {{}} {bad}"),
        format!("const A: u8 = b'\\''; const C: char = '\"'; const R: &str = r#\"\"//\"#; {bad}"),
        "struct S { #[cfg(test)] a: u8, room: crate::room::Room }".to_owned(),
    ] {
        refuses(floors, "src/kms/local.rs", &code);
    }
    let apart = |declared: &str| {
        let files = house([("src/kms/mod.rs", declared), ("src/kms/vectors.rs", bad), ("src/kms/local.rs", "")]);
        floors(&files).len()
    };
    assert_eq!((apart("#[cfg(test)] mod vectors;"), apart("mod vectors;")), (0, 1));
}

#[test]
fn lines_and_literals_are_read_as_written() {
    let tokens = lex("a // b\n/* c\n */ \"d\\\"\n\" r#e 'f' 'g\nbr##\"h\"# i\"## j");
    let words: Vec<_> = tokens.iter().map(|t| (t.kind, t.text.as_str(), t.line)).collect();
    assert_eq!(
        words,
        [
            (Kind::Word, "a", 1),
            (Kind::Text, "d\\\"\n", 3),
            (Kind::Word, "r", 4),
            (Kind::Mark, "#", 4),
            (Kind::Word, "e", 4),
            (Kind::Other, "'f'", 4),
            (Kind::Other, "'g", 4),
            (Kind::Text, "h\"# i", 5),
            (Kind::Word, "j", 5),
        ]
    );
}
