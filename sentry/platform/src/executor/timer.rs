//! The timer thread: a tree of deadlines on the host's monotonic clock.
//!
//! The thread starts with the first timer, sleeps until the earliest deadline
//! and without limit if there is none. A cancelled timer leaves the tree at
//! once, so that timeouts that never fire cost no memory.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

type Callback = Box<dyn FnOnce() + Send>;

/// Deadline, and a number that tells timers of equal deadlines apart.
type Key = (Instant, u64);

#[derive(Default)]
struct Tree {
    timers: BTreeMap<Key, Callback>,
    next_number: u64,
    /// When the sleeping thread will look again, if it sleeps with a limit.
    wakes_at: Option<Instant>,
    is_sleeping: bool,
    has_thread: bool,
    stopping: bool,
}

pub(super) struct Timers {
    tree: Mutex<Tree>,
    changed: Condvar,
}

/// Cancels its timer when dropped.
#[must_use = "dropping the guard cancels the timer"]
pub struct TimerGuard {
    timers: Arc<Timers>,
    key: Key,
}

impl TimerGuard {
    /// The deadline it was made with.
    pub fn deadline(&self) -> Instant {
        self.key.0
    }
}

impl Drop for TimerGuard {
    fn drop(&mut self) {
        // The callback may own anything: drop it without the lock.
        let callback = self.timers.tree.lock().timers.remove(&self.key);
        drop(callback);
    }
}

impl Timers {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            tree: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    pub(super) fn shutdown(&self) {
        let timers = {
            let mut tree = self.tree.lock();
            tree.stopping = true;
            std::mem::take(&mut tree.timers)
        };
        self.changed.notify_all();
        drop(timers);
    }

    fn insert(self: &Arc<Self>, deadline: Instant, callback: Callback) -> Key {
        let mut tree = self.tree.lock();
        let key = (deadline, tree.next_number);
        tree.next_number += 1;
        if tree.stopping {
            return key;
        }
        tree.timers.insert(key, callback);
        if !tree.has_thread {
            tree.has_thread = true;
            let timers = self.clone();
            let thread = std::thread::Builder::new().name("timers".to_owned());
            if thread.spawn(move || timers.run()).is_err() {
                // Without threads the host is beyond help; the next timer
                // tries again.
                tree.has_thread = false;
            }
        } else if tree.is_sleeping && tree.wakes_at.is_none_or(|wakes_at| deadline < wakes_at) {
            // The thread leaves this state itself; later timers in between
            // need not wake it again unless they are earlier still.
            tree.wakes_at = Some(deadline);
            drop(tree);
            self.changed.notify_one();
        }
        key
    }

    fn run(&self) {
        let abort_on_panic = AbortOnPanic;
        // The default slack of 50 µs would be added to every sleep of a guest.
        let _ = nix::sys::prctl::set_timerslack(1);
        let mut tree = self.tree.lock();
        while !tree.stopping {
            let now = Instant::now();
            match tree.timers.first_key_value().map(|(key, _)| *key) {
                Some(key) if key.0 <= now => {
                    if let Some(callback) = tree.timers.remove(&key) {
                        parking_lot::MutexGuard::unlocked(&mut tree, callback);
                    }
                }
                Some((deadline, _)) => {
                    tree.is_sleeping = true;
                    tree.wakes_at = Some(deadline);
                    self.changed.wait_until(&mut tree, deadline);
                    tree.is_sleeping = false;
                }
                None => {
                    tree.is_sleeping = true;
                    tree.wakes_at = None;
                    self.changed.wait(&mut tree);
                    tree.is_sleeping = false;
                }
            }
        }
        std::mem::forget(abort_on_panic);
    }
}

/// A panic in a callback must end the sandbox, not just all timers.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        std::process::abort();
    }
}

pub(super) fn call_at(timers: &Arc<Timers>, deadline: Instant, callback: Callback) -> TimerGuard {
    TimerGuard {
        key: timers.insert(deadline, callback),
        timers: timers.clone(),
    }
}

/// Future of [`super::Executor::sleep_until`].
pub(super) struct Sleep {
    timers: Arc<Timers>,
    deadline: Instant,
    /// The timer, and the waker that its callback takes.
    armed: Option<(TimerGuard, Arc<Mutex<Option<Waker>>>)>,
}

impl Sleep {
    pub(super) fn new(timers: Arc<Timers>, deadline: Instant) -> Self {
        Self {
            timers,
            deadline,
            armed: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.deadline {
            return Poll::Ready(());
        }
        match &self.armed {
            Some((_, waker)) => {
                let mut waker = waker.lock();
                match waker.as_mut() {
                    Some(waker) => waker.clone_from(cx.waker()),
                    // The callback has run since the clock was read.
                    None => return Poll::Ready(()),
                }
            }
            None => {
                let waker = Arc::new(Mutex::new(Some(cx.waker().clone())));
                let shared = waker.clone();
                let guard = call_at(
                    &self.timers,
                    self.deadline,
                    Box::new(move || {
                        let waker = shared.lock().take();
                        if let Some(waker) = waker {
                            waker.wake();
                        }
                    }),
                );
                self.armed = Some((guard, waker));
            }
        }
        Poll::Pending
    }
}
