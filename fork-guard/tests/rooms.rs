//! A process with a room in it forks: no copy repeats a nonce or a prefix of another, and none waits for threads that were not
//! copied.
//!
//! Without a test harness, whose threads and locks a fork would copy: `main` runs the tests one after the other. A copy tells
//! what it sealed through a pipe.
#![cfg_attr(not(unix), allow(unused))]

#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
fn main() {
    // As with the usual harness, arguments name tests.
    let wanted: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, test, fork) in forks::TESTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            test(*fork);
            println!("{name}: ok");
        }
    }
}

#[cfg(unix)]
mod forks {
    use std::collections::HashSet;
    use std::io::{Read, Write, pipe};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use strongroom::{
        ErrorKind, HotScope, LocalKms, MemoryKeyStore, Region, ScopeHandle, Strongroom, Suite, TenantPolicy,
    };
    use tokio::runtime::Runtime;

    /// A system call that copies the process: 0 in the child.
    type Fork = fn() -> libc::pid_t;

    /// What a test is called, the test, and how it forks.
    type Test = (&'static str, fn(Fork), Fork);

    pub(crate) const TESTS: &[Test] = &[
        ("no_nonce_and_no_prefix_is_used_twice", no_nonce_and_no_prefix_is_used_twice, fork),
        #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
        ("no_nonce_and_no_prefix_is_used_twice_past_the_c_library", no_nonce_and_no_prefix_is_used_twice, bare_clone),
        ("places_of_threads_that_were_not_copied_are_not_waited_for", inherited_places_are_not_waited_for, fork),
        ("a_file_is_sealed_by_one_process", a_file_is_sealed_by_one_process, fork),
        ("a_room_of_before_the_fork_loads_nothing", a_room_of_before_the_fork_loads_nothing, fork),
    ];

    const MESSAGES: usize = 2_000;
    const CONTEXT: &[(&str, &str)] = &[("message", "M77")];
    const NONCE_LEN: usize = 24;
    const PREFIX_LEN: usize = 12;
    const TAG_LEN: usize = 16;
    /// After so many seconds a copy is taken to wait for ever.
    const DEADLINE: u32 = 120;

    fn fork() -> libc::pid_t {
        // SAFETY: no other thread is in the C library with a lock that the child needs: they seal, and `malloc` heeds forks.
        unsafe { libc::fork() }
    }

    /// Past the C library and its handlers.
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn bare_clone() -> libc::pid_t {
        // SAFETY: the process has one thread. Without flags and without a stack of its own this is a fork.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
        libc::pid_t::try_from(pid).unwrap()
    }

    /// A copy of this process that has begun.
    struct Copy {
        pid: libc::pid_t,
        told: std::io::PipeReader,
    }

    impl Copy {
        /// Has a copy run `work` and tell what that returns.
        fn begin(fork: Fork, work: impl FnOnce() -> Vec<u8>) -> Self {
            let (told, mut tell) = pipe().unwrap();
            let pid = fork();
            assert!(pid >= 0, "{}", std::io::Error::last_os_error());
            if pid == 0 {
                // SAFETY: sets a timer, whose signal ends the process.
                unsafe { libc::alarm(DEADLINE) };
                let told = catch_unwind(AssertUnwindSafe(|| tell.write_all(&work()).unwrap()));
                // SAFETY: ends the process, and runs nothing of the parent's on the way.
                unsafe { libc::_exit(i32::from(told.is_err())) }
            }
            Self { pid, told }
        }

        /// What it told.
        fn end(mut self) -> Vec<u8> {
            let mut all = Vec::new();
            self.told.read_to_end(&mut all).unwrap();
            let mut status = 0;
            // SAFETY: `status` is there to be written to.
            assert_eq!(unsafe { libc::waitpid(self.pid, &raw mut status, 0) }, self.pid);
            assert!(status != libc::SIGALRM, "a copy waited for ever");
            assert_eq!(status, 0, "a copy failed");
            all
        }
    }

    /// One thread, which runs only while something is waited for: so a fork copies all there is.
    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    async fn room(suite: Suite) -> (Strongroom, ScopeHandle, HotScope) {
        let kms = LocalKms::in_memory();
        let region = Region::new("eu-central-1").unwrap();
        let kek = kms.create_kek("acme", region.clone()).unwrap();
        let hour = Duration::from_hours(1); // the lease outlasts the test, as nobody renews it
        let room = Strongroom::builder().serving(["eu-central-1"]).key_store(MemoryKeyStore::default()).kms(kms);
        let room = room.revocation_bound(hour).trusting_the_key_store().build().await.unwrap();
        let policy = TenantPolicy::new(kek, region).scope_by(["channel"]).suite(suite);
        room.admin("a test", "to test").unwrap().enroll("acme", policy).await.unwrap();
        let scope = room.tenant("acme").await.unwrap().scope([("channel", "C9")]).unwrap();
        let hot = scope.hot().await.unwrap();
        (room, scope, hot)
    }

    /// Seals messages and returns their nonces.
    fn seal(hot: &HotScope, messages: usize) -> Vec<u8> {
        let (mut nonces, mut out) = (Vec::new(), Vec::with_capacity(256));
        for _ in 0..messages {
            out.clear();
            hot.seal_into(CONTEXT, b"hello", &mut out).unwrap();
            let end = out.len() - b"hello".len() - TAG_LEN;
            nonces.extend_from_slice(&out[end - NONCE_LEN..end]);
            assert_eq!(hot.open_in_place(CONTEXT, &mut out).unwrap(), b"hello");
        }
        nonces
    }

    /// The same on two threads at once.
    fn seal_on_threads(hot: &HotScope) -> Vec<u8> {
        std::thread::scope(|s| {
            let threads = [0, 1].map(|_| s.spawn(|| seal(hot, MESSAGES)));
            threads.map(|thread| thread.join().unwrap()).concat()
        })
    }

    fn no_nonce_and_no_prefix_is_used_twice(fork: Fork) {
        // Two lengths, of which one at least leaves many halves of nonces drawn ahead.
        for (suite, ahead) in Suite::ALL.into_iter().flat_map(|suite| [(suite, 5), (suite, 10)]) {
            let (_room, _, hot) = runtime().block_on(room(suite));
            let before = seal(&hot, ahead);
            let child = Copy::begin(fork, || {
                let grandchild = Copy::begin(fork, || seal(&hot, MESSAGES));
                let mut nonces = seal(&hot, MESSAGES);
                // Once more, now that it has a writer and halves of its own, and on several threads.
                let late = Copy::begin(fork, || seal_on_threads(&hot));
                nonces.extend(seal_on_threads(&hot));
                [grandchild.end(), nonces, late.end()].concat()
            });
            let sibling = Copy::begin(fork, || seal(&hot, MESSAGES));
            let parent = seal(&hot, MESSAGES);
            let child = child.end();
            let (grandchild, rest) = child.split_at(MESSAGES * NONCE_LEN);
            let (child, late) = rest.split_at(3 * MESSAGES * NONCE_LEN);
            let copies = [&[before, parent].concat(), grandchild, child, late, &sibling.end()];

            let mut nonces = HashSet::new();
            let mut repeated = 0;
            let mut prefixes = Vec::new();
            for copy in copies {
                let all = copy.as_chunks::<NONCE_LEN>().0;
                assert!(all.len() >= MESSAGES);
                repeated += all.iter().filter(|nonce| !nonces.insert(**nonce)).count();
                prefixes.push(all.iter().map(|nonce| &nonce[..PREFIX_LEN]).collect::<HashSet<_>>());
            }
            assert_eq!(nonces.len() + repeated, ahead + 8 * MESSAGES);
            let distinct: HashSet<_> = prefixes.iter().flatten().collect();
            let shared = prefixes.iter().map(HashSet::len).sum::<usize>() - distinct.len();
            assert_eq!((repeated, shared), (0, 0), "nonces used again, prefixes of two processes; {suite:?}");
        }
    }

    /// While threads of the parent are at work in their places, a child seals and gets rid of the keys that it inherited.
    fn inherited_places_are_not_waited_for(fork: Fork) {
        let (room, _, hot) = runtime().block_on(room(Suite::Aes256Gcm));
        let (at_work, done) = (AtomicBool::new(false), AtomicBool::new(false));
        let work = || {
            // As long as messages worked on in a place may be: hardly ever is a thread found between two.
            let (message, mut out) = (vec![7; 1 << 20], Vec::with_capacity((1 << 20) + 256));
            while !done.load(Ordering::Relaxed) {
                out.clear();
                hot.seal_into(CONTEXT, &message, &mut out).unwrap();
                at_work.store(true, Ordering::Relaxed);
            }
        };
        std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(work);
            }
            while !at_work.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            let forking = || {
                let child = Copy::begin(fork, || {
                    let nonces = seal(&hot, 100);
                    assert_eq!(room.admin("a test", "to test").unwrap().purge_all(), 1);
                    assert_eq!(room.cached_keys(), 0);
                    let refused = hot.seal(CONTEXT, b"hello").unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::NotLoaded);
                    nonces
                });
                assert_eq!(child.end().len(), 100 * NONCE_LEN);
            };
            let forked = catch_unwind(AssertUnwindSafe(|| (0..10).for_each(|_| forking())));
            done.store(true, Ordering::Relaxed);
            forked.unwrap();
        });
        assert_eq!(room.cached_keys(), 1, "a child's purge is its own");
        seal(&hot, 1);
    }

    fn a_file_is_sealed_by_one_process(fork: Fork) {
        for suite in Suite::ALL {
            let runtime = self::runtime();
            let (_room, scope, _) = runtime.block_on(room(suite));
            let context = &[("file", "F1")];
            let unused = runtime.block_on(scope.file_sealer(context)).unwrap();
            let mut begun = runtime.block_on(scope.file_sealer(context)).unwrap().writer(Vec::new());
            begun.write_all(&vec![7; 20_000]).unwrap();
            // Consumed in the child and in the parent: a copy of the process copies what cannot be cloned.
            let (mut unused, mut begun) = (Some(unused), Some(begun));
            let child = Copy::begin(fork, || {
                let refused = unused.take().unwrap().seal_bytes(b"the child's").unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Unavailable);
                let refused = begun.take().unwrap().finish().unwrap_err();
                assert_eq!(refused.downcast::<strongroom::Error>().unwrap().kind(), ErrorKind::Unavailable);
                Vec::new()
            });
            child.end();
            unused.take().unwrap().seal_bytes(b"the parent's").unwrap();
            begun.take().unwrap().finish().unwrap();
        }
    }

    fn a_room_of_before_the_fork_loads_nothing(fork: Fork) {
        let runtime = self::runtime();
        let (room, scope, hot) = runtime.block_on(self::room(Suite::Aes256Gcm));
        let envelope = hot.seal(CONTEXT, b"hello").unwrap();
        let child = Copy::begin(fork, || {
            self::runtime().block_on(async {
                assert_eq!(&*scope.open(CONTEXT, &envelope).await.unwrap(), b"hello", "by the key in hand");
                room.admin("a test", "to test").unwrap().purge_all();
                let kinds = [
                    scope.seal(CONTEXT, b"hello").await.map(drop).map_err(|e| e.kind()),
                    scope.open(CONTEXT, &envelope).await.map(drop).map_err(|e| e.kind()),
                    hot.refresh().await.map_err(|e| e.kind()),
                ];
                assert_eq!(kinds, [Err(ErrorKind::Unavailable); 3], "nobody is there to load");
            });
            // A room of its own does.
            let (_room, _, hot) = self::runtime().block_on(self::room(Suite::Aes256Gcm));
            seal(&hot, 1)
        });
        assert_eq!(child.end().len(), NONCE_LEN);
    }
}
