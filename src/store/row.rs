//! How SQL backends write the parts of a row that are not plain columns, and read them back checked.

use serde::{Deserialize, Serialize};

use crate::crypto::suite::Suite;
use crate::error::{Error, Result};
use crate::key::change::{Change, Forget};
use crate::key::id::{KeyId, TenantId};
use crate::key::kek::KekUri;
use crate::key::period::PeriodLabel;
use crate::key::record::KeyRecord;
use crate::key::region::Region;
use crate::key::scope::Scope;
use crate::key::tenant::TenantRecord;
use crate::key::wrapped_key::{Pending, WrappedKey, Wrapping};

/// A data key's columns, as a backend has read them.
pub(crate) struct KeyColumns<'r> {
    pub(crate) tenant: &'r str,
    pub(crate) key_id: &'r [u8],
    pub(crate) suite: i64,
    pub(crate) scope: &'r [u8],
    pub(crate) period: &'r str,
    pub(crate) region: &'r str,
    pub(crate) state: &'r str,
    pub(crate) state_since: i64,
    pub(crate) wrapped: Option<&'r str>,
    pub(crate) pending: Option<&'r str>,
    pub(crate) wrapped_epoch: i64,
    pub(crate) created_at: i64,
    pub(crate) revision: i64,
}

impl KeyColumns<'_> {
    /// Reads through the checks of the domain's own types; their refusals become `Malformed`.
    pub(crate) fn read(self) -> Result<KeyRecord> {
        let malformed = |e: Error| Error::malformed("a stored key record does not read").with_source(e);
        let key_id = self.key_id.try_into().map_err(|_| Error::malformed("a stored key id has not 32 bytes"))?;
        let suite = u8::try_from(self.suite).ok().and_then(Suite::from_byte);
        let period = Some(self.period).filter(|period| !period.is_empty());
        let record = KeyRecord {
            tenant: TenantId::new(self.tenant).map_err(malformed)?,
            key_id: KeyId::from_bytes(key_id),
            suite: suite.ok_or_else(|| Error::malformed("a stored key record has an unknown suite"))?,
            scope: Scope::from_bytes(self.scope)?,
            period: period.map(PeriodLabel::new).transpose().map_err(malformed)?,
            region: Region::new(self.region).map_err(malformed)?,
            state: self.state.parse()?,
            state_since: self.state_since,
            wrapped: wrapped_from_text(self.wrapped)?,
            pending: pending_from_text(self.pending)?,
            wrapped_epoch: unsigned(self.wrapped_epoch)?,
            created_at: self.created_at,
            revision: unsigned(self.revision)?,
        };
        record.check()?;
        Ok(record)
    }
}

/// A tenant's columns, as a backend has read them.
pub(crate) struct TenantColumns<'r> {
    pub(crate) tenant: &'r str,
    pub(crate) policy: &'r str,
    pub(crate) revocations: &'r str,
    pub(crate) erasures: &'r str,
    pub(crate) rewrap: Option<&'r str>,
    pub(crate) enrolled_at: i64,
    pub(crate) epoch: i64,
}

impl TenantColumns<'_> {
    /// # Errors
    /// `Malformed` if a column is not what backends write.
    pub(crate) fn read(self) -> Result<TenantRecord> {
        let record = TenantRecord {
            tenant: TenantId::new(self.tenant)
                .map_err(|e| Error::malformed("a stored tenant does not read").with_source(e))?,
            policy: from_text(self.policy, "a stored tenant policy does not read; is this strongroom too old?")?,
            revocations: from_text(self.revocations, "a tenant's stored revocations do not read")?,
            erasures: from_text(self.erasures, "a tenant's stored erasures do not read")?,
            rewrap: self.rewrap.map(|order| from_text(order, "a tenant's stored rewrap does not read")).transpose()?,
            enrolled_at: self.enrolled_at,
            epoch: unsigned(self.epoch)?,
        };
        record.check_stored()?;
        Ok(record)
    }
}

/// A logged change's columns, as a backend has read them.
pub(crate) struct ChangeColumns<'r> {
    pub(crate) tenant: &'r str,
    pub(crate) selector: &'r str,
    pub(crate) forget: &'r str,
}

impl ChangeColumns<'_> {
    /// # Errors
    /// `Malformed` if a column is not what backends write.
    pub(crate) fn read(self) -> Result<Change> {
        Ok(Change {
            tenant: TenantId::new(self.tenant)
                .map_err(|e| Error::malformed("a logged change does not read").with_source(e))?,
            selector: from_text(self.selector, "a logged change does not read; is this strongroom too old?")?,
            forget: forget_from_text(self.forget),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum StoredKey {
    One { kek: KekUri, wrapped: String },
    AnyOf { any_of: Vec<StoredKey> },
    AllOf { all_of: Vec<StoredKey> },
}

impl StoredKey {
    fn new(key: &WrappedKey) -> Self {
        match key {
            WrappedKey::One(w) => Self::One { kek: w.kek.clone(), wrapped: base16ct::lower::encode_string(&w.wrapped) },
            WrappedKey::AnyOf(of) => Self::AnyOf { any_of: of.iter().map(Self::new).collect() },
            WrappedKey::AllOf(of) => Self::AllOf { all_of: of.iter().map(Self::new).collect() },
        }
    }

    fn read(self) -> Result<WrappedKey> {
        let read = |of: Vec<Self>| of.into_iter().map(Self::read).collect::<Result<_>>();
        match self {
            Self::One { kek, wrapped } => {
                let wrapped = base16ct::lower::decode_vec(&wrapped)
                    .map_err(|_| Error::malformed("a stored row's wrapped key is not hexadecimal"))?;
                Ok(WrappedKey::One(Wrapping { kek, wrapped }))
            }
            Self::AnyOf { any_of } => read(any_of).map(WrappedKey::AnyOf),
            Self::AllOf { all_of } => read(all_of).map(WrappedKey::AllOf),
        }
    }
}

/// `{"kek": URI, "wrapped": hex}`, `{"any_of": […]}` or `{"all_of": […]}`; nothing for no key.
pub(crate) fn wrapped_to_text(key: Option<&WrappedKey>) -> Result<Option<String>> {
    key.map(|key| to_text(&StoredKey::new(key))).transpose()
}

/// # Errors
/// `Malformed` if it is not what [`wrapped_to_text`] gives.
pub(crate) fn wrapped_from_text(text: Option<&str>) -> Result<Option<WrappedKey>> {
    text.map(|text| from_text::<StoredKey>(text, "a stored row's wrapped key does not read")?.read()).transpose()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPending {
    epoch: u64,
    key: StoredKey,
}

/// `{"epoch": 7, "key": {…}}`; nothing for none.
pub(crate) fn pending_to_text(pending: Option<&Pending>) -> Result<Option<String>> {
    pending.map(|p| to_text(&StoredPending { epoch: p.epoch, key: StoredKey::new(&p.wrapped) })).transpose()
}

/// # Errors
/// `Malformed` if it is not what [`pending_to_text`] gives.
pub(crate) fn pending_from_text(text: Option<&str>) -> Result<Option<Pending>> {
    let read = |text| {
        let StoredPending { epoch, key } = from_text(text, "a stored row's pending wrapping does not read")?;
        Ok(Pending { wrapped: key.read()?, epoch })
    };
    text.map(read).transpose()
}

/// The change's effect as a row has it.
pub(crate) fn forget_to_text(forget: Forget) -> &'static str {
    match forget {
        Forget::Nothing => "nothing",
        Forget::Sealing => "sealing",
        Forget::Keys => "keys",
    }
}

/// The reverse of [`forget_to_text`]. What a later version wrote means everything.
pub(crate) fn forget_from_text(text: &str) -> Forget {
    match text {
        "nothing" => Forget::Nothing,
        "sealing" => Forget::Sealing,
        _ => Forget::Keys,
    }
}

/// How a row names a period: empty where there are none, so that unique indexes see it.
pub(crate) fn period_to_text(period: Option<&PeriodLabel>) -> &str {
    period.map_or("", PeriodLabel::as_str)
}

/// JSON of a row's part.
pub(crate) fn to_text(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::invalid("a row cannot be encoded").with_source(e))
}

/// # Errors
/// `Malformed` with `problem` if it is not JSON of the part.
pub(crate) fn from_text<T: for<'de> Deserialize<'de>>(text: &str, problem: &'static str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::malformed(problem).with_source(e))
}

/// A revision or size that SQL keeps as a signed number.
pub(crate) fn unsigned(stored: i64) -> Result<u64> {
    u64::try_from(stored).map_err(|_| Error::malformed("a stored row's number is negative"))
}

/// The reverse of [`unsigned`].
pub(crate) fn signed(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| Error::limit("a revision exceeds 2^63"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wrapped() -> impl Strategy<Value = WrappedKey> {
        let one = proptest::collection::vec(any::<u8>(), 1..9)
            .prop_map(|wrapped| WrappedKey::One(Wrapping { kek: KekUri::new("local:a").unwrap(), wrapped }));
        one.prop_recursive(3, 8, 3, |inner| {
            let of = proptest::collection::vec(inner, 2..4);
            prop_oneof![of.clone().prop_map(WrappedKey::AnyOf), of.prop_map(WrappedKey::AllOf)]
        })
    }

    proptest! {
        #[test]
        fn wrapped_keys_read_back(key in wrapped()) {
            let text = wrapped_to_text(Some(&key)).unwrap();
            prop_assert_eq!(wrapped_from_text(text.as_deref()).unwrap(), Some(key.clone()));
            let pending = Some(Pending { wrapped: key, epoch: 7 });
            let text = pending_to_text(pending.as_ref()).unwrap();
            prop_assert_eq!(pending_from_text(text.as_deref()).unwrap(), pending);
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = (wrapped_from_text(Some(&text)), pending_from_text(Some(&text)));
        }
    }

    #[test]
    fn odd_rows_are_malformed() {
        for bad in [
            "",
            "{}",
            r#"{"kek":"local:a"}"#,
            r#"{"kek":"nope","wrapped":"00"}"#,
            r#"{"kek":"local:a","wrapped":"0"}"#,
            r#"{"kek":"local:a","wrapped":"00","x":1}"#,
            r#"{"any_of":[{"kek":"local:a","wrapped":"0"}]}"#,
            r#"{"one_of":[]}"#,
        ] {
            assert!(wrapped_from_text(Some(bad)).is_err(), "{bad}");
        }
        assert_eq!(wrapped_from_text(None).unwrap(), None);
        assert!(unsigned(-1).is_err());
    }

    #[test]
    fn effects_read_back_and_unknown_ones_forget_most() {
        for forget in [Forget::Nothing, Forget::Sealing, Forget::Keys] {
            assert_eq!(forget_from_text(forget_to_text(forget)), forget);
        }
        assert_eq!(forget_from_text("of a later version"), Forget::Keys);
    }
}
