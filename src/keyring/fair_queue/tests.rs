use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::*;

/// Waits for a turn of the tenant's.
async fn turn(queue: &FairQueue, of: &str) -> Result<Turn> {
    queue.turn(&tenant(of)).await
}

/// Does work for the tenant that takes so long, and fails if `fails`.
async fn work(queue: &FairQueue, of: &str, takes: Duration, fails: bool) -> Result<()> {
    let work = async {
        tokio::time::sleep(takes).await;
        if fails { Err(down()) } else { Ok(()) }
    };
    queue.run(&tenant(of), work).await
}

const PATIENCE: Duration = Duration::from_secs(1);

fn queue(at_once: Option<usize>, of_one: usize) -> FairQueue {
    FairQueue::new(Limits { what: "pieces of work", at_once, of_one, patience: PATIENCE })
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "it is down")
}

#[tokio::test(start_paused = true)]
async fn tenants_take_turns_and_a_tenant_s_own_go_in_order() {
    let queue = queue(Some(1), 1);
    let first = turn(&queue, "acme").await.unwrap();
    let order = std::sync::Mutex::new(Vec::new());
    let waiting = ["acme", "acme", "acme", "globex", "globex", "initech"].into_iter().enumerate().map(|(n, name)| {
        let (queue, order) = (&queue, &order);
        async move {
            let _turn = turn(queue, name).await.unwrap();
            order.lock().unwrap().push((name, n));
        }
    });
    let mut waiting = Box::pin(join_all(waiting));
    assert!((&mut waiting).now_or_never().is_none());
    drop(first);
    waiting.await;
    let expected = [("globex", 3), ("initech", 5), ("acme", 0), ("globex", 4), ("acme", 1), ("acme", 2)];
    assert_eq!(*order.lock().unwrap(), expected);
    assert_eq!(queue.sizes(), (0, 0, 0, 0), "something is left");
}

#[tokio::test(start_paused = true)]
async fn one_tenant_never_has_all_turns() {
    let queue = queue(Some(4), 3);
    let mut turns = Vec::new();
    for _ in 0..3 {
        turns.push(turn(&queue, "acme").await.unwrap());
    }
    let mut fourth = Box::pin(turn(&queue, "acme"));
    assert!((&mut fourth).now_or_never().is_none());
    let other = turn(&queue, "globex").now_or_never().expect("waits for acme").unwrap();
    turns.pop();
    let _fourth = fourth.await.unwrap();
    drop(other);
    assert!(turn(&queue, "acme").now_or_never().is_none(), "beyond its limit");
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_gives_his_place_up_before_and_after_he_was_told() {
    let queue = queue(Some(1), 1);
    let first = turn(&queue, "acme").await.unwrap();
    let (mut gone, mut told, mut last) =
        (Box::pin(turn(&queue, "acme")), Box::pin(turn(&queue, "acme")), Box::pin(turn(&queue, "acme")));
    for waiting in [&mut gone, &mut told, &mut last] {
        assert!(waiting.now_or_never().is_none());
    }
    drop(gone);
    assert_eq!(queue.sizes().1, 2);
    drop(first); // tells the second, who goes away without having heard it
    assert!((&mut last).now_or_never().is_none());
    drop(told);
    drop(last.now_or_never().expect("a turn was lost").unwrap());
    assert_eq!(queue.sizes(), (0, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_told_that_the_queue_is_to_blame() {
    let queue = queue(Some(4), 3);
    let _turns = join_all((0..3).map(|_| turn(&queue, "acme"))).await;
    let began = Instant::now();
    let refused = turn(&queue, "acme").await.err().unwrap();
    assert!(began.elapsed() >= LONGEST_WAIT && refused.kind() == ErrorKind::Overloaded && refused.is_retryable());
    let said = refused.to_string();
    for words in
        ["this process has too much to do", "Neither the key store nor a KMS", "acme", "3 of a tenant's and 4 in all"]
    {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(queue.sizes().1, 0);
}

#[tokio::test(start_paused = true)]
async fn what_hangs_costs_those_behind_it_one_deadline_and_what_succeeds_nothing() {
    let queue = queue(None, 2);
    let began = Instant::now();
    let timed = async |takes, fails| (work(&queue, "acme", takes, fails).await, began.elapsed());
    // Each hangs for a second: of a hundred, none waits for more than one, whoever is in front.
    for (n, (done, after)) in join_all((0..100).map(|_| timed(PATIENCE, true))).await.into_iter().enumerate() {
        let failed = done.unwrap_err();
        assert!(failed.kind() == ErrorKind::Unavailable && after <= PATIENCE, "{n} after {after:?}");
        assert!(n < 2 || failed.to_string().contains("waiting for a turn"), "{failed}");
        assert!(failed.to_string().contains("it is down"), "{failed}");
    }
    // One of three that fails is no outage: the others have their turn.
    let began = Instant::now();
    let done = join_all((0..60).map(|n| work(&queue, "acme", Duration::from_millis(400), n % 3 == 2))).await;
    assert_eq!(done.iter().filter(|done| done.is_err()).count(), 20);
    assert_eq!(began.elapsed(), 30 * Duration::from_millis(400));
    assert_eq!(queue.sizes(), (0, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_tenant_s_outage_is_not_another_s() {
    let queue = queue(Some(4), 3);
    let (failed, worked) = tokio::join!(
        join_all((0..20).map(|_| work(&queue, "acme", PATIENCE, true))),
        join_all((0..20).map(|_| work(&queue, "globex", Duration::from_millis(300), false)))
    );
    assert!(failed.iter().all(Result::is_err) && worked.iter().all(Result::is_ok));
    // Where nobody's work succeeds, nobody waits for all of it.
    let began = Instant::now();
    let names = ["acme", "globex", "initech"];
    let all = join_all((0..60).map(|n| work(&queue, names[n % 3], PATIENCE, true)));
    assert!(all.await.iter().all(Result::is_err) && began.elapsed() <= PATIENCE, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_add_up_whatever_is_dropped() {
    let queue = queue(Some(3), 2);
    let names = ["acme", "globex", "initech", "umbrella"];
    let busy = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let tasks = (0..400_usize).map(|n| {
        let (queue, busy) = (queue.clone(), std::sync::Arc::clone(&busy));
        tokio::spawn(async move {
            let work = async {
                assert!(busy.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 3, "more than may be at once");
                tokio::task::yield_now().await;
                busy.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                if n.is_multiple_of(7) { Err(down()) } else { Ok(()) }
            };
            let turn = turn(&queue, names[n % 4]);
            if n.is_multiple_of(3) {
                // Gives up, perhaps with its turn on the way.
                let _ = tokio::time::timeout(Duration::from_micros(n as u64), turn).await;
            } else {
                let turn = turn.await.unwrap();
                turn.ended(work.await.err().as_ref());
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(queue.sizes(), (0, 0, 0, 0));
}
