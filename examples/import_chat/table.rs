//! The backend's own table of messages: what it stored in the clear before, it stores as envelopes.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use super::Outcome;

pub(crate) struct Table(SqlitePool);

impl Table {
    pub(crate) async fn make(path: &Path) -> Outcome<Self> {
        let file = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let pool = SqlitePool::connect_with(file).await?;
        sqlx::raw_sql(
            "CREATE TABLE messages (channel TEXT, ts TEXT, envelope BLOB NOT NULL, PRIMARY KEY (channel, ts)) STRICT",
        )
        .execute(&pool)
        .await?;
        Ok(Self(pool))
    }

    /// Writes a day's envelopes in one transaction.
    pub(crate) async fn insert(&self, channel: &str, rows: Vec<(String, Vec<u8>)>) -> Outcome {
        let mut transaction = self.0.begin().await?;
        for (ts, envelope) in rows {
            let insert = sqlx::query("INSERT INTO messages (channel, ts, envelope) VALUES (?, ?, ?)");
            let inserted = insert.bind(channel).bind(&ts).bind(envelope).execute(&mut *transaction).await;
            inserted.map_err(|e| format!("channel {channel}, message {ts}: {e}"))?;
        }
        Ok(transaction.commit().await?)
    }

    /// A channel's envelopes from one message to another, by their times.
    pub(crate) async fn page(&self, channel: &str, first: &str, last: &str) -> Outcome<Vec<(String, Vec<u8>)>> {
        let page = "SELECT ts, envelope FROM messages WHERE channel = ? AND ts BETWEEN ? AND ? ORDER BY ts";
        Ok(sqlx::query_as(page).bind(channel).bind(first).bind(last).fetch_all(&self.0).await?)
    }
}
