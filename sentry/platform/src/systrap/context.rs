//! The sentry's end of one app thread: the hand-over protocol.
//!
//! Sentry and stub take turns, by the state word of the context. The sentry
//! writes an order with a new generation and wakes the stub if it sleeps; the
//! stub writes `OP_WAIT` with the same generation. Any other value is a breach
//! and costs the stub its life.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use syscall_tables::Errno;

use super::hub::{Cell, Dead};
use super::layout as l;
use super::shared::SharedMap;
use super::stub::Stub;
use super::sys;
use crate::ThreadHandle;
use crate::futex::{self, Scope};

/// How often the sentry looks for the answer to a command before it waits: some
/// ten microseconds.
const COMMAND_SPINS: u32 = 300;
/// How often it looks for the next trap of guest code before it lets the worker
/// look after others: some microseconds.
const TRAP_SPINS: u32 = 100;
/// How long a round takes, in TSC ticks. No more than a share depends on it.
const ROUND_TICKS: u64 = 64;

/// An app thread that waits for orders and that no guest thread uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct ParkedThread {
    pub(super) slot: u64,
    pub(super) tid: i32,
    pub(super) generation: u16,
    /// Its very first answer may still be outstanding.
    pub(super) starting: bool,
}

/// What the owner of a guest thread and its handles share.
pub(super) struct ThreadCore {
    me: Weak<Self>,
    pub(super) stub: Arc<Stub>,
    /// Offset of the context.
    base: u64,
    slot: u64,
    tid: i32,
    cell: Arc<Cell>,
    /// Somebody wants the thread to stop.
    interrupt: AtomicBool,
    /// It was told to run guest code and has not trapped since.
    running: AtomicBool,
    /// Since when, in TSC ticks, 0 if it does not run; and for how long before.
    started: AtomicU64,
    ran: AtomicU64,
    /// It has not answered a command for so long that its task waits.
    late: AtomicBool,
    /// How often it has handed over.
    answers: AtomicU32,
    /// The watchdog will look at it.
    reported: AtomicBool,
}

impl ThreadCore {
    pub(super) fn answers(&self) -> u32 {
        self.answers.load(Ordering::Relaxed)
    }

    fn owes_answer(&self) -> bool {
        let interrupted =
            self.running.load(Ordering::SeqCst) && self.interrupt.load(Ordering::SeqCst);
        interrupted || self.late.load(Ordering::SeqCst)
    }

    fn report(self: &Arc<Self>) {
        if !self.reported.swap(true, Ordering::SeqCst) {
            self.stub.machine.watchdog.report(self);
        }
    }

    /// The watchdog's look: kills the stub if it still owes the answer it
    /// owed when there were `answers`.
    pub(super) fn check(self: &Arc<Self>, answers: u32) {
        self.reported.store(false, Ordering::SeqCst);
        if !self.owes_answer() || self.stub.bell().is_dead() {
            return;
        }
        if self.answers() == answers {
            self.stub.kill();
        } else {
            self.report();
        }
    }

    /// Takes the thread's turn back if it is to stop.
    pub(super) fn take_interrupt(&self) -> bool {
        self.interrupt.load(Ordering::SeqCst) && self.interrupt.swap(false, Ordering::SeqCst)
    }

    /// Called by the owner before it gives the order to run. The order itself
    /// is the barrier between this and [`Self::stop_if_wanted`].
    pub(super) fn set_running(&self) {
        self.running.store(true, Ordering::Relaxed);
    }

    /// The time stamp counter takes long to read (30 ns where this was
    /// measured), so it is read only of threads that run for longer than the
    /// sentry looks at them. To others their rounds are counted.
    fn set_started(&self) {
        if self.started.load(Ordering::Relaxed) == 0 {
            self.started.store(ticks(), Ordering::Relaxed);
        }
    }

    fn add_run(&self, ticks: u64) {
        let total = self.ran.load(Ordering::Relaxed).wrapping_add(ticks);
        self.ran.store(total, Ordering::Relaxed);
    }

    /// Called by the owner after the order: whoever raised the flag before it
    /// may have seen the thread not running.
    fn stop_if_wanted(&self) {
        if self.interrupt.load(Ordering::Relaxed) {
            self.stop();
        }
    }

    /// Called by the owner when the thread has trapped.
    pub(super) fn set_stopped(&self) {
        let start = self.started.load(Ordering::Relaxed);
        if start != 0 {
            self.started.store(0, Ordering::Relaxed);
            self.add_run(ticks().saturating_sub(start));
        }
        self.running.store(false, Ordering::Relaxed);
        let word = self.stub.contexts().u32(self.base + l::C_INTERRUPT);
        if word.load(Ordering::Relaxed) != 0 {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Has the stub look at [`l::C_INTERRUPT`].
    fn stop(&self) {
        let word = self.stub.contexts().u32(self.base + l::C_INTERRUPT);
        word.store(1, Ordering::SeqCst);
        let signal = l::INTERRUPT_SIGNAL.cast_signed();
        // ESRCH: it is gone, and its owner learns so otherwise.
        let _ = sys::tgkill(self.stub.pid(), self.tid, signal);
        if let Some(me) = self.me.upgrade() {
            me.report();
        }
    }

    /// How long it was to run guest code up to `now`, in TSC ticks.
    pub(super) fn run_ticks(&self, now: u64) -> u64 {
        let open = match self.started.load(Ordering::Relaxed) {
            0 => 0,
            start => now.saturating_sub(start),
        };
        self.ran.load(Ordering::Relaxed).saturating_add(open)
    }
}

impl ThreadHandle for ThreadCore {
    fn interrupt(&self) {
        // One at a time, so that signal frames don't pile up on the small stack:
        // a further signal takes a further run of the thread.
        if self.interrupt.swap(true, Ordering::SeqCst) {
            return;
        }
        if self.running.load(Ordering::SeqCst) {
            self.stop();
        }
    }

    fn cpu_time(&self) -> Duration {
        let now = ticks();
        self.stub.cpu_time(self.run_ticks(now), now)
    }
}

/// The owner's end.
pub(super) struct Turn {
    pub(super) core: Arc<ThreadCore>,
    generation: u16,
    /// An order is outstanding.
    pending: bool,
    /// How the latest answer has come.
    entry: Entry,
}

/// How a thread has come into stub text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// By a signal, or it carries out orders.
    Signal,
    /// By a trampoline, with a call.
    Trampoline,
    /// Not from guest code: what was to go there before has faulted.
    Fault,
}

impl Turn {
    pub(super) fn new(stub: Arc<Stub>, thread: ParkedThread) -> Result<Self, Errno> {
        let base = thread.slot * l::SLOT_LEN;
        let cell = Cell::new(stub.hub(), stub.bell(), base + l::C_STATE)?;
        if thread.starting {
            cell.expect_change_from(word(l::OP_START, thread.generation));
        }
        let core = Arc::new_cyclic(|me| ThreadCore {
            me: me.clone(),
            stub,
            base,
            slot: thread.slot,
            tid: thread.tid,
            cell,
            interrupt: AtomicBool::new(false),
            running: AtomicBool::new(false),
            started: AtomicU64::new(0),
            ran: AtomicU64::new(0),
            late: AtomicBool::new(false),
            answers: AtomicU32::new(0),
            reported: AtomicBool::new(false),
        });
        core.stub.run_time.add(&core);
        Ok(Self {
            core,
            generation: thread.generation,
            pending: thread.starting,
            entry: Entry::Signal,
        })
    }

    pub(super) fn map(&self) -> &SharedMap {
        self.core.stub.contexts()
    }

    /// Offset of a field of the context in the shared mapping.
    pub(super) fn field(&self, offset: u64) -> u64 {
        self.core.base + offset
    }

    /// Address of a field of the context in the stub.
    pub(super) fn stub_addr(&self, offset: u64) -> u64 {
        l::CONTEXTS + self.core.base + offset
    }

    pub(super) fn set_args(&self, args: &[u64]) {
        for (arg, index) in args.iter().zip(0..) {
            self.map().store(self.field(l::C_ARGS + index * 8), *arg);
        }
    }

    /// Gives an order; what belongs to it was written before.
    pub(super) fn order(&mut self, operation: u32) -> Result<(), Dead> {
        let answered = self.generation;
        self.generation = self.generation.wrapping_add(1);
        let order = word(operation, self.generation);
        self.core.cell.expect_change_from(order);
        let state = self.map().u32(self.field(l::C_STATE));
        let old = state.swap(order, Ordering::SeqCst);
        if !is_waiting(old, answered) {
            return Err(self.breach());
        }
        if old & l::STATE_SLEEP != 0 {
            futex::wake(state, u32::MAX, Scope::Shared);
        }
        self.pending = true;
        Ok(())
    }

    /// Waits until the stub has answered the latest order.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Dead>> {
        let answer = self.poll_state(cx, COMMAND_SPINS).map_ok(drop);
        let late = answer.is_pending();
        if late || self.core.late.load(Ordering::Relaxed) {
            self.core.late.store(late, Ordering::SeqCst);
            if late {
                self.core.report();
            }
        }
        answer
    }

    /// Gives an order to run guest code.
    pub(super) fn order_to_run(&mut self, operation: u32) -> Result<(), Dead> {
        self.core.set_running();
        self.order(operation)?;
        self.core.stop_if_wanted();
        Ok(())
    }

    /// As [`Self::poll_answer`] for guest code, which takes its time.
    pub(super) fn poll_trap(&mut self, cx: &mut Context<'_>) -> Poll<Result<Entry, Dead>> {
        let rounds = self.poll_state(cx, TRAP_SPINS);
        match &rounds {
            Poll::Pending => self.core.set_started(),
            Poll::Ready(Ok(rounds)) if self.core.started.load(Ordering::Relaxed) == 0 => {
                self.core.add_run(u64::from(*rounds) * ROUND_TICKS);
            }
            Poll::Ready(_) => {}
        }
        rounds.map_ok(|_| self.entry)
    }

    /// Ready with how many rounds it has spun.
    fn poll_state(&mut self, cx: &mut Context<'_>, spins: u32) -> Poll<Result<u32, Dead>> {
        if !self.pending {
            return Poll::Ready(Ok(0));
        }
        let (state, rounds) = ready!(self.core.cell.poll_counted(cx, spins))?;
        self.pending = false;
        let answers = self.core.answers().wrapping_add(1);
        self.core.answers.store(answers, Ordering::Relaxed);
        if !is_waiting(state, self.generation) {
            return Poll::Ready(Err(self.breach()));
        }
        self.entry = match state & OPERATION {
            l::OP_CALL => Entry::Trampoline,
            l::OP_FAULT => Entry::Fault,
            _ => Entry::Signal,
        };
        Poll::Ready(Ok(rounds))
    }

    /// The stub does not keep to the protocol.
    pub(super) fn breach(&self) -> Dead {
        self.core.stub.kill();
        Dead
    }

    fn parked(&self) -> ParkedThread {
        ParkedThread {
            slot: self.core.slot,
            tid: self.core.tid,
            generation: self.generation,
            starting: self.pending,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.core.cell.retire();
        let stub = &self.core.stub;
        stub.run_time.remove(&self.core);
        if stub.bell().is_dead() {
            return;
        }
        if !self.pending {
            stub.park(self.parked());
        } else if self.core.running.load(Ordering::SeqCst) {
            // The owner gave it up in the middle of guest code: it stops, and
            // is dealt with when the stub looks for threads the next time.
            self.core.interrupt();
            stub.abandon(self.parked());
        } else {
            stub.abandon(self.parked());
        }
    }
}

/// The time stamp counter.
pub(super) fn ticks() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// The operation of a state word, without [`l::STATE_SLEEP`].
const OPERATION: u32 = 0xff;

/// Whether the word says that the stub waits for an order after `generation`.
pub(super) fn is_waiting(state: u32, generation: u16) -> bool {
    let state = state & !l::STATE_SLEEP;
    [l::OP_WAIT, l::OP_CALL, l::OP_FAULT]
        .iter()
        .any(|&operation| state == word(operation, generation))
}

/// A state word.
pub(super) fn word(operation: u32, generation: u16) -> u32 {
    operation | u32::from(generation) << 16
}
