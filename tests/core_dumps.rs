//! Core dumps: a process that forbade them leaves none behind when it dies.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::{DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit, setrlimit};
use strongroom::{CoreDumps, forbid_core_dumps};

const FORBIDS: &str = "STRONGROOM_TEST_FORBIDS";

/// Dies by a signal that dumps core, with the limit as high as it may go before.
#[test]
#[ignore = "the process that the test below starts"]
fn dying() {
    let forbids = std::env::var(FORBIDS).expect("started by a test") == "1";
    let maximum = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: maximum, maximum }).unwrap();
    if forbids {
        assert_eq!(forbid_core_dumps().unwrap(), CoreDumps::Undumpable);
        assert_eq!(forbid_core_dumps().unwrap(), CoreDumps::Undumpable, "again");
        assert_eq!(getrlimit(Resource::Core), Rlimit { current: Some(0), maximum });
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
    std::process::abort();
}

fn death(forbids: bool) -> ExitStatus {
    let folder = tempfile::tempdir().unwrap(); // where the core file goes, if the kernel writes it to a file
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "dying", "--ignored", "--nocapture"])
        .env(FORBIDS, u8::from(forbids).to_string())
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
}

#[test]
fn a_process_that_forbade_core_dumps_leaves_none() {
    const SIGABRT: i32 = 6;
    let (control, forbidding) = (death(false), death(true));
    // By the abort, not by a failed assertion.
    assert_eq!((control.signal(), forbidding.signal()), (Some(SIGABRT), Some(SIGABRT)));
    assert!(!forbidding.core_dumped());
    if getrlimit(Resource::Core).maximum != Some(0) {
        assert!(control.core_dumped(), "without the call there is one: else this test shows nothing");
    }
}
