//! ARNs of KMS keys and aliases: what a KEK's name must be before anything goes over the network.

use crate::error::{Error, Result};
use crate::key::kek::KekUri;
use crate::key::region::Region;
use crate::kms::aws_policy::is_account;

/// `arn:PARTITION:kms:REGION:ACCOUNT:key/ID` or `…:alias/NAME`, in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyArn<'a> {
    /// The whole.
    pub(crate) text: &'a str,
    pub(crate) partition: &'a str,
    pub(crate) region: &'a str,
    pub(crate) account: &'a str,
    pub(crate) key: NamedBy<'a>,
}

/// How an ARN names its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NamedBy<'a> {
    Id(&'a str),
    /// The alias without `alias/`.
    Alias(&'a str),
}

impl<'a> KeyArn<'a> {
    /// # Errors
    /// `InvalidArgument` if the KEK's name is no ARN of a KMS key or alias.
    pub(crate) fn of(kek: &'a KekUri) -> Result<Self> {
        Self::parse(kek.name()).ok_or_else(|| {
            let form = "a KEK of AWS KMS is named aws-kms:arn:aws:kms:REGION:ACCOUNT:key/ID or …:alias/NAME";
            Error::invalid(form).with_kek(kek.as_str())
        })
    }

    /// Strict, because the region ends up in the name of the host that is called.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let (arn, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
        let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
        let key = match resource.split_once('/')? {
            ("key", id) => NamedBy::Id(id),
            ("alias", name) => NamedBy::Alias(name),
            _ => return None,
        };
        let named_well = match key {
            NamedBy::Id(id) => is_word(id, 128, b"-"),
            NamedBy::Alias(name) => is_word(name, 250, b"-_/"),
        };
        let good = arn == "arn"
            && service == "kms"
            && (partition == "aws" || partition.strip_prefix("aws-").is_some_and(is_label))
            && is_label(region)
            && Region::new(region).is_ok()
            && is_account(account)
            && named_well;
        good.then_some(Self { text, partition, region, account, key })
    }

    /// Whether a reply that names `replied` is about this key. An alias may stand for any key of its account and region.
    pub(crate) fn is_answered_by(&self, replied: &str) -> bool {
        match self.key {
            NamedBy::Id(_) => replied == self.text,
            NamedBy::Alias(_) => KeyArn::parse(replied).is_some_and(|other| {
                matches!(other.key, NamedBy::Id(_))
                    && (other.partition, other.region, other.account) == (self.partition, self.region, self.account)
            }),
        }
    }
}

/// Lower case letters, digits and inner hyphens: what may stand between the dots of a host's name.
fn is_label(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_word(text: &str, most: usize, marks: &[u8]) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || marks.contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd";

    #[test]
    fn the_parts_of_keys_and_aliases() {
        let key = KeyArn::parse(KEY).unwrap();
        assert_eq!((key.partition, key.region, key.account), ("aws", "eu-central-1", "111122223333"));
        assert_eq!(key.key, NamedBy::Id("mrk-1234abcd"));
        let alias = KeyArn::parse("arn:aws-us-gov:kms:us-gov-west-1:111122223333:alias/acme/chat").unwrap();
        assert_eq!(alias.key, NamedBy::Alias("acme/chat"));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "alias/acme",
            "arn:aws:kms:eu-central-1:111122223333:key/",
            "arn:aws:kms:eu-central-1:111122223333:key",
            "arn:aws:kms:eu-central-1:111122223333:grant/1",
            "arn:aws:kms:eu-central-1:111122223333:key/a:b",
            "arn:aws:kms:eu-central-1:111122223333:key/a/b",
            "arn:aws:kms:eu-central-1:1111:key/a",
            "arn:aws:kms:eu-central-1::key/a",
            "arn:aws:kms::111122223333:key/a",
            "arn:aws:kms:evil.example/:111122223333:key/a",
            "arn:aws:kms:-eu:111122223333:key/a",
            "arn:aws:kms:EU-CENTRAL-1:111122223333:key/a",
            "arn:aws:s3:eu-central-1:111122223333:key/a",
            "arn:awsx:kms:eu-central-1:111122223333:key/a",
            "arn:aws-:kms:eu-central-1:111122223333:key/a",
            "xrn:aws:kms:eu-central-1:111122223333:key/a",
        ] {
            assert_eq!(KeyArn::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_reply_about_another_key_is_seen() {
        let key = KeyArn::parse(KEY).unwrap();
        assert!(key.is_answered_by(KEY));
        for other in ["", "mrk-1234abcd", "arn:aws:kms:eu-west-1:111122223333:key/mrk-1234abcd"] {
            assert!(!key.is_answered_by(other), "{other}");
        }
        let alias = KeyArn::parse("arn:aws:kms:eu-central-1:111122223333:alias/acme").unwrap();
        assert!(alias.is_answered_by(KEY));
        for other in [alias.text, "arn:aws:kms:eu-central-1:999922223333:key/mrk-1234abcd", "mrk-1234abcd"] {
            assert!(!alias.is_answered_by(other), "{other}");
        }
    }
}
