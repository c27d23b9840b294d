//! KEK URIs: which key of which KMS.

use crate::key::text::checked_text;

checked_text!(
    /// Names a KEK: `local:acme-2026`, `aws-kms:arn:aws:kms:eu-central-1:111122223333:key/…`.
    ///
    /// `scheme:name`: the scheme (1 to 16 of `a-z 0-9 -`) finds the KMS, the name (1 to 512 printable ASCII characters
    /// without spaces) is the KMS's own.
    ///
    /// ```
    /// let kek = strongroom::KekUri::new("local:acme-2026")?;
    /// assert_eq!((kek.scheme(), kek.name()), ("local", "acme-2026"));
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    KekUri,
    |text| text.split_once(':').is_some_and(|(scheme, name)| is_scheme(scheme)
        && (1..=512).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_graphic())),
    "a KEK URI is scheme:name, such as local:acme-2026"
);

fn is_scheme(scheme: &str) -> bool {
    (1..=16).contains(&scheme.len())
        && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

impl KekUri {
    /// What stands before the first colon: which KMS.
    pub fn scheme(&self) -> &str {
        self.as_str().split_once(':').map_or("", |(scheme, _)| scheme)
    }

    /// What stands behind the first colon: which key there.
    pub fn name(&self) -> &str {
        self.as_str().split_once(':').map_or("", |(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_uris() {
        let arn = KekUri::new("aws-kms:arn:aws:kms:eu-central-1:1:key/x").unwrap();
        assert_eq!((arn.scheme(), arn.name()), ("aws-kms", "arn:aws:kms:eu-central-1:1:key/x"));
        for bad in ["", "local", ":x", "local:", "Local:x", "local:a b", "local:é"] {
            assert!(KekUri::new(bad).is_err(), "{bad}");
        }
    }
}
