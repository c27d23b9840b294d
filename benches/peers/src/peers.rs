//! The peers: each with its key cached, used as its own documentation uses it.

mod asherah;
mod aws_esdk;
mod orion;
mod tink;

use tokio::runtime::Runtime;

use crate::contest::Contest;

/// What the peers that take associated data are given: all of it, where our keys bind the scope.
const ASSOCIATED: &[u8] = b"workspace=W1,channel=C9,message=M77";

/// A peer: its package, what it does here, and its contestants.
struct Peer {
    package: &'static str,
    how: &'static str,
    seal: &'static str,
    open: &'static str,
}

const PEERS: &[Peer] = &[tink::PEER, asherah::PEER, orion::PEER, aws_esdk::PEER];

/// The slowest last: it leaves the caches as it likes, and the bare cipher's next turn is not among those that lose by it.
pub(crate) fn enter(contest: &mut Contest, runtime: &Runtime, size: usize) {
    tink::enter(contest, size);
    asherah::enter(contest, size);
    orion::enter(contest, size);
    aws_esdk::enter(contest, runtime, size);
}

/// The version of a package that this was built with.
fn version(package: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let entry = lock.split_once(&format!("name = \"{package}\"\nversion = \"")).unwrap().1;
    entry.split_once('"').unwrap().0
}

/// The contestants and how the table calls them.
pub(crate) fn labels() -> Vec<(&'static str, String)> {
    let both = |peer: &Peer| {
        let label = |verb: &str| format!("{} {}, {}: {verb}", peer.package, version(peer.package), peer.how);
        [(peer.seal, label("seal")), (peer.open, label("open"))]
    };
    PEERS.iter().flat_map(both).collect()
}

/// The plot's rows.
pub(crate) fn rows() -> Vec<crate::plot::Row> {
    let row = |peer: &Peer| (format!("{} {}", peer.package, version(peer.package)), Some(peer.seal), peer.open);
    PEERS.iter().map(row).collect()
}
