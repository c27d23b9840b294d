//! `FileWatermark`: what may be its file, what is refused, and who sees what.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use strongroom::{ErrorKind, FileWatermark, Result, Subject, Watermark};

use super::{mark, tenant};

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.err().expect("refused").kind()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn it_is_created_once_and_never_by_opening_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("watermark");
    assert_eq!(kind(FileWatermark::open(&path)), ErrorKind::InvalidArgument);
    assert!(names(folder.path()).is_empty(), "opening left {:?}", names(folder.path()));
    FileWatermark::create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&path).unwrap(), "strongroom watermark 1\n");
    assert_eq!(kind(FileWatermark::create(&path)), ErrorKind::Conflict);
    FileWatermark::open(&path).unwrap();
    assert_eq!(names(folder.path()), ["watermark", "watermark.lock"]);
}

#[test]
fn a_pipe_or_a_folder_is_refused_and_nobody_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (pipe, inner) = (folder.path().join("pipe"), folder.path().join("inner"));
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
    fs::create_dir(&inner).unwrap();
    let (say, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for path in [pipe, inner] {
            say.send((kind(FileWatermark::open(&path)), kind(FileWatermark::create(&path)))).unwrap();
        }
    });
    for _ in 0..2 {
        let refused = said.recv_timeout(Duration::from_secs(10)).expect("it waits for the pipe's other end");
        assert_eq!(refused, (ErrorKind::InvalidArgument, ErrorKind::InvalidArgument));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_link_the_file_is_replaced_and_the_lock_is_the_same() {
    let (image, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (link, file) = (image.path().join("watermark"), volume.path().join("watermark"));
    symlink(&file, &link).unwrap();
    let handles = [FileWatermark::create(&link).unwrap(), FileWatermark::open(&file).unwrap()];
    let tasks = [0, 1].map(|n: u8| {
        let watermark = handles[usize::from(n)].clone();
        tokio::spawn(async move {
            let mut won = 0;
            for _ in 0..50 {
                let from = watermark.read(&Subject::Fleet).await.unwrap();
                let to = mark(from.map_or(1, |mark| mark.epoch + 1), n);
                won += u64::from(watermark.advance(&Subject::Fleet, from.as_ref(), &to).await.unwrap());
            }
            won
        })
    });
    let mut won = 0;
    for task in tasks {
        won += task.await.unwrap();
    }
    for watermark in handles {
        assert_eq!(watermark.read(&Subject::Fleet).await.unwrap().unwrap().epoch, won, "an advance was written over");
    }
    assert!(link.symlink_metadata().unwrap().is_symlink(), "the link was replaced");
    assert_eq!(
        (names(image.path()), names(volume.path())),
        (vec!["watermark".to_owned()], vec!["watermark".to_owned(), "watermark.lock".to_owned()])
    );
}

#[tokio::test]
async fn every_handle_sees_at_once_what_another_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("watermark");
    let (one, other) = (FileWatermark::create(&path).unwrap(), FileWatermark::open(&path).unwrap());
    let mut from = None;
    // The file keeps its length, and may get the inode of the last but one: 200 times the same moment and place, or nearly.
    for epoch in 100..300 {
        let to = mark(epoch, 1);
        assert!(one.advance(&Subject::Log, from.as_ref(), &to).await.unwrap());
        assert_eq!(other.read(&Subject::Log).await.unwrap(), Some(to));
        from = Some(to);
    }
    // Also what an operator puts there.
    let text = fs::read_to_string(&path).unwrap();
    let aside = folder.path().join("aside");
    fs::write(&aside, text.replace(" 299 ", " 300 ")).unwrap();
    fs::rename(&aside, &path).unwrap();
    for handle in [&one, &other] {
        assert_eq!(handle.read(&Subject::Log).await.unwrap(), Some(mark(300, 1)));
    }
    fs::write(&path, text.replace(" 299 ", " 3000 ")).unwrap();
    assert_eq!(other.read(&Subject::Log).await.unwrap(), Some(mark(3000, 1)));
}

/// Whoever waits for another process's lock takes no thread that a reader needs.
#[test]
fn advances_that_wait_are_in_no_readers_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("watermark");
    let watermark = FileWatermark::create(&path).unwrap();
    let elsewhere = fs::File::open(folder.path().join("watermark.lock")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(2).enable_time().build().unwrap();
    runtime.block_on(async {
        elsewhere.lock().unwrap();
        let waiting = (0..8).map(|n| {
            let watermark = watermark.clone();
            tokio::spawn(async move { watermark.advance(&tenant(&format!("t{n}")), None, &mark(1, 1)).await })
        });
        let waiting: Vec<_> = waiting.collect();
        tokio::task::yield_now().await; // to all of them
        let reading = tokio::time::timeout(Duration::from_secs(10), watermark.read(&Subject::Room));
        let read = reading.await.map(Result::unwrap);
        elsewhere.unlock().unwrap();
        assert_eq!(read, Ok(None), "a reader waits for the lock");
        for advance in waiting {
            assert!(advance.await.unwrap().unwrap());
        }
    });
}

#[tokio::test]
async fn damage_is_malformed_names_the_line_and_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("watermark");
    let watermark = FileWatermark::create(&path).unwrap();
    for name in ["a", "b"] {
        assert!(watermark.advance(&tenant(name), None, &mark(7, 7)).await.unwrap());
    }
    let good = fs::read_to_string(&path).unwrap();
    for (bad, line) in [
        (String::new(), "line 1"),
        (good.replace("tenant b", "tenant a"), "line 3"),
        (good.replacen(" 7 ", " 07 ", 1), "line 2"),
        (good[..good.len() - 20].to_owned(), "line 3"),
        (good.clone() + "\n", "line 4"),
    ] {
        fs::write(&path, &bad).unwrap();
        let refused = [
            FileWatermark::open(&path).map(|_| ()).unwrap_err(),
            watermark.read(&tenant("a")).await.unwrap_err(),
            watermark.advance(&tenant("a"), Some(&mark(7, 7)), &mark(8, 8)).await.unwrap_err(),
            watermark.advance(&tenant("new"), None, &mark(8, 8)).await.unwrap_err(),
        ];
        for e in refused {
            assert_eq!(e.kind(), ErrorKind::Malformed, "{e}: {bad}");
            assert!(e.to_string().contains(line), "{e}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), bad);
    }
    fs::write(&path, &good).unwrap();
    assert_eq!(watermark.read(&tenant("a")).await.unwrap(), Some(mark(7, 7)));
}

#[tokio::test]
async fn a_watermark_that_vanished_is_not_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("watermark");
    let watermark = FileWatermark::create(&path).unwrap();
    assert!(watermark.advance(&Subject::Room, None, &mark(1, 1)).await.unwrap());
    fs::remove_file(&path).unwrap();
    assert_eq!(kind(watermark.read(&Subject::Room).await), ErrorKind::Unavailable);
    assert_eq!(kind(watermark.advance(&Subject::Room, None, &mark(1, 1)).await), ErrorKind::Unavailable);
    assert!(!path.exists());
}

#[tokio::test]
async fn what_a_crash_left_goes_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("watermark");
    FileWatermark::create(&path).unwrap();
    fs::write(folder.path().join("watermark.new"), "strongroom waterm").unwrap();
    FileWatermark::open(&path).unwrap();
    assert_eq!(names(folder.path()), ["watermark", "watermark.lock"]);
}
