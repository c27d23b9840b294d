//! What an envelope is bound to besides its key: a label, its header, the tenant and the canonical context. Messages use
//! it as the AEAD's associated data, files as the context of chunked encryption; the label tells them apart.

use arrayvec::ArrayVec;

use crate::error::Result;
use crate::format::context::{CanonicalFields, Field, MAX_CONTEXT};
use crate::format::header::{KEY_ID_LEN, MAX_REGION};
use crate::format::writer::{Sink, put_short};

/// Most bytes of a tenant's name.
pub const MAX_TENANT: u8 = 64;

/// Most bytes of a label.
const MAX_LABEL: usize = 21;

/// Most bytes of associated data: label, header, tenant and context.
pub(crate) const MAX_LEN: usize = MAX_LABEL + 3 + MAX_REGION + KEY_ID_LEN + 1 + MAX_TENANT as usize + MAX_CONTEXT;

/// The associated data of one envelope, on the stack.
pub(crate) type AssociatedData = ArrayVec<u8, MAX_LEN>;

/// The part that all envelopes of one kind and tenant under one data key share: label, header, tenant.
///
/// # Errors
/// `Limit` if the tenant's name has more than 64 bytes.
pub(crate) fn prefix(label: &[u8], header: &[u8], tenant: &str) -> Result<Vec<u8>> {
    let mut out = [label, header].concat();
    put_short(&mut out, tenant.as_bytes(), MAX_TENANT, "a tenant's name has at most 64 bytes")?;
    Ok(out)
}

/// Writes the associated data: a [`prefix`], then the canonical context of `scope` and `context` together. Into a buffer of
/// the caller's, because returning one would copy all of its 1.2 KiB.
///
/// # Errors
/// As the canonical context's.
pub(crate) fn complete(
    out: &mut AssociatedData,
    prefix: &[u8],
    scope: &CanonicalFields,
    context: &[Field<'_>],
) -> Result<()> {
    out.clear();
    out.put(prefix)?;
    scope.merge_into(context, out)
}
