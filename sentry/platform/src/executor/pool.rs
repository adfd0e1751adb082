//! Run queues and parked workers: who is woken when.
//!
//! Counters, all sequentially consistent:
//! - `active`: workers that run or look for tasks, thus neither parked nor in
//!   a blocking section. At most `max_active` are woken; the end of blocking
//!   sections may exceed that for a moment.
//! - `searching`: the active ones among them that look for tasks.
//!
//! No wake-up is lost: whoever queues a task does so *before* it reads the
//! counters ([`Pool::notify`]); whoever stops looking changes the counters
//! *before* it looks at the queues a last time. So either the former sees that
//! somebody must be woken, or the latter sees the task.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};

use async_task::Runnable;
use crossbeam::deque::{Injector, Stealer, Worker as Deque};
use parking_lot::{Mutex, RwLock};

use super::hot::HotSource;
use super::worker;
use crate::futex::{self, Scope};

/// Threads beyond `max_active` that may stand in for blocked ones.
const MAX_SPARES: usize = 256;

/// What other threads see of a worker.
pub(super) struct Slot {
    pub(super) stealer: Stealer<Runnable>,
    /// 1 while a wake-up is pending.
    pub(super) token: AtomicU32,
    /// The queue itself while no thread uses this slot.
    pub(super) deque: Mutex<Option<Deque<Runnable>>>,
}

#[derive(Default)]
struct Parked {
    /// Slots whose thread sleeps; the last one parked is woken first.
    ids: Vec<usize>,
    /// Slots whose thread has ended.
    vacant: Vec<usize>,
    /// Slots ever used.
    used: usize,
}

pub(super) struct Pool {
    pub(super) injector: Injector<Runnable>,
    slots: Box<[OnceLock<Slot>]>,
    parked: Mutex<Parked>,
    pub(super) active: AtomicUsize,
    pub(super) searching: AtomicUsize,
    pub(super) max_active: usize,
    pub(super) stopping: AtomicBool,
    /// Held by the one idle worker that spins on hot sources.
    pub(super) spinner: AtomicBool,
    sources: RwLock<Arc<[Arc<dyn HotSource>]>>,
    /// Changes with `sources`; workers keep a copy of the list.
    pub(super) sources_version: AtomicUsize,
}

/// How a worker was taken off the list of parked ones.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unparked {
    /// By [`Pool::notify`], which counted it as active and searching.
    ByOther,
    /// By itself.
    BySelf,
}

impl Pool {
    pub(super) fn new(max_active: usize) -> Arc<Self> {
        Arc::new(Self {
            injector: Injector::new(),
            slots: (0..max_active + MAX_SPARES)
                .map(|_| OnceLock::new())
                .collect(),
            parked: Mutex::default(),
            active: AtomicUsize::new(0),
            searching: AtomicUsize::new(0),
            max_active,
            stopping: AtomicBool::new(false),
            spinner: AtomicBool::new(false),
            sources: RwLock::new(Arc::new([])),
            sources_version: AtomicUsize::new(0),
        })
    }

    pub(super) fn slot(&self, id: usize) -> Option<&Slot> {
        self.slots.get(id).and_then(OnceLock::get)
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        // Slots fill from the front.
        self.slots.iter().map_while(OnceLock::get)
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.injector.is_empty() || self.slots().any(|slot| !slot.stealer.is_empty())
    }

    pub(super) fn push(self: &Arc<Self>, runnable: Runnable) {
        if self.stopping.load(Ordering::SeqCst) {
            // Nobody will run it: dropping it drops the task's future.
            drop(runnable);
            return;
        }
        self.injector.push(runnable);
        self.notify();
    }

    /// Makes sure that somebody will see what was just queued.
    pub(super) fn notify(self: &Arc<Self>) {
        fence(Ordering::SeqCst);
        if self.searching.load(Ordering::SeqCst) > 0
            || self.active.load(Ordering::SeqCst) >= self.max_active
        {
            return;
        }
        self.wake_one();
    }

    /// Wakes a parked worker or starts one.
    pub(super) fn wake_one(self: &Arc<Self>) {
        let id = {
            let mut parked = self.parked.lock();
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            let id = parked.ids.pop();
            if id.is_some() {
                self.active.fetch_add(1, Ordering::SeqCst);
                self.searching.fetch_add(1, Ordering::SeqCst);
            }
            id
        };
        match id.and_then(|id| self.slot(id)) {
            Some(slot) => unpark(slot),
            None => self.start_worker(),
        }
    }

    fn start_worker(self: &Arc<Self>) {
        let (id, deque) = {
            let mut parked = self.parked.lock();
            if self.stopping.load(Ordering::SeqCst)
                || self.active.load(Ordering::SeqCst) >= self.max_active
            {
                return;
            }
            let id = match parked.vacant.pop() {
                Some(id) => id,
                None if parked.used < self.slots.len() => {
                    parked.used += 1;
                    parked.used - 1
                }
                // All spares are blocked: the queue waits for one of them.
                None => return,
            };
            let slot = self.slots.get(id).map(|cell| {
                cell.get_or_init(|| {
                    let deque = Deque::new_fifo();
                    Slot {
                        stealer: deque.stealer(),
                        token: AtomicU32::new(0),
                        deque: Mutex::new(Some(deque)),
                    }
                })
            });
            let Some(deque) = slot.and_then(|slot| slot.deque.lock().take()) else {
                return;
            };
            self.active.fetch_add(1, Ordering::SeqCst);
            self.searching.fetch_add(1, Ordering::SeqCst);
            (id, deque)
        };
        if worker::start(self.clone(), id, deque).is_err() {
            // The host is out of threads: others have to do. The queue of the
            // slot is lost with the closure, so the slot stays unused.
            self.active.fetch_sub(1, Ordering::SeqCst);
            self.searching.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Puts worker `id` on the list of parked ones.
    pub(super) fn enlist(&self, id: usize) {
        self.parked.lock().ids.push(id);
    }

    /// Takes worker `id` off the list, if nobody else has.
    pub(super) fn delist(&self, id: usize) -> Unparked {
        let mut parked = self.parked.lock();
        match parked.ids.iter().position(|&other| other == id) {
            Some(index) => {
                parked.ids.remove(index);
                Unparked::BySelf
            }
            None => Unparked::ByOther,
        }
    }

    /// Whether a parked worker is one too many.
    pub(super) fn has_surplus(&self) -> bool {
        let parked = self.parked.lock();
        parked.used - parked.vacant.len() > self.max_active
    }

    /// Gives the slot of an ended worker back.
    pub(super) fn vacate(&self, id: usize, deque: Deque<Runnable>) {
        if let Some(slot) = self.slot(id) {
            *slot.deque.lock() = Some(deque);
            self.parked.lock().vacant.push(id);
        }
    }

    pub(super) fn add_hot_source(&self, source: Arc<dyn HotSource>) {
        let mut sources = self.sources.write();
        *sources = sources.iter().cloned().chain([source]).collect();
        self.sources_version.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn hot_sources(&self) -> Arc<[Arc<dyn HotSource>]> {
        self.sources.read().clone()
    }

    pub(super) fn shutdown(&self) {
        let sleeping = {
            let parked = self.parked.lock();
            self.stopping.store(true, Ordering::SeqCst);
            parked.ids.clone()
        };
        for slot in sleeping.iter().filter_map(|&id| self.slot(id)) {
            unpark(slot);
        }
        while !self.injector.is_empty() {
            drop(self.injector.steal());
        }
    }
}

/// Leaves a wake-up for the slot's thread, which need not sleep.
fn unpark(slot: &Slot) {
    if slot.token.swap(1, Ordering::SeqCst) == 0 {
        futex::wake(&raw const slot.token, 1, Scope::Private);
    }
}
