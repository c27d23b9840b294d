//! The contract of [`Watermark`](crate::Watermark), as a suite that every kind of watermark runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;

use crate::key::id::TenantId;
use crate::key::incarnation::Incarnation;
use crate::key::row_digest::RowDigest;
use crate::watermark::{Mark, Subject, Watermark};

/// Names that something on the way to a file or an object could take for each other, or for something else.
const TENANTS: [&str; 14] =
    [".", "..", "room", "fleet", "log", "tenant", "Acme", "acme", "a:b", "a_3Ab", "a_b", "a_5Fb", "-", "a@b.c:d_e-f"];

fn mark(incarnation: u8, epoch: u64, digest: u8) -> Mark {
    Mark { incarnation: Incarnation::from_bytes([incarnation; 16]), epoch, digest: RowDigest::from_bytes([digest; 32]) }
}

fn tenant(name: &str) -> Subject {
    Subject::Tenant(TenantId::new(name).unwrap())
}

async fn read(watermark: &dyn Watermark, subject: &Subject) -> Option<Mark> {
    watermark.read(subject).await.expect("reading a mark")
}

async fn advances(watermark: &dyn Watermark, subject: &Subject, from: Option<&Mark>, to: &Mark) -> bool {
    watermark.advance(subject, from, to).await.expect("advancing a mark")
}

/// Checks the contract of [`Watermark`] on an empty one. Panics at the first breach, saying which. Run it on a runtime with
/// several threads: part of it races. That marks survive a crash is for a test that kills processes.
pub async fn watermark_contract(watermark: Arc<dyn Watermark>) {
    compare_and_set(&*watermark).await;
    subjects(&*watermark).await;
    extremes(&*watermark).await;
    rivals(&watermark).await;
    strangers(&watermark).await;
    cancelled(&watermark).await;
}

async fn compare_and_set(watermark: &dyn Watermark) {
    let subject = tenant("compare");
    let (first, second, third) = (mark(1, 1, 1), mark(1, 2, 2), mark(1, 3, 3));
    assert_eq!(read(watermark, &subject).await, None, "contract broken: a mark that nobody wrote");
    assert!(!advances(watermark, &subject, Some(&first), &second).await, "contract broken: advanced from no mark");
    assert_eq!(read(watermark, &subject).await, None, "contract broken: a refused advance wrote");
    assert!(advances(watermark, &subject, None, &first).await, "contract broken: the first advance was refused");
    assert_eq!(read(watermark, &subject).await, Some(first));
    // Each part of a mark counts.
    for other in [None, Some(mark(2, 1, 1)), Some(mark(1, 0, 1)), Some(mark(1, 2, 1)), Some(mark(1, 1, 2))] {
        let advanced = advances(watermark, &subject, other.as_ref(), &third).await;
        assert!(!advanced, "contract broken: advanced from {other:?}, which it is not");
        assert_eq!(read(watermark, &subject).await, Some(first), "contract broken: a refused advance wrote");
    }
    assert!(advances(watermark, &subject, Some(&first), &second).await);
    assert!(
        !advances(watermark, &subject, Some(&first), &third).await,
        "contract broken: advanced twice from one mark"
    );
    assert_eq!(read(watermark, &subject).await, Some(second));
    // Somebody whose answer was lost asks again.
    for from in [Some(&first), None, Some(&second)] {
        let repeated = advances(watermark, &subject, from, &second).await;
        assert!(repeated, "contract broken: an advance to what the mark is was refused");
    }
    assert!(advances(watermark, &subject, Some(&second), &third).await);
    assert!(
        !advances(watermark, &subject, Some(&first), &second).await,
        "contract broken: a late repetition went back"
    );
    assert_eq!(read(watermark, &subject).await, Some(third));
}

/// Each subject has a mark of its own.
async fn subjects(watermark: &dyn Watermark) {
    let subjects: Vec<_> =
        [Subject::Room, Subject::Fleet, Subject::Log].into_iter().chain(TENANTS.map(tenant)).collect();
    for round in 1..=2 {
        for (n, subject) in subjects.iter().enumerate() {
            let of = |round| mark(u8::try_from(n).unwrap(), round, 7);
            let from = (round > 1).then(|| of(round - 1));
            assert_eq!(read(watermark, subject).await, from, "contract broken: {subject:?} has another's mark");
            assert!(advances(watermark, subject, from.as_ref(), &of(round)).await, "{subject:?}");
        }
    }
    for (n, subject) in subjects.iter().enumerate() {
        let expected = Some(mark(u8::try_from(n).unwrap(), 2, 7));
        assert_eq!(read(watermark, subject).await, expected, "contract broken: another subject's advance wrote");
    }
}

async fn extremes(watermark: &dyn Watermark) {
    let subject = tenant(&"x".repeat(64));
    let mut from = None;
    // What a mark means is its reader's business: an incarnation that begins anew may have a smaller epoch.
    for to in [mark(0, 0, 0), mark(255, u64::MAX, 255), mark(1, 0, 0)] {
        assert!(advances(watermark, &subject, from.as_ref(), &to).await);
        assert_eq!(read(watermark, &subject).await, Some(to), "contract broken: not the mark that was written");
        from = Some(to);
    }
}

/// Sixteen advance one subject at once, twenty times over, while somebody reads.
async fn rivals(watermark: &Arc<dyn Watermark>) {
    let subject = tenant("rivals");
    let over = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (watermark, subject, over) = (Arc::clone(watermark), subject.clone(), Arc::clone(&over));
        async move {
            let mut last = 0;
            while !over.load(Ordering::SeqCst) {
                let epoch = read(&*watermark, &subject).await.map_or(0, |mark| mark.epoch);
                assert!(epoch >= last, "contract broken: {epoch} was read after {last}");
                last = epoch;
                tokio::task::yield_now().await;
            }
        }
    });
    let mut from = None;
    for step in 1..=20 {
        let racers = (0..16).map(|racer| {
            let (watermark, subject) = (Arc::clone(watermark), subject.clone());
            tokio::spawn(async move {
                let to = mark(racer, step, racer);
                advances(&*watermark, &subject, from.as_ref(), &to).await.then_some(to)
            })
        });
        let winners: Vec<_> = join_all(racers).await.into_iter().filter_map(|racer| racer.unwrap()).collect();
        assert_eq!(winners.len(), 1, "contract broken: {} of sixteen advanced from one mark", winners.len());
        from = winners.first().copied();
        assert_eq!(read(&**watermark, &subject).await, from, "contract broken: not the winner's mark");
    }
    over.store(true, Ordering::SeqCst);
    reader.await.unwrap();
}

/// Sixteen advance a subject each: nobody is in another's way, and nobody's mark is lost.
async fn strangers(watermark: &Arc<dyn Watermark>) {
    let all = (0..16).map(|n| {
        let (watermark, subject) = (Arc::clone(watermark), tenant(&format!("stranger-{n}")));
        tokio::spawn(async move {
            let mut from = None;
            for epoch in 0..10 {
                let to = mark(n, epoch, n);
                let advanced = advances(&*watermark, &subject, from.as_ref(), &to).await;
                assert!(advanced, "contract broken: another subject's advance is in the way");
                assert_eq!(
                    read(&*watermark, &subject).await,
                    Some(to),
                    "contract broken: another subject's advance wrote"
                );
                from = Some(to);
            }
        })
    });
    join_all(all).await.into_iter().for_each(|task| task.unwrap());
    for n in 0..16 {
        assert_eq!(read(&**watermark, &tenant(&format!("stranger-{n}"))).await, Some(mark(n, 9, n)), "a mark was lost");
    }
}

/// Callers who give up leave the mark old or new, and in nobody's way.
async fn cancelled(watermark: &Arc<dyn Watermark>) {
    let subject = tenant("cancelled");
    let mut from = None;
    for epoch in 0..50 {
        let to = mark(1, epoch, 1);
        let call = tokio::spawn({
            let (watermark, subject) = (Arc::clone(watermark), subject.clone());
            async move { advances(&*watermark, &subject, from.as_ref(), &to).await }
        });
        for _ in 0..epoch % 5 {
            tokio::task::yield_now().await;
        }
        call.abort();
        let _ = call.await;
        let now = read(&**watermark, &subject).await;
        assert!(now == from || now == Some(to), "contract broken: neither the old mark nor the new one");
        // Whoever gave up may not have written yet, and repeats it.
        assert!(advances(&**watermark, &subject, from.as_ref(), &to).await, "contract broken: it cannot be repeated");
        assert_eq!(read(&**watermark, &subject).await, Some(to));
        from = Some(to);
    }
}
