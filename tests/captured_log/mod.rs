//! What the crate tells the operator's log, a line an event.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Clones share what was told, each line with the thread that told it.
#[derive(Clone)]
pub(crate) struct CapturedLog {
    least: Level,
    lines: Arc<Mutex<Vec<(ThreadId, String)>>>,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for CapturedLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.least
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.lines.lock().unwrap().push((thread::current().id(), line.0));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl CapturedLog {
    /// Keeps what is of this level or a graver one.
    pub(crate) fn from(least: Level) -> Self {
        Self { least, lines: Arc::default() }
    }

    /// The lines of this thread since it was asked last that have `what` in them.
    pub(crate) fn take(&self, what: &str) -> Vec<String> {
        let told = std::mem::take(&mut *self.lines.lock().unwrap());
        let is_ours = |(thread, line): &(ThreadId, String)| *thread == thread::current().id() && line.contains(what);
        told.into_iter().filter(is_ours).map(|(_, line)| line).collect()
    }
}
