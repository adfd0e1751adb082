//! Drives guest tasks: run queues, workers, timers, blocking sections.
//!
//! Placeholder of the interface; one owner fills it in.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

/// Runs futures on a small set of worker threads. Cheap to clone.
#[derive(Clone)]
pub struct Executor(Arc<Inner>);

struct Inner {}

impl Executor {
    /// Starts an executor with at most `max_workers` threads.
    pub fn new(max_workers: usize) -> Self {
        let _ = max_workers;
        Self(Arc::new(Inner {}))
    }

    /// Queues `future`, which runs to its end on the workers.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let _ = (&self.0, future);
        unimplemented!()
    }

    /// Completes at `deadline` (host monotonic clock).
    pub async fn sleep_until(&self, deadline: Instant) {
        let _ = deadline;
        unimplemented!()
    }

    /// Calls `callback` on the timer thread at `deadline`, unless the returned
    /// guard is dropped before. The callback must be short and never block.
    pub fn call_at(
        &self,
        deadline: Instant,
        callback: impl FnOnce() + Send + 'static,
    ) -> TimerGuard {
        let _ = (deadline, callback);
        unimplemented!()
    }
}

/// Cancels its timer when dropped.
#[must_use]
pub struct TimerGuard(());

/// Runs a section that may block in a host call; the worker's other tasks
/// move to another worker meanwhile.
pub fn blocking<T>(section: impl FnOnce() -> T) -> T {
    section()
}
