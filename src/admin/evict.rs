//! Eviction: a node, or a control plane, may be in other hands. New keys for all rows, and every tenant's row signed anew.

use crate::admin::Admin;
use crate::admin::decide::Decided;
use crate::admin::suspend::FleetChange;
use crate::admin::walk::Walked;
use crate::error::{Error, ErrorKind, Result};
use crate::key::change::Forget;
use crate::key::id::TenantId;
use crate::key::journal::Decision;
use crate::key::row_digest::RowDigest;
use crate::keyring::rollback::Versioned as _;
use crate::keyring::room_keys::no_watermark;
use crate::store::row::{Put, RowChange, RowKey, Write};
use crate::watermark::Subject;

/// Tenants whose rows are signed anew at once.
const PAGE: u32 = 100;

impl Admin {
    /// Raises the generation of the room's keys: a new row key, and a new key of the control plane. First take from whoever is
    /// evicted its permission to unwrap under the root, or it goes on.
    ///
    /// From then on, on every node within the revocation bound, no key seals that was made under an earlier generation (each
    /// scope gets a new one with its next message), and no row is believed that an earlier control plane signed, unless the
    /// watermark names that very row. What was sealed before opens as before. Then signs every tenant's row anew; nodes
    /// without a watermark refuse those that are still to be signed. Repeat it with [`Self::resume_eviction`] after a failure.
    ///
    /// # Errors
    /// `InvalidArgument` if the store is trusted or there is no watermark; what the root's KMS says; `Conflict` if another
    /// eviction got in between; as every verb ([`Admin`](crate::Admin#errors-of-every-verb)), for the room's and the fleet's
    /// rows.
    pub async fn evict(&self) -> Result<Walked> {
        let run = async {
            self.settle_room().await?;
            self.settle_all().await?;
            self.raise_generation().await
        };
        run.await.map_err(|e: Error| e.with_operation("evict"))?;
        self.resume_eviction().await
    }

    /// Raises the watermark to the room's row, wherever a process ended before it did so.
    async fn settle_room(&self) -> Result<()> {
        let (Some(source), Some(watermark)) = (&self.keyring.source, &self.keyring.watermark) else {
            return Err(no_watermark());
        };
        let before = watermark.read(&Subject::Room).await?;
        let room = source.open().await?.row;
        let mark = room.record.mark(room.digest);
        if before != Some(mark) {
            self.keyring.raise(&Subject::Room, before.as_ref(), &mark).await?;
        }
        Ok(())
    }

    /// Raises the watermark wherever a process ended before it did so: afterwards a row that the watermark does not name could be
    /// the evicted control plane's.
    async fn settle_all(&self) -> Result<()> {
        match self.keyring.believed_fleet().await {
            Ok(Some(fleet)) => drop(self.keyring.settle(&Subject::Fleet, &fleet).await?),
            Ok(None) => {}
            Err(e) if is_for_good(&e) => {
                tracing::warn!(error = %e, "the fleet's row is passed over before an eviction");
            }
            Err(e) => return Err(e),
        }
        let mut after = None::<TenantId>;
        loop {
            let page = self.keyring.store.tenants(after.as_ref(), PAGE).await?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            for (tenant, _) in &page {
                match self.keyring.believed_tenant(tenant).await {
                    Ok(believed) => drop(self.keyring.settle(&Subject::Tenant(tenant.clone()), &believed).await?),
                    // A row that is not believed now is not believed afterwards either.
                    Err(e) if is_for_good(&e) => {
                        tracing::warn!(%tenant, error = %e, "a tenant's row is passed over before an eviction");
                    }
                    Err(e) => return Err(e),
                }
            }
        }
    }

    /// Signs the rows anew that an earlier generation of the control plane signed. Counts tenants; those that fail are as they
    /// were.
    ///
    /// # Errors
    /// As [`Self::evict`].
    pub async fn resume_eviction(&self) -> Result<Walked> {
        let run = async {
            self.settle_room().await?;
            self.keyring.follow_room_now().await?;
            let generation = self.keyring.authority.load().generation();
            // Where the fleet's row is not believed, opening stays suspended until somebody decides about it.
            if let Ok(Some(fleet)) = self.keyring.believed_fleet().await
                && fleet.row.generation != generation
            {
                self.change_fleet(FleetChange::SignAnew, Forget::Sealing).await?;
            }
            let (mut walked, mut after) = (Walked::default(), None::<TenantId>);
            loop {
                let page = self.keyring.store.tenants(after.as_ref(), PAGE).await?;
                let Some((last, _)) = page.last() else {
                    return walked.finished();
                };
                after = Some(last.clone());
                for (tenant, _) in &page {
                    walked.seen += 1;
                    match self.sign_anew(tenant, generation).await {
                        Ok(signed) => walked.done += u64::from(signed),
                        Err(e) => walked.fail(e.with_tenant(tenant.as_str())),
                    }
                }
            }
        };
        run.await.map_err(|e: Error| e.with_operation("resume eviction"))
    }

    async fn raise_generation(&self) -> Result<()> {
        let (Some(source), Some(_)) = (&self.keyring.source, &self.keyring.watermark) else {
            return Err(no_watermark());
        };
        let room = source.open().await?.row;
        let mark = room.record.mark(room.digest);
        let (next, bytes) = source.next_generation(&room).await?;
        let digest = RowDigest::of(&bytes);
        let write = Write { key: RowKey::Room, expected: Some(room.digest), change: RowChange::Put(bytes, None) };
        if let Put::Conflict(_) = self.keyring.store.put(&[write], None).await? {
            return Err(Error::new(ErrorKind::Conflict, "another eviction is under way; see what it does"));
        }
        self.keyring.raise(&Subject::Room, Some(&mark), &next.mark(digest)).await?;
        tracing::warn!(
            generation = next.generations.len(),
            actor = self.by.actor(),
            reason = self.by.reason(),
            "evicted: the room's keys are of a new generation"
        );
        Ok(())
    }

    async fn sign_anew(&self, tenant: &TenantId, generation: u32) -> Result<bool> {
        if self.keyring.believed_tenant(tenant).await?.row.generation == generation {
            return Ok(false);
        }
        self.change(tenant, |_| Ok(Some(Decided::quiet(Decision::new("sign-anew").with("generation", generation)))))
            .await
            .map(|_| true)
    }
}

/// Whether asking again gives the same answer.
fn is_for_good(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Tampered | ErrorKind::RolledBack | ErrorKind::Malformed | ErrorKind::UnknownTenant)
}
