//! A process that imported a key has no copy of it left: none of what it refused, and of what it took none once the KEK is gone.
//!
//! The test binary starts itself again as the process that imports, which only ever gets wrapped keys, and reads its memory.

#[path = "../memory/scan.rs"]
mod scan;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use strongroom::{KekUri, KeyCheckValue, Kms, LocalKms, SystemClock};

use self::scan::{Find, Needles, scan};
use super::tenant::{check_value, material, wrap};
use super::{FORMATS, region};

const FOLDER: &str = "STRONGROOM_TEST_IMPORTS";

/// What the cipher's code leaves of a text in a vector register is beyond what safe Rust can wipe (SECURITY.md); and the root KEK
/// wraps the imported key as a text.
const REGISTER: usize = 16;

/// A root KMS, the same in both processes.
fn root() -> (Arc<dyn Kms>, KekUri) {
    let kms = LocalKms::in_memory();
    let kek =
        kms.import_kek("root", region(), &mut std::array::from_fn::<u8, 32, _>(|i| u8::try_from(i).unwrap())).unwrap();
    (Arc::new(kms), kek)
}

fn name(of: usize) -> String {
    format!("tenant-{of}")
}

/// Tells the watcher where this process stands, and waits.
fn step(name: &str) {
    println!("\nat {name}");
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
}

/// Not a test: the process that is looked at.
#[test]
#[ignore = "started by the test below"]
fn inmate() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let folder = Path::new(&folder);
    let read = |of: usize, what: &str| fs::read(folder.join(format!("{of}.{what}"))).unwrap();
    let text = |of: usize, what: &str| String::from_utf8(read(of, what)).unwrap();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let (root, kek) = root();
        let kms = LocalKms::open_under(folder.join("keks.json"), root, kek).await.unwrap();
        for (n, format) in FORMATS.into_iter().enumerate() {
            let (wrapped, token) = (read(n, "wrapped"), text(n, "token"));
            let [value, other] = ["value", "other-value"].map(|it| KeyCheckValue::from_hex(&text(n, it)).unwrap());
            step("begun");
            kms.finish_import(&token, format, &wrapped, &other, &SystemClock).await.unwrap_err();
            step("refused");
            kms.finish_import(&token, format, &wrapped, &value, &SystemClock).await.unwrap();
            step("imported");
            kms.disable_kek(&name(n)).unwrap();
            kms.destroy_kek(&name(n)).unwrap();
            step("destroyed");
        }
    });
}

#[tokio::test]
async fn no_copy_of_the_key_is_left_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let write =
        |of: usize, what: &str, bytes: &[u8]| fs::write(folder.path().join(format!("{of}.{what}")), bytes).unwrap();
    let (root, kek) = root();
    let kms = LocalKms::create_under(folder.path().join("keks.json"), root, kek).await.unwrap();
    let mut needles = Needles::new();
    for (n, format) in FORMATS.into_iter().enumerate() {
        let ticket = kms.begin_import(&name(n), region(), &SystemClock).await.unwrap();
        let key = material(32);
        needles.add(&name(n), &key);
        write(n, "wrapped", &wrap(&ticket, format, &key));
        write(n, "token", ticket.token().as_bytes());
        write(n, "value", check_value(&key).to_string().as_bytes());
        write(n, "other-value", check_value(&material(32)).to_string().as_bytes());
    }
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "memory::inmate", "--nocapture"])
        .env(FOLDER, folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let mut wrong = Vec::new();
    for (n, format) in FORMATS.into_iter().enumerate() {
        for at in ["begun", "refused", "imported", "destroyed"] {
            assert!(lines.any(|line| line == format!("at {at}")), "the process ended before it was {at}");
            let finds = scan(process.id(), &needles);
            let (in_use, left): (Vec<Find>, _) =
                finds.into_iter().partition(|it| at == "imported" && it.what == name(n));
            if at == "imported" && in_use.is_empty() {
                wrong.push(format!("{format:?}, {at}: the key is in use but not found: the looking is broken"));
            }
            let copies = left.chunk_by(Find::is_followed_by).filter(|copy| Find::copied(copy) > REGISTER);
            wrong.extend(copies.map(|copy| format!("{format:?}, {at}: {}", Find::copy(copy))));
            writeln!(process.stdin.as_mut().unwrap()).unwrap();
        }
    }
    drop(process.stdin.take());
    assert!(process.wait().unwrap().success());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
