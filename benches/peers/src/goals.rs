//! How many times the bare cipher each way may take, at 64 B, 256 B, 1 KiB and 4 KiB.

use crate::messages::{OPEN_IN_PLACE, OPEN_UNKNOWN, SEAL, SEAL_INTO};

pub(crate) type Goal = [f64; 4];

/// Against aws-lc-rs AES-256-GCM.
const FAST: &[(&str, Goal)] = &[
    (SEAL, [1.70, 1.55, 1.45, 1.30]),
    (SEAL_INTO, [1.50, 1.40, 1.35, 1.20]),
    (OPEN_IN_PLACE, [1.50, 1.40, 1.35, 1.20]),
    (OPEN_UNKNOWN, [3.2, 2.9, 2.2, 1.6]),
];

/// Against RustCrypto's.
const PORTABLE: &[(&str, Goal)] = &[(SEAL, [1.6; 4]), (SEAL_INTO, [1.6; 4]), (OPEN_IN_PLACE, [1.6; 4])];

pub(crate) fn goal(name: &str) -> Option<Goal> {
    let goals = if cfg!(feature = "aws-lc-rs") { FAST } else { PORTABLE };
    goals.iter().find(|(of, _)| *of == name).map(|(_, goal)| *goal)
}
