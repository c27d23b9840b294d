//! The root: the operator's KEK, under which rests what is not any tenant's.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::key::kek::KekUri;
use crate::kms::Kms;

/// The operator's own KEK and the KMS that holds it. Under it rests the secret that authenticates a room's stored rows; a tenant's
/// data is never under it, and no tenant's policy may name it.
///
/// It is symmetric: whoever has the public half of an asymmetric KEK could make rows of its own. Clones are the same root.
///
/// ```
/// use strongroom::{LocalRoot, Root};
///
/// let root = Root::from(LocalRoot::in_memory()?); // in production: your own AWS KMS and `Root::new`
/// # let _ = root;
/// # Ok::<(), strongroom::Error>(())
/// ```
#[derive(Clone)]
pub struct Root {
    kms: Arc<dyn Kms>,
    kek: KekUri,
}

impl Root {
    /// `kek`, a KEK of `kms`. Neither is asked anything yet.
    ///
    /// # Errors
    /// `InvalidArgument` if `kms` answers for another scheme than `kek` has.
    pub fn new(kms: impl Kms, kek: KekUri) -> Result<Self> {
        Self::shared(Arc::new(kms), kek)
    }

    pub(crate) fn shared(kms: Arc<dyn Kms>, kek: KekUri) -> Result<Self> {
        if kms.scheme() != kek.scheme() {
            let message =
                format!("the root KEK is not one of the KMS handed over with it, which has {}:", kms.scheme());
            return Err(Error::invalid(message).with_kek(kek.as_str()));
        }
        Ok(Self { kms, kek })
    }

    /// A KEK that is of that KMS for certain.
    pub(crate) fn of(kms: impl Kms, kek: KekUri) -> Self {
        Self { kms: Arc::new(kms), kek }
    }

    pub(crate) fn kms(&self) -> &dyn Kms {
        &*self.kms
    }

    pub(crate) fn kek(&self) -> &KekUri {
        &self.kek
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("kek", &self.kek).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::kms::local::LocalKms;

    #[test]
    fn a_kek_of_another_kms_is_no_root_of_this_one() {
        let kek = |uri| KekUri::new(uri).unwrap();
        let refused = Root::new(LocalKms::in_memory(), kek("aws-kms:alias/root")).unwrap_err();
        assert_eq!((refused.kind(), refused.kek()), (ErrorKind::InvalidArgument, Some("aws-kms:alias/root")));
        let root = Root::new(LocalKms::in_memory(), kek("local:root")).unwrap();
        assert_eq!((root.clone().kek(), root.kms().scheme()), (&kek("local:root"), "local"));
        assert_eq!(format!("{root:?}"), r#"Root { kek: "local:root", .. }"#);
    }
}
