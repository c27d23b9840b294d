//! The pauses of tries that others got in between of ([`Patience`]), waited.

use std::time::Duration;

use crate::retry::Patience;

impl Patience {
    /// Whether to try once more; before that, pauses.
    pub(crate) async fn tries_again(&mut self) -> bool {
        match self.next_pause() {
            None => false,
            Some(Duration::ZERO) => true,
            Some(time) => {
                pause(time).await;
                true
            }
        }
    }
}

#[cfg(not(all(test, shuttle)))]
async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// In a model of interleavings others have their turn.
#[cfg(all(test, shuttle))]
async fn pause(_: Duration) {
    shuttle::future::yield_now().await;
}
