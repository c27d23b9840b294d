//! Core dumps: keys and plaintexts in memory that a crash would write to disk.

use crate::error::Result;

/// What [`forbid_core_dumps`] could do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CoreDumps {
    /// Linux and Android: no core file is written, the kernel hands no dump to a program either (`kernel.core_pattern`
    /// with a `|`), and only a privileged process can read this one's memory or attach to it.
    Undumpable,
    /// Other Unix systems: no core file is written.
    NoFile,
    /// Not supported here: nothing was changed.
    Unsupported,
}

/// Forbids core dumps of this process, which would hold the keys that it has in its memory.
///
/// A library must not change this for the whole process unasked, so nothing here calls it: call it at the start of `main`.
/// It sets the soft limit of core files (`RLIMIT_CORE`) to 0 bytes and, on Linux and Android, makes the process undumpable
/// (`PR_SET_DUMPABLE`). Child processes inherit the limit; `exec` makes a process dumpable again. Debuggers and profilers of
/// the same user can no longer attach, and the process's files in `/proc` belong to root.
///
/// It does not protect from root, nor from whoever controls the hypervisor, nor keep memory out of swap or of a hibernation
/// image: encrypt those. Single buffers cannot be kept out of dumps (`MADV_DONTDUMP`) without `unsafe`.
///
/// # Errors
/// `Unavailable` if the operating system refuses; what was achieved until then stays.
///
/// ```
/// use strongroom::{CoreDumps, forbid_core_dumps};
///
/// match forbid_core_dumps()? {
///     CoreDumps::Undumpable | CoreDumps::NoFile => {}
///     other => println!("core dumps: {other:?}; switch them off by other means"),
/// }
/// # Ok::<(), strongroom::Error>(())
/// ```
pub fn forbid_core_dumps() -> Result<CoreDumps> {
    forbid()
}

#[cfg(unix)]
fn forbid() -> Result<CoreDumps> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum }).map_err(refused)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused)?;
        Ok(CoreDumps::Undumpable)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    Ok(CoreDumps::NoFile)
}

#[cfg(unix)]
fn refused(e: rustix::io::Errno) -> crate::error::Error {
    use crate::error::{Error, ErrorKind};
    Error::new(ErrorKind::Unavailable, "the operating system does not let core dumps be forbidden")
        .with_operation("forbid core dumps")
        .with_source(std::io::Error::from(e))
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps)] // it can fail elsewhere
fn forbid() -> Result<CoreDumps> {
    Ok(CoreDumps::Unsupported)
}
