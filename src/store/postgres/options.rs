//! How a PostgreSQL key store connects.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use crate::error::{Error, Result};

/// How a [`PostgresKeyStore`](crate::PostgresKeyStore) connects.
///
/// ```
/// use std::time::Duration;
/// use strongroom::PostgresOptions;
///
/// let options = PostgresOptions::default().max_connections(20).timeout(Duration::from_secs(3)).schema("chat_keys");
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    pub(super) max_connections: u32,
    pub(super) timeout: Duration,
    pub(super) schema: String,
    pub(super) migration_timeout: Duration,
}

impl Default for PostgresOptions {
    /// 10 connections, 10 seconds, 10 minutes for a migration, schema `strongroom`.
    fn default() -> Self {
        Self {
            max_connections: 10,
            timeout: Duration::from_secs(10),
            schema: "strongroom".to_owned(),
            migration_timeout: Duration::from_secs(600),
        }
    }
}

impl PostgresOptions {
    /// Most connections of this process, at least 1; one more reads the log, so that calls which wait cannot keep a lease from
    /// being renewed, and one listens for changes. 10 unless set.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// Longest time that any call takes, whatever it waits for: a free connection, a database that does not answer, a lock.
    /// Then it is `Unavailable`, and the server drops what is left of it. From 100 milliseconds to an hour; 10 seconds unless
    /// set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.clamp(Duration::from_millis(100), Duration::from_secs(3600));
        self
    }

    /// Longest time that connecting takes where the schema is to be brought up to date, by this node or by another one that it waits
    /// for: such a statement is not held to [`Self::timeout`]. For a lock it waits no longer at once than a call does, and tries
    /// again. From 100 milliseconds to a day; 10 minutes unless set.
    pub fn migration_timeout(mut self, timeout: Duration) -> Self {
        self.migration_timeout = timeout.clamp(Duration::from_millis(100), Duration::from_secs(24 * 3600));
        self
    }

    /// The database schema that holds the tables; created if it does not exist. `strongroom` unless set. Key stores in
    /// different schemas of one database know nothing of each other.
    pub fn schema(mut self, schema: &str) -> Self {
        schema.clone_into(&mut self.schema);
        self
    }

    /// # Errors
    /// `InvalidArgument` if the schema's name is not one that needs no quoting.
    pub(super) fn check(&self) -> Result<()> {
        let letter = |b: u8| b.is_ascii_lowercase() || b == b'_';
        let good = self.schema.len() <= 63
            && self.schema.bytes().next().is_some_and(letter)
            && self.schema.bytes().all(|b| letter(b) || b.is_ascii_digit());
        if good {
            Ok(())
        } else {
            Err(Error::invalid("a schema's name has 1 to 63 of a-z, 0-9 and '_', no digit first"))
        }
    }
}

/// The URL's parameters that count. The driver passes over all others with a warning.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// Other spellings of them.
const ALIASES: &[(&str, &str)] = &[
    ("ssl-mode", "sslmode"),
    ("ssl-root-cert", "sslrootcert"),
    ("ssl-ca", "sslrootcert"),
    ("ssl-cert", "sslcert"),
    ("ssl-key", "sslkey"),
];

/// # Errors
/// `InvalidArgument` if `url` does not parse, or says something that would not count. The error shows no value.
pub(super) fn of_url(url: &str) -> Result<PgConnectOptions> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(Error::invalid("the key store's URL does not start with postgres://"));
    }
    check_parameters(url)?;
    let options = PgConnectOptions::from_str(url)
        .map_err(|e| Error::invalid("the key store's URL does not parse").with_source(e))?;
    // Poolers refuse this one; no number here has a fraction.
    Ok(options.extra_float_digits(None))
}

/// A misspelt `sslmode` would connect all the same, to whoever answers; of two, one would not count.
fn check_parameters(url: &str) -> Result<()> {
    let refused = |why: String| Err(Error::invalid(format!("the key store's URL {why}")));
    let without_fragment = url.split_once('#').map_or(url, |(url, _)| url);
    let Some((_, query)) = without_fragment.split_once('?') else { return Ok(()) };
    let mut seen = Vec::new();
    for parameter in query.split('&') {
        let Some((name, _)) = parameter.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            // What is no name may be part of a password that was not encoded.
            let known = PARAMETERS.iter().find(|known| **known == parameter);
            return refused(match known {
                Some(known) => format!("has the parameter {known} without a value"),
                None => "has an empty parameter, or one without a value".to_owned(),
            });
        };
        let letter = |b: u8| b.is_ascii_alphanumeric() || b"_-.[]".contains(&b);
        if !name.bytes().all(letter) {
            return refused("has a parameter whose name is none; percent-encode what is not a name".to_owned());
        }
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
        let is_option = name.starts_with("options[") && name.ends_with(']');
        if !PARAMETERS.contains(&name) && !is_option {
            return refused(format!("has the parameter {name}, which is not known here"));
        }
        if seen.contains(&name) {
            return refused(format!("has the parameter {name} twice"));
        }
        seen.push(name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_names_need_no_quoting() {
        for good in ["strongroom", "_", "a1", &"x".repeat(63)] {
            assert!(PostgresOptions::default().schema(good).check().is_ok(), "{good}");
        }
        for bad in ["", "1a", "A", "a\"b", "a b", "a.b", "ä", &"x".repeat(64)] {
            assert!(PostgresOptions::default().schema(bad).check().is_err(), "{bad}");
        }
    }
}
