//! Generations of random state. A copy of the process (`fork`) must not go on with what its parent has drawn: halves of nonces
//! and the generator they come from, prefixes of writers, salts of files. So each remembers the generation it was drawn in, and is
//! used only while that is current.

pub(crate) use strongroom_fork_guard::{Generation, Process};

use crate::error::{Error, ErrorKind, Result};

/// The generation of now. To be asked before drawing: what is drawn then is as new as its mark or newer.
///
/// # Errors
/// `Unavailable` where a fork would go unnoticed.
#[inline]
pub(crate) fn current() -> Result<Generation> {
    Generation::current().map_err(unnoticed)
}

/// The process that asks, as opposed to those forked off from it.
///
/// # Errors
/// As [`current`]'s.
pub(crate) fn process() -> Result<Process> {
    Process::current().map_err(unnoticed)
}

/// Ends the current generation.
///
/// # Errors
/// As [`current`]'s.
pub(crate) fn advance() -> Result<()> {
    Generation::advance().map_err(unnoticed)
}

#[cold]
fn unnoticed(source: std::io::Error) -> Error {
    const WHAT: &str = "the operating system gives no means to notice a fork, after which nonces would repeat";
    Error::new(ErrorKind::Unavailable, WHAT).with_source(source)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::process::Command;

    const ALONE: &str = "STRONGROOM_TEST_ALONE";

    /// Runs an ignored test in a process of its own: it ends generations, which other tests rely on.
    pub(crate) fn in_its_own_process(test: &str) {
        let mut process = Command::new(std::env::current_exe().unwrap());
        let ended = process.args(["--exact", test, "--ignored"]).env(ALONE, "1").output().unwrap();
        let told = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(ended.status.success() && told.contains("1 passed"), "{told}");
    }

    /// Ends the generation, in a process that does nothing else.
    pub(crate) fn advance() {
        assert!(std::env::var_os(ALONE).is_some(), "started by a test");
        super::advance().unwrap();
    }
}
