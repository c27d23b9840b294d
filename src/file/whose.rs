//! Whose file it is: what its errors and the operator's log name.

use std::io;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::format::file::FileHead;
use crate::key::id::{KeyId, TenantId};

/// Shared by all that seals or opens one file.
#[derive(Clone, Default)]
pub(crate) struct Whose(Option<Arc<Named>>);

struct Named {
    tenant: TenantId,
    region: String,
    key_id: KeyId,
}

impl Whose {
    pub(crate) fn of(tenant: &TenantId, head: &FileHead) -> Self {
        let header = head.header();
        let key_id = KeyId::from_bytes(*header.key_id());
        Self(Some(Arc::new(Named { tenant: tenant.clone(), region: header.region().to_owned(), key_id })))
    }

    /// Names whom a failure concerns. Why a file does not open is told to the operator's log, not to the caller.
    #[cold]
    pub(crate) fn name(&self, e: Error, operation: &'static str) -> Error {
        let e = e.with_operation(operation);
        let Some(Named { tenant, region, key_id }) = self.0.as_deref() else { return e };
        if e.kind() == ErrorKind::Unopenable {
            tracing::info!(%tenant, %key_id, operation, reason = e.reason(), "a file does not open");
        }
        e.with_tenant(tenant.as_str()).with_region(region)
    }

    /// The same through `std::io`. What the caller's own reader or writer fails with is passed on as it is.
    #[cold]
    pub(crate) fn name_io(&self, e: io::Error, operation: &'static str) -> io::Error {
        match e.downcast::<Error>() {
            Ok(ours) => self.name(ours, operation).into(),
            Err(other) => other,
        }
    }
}
