//! Paths: whole or not at all, permissions kept, nothing left behind.

use std::fs;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use strongroom::{CancelFlag, Error, ErrorKind, FileHead, FileOptions, Suite};
use tempfile::TempDir;

use super::{CHUNK, CONTEXT, SEALED_CHUNK, keys, open, plain, seal};

const BLOCK: usize = 64 * CHUNK;

fn options(workers: usize) -> FileOptions {
    FileOptions::new().workers(NonZeroUsize::new(workers).unwrap())
}

fn seal_path(from: &Path, to: &Path, options: &FileOptions) -> Result<(), Error> {
    keys(Suite::Aes256Gcm).sealer(CONTEXT).unwrap().seal_path_blocking(from, to, options)
}

fn open_path(from: &Path, to: &Path, options: &FileOptions) -> Result<(), Error> {
    let head = FileHead::read_from(&mut fs::File::open(from).unwrap())?;
    keys(Suite::Aes256Gcm).opener(&head, CONTEXT)?.open_path_blocking(from, to, options)
}

fn names(dir: &TempDir) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    result.err().map(|e| e.kind()).expect("refused")
}

#[test]
fn every_size_around_a_block_on_any_number_of_workers() {
    let dir = tempfile::tempdir().unwrap();
    let [from, sealed, back] = ["from", "sealed", "back"].map(|name| dir.path().join(name));
    let sizes = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 7 * BLOCK + 12_345];
    for size in sizes {
        let plaintext = plain(size);
        fs::write(&from, &plaintext).unwrap();
        for workers in [1, 2, 3, 8] {
            seal_path(&from, &sealed, &options(workers)).unwrap();
            assert!(*open(&keys(Suite::Aes256Gcm), &fs::read(&sealed).unwrap()).unwrap() == *plaintext);
            open_path(&sealed, &back, &options(workers)).unwrap();
            assert!(fs::read(&back).unwrap() == plaintext, "{size} on {workers}");
        }
    }
    assert_eq!(names(&dir), ["back", "from", "sealed"]);
}

#[cfg(unix)]
#[test]
fn permissions_are_kept() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let [from, sealed, back] = ["from", "sealed", "back"].map(|name| dir.path().join(name));
    for (mode, kept) in [(0o600, 0o600), (0o644, 0o644), (0o751, 0o751), (0o4755, 0o755), (0o440, 0o440)] {
        let _ = fs::remove_file(&from);
        fs::write(&from, b"x").unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(mode)).unwrap();
        seal_path(&from, &sealed, &options(1)).unwrap();
        open_path(&sealed, &back, &options(1)).unwrap();
        for path in [&sealed, &back] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, kept);
        }
    }
}

#[test]
fn a_tampered_file_leaves_the_target_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let [sealed, back] = ["sealed", "back"].map(|name| dir.path().join(name));
    let good = seal(Suite::Aes256Gcm, &plain(5 * BLOCK + 99));
    let head = FileHead::parse(&good).unwrap().as_bytes().len();
    let mut cases = vec![
        good[..head + 64 * SEALED_CHUNK].to_vec(),
        good[..head + 64 * SEALED_CHUNK + 20].to_vec(),
        good[..good.len() - 1].to_vec(),
        [&good[..], &[0]].concat(),
        good[..head].to_vec(),
    ];
    for at in [head, head + 64 * SEALED_CHUNK + 5, good.len() - 1] {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        cases.push(flipped);
    }
    for (i, bad) in cases.iter().enumerate() {
        fs::write(&sealed, bad).unwrap();
        let _ = fs::remove_file(&back);
        assert_eq!(kind(open_path(&sealed, &back, &options(2))), ErrorKind::Unopenable, "case {i}");
        assert_eq!(names(&dir), ["sealed"], "case {i}");
        fs::write(&back, b"old").unwrap();
        assert!(open_path(&sealed, &back, &options(2)).is_err());
        assert_eq!(fs::read(&back).unwrap(), b"old");
        assert_eq!(names(&dir), ["back", "sealed"]);
    }
}

#[test]
fn failures_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
    assert_eq!(kind(seal_path(&from, &to, &options(1))), ErrorKind::Io, "no source");
    assert_eq!(kind(seal_path(dir.path(), &to, &options(1))), ErrorKind::InvalidArgument, "a directory");
    fs::write(&from, b"x").unwrap();
    assert_eq!(kind(seal_path(&from, &dir.path().join("no/to"), &options(1))), ErrorKind::Io, "no directory");
    assert_eq!(kind(seal_path(&from, &dir.path().join(".."), &options(1))), ErrorKind::InvalidArgument);
    let occupied = dir.path().join("occupied");
    fs::create_dir_all(occupied.join("by")).unwrap();
    assert_eq!(kind(seal_path(&from, &occupied, &options(1))), ErrorKind::Io, "the target is a directory");
    assert_eq!(names(&dir), ["from", "occupied"]);
}

/// A sparse file that no file system here can hold, refused before a byte is written.
#[test]
fn free_space_is_checked_first() {
    let dir = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
    let file = fs::File::create(&from).unwrap();
    // Where even a sparse file cannot be so long, there is nothing to test.
    let Some(_) = [1_u64 << 43, 1 << 41].into_iter().find(|len| file.set_len(*len).is_ok()) else { return };
    let refused = seal_path(&from, &to, &options(2)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Io);
    assert!(refused.to_string().contains("no room"), "{refused}");
    assert_eq!(names(&dir), ["from"]);
}

#[test]
fn progress_counts_every_byte_and_cancelling_cleans_up() {
    let dir = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
    let len = 10 * BLOCK + 5;
    fs::write(&from, plain(len)).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    seal_path(&from, &to, &options(2).on_progress(move |p| sink.lock().unwrap().push(p))).unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 11);
    assert!(seen.windows(2).all(|pair| pair[0].done < pair[1].done));
    let last = seen.last().unwrap();
    assert_eq!((last.done, last.total), (len as u64, len as u64));

    // Opening counts the bytes of its own source, its head among them.
    let (back, last) = (dir.path().join("back"), Arc::new(Mutex::new(None)));
    let sink = Arc::clone(&last);
    open_path(&to, &back, &options(2).on_progress(move |p| *sink.lock().unwrap() = Some((p.done, p.total)))).unwrap();
    let sealed_len = fs::metadata(&to).unwrap().len();
    assert_eq!(*last.lock().unwrap(), Some((sealed_len, sealed_len)));
    fs::remove_file(&back).unwrap();

    fs::remove_file(&to).unwrap();
    let flag = CancelFlag::new();
    let stop = flag.clone();
    let cancelled = options(2).cancelled_by(&flag).on_progress(move |_| stop.cancel());
    assert_eq!(kind(seal_path(&from, &to, &cancelled)), ErrorKind::Cancelled);
    assert_eq!(names(&dir), ["from"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn dropping_the_future_cleans_up() {
    let dir = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
    fs::write(&from, plain(30 * BLOCK)).unwrap();
    let (started, mut has_started) = tokio::sync::mpsc::unbounded_channel();
    let slow = options(1).on_progress(move |_| {
        let _ = started.send(());
        std::thread::sleep(std::time::Duration::from_millis(5));
    });
    let sealer = keys(Suite::Aes256Gcm).sealer(CONTEXT).unwrap();
    tokio::select! {
        _ = sealer.seal_path(&from, &to, slow) => panic!("too fast to be cancelled"),
        _ = has_started.recv() => {}
    }
    for _ in 0..500 {
        if names(&dir) == ["from"] {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("left behind: {:?}", names(&dir));
}

#[tokio::test]
async fn async_calls_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let [from, sealed, back] = ["from", "sealed", "back"].map(|name| dir.path().join(name));
    fs::write(&from, plain(3 * BLOCK)).unwrap();
    let keys = keys(Suite::ChaCha20Poly1305);
    keys.sealer(CONTEXT).unwrap().seal_path(&from, &sealed, FileOptions::new()).await.unwrap();
    let head = FileHead::read_path(&sealed).await.unwrap();
    let opener = keys.opener(&head, CONTEXT).unwrap();
    opener.open_path(&sealed, &back, FileOptions::new()).await.unwrap();
    assert!(fs::read(&back).unwrap() == plain(3 * BLOCK));
}

/// A callback that panics: the panic goes on, and nothing is left behind.
#[test]
fn a_panicking_callback_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
    fs::write(&from, plain(10 * BLOCK)).unwrap();
    let options = options(2).on_progress(|_| panic!("on purpose"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| seal_path(&from, &to, &options)));
    assert!(panicked.is_err());
    assert_eq!(names(&dir), ["from"]);
}

/// A pipe blocks whoever opens it for reading until somebody writes; a backup that walks a folder would hang.
#[cfg(unix)]
#[test]
fn a_pipe_as_source_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let [pipe, to] = ["pipe", "to"].map(|name| dir.path().join(name));
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
    let head = FileHead::parse(&seal(Suite::Aes256Gcm, b"x")).unwrap();
    let (say, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        say.send(kind(seal_path(&pipe, &to, &options(1)))).unwrap();
        let opener = keys(Suite::Aes256Gcm).opener(&head, CONTEXT).unwrap();
        say.send(kind(opener.open_path_blocking(&pipe, &to, &options(1)))).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        say.send(kind(runtime.block_on(FileHead::read_path(&pipe)))).unwrap();
    });
    for _ in 0..3 {
        let refused = said.recv_timeout(std::time::Duration::from_secs(10)).expect("it waits for the pipe's other end");
        assert_eq!(refused, ErrorKind::InvalidArgument);
    }
    assert_eq!(names(&dir), ["pipe"]);
}

/// A link to the volume stays one: to replace it would leave the file behind it as it was.
#[cfg(unix)]
#[test]
fn a_target_behind_a_link_is_replaced_and_the_link_stays() {
    let (image, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [from, link, round] = ["from", "link", "round"].map(|name| image.path().join(name));
    let file = volume.path().join("file");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    std::os::unix::fs::symlink("round", &round).unwrap();
    fs::write(&from, b"new").unwrap();
    // There is nothing behind it yet, and then there is.
    for _ in 0..2 {
        seal_path(&from, &link, &options(1)).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink(), "the link was replaced");
        assert_eq!(*open(&keys(Suite::Aes256Gcm), &fs::read(&file).unwrap()).unwrap(), *b"new");
    }
    assert_eq!(kind(seal_path(&from, &round, &options(1))), ErrorKind::InvalidArgument);
    assert_eq!(
        (names(&image), names(&volume)),
        (vec!["from".into(), "link".into(), "round".into()], vec!["file".into()])
    );
}

/// Who is killed leaves nothing: what is not whole has no name that could stay.
#[cfg(target_os = "linux")]
#[test]
fn what_is_not_whole_has_no_name() {
    let dir = tempfile::tempdir().unwrap();
    let [from, sealed, back] = ["from", "sealed", "back"].map(|name| dir.path().join(name));
    fs::write(&from, plain(3 * BLOCK)).unwrap();
    let watched = |folder: &Path| {
        let (folder, seen) = (folder.to_owned(), Arc::new(Mutex::new(Vec::new())));
        let sink = Arc::clone(&seen);
        let options =
            options(1).on_progress(move |_| sink.lock().unwrap().push(fs::read_dir(&folder).unwrap().count()));
        (options, seen)
    };
    let (sealing, seen) = watched(dir.path());
    seal_path(&from, &sealed, &sealing).unwrap();
    assert_eq!(*seen.lock().unwrap(), [1; 4], "more than the source");
    let (opening, seen) = watched(dir.path());
    open_path(&sealed, &back, &opening).unwrap();
    assert_eq!(*seen.lock().unwrap(), [2; 4], "more than the source and what was sealed");
    assert!(fs::read(&back).unwrap() == plain(3 * BLOCK));
    assert_eq!(names(&dir), ["back", "from", "sealed"]);
}

/// Half an old file and half a new one would be authentic from then on.
#[test]
fn a_source_that_is_changed_while_it_is_sealed_is_not_sealed() {
    const SIZE: u64 = 40 * BLOCK as u64;
    let changes: [fn(&mut fs::File); 3] = [
        |file| file.set_len(SIZE / 2).unwrap(),
        |file| file.set_len(SIZE + 1).unwrap(),
        |file| {
            file.write_all(b"other bytes in their place").unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(9)).unwrap();
        },
    ];
    let dir = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
    let plaintext = plain(40 * BLOCK);
    for (which, change) in changes.into_iter().enumerate() {
        fs::write(&from, &plaintext).unwrap();
        fs::write(&to, "what was there").unwrap();
        let file = Mutex::new(Some(fs::OpenOptions::new().write(true).open(&from).unwrap()));
        let options = options(2).on_progress(move |_| {
            if let Some(mut file) = file.lock().unwrap().take() {
                change(&mut file);
            }
        });
        let refused = seal_path(&from, &to, &options).unwrap_err();
        assert_eq!((refused.kind(), refused.is_retryable()), (ErrorKind::Io, false), "{which}: {refused}");
        assert!(refused.to_string().contains("changed while it was being sealed"), "{which}: {refused}");
        assert_eq!(fs::read(&to).unwrap(), b"what was there", "{which}");
        assert_eq!(names(&dir), ["from", "to"], "{which}");
    }
}

/// A writer keeps what it was given, and no error says otherwise. What it has is refused as cut short.
#[test]
fn what_a_pipe_wrote_before_it_was_stopped_is_there_and_is_not_denied() {
    let text = plain(5 * BLOCK);
    let is_true = |error: &strongroom::Error, written: &[u8]| {
        assert!(!written.is_empty() && !error.to_string().contains("left behind"), "{error}");
    };
    let stopped = || {
        let flag = CancelFlag::new();
        let stop = flag.clone();
        options(1).cancelled_by(&flag).on_progress(move |_| stop.cancel())
    };
    let mut sealed = Vec::new();
    let sealer = keys(Suite::Aes256Gcm).sealer(CONTEXT).unwrap();
    let cancelled = sealer.pipe_blocking(&text[..], &mut sealed, &stopped()).unwrap_err();
    assert_eq!(cancelled.kind(), ErrorKind::Cancelled);
    is_true(&cancelled, &sealed);
    let head = FileHead::parse(&sealed).unwrap();
    let opener = || keys(Suite::Aes256Gcm).opener(&head, CONTEXT).unwrap();
    let refused = opener().open_bytes(&sealed).map(|_| ()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unopenable);
    // A source that fails half-way.
    let failing = std::io::Read::chain(&text[..2 * BLOCK], FailingRead);
    let mut sealed = Vec::new();
    let sealer = keys(Suite::Aes256Gcm).sealer(CONTEXT).unwrap();
    let failed = sealer.pipe_blocking(failing, &mut sealed, &options(1)).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Io);
    is_true(&failed, &sealed);
    let whole = keys(Suite::Aes256Gcm).sealer(CONTEXT).unwrap();
    let head = whole.head().clone();
    let whole = whole.seal_bytes(&text).unwrap();
    let opener = keys(Suite::Aes256Gcm).opener(&head, CONTEXT).unwrap();
    let mut opened = Vec::new();
    let cancelled = opener.pipe_blocking(&whole[head.as_bytes().len()..], &mut opened, &stopped()).unwrap_err();
    assert_eq!(cancelled.kind(), ErrorKind::Cancelled);
    is_true(&cancelled, &opened);
    assert!(text.starts_with(&opened), "what it has is verified");
}

struct FailingRead;

impl std::io::Read for FailingRead {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("the network is away"))
    }
}
