//! Sessions: pooled connections, each lent for one call, and what becomes of calls that fail, hang or are dropped.

use std::borrow::Cow;
use std::error::Error as _;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Postgres};
use tokio::time::{sleep, timeout};

use crate::error::{Error, ErrorKind, Result};
use crate::retry::Patience;
use crate::store::postgres::locks;
use crate::store::postgres::options::PostgresOptions;

/// How often a call is made in all if it loses against another one in a way that only a new transaction mends.
const TRIES: u32 = 5;

/// How often a call waits for a lock within its timeout, one after the other.
const LOCK_WAITS: u128 = 4;

pub(super) struct Sessions {
    pool: PgPool,
    timeout: Duration,
}

/// A connection lent for one call.
///
/// It goes back to the pool only if the call came to its end. Dropped before (a cancelled or hanging call) it is closed:
/// nobody is to find it in the middle of a transaction, nor wait for an answer that never comes. The server rolls back.
pub(super) struct Session {
    db: PoolConnection<Postgres>,
    ended: bool,
}

impl Sessions {
    /// At most `connections` of them.
    ///
    /// # Errors
    /// `Unavailable` if the database does not answer, `StoreFault` if it lets nobody in.
    pub(super) async fn open(connect: PgConnectOptions, options: &PostgresOptions, connections: u32) -> Result<Self> {
        let limit = options.timeout;
        let setting = settings(options);
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(limit / 2)
            .after_connect(move |db, _| {
                let setting = setting.clone();
                Box::pin(async move { sqlx::raw_sql(AssertSqlSafe(setting)).execute(db).await.map(|_| ()) })
            })
            // The pool itself would wait without limit for a server that is gone without a word.
            .after_release(move |db, _| {
                Box::pin(async move {
                    let ping = timeout(limit, db.ping()).await;
                    ping.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map(|()| true)
                })
            })
            .connect_with(connect)
            .await
            .map_err(failed)?;
        Ok(Self { pool, timeout: limit })
    }

    /// Makes a call, again if it lost against another one, within the store's timeout. Where it waits for somebody's lock it gives
    /// its own locks back now and then, so that it keeps nobody else, and begins anew.
    pub(super) async fn run<T, F>(&self, operation: &'static str, call: impl Fn(Session) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.run_within(self.timeout, operation, call).await
    }

    /// The same for a call that may take as long as `limit`.
    pub(super) async fn run_within<T, F>(
        &self,
        limit: Duration,
        operation: &'static str,
        call: impl Fn(Session) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let locked_by = Mutex::new(None);
        let tries = async {
            let (mut patience, mut left) = (Patience::within(limit), TRIES);
            loop {
                // The timeout below ends it.
                if let Some(pause) = patience.next_pause().filter(|pause| !pause.is_zero()) {
                    sleep(pause).await;
                }
                let db = self.pool.acquire().await.map_err(failed)?;
                match call(Session { db, ended: false }).await {
                    Err(e) if waited_for_a_lock(&e) => {
                        *locked_by.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.holders().await);
                        patience = Patience::within(limit); // it has waited
                    }
                    Err(e) if left > 1 && lost_a_race(&e) => {
                        left -= 1;
                        tracing::debug!(error = %e, operation, "trying again");
                    }
                    result => return result,
                }
            }
        };
        let done = match timeout(limit, tries).await {
            Ok(done) => done,
            Err(_) => Err(match locked_by.into_inner().unwrap_or_else(PoisonError::into_inner) {
                Some(holders) => locks::held(&holders),
                None => Error::new(ErrorKind::Unavailable, "the key store does not answer in time; retry"),
            }),
        };
        done.map_err(|e| e.with_operation(operation))
    }

    /// Who holds locks in the store's tables, in words; nothing where that cannot be read.
    async fn holders(&self) -> String {
        let read = async { locks::holders(&mut *self.pool.acquire().await?).await };
        read.await.unwrap_or_default()
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

impl Session {
    /// Says how the call ended, so that the connection may be used again unless it is the connection that failed.
    pub(super) fn ended<T>(mut self, result: Result<T>) -> Result<T> {
        self.ended = match &result {
            Err(e) if matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::StoreFault) => {
                lost_a_race(e) || waited_for_a_lock(e)
            }
            _ => true,
        };
        result
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.ended {
            self.db.close_on_drop();
        }
    }
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.db
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.db
    }
}

/// What each connection is told first. Whatever the server's configuration says, a commit waits for the disk (and for
/// synchronous standbys): a key is durable before it is used. `remote_apply` waits for more, so it is left alone. Who waited for
/// a row's lock is to see it as it is then, so READ COMMITTED: under a stricter level writers of the log would fail instead.
fn settings(options: &PostgresOptions) -> String {
    let (schema, limit) = (&options.schema, options.timeout.as_millis());
    let lock_wait = limit / LOCK_WAITS;
    format!(
        "SET search_path TO {schema};
         SET default_transaction_isolation TO 'read committed';
         SET statement_timeout TO {limit};
         SET lock_timeout TO {lock_wait};
         SET idle_in_transaction_session_timeout TO {limit};
         SELECT set_config('synchronous_commit', 'on', false)
             WHERE current_setting('synchronous_commit') <> 'remote_apply';"
    )
}

const NOT_TRUSTED: &str =
    "the key store's TLS, or its certificate, is not accepted; check the URL's sslmode and sslrootcert";

pub(super) const STANDBY: &str =
    "the key store takes no writes: a standby, or set to read only; connect to the primary";

/// An error that no row is to blame for: `StoreFault` where somebody has to act, else `Unavailable`.
#[allow(clippy::needless_pass_by_value)] // for map_err
pub(super) fn failed(e: sqlx::Error) -> Error {
    use ErrorKind::{StoreFault, Unavailable};
    let (kind, message) = match &e {
        sqlx::Error::Database(d) => match d.code().as_deref() {
            Some("55P03") => (Unavailable, "another session holds a lock that the key store's call needs; retry"),
            Some("57014") => (Unavailable, "the key store does not answer in time; retry"),
            Some("25006") => (Unavailable, STANDBY), // for a moment after a fail-over, too
            Some("28000" | "28P01") => {
                (StoreFault, "the key store refuses the login; check the URL's user and password")
            }
            Some("3D000") => (StoreFault, "the key store's database does not exist; create it, or check the URL"),
            Some("42501") => (StoreFault, "the key store's user lacks a permission on its schema; grant it"),
            Some("42P01" | "42703" | "3F000") => {
                (StoreFault, "the key store's tables are not as they were made; restore its schema")
            }
            Some("40001" | "40P01" | "23505") => (Unavailable, "the key store is busy with other writers; retry"),
            Some("53100") => (StoreFault, "the key store's disk is full; make room on the database server"),
            Some("53300") => {
                (Unavailable, "the key store has no connection left; raise its max_connections, or use fewer")
            }
            Some("57P01" | "57P02" | "57P03") => (Unavailable, "the key store is starting or shutting down; retry"),
            Some("58030") => (StoreFault, "the key store's disk fails to read or write; check it"),
            Some("XX001" | "XX002") => (StoreFault, "the key store's files are corrupt; restore them from a backup"),
            _ => (Unavailable, "the key store failed"),
        },
        sqlx::Error::PoolTimedOut => (Unavailable, "no connection to the key store could be had in time; retry"),
        sqlx::Error::Tls(_) => (StoreFault, NOT_TRUSTED),
        sqlx::Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => (StoreFault, NOT_TRUSTED), // so rustls says it
        _ => (Unavailable, "the key store failed"),
    };
    Error::new(kind, message).with_source(e)
}

/// The lock that it waited for was not to be had.
fn waited_for_a_lock(e: &Error) -> bool {
    code_of(e).as_deref() == Some("55P03")
}

/// Serialization failure, deadlock, or a unique row that somebody else was first to write: a new transaction sees why.
fn lost_a_race(e: &Error) -> bool {
    matches!(code_of(e).as_deref(), Some("40001" | "40P01" | "23505"))
}

fn code_of(e: &Error) -> Option<Cow<'_, str>> {
    let source = e.source().and_then(|source| source.downcast_ref::<sqlx::Error>());
    source.and_then(sqlx::Error::as_database_error).and_then(sqlx::error::DatabaseError::code)
}
