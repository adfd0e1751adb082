//! Waiting for stubs: which words of shared memory the sentry waits on, who
//! looks at them, and the bells that stubs ring when nobody does.
//!
//! A [`Cell`] is one word that a stub will change. It is *armed* while a task
//! waits for it: its bit in a bitmap is set. [`Hub`] scans all armed cells when
//! a worker asks ([`HotSource::poll`]) and wakes the tasks. While no worker
//! polls, the word [`l::G_POLLING`], which every stub can read, is 0 and stubs
//! ring their bell. One host call waits for at most 128 bells; *keepers* are
//! threads that wait for the others.
//!
//! Why no wake-up is lost: a stub changes its word, then reads "polling"; the
//! sentry clears "polling", then reads all words. One of them sees the other.
//! The same holds between a task that arms a cell (arms, then reads "polling"
//! and the word) and a worker that goes to sleep (clears "polling", then reads
//! which cells are armed).
//!
//! Until an executor polls, a thread of the hub does; see [`Hub::watch`].
//!
//! Locks: `cells`, then a cell's `waker`; `keepers`, then a keeper's `words`.
//! Wakers are called without locks.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::Mutex;
use smallvec::SmallVec;
use syscall_tables::Errno;

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
    dead: AtomicBool,
    /// The latest sleep for which this bell was listed.
    listed: AtomicUsize,
}

impl Bell {
    pub(super) fn new(contexts: Arc<SharedMap>) -> Arc<Self> {
        Arc::new(Self {
            contexts,
            dead: AtomicBool::new(false),
            listed: AtomicUsize::new(0),
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
    waker: Mutex<Option<Waker>>,
    /// Position in the hub's list and bitmap.
    id: usize,
}

impl Cell {
    /// # Errors
    /// `EAGAIN` if there are [`MAX_CELLS`] already.
    pub(super) fn new(hub: &Arc<Hub>, bell: &Arc<Bell>, offset: u64) -> Result<Arc<Self>, Errno> {
        hub.add(|id| {
            Arc::new(Self {
                hub: hub.clone(),
                bell: bell.clone(),
                offset,
                pending: AtomicU32::new(0),
                waker: Mutex::new(None),
                id,
            })
        })
    }

    /// Says which value of the word means "not yet". Called before the order
    /// that will change it is given.
    pub(super) fn expect_change_from(&self, value: u32) {
        self.pending.store(value, Ordering::Relaxed);
    }

    fn load(&self) -> u32 {
        self.bell.contexts.u32(self.offset).load(Ordering::SeqCst)
    }

    fn is_ready(&self) -> bool {
        self.load() != self.pending.load(Ordering::SeqCst) || self.bell.is_dead()
    }

    /// The word once it has changed. Spins for `spins` rounds before it waits.
    pub(super) fn poll(&self, cx: &mut Context<'_>, spins: u32) -> Poll<Result<u32, Dead>> {
        self.poll_counted(cx, spins).map_ok(|(value, _)| value)
    }

    /// As [`Self::poll`]; says as well for how many rounds it has spun.
    pub(super) fn poll_counted(
        &self,
        cx: &mut Context<'_>,
        spins: u32,
    ) -> Poll<Result<(u32, u32), Dead>> {
        let pending = self.pending.load(Ordering::Relaxed);
        let word = self.bell.contexts.u32(self.offset);
        for round in 0..=spins {
            let value = word.load(Ordering::SeqCst);
            if value != pending {
                self.disarm();
                return Poll::Ready(Ok((value, round)));
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
        self.hub.armed.set(self.id);
        let value = word.load(Ordering::SeqCst);
        if value != pending {
            self.disarm();
            return Poll::Ready(Ok((value, spins)));
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
        self.hub.armed.clear(self.id)
    }

    /// Ends the hub's interest. The cell is not polled again.
    pub(super) fn retire(&self) {
        self.disarm();
        self.hub.remove(self);
    }
}

/// Cells of one platform: threads and stubs.
const MAX_CELLS: usize = 1 << 18;

/// Which cells are armed.
struct Bitmap {
    words: Box<[AtomicU64]>,
    /// How many bits are set.
    count: AtomicUsize,
}

impl Bitmap {
    fn new() -> Self {
        Self {
            words: (0..MAX_CELLS / 64).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicUsize::new(0),
        }
    }

    fn word(&self, id: usize) -> Option<(&AtomicU64, u64)> {
        Some((self.words.get(id / 64)?, 1 << (id % 64)))
    }

    fn set(&self, id: usize) {
        if let Some((word, bit)) = self.word(id)
            && word.fetch_or(bit, Ordering::SeqCst) & bit == 0
        {
            self.count.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Says whether the bit was set.
    fn clear(&self, id: usize) -> bool {
        let Some((word, bit)) = self.word(id) else {
            return false;
        };
        let was = word.load(Ordering::SeqCst) & bit != 0
            && word.fetch_and(!bit, Ordering::SeqCst) & bit != 0;
        if was {
            self.count.fetch_sub(1, Ordering::SeqCst);
        }
        was
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// The bits set among the first `len`.
    fn iter(&self, len: usize) -> impl Iterator<Item = usize> {
        let words = self.words.iter().take(len.div_ceil(64)).enumerate();
        words.flat_map(|(index, word)| {
            let mut bits = word.load(Ordering::SeqCst);
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros();
                bits &= bits.wrapping_sub(1);
                usize::try_from(bit).ok().filter(|&bit| bit < 64)
            })
            .map(move |bit| index * 64 + bit)
        })
    }
}

#[derive(Default)]
struct Cells {
    entries: Vec<Option<Arc<Cell>>>,
    free: Vec<usize>,
    /// Counts sleeps.
    sleeps: usize,
}

impl Cells {
    fn get(&self, id: usize) -> Option<&Arc<Cell>> {
        self.entries.get(id)?.as_ref()
    }
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
    armed: Bitmap,
    keepers: Mutex<Vec<Arc<Keeper>>>,
    /// Ends the sleep of whoever waits for bells, when there are new ones.
    kick: Arc<AtomicU32>,
    /// An executor has begun to poll.
    attached: AtomicBool,
    closed: AtomicBool,
}

impl Hub {
    pub(super) fn new(global: Arc<SharedMap>) -> Arc<Self> {
        Arc::new(Self {
            global,
            cells: Mutex::default(),
            armed: Bitmap::new(),
            keepers: Mutex::default(),
            kick: Arc::new(AtomicU32::new(0)),
            attached: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        })
    }

    fn add(&self, make: impl FnOnce(usize) -> Arc<Cell>) -> Result<Arc<Cell>, Errno> {
        let mut cells = self.cells.lock();
        let id = match cells.free.pop() {
            Some(id) => id,
            None if cells.entries.len() < MAX_CELLS => {
                cells.entries.push(None);
                cells.entries.len() - 1
            }
            None => return Err(Errno::EAGAIN),
        };
        let cell = make(id);
        if let Some(entry) = cells.entries.get_mut(id) {
            *entry = Some(cell.clone());
        }
        Ok(cell)
    }

    fn remove(&self, cell: &Cell) {
        let mut cells = self.cells.lock();
        let removed = cells.entries.get_mut(cell.id).and_then(Option::take);
        if removed.is_some() {
            cells.free.push(cell.id);
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
        futex::wake(&raw const *self.kick, u32::MAX, Scope::Private);
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
        if self.armed.is_empty() {
            return wakers;
        }
        for id in self.armed.iter(cells.entries.len()) {
            if let Some(cell) = cells.get(id)
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
    fn bells(&self, cells: &mut Cells) -> Vec<WaitWord> {
        cells.sleeps = cells.sleeps.wrapping_add(1);
        let mut words = Vec::new();
        for id in self.armed.iter(cells.entries.len()) {
            if let Some(cell) = cells.get(id)
                && cell.bell.listed.swap(cells.sleeps, Ordering::Relaxed) != cells.sleeps
            {
                let word = cell.bell.word();
                let value = word.load(Ordering::SeqCst);
                words.push(WaitWord::new(word, value, Scope::Shared));
            }
        }
        words
    }

    fn prepare(&self, words: &mut Vec<WaitWord>) -> SleepVote {
        let kick = self.kick.load(Ordering::SeqCst);
        words.push(WaitWord::new(&raw const *self.kick, kick, Scope::Private));
        // In this order: cells armed from here on kick, those armed before have
        // their bells in the list, and a bell not rung yet when it is read here
        // rings later or belongs to a word that is seen to have changed.
        self.polling().swap(0, Ordering::SeqCst);
        let mut cells = self.cells.lock();
        let bells = self.bells(&mut cells);
        let wakers = self.collect(&cells);
        drop(cells);
        if wake_all(wakers) {
            return SleepVote::StayAwake;
        }
        // One place is left to the caller.
        let own = bells.len().min(MAX_WAIT_WORDS - 1 - words.len());
        let (own, others) = bells.split_at(own);
        words.extend_from_slice(own);
        if !others.is_empty() && self.keep(others).is_err() {
            return SleepVote::StayAwake;
        }
        SleepVote::Sleep
    }

    /// Has keepers wait for bells.
    fn keep(&self, words: &[WaitWord]) -> Result<(), Errno> {
        let mut keepers = self.keepers.lock();
        for (index, part) in words.chunks(MAX_WAIT_WORDS - 1).enumerate() {
            if keepers.len() <= index {
                keepers.push(Keeper::start(&self.kick)?);
            }
            if let Some(keeper) = keepers.get(index) {
                *keeper.words.lock() = part.to_vec();
                keeper.turn();
            }
        }
        Ok(())
    }

    /// Body of the thread that polls as long as no executor does: at start-up
    /// and in tests.
    pub(super) fn watch(hub: &Weak<Self>) {
        let mut words = Vec::new();
        loop {
            let Some(hub) = hub.upgrade() else { return };
            hub.polling().store(1, Ordering::SeqCst);
            let start = Instant::now();
            while start.elapsed() < SPIN_BUDGET && !hub.armed.is_empty() {
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

    /// Ends [`Self::watch`] and the keepers.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.kick();
        for keeper in self.keepers.lock().drain(..) {
            keeper.closed.store(true, Ordering::SeqCst);
            keeper.turn();
        }
    }
}

/// A thread that waits for bells while workers sleep, and kicks them.
struct Keeper {
    words: Mutex<Vec<WaitWord>>,
    /// Changes with `words`.
    turn: AtomicU32,
    closed: AtomicBool,
}

impl Keeper {
    fn start(kick: &Arc<AtomicU32>) -> Result<Arc<Self>, Errno> {
        let keeper = Arc::new(Self {
            words: Mutex::default(),
            turn: AtomicU32::new(0),
            closed: AtomicBool::new(false),
        });
        let (own, kick) = (keeper.clone(), kick.clone());
        std::thread::Builder::new()
            .name("systrap-bells".to_owned())
            .spawn(move || own.run(&kick))?;
        Ok(keeper)
    }

    fn turn(&self) {
        self.turn.fetch_add(1, Ordering::SeqCst);
        futex::wake(&raw const self.turn, u32::MAX, Scope::Private);
    }

    fn run(&self, kick: &AtomicU32) {
        let mut done = 0;
        while !self.closed.load(Ordering::SeqCst) {
            let turn = self.turn.load(Ordering::SeqCst);
            if turn == done {
                // Nothing new: any return repeats the check.
                let _ = futex::wait(&self.turn, turn, None, Scope::Private);
                continue;
            }
            let mut words = self.words.lock().clone();
            words.push(WaitWord::new(&raw const self.turn, turn, Scope::Private));
            let _ = futex::wait_any(&words);
            if self.turn.load(Ordering::SeqCst) == turn {
                // A bell. Whoever sleeps looks at everything.
                done = turn;
                kick.fetch_add(1, Ordering::SeqCst);
                futex::wake(kick, u32::MAX, Scope::Private);
            }
        }
    }
}

impl HotSource for Hub {
    fn poll(&self) -> bool {
        if self.armed.is_empty() {
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
        !self.armed.is_empty()
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
