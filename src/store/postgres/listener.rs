//! The listener: how a node hears at once that the log of changes has grown.
//!
//! Who adds an entry says so by `NOTIFY` in the same transaction. One connection of each store listens; it reconnects by itself.
//! What is said while it is down is missed, so it raises the signal once when it listens again, and whoever waits polls anyway.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::time::{sleep, timeout};

use crate::store::signal::Signal;

/// Named in [`add`](super::log::add) too. Stores in other schemas of the database hear it as well: one idle reading.
pub(super) const CHANNEL: &str = "strongroom";

/// Without a word for so long, the listener asks whether the server is still there: a connection can die in silence.
const SILENCE: Duration = Duration::from_secs(15);
/// First and longest pause before the listener connects again.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// Listens until it is aborted.
pub(super) async fn listening(connect: PgConnectOptions, limit: Duration, grown: Arc<Signal>) {
    let [first, longest] = PAUSES;
    let mut pause = first;
    loop {
        let began = tokio::time::Instant::now();
        let Err(error) = listen(&connect, limit, &grown).await;
        if began.elapsed() > longest {
            pause = first;
        }
        tracing::warn!(%error, "not told of changes in the key store for now; they are polled");
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Listens on a new connection until it fails.
async fn listen(connect: &PgConnectOptions, limit: Duration, grown: &Signal) -> Result<Infallible, sqlx::Error> {
    let late = |_| sqlx::Error::PoolTimedOut;
    // A pool of its own each time: a listener that hangs keeps its place in the pool.
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(limit).connect_lazy_with(connect.clone());
    let mut listener = timeout(limit, PgListener::connect_with(&pool)).await.map_err(late)??;
    listener.eager_reconnect(false);
    timeout(limit, listener.listen(CHANNEL)).await.map_err(late)??;
    grown.raise(); // what was said before, nobody heard
    loop {
        match timeout(SILENCE, listener.try_recv()).await {
            Ok(Ok(Some(_))) => grown.raise(),
            Ok(Ok(None)) => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            Ok(Err(e)) => return Err(e),
            Err(_) => {
                timeout(limit, sqlx::query("SELECT 1").execute(&mut listener)).await.map_err(late)??;
            }
        }
    }
}
