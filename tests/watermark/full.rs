//! A full disk: a small file system in memory, in a mount namespace that the test has to itself.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use strongroom::{ErrorKind, FileWatermark, LocalKms, LocalRoot, Region, Watermark};

use super::{mark, tenant};

const JOB: &str = "STRONGROOM_TEST_JOB";
const ON_A_SMALL_DISK: &str = r#"mount -t tmpfs -o size=256k none "$1" && exec "$2" --ignored --exact full::child"#;

/// Fills the file system, to the last byte.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    while file.write_all(&[0]).is_ok() {}
}

/// Not a test by itself: what the test below does on its small disk.
#[tokio::test]
#[ignore = "started by the test below"]
async fn child() {
    let Ok(folder) = std::env::var(JOB) else { return };
    let folder = Path::new(&folder);
    let at = |name: &str| folder.join(name);
    let watermark = FileWatermark::create(at("watermark")).unwrap();
    for n in 0..100 {
        assert!(watermark.advance(&tenant(&format!("tenant-{n}")), None, &mark(1, 1)).await.unwrap());
    }
    let root = LocalRoot::create(at("root.json")).unwrap();
    let kms = LocalKms::create(at("keks.json")).unwrap();
    let eu = Region::new("eu").unwrap();
    let files = ["watermark", "root.json", "keks.json"].map(at);
    let before = files.clone().map(|path| fs::read(path).unwrap());

    fill(&at("filler"));
    for _ in 0..3 {
        let refused = [
            watermark.advance(&tenant("tenant-7"), Some(&mark(1, 1)), &mark(2, 2)).await.unwrap_err(),
            root.rotate().unwrap_err(),
            kms.create_kek("acme", eu.clone()).unwrap_err(),
        ];
        for e in refused {
            assert_eq!(e.kind(), ErrorKind::Io, "{e:?}");
        }
    }
    assert!(files.clone().map(|path| fs::read(path).unwrap()) == before, "a full disk took what was there");
    assert!(!files.iter().any(|path| path.with_added_extension("new").exists()), "half a file is left");
    assert_eq!(watermark.read(&tenant("tenant-7")).await.unwrap(), Some(mark(1, 1)));

    fs::remove_file(at("filler")).unwrap();
    assert!(watermark.advance(&tenant("tenant-7"), Some(&mark(1, 1)), &mark(2, 2)).await.unwrap());
    assert_eq!(root.rotate().unwrap(), 2);
    kms.create_kek("acme", eu).unwrap();
    let again = FileWatermark::open(at("watermark")).unwrap();
    assert_eq!(again.read(&tenant("tenant-7")).await.unwrap(), Some(mark(2, 2)));
    assert_eq!(again.read(&tenant("tenant-99")).await.unwrap(), Some(mark(1, 1)));
    LocalRoot::open(at("root.json")).unwrap();
}

#[test]
fn a_full_disk_leaves_the_old_files_whole_and_writes_go_on_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let is_allowed = |arguments: &[&str]| {
        let tried = Command::new("unshare").args(arguments).arg("true").stderr(Stdio::null()).status();
        tried.expect("unshare (util-linux) is missing").success()
    };
    let (as_root, as_user): (&[&str], &[&str]) = (&["--mount"], &["--user", "--map-root-user", "--mount"]);
    let isolated = [as_root, as_user].into_iter().find(|arguments| is_allowed(arguments));
    let ran = Command::new("unshare")
        .args(isolated.expect("neither root nor user namespaces: no small disk can be mounted"))
        .args(["sh", "-c", ON_A_SMALL_DISK, "sh"])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .env(JOB, folder.path())
        .output()
        .unwrap();
    let said = format!("{}\n{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(
        ran.status.success() && said.contains("test full::child ... ok"),
        "on the small disk: {}\n{said}",
        ran.status
    );
}
