//! Watermarks beyond the contract: the file, the bucket, and what is left when a process is killed.

#[path = "watermark/file.rs"]
mod file;
#[cfg(target_os = "linux")]
#[path = "watermark/full.rs"]
mod full;
#[path = "watermark/kill.rs"]
mod kill;
#[cfg(feature = "object-store")]
#[path = "watermark/object.rs"]
mod object;

use strongroom::{Incarnation, Mark, RowDigest, Subject, TenantId};

fn mark(epoch: u64, digest: u8) -> Mark {
    Mark { incarnation: Incarnation::from_bytes([1; 16]), epoch, digest: RowDigest::from_bytes([digest; 32]) }
}

fn tenant(name: &str) -> Subject {
    Subject::Tenant(TenantId::new(name).unwrap())
}
