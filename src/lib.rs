//! strongroom
pub mod error;
mod clock;
mod crypto;
mod file;
mod format;
mod key;
pub use clock::{Clock, SystemClock};
pub use crypto::secret::{DataKey, Plaintext};
pub use crypto::suite::Suite;
pub use format::header::Header;
pub use format::file::FileHead;
pub use format::layout::FileLayout;
pub use error::{Error, ErrorKind};
pub use key::encryption_context::EncryptionContext;
pub use key::id::{KeyId, TenantId};
pub use key::kek::KekUri;
pub use key::period::{Period, PeriodLabel};
pub use key::policy::TenantPolicy;
pub use key::record::{KeyRecord, Wrapping};
pub use key::region::Region;
pub use key::revocation::{Revocation, Selector};
pub use key::rotation::RotationPolicy;
pub use key::scope::Scope;
pub use key::state::KeyState;
pub use key::tenant::TenantRecord;
mod kms;
mod store;
pub use kms::local::LocalKms;
pub use kms::{GeneratedKey, KekDescription, Kms};
pub use store::memory::MemoryKeyStore;
#[cfg(feature = "sqlite")]
pub use store::sqlite::SqliteKeyStore;
pub use store::{KeyStore, Placed};

pub use file::async_reader::AsyncOpenReader;
pub use file::async_writer::AsyncSealWriter;
pub use file::open_reader::OpenReader;
pub use file::open_stream::OpenStream;
pub use file::opener::FileOpener;
pub use file::progress::{CancelFlag, FileOptions, Progress};
pub use file::range_reader::{RangeReader, RangeSource};
pub use file::seal_stream::SealStream;
pub use file::seal_writer::SealWriter;
pub use file::sealer::FileSealer;
pub use file::seek_reader::SeekReader;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
