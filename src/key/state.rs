//! Key states, after NIST SP 800-57 part 1 section 7.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::key::json::words;

/// The state of a data key. A tenant has one Active key for each scope and period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyState {
    /// Seals and opens.
    Active,
    /// Opens only: it was rotated.
    Deactivated,
    /// Opens only, and was given up because somebody else may know it (SP 800-57 part 1, section 7.5).
    Compromised,
    /// Neither, until it is restored.
    Suspended,
    /// Its wrapped bytes are gone; nothing sealed under it opens again.
    Destroyed,
}

words!(KeyState {
    Active = "active",
    Deactivated = "deactivated",
    Compromised = "compromised",
    Suspended = "suspended",
    Destroyed = "destroyed",
});

impl KeyState {
    /// The state's name, as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deactivated => "deactivated",
            Self::Compromised => "compromised",
            Self::Suspended => "suspended",
            Self::Destroyed => "destroyed",
        }
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Active, Self::Deactivated, Self::Compromised, Self::Suspended, Self::Destroyed]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| Error::malformed("an unknown key state"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_named_as_they_are_stored() {
        let names = ["active", "deactivated", "suspended", "destroyed"];
        let states = [KeyState::Active, KeyState::Deactivated, KeyState::Suspended, KeyState::Destroyed];
        for (name, state) in names.into_iter().zip(states) {
            assert_eq!((state.as_str(), &*state.to_string(), name.parse().unwrap()), (name, name, state));
        }
        for bad in ["", "Active", "pending"] {
            assert!(bad.parse::<KeyState>().is_err(), "{bad}");
        }
    }
}
