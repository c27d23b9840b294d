//! The example runs, and says what it claims.

use std::path::Path;
use std::process::Command;

use crate::world::url;

#[test]
fn aws_kms() {
    // As `cargo test` built it, beside this test.
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let example = profile.join("examples").join(format!("aws_kms{}", std::env::consts::EXE_SUFFIX));
    assert!(example.exists(), "`cargo test --test aws_kms` does not build the example: run `cargo build --examples`");

    let ran = Command::new(&example).args(["--endpoint", url()]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{}\n{out}\n{err}", ran.status);
    for line in ["Enabled in eu-central-1", "unwrap data key: denied: the KEK is disabled", "All as claimed."] {
        assert!(out.contains(line), "{line:?} is missing:\n{out}");
    }
    // For six messages: a new key for each channel, and the check that it unwraps; twice that if the hour ends meanwhile.
    for (call, times) in [("DescribeKey", 1..=1), ("GenerateDataKey", 2..=4), ("Decrypt", 2..=4)] {
        let asked = out.lines().filter(|line| line.trim_start().starts_with(call)).count();
        assert!(times.contains(&asked), "{call}:\n{out}");
    }

    let refused = Command::new(&example).output().unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--kek"));
}
