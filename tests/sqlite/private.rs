//! Who else can read or write the files of a key store.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use strongroom::{ErrorKind, FileWatermark, KeyStore as _, SqliteKeyStore, create_local, open_local};

use crate::captured_log::CapturedLog;
use crate::{is_written, put, tenant};

/// In every such warning.
const OTHERS: &str = "others than its owner";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A process that forbids nothing makes files of which nobody else has anything all the same.
#[tokio::test]
async fn a_store_is_private_whatever_the_umask() {
    let before = rustix::process::umask(rustix::fs::Mode::empty());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let store = SqliteKeyStore::create(&path).await.unwrap();
    assert!(is_written(store.put(&[put(&tenant("acme"), None, b"1")], None).await));
    let backup = folder.path().join("backup.db");
    store.backup(&backup).await.unwrap();
    let copy = SqliteKeyStore::open(&backup).await.unwrap();
    assert!(is_written(copy.put(&[put(&tenant("globex"), None, b"1")], None).await));
    let watermark = folder.path().join("watermark");
    FileWatermark::create(&watermark).unwrap();
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let modes: Vec<_> = files.iter().map(|file| (file.file_name().unwrap().to_str().unwrap(), mode(file))).collect();
    rustix::process::umask(before);
    let expected =
        ["backup.db", "backup.db-shm", "backup.db-wal", "keys.db", "keys.db-shm", "keys.db-wal", "watermark"];
    assert!(expected.iter().all(|name| modes.iter().any(|(found, _)| found == name)), "{modes:?}");
    assert!(modes.iter().all(|(_, mode)| *mode == 0o600), "{modes:?}");
}

#[tokio::test]
async fn files_that_others_can_read_or_write_are_told_to_the_operator_s_log() {
    let folder = tempfile::tempdir().unwrap();
    let [path, watermark] = ["keys.db", "watermark"].map(|name| folder.path().join(name));
    let warnings = CapturedLog::from(tracing::Level::WARN);
    let _here = tracing::subscriber::set_default(warnings.clone());
    SqliteKeyStore::create(&path).await.unwrap().close().await;
    FileWatermark::create(&watermark).unwrap();
    FileWatermark::open(&watermark).unwrap();
    assert_eq!(warnings.take(OTHERS), [""; 0]);
    for (open, verb) in [(0o640, "read"), (0o604, "read"), (0o660, "write"), (0o602, "write"), (0o644, "read")] {
        chmod(&path, open);
        SqliteKeyStore::open(&path).await.unwrap().close().await;
        let told = warnings.take(OTHERS);
        assert_eq!(told.len(), 1, "{open:o}: {told:?}");
        let says = [verb, "the key store's file", "chmod 600", &format!("{open:o}"), path.to_str().unwrap()];
        assert!(says.iter().all(|what| told[0].contains(what)), "{told:?}");
    }
    // Marks are no secret.
    chmod(&watermark, 0o644);
    FileWatermark::open(&watermark).unwrap();
    assert_eq!(warnings.take(OTHERS), [""; 0]);
    chmod(&watermark, 0o664);
    FileWatermark::open(&watermark).unwrap();
    assert!(warnings.take(OTHERS).concat().contains("write the watermark"));
}

/// `create_local` may be called again after a crash; a piece of a room that was whole is not made anew with nothing in it.
#[tokio::test]
async fn a_lost_piece_of_a_local_room_is_not_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let kind = |result: strongroom::Result<strongroom::LocalRoom>| result.err().map(|e| e.kind());
    // A crash after the first step.
    SqliteKeyStore::create(folder.path().join("keys.db")).await.unwrap().close().await;
    create_local(&folder).await.unwrap();
    assert_eq!(kind(create_local(&folder).await), Some(ErrorKind::Conflict));
    for piece in ["keks.json", "root.json", "watermark"] {
        let (at, aside) = (folder.path().join(piece), folder.path().join("aside"));
        fs::rename(&at, &aside).unwrap();
        assert_eq!(kind(create_local(&folder).await), Some(ErrorKind::InvalidArgument), "{piece}");
        assert!(!at.exists(), "{piece} was made anew");
        fs::rename(&aside, &at).unwrap();
    }
    open_local(&folder).await.unwrap();
}
