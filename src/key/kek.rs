//! KEK URIs: which key of which KMS.

use crate::key::region::Region;
use crate::key::text::checked_text;

checked_text!(
    /// Names a KEK: `local:acme-2026`, `aws-kms:arn:aws:kms:eu-central-1:111122223333:key/…`.
    ///
    /// `scheme:name`: the scheme (1 to 16 of `a-z 0-9 -`) finds the KMS, the name (1 to 512 printable ASCII characters
    /// without spaces, commas and parentheses) is the KMS's own.
    ///
    /// ```
    /// let kek = strongroom::KekUri::new("local:acme-2026")?;
    /// assert_eq!((kek.scheme(), kek.name()), ("local", "acme-2026"));
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    KekUri,
    |text| text.split_once(':').is_some_and(|(scheme, name)| is_scheme(scheme)
        && (1..=512).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_graphic() && !b"(),".contains(&b))),
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

    /// The region that the name itself states: that of an ARN, `arn:aws:kms:eu-central-1:…`.
    pub fn stated_region(&self) -> Option<Region> {
        let mut parts = self.name().split(':');
        let is_arn = parts.next() == Some("arn") && parts.next().is_some() && parts.next().is_some();
        parts.next().filter(|_| is_arn).and_then(|region| Region::new(region).ok())
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
        assert_eq!(arn.stated_region(), Some(Region::new("eu-central-1").unwrap()));
        for unstated in ["local:acme", "x:arn:aws:kms", "x:arn:aws:kms::1:key/x", "x:a:b:c:eu:d"] {
            assert_eq!(KekUri::new(unstated).unwrap().stated_region(), None, "{unstated}");
        }
        for bad in ["", "local", ":x", "local:", "Local:x", "local:a b", "local:é", "local:a,b", "local:(a)"] {
            assert!(KekUri::new(bad).is_err(), "{bad}");
        }
    }
}
