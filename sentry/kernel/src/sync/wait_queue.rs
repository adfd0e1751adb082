//! Wait queues: who wants to know when an object changes.
//!
//! Locks: a queue's own lock is a leaf as far as kernel objects are concerned
//! ([`Observer::notify`] is called with it held and must not take object
//! locks, only queue locks further out: an epoll instance notifies its own
//! queue). Objects may call [`WaitQueue::notify`] with their lock held.

use std::sync::Arc;
use std::task::Waker;

use bitflags::bitflags;
use parking_lot::Mutex;
use smallvec::SmallVec;

bitflags! {
    /// Readiness of a file, with the bit values of `poll(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Events: u32 {
        const IN = 0x001;
        const PRI = 0x002;
        const OUT = 0x004;
        const ERR = 0x008;
        const HUP = 0x010;
        const NVAL = 0x020;
        const RDNORM = 0x040;
        const RDBAND = 0x080;
        const WRNORM = 0x100;
        const WRBAND = 0x200;
        const MSG = 0x400;
        const RDHUP = 0x2000;
        /// Readable as `select(2)` understands it.
        const READABLE = Self::IN.bits() | Self::RDNORM.bits();
        /// Writable as `select(2)` understands it.
        const WRITABLE = Self::OUT.bits() | Self::WRNORM.bits();
    }
}

/// Gets told about events of a [`WaitQueue`].
pub trait Observer: Send + Sync {
    /// Must be short, must not block and must not take object locks.
    fn notify(&self, events: Events);
}

impl Observer for Waker {
    fn notify(&self, _events: Events) {
        self.wake_by_ref();
    }
}

struct Entry {
    id: u64,
    mask: Events,
    observer: Arc<dyn Observer>,
}

#[derive(Default)]
struct Queue {
    next_id: u64,
    entries: SmallVec<[Entry; 1]>,
}

/// A list of observers with the events they care about. Clones share it.
#[derive(Clone, Default)]
pub struct WaitQueue(Arc<Mutex<Queue>>);

impl WaitQueue {
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells `observer` of events in `mask` (errors and hang-ups always)
    /// until the subscription is dropped.
    #[must_use = "dropping the subscription ends it"]
    pub fn subscribe(&self, mask: Events, observer: Arc<dyn Observer>) -> Subscription {
        let mut queue = self.0.lock();
        let id = queue.next_id;
        queue.next_id += 1;
        queue.entries.push(Entry {
            id,
            mask: mask | Events::ERR | Events::HUP,
            observer,
        });
        Subscription {
            queue: self.clone(),
            id,
        }
    }

    /// Tells everybody who waits for one of `events`.
    pub fn notify(&self, events: Events) {
        let queue = self.0.lock();
        for entry in &queue.entries {
            if entry.mask.intersects(events) {
                entry.observer.notify(events);
            }
        }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.lock().entries.is_empty()
    }
}

/// Membership in a [`WaitQueue`]; ends when dropped.
pub struct Subscription {
    queue: WaitQueue,
    id: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut queue = self.queue.0.lock();
        if let Some(at) = queue.entries.iter().position(|entry| entry.id == self.id) {
            let entry = queue.entries.remove(at);
            drop(queue);
            drop(entry);
        }
    }
}
