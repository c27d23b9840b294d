//! SECURITY.md's promises: each has an id of its own and names tests, and each test that a document names exists and is run.
#![allow(clippy::unwrap_used, clippy::panic)] // a test may panic

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENTS: [&str; 4] = ["SECURITY.md", "FORMAT.md", "ARCHITECTURE.md", "README.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// All that stands between backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// `FILE::…::TEST`, where FILE is a test's or a source's.
fn names_a_test(word: &str) -> bool {
    let lower = |part: &str| {
        let of_a_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        part.chars().all(of_a_name) && part.starts_with(|c: char| c.is_ascii_lowercase())
    };
    let Some((file, rest)) = word.split_once("::") else { return false };
    let is_file = match file.strip_suffix(".rs") {
        Some(source) => source.split('/').all(lower) && root().join("src").join(file).is_file(),
        None => lower(file) && (test_file(file).is_some() || file == "rooms"),
    };
    is_file && rest.split("::").all(lower)
}

fn test_file(name: &str) -> Option<PathBuf> {
    [format!("tests/{name}.rs"), format!("tests/{name}/main.rs")]
        .into_iter()
        .map(|path| root().join(path))
        .find(|path| path.is_file())
}

/// The text that has to hold the test.
fn source_of(name: &str) -> Result<String, String> {
    let parts: Vec<&str> = name.split("::").collect();
    let (file, modules) = (parts[0], &parts[1..parts.len() - 1]);
    let candidates = if Path::new(file).extension().is_some() {
        vec![root().join("src").join(file)]
    } else if file == "rooms" {
        vec![root().join("fork-guard/tests/rooms.rs")]
    } else if modules.is_empty() {
        test_file(file).into_iter().collect()
    } else {
        let folder = root().join("tests").join(file);
        let modules = modules.join("/");
        vec![folder.join(format!("{modules}.rs")), folder.join(modules).join("mod.rs")]
    };
    let found = candidates.iter().find_map(|path| fs::read_to_string(path).ok());
    found.ok_or_else(|| format!("{name}: there is no file of it"))
}

/// Whether the source has the test, and runs it when nobody asks for it.
fn check(name: &str) -> Result<(), String> {
    let source = source_of(name)?;
    let test = name.rsplit("::").next().unwrap_or_default();
    if name.starts_with("rooms::") {
        // It has a table in place of a harness.
        return if source.contains(&format!("(\"{test}\", ")) {
            Ok(())
        } else {
            Err(format!("{name}: not in the table"))
        };
    }
    let at = source.find(&format!("fn {test}(")).ok_or_else(|| format!("{name}: there is no such function"))?;
    // What stands between the item before and this one: its attributes.
    let before = &source[..at];
    let attributes = &before[before.rfind(['}', ';']).map_or(0, |at| at + 1)..];
    let is_test = ["#[test]", "#[tokio::test"].iter().any(|attribute| attributes.contains(attribute));
    match (is_test, attributes.contains("#[ignore")) {
        (false, _) => Err(format!("{name}: is no test")),
        (_, true) => Err(format!("{name}: is ignored")),
        _ => Ok(()),
    }
}

#[test]
fn every_test_that_a_document_names_exists_and_is_run() {
    let mut wrong = Vec::new();
    let mut named = BTreeSet::new();
    for document in DOCUMENTS {
        let text = read(document);
        for name in code(&text).filter(|word| names_a_test(word)) {
            named.insert(name.to_owned());
            wrong.extend(check(name).err().map(|why| format!("{document}: {why}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(named.len() > 120, "only {} tests are named: are they still recognised?", named.len());
}

#[test]
fn every_promise_has_an_id_of_its_own_and_a_test() {
    let text = read("SECURITY.md");
    let mut promises: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut tables, mut lines) = (0, text.lines().peekable());
    while let Some(line) = lines.next() {
        assert!(
            !line.contains("| promise |") || line == "| id | promise | shown by |",
            "a promise without an id: {line}"
        );
        if line != "| id | promise | shown by |" {
            continue;
        }
        tables += 1;
        assert_eq!(lines.next(), Some("|---|---|---|"));
        let mut expected = 1;
        while let Some(row) = lines.next_if(|line| line.starts_with('|')) {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            let [id, promise, shown_by] = cells[..] else { panic!("three cells: {row}") };
            assert_eq!(id[1..].parse(), Ok(expected), "{id}: numbers follow each other");
            expected += 1;
            assert!(promises.insert(id, promise).is_none(), "{id} is two promises");
            assert!(code(shown_by).any(names_a_test), "{id} names no test");
        }
    }
    assert!(tables >= 11 && promises.len() > 65, "{tables} tables of {} promises", promises.len());
}

#[test]
fn a_name_that_is_wrong_is_found() {
    for wrong in
        ["room::denied_is_down", "key/id.rs::nothing", "files::kill::child", "files::nowhere::test", "rooms::nothing"]
    {
        assert!(names_a_test(wrong) && check(wrong).is_err(), "{wrong}");
    }
    for right in ["room::denied_is_not_down", "files::kill::thirty_kills_leave_the_target_absent_or_whole"] {
        assert_eq!((names_a_test(right), check(right)), (true, Ok(())), "{right}");
    }
    for no_test in ["Admin::evict", "std::mem", "strongroom::testing", "kms:EncryptionContext", "row", "tokio::test"] {
        assert!(!names_a_test(no_test), "{no_test}");
    }
}

/// Each verb of the control plane says what it fails as, and where the rest is said that every verb may fail as.
#[test]
fn every_verb_of_the_control_plane_says_what_it_fails_as() {
    // What reads no tenant's row, or answers row by row.
    const OTHERS: [&str; 3] = ["tenants", "probe", "all_opens_suspended_until"];
    let mut files: Vec<PathBuf> =
        fs::read_dir(root().join("src/admin")).unwrap().map(|it| it.unwrap().path()).collect();
    files.push(root().join("src/reseal.rs"));
    let (mut verbs, mut silent) = (0, Vec::new());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let mut docs = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(doc) = line.strip_prefix("///") {
                docs.push_str(doc);
            } else if let Some(rest) = line.strip_prefix("pub async fn ") {
                let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let errors = docs.split("# Errors").nth(1).unwrap_or_default();
                let says = ["very verb ([`Admin`]", "s [`Self::", "s [`ScopeHandle::", "s there."]
                    .iter()
                    .any(|it| errors.contains(it));
                verbs += 1;
                if !says && !OTHERS.contains(&name.as_str()) {
                    silent.push(name);
                }
                docs.clear();
            } else if !line.starts_with("#[") {
                docs.clear();
            }
        }
    }
    assert!(verbs > 25, "{verbs}");
    assert!(silent.is_empty(), "of these verbs it is not said what every verb may fail as: {silent:?}");
}
