//! A signal that counts: who waits for it misses nothing that was raised between two waits.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

/// Says that the log of changes may have grown.
#[derive(Default)]
pub(crate) struct Signal {
    raised: watch::Sender<u64>,
    /// Up to where waiting callers were told.
    told: AtomicU64,
}

impl Signal {
    pub(crate) fn raise(&self) {
        self.raised.send_modify(|raised| *raised += 1);
    }

    /// Resolves when it was raised since a call of this last resolved; of several that wait, each does.
    pub(crate) async fn wait(&self) {
        let told = self.told.load(Ordering::Acquire);
        // An error would say that the sender is gone, but it is ours.
        if let Ok(raised) = self.raised.subscribe().wait_for(|raised| *raised > told).await {
            self.told.fetch_max(*raised, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn nothing_is_missed_between_two_waits() {
        let signal = Signal::default();
        assert!(signal.wait().now_or_never().is_none(), "nothing was raised yet");
        signal.raise();
        assert!(signal.wait().now_or_never().is_some());
        assert!(signal.wait().now_or_never().is_none(), "told twice");
        let (mut one, mut other) = (Box::pin(signal.wait()), Box::pin(signal.wait()));
        assert!((&mut one).now_or_never().is_none() && (&mut other).now_or_never().is_none());
        signal.raise();
        assert!(one.now_or_never().is_some() && other.now_or_never().is_some(), "two waited, not both were told");
        drop(Box::pin(signal.wait())); // not waited for
        signal.raise();
        signal.raise();
        assert!(signal.wait().now_or_never().is_some());
        assert!(signal.wait().now_or_never().is_none(), "raised twice, read once");
    }
}
