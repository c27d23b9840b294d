//! The embedder's own table of messages: what is in it was acknowledged.

use std::path::Path;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use strongroom::{EnvelopeRow, EnvelopeTable, Error, ErrorKind, Result};

/// Messages by their ids, each with its channel and its envelope.
pub(crate) struct Messages {
    pool: SqlitePool,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) channel: String,
    pub(crate) envelope: Vec<u8>,
}

impl Message {
    /// What the message of that id says.
    pub(crate) fn text(id: &str) -> String {
        format!("the text of {id}")
    }
}

fn failed(e: sqlx::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the table of messages failed").with_source(e)
}

impl Messages {
    pub(crate) async fn open(path: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            // Sixteen processes at once on a busy machine: what is tested is not this table.
            .busy_timeout(std::time::Duration::from_secs(120))
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal); // a process that is killed loses nothing; the machine goes on
        let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await.unwrap();
        let create = "CREATE TABLE IF NOT EXISTS messages (id TEXT PRIMARY KEY, channel TEXT, envelope BLOB)";
        sqlx::raw_sql(create).execute(&pool).await.unwrap();
        Self { pool }
    }

    pub(crate) async fn has(&self, id: &str) -> bool {
        self.get(id).await.is_some()
    }

    /// Acknowledges a message.
    pub(crate) async fn put(&self, message: &Message) {
        let insert = sqlx::query("INSERT INTO messages (id, channel, envelope) VALUES (?, ?, ?)");
        let insert = insert.bind(&message.id).bind(&message.channel).bind(&message.envelope);
        insert.execute(&self.pool).await.unwrap();
    }

    pub(crate) async fn all(&self) -> Vec<Message> {
        self.after("", u32::MAX).await.unwrap()
    }

    pub(crate) async fn get(&self, id: &str) -> Option<Message> {
        let select = sqlx::query_as::<_, (String, Vec<u8>)>("SELECT channel, envelope FROM messages WHERE id = ?");
        let row = select.bind(id).fetch_optional(&self.pool).await.unwrap();
        row.map(|(channel, envelope)| Message { id: id.to_owned(), channel, envelope })
    }

    pub(crate) async fn delete_channel(&self, channel: &str) {
        sqlx::query("DELETE FROM messages WHERE channel = ?").bind(channel).execute(&self.pool).await.unwrap();
    }

    async fn after(&self, id: &str, limit: u32) -> Result<Vec<Message>> {
        let select = "SELECT id, channel, envelope FROM messages WHERE id > ? ORDER BY id LIMIT ?";
        let rows = sqlx::query_as::<_, (String, String, Vec<u8>)>(select).bind(id).bind(i64::from(limit));
        let rows = rows.fetch_all(&self.pool).await.map_err(failed)?;
        Ok(rows.into_iter().map(|(id, channel, envelope)| Message { id, channel, envelope }).collect())
    }
}

#[async_trait]
impl EnvelopeTable for Messages {
    async fn page(&self, after: Option<&str>, limit: u32) -> Result<Vec<EnvelopeRow>> {
        let rows = self.after(after.unwrap_or_default(), limit).await?;
        let row = |m: Message| EnvelopeRow {
            scope: vec![("channel".to_owned(), m.channel)],
            context: vec![("message".to_owned(), m.id.clone())],
            id: m.id,
            envelope: m.envelope,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    async fn replace(&self, row: &EnvelopeRow, envelope: &[u8]) -> Result<bool> {
        let update = sqlx::query("UPDATE messages SET envelope = ? WHERE id = ? AND envelope = ?");
        let done = update.bind(envelope).bind(&row.id).bind(&row.envelope).execute(&self.pool).await;
        done.map(|done| done.rows_affected() == 1).map_err(failed)
    }
}
