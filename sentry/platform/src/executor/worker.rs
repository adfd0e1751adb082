//! The loop of one worker thread, and blocking sections.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use async_task::Runnable;
use crossbeam::deque::{Steal, Worker as Deque};

use super::hot::{HotSource, SPIN_BUDGET, SleepVote};
use super::pool::{Pool, Unparked};
use crate::futex::{self, Scope, WaitWord};

/// Every so many tasks a worker looks at the shared queue before its own, so
/// that a task that always wakes its neighbour can't starve the rest.
const FAIRNESS_INTERVAL: u32 = 61;

/// Every so many tasks a busy worker polls the hot sources.
const HOT_INTERVAL: u32 = 4;

/// A surplus worker ends after being parked for this long.
const SURPLUS_LINGER: Duration = Duration::from_secs(10);

/// Own queue length from which on another worker is woken. One task is left to
/// this worker: it runs it sooner than anybody could be woken.
const KEEP_LOCAL: usize = 1;

/// A spinning worker that sees this much time pass at once was not running: on
/// a busy machine it then sleeps rather than spins for [`SPIN_PAUSE`], since
/// the guest it waits for needs the CPU.
const SPIN_GAP: Duration = Duration::from_micros(25);
const SPIN_PAUSE: Duration = Duration::from_millis(100);

thread_local! {
    static CURRENT: RefCell<Option<Rc<Local>>> = const { RefCell::new(None) };
}

thread_local! {
    /// Tasks woken within [`run_woken`].
    static WOKEN: RefCell<Option<Vec<Runnable>>> = const { RefCell::new(None) };
}

/// What only the worker's own thread uses.
struct Local {
    pool: Arc<Pool>,
    id: usize,
    deque: Deque<Runnable>,
    ticks: Cell<u32>,
    searching: Cell<bool>,
    /// In a blocking section, thus not counted as active.
    blocking: Cell<bool>,
    sources: RefCell<Arc<[Arc<dyn HotSource>]>>,
    sources_version: Cell<usize>,
    /// Random state for the choice of whom to steal from.
    seed: Cell<usize>,
    /// Spinning was in vain because the CPU was taken away.
    no_spin_before: Cell<Option<Instant>>,
}

/// Queues `runnable`: on the own queue of a worker of `pool`, else the shared
/// one.
pub(super) fn schedule(pool: &Arc<Pool>, runnable: Runnable) {
    // `try_with` fails while the thread's locals are being destroyed.
    let mut runnable = Some(runnable);
    let _ = WOKEN.try_with(|woken| {
        if let Some(woken) = woken.borrow_mut().as_mut()
            && !pool.stopping.load(Ordering::SeqCst)
        {
            woken.extend(runnable.take());
        }
    });
    if runnable.is_none() {
        return;
    }
    let _ = CURRENT.try_with(|current| {
        let current = current.borrow();
        let Some(local) = current.as_ref() else {
            return;
        };
        // From a blocking section the own queue would not be looked at soon.
        if !Arc::ptr_eq(&local.pool, pool)
            || local.blocking.get()
            || pool.stopping.load(Ordering::SeqCst)
        {
            return;
        }
        if let Some(runnable) = runnable.take() {
            local.deque.push(runnable);
            if local.deque.len() > KEEP_LOCAL {
                pool.notify();
            }
        }
    });
    if let Some(runnable) = runnable {
        pool.push(runnable);
    }
}

/// Starts the thread of slot `id`, which counts as active and searching.
pub(super) fn start(pool: Arc<Pool>, id: usize, deque: Deque<Runnable>) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name(format!("worker-{id}"))
        .spawn(move || {
            let abort_on_panic = AbortOnPanic;
            let local = Rc::new(Local {
                sources: RefCell::new(pool.hot_sources()),
                sources_version: Cell::new(0),
                pool,
                id,
                deque,
                ticks: Cell::new(0),
                searching: Cell::new(true),
                blocking: Cell::new(false),
                seed: Cell::new(id.wrapping_mul(0x9e37_79b9).wrapping_add(1)),
                no_spin_before: Cell::new(None),
            });
            CURRENT.set(Some(local.clone()));
            local.resume_sources();
            local.run();
            CURRENT.set(None);
            if let Ok(local) = Rc::try_unwrap(local) {
                local.pool.vacate(local.id, local.deque);
            }
            std::mem::forget(abort_on_panic);
        })
        .map(drop)
}

/// A panic in a task must end the sandbox, not just a worker.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        std::process::abort();
    }
}

/// What a parked worker does next.
#[derive(PartialEq, Eq)]
enum AfterPark {
    Search,
    End,
}

impl Local {
    fn run(&self) {
        loop {
            if self.pool.stopping.load(Ordering::SeqCst) {
                self.leave();
                while let Some(runnable) = self.deque.pop() {
                    drop(runnable);
                }
                return;
            }
            if self.pool.active.load(Ordering::Relaxed) > self.pool.max_active {
                if self.retire() == AfterPark::End {
                    return;
                }
                continue;
            }
            let next = self.next();
            if let Some(runnable) = next {
                self.stop_searching();
                self.ticks.set(self.ticks.get().wrapping_add(1));
                super::begin_run();
                runnable.run();
                continue;
            }
            if !self.searching.replace(true) {
                self.pool.searching.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            if self.spin() {
                continue;
            }
            if self.sleep() == AfterPark::End {
                return;
            }
        }
    }

    /// The next task: own queue, hot sources, shared queue, other workers.
    fn next(&self) -> Option<Runnable> {
        let ticks = self.ticks.get();
        if ticks.is_multiple_of(FAIRNESS_INTERVAL)
            && let Some(runnable) = self.steal_injected()
        {
            return Some(runnable);
        }
        if ticks.is_multiple_of(HOT_INTERVAL) {
            self.poll_sources();
        }
        if let Some(runnable) = self.deque.pop() {
            return Some(runnable);
        }
        if self.poll_sources()
            && let Some(runnable) = self.deque.pop()
        {
            return Some(runnable);
        }
        self.steal_injected().or_else(|| self.steal_from_others())
    }

    fn steal_injected(&self) -> Option<Runnable> {
        loop {
            match self.pool.injector.steal_batch_and_pop(&self.deque) {
                Steal::Success(runnable) => return Some(runnable),
                Steal::Empty => return None,
                Steal::Retry => {}
            }
        }
    }

    fn steal_from_others(&self) -> Option<Runnable> {
        let count = self.pool.slots().count();
        let mut seed = self.seed.get();
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        self.seed.set(seed);
        let start = seed % count.max(1);
        for offset in 0..count {
            let id = (start + offset) % count;
            if id == self.id {
                continue;
            }
            let Some(slot) = self.pool.slot(id) else {
                continue;
            };
            loop {
                match slot.stealer.steal_batch_and_pop(&self.deque) {
                    Steal::Success(runnable) => return Some(runnable),
                    Steal::Empty => break,
                    Steal::Retry => {}
                }
            }
        }
        None
    }

    fn poll_sources(&self) -> bool {
        let version = self.pool.sources_version.load(Ordering::Acquire);
        if version != self.sources_version.replace(version) {
            self.sources.replace(self.pool.hot_sources());
            self.resume_sources();
        }
        let mut found = false;
        for source in self.sources.borrow().iter() {
            found |= source.poll();
        }
        found
    }

    fn resume_sources(&self) {
        for source in self.sources.borrow().iter() {
            source.resume_polling();
        }
    }

    fn stop_searching(&self) {
        if self.searching.replace(false)
            && self.pool.searching.fetch_sub(1, Ordering::SeqCst) == 1
            && self.pool.has_queued()
        {
            // The last one that looked has found something and there is more.
            self.pool.notify();
        }
    }

    /// Polls the hot sources for a while; says whether there is something.
    fn spin(&self) -> bool {
        let armed = || self.sources.borrow().iter().any(|source| source.is_armed());
        if !armed() || self.pool.spinner.swap(true, Ordering::SeqCst) {
            return false;
        }
        let start = Instant::now();
        if self.no_spin_before.get().is_some_and(|time| start < time) {
            self.pool.spinner.store(false, Ordering::SeqCst);
            return false;
        }
        let mut found = false;
        let mut last = Duration::ZERO;
        while !found && armed() {
            let elapsed = start.elapsed();
            if elapsed - last > SPIN_GAP {
                // Others want the CPU.
                self.no_spin_before.set(Some(Instant::now() + SPIN_PAUSE));
                break;
            }
            last = elapsed;
            if elapsed >= SPIN_BUDGET {
                break;
            }
            for _ in 0..16 {
                found = self.poll_sources()
                    || !self.deque.is_empty()
                    || !self.pool.injector.is_empty()
                    || self.pool.stopping.load(Ordering::Relaxed);
                if found {
                    break;
                }
                std::hint::spin_loop();
            }
            found = found || self.pool.has_queued();
        }
        self.pool.spinner.store(false, Ordering::SeqCst);
        found
    }

    /// Parks until there may be work. The worker is searching before and
    /// after.
    fn sleep(&self) -> AfterPark {
        self.pool.enlist(self.id);
        self.leave();
        let was_last = self.pool.active.load(Ordering::SeqCst) == 0;
        fence(Ordering::SeqCst);
        if self.pool.has_queued() || self.pool.stopping.load(Ordering::SeqCst) {
            self.join_again();
            return AfterPark::Search;
        }
        let mut words = Vec::new();
        if was_last {
            let mut vote = SleepVote::Sleep;
            for source in self.sources.borrow().iter() {
                if source.prepare_sleep(&mut words) == SleepVote::StayAwake {
                    vote = SleepVote::StayAwake;
                    break;
                }
            }
            if vote == SleepVote::StayAwake {
                self.join_again();
                return AfterPark::Search;
            }
        }
        self.park(words)
    }

    /// Parks although there is work: a blocking section has ended and there
    /// are more active workers than wanted.
    fn retire(&self) -> AfterPark {
        let surplus = self
            .pool
            .active
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |active| {
                (active > self.pool.max_active).then(|| active - 1)
            })
            .is_ok();
        if !surplus {
            return AfterPark::Search;
        }
        if self.searching.replace(false) {
            self.pool.searching.fetch_sub(1, Ordering::SeqCst);
        }
        self.pool.enlist(self.id);
        let mut moved = false;
        while let Some(runnable) = self.deque.pop() {
            self.pool.injector.push(runnable);
            moved = true;
        }
        if moved || self.pool.has_queued() {
            self.pool.notify();
        }
        if self.pool.stopping.load(Ordering::SeqCst) {
            self.join_again();
            return AfterPark::Search;
        }
        self.park(Vec::new())
    }

    /// No longer counted as active and searching.
    fn leave(&self) {
        if self.searching.replace(false) {
            self.pool.searching.fetch_sub(1, Ordering::SeqCst);
        }
        self.pool.active.fetch_sub(1, Ordering::SeqCst);
    }

    /// Counted as active and searching again, by itself or by who woke it.
    fn join_again(&self) {
        match self.pool.delist(self.id) {
            Unparked::BySelf => {
                self.pool.active.fetch_add(1, Ordering::SeqCst);
                self.pool.searching.fetch_add(1, Ordering::SeqCst);
            }
            Unparked::ByOther => {
                // The token that came with it would only cause one vain round.
                if let Some(slot) = self.pool.slot(self.id) {
                    while slot.token.swap(0, Ordering::SeqCst) == 0 {
                        std::hint::spin_loop();
                    }
                }
            }
        }
        self.searching.set(true);
        self.resume_sources();
    }

    /// Sleeps until a token or one of `words` arrives.
    fn park(&self, mut words: Vec<WaitWord>) -> AfterPark {
        let Some(slot) = self.pool.slot(self.id) else {
            return AfterPark::End;
        };
        let watches_sources = !words.is_empty();
        words.insert(0, WaitWord::new(&raw const slot.token, 0, Scope::Private));
        loop {
            if slot.token.load(Ordering::SeqCst) != 0 {
                break;
            }
            if watches_sources {
                // Any return, also EAGAIN and EINTR, may mean a bell.
                let _ = futex::wait_any(&words);
                break;
            }
            let limit = self.pool.has_surplus().then_some(SURPLUS_LINGER);
            let result = futex::wait(&slot.token, 0, limit, Scope::Private);
            if result == Err(syscall_tables::Errno::ETIMEDOUT)
                && self.pool.has_surplus()
                && self.pool.delist(self.id) == Unparked::BySelf
            {
                return AfterPark::End;
            }
        }
        self.join_again();
        AfterPark::Search
    }
}

/// Runs a section that may block in a host call; the worker's other tasks
/// move to another worker meanwhile. Elsewhere than on a worker it just runs.
pub fn blocking<T>(section: impl FnOnce() -> T) -> T {
    let local = CURRENT.try_with(|current| current.borrow().clone());
    let Ok(Some(local)) = local else {
        return section();
    };
    if local.blocking.replace(true) {
        // A section within a section.
        return section();
    }
    let pool = &local.pool;
    let others = pool.active.fetch_sub(1, Ordering::SeqCst) - 1;
    fence(Ordering::SeqCst);
    let hot = others == 0
        && local
            .sources
            .borrow()
            .iter()
            .any(|source| source.is_armed());
    if !local.deque.is_empty() || hot || pool.has_queued() {
        pool.notify();
    }
    let result = section();
    local.blocking.set(false);
    if pool.active.fetch_add(1, Ordering::SeqCst) == 0 {
        // Whoever slept last meanwhile has told the sources so.
        local.resume_sources();
    }
    result
}

/// Calls `wake` and runs the tasks that it wakes on this thread.
///
/// For threads of the platform that have an event for exactly one task: no
/// worker has to be woken to run it. Meanwhile the thread serves nobody else,
/// so it must be one that has nothing to do until that task asks it to.
pub fn run_woken(wake: impl FnOnce()) {
    let outer = WOKEN.replace(Some(Vec::new()));
    wake();
    let woken = WOKEN.replace(outer);
    for runnable in woken.into_iter().flatten() {
        let abort_on_panic = AbortOnPanic;
        super::begin_run();
        runnable.run();
        std::mem::forget(abort_on_panic);
    }
}
