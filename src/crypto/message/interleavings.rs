//! Writers of one data key under all interleavings that the schedules find. All threads of a model share one writer's slot.

use std::collections::HashMap;

use shuttle::thread;

use super::*;
use crate::crypto::allotment::MAX_LOT;
use crate::crypto::xaes::PREFIX_LEN;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::explore;

type Prefix = [u8; PREFIX_LEN];

fn cipher(budget: &Arc<Budget>) -> MessageCipher {
    let key = Secret::take(&mut [7; 32]);
    MessageCipher::new(Backend::RustCrypto, Suite::Aes256Gcm, key, Arc::clone(budget))
}

/// Seals one message; the nonce, or `None` if the budget is spent.
fn seal(cipher: &MessageCipher, now: Duration) -> Option<[u8; NONCE_LEN]> {
    let mut nonce = [0; NONCE_LEN];
    match cipher.seal(now, b"", &mut nonce, &mut [0; 1]) {
        Ok(_) => Some(nonce),
        Err(SealFailure::Spent) => None,
        Err(SealFailure::Failed(e)) => panic!("{e}"),
    }
}

fn seal_until_spent(cipher: &MessageCipher) -> Vec<[u8; NONCE_LEN]> {
    std::iter::from_fn(|| seal(cipher, Duration::ZERO)).collect()
}

/// Runs `work` on three threads and returns what they return.
fn on_three<T: Send + 'static>(work: impl Fn(u64) -> T + Send + Sync + 'static) -> Vec<T> {
    let work = Arc::new(work);
    let start = |n| {
        let work = Arc::clone(&work);
        thread::spawn(move || work(n))
    };
    let threads: Vec<_> = (0..3).map(start).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn the_budget_is_exact_and_no_prefix_is_used_too_often() {
    const MESSAGES: u64 = 40;
    explore(|| {
        let cipher = cipher(&Arc::new(Budget::new(MESSAGES)));
        let nonces = on_three(move |_| seal_until_spent(&cipher)).concat();
        assert_eq!(nonces.len() as u64, MESSAGES);
        let mut uses = HashMap::<Prefix, u64>::new();
        for nonce in &nonces {
            *uses.entry(xaes::split(nonce).0).or_default() += 1;
        }
        assert!(uses.values().all(|n| *n <= MAX_LOT), "{uses:?}");
    });
}

/// What the writers of a key leave unused goes back, however many loads of it there are and whenever they are dropped.
#[test]
fn no_message_of_the_budget_is_lost_or_counted_twice_when_keys_come_and_go() {
    const MESSAGES: u64 = 40;
    explore(|| {
        let budget = Arc::new(Budget::new(MESSAGES));
        let shared = Arc::clone(&budget);
        let first = Arc::new(cipher(&budget));
        let sealed: usize = on_three(move |n| {
            // One goes on with the key that the others share; two load it again meanwhile.
            let own = (n > 0).then(|| Arc::new(cipher(&shared)));
            let sealed = (0..3).filter_map(|_| seal(&first, Duration::ZERO)).count();
            let own = own.map_or(0, |own| (0..3).filter_map(|_| seal(&own, Duration::ZERO)).count());
            sealed + own
        })
        .into_iter()
        .sum();
        assert!(sealed >= 1);
        let rest = seal_until_spent(&cipher(&budget)).len();
        assert_eq!((sealed + rest) as u64, MESSAGES);
    });
}

#[test]
fn no_prefix_is_used_after_60_seconds() {
    explore(|| {
        let cipher = Arc::new(cipher(&Arc::new(Budget::new(1_000))));
        let clock = AtomicU64::new(0);
        let uses = on_three(move |_| {
            let seal_once = |_| {
                let now = Duration::from_secs(clock.fetch_add(25, Ordering::SeqCst));
                let prefix = xaes::split(&seal(&cipher, now).unwrap()).0;
                // Until when the prefix serves, if its writer still is the one.
                let current = cipher.writers.slot().load_full();
                let retires = current.filter(|writer| writer.prefix == prefix).map(|writer| writer.retires);
                (prefix, now, retires)
            };
            (0..3).map(seal_once).collect::<Vec<_>>()
        })
        .concat();
        let retires: HashMap<Prefix, _> = uses.iter().filter_map(|(p, _, retires)| Some((*p, (*retires)?))).collect();
        for (prefix, now, _) in &uses {
            assert!(retires.get(prefix).is_none_or(|retires| now < retires), "used at {now:?}");
        }
        for (prefix, retires) in &retires {
            // It was drawn by one of its uses, 60 s before.
            assert!(uses.iter().any(|(p, now, _)| p == prefix && *now + PREFIX_LIFE == *retires));
        }
    });
}
