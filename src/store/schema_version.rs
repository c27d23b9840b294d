//! The rule by which programs of different versions share a key store's tables (docs/upgrading.md).
//!
//! Each script that changes the schema says which version of it a program has to know at least to use the tables after it. What only
//! adds (a table, a column that may be empty, an index) leaves that as it was, and a program of before goes on beside one of after.

use crate::error::{Error, Result};

/// A script that brings the schema to the next version.
pub(crate) struct Migration {
    pub(crate) script: &'static str,
    /// The version of the schema that a program has to know at least, to use it from then on.
    pub(crate) least_known: i64,
}

/// What a key store says of its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SchemaVersion {
    /// The last script applied; 0 for none.
    pub(crate) version: i64,
    /// What a program has to know at least; `None` where nothing says so.
    pub(crate) least_known: Option<i64>,
}

impl SchemaVersion {
    /// The scripts of `known`, all that this program knows, that are yet to be applied.
    ///
    /// # Errors
    /// `InvalidArgument` if a later version of strongroom made the schema, in a way that this one cannot use.
    pub(crate) fn missing(self, known: &[Migration]) -> Result<&[Migration]> {
        let applied = usize::try_from(self.version).unwrap_or(usize::MAX);
        if let Some(missing) = known.get(applied..) {
            return Ok(missing);
        }
        let newest = i64::try_from(known.len()).unwrap_or(i64::MAX);
        if self.least_known.is_some_and(|least| (1..=newest).contains(&least)) {
            tracing::info!(
                schema = self.version,
                known = newest,
                "the key store's schema is of a later version, and may be used"
            );
            return Ok(&[]);
        }
        let needs =
            self.least_known.map_or_else(String::new, |least| format!(", and {least} has to be known to use it"));
        Err(Error::invalid(format!(
            "the key store has schema version {}, this strongroom knows up to {newest}{needs}: update it",
            self.version
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_use_which_schema() {
        let known = [Migration { script: "one", least_known: 1 }, Migration { script: "two", least_known: 1 }];
        let missing = |version, least_known| {
            let missing = SchemaVersion { version, least_known }.missing(&known);
            missing.map(|all| all.iter().map(|migration| migration.script).collect::<Vec<_>>()).map_err(|e| e.kind())
        };
        let refused = Err(crate::error::ErrorKind::InvalidArgument);
        assert_eq!(missing(0, None), Ok(vec!["one", "two"]));
        assert_eq!(missing(1, Some(1)), Ok(vec!["two"]));
        assert_eq!(missing(2, Some(1)), Ok(vec![]));
        for least in [1, 2] {
            assert_eq!(missing(3, Some(least)), Ok(vec![]), "it only added");
        }
        for least in [None, Some(0), Some(-1), Some(3), Some(i64::MAX)] {
            assert_eq!(missing(3, least), refused, "{least:?}");
        }
    }
}
