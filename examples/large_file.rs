//! Seals and opens a large sparse file and says how much memory that took: constant, whatever the size.
//!
//!     cargo run --release --example large_file --features testing -- [GiB, 8 by default] [folder]

use std::error::Error;
use std::fs::{self, File};
use std::time::Instant;

use strongroom::testing::FileKeys;
use strongroom::{FileHead, FileOptions, Suite};

/// The most memory that this process has held so far, in KiB.
fn peak() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("VmHWM is Linux only")?;
    Ok(line.trim_end_matches("kB").trim().parse()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let len: u64 = arguments.next().as_deref().unwrap_or("8").parse::<u64>()? << 30;
    let folder = arguments.next().map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(folder)?;
    let [from, sealed, back] = ["from", "sealed", "back"].map(|name| folder.path().join(name));
    File::create(&from)?.set_len(len)?;
    let keys = FileKeys::new(Suite::Aes256Gcm, *b"0123456789abcdef0123456789abcdef")?;
    println!("before: peak {} KiB", peak()?);

    let began = Instant::now();
    keys.sealer(&[])?.seal_path_blocking(&from, &sealed, &FileOptions::new())?;
    println!("sealed {} MiB in {:.1?}: peak {} KiB", len >> 20, began.elapsed(), peak()?);

    let began = Instant::now();
    let head = FileHead::read_from(&mut File::open(&sealed)?)?;
    keys.opener(&head, &[])?.open_path_blocking(&sealed, &back, &FileOptions::new())?;
    println!("opened {} MiB in {:.1?}: peak {} KiB", len >> 20, began.elapsed(), peak()?);
    if fs::metadata(&back)?.len() == len { Ok(()) } else { Err("another length came back".into()) }
}
