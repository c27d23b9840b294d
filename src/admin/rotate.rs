//! Rotation: new data keys before the old ones' time.

use crate::admin::walk::{Pages, WalkOptions, Walked};
use crate::admin::{Admin, TRIES, explain};
use crate::error::{Error, ErrorKind, Result};
use crate::format::context::Field;
use crate::key::change::Forget;
use crate::key::id::{KeyId, TenantId};
use crate::key::record::KeyRecord;
use crate::key::revocation::Selector;
use crate::key::scope::Scope;
use crate::key::state::KeyState;

impl Admin {
    /// Gives a scope a new data key now and returns its id. The old one opens what it sealed and seals no more: at once in
    /// this process, within the revocation bound in others.
    ///
    /// # Errors
    /// As sealing under a new key; `Unavailable` if the store failed after the key was made: then it seals here, and in
    /// others after the policy's cache time to live at the latest.
    pub async fn rotate(&self, tenant: &str, scope: &[Field<'_>]) -> Result<KeyId> {
        let run = async {
            let id = TenantId::new(tenant)?;
            let scope = Scope::new(scope)?;
            for _ in 0..TRIES {
                match self.keyring.rotate(&id, &scope).await {
                    Err(e) if e.kind() == ErrorKind::Conflict => {}
                    rotated => {
                        let key_id = rotated?;
                        self.publish(&id, Selector::fields(scope.fields()), Forget::Sealing).await?;
                        tracing::info!(tenant = %id, %scope, %key_id, "rotated a data key on demand");
                        return Ok(key_id);
                    }
                }
            }
            Err(Error::new(ErrorKind::Unavailable, "the tenant's keys are being changed over and over; retry"))
        };
        run.await.map_err(|e: Error| explain(e, "rotate", tenant))
    }

    /// Deactivates every Active data key that `selector` covers, as after a compromise: each scope gets a new one with its
    /// next message. What they sealed still opens. No KMS call. Repeat it after a failure: what is done stays done.
    ///
    /// # Errors
    /// `InvalidArgument` if the selector could cover nothing; `UnknownTenant` or `Unavailable`.
    pub async fn rotate_all(&self, tenant: &str, selector: Selector, options: &WalkOptions) -> Result<Walked> {
        let run = async {
            let id = TenantId::new(tenant)?;
            selector.check(self.keyring.tenant(&id).await?.policy.scope_fields())?;
            let mut pages = Pages::new(self, &id, options);
            while let Some(page) = pages.next().await? {
                let now = self.keyring.clock.unix_millis();
                let due = |r: &KeyRecord| r.state == KeyState::Active && selector.covers_record(r);
                pages.walked.done += self.update_due(page, due, |r| r.into_state(KeyState::Deactivated, now)).await?;
            }
            let walked = pages.walked;
            self.publish(&id, selector.clone(), Forget::Sealing).await?;
            tracing::info!(tenant = %id, %selector, keys = walked.done, "rotated data keys on demand");
            Ok(walked)
        };
        run.await.map_err(|e: Error| explain(e, "rotate", tenant))
    }
}
