//! Entries of an audit log (FORMAT.md, "Reserved", "Audit entries"). Nothing writes them yet.

use crate::crypto::digest::sha256;
use crate::error::{Error, Result};
use crate::format::context::{Field, MAX_NAME};

/// Starts what entries are the hash of, and nothing else that is hashed.
const LABEL: &[u8] = b"strongroom/v1/audit-entry";
/// Starts what audit keys are derived with.
const KEY_LABEL: &[u8] = b"strongroom/v1/audit";

/// Bytes of an entry's salt.
pub(crate) const SALT_LEN: usize = 32;

/// What a tenant's audit key is derived with.
///
/// # Errors
/// `Limit` if the tenant's name has more than 255 bytes.
pub(crate) fn key_info(tenant: &str) -> Result<Vec<u8>> {
    let len = u8::try_from(tenant.len()).map_err(|_| Error::limit("a tenant's name is too long"))?;
    Ok([KEY_LABEL, &[len], tenant.as_bytes()].concat())
}

/// What happened, in canonical form: as a context's, but up to 255 pairs with values of up to 65 535 bytes.
///
/// # Errors
/// `InvalidArgument` for an empty or duplicate name, `Limit` beyond these limits.
pub(crate) fn body(pairs: &[Field<'_>]) -> Result<Vec<u8>> {
    let mut sorted = pairs.to_vec();
    sorted.sort_unstable();
    if sorted.windows(2).any(|two| matches!(two, [(a, _), (b, _)] if a == b)) {
        return Err(Error::invalid("an audit entry names a field twice"));
    }
    let count = u8::try_from(sorted.len()).map_err(|_| Error::limit("an audit entry has at most 255 fields"))?;
    let mut out = vec![count];
    for (name, value) in sorted {
        let name_len = u8::try_from(name.len()).ok().filter(|len| (1..=MAX_NAME).contains(len));
        let name_len = name_len.ok_or_else(|| Error::invalid("a name in an audit entry has 1 to 64 bytes"))?;
        let value_len = u16::try_from(value.len());
        let value_len = value_len.map_err(|_| Error::limit("a value in an audit entry has at most 65 535 bytes"))?;
        out.push(name_len);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&value_len.to_be_bytes());
        out.extend_from_slice(value.as_bytes());
    }
    Ok(out)
}

/// What the tenant's log holds of it.
pub(crate) fn entry(salt: &[u8; SALT_LEN], body: &[u8]) -> [u8; 32] {
    sha256(&[LABEL, salt, body])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::format::context::CanonicalFields;

    #[test]
    fn a_body_is_canonical_and_has_room() {
        let fields = [("tenant", "acme"), ("operation", "unwrap"), ("kek", "")];
        assert_eq!(body(&fields).unwrap(), CanonicalFields::new(&fields).unwrap().to_bytes());
        let names: Vec<_> = (0..256).map(|n| format!("{n}")).collect();
        let long = "v".repeat(65_535);
        let many: Vec<Field<'_>> = names.iter().map(|name| (name.as_str(), long.as_str())).collect();
        assert_eq!(body(&many[1..]).unwrap().len() - 1, (1..256).map(|n| 3 + names[n].len() + 65_535).sum::<usize>());
        let kind = |pairs: &[Field<'_>]| body(pairs).map_err(|e| e.kind());
        assert_eq!(kind(&many), Err(ErrorKind::Limit));
        assert_eq!(kind(&[("a", &format!("{long}v"))]), Err(ErrorKind::Limit));
        let name = "n".repeat(65);
        for bad in [&[("a", "1"), ("a", "2")][..], &[("", "1")], &[(&name, "1")]] {
            assert_eq!(kind(bad), Err(ErrorKind::InvalidArgument), "{bad:?}");
        }
    }
}
