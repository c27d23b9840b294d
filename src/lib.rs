//! strongroom
pub mod error;
mod clock;
mod crypto;
mod format;
pub use crypto::secret::{DataKey, Plaintext};
pub use crypto::suite::Suite;
pub use format::header::Header;
pub use format::file::FileHead;
pub use format::layout::FileLayout;
pub use error::{Error, ErrorKind};
