//! Kills stubs that do not react: a thread that ignores an interrupt, or a
//! trapped thread that does not answer a command, could otherwise keep its
//! guest from ever being ended.
//!
//! A thread is looked at once, [`LIMIT`] after it was reported, and again as
//! long as it owes an answer. Nothing runs while nobody owes one.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::context::ThreadCore;

/// Ample for a page fault on a slow disk and for a starved CPU.
const LIMIT: Duration = Duration::from_secs(15);

struct Entry {
    deadline: Instant,
    thread: Weak<ThreadCore>,
    /// What [`ThreadCore::answers`] was.
    answers: u32,
}

#[derive(Default)]
struct Queue {
    /// In the order of deadlines.
    entries: std::collections::VecDeque<Entry>,
    closed: bool,
}

/// See the module documentation. One per platform.
#[derive(Default)]
pub(super) struct Watchdog {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Watchdog {
    /// Starts its thread, which ends at [`Self::close`].
    pub(super) fn start() -> std::io::Result<Arc<Self>> {
        let watchdog = Arc::new(Self::default());
        let own = watchdog.clone();
        std::thread::Builder::new()
            .name("systrap-guard".to_owned())
            .spawn(move || own.run())?;
        Ok(watchdog)
    }

    /// Has a look at `thread` in a while. Called once until
    /// [`ThreadCore::begin_check`].
    pub(super) fn report(&self, thread: &Arc<ThreadCore>) {
        let mut queue = self.queue.lock();
        queue.entries.push_back(Entry {
            deadline: Instant::now() + LIMIT,
            thread: Arc::downgrade(thread),
            answers: thread.answers(),
        });
        if queue.entries.len() == 1 {
            self.changed.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.changed.notify_one();
    }

    fn run(&self) {
        let mut queue = self.queue.lock();
        while !queue.closed {
            let Some(first) = queue.entries.front() else {
                self.changed.wait(&mut queue);
                continue;
            };
            let deadline = first.deadline;
            if Instant::now() < deadline {
                self.changed.wait_until(&mut queue, deadline);
                continue;
            }
            let Some(entry) = queue.entries.pop_front() else {
                continue;
            };
            parking_lot::MutexGuard::unlocked(&mut queue, || {
                if let Some(thread) = entry.thread.upgrade() {
                    thread.check(entry.answers);
                }
            });
        }
    }
}
