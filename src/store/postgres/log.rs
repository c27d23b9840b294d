//! The log of changes, and which store it is read from.

use std::sync::Arc;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use crate::error::{Error, ErrorKind, Result};
use crate::store::LogEntry;
use crate::store::postgres::listener::CHANNEL;
use crate::store::postgres::session::{STANDBY, failed};
use crate::store::row::{Log, StoreIdentity, check_length, signed};

/// How many entries the log keeps.
const LOG: i64 = 10_000;

/// Names the turns to add to the log among the database's advisory locks, together with the number of the table: the first bytes of
/// SHA-256 of "strongroom log of changes".
const TURNS: i32 = i32::from_be_bytes([0xbf, 0xc4, 0xe6, 0x2c]);
/// Waits for the turn, which ends with the transaction; and lets no silence keep it for long.
const TURN: &str = "
    SELECT set_config('idle_in_transaction_session_timeout', LEAST($1::int, (extract(epoch FROM
            current_setting('idle_in_transaction_session_timeout')::interval) * 1000)::int)::text, true),
        pg_advisory_xact_lock($2, 'changes'::regclass::oid::int)";

/// Where the log ends: at its last entry, or where `log_end` says, should somebody have emptied the table.
macro_rules! log_end {
    () => {
        "(SELECT GREATEST(seq, (SELECT max(seq) FROM changes)) FROM log_end)"
    };
}

/// Whoever adds an entry and then falls silent in the middle of the transaction, because its process was stopped, keeps the others
/// waiting for no longer than this.
const SILENT_AT_MOST: &str = "2000";

/// Adds an entry: takes the next number, in a turn that ends with the commit (see the migration), drops what is too old, and
/// tells who listens, which PostgreSQL does when and if this commits. Gives the number.
///
/// # Errors
/// `Limit` for an entry that is too long.
pub(super) async fn add(db: &mut PgConnection, entry: LogEntry<'_>) -> Result<u64> {
    const ADD: &str = "
        WITH added AS (
            INSERT INTO changes (seq, entry) VALUES ($1, $2) RETURNING seq
        ), dropped AS (
            DELETE FROM changes WHERE seq IN (SELECT seq FROM changes WHERE seq <= $1 - $3 FOR UPDATE SKIP LOCKED)
        ), noted AS (
            UPDATE log_end SET seq = $1 WHERE only_row IN (SELECT only_row FROM log_end FOR UPDATE SKIP LOCKED)
        )
        SELECT pg_notify($4, seq::text) FROM added";
    sqlx::query(TURN).bind(SILENT_AT_MOST).bind(TURNS).execute(&mut *db).await.map_err(failed)?;
    // A statement of its own, so that it sees what was committed while the turn was waited for.
    let end: Option<i64> =
        sqlx::query_scalar(concat!("SELECT ", log_end!())).fetch_one(&mut *db).await.map_err(failed)?;
    let seq = end.and_then(|end| end.checked_add(1)).ok_or_else(unknown)?;
    let number = unsigned(seq)?;
    let entry = entry(number);
    check_length(&entry)?;
    sqlx::query(ADD).bind(seq).bind(entry).bind(LOG).bind(CHANNEL).execute(db).await.map_err(failed)?;
    Ok(number)
}

/// A number that no writer of ours makes negative.
fn unsigned(stored: i64) -> Result<u64> {
    u64::try_from(stored).map_err(|_| Error::malformed("the number of a log entry is negative"))
}

/// What tells the server apart from a copy of it. Not everywhere may it be read.
const SYSTEM: &str = "(SELECT system_identifier FROM pg_control_system())::text";
/// The timeline that is written now; the one of the last checkpoint comes too late after a promotion.
const TIMELINE: &str = "CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END";

/// How the log is read from this server.
#[derive(Clone)]
pub(super) struct Reading(Arc<str>);

impl Reading {
    /// Finds out what of the server's identity the user may read.
    ///
    /// # Errors
    /// `Unavailable` if the database does not answer.
    pub(super) async fn prepare(db: &mut PgConnection) -> Result<Self> {
        let mut parts = [SYSTEM, TIMELINE];
        for part in &mut parts {
            let tried = sqlx::query(AssertSqlSafe(format!("SELECT {part}"))).execute(&mut *db).await; // our own text
            match tried {
                Ok(_) => {}
                Err(sqlx::Error::Database(e)) if cannot_be_read(e.code().as_deref()) => *part = "NULL",
                Err(e) => return Err(failed(e)),
            }
        }
        let [system, timeline] = parts;
        // The numbers of database and table tell a copy within the same server. One statement, so one view of the database; of
        // scalars, since a join of tables with one row each is planned, and compiled, as if they had thousands.
        let identity = format!(
            "(SELECT id FROM store_identity) || '/' || (SELECT oid FROM pg_database WHERE datname = current_database())
                || '/' || 'log_end'::regclass::oid || '/' || COALESCE({system}, '-') || '/' || COALESCE({timeline}, '-')"
        );
        let end = log_end!();
        let read = format!(
            "WITH store AS MATERIALIZED (
                SELECT pg_is_in_recovery() AS standby, {end} AS log_end, {identity} AS identity,
                    (SELECT row FROM single_rows WHERE name = 'fleet') AS fleet
            )
            SELECT standby, log_end, identity, fleet, newer.seq, newer.entry FROM store LEFT JOIN (
                SELECT seq, entry FROM changes WHERE seq > $1 ORDER BY seq LIMIT $2
            ) AS newer ON true ORDER BY newer.seq"
        );
        Ok(Self(read.into()))
    }

    /// The entries after `after`, the earliest `limit` of them.
    ///
    /// # Errors
    /// `Unavailable` from a standby too: it may be behind.
    pub(super) async fn log(&self, db: &mut PgConnection, after: Option<u64>, limit: u32) -> Result<Log> {
        let rows = sqlx::query(AssertSqlSafe(Arc::clone(&self.0))) // our own text
            .bind(signed(after.unwrap_or(u64::MAX)))
            .bind(i64::from(limit))
            .fetch_all(db)
            .await
            .map_err(failed)?;
        let Some(first) = rows.first() else { return Err(unknown()) };
        if first.try_get::<bool, _>(0).map_err(failed)? {
            return Err(Error::new(ErrorKind::Unavailable, STANDBY));
        }
        let end: Option<i64> = first.try_get(1).map_err(failed)?;
        let identity: Option<&str> = first.try_get(2).map_err(failed)?;
        let (Some(end), Some(identity)) = (end, identity) else { return Err(unknown()) };
        let mut log = Log {
            entries: Vec::with_capacity(rows.len()),
            end: unsigned(end)?,
            fleet: first.try_get(3).map_err(failed)?,
            store: StoreIdentity(format!("postgres:{identity}")),
        };
        for row in &rows {
            if let Some(seq) = row.try_get(4).map_err(failed)? {
                log.entries.push((unsigned(seq)?, row.try_get(5).map_err(failed)?));
            }
        }
        Ok(log)
    }
}

fn unknown() -> Error {
    Error::malformed(
        "the key store does not say which it is, or where its log ends; restore store_identity and log_end",
    )
}

/// A permission, or a function, that is missing on this server.
fn cannot_be_read(code: Option<&str>) -> bool {
    matches!(code, Some("42501" | "42883" | "0A000"))
}
