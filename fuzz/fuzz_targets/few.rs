//! Lists of inputs whose number stands first. A `Vec` asks before each item whether there is one more, so that random bytes
//! make lists of one or two.

use std::ops::Deref;

use arbitrary::{Arbitrary, Result, Unstructured};

/// At most `MOST`.
#[derive(Debug)]
pub(crate) struct Few<T, const MOST: usize>(Vec<T>);

impl<'a, T: Arbitrary<'a>, const MOST: usize> Arbitrary<'a> for Few<T, MOST> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut items = Vec::new();
        for _ in 0..u.int_in_range(0..=MOST)? {
            if u.is_empty() {
                break; // from nothing come zeros, over and over
            }
            items.push(u.arbitrary()?);
        }
        Ok(Self(items))
    }
}

impl<T, const MOST: usize> Deref for Few<T, MOST> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}
