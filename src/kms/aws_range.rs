//! Ranges of period labels as patterns: AWS compares strings for equality and against `*` and `?`, but not by their order.
//!
//! A label is digits at fixed places, so every range of them is covered exactly by a few patterns, as a range of addresses
//! is by prefixes: at most 180 for any two hours, where a list of a year's hours would have 8760 entries. Hours of one
//! morning come out as themselves, without any wildcard.

/// Any one character, in `StringLike`.
const ANY: char = '?';

/// The patterns that cover the labels from `low` to `high`, both included, and no other label of their shape. Both are of
/// one shape: digits, and the same other characters at the same places. Without an end the range goes on in that direction.
pub(crate) fn patterns(low: Option<&str>, high: Option<&str>) -> Vec<String> {
    let Some(shape) = low.or(high) else { return Vec::new() };
    let (low, high) =
        (low.map_or_else(|| lowest(shape), str::to_owned), high.map_or_else(|| highest(shape), str::to_owned));
    let mut found = Vec::new();
    cover("", &low, &high, &mut found);
    found
}

fn with_digits(shape: &str, digit: char) -> String {
    shape.chars().map(|c| if c.is_ascii_digit() { digit } else { c }).collect()
}

fn lowest(shape: &str) -> String {
    with_digits(shape, '0')
}

fn highest(shape: &str) -> String {
    with_digits(shape, '9')
}

fn cover(prefix: &str, low: &str, high: &str, found: &mut Vec<String>) {
    if low > high {
        return;
    }
    if low == high {
        return found.push(format!("{prefix}{low}"));
    }
    if low == lowest(low) && high == highest(high) {
        return found.push(format!("{prefix}{}", with_digits(low, ANY)));
    }
    let (Some((first, low)), Some((last, high))) = (split(low), split(high)) else { return };
    if first == last {
        return cover(&format!("{prefix}{first}"), low, high, found);
    }
    // Both differ here, so these are digits.
    cover(&format!("{prefix}{first}"), low, &highest(low), found);
    found.extend((first..=last).skip(1).filter(|c| *c < last).map(|c| format!("{prefix}{c}{}", with_digits(low, ANY))));
    cover(&format!("{prefix}{last}"), &lowest(high), high, found);
}

fn split(text: &str) -> Option<(char, &str)> {
    let first = text.chars().next()?;
    Some((first, text.get(first.len_utf8()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hours_of_a_morning_are_themselves_and_longer_ranges_stay_short() {
        let morning = patterns(Some("2026-11-22T05Z"), Some("2026-11-22T08Z"));
        assert_eq!(morning, ["2026-11-22T05Z", "2026-11-22T06Z", "2026-11-22T07Z", "2026-11-22T08Z"]);
        let day = patterns(Some("2026-11-22T00Z"), Some("2026-11-22T23Z"));
        assert_eq!(day.len(), 6, "{day:?}");
        let since = patterns(Some("2026-11-22T05Z"), None);
        assert!(since.contains(&"2026-11-22T1?Z".to_owned()) && since.contains(&"203?-??-??T??Z".to_owned()));
        assert!(since.len() <= 90 && patterns(Some("0001-01-01T01Z"), Some("8888-88-88T88Z")).len() <= 180);
        assert!(patterns(Some("2026-12"), Some("2026-11")).is_empty());
    }

    fn matches(pattern: &str, label: &str) -> bool {
        pattern.len() == label.len() && pattern.chars().zip(label.chars()).all(|(p, c)| p == ANY || p == c)
    }

    proptest! {
        #[test]
        fn a_range_is_covered_once_and_nothing_else_is(
            low in proptest::option::of("[0-9]{4}-[0-9]{2}"),
            high in proptest::option::of("[0-9]{4}-[0-9]{2}"),
            label in "[0-9]{4}-[0-9]{2}",
        ) {
            prop_assume!(low.is_some() || high.is_some());
            let patterns = patterns(low.as_deref(), high.as_deref());
            let inside = low.as_ref().is_none_or(|low| label >= *low) && high.as_ref().is_none_or(|high| label <= *high);
            let hits = patterns.iter().filter(|p| matches(p, &label)).count();
            prop_assert_eq!(hits, usize::from(inside), "{:?}", patterns);
        }
    }
}
