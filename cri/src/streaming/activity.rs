//! Ends connections on which nothing has moved for too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When something was last sent or received on a connection.
#[derive(Clone, Debug)]
pub struct Activity {
    start: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Activity {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            last_ms: Arc::default(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub fn touch(&self) {
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Returns once nothing has happened for `limit`.
    pub async fn idle_for(&self, limit: Duration) {
        loop {
            let since_ms = self
                .now_ms()
                .saturating_sub(self.last_ms.load(Ordering::Relaxed));
            let quiet = Duration::from_millis(since_ms);
            if quiet >= limit {
                return;
            }
            tokio::time::sleep(limit.saturating_sub(quiet)).await;
        }
    }
}
