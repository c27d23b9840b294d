//! How SQL backends write the parts of a row that are not plain columns, and read them back checked.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::key::kek::KekUri;
use crate::key::period::PeriodLabel;
use crate::key::record::Wrapping;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredWrapping {
    kek: KekUri,
    wrapped: String,
}

/// `[{"kek": URI, "wrapped": hex}]`
pub(crate) fn wrappings_to_text(wrappings: &[Wrapping]) -> Result<String> {
    let stored: Vec<_> = wrappings
        .iter()
        .map(|w| StoredWrapping { kek: w.kek.clone(), wrapped: base16ct::lower::encode_string(&w.wrapped) })
        .collect();
    to_text(&stored)
}

/// # Errors
/// `Malformed` if it is not what [`wrappings_to_text`] gives.
pub(crate) fn wrappings_from_text(text: &str) -> Result<Vec<Wrapping>> {
    let stored: Vec<StoredWrapping> = from_text(text, "a stored row's wrappings do not read")?;
    stored
        .into_iter()
        .map(|w| {
            let wrapped = base16ct::lower::decode_vec(&w.wrapped)
                .map_err(|_| Error::malformed("a stored row's wrapped key is not hexadecimal"))?;
            Ok(Wrapping { kek: w.kek, wrapped })
        })
        .collect()
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

    proptest! {
        #[test]
        fn wrappings_read_back(bytes in proptest::collection::vec(any::<u8>(), 1..100)) {
            let wrappings = vec![Wrapping { kek: KekUri::new("local:a").unwrap(), wrapped: bytes }];
            let text = wrappings_to_text(&wrappings).unwrap();
            prop_assert_eq!(wrappings_from_text(&text).unwrap(), wrappings);
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = wrappings_from_text(&text);
        }
    }

    #[test]
    fn odd_rows_are_malformed() {
        for bad in [
            "",
            "{}",
            r#"[{"kek":"local:a"}]"#,
            r#"[{"kek":"nope","wrapped":"00"}]"#,
            r#"[{"kek":"local:a","wrapped":"0"}]"#,
            r#"[{"kek":"local:a","wrapped":"00","x":1}]"#,
        ] {
            assert!(wrappings_from_text(bad).is_err(), "{bad}");
        }
        assert!(unsigned(-1).is_err());
    }
}
