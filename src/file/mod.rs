//! Floor 5: files. Adapters between the chunk state machine (floor 1) and whatever holds the bytes: buffers, `Read` and
//! `Write`, their async counterparts, streams of `Bytes`, byte ranges of an object store, paths.
//!
//! A [`FileSealer`](sealer::FileSealer) and a [`FileOpener`](opener::FileOpener) are made by the scope, which looks the
//! key up; from then on they need no key lookup, no KMS and no store. Each is good for one file, and holds that file's
//! key alone.
//!
//! What is known when: every chunk is verified before a byte of it is released, and its place with it. That the file has
//! not been cut short is known once its last chunk is verified: streaming openers say so by ending without an error,
//! seeking and range openers on demand, and whole-file openers before they release anything.

pub(crate) mod async_reader;
pub(crate) mod async_writer;
pub(crate) mod atomic_file;
pub(crate) mod failure;
pub(crate) mod head;
pub(crate) mod open_reader;
pub(crate) mod open_stream;
pub(crate) mod opener;
pub(crate) mod path;
pub(crate) mod pipeline;
pub(crate) mod progress;
pub(crate) mod range_reader;
pub(crate) mod scope;
pub(crate) mod seal_stream;
pub(crate) mod seal_writer;
pub(crate) mod sealer;
pub(crate) mod seek_reader;
pub(crate) mod whose;
pub(crate) mod write_behind;
