//! The encryption context: what a KMS is told on every call (FORMAT.md, "What the KMS is told").

use std::fmt;

use crate::crypto::suite::Suite;
use crate::error::Result;
use crate::format::context::CanonicalFields;
use crate::key::id::TenantId;
use crate::key::period::PeriodLabel;
use crate::key::region::Region;
use crate::key::scope::Scope;

/// Names that the encryption context uses itself and that therefore cannot be scope fields.
pub(crate) const RESERVED: [&str; 7] = ["tenant", "region", "purpose", "suite", "month", "day", "hour"];

/// Of these, the ones that every encryption context has.
pub(crate) const ALWAYS: [&str; 4] = ["tenant", "region", "purpose", "suite"];

pub(crate) const PURPOSE: &str = "data-key";
/// Of a component of a data key that `all_of` split.
pub(crate) const PURPOSE_COMPONENT: &str = "data-key-component";

/// The `name=value` pairs that a wrap binds a data key to, and that an unwrap must repeat: tenant, region, purpose, suite,
/// each scope field by name, and the period. A tenant's own key policy can deny a channel or an hour by them, and its own
/// trail names them.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptionContext(CanonicalFields);

impl EncryptionContext {
    pub(crate) fn new(
        tenant: &TenantId,
        region: &Region,
        suite: Suite,
        scope: &Scope,
        period: Option<&PeriodLabel>,
    ) -> Result<Self> {
        let mut fields = vec![
            ("tenant", tenant.as_str()),
            ("region", region.as_str()),
            ("purpose", PURPOSE),
            ("suite", suite.name()),
        ];
        fields.extend(scope.fields());
        fields.extend(period.map(PeriodLabel::field));
        CanonicalFields::new(&fields).map(Self)
    }

    /// The same pairs with the purpose of a component: a KMS that holds one of several components is never asked for a whole
    /// key, nor a component taken for one.
    pub(crate) fn for_component(&self) -> Result<Self> {
        let fields =
            self.fields().map(|(name, value)| (name, if name == "purpose" { PURPOSE_COMPONENT } else { value }));
        CanonicalFields::new(&fields.collect::<Vec<_>>()).map(Self)
    }

    /// What a root KEK is told when it wraps the operator's own: `purpose` and the pairs that name it (FORMAT.md, "What the KMS
    /// is told"). Neither tenant nor scope is among them, so nothing wrapped so is taken for a data key.
    pub(crate) fn of_root(purpose: &str, fields: &[(&str, &str)]) -> Result<Self> {
        CanonicalFields::new(&[&[("purpose", purpose)], fields].concat()).map(Self)
    }

    /// Of any pairs.
    #[cfg(test)]
    pub(crate) fn of(fields: &[(&str, &str)]) -> Result<Self> {
        CanonicalFields::new(fields).map(Self)
    }

    /// The pairs in canonical order, for a KMS that takes them by name.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter()
    }

    /// The value of a pair.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)
    }

    /// The canonical bytes, for a KMS that binds associated data.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }
}

impl fmt::Debug for EncryptionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.fields()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kms_is_told_tenant_region_purpose_suite_scope_and_period() {
        let (tenant, region) = (TenantId::new("acme").unwrap(), Region::new("eu").unwrap());
        let scope = Scope::new(&[("channel", "C9")]).unwrap();
        let period = PeriodLabel::new("hour=1970-01-01T00Z").unwrap();
        let context = EncryptionContext::new(&tenant, &region, Suite::default(), &scope, Some(&period)).unwrap();
        let expected = [
            ("channel", "C9"),
            ("hour", "1970-01-01T00Z"),
            ("purpose", PURPOSE),
            ("region", "eu"),
            ("suite", Suite::default().name()),
            ("tenant", "acme"),
        ];
        assert!(context.fields().eq(expected));
        assert_eq!((context.get("channel"), context.get("C9")), (Some("C9"), None));
        assert_eq!(context.to_bytes(), CanonicalFields::new(&expected).unwrap().to_bytes());
        assert!(format!("{context:?}").contains(r#""channel": "C9""#));
    }

    #[test]
    fn a_component_differs_from_a_whole_key_by_its_purpose_alone() {
        let (tenant, region) = (TenantId::new("acme").unwrap(), Region::new("eu").unwrap());
        let scope = Scope::new(&[("channel", "data-key"), ("a", "1")]).unwrap();
        let whole = EncryptionContext::new(&tenant, &region, Suite::default(), &scope, None).unwrap();
        let component = whole.for_component().unwrap();
        let expected = [
            ("a", "1"),
            ("channel", "data-key"),
            ("purpose", "data-key-component"),
            ("region", "eu"),
            ("suite", Suite::default().name()),
            ("tenant", "acme"),
        ];
        assert!(component.fields().eq(expected));
        assert_eq!(component.for_component().unwrap(), component);
        assert_ne!(component.to_bytes(), whole.to_bytes());
    }

    #[test]
    fn a_root_is_told_a_purpose_and_what_it_is_of() {
        let context = EncryptionContext::of_root("room", &[("room", "chat-eu"), ("generation", "3")]).unwrap();
        assert!(context.fields().eq([("generation", "3"), ("purpose", "room"), ("room", "chat-eu")]));
        assert!(EncryptionContext::of_root("room", &[("purpose", "data-key")]).is_err(), "a purpose twice");
    }
}
