//! kill -9 at random moments: the target is absent, or what it was, or whole.
//!
//! The test binary starts itself again as the process that is killed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use strongroom::{FileHead, FileOptions, Suite};

use super::{CONTEXT, keys, open, plain};

const JOB: &str = "STRONGROOM_TEST_JOB";
const LEN: usize = 6 << 20;

/// Not a test: the process to kill. `seal` or `open`, source and target are in its environment.
#[test]
#[ignore = "started by the tests of this file"]
fn child() {
    let Ok(job) = std::env::var(JOB) else { return };
    let [what, from, to] = job.split('\n').collect::<Vec<_>>().try_into().unwrap();
    let (from, to) = (Path::new(from), Path::new(to));
    let keys = keys(Suite::Aes256Gcm);
    if what == "seal" {
        keys.sealer(CONTEXT).unwrap().seal_path_blocking(from, to, &FileOptions::new()).unwrap();
    } else {
        let head = FileHead::read_from(&mut fs::File::open(from).unwrap()).unwrap();
        keys.opener(&head, CONTEXT).unwrap().open_path_blocking(from, to, &FileOptions::new()).unwrap();
    }
}

fn start(what: &str, from: &Path, to: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "kill::child"])
        .env(JOB, format!("{what}\n{}\n{}", from.display(), to.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills `times` processes at moments spread over the time that one takes; says how often the target was there.
fn kill(times: u32) {
    let dir = tempfile::tempdir().unwrap();
    let [from, sealed, to] = ["from", "sealed", "to"].map(|name| dir.path().join(name));
    let plaintext = plain(LEN);
    fs::write(&from, &plaintext).unwrap();
    let began = Instant::now();
    assert!(start("seal", &from, &sealed).wait().unwrap().success());
    let whole = began.elapsed();
    let (mut absent, mut old, mut new) = (0, 0, 0);
    for i in 0..times {
        let _ = fs::remove_file(&to);
        // Every third time there is something at the target already.
        if i % 3 == 0 {
            fs::write(&to, b"old").unwrap();
        }
        let (what, source) = if i % 2 == 0 { ("seal", &from) } else { ("open", &sealed) };
        let mut process = start(what, source, &to);
        // A golden-ratio sequence covers the time evenly in any number of steps.
        std::thread::sleep(Duration::from_secs_f64(whole.as_secs_f64() * 1.2 * (f64::from(i) * 0.618_034).fract()));
        process.kill().unwrap();
        process.wait().unwrap();
        match fs::read(&to) {
            Err(e) => {
                assert_eq!(e.kind(), std::io::ErrorKind::NotFound);
                assert_ne!(i % 3, 0, "what was there is gone");
                absent += 1;
            }
            Ok(bytes) if bytes == b"old" => old += 1,
            Ok(bytes) if what == "seal" => {
                assert!(*open(&keys(Suite::Aes256Gcm), &bytes).unwrap() == *plaintext);
                new += 1;
            }
            Ok(bytes) => {
                assert!(bytes == plaintext);
                new += 1;
            }
        }
        for entry in fs::read_dir(&dir).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.starts_with(".strongroom-") {
                fs::remove_file(dir.path().join(name)).unwrap();
            } else {
                assert!(["from", "sealed", "to"].contains(&name.as_str()), "{name}");
            }
        }
    }
    println!("{times} kills: {absent} absent, {old} as before, {new} whole");
    assert!(absent > 0 && old > 0, "no kill came before the end: {absent} absent, {old} as before, {new} whole");
}

#[test]
fn thirty_kills_leave_the_target_absent_or_whole() {
    kill(30);
}

#[test]
#[ignore = "takes minutes"]
fn a_thousand_kills_leave_the_target_absent_or_whole() {
    kill(1_000);
}
