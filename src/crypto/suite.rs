//! Cipher suites: which published constructions a data key's bytes are sealed with.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A cipher suite. It is a property of the data key: the key id commits to it, and the envelope's suite byte must equal
/// the record's. There is no negotiation and no fallback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&str")]
#[non_exhaustive]
pub enum Suite {
    /// Messages: XAES-256-GCM; files: Cobblestone-256. For machines with AES instructions (nearly all servers).
    #[default]
    Aes256Gcm,
    /// Messages: XChaCha20-Poly1305; files: chunked encryption with `AEAD_CHACHA20_POLY1305`. For machines without.
    ChaCha20Poly1305,
}

impl From<Suite> for &str {
    fn from(suite: Suite) -> Self {
        suite.name()
    }
}

impl TryFrom<String> for Suite {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        let suite = Self::ALL.into_iter().find(|suite| suite.name() == name);
        suite.ok_or_else(|| Error::invalid("a suite is aes-256-gcm or chacha20-poly1305"))
    }
}

impl Suite {
    /// Every suite, in the order of their bytes.
    pub const ALL: [Self; 2] = [Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// The suite's name, in key derivation labels and in the encryption context.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }

    /// The byte that stands for the suite in envelopes and records.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    /// The suite that `byte` stands for.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }
}
