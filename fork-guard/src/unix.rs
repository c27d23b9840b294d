//! Words that a fork sets to zero in the child: on a page that the kernel wipes, or else by a handler of the C library.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::Words;

/// Where [`WORDS`] points until there are guarded ones. Always zero.
static UNGUARDED: Words = Words::zero();

static WORDS: AtomicPtr<Words> = AtomicPtr::new((&raw const UNGUARDED).cast_mut());

/// The words, guarded or zero.
#[inline]
pub(crate) fn words() -> &'static Words {
    // SAFETY: it points to `UNGUARDED` or to what `guarded` put there, both shared, initialised and never freed.
    unsafe { &*WORDS.load(Ordering::Acquire) }
}

/// The words, guarded.
///
/// Threads that come at once each make some, and one's stay; a lock instead, held by one thread while another forks, would be
/// held in the child for ever.
pub(crate) fn guarded() -> io::Result<&'static Words> {
    let unguarded = &raw const UNGUARDED;
    if !ptr::eq(words(), unguarded) {
        return Ok(words());
    }
    let made = match wiped_page() {
        Some(page) => page,
        None => handled()?,
    };
    let made = ptr::from_ref(made).cast_mut();
    // Who comes too late leaves a page behind.
    let _ = WORDS.compare_exchange(unguarded.cast_mut(), made, Ordering::AcqRel, Ordering::Acquire);
    Ok(words())
}

/// Words on a page that the kernel hands to a child wiped. `None` where it does not.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn wiped_page() -> Option<&'static Words> {
    use libc::{MADV_WIPEONFORK, MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE};
    const LEN: usize = size_of::<Words>(); // the kernel makes it a whole page

    // SAFETY: a mapping at an address of the kernel's choice touches no memory that is in use.
    let page = unsafe { libc::mmap(ptr::null_mut(), LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) };
    if page == MAP_FAILED {
        return None;
    }
    // SAFETY: the page is ours alone and holds nothing yet.
    let heeds = |advice| unsafe { libc::madvise(page, LEN, advice) } == 0;
    // Old QEMU in user mode says yes to every advice, to one that does not exist too, and heeds none.
    if heeds(-1) || !heeds(MADV_WIPEONFORK) {
        // SAFETY: nobody else knows of the page.
        unsafe { libc::munmap(page, LEN) };
        return None;
    }
    // SAFETY: a page is aligned for two words, all its bytes are zero, which two words may be, and it stays mapped.
    Some(unsafe { &*page.cast::<Words>() })
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn wiped_page() -> Option<&'static Words> {
    None
}

/// Words that a handler in the child sets to zero.
fn handled() -> io::Result<&'static Words> {
    static HANDLED: Words = Words::zero();
    extern "C" fn in_child() {
        HANDLED.process.store(0, Ordering::Relaxed);
        HANDLED.generation.store(0, Ordering::Relaxed);
    }
    // SAFETY: the handler does nothing that a signal handler may not do, and does not unwind.
    match unsafe { libc::pthread_atfork(None, None, Some(in_child)) } {
        0 => Ok(&HANDLED),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Generation, Process};

    fn fork() -> libc::pid_t {
        // SAFETY: the child does what a signal handler may do, and ends.
        unsafe { libc::fork() }
    }

    /// Past the C library and its handlers.
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn bare_clone() -> libc::pid_t {
        // SAFETY: as above; without flags and without a stack of its own it is a fork.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
        libc::pid_t::try_from(pid).unwrap()
    }

    /// Whether `work`, done in a child, says yes.
    #[track_caller]
    fn in_child(fork: impl Fn() -> libc::pid_t, work: impl FnOnce() -> bool) -> bool {
        let child = fork();
        assert!(child >= 0, "{}", io::Error::last_os_error());
        if child == 0 {
            let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let code = i32::from(!said.unwrap_or(false));
            // SAFETY: ends the process, and runs nothing of the parent's on the way.
            unsafe { libc::_exit(code) }
        }
        let mut status = 0;
        // SAFETY: `status` is there to be written to.
        let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(ended, child, "{}", io::Error::last_os_error());
        status == 0
    }

    fn set(words: &Words) {
        words.process.store(7, Ordering::Relaxed);
        words.generation.store(8, Ordering::Relaxed);
    }

    fn get(words: &Words) -> (u64, u64) {
        (words.process.load(Ordering::Relaxed), words.generation.load(Ordering::Relaxed))
    }

    /// In the child, the child's child and the parent afterwards.
    fn are_guarded_from(fork: impl Fn() -> libc::pid_t, words: &Words) {
        set(words);
        let child = || {
            let wiped = get(words) == (0, 0);
            set(words);
            wiped && in_child(&fork, || get(words) == (0, 0)) && get(words) == (7, 8)
        };
        assert!(in_child(&fork, child), "a copy kept its parent's marks");
        assert_eq!(get(words), (7, 8), "the parent lost its own");
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn the_kernel_wipes_the_page_of_every_copy() {
        let page = wiped_page().expect("a kernel from 4.14 on");
        assert_eq!(get(page), (0, 0));
        are_guarded_from(fork, page);
        #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
        are_guarded_from(bare_clone, page);
    }

    #[test]
    fn where_it_does_not_a_handler_sets_them_to_zero() {
        // In a child: where the kernel wipes no pages, the words are the ones that other tests use.
        assert!(in_child(fork, || {
            are_guarded_from(fork, handled().unwrap());
            true
        }));
    }

    #[test]
    fn in_a_forked_child_nothing_inherited_is_current() {
        let (process, generation) = (Process::current().unwrap(), Generation::current().unwrap());
        let differs = move || {
            let other = (Process::current().unwrap(), Generation::current().unwrap());
            let stale = !process.is_current() && !generation.is_current();
            stale && other.0.is_current() && other.1.is_current() && other.0 != process && other.1 != generation
        };
        let child = || {
            let (process, generation) = (Process::current().unwrap(), Generation::current().unwrap());
            let stale_again = || differs() && !process.is_current() && !generation.is_current();
            differs() && in_child(fork, stale_again) && process.is_current() && generation.is_current()
        };
        assert!(in_child(fork, child));
        assert!(process.is_current(), "the parent is who it was");
        // Before anyone has asked in the child, too.
        assert!(in_child(fork, || !process.is_current() && !generation.is_current()));
    }

    #[test]
    fn threads_that_come_at_once_use_the_same_words() {
        let made = || ptr::from_ref(guarded().unwrap()).addr();
        let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(made)).collect();
        let all: std::collections::HashSet<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(all.len(), 1);
        assert!(!all.contains(&(&raw const UNGUARDED).addr()));
    }
}
