#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
// The library does not panic; its tests do.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod admin;
mod clock;
mod core_dump;
mod crypto;
pub mod error;
mod file;
mod format;
mod hot;
mod key;
mod keyring;
mod kms;
#[cfg(feature = "sqlite")]
mod local_room;
mod page;
mod plan;
mod reseal;
mod retry;
mod room;
mod row;
mod sealer;
mod shared_file;
mod store;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod watermark;

/// The limits of FORMAT.md and of policies, as numbers.
pub mod limits {
    pub use crate::format::context::{MAX_CONTEXT, MAX_FIELDS, MAX_NAME, MAX_VALUE};
    pub use crate::format::header::{KEY_ID_LEN, MAX_REGION};
    pub use crate::format::layout::{CHUNK_LEN, MAX_CHUNKS, MAX_FILE, SEALED_CHUNK_LEN};
    pub use crate::format::message::{MAX_MESSAGE, MAX_TENANT, OVERHEAD};
    pub use crate::key::context_rules::MAX_BOUND_FIELDS;
    pub use crate::key::kek_expression::{MAX_KEKS, MAX_NESTING};
    pub use crate::key::policy::{MAX_ALLOWED_REGIONS, MAX_SCOPE_FIELDS};
    pub use crate::key::revocation::MAX_SELECTED_KEYS;
    pub use crate::key::scope::MAX_SCOPE;
    pub use crate::key::wrapped_key::MAX_WRAPPED;
}

pub use admin::export::{ExportTo, ExportedKey};
pub use admin::preview::{Preview, PreviewRow};
pub use admin::probe::{Check, ProbeReport};
pub use admin::receipt::{ErasedKey, ErasureReceipt, RECEIPT_TYPE, SignedReceipt};
pub use admin::remove::REMOVAL_LEAST_AGE;
pub use admin::residency::{ResidencyReport, ResidencyRow};
pub use admin::revoke::Revoked;
pub use admin::walk::{WalkOptions, Walked};
pub use admin::{Admin, KeyPage, TenantPage};
pub use clock::{Clock, SystemClock};
pub use core_dump::{CoreDumps, forbid_core_dumps};
pub use crypto::secret::{DataKey, Plaintext};
pub use crypto::signing::{Ed25519Signer, ReceiptSigner};
pub use crypto::suite::Suite;
pub use error::{Error, ErrorKind, Result};
pub use file::async_reader::AsyncOpenReader;
pub use file::async_writer::AsyncSealWriter;
pub use file::open_reader::OpenReader;
pub use file::open_stream::OpenStream;
pub use file::opener::FileOpener;
pub use file::progress::{CancelFlag, FileOptions, Progress};
pub use file::range_reader::{RangeReader, RangeSource};
pub use file::seal_stream::SealStream;
pub use file::seal_writer::SealWriter;
pub use file::sealer::{FILE_SEALING_LIMIT, FileSealer};
pub use file::seek_reader::SeekReader;
pub use format::context::Field;
pub use format::file::FileHead;
pub use format::header::Header;
pub use format::layout::FileLayout;
pub use hot::HotScope;
pub use key::attribution::Attribution;
pub use key::census::{Census, CompleteCensus};
pub use key::change::{Change, Forget};
pub use key::context_rules::{ContextRules, RequiredFields};
pub use key::cutoff::Cutoff;
pub use key::encryption_context::EncryptionContext;
pub use key::erasure::Erasure;
pub use key::export::Export;
pub use key::finding::{Expected, Finding, Outcome};
pub use key::floor::Floor;
pub use key::id::{KeyId, TenantId};
pub use key::incarnation::Incarnation;
pub use key::journal::{Decision, JournalEntry, JournalHead};
pub use key::kek::KekUri;
pub use key::kek_expression::KekExpression;
pub use key::kek_history::{KekHistory, KeksInForce};
pub use key::period::{Period, PeriodLabel};
pub use key::policy::TenantPolicy;
pub use key::record::{KeyRecord, Transition};
pub use key::region::Region;
pub use key::revocation::{Revocation, Selector};
pub use key::rewrap::RewrapOrder;
pub use key::room_name::RoomName;
pub use key::rotation::RotationPolicy;
pub use key::row_digest::RowDigest;
pub use key::scope::Scope;
pub use key::state::KeyState;
pub use key::suspension::Suspension;
pub use key::tenant::TenantRecord;
pub use key::wrapped_key::{Pending, WrappedKey, Wrapping};
#[cfg(feature = "aws-kms")]
pub use kms::aws::AwsKms;
#[cfg(feature = "aws-kms")]
pub use kms::aws_builder::AwsKmsBuilder;
#[cfg(feature = "aws-kms")]
pub use kms::aws_client::AwsRole;
#[cfg(feature = "aws-kms")]
pub use kms::aws_describe::{AwsKeyDescription, AwsKeyRotation, AwsMultiRegion};
#[cfg(feature = "aws-kms")]
pub use kms::aws_import::{AwsImportParameters, AwsMaterialExpiry, AwsWrappingAlgorithm, NewAwsKek};
pub use kms::aws_policy::{AwsKeyPolicy, MAX_KEY_POLICY};
#[cfg(feature = "byok")]
pub use kms::import_ticket::{ImportFormat, ImportTicket, KeyCheckValue};
pub use kms::local::LocalKms;
pub use kms::local_root_kek::LocalRoot;
pub use kms::root::Root;
pub use kms::{GeneratedKey, KekDescription, Kms};
#[cfg(feature = "sqlite")]
pub use local_room::{LocalRoom, create_local, open_local};
pub use page::PageRow;
pub use plan::report::{CallPlan, PlanWarning, PlannedKek, PlannedRegion, PlannedTenant};
pub use plan::{CallPlanner, TenantLoad};
pub use reseal::{EnvelopeRow, EnvelopeTable, Resealed};
pub use room::{Strongroom, StrongroomBuilder};
pub use sealer::{ScopeHandle, TenantHandle};
pub use store::memory::MemoryKeyStore;
#[cfg(feature = "postgres")]
pub use store::postgres::{PostgresKeyStore, options::PostgresOptions};
pub use store::row::{KeyIndex, Log, MAX_ROW, Put, RowChange, RowKey, StoreIdentity, Write};
#[cfg(feature = "sqlite")]
pub use store::sqlite::SqliteKeyStore;
pub use store::{KeyStore, LogEntry, StoreCapacity};
pub use watermark::file::FileWatermark;
pub use watermark::memory::MemoryWatermark;
#[cfg(feature = "object-store")]
pub use watermark::object::ObjectWatermark;
pub use watermark::{Mark, Subject, Watermark};
