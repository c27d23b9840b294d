//! Hedging: of several wrappings that each give the key, the next is tried when one fails, or takes longer than a tenth of the KMS's
//! deadline. So a member of `any_of` that hangs costs one such wait; which one it was is remembered for a while, and it is asked last.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::error::{Error, Result};
use crate::key::kek::KekUri;
use crate::key::kek_expression::KekExpression;
use crate::key::wrapped_key::WrappedKey;
use crate::keyring::Keyring;
use crate::keyring::wrapping::{no_wrapping, weigh};

/// For how long a KEK that kept others waiting is asked last.
const LAST_FOR: Duration = Duration::from_secs(30);
/// Most KEKs of which that is remembered.
const MOST: usize = 1_000;

/// KEKs that kept others waiting, or were down when a key was wrapped, and until when they are asked last.
#[derive(Default)]
pub(crate) struct Hedge(Mutex<HashMap<KekUri, Duration>>);

impl Hedge {
    fn is_slow(&self, kek: &KekUri, now: Duration) -> bool {
        let slow = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slow.get(kek).is_some_and(|until| now < *until)
    }

    pub(crate) fn kept_waiting(&self, keks: &KekExpression, now: Duration) {
        let mut slow = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slow.retain(|_, until| now < *until);
        for kek in keks.keks() {
            if slow.len() < MOST {
                slow.insert(kek.clone(), now + LAST_FOR);
            }
        }
    }

    /// Whether something that stands for `keks` is to be had without a slow one.
    pub(crate) fn is_quick(&self, keks: &KekExpression, now: Duration) -> bool {
        keks.stands_without(&|kek| self.is_slow(kek, now))
    }
}

impl Keyring {
    /// The first key that one of `alternatives` gives by `open`.
    ///
    /// # Errors
    /// If none does, of their failures the one that may pass rather than a denial.
    pub(crate) async fn first_of<'a, T>(
        &'a self,
        alternatives: impl IntoIterator<Item = &'a WrappedKey>,
        open: impl Fn(&'a WrappedKey) -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        let now = self.now();
        let (mut order, slow): (Vec<_>, Vec<_>) =
            alternatives.into_iter().partition(|wrapped| self.hedge.is_quick(&wrapped.expression(), now));
        order.extend(slow);
        let mut waiting = order.into_iter().peekable();
        let mut running = FuturesUnordered::new();
        let mut asked: Vec<&WrappedKey> = Vec::new();
        let mut failure: Option<Error> = None;
        loop {
            if running.is_empty() {
                let Some(next) = waiting.next() else {
                    return Err(failure.unwrap_or_else(no_wrapping));
                };
                asked.push(next);
                running.push(answer(next, &open));
            }
            let ended = if waiting.peek().is_some() {
                let hedge = std::pin::pin!(tokio::time::sleep(self.kms.hedge_after()));
                match select(running.next(), hedge).await {
                    Either::Left((ended, _)) => ended,
                    Either::Right(_) => None,
                }
            } else {
                running.next().await
            };
            match ended {
                Some((_, Ok(key))) => return Ok(key),
                Some((of, Err(e))) => {
                    asked.retain(|asked| !std::ptr::eq(*asked, of));
                    failure = Some(weigh(failure, e));
                }
                None => asked.iter().for_each(|of| self.hedge.kept_waiting(&of.expression(), self.now())),
            }
            // One failed, or keeps the others waiting.
            if let Some(next) = waiting.next() {
                asked.push(next);
                running.push(answer(next, &open));
            }
        }
    }
}

async fn answer<'a, T>(
    of: &'a WrappedKey,
    open: &impl Fn(&'a WrappedKey) -> BoxFuture<'a, Result<T>>,
) -> (&'a WrappedKey, Result<T>) {
    (of, open(of).await)
}
