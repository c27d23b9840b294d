//! Who else holds locks in the key store's tables: a migration tool, somebody at a prompt who left a transaction open, a node that
//! was stopped in the middle of one. An error names them, since only people can end them.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use crate::error::{Error, ErrorKind};

/// Sessions that hold more than a reader's lock and wait for none themselves, those first that have been at it longest. What the
/// user may not see of other users' sessions is left out.
const HOLDERS: &str = "
    SELECT 'process ' || pid || ', user ' || COALESCE(usename, '?') || ', application '
        || COALESCE(NULLIF(left(application_name, 40), ''), '?') || COALESCE(', ' || state, '')
        || COALESCE(', for ' || floor(extract(epoch FROM clock_timestamp() - xact_start)) || ' s', '')
    FROM pg_stat_activity AS session
    WHERE pid <> pg_backend_pid() AND wait_event_type IS DISTINCT FROM 'Lock' AND EXISTS (
        SELECT FROM pg_locks AS held
        WHERE held.pid = session.pid AND held.granted AND held.mode <> 'AccessShareLock'
        AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (held.locktype = 'advisory' OR held.relation IN (
            SELECT oid FROM pg_class WHERE relnamespace = current_schema()::regnamespace)))
    ORDER BY xact_start NULLS LAST LIMIT 3";

/// # Errors
/// The database's.
pub(super) async fn holders(db: &mut PgConnection) -> Result<String, sqlx::Error> {
    let rows = sqlx::query(HOLDERS).fetch_all(db).await?;
    let named: Vec<String> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
    Ok(named.join("; "))
}

/// A call that waited for a lock to its end.
pub(super) fn held(holders: &str) -> Error {
    let who = if holders.is_empty() { "which one, this user cannot see" } else { holders };
    let message = format!(
        "another session holds a lock in the key store's tables ({who}); nothing was written or decided. Retry; if it stays, end \
         that session (pg_terminate_backend)"
    );
    Error::new(ErrorKind::Unavailable, message)
}
