//! Padding that hides lengths (FORMAT.md, "Reserved", "Padding"): ISO/IEC 7816-4 up to a Padmé length. Nothing writes it yet.

use crate::error::{Error, Result};

const END: u8 = 0x80;

/// Padmé (Nikitin et al., PETS 2019): `len` rounded up so that it says little, at the price of at most 12 %.
pub(crate) fn padme(len: usize) -> usize {
    let Some(e) = len.checked_ilog2().filter(|e| *e > 0) else {
        return len;
    };
    // As many bits of the length as its exponent has are kept.
    let cleared = e - (e.ilog2() + 1);
    len.checked_next_multiple_of(1 << cleared).unwrap_or(len)
}

/// `text`, padded to at least `least` bytes.
pub(crate) fn padded(text: &[u8], least: usize) -> Vec<u8> {
    let mut padded = [text, &[END]].concat();
    padded.resize(padme(padded.len().max(least)), 0);
    padded
}

/// What was padded. Only for what has been verified.
///
/// # Errors
/// `Unopenable` if it is not padded so.
pub(crate) fn unpadded(padded: &[u8]) -> Result<&[u8]> {
    let end = padded.iter().rposition(|byte| *byte != 0);
    match end.and_then(|end| padded.split_at_checked(end)) {
        Some((text, [END, ..])) if padme(padded.len()) == padded.len() => Ok(text),
        _ => Err(Error::unopenable()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_padme_length_is_its_own_and_costs_at_most_an_eighth() {
        let mut lengths = std::collections::BTreeSet::new();
        for len in (0..100_000).chain([(1 << 24) - 1, 1 << 24, (1 << 24) + 1, usize::MAX]) {
            let rounded = padme(len);
            assert!(rounded >= len && rounded - len <= len / 8, "{len} {rounded}");
            assert_eq!(padme(rounded), rounded, "{len}");
            if len < 100_000 {
                lengths.insert(rounded);
            }
        }
        assert!(lengths.len() < 200, "{} lengths tell too much", lengths.len());
    }

    #[test]
    fn what_is_padded_is_read_and_nothing_else() {
        for text in [&b""[..], b"a", b"\x80", b"\x00", b"a\x80\x00\x00", &[7; 1_000]] {
            for least in [0, 1, 256] {
                let padded = padded(text, least);
                assert!(padded.len() > text.len() && padded.len() >= least);
                assert_eq!(unpadded(&padded).unwrap(), text);
            }
        }
        // 17 is no Padmé length, nor is 1000.
        for bad in [&b""[..], b"\x00", b"a", b"a\x81", b"a\x80\x01", &[0; 64], b"0123456789abcdef\x80", &[0x80; 1_000]]
        {
            assert!(unpadded(bad).is_err(), "{bad:?}");
        }
        assert_eq!(unpadded(b"0123456789abcde\x80").unwrap(), b"0123456789abcde");
    }
}
