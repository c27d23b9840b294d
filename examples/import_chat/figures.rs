//! What the import counts, and what it counts with.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use indicatif::{ProgressBar, ProgressStyle};
use strongroom::{Clock, DataKey, EncryptionContext, GeneratedKey, KekDescription, KekUri, Kms, LocalKms, SystemClock};

use super::Outcome;
use super::export::Export;

/// A wall clock that shows the time of the message that is being imported.
#[derive(Clone, Default)]
pub(crate) struct ReplayClock(Arc<AtomicI64>);

impl ReplayClock {
    pub(crate) fn show(&self, unix_millis: i64) {
        self.0.store(unix_millis, Ordering::SeqCst);
    }
}

impl Clock for ReplayClock {
    fn unix_millis(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Cached keys live as long as ever.
    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }
}

/// A KMS that counts what it is asked, as the bill of a cloud's would.
#[derive(Clone)]
pub(crate) struct CountingKms(LocalKms, Arc<AtomicUsize>);

impl CountingKms {
    pub(crate) fn new(kms: LocalKms) -> Self {
        Self(kms, Arc::default())
    }

    pub(crate) fn calls(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }

    fn counted(&self) -> &LocalKms {
        self.1.fetch_add(1, Ordering::SeqCst);
        &self.0
    }
}

#[async_trait]
impl Kms for CountingKms {
    fn scheme(&self) -> &str {
        self.0.scheme()
    }

    async fn describe(&self, kek: &KekUri) -> strongroom::Result<KekDescription> {
        self.counted().describe(kek).await
    }

    async fn wrap(&self, kek: &KekUri, context: &EncryptionContext, key: &DataKey) -> strongroom::Result<Vec<u8>> {
        self.counted().wrap(kek, context, key).await
    }

    async fn unwrap(&self, kek: &KekUri, context: &EncryptionContext, wrapped: &[u8]) -> strongroom::Result<DataKey> {
        self.counted().unwrap(kek, context, wrapped).await
    }

    async fn generate(&self, kek: &KekUri, context: &EncryptionContext) -> strongroom::Result<GeneratedKey> {
        self.counted().generate(kek, context).await
    }
}

/// What came out.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) messages: usize,
    pub(crate) opened: usize,
    pub(crate) bytes_before: usize,
    pub(crate) bytes_after: usize,
    pub(crate) data_keys: usize,
    pub(crate) kms_calls_sealing: usize,
    pub(crate) kms_calls_opening: usize,
    pub(crate) sealing: Duration,
    pub(crate) opening: Duration,
}

impl Figures {
    pub(crate) fn sealed(&mut self, before: usize, after: usize) {
        self.messages += 1;
        self.bytes_before += before;
        self.bytes_after += after;
    }

    pub(crate) fn print(&self, export: &Export) {
        let overhead = self.bytes_after.saturating_sub(self.bytes_before).checked_div(self.messages).unwrap_or(0);
        let row = |what: &str, figure: usize, note: &str| println!("{what:<24} {figure:>10}   {note}");
        row("channels", export.channels.len(), "");
        if !export.without_folder.is_empty() {
            let names = export.without_folder.join(", ");
            row("without a folder", export.without_folder.len(), &format!("nothing was imported of: {names}"));
        }
        if !export.other_files.is_empty() {
            let paths: Vec<_> = export.other_files.iter().map(|path| path.display().to_string()).collect();
            row(
                "other files",
                export.other_files.len(),
                &format!("no day's messages, not imported: {}", paths.join(", ")),
            );
        }
        row("messages", self.messages, "each compared with the export after opening, byte by byte");
        row("bytes before", self.bytes_before, "as JSON");
        row("bytes after", self.bytes_after, "as envelopes");
        row("overhead per message", overhead, "bytes: 75 and the region's name");
        row("distinct data keys", self.data_keys, "one for each channel and hour with messages");
        row(
            "KMS calls to seal",
            self.kms_calls_sealing,
            "each key made, and unwrapped again as a check; one for the KEK",
        );
        row("KMS calls to open", self.kms_calls_opening, "by a room with nothing cached");
        row("sealed per second", rate(self.messages, self.sealing), "making and storing the keys included");
        row("opened per second", rate(self.opened, self.opening), "loading and unwrapping the keys included");
    }
}

/// Messages in a second.
fn rate(messages: usize, took: Duration) -> usize {
    let nanos = usize::try_from(took.as_nanos()).unwrap_or(usize::MAX).max(1);
    messages.saturating_mul(1_000_000_000) / nanos
}

/// A bar for long input; indicatif hides it where there is no terminal.
pub(crate) fn progress(bytes: u64, what: &'static str) -> Outcome<ProgressBar> {
    if bytes < 1 << 20 {
        return Ok(ProgressBar::hidden());
    }
    let style = "{msg} {wide_bar} {bytes}/{total_bytes}, {eta} left";
    Ok(ProgressBar::new(bytes).with_message(what).with_style(ProgressStyle::with_template(style)?))
}
