//! Waiting for stubs: which words of shared memory the sentry waits on, who
//! looks at them, and the bells that stubs ring when nobody does.
//!
//! A [`Cell`] is one word that a stub will change. It is *armed* while a task
//! waits for it. [`Hub`] scans all armed cells when a worker asks
//! ([`HotSource::poll`]) and wakes the tasks. While no worker polls, the word
//! [`l::G_POLLING`], which every stub can read, is 0 and stubs ring their bell.
//!
//! Why no wake-up is lost: a stub changes its word, then reads "polling"; the
//! sentry clears "polling", then reads all words. One of them sees the other.
//! The same holds between a task that arms a cell (arms, then reads "polling"
//! and the word) and a worker that goes to sleep (clears "polling", then reads
//! which cells are armed).
//!
//! Until an executor polls, a thread of the hub does; see [`Hub::watch`].
//!
//! Locks: `cells`, then a cell's `waker`. Wakers are called without locks.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::layout as l;
use super::shared::SharedMap;
use crate::executor::hot::SPIN_BUDGET;
use crate::executor::{HotSource, SleepVote};
use crate::futex::{self, MAX_WAIT_WORDS, Scope, WaitWord};

/// The stub process behind a cell is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dead;

/// What all cells of one stub share.
pub(super) struct Bell {
    contexts: Arc<SharedMap>,
    armed: AtomicUsize,
    dead: AtomicBool,
}

impl Bell {
    pub(super) fn new(contexts: Arc<SharedMap>) -> Arc<Self> {
        Arc::new(Self {
            contexts,
            armed: AtomicUsize::new(0),
            dead: AtomicBool::new(false),
        })
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    fn word(&self) -> &AtomicU32 {
        self.contexts.u32(l::R_BELL)
    }
}

/// A word of a stub that the sentry waits for.
pub(super) struct Cell {
    hub: Arc<Hub>,
    bell: Arc<Bell>,
    /// Of the word in the stub's contexts.
    offset: u64,
    /// The value that means "not yet".
    pending: AtomicU32,
    armed: AtomicBool,
    waker: Mutex<Option<Waker>>,
    /// Position in the hub's list.
    id: AtomicUsize,
}

impl Cell {
    pub(super) fn new(hub: &Arc<Hub>, bell: &Arc<Bell>, offset: u64) -> Arc<Self> {
        let cell = Arc::new(Self {
            hub: hub.clone(),
            bell: bell.clone(),
            offset,
            pending: AtomicU32::new(0),
            armed: AtomicBool::new(false),
            waker: Mutex::new(None),
            id: AtomicUsize::new(usize::MAX),
        });
        hub.add(&cell);
        cell
    }

    /// Says which value of the word means "not yet". Called before the order
    /// that will change it is given.
    pub(super) fn expect_change_from(&self, value: u32) {
        self.pending.store(value, Ordering::SeqCst);
    }

    fn load(&self) -> u32 {
        self.bell.contexts.u32(self.offset).load(Ordering::SeqCst)
    }

    fn is_ready(&self) -> bool {
        self.load() != self.pending.load(Ordering::SeqCst) || self.bell.is_dead()
    }

    /// The word once it has changed. Spins for `spins` rounds before it waits.
    pub(super) fn poll(&self, cx: &mut Context<'_>, spins: u32) -> Poll<Result<u32, Dead>> {
        let pending = self.pending.load(Ordering::SeqCst);
        for _ in 0..=spins {
            let value = self.load();
            if value != pending {
                self.disarm();
                return Poll::Ready(Ok(value));
            }
            std::hint::spin_loop();
        }
        {
            let mut waker = self.waker.lock();
            match &mut *waker {
                Some(old) => old.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
        }
        if !self.armed.swap(true, Ordering::SeqCst) {
            self.bell.armed.fetch_add(1, Ordering::SeqCst);
            self.hub.armed.fetch_add(1, Ordering::SeqCst);
        }
        let value = self.load();
        if value != pending {
            self.disarm();
            return Poll::Ready(Ok(value));
        }
        if self.bell.is_dead() {
            self.disarm();
            return Poll::Ready(Err(Dead));
        }
        self.hub.notice_armed();
        Poll::Pending
    }

    /// Whoever gets `true` owns the wake-up.
    fn disarm(&self) -> bool {
        let was = self.armed.load(Ordering::Relaxed) && self.armed.swap(false, Ordering::SeqCst);
        if was {
            self.bell.armed.fetch_sub(1, Ordering::SeqCst);
            self.hub.armed.fetch_sub(1, Ordering::SeqCst);
        }
        was
    }

    /// Ends the hub's interest. The cell is not polled again.
    pub(super) fn retire(&self) {
        self.disarm();
        self.hub.remove(self);
    }
}

#[derive(Default)]
struct Cells {
    entries: Vec<Option<Arc<Cell>>>,
    free: Vec<usize>,
}

type Wakers = SmallVec<[Waker; 8]>;

fn wake_all(wakers: Wakers) -> bool {
    let found = !wakers.is_empty();
    for waker in wakers {
        waker.wake();
    }
    found
}

/// See the module documentation. One per platform.
pub(super) struct Hub {
    /// The page that all stubs can read.
    global: Arc<SharedMap>,
    cells: Mutex<Cells>,
    armed: AtomicUsize,
    /// Ends the sleep of whoever waits for bells, when there are new ones.
    kick: AtomicU32,
    /// An executor has begun to poll.
    attached: AtomicBool,
    closed: AtomicBool,
}

impl Hub {
    pub(super) fn new(global: Arc<SharedMap>) -> Arc<Self> {
        Arc::new(Self {
            global,
            cells: Mutex::default(),
            armed: AtomicUsize::new(0),
            kick: AtomicU32::new(0),
            attached: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        })
    }

    fn add(&self, cell: &Arc<Cell>) {
        let mut cells = self.cells.lock();
        let id = cells.free.pop().unwrap_or_else(|| {
            cells.entries.push(None);
            cells.entries.len() - 1
        });
        cell.id.store(id, Ordering::Relaxed);
        if let Some(entry) = cells.entries.get_mut(id) {
            *entry = Some(cell.clone());
        }
    }

    fn remove(&self, cell: &Cell) {
        let mut cells = self.cells.lock();
        let id = cell.id.swap(usize::MAX, Ordering::Relaxed);
        let removed = cells.entries.get_mut(id).and_then(Option::take);
        if removed.is_some() {
            cells.free.push(id);
        }
        drop(cells);
        drop(removed);
    }

    fn polling(&self) -> &AtomicU32 {
        self.global.u32(l::G_POLLING)
    }

    /// Called with a cell just armed: whoever sleeps does not wait for its
    /// bell yet.
    fn notice_armed(&self) {
        if self.polling().load(Ordering::SeqCst) == 0 {
            self.kick();
        }
    }

    fn kick(&self) {
        self.kick.fetch_add(1, Ordering::SeqCst);
        futex::wake(&raw const self.kick, u32::MAX, Scope::Private);
    }

    /// Marks a stub as gone and wakes all who wait for it.
    pub(super) fn bury(&self, bell: &Bell) {
        bell.dead.store(true, Ordering::SeqCst);
        self.scan();
    }

    /// Wakes all whose word has changed; says whether there were any.
    fn scan(&self) -> bool {
        let wakers = self.collect(&self.cells.lock());
        wake_all(wakers)
    }

    fn collect(&self, cells: &Cells) -> Wakers {
        let mut wakers = Wakers::new();
        if self.armed.load(Ordering::SeqCst) == 0 {
            return wakers;
        }
        for cell in cells.entries.iter().flatten() {
            if cell.armed.load(Ordering::SeqCst)
                && cell.is_ready()
                && cell.disarm()
                && let Some(waker) = cell.waker.lock().take()
            {
                wakers.push(waker);
            }
        }
        wakers
    }

    /// Bells of stubs that somebody waits for, with their values.
    fn bells(&self, cells: &Cells, words: &mut Vec<WaitWord>) -> bool {
        let mut seen: SmallVec<[*const Bell; 16]> = SmallVec::new();
        for cell in cells.entries.iter().flatten() {
            let bell = Arc::as_ptr(&cell.bell);
            if cell.bell.armed.load(Ordering::SeqCst) > 0 && !seen.contains(&bell) {
                if words.len() + 1 >= MAX_WAIT_WORDS {
                    return false;
                }
                seen.push(bell);
                let word = cell.bell.word();
                let value = word.load(Ordering::SeqCst);
                words.push(WaitWord::new(word, value, Scope::Shared));
            }
        }
        true
    }

    fn prepare(&self, words: &mut Vec<WaitWord>) -> SleepVote {
        let kick = self.kick.load(Ordering::SeqCst);
        words.push(WaitWord::new(&raw const self.kick, kick, Scope::Private));
        // In this order: cells armed from here on kick, those armed before have
        // their bells in the list, and a bell not rung yet when it is read here
        // rings later or belongs to a word that is seen to have changed.
        self.polling().swap(0, Ordering::SeqCst);
        let cells = self.cells.lock();
        let all = self.bells(&cells, words);
        let wakers = self.collect(&cells);
        drop(cells);
        if wake_all(wakers) || !all {
            return SleepVote::StayAwake;
        }
        SleepVote::Sleep
    }

    /// Body of the thread that polls as long as no executor does: at start-up
    /// and in tests.
    pub(super) fn watch(hub: &Weak<Self>) {
        let mut words = Vec::new();
        loop {
            let Some(hub) = hub.upgrade() else { return };
            hub.polling().store(1, Ordering::SeqCst);
            let start = Instant::now();
            while start.elapsed() < SPIN_BUDGET && hub.armed.load(Ordering::SeqCst) > 0 {
                hub.scan();
                std::hint::spin_loop();
            }
            if hub.attached.load(Ordering::SeqCst) || hub.closed.load(Ordering::SeqCst) {
                // A worker may have said "nobody polls" before the store above.
                hub.polling().swap(0, Ordering::SeqCst);
                hub.kick();
                return;
            }
            words.clear();
            if hub.prepare(&mut words) == SleepVote::Sleep {
                // Any return only starts another round. The hub stays alive:
                // `close` comes before it is dropped.
                let _ = futex::wait_any(&words);
            }
        }
    }

    /// Ends [`Self::watch`].
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.kick();
    }
}

impl HotSource for Hub {
    fn poll(&self) -> bool {
        if self.armed.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let Some(cells) = self.cells.try_lock() else {
            return false;
        };
        let wakers = self.collect(&cells);
        drop(cells);
        wake_all(wakers)
    }

    fn is_armed(&self) -> bool {
        self.armed.load(Ordering::SeqCst) > 0
    }

    fn prepare_sleep(&self, words: &mut Vec<WaitWord>) -> SleepVote {
        self.prepare(words)
    }

    fn resume_polling(&self) {
        if self.polling().load(Ordering::SeqCst) == 0 {
            self.polling().store(1, Ordering::SeqCst);
        }
        if !self.attached.swap(true, Ordering::SeqCst) {
            self.kick();
        }
    }
}
