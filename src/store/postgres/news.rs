//! News: how a node hears at once that the log of changes has grown.
//!
//! Who logs a change says so by `NOTIFY` in the same transaction. One connection of each store listens; it reconnects by
//! itself. What is said while it is down is missed, so it rings once when it listens again, and whoever waits polls anyway.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Named in [`log`](super::tenants::log) too. Stores in other schemas of the database hear it as well: one idle reading.
pub(super) const CHANNEL: &str = "strongroom";

/// Without a word for so long, the listener asks whether the server is still there: a connection can die in silence.
const SILENCE: Duration = Duration::from_secs(15);
/// First and longest pause before the listener connects again.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// A bell that counts, so that no ring is lost between two calls of [`Self::changed`].
#[derive(Default)]
pub(super) struct News {
    rung: watch::Sender<u64>,
    /// Up to where waiting callers were told.
    told: AtomicU64,
}

impl News {
    fn ring(&self) {
        self.rung.send_modify(|rung| *rung += 1);
    }

    /// Resolves when it has rung since a call of this last resolved; of several that wait, each does.
    pub(super) async fn changed(&self) {
        let told = self.told.load(Ordering::Acquire);
        // An error would say that the bell is gone, but it is ours.
        if let Ok(rung) = self.rung.subscribe().wait_for(|rung| *rung > told).await {
            self.told.fetch_max(*rung, Ordering::AcqRel);
        }
    }
}

/// Listens until it is aborted.
pub(super) async fn listening(connect: PgConnectOptions, limit: Duration, news: Arc<News>) {
    let [first, longest] = PAUSES;
    let mut pause = first;
    loop {
        let began = tokio::time::Instant::now();
        let Err(error) = listen(&connect, limit, &news).await;
        if began.elapsed() > longest {
            pause = first;
        }
        tracing::warn!(%error, "not told of changes in the key store for now; they are polled");
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Listens on a new connection until it fails.
async fn listen(connect: &PgConnectOptions, limit: Duration, news: &News) -> Result<Infallible, sqlx::Error> {
    let late = |_| sqlx::Error::PoolTimedOut;
    // A pool of its own each time: a listener that hangs keeps its place in the pool.
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(limit).connect_lazy_with(connect.clone());
    let mut listener = timeout(limit, PgListener::connect_with(&pool)).await.map_err(late)??;
    listener.eager_reconnect(false);
    timeout(limit, listener.listen(CHANNEL)).await.map_err(late)??;
    news.ring(); // what was said before, nobody heard
    loop {
        match timeout(SILENCE, listener.try_recv()).await {
            Ok(Ok(Some(_))) => news.ring(),
            Ok(Ok(None)) => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            Ok(Err(e)) => return Err(e),
            Err(_) => {
                timeout(limit, sqlx::query("SELECT 1").execute(&mut listener)).await.map_err(late)??;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn no_ring_is_lost_between_two_calls() {
        let news = News::default();
        assert!(news.changed().now_or_never().is_none(), "nothing rang yet");
        news.ring();
        assert!(news.changed().now_or_never().is_some());
        assert!(news.changed().now_or_never().is_none(), "told twice");
        let (mut one, mut other) = (Box::pin(news.changed()), Box::pin(news.changed()));
        assert!((&mut one).now_or_never().is_none() && (&mut other).now_or_never().is_none());
        news.ring();
        assert!(one.now_or_never().is_some() && other.now_or_never().is_some(), "two waited, not both were told");
        drop(Box::pin(news.changed())); // not waited for
        news.ring();
        news.ring();
        assert!(news.changed().now_or_never().is_some());
        assert!(news.changed().now_or_never().is_none(), "two rings, one reading");
    }
}
