//! Drives guest tasks: run queues, workers, timers, blocking sections.
//!
//! | file | holds |
//! |---|---|
//! | `pool.rs` | run queues, parked workers, who is woken when |
//! | `worker.rs` | the loop of one worker thread, blocking sections |
//! | [`hot`] | sources of work that idle workers poll before they sleep |
//! | [`timer`] | the timer thread |
//! | [`host_poll`] | the thread that waits for host file descriptors |
//!
//! All threads start when they are first needed and none of them runs while
//! there is nothing to do.
//!
//! Locks, each a leaf held for a few instructions: the list of parked workers
//! (`pool.rs`), the timer tree, the table of watches.

pub mod host_poll;
pub mod hot;
mod pool;
pub mod timer;
mod worker;

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::futex::{self, Scope};

pub use hot::{HotSource, SleepVote};
pub use timer::TimerGuard;
pub use worker::{blocking, run_woken};

use pool::Pool;
use timer::Timers;

/// Runs futures on a small set of worker threads. Cheap to clone; workers end
/// when the last clone is dropped or at [`Executor::shutdown`].
#[derive(Clone)]
pub struct Executor(Arc<Shared>);

struct Shared {
    pool: Arc<Pool>,
    timers: Arc<Timers>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.pool.shutdown();
        self.timers.shutdown();
    }
}

/// A spawned future whose result is awaited. Dropping it cancels the future;
/// [`JoinHandle::detach`] lets it run on.
#[must_use = "dropping the handle cancels the future"]
pub struct JoinHandle<T>(async_task::Task<T>);

impl<T> JoinHandle<T> {
    /// Lets the future run to its end unobserved.
    pub fn detach(self) {
        self.0.detach();
    }

    /// Drops the future at its next await point and waits for that; the
    /// result if it had ended before.
    pub async fn cancel(self) -> Option<T> {
        self.0.cancel().await
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl Executor {
    /// An executor that runs at most `max_workers` tasks at once (0 counts as
    /// 1). Threads in [`blocking`] sections don't count.
    pub fn new(max_workers: usize) -> Self {
        Self(Arc::new(Shared {
            pool: Pool::new(max_workers.max(1)),
            timers: Timers::new(),
        }))
    }

    /// As [`Executor::new`] with one worker for each CPU this process may use.
    pub fn with_default_workers() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// Queues `future`, which runs to its end on the workers. A panic in it
    /// aborts the process: the sandbox fails closed.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.spawn_join(future).detach();
    }

    /// Queues `future` and returns a handle to its result.
    pub fn spawn_join<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let pool = self.0.pool.clone();
        let (runnable, task) =
            async_task::spawn(future, move |runnable| worker::schedule(&pool, runnable));
        runnable.schedule();
        JoinHandle(task)
    }

    /// Runs `future` on the calling thread, which must not be a worker, and
    /// returns its result. For tests and start-up code.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        block_on(future)
    }

    /// Completes at `deadline` (host monotonic clock).
    pub async fn sleep_until(&self, deadline: Instant) {
        timer::Sleep::new(self.0.timers.clone(), deadline).await;
    }

    /// Calls `callback` on the timer thread at `deadline`, unless the returned
    /// guard is dropped before. The callback must be short and never block.
    pub fn call_at(
        &self,
        deadline: Instant,
        callback: impl FnOnce() + Send + 'static,
    ) -> TimerGuard {
        timer::call_at(&self.0.timers, deadline, Box::new(callback))
    }

    /// Registers `source` with the workers, which poll it from now on.
    pub fn add_hot_source(&self, source: Arc<dyn HotSource>) {
        self.0.pool.add_hot_source(source);
    }

    /// Ends all workers once their current task yields and drops the tasks
    /// that are queued. Tasks that wait elsewhere stay where they are and are
    /// dropped when they are woken.
    pub fn shutdown(&self) {
        self.0.pool.shutdown();
    }
}

/// Runs `future` on the calling thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Some(value) = block_on_for(future.as_mut(), Duration::MAX) {
            return value;
        }
    }
}

/// As [`block_on`], but gives up after `limit`.
pub fn block_on_for<T>(
    mut future: Pin<&mut impl Future<Output = T>>,
    limit: Duration,
) -> Option<T> {
    struct Parker(AtomicU32);
    impl Wake for Parker {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }
        fn wake_by_ref(self: &Arc<Self>) {
            if self.0.swap(1, Ordering::Release) == 0 {
                futex::wake(&raw const self.0, 1, Scope::Private);
            }
        }
    }
    let parker = Arc::new(Parker(AtomicU32::new(0)));
    let waker = Waker::from(parker.clone());
    let mut cx = Context::from_waker(&waker);
    let deadline = Instant::now().checked_add(limit);
    loop {
        begin_run();
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return Some(value);
        }
        while parker.0.swap(0, Ordering::Acquire) == 0 {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return None;
            }
            // Any early return only repeats the check.
            let _ = futex::wait(&parker.0, 0, left, Scope::Private);
        }
    }
}

thread_local! {
    /// Of no other thread's numbers.
    static RUN: Cell<u64> = {
        static THREADS: AtomicU64 = AtomicU64::new(1);
        Cell::new(THREADS.fetch_add(1, Ordering::Relaxed) << 40)
    };
}

/// Notes that this thread is about to poll a task.
pub(super) fn begin_run() {
    RUN.set(RUN.get().wrapping_add(1));
}

/// A number that no other poll of any task has: who finds it unchanged has not
/// waited since.
pub(crate) fn current_run() -> u64 {
    RUN.get()
}

/// Lets other tasks of this worker run first.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests;
