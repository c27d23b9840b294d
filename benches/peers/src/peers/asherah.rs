//! `asherah`: its default policy, which caches sessions, system and intermediate keys and their key schedules, and one
//! session that is kept, so that not even its session cache is asked. It makes a data key for each message and wraps it
//! under the cached intermediate key; that is its construction, not a miss. Its record is left as a struct: the JSON that an
//! embedder would store is not counted. It takes no associated data.

use std::sync::Arc;

use ::asherah::aead::AES256GCM;
use ::asherah::kms::StaticKMS;
use ::asherah::metastore::InMemoryMetastore;
use ::asherah::session::PublicSession;
use ::asherah::{Config, api};

use crate::bare::{BARE_OPEN, BARE_SEAL};
use crate::contest::{Contest, timed};
use crate::copies::opening;
use crate::peers::Peer;

pub(super) const PEER: Peer =
    Peer { package: "asherah", how: "session kept", seal: "asherah, seal", open: "asherah, open" };

type Session = PublicSession<AES256GCM, StaticKMS<AES256GCM>, InMemoryMetastore>;

fn session() -> Session {
    let crypto = Arc::new(AES256GCM::new());
    let kms = Arc::new(StaticKMS::new(Arc::clone(&crypto), vec![7; 32]).unwrap());
    let metastore = Arc::new(InMemoryMetastore::new());
    api::new_session_factory(Config::new("chat", "messages"), metastore, kms, crypto).get_session("acme")
}

pub(super) fn enter(contest: &mut Contest, size: usize) {
    let session = Arc::new(session());
    let text = vec![5; size];
    let sealed = session.encrypt(&text).unwrap();
    assert_eq!(session.decrypt(sealed.clone()).unwrap(), text);
    let by = Arc::clone(&session);
    contest.enter(PEER.seal, BARE_SEAL, timed(move || by.encrypt(&text).unwrap()));
    // Opening takes the record for itself: it gets a copy made before.
    contest.enter(
        PEER.open,
        BARE_OPEN,
        opening(Some(sealed), move |record| drop(session.decrypt(record.take().unwrap()).unwrap())),
    );
}
