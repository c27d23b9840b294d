//! Work that uses up what it works on: it gets copies, made outside the measured time.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// How many copies are worked on before they are made anew.
const COPIES: usize = 32;

/// Does `work` on copies of `original`.
pub(crate) fn opening<T: Clone>(original: T, mut work: impl FnMut(&mut T)) -> impl FnMut(u64) -> Duration {
    let mut copies = vec![original.clone(); COPIES];
    move |mut left| {
        let mut spent = Duration::ZERO;
        while left > 0 {
            let batch = usize::try_from(left).unwrap_or(COPIES).min(COPIES);
            copies[..batch].iter_mut().for_each(|copy| copy.clone_from(&original));
            let start = Instant::now();
            copies[..batch].iter_mut().for_each(|copy| work(black_box(copy)));
            spent += start.elapsed();
            left -= batch as u64;
        }
        spent
    }
}
