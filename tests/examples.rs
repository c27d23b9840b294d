//! The examples run, and say what the README says of them.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::panic)] // a test may panic

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The example as `cargo test` built it, beside this test: `target/PROFILE/examples/NAME`.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let binary = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(binary.exists(), "`cargo test --test examples` does not build the examples: run `cargo build --examples`");
    binary
}

/// Runs an example that should succeed; what it printed.
fn run(name: &str, arguments: &[&Path]) -> String {
    let ran = Command::new(example(name)).args(arguments).output().unwrap();
    let (out, err) = (String::from_utf8(ran.stdout).unwrap(), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{name}: {}\n{out}\n{err}", ran.status);
    out
}

/// The number in a row of the import's table.
fn figure(table: &str, row: &str) -> usize {
    let line = table.lines().find_map(|line| line.strip_prefix(row)).unwrap_or_else(|| panic!("no {row:?}:\n{table}"));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn quickstart() {
    let out = run("quickstart", &[]);
    assert!(!out.contains('✗'), "{out}");
    for line in [
        "the new message has a new key",
        "the other tenant: open: unopenable",
        "a stranger's KEK: unwrap data key: denied",
        "revoked: open: revoked",
        "the messages are not",
        "All as claimed.",
    ] {
        assert!(out.contains(line), "{line:?} is missing:\n{out}");
    }
    let records = out.lines().filter(|line| line.contains("hour=") && line.contains("77 bytes")).count();
    assert!(records >= 4, "{out}");
}

#[test]
fn life_cycle() {
    for (name, lines) in [
        ("rotate_tenant", ["3 records rewrapped", "6 of 7 messages sealed anew", "3 old data keys destroyed"]),
        ("revoke_channel", ["keys@acme.example can restore it", "the data key was erased", "1 data key destroyed"]),
        ("migrate_region", ["us-east-1", "6 of 7 messages sealed anew", "local:acme-us"]),
    ] {
        let out = run(name, &[]);
        assert!(!out.contains('✗') && out.ends_with("All as claimed.\n"), "{out}");
        for line in lines {
            assert!(out.contains(line), "{name}: {line:?} is missing:\n{out}");
        }
    }
}

#[test]
fn onboard_tenant() {
    let out = run("onboard_tenant", &[]);
    assert!(!out.contains('✗') && out.ends_with("All as claimed.\n"), "{out}");
    for line in
        ["tenant acme: NOT READY", "tenant acme: ready", "kms:EncryptionContext:channel", "KMS calls", "WARNING"]
    {
        assert!(out.contains(line), "{line:?} is missing:\n{out}");
    }
}

#[cfg(feature = "byok")]
#[test]
fn byok_import() {
    let out = run("byok_import", &[]);
    assert!(!out.contains('✗'), "{out}");
    for line in [
        "$ openssl pkeyutl -encrypt",
        "imported: local:acme-2026",
        "another check value: finish import: invalid argument",
        "a byte is missing: finish import: invalid argument: the material does not unwrap",
        "once more: invalid argument: no import is under way with this token",
        "imported: local:acme-2027, 552 bytes",
        "All as claimed.",
    ] {
        assert!(out.contains(line), "{line:?} is missing:\n{out}");
    }
}

#[test]
fn import_chat_of_the_export_in_the_repository() {
    let out = run("import_chat", &[]);
    let messages = figure(&out, "messages");
    assert_eq!(messages, 58);
    assert_eq!(figure(&out, "channels"), 3);
    assert_eq!(figure(&out, "overhead per message"), 75 + "eu-central-1".len());
    assert_eq!(figure(&out, "bytes after") - figure(&out, "bytes before"), messages * (75 + "eu-central-1".len()));
    let keys = figure(&out, "distinct data keys");
    assert_eq!(keys, 24); // as counted in the export: hours with messages, channel by channel
    assert_eq!(figure(&out, "KMS calls to seal"), 2 * keys + 1);
    assert_eq!(figure(&out, "KMS calls to open"), keys);
}

/// Two channels and a direct conversation, 2 000 messages at a distance of 100 s each: 36 an hour.
fn generate(export: &Path) {
    fs::write(export.join("users.json"), r#"[{"id": "U1", "team_id": "T9"}]"#).unwrap();
    fs::write(export.join("channels.json"), r#"[{"id": "C1", "name": "a"}, {"id": "C2", "name": "empty"}]"#).unwrap();
    fs::write(export.join("dms.json"), r#"[{"id": "D1", "members": ["U1", "U2"]}]"#).unwrap();
    for (folder, count) in [("a", 1500), ("D1", 500)] {
        fs::create_dir(export.join(folder)).unwrap();
        let mut day = String::new();
        for i in 0..count {
            let text = "Größe 🦀 \\u0000 ".repeat(i % 50);
            let comma = if day.is_empty() { '[' } else { ',' };
            let ts = 1_772_409_600 + 100 * i; // 2026-03-02T00:00:00Z
            write!(day, "{comma}\n {{\"ts\" : \"{ts}.{i:06}\", \"text\":\"{text}\", \"n\": {i}.50e1}}").unwrap();
            if (i + 1) % 864 == 0 || i + 1 == count {
                let date = format!("2026-03-{:02}.json", 2 + i / 864);
                fs::write(export.join(folder).join(date), format!("{day}\n]")).unwrap();
                day.clear();
            }
        }
    }
}

#[test]
fn import_chat_of_2000_messages_into_a_folder_that_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (export, into) = (folder.path().join("export"), folder.path().join("into"));
    fs::create_dir(&export).unwrap();
    generate(&export);
    let out = run("import_chat", &[&export, &into]);
    assert_eq!(figure(&out, "messages"), 2000);
    assert_eq!(figure(&out, "distinct data keys"), 1500_usize.div_ceil(36) + 500_usize.div_ceil(36));
    let stored = fs::read(into.join("messages.db")).unwrap();
    assert!(!stored.windows(7).any(|w| w == "Größe".as_bytes()), "plaintext in the table");
    assert!(stored.windows(12).any(|w| w == b"eu-central-1"), "no envelope in the table");

    // A folder is never imported into twice.
    let again = Command::new(example("import_chat")).args([&export, &into]).output().unwrap();
    assert!(!again.status.success());
}

/// Runs the import of a generated export that `change` was made to; what it printed, or its error.
fn import_of(change: impl FnOnce(&Path)) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    generate(folder.path());
    change(folder.path());
    let ran = Command::new(example("import_chat")).arg(folder.path()).output().unwrap();
    let (out, err) = (String::from_utf8(ran.stdout).unwrap(), String::from_utf8(ran.stderr).unwrap());
    if ran.status.success() { Ok(out) } else { Err(err) }
}

#[test]
fn import_chat_says_which_folders_and_names_do_not_fit() {
    let lists =
        |channels: &'static str| move |export: &Path| fs::write(export.join("channels.json"), channels).unwrap();
    let renamed = |export: &Path| fs::rename(export.join("a"), export.join("b")).unwrap();
    for (what, refused) in [
        ("/b; listed without a folder: a, empty", import_of(renamed)),
        ("/a; listed", import_of(lists(r#"[{"id": "C2", "name": "empty"}]"#))),
        ("/a; listed without a folder: ../a", import_of(lists(r#"[{"id": "C1", "name": "../a"}]"#))),
        ("C1 is listed twice", import_of(lists(r#"[{"id": "C1", "name": "a"}, {"id": "C1", "name": "b"}]"#))),
        ("channels.json: ", import_of(lists(r#"{"id": "C1"}"#))),
        ("team_id", import_of(|export| fs::write(export.join("users.json"), r#"[{"id": "U1"}]"#).unwrap())),
        (
            "a/2026-03-02.json: ",
            import_of(|export| fs::write(export.join("a/2026-03-02.json"), r#"[{"ts": "noon"}]"#).unwrap()),
        ),
    ] {
        let refused = refused.expect_err(what);
        assert!(refused.contains(what), "{what}: {refused}");
    }
}

#[test]
fn import_chat_takes_exports_as_people_have_them() {
    let composed = |export: &Path| {
        fs::write(export.join("channels.json"), "[{\"id\": \"C1\", \"name\": \"caf\u{e9}\"}]").unwrap();
        fs::rename(export.join("a"), export.join("cafe\u{301}")).unwrap();
    };
    let by_an_editor = |export: &Path| {
        for file in ["users.json", "a/2026-03-02.json"].map(|file| export.join(file)) {
            fs::write(&file, format!("\u{feff}{}", fs::read_to_string(&file).unwrap())).unwrap();
        }
        fs::write(export.join("users.json"), "\u{feff}[{\"id\": \"U0\"}, {\"id\": \"U1\", \"team_id\": \"T9\"}]")
            .unwrap();
        fs::write(export.join("dms.json"), r#"[{"id": "D1", "name": ""}]"#).unwrap();
    };
    let by_a_mac = |export: &Path| {
        fs::create_dir_all(export.join("__MACOSX/a")).unwrap();
        for file in [".DS_Store", "__MACOSX/a/._2026-03-02.json", "a/._2026-03-02.json"] {
            fs::write(export.join(file), b"\0\x05\x16\x07").unwrap();
        }
    };
    for out in [import_of(composed), import_of(by_an_editor), import_of(by_a_mac)] {
        assert_eq!(figure(&out.unwrap(), "messages"), 2000);
    }
    let with_canvas = import_of(|export| fs::write(export.join("a/canvas.json"), "{}").unwrap()).unwrap();
    assert_eq!((figure(&with_canvas, "messages"), figure(&with_canvas, "other files")), (2000, 1));
    assert!(
        with_canvas.contains("a/canvas.json") && with_canvas.contains("nothing was imported of: empty"),
        "{with_canvas}"
    );
    // The same time three times over, in two files.
    let twice = r#"[{"ts": "1772409600.000000", "text": "one"}, {"ts": "1772409600.000000", "text": "one"}]"#;
    let repeated = import_of(|export| fs::write(export.join("a/2026-03-01.json"), twice).unwrap()).unwrap();
    assert_eq!(figure(&repeated, "messages"), 2002);
}
