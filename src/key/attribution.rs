//! Attribution: who decides something, and why. No decision is anonymous.

use std::sync::Arc;

use crate::error::{Error, Result};

/// Most bytes of an actor's name, and of a reason.
pub(crate) const MAX_ATTRIBUTION: usize = 200;

/// Who acts, and why: both 1 to 200 bytes on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribution {
    actor: Arc<str>,
    reason: Arc<str>,
}

impl Attribution {
    /// Checks both.
    ///
    /// # Errors
    /// `InvalidArgument` if one is blank, has more than 200 bytes, or is not on one line.
    pub fn new(actor: &str, reason: &str) -> Result<Self> {
        let good =
            |text: &str| !text.trim().is_empty() && text.len() <= MAX_ATTRIBUTION && !text.contains(char::is_control);
        if !good(actor) {
            return Err(Error::invalid("an actor has 1 to 200 bytes on one line: name who decides"));
        }
        if !good(reason) {
            return Err(Error::invalid("a reason has 1 to 200 bytes on one line: say why"));
        }
        Ok(Self { actor: actor.into(), reason: reason.into() })
    }

    /// What a node does by itself, for its messages.
    pub(crate) fn of_data_plane(reason: &str) -> Self {
        Self { actor: "data-plane".into(), reason: reason.into() }
    }

    /// Who.
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// Why.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_decides_without_a_name_or_a_reason() {
        let long = "x".repeat(MAX_ATTRIBUTION + 1);
        assert!(Attribution::new("alice", "ticket 1").is_ok());
        assert!(Attribution::new(&long[1..], &long[1..]).is_ok());
        for bad in ["", " ", "a\nb", "\0", &long] {
            assert!(Attribution::new(bad, "ticket 1").is_err(), "{bad:?}");
            assert!(Attribution::new("alice", bad).is_err(), "{bad:?}");
        }
    }
}
