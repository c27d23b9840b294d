//! Hands under all interleavings that the schedules find: messages are counted exactly, and nobody holds what was taken away.

use std::collections::HashMap;

use shuttle::thread;

use super::*;
use crate::crypto::allotment::{Budget, MAX_LOT};
use crate::keyring::cache::KeyCache;
use crate::keyring::cache::tests::{key_drawing_from, scope, tenant};
use crate::sync::atomic::AtomicBool;
use crate::sync::explore;

const THREADS: u64 = 3;
const MESSAGES: u64 = 40;

fn key(budget: &Arc<Budget>) -> Arc<CachedKey> {
    key_drawing_from(budget, "acme", 1, Duration::ZERO)
}

fn budget() -> Arc<Budget> {
    Arc::new(Budget::new(MESSAGES))
}

/// The nonce of one message, or `None` if the budget is spent.
fn seal(held: &mut Held) -> Option<[u8; 24]> {
    let mut out = Vec::new();
    match held.seal_into(Duration::ZERO, &[], b"m", &mut out) {
        Ok(()) => out[held.key().key.header_len()..].first_chunk().copied(),
        Err(SealFailure::Spent) => None,
        Err(SealFailure::Failed(e)) => panic!("{e}"),
    }
}

/// What is left to seal.
fn rest(key: Arc<CachedKey>) -> Vec<[u8; 24]> {
    let mut held = Held::new(key);
    std::iter::from_fn(|| seal(&mut held)).collect()
}

/// Runs `work` on [`THREADS`] threads and returns what they return.
fn on_threads<T: Send + 'static>(work: impl Fn(u64) -> T + Send + Sync + 'static) -> Vec<T> {
    let work = Arc::new(work);
    let start = |n| {
        let work = Arc::clone(&work);
        thread::spawn(move || work(n))
    };
    let threads: Vec<_> = (0..THREADS).map(start).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn the_budget_is_exact_and_no_prefix_is_used_too_often() {
    explore(|| {
        let (hands, key) = (Arc::new(Hands::default()), key(&budget()));
        let (shared, current) = (Arc::clone(&hands), Arc::clone(&key));
        let until_spent = move |_| {
            let sealed = || shared.with(1, || Some(Arc::clone(&current)), seal).flatten();
            std::iter::from_fn(sealed).collect::<Vec<_>>()
        };
        let mut nonces = on_threads(until_spent).concat();
        // A thread that went elsewhere may have found the budget spent there while its old place has some of its lot.
        hands.empty();
        nonces.extend(rest(key));
        assert_eq!(nonces.len() as u64, MESSAGES);
        let mut uses = HashMap::<&[u8], u64>::new();
        for nonce in &nonces {
            *uses.entry(&nonce[..12]).or_default() += 1;
        }
        assert!(uses.values().all(|n| *n <= MAX_LOT), "{uses:?}");
    });
}

#[test]
fn nobody_holds_or_uses_a_key_that_was_taken_away() {
    explore(|| {
        let (cache, key) = (Arc::new(KeyCache::new(3, 3)), key(&budget()));
        let slot = cache.slot(&tenant("acme"), &scope(1));
        assert!(cache.insert(&key, Some(slot.slot()), || true));
        let purged = Arc::new(AtomicBool::new(false));
        on_threads(move |n| {
            if n == 0 {
                cache.purge(&tenant("acme"), |_| true, || {});
                purged.store(true, Ordering::SeqCst);
                return;
            }
            let slot = cache.slot(&tenant("acme"), &scope(1));
            for _ in 0..3 {
                let too_late = purged.load(Ordering::SeqCst);
                let sealed = slot.slot().with(1, seal).flatten();
                assert!(sealed.is_none() || !too_late, "sealed after the purge had returned");
            }
        });
        assert!(slot.slot().current().is_none());
        assert_eq!(Arc::strong_count(&key), 1, "somebody still holds the key");
        assert!(slot.slot().with(1, |_| ()).is_none());
    });
}

#[test]
fn no_message_of_the_budget_is_lost_or_counted_twice_when_its_key_is_loaded_again() {
    explore(|| {
        let (cache, budget) = (Arc::new(KeyCache::new(3, 3)), budget());
        let slot = Arc::new(cache.slot(&tenant("acme"), &scope(1)));
        let (first, again) = (key(&budget), key(&budget));
        assert!(cache.insert(&first, Some(slot.slot()), || true));
        let (shared, all) = (Arc::clone(&slot), Arc::clone(&cache));
        let sealed = on_threads(move |n| {
            if n == 0 {
                assert!(all.insert(&again, Some(shared.slot()), || true));
            }
            (0..3).filter_map(|_| shared.slot().with(1, seal).flatten()).collect::<Vec<_>>()
        })
        .concat();
        cache.purge_all(|| {});
        assert_eq!((sealed.len() + rest(first).len()) as u64, MESSAGES);
    });
}
