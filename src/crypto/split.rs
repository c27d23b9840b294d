//! Split knowledge: a data key as components that all have to come together.
//!
//! NIST SP 800-133 rev. 2, section 6.3, method 2: the key is the exclusive-or of its components. All but one component are
//! random, the last is the key xored with them; any set that lacks one is independent of the key.

use std::borrow::Borrow;

use zeroize::Zeroize;

use crate::crypto::secret::DataKey;
use crate::error::{Error, ErrorKind, Result};

/// Splits `key` into `parts` components.
///
/// # Errors
/// `InvalidArgument` for fewer than two parts; `Unavailable` if the operating system gives no randomness.
pub(crate) fn split(key: &DataKey, parts: usize) -> Result<Vec<DataKey>> {
    if parts < 2 {
        return Err(Error::invalid("a key is split into at least two components"));
    }
    let mut components = (1..parts).map(|_| DataKey::random()).collect::<Result<Vec<_>>>()?;
    components.push(xor(key, &components)?);
    Ok(components)
}

/// The key whose components these are.
///
/// # Errors
/// `KeyMismatch` for fewer than two, or components of no key: the result's bytes are all equal.
pub(crate) fn join<K: Borrow<DataKey>>(components: &[K]) -> Result<DataKey> {
    match components.split_first() {
        Some((first, others)) if !others.is_empty() => xor(first.borrow(), others),
        _ => Err(Error::new(ErrorKind::KeyMismatch, "a split key has fewer than two components")),
    }
}

fn xor<K: Borrow<DataKey>>(first: &DataKey, others: &[K]) -> Result<DataKey> {
    let mut bytes = *first.expose();
    for other in others {
        bytes.iter_mut().zip(other.borrow().expose()).for_each(|(byte, mask)| *byte ^= mask);
    }
    let key = DataKey::take(&mut bytes);
    bytes.zeroize();
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_components_give_the_key_and_fewer_do_not() {
        let key = DataKey::random().unwrap();
        for parts in 2..=4 {
            let components = split(&key, parts).unwrap();
            assert_eq!(components.len(), parts);
            assert!(join(&components).unwrap().ct_eq(&key));
            assert!(components.iter().all(|c| !c.ct_eq(&key)));
            if parts > 2 {
                assert!(!join(&components[1..]).unwrap().ct_eq(&key));
            }
        }
        assert!(split(&key, 1).is_err());
        assert!(join(&split(&key, 2).unwrap()[..1]).is_err());
    }

    #[test]
    fn components_are_fresh() {
        let key = DataKey::random().unwrap();
        let (one, two) = (split(&key, 2).unwrap(), split(&key, 2).unwrap());
        assert!(!one[0].ct_eq(&two[0]) && !one[1].ct_eq(&two[1]));
    }
}
