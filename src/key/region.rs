//! Regions: residency tags on tenants, KEKs, key records and envelopes.

use crate::format::header::is_region_name;
use crate::key::text::checked_text;

checked_text!(
    /// A residency tag such as `eu-central-1`: 1 to 32 of `a-z 0-9 -`.
    Region,
    |text| is_region_name(text.as_bytes()),
    "a region's name has 1 to 32 of a-z, 0-9 and '-'"
);
