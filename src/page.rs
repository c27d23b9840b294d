//! Opening many envelopes at once: what a client that scrolls asks for.

use std::collections::HashMap;

use futures_util::future::join_all;

use crate::crypto::secret::Plaintext;
use crate::error::{Error, Result};
use crate::format::context::Field;
use crate::format::header::Header;
use crate::key::id::KeyId;
use crate::keyring::flight::Loaded;
use crate::sealer::{InHand, ScopeHandle};

/// One row of a page: an envelope and the context it was sealed with.
#[derive(Clone, Copy, Debug)]
pub struct PageRow<'a> {
    /// As given to `seal`.
    pub context: &'a [Field<'a>],
    /// As `seal` gave it.
    pub envelope: &'a [u8],
}

impl ScopeHandle {
    /// Opens a page of envelopes of this scope: a result for each row, in order; one bad row does not touch the others.
    ///
    /// Each distinct key that is not in hand is loaded once, all of them concurrently.
    ///
    /// The errors of a row are those of [`ScopeHandle::open`].
    pub async fn open_page(&self, rows: &[PageRow<'_>]) -> Vec<Result<Plaintext>> {
        let open = |row: &PageRow<'_>| {
            let mut text = Plaintext::empty();
            let tried = self.open_in_hand(row.context, row.envelope, &mut text);
            (tried, text)
        };
        let tried: Vec<(InHand<()>, Plaintext)> = rows.iter().map(open).collect();
        let mut wanted: Vec<KeyId> = rows
            .iter()
            .zip(&tried)
            .filter(|(_, (tried, _))| matches!(tried, InHand::Missing))
            .filter_map(|(row, _)| key_id(row))
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        let loads = wanted.iter().map(|id| async move { (*id, self.load_opening(id).await) });
        let loaded: HashMap<KeyId, Loaded> = join_all(loads).await.into_iter().collect();
        rows.iter()
            .zip(tried)
            .map(|(row, (tried, mut text))| {
                match tried {
                    InHand::Done(done) => done,
                    InHand::Missing => match key_id(row).and_then(|id| loaded.get(&id)) {
                        Some(Ok(key)) => self.open_with(key, row.context, row.envelope, &mut text),
                        Some(Err(e)) => Err(e.clone()),
                        None => Err(Error::unopenable()),
                    },
                }
                .map(|()| text)
            })
            .zip(rows)
            .map(|(opened, row)| opened.map_err(|e| self.refused(e, row.envelope, "open page")))
            .collect()
    }
}

fn key_id(row: &PageRow<'_>) -> Option<KeyId> {
    Header::parse(row.envelope).ok().map(|header| KeyId::from_bytes(*header.key_id()))
}
