//! Members of `any_of` that do not answer while a new data key is wrapped: where the policy says how many a new key needs
//! ([`TenantPolicy::new_key_members`](crate::TenantPolicy::new_key_members)), the others can be left out.
//!
//! Only an outage leaves a member out. A denial, a wrong region or a setting is an answer, and no key is made. A member that did
//! not answer a moment ago is given a tenth of the deadline, once enough others answered, so that it costs one such wait and not one
//! for each new key.

use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::error::{Error, ErrorKind, Result};
use crate::key::id::TenantId;
use crate::key::kek_expression::KekExpression;
use crate::key::wrapped_key::WrappedKey;
use crate::keyring::Keyring;
use crate::keyring::wrapping::{no_wrapping, weigh};

/// What a group gave. One member is no group.
pub(crate) fn group(mut wrapped: Vec<WrappedKey>) -> Result<WrappedKey> {
    match wrapped.len() {
        0 => Err(no_wrapping()),
        1 => Ok(wrapped.remove(0)),
        _ => Ok(WrappedKey::AnyOf(wrapped)),
    }
}

/// Whether a KMS is down or busy, rather than saying no.
pub(crate) fn is_outage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Throttled)
}

impl Keyring {
    /// What `of` wrap, in their order: at least `least` of them.
    ///
    /// # Errors
    /// What one says that answers with a refusal; if too few answer, of their failures the one that may pass.
    pub(crate) async fn wrap_for_members<'a>(
        &'a self,
        tenant: &TenantId,
        of: &'a [KekExpression],
        least: usize,
        wrap: impl Fn(&'a KekExpression) -> BoxFuture<'a, Result<WrappedKey>>,
    ) -> Result<Vec<WrappedKey>> {
        let now = self.now();
        let mut answers: Vec<Option<Result<WrappedKey>>> = of.iter().map(|_| None).collect();
        let mut running: FuturesUnordered<_> = of
            .iter()
            .zip(&mut answers)
            .map(|(member, place)| {
                let answer = wrap(member);
                async move {
                    let answer = answer.await;
                    if answer.as_ref().is_err_and(is_outage) {
                        self.hedge.kept_waiting(member, self.now());
                    }
                    let wrapped = answer.is_ok();
                    *place = Some(answer);
                    (member, wrapped)
                }
            })
            .collect();
        let mut awaited: Vec<&KekExpression> = of.iter().collect();
        let mut wrapped = 0;
        let mut hedge = std::pin::pin!(tokio::time::sleep(self.kms.hedge_after()));
        while !awaited.is_empty() {
            let are_slow = || awaited.iter().all(|member| !self.hedge.is_quick(member, now));
            let ended = if wrapped >= least && are_slow() {
                match select(running.next(), hedge.as_mut()).await {
                    Either::Left((ended, _)) => ended,
                    Either::Right(_) => None,
                }
            } else {
                running.next().await
            };
            let Some((member, is_wrapped)) = ended else { break };
            awaited.retain(|of| !std::ptr::eq(*of, member));
            wrapped += usize::from(is_wrapped);
        }
        drop(running);
        those_that_wrapped(tenant, of, least, answers)
    }
}

/// # Errors
/// What one says that refuses; if too few wrapped, of the failures of the others the one that may pass.
fn those_that_wrapped(
    tenant: &TenantId,
    of: &[KekExpression],
    least: usize,
    answers: Vec<Option<Result<WrappedKey>>>,
) -> Result<Vec<WrappedKey>> {
    let (mut wrapped, mut left_out, mut outage) = (Vec::new(), Vec::new(), None);
    for (member, answer) in of.iter().zip(answers) {
        match answer {
            Some(Ok(key)) => wrapped.push(key),
            Some(Err(e)) if !is_outage(&e) => return Err(e),
            Some(Err(e)) => {
                left_out.push(member.to_string());
                outage = Some(weigh(outage, e));
            }
            None => left_out.push(member.to_string()),
        }
    }
    if wrapped.len() < least {
        return Err(outage.unwrap_or_else(no_wrapping));
    }
    if !left_out.is_empty() {
        tracing::warn!(
            %tenant,
            ?left_out,
            "a new data key was wrapped without KEKs that do not answer, as the policy allows; rewrap the tenant's keys when they do"
        );
    }
    Ok(wrapped)
}
