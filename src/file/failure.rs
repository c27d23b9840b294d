//! Between the crate's [`Error`] and `std::io::Error`, which the standard traits speak.

use std::io;

use crate::error::{Error, ErrorKind, Result};

/// For code that speaks `std::io`: the crate's error is kept inside, for `get_ref` and `downcast`.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Unopenable | ErrorKind::Malformed => io::ErrorKind::InvalidData,
            ErrorKind::InvalidArgument | ErrorKind::Limit => io::ErrorKind::InvalidInput,
            ErrorKind::Denied | ErrorKind::Revoked => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// The crate's error inside `error`, or one of kind `Io` around it that says what failed.
pub(crate) fn from_io(error: io::Error, failed: &'static str) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(other) => Error::new(ErrorKind::Io, failed).with_source(other),
    }
}

/// Says what failed, for chains of I/O calls.
pub(crate) trait While<T> {
    /// # Errors
    /// As [`from_io`].
    fn doing(self, failed: &'static str) -> Result<T>;
}

impl<T> While<T> for io::Result<T> {
    fn doing(self, failed: &'static str) -> Result<T> {
        self.map_err(|e| from_io(e, failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_errors_survive_the_way_through_io() {
        let there: io::Error = Error::unopenable().into();
        assert_eq!(there.kind(), io::ErrorKind::InvalidData);
        assert_eq!(from_io(there, "read").kind(), ErrorKind::Unopenable);
        let theirs = from_io(io::Error::from(io::ErrorKind::StorageFull), "write the file");
        assert_eq!((theirs.kind(), theirs.to_string()), (ErrorKind::Io, "input or output: write the file".to_owned()));
    }
}
