//! Whoever writes the key store: reads, changes, moves, copies, hides and puts back its rows. Nothing that they do has a message
//! sealed under a key that they know, or opens what was closed.
//!
//! The table in SECURITY.md ("Who attacks, and what it buys") names these tests.

#[path = "key_store/compromise.rs"]
mod compromise;
#[path = "key_store/every_row.rs"]
mod every_row;
#[path = "key_store/journal.rs"]
mod journal;
#[path = "key_store/log.rs"]
mod log;
#[path = "key_store/planted.rs"]
mod planted;
#[path = "key_store/rollback.rs"]
mod rollback;
#[path = "key_store/room_rows.rs"]
mod room_rows;
#[path = "key_store/suspend.rs"]
mod suspend;
#[path = "key_store/taken_over.rs"]
mod taken_over;
#[path = "key_store/world.rs"]
mod world;
