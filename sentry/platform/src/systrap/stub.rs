//! One stub process: its life, and the app threads in it.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use syscall_tables::Errno;

use super::Options;
use super::calls::Programs;
use super::context::{ParkedThread, ThreadCore, is_waiting, ticks, word};
use super::control::{Control, ControlGuard, HostCall, MAX_CALLS};
use super::hints::Hints;
use super::hub::{Bell, Cell, Dead, Hub};
use super::layout as l;
use super::patch::{Patching, Texts};
use super::pool::{Blank, Pool};
use super::shared::{SharedMap, punch_hole};
use super::sys;
use super::watchdog::Watchdog;
use super::xstate::VectorLayout;
use crate::executor::host_poll::{Readiness, Watch};
use crate::futex::{self, Scope};
use crate::residency::FinalPeak;

/// Slot of the app thread that a stub is born with.
const FIRST_SLOT: u64 = 1;

/// How often the sentry looks for a new process before it waits.
const BIRTH_SPINS: u32 = 300;

/// Threads that are kept for reuse in one stub.
const MAX_PARKED: usize = 8;

/// What all stubs of a platform share.
pub(super) struct Machine {
    pub(super) hub: Arc<Hub>,
    pub(super) vector: VectorLayout,
    /// Initial vector state.
    pub(super) initial_vector: Vec<u8>,
    pub(super) memory_calls: super::filter::MemoryCalls,
    pub(super) watchdog: Arc<Watchdog>,
    pub(super) pool: Arc<Pool>,
    /// The host's `/proc`.
    pub(super) proc: Option<OwnedFd>,
    pub(super) patching: Patching,
    pub(super) texts: Texts,
    pub(super) programs: Programs,
    pub(super) hints: Hints,
    reaper: Arc<Reaper>,
}

impl Machine {
    pub(super) fn new(
        hub: Arc<Hub>,
        vector: VectorLayout,
        hints: Hints,
        options: Options,
    ) -> Result<Arc<Self>, Errno> {
        Ok(Arc::new(Self {
            hub,
            initial_vector: vector.initial(),
            vector,
            memory_calls: options.memory_calls,
            watchdog: Watchdog::start()?,
            pool: Pool::new(options.pool_size),
            proc: options.proc,
            patching: options.patching,
            texts: Texts::default(),
            programs: Programs::default(),
            hints,
            reaper: Arc::default(),
        }))
    }
}

/// Reaps stubs whoever has forgotten them.
#[derive(Default)]
struct Reaper {
    next_id: AtomicU64,
    children: Mutex<HashMap<u64, Child>>,
}

struct Child {
    _watch: Watch,
    /// What is left of it, to be taken apart behind it.
    stub: Option<Arc<Stub>>,
}

impl Reaper {
    /// Reaps the process when it ends, says how large it has been, and tells
    /// those who wait for it. Answers with what [`Self::leave`] takes.
    fn watch(
        self: &Arc<Self>,
        pidfd: &Arc<OwnedFd>,
        hub: &Arc<Hub>,
        bell: &Arc<Bell>,
        peak: &Arc<FinalPeak>,
    ) -> Result<u64, Errno> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        // Keeps itself alive until all are reaped.
        let (reaper, hub, bell) = (self.clone(), hub.clone(), bell.clone());
        let (child, peak) = (pidfd.clone(), peak.clone());
        // Held until the watch is in the table, so that the callback finds it.
        let mut children = self.children.lock();
        let watch = Watch::shared(pidfd.clone(), Readiness::READ, move |_| {
            hub.bury(&bell);
            if let Some(bytes) = sys::reap(child.as_fd()) {
                peak.set(bytes);
                let child = reaper.children.lock().remove(&id);
                drop(child);
            }
        })?;
        children.insert(
            id,
            Child {
                _watch: watch,
                stub: None,
            },
        );
        Ok(id)
    }

    /// Keeps a stub that was killed until it is reaped: unmapping what was
    /// shared with it takes longer than its last user should have to wait.
    fn leave(&self, id: u64, stub: Arc<Stub>) {
        let mut children = self.children.lock();
        let late = match children.get_mut(&id) {
            Some(child) => child.stub.replace(stub),
            None => Some(stub),
        };
        drop(children);
        drop(late);
    }
}

#[derive(Default)]
struct Threads {
    /// Slots below were used before.
    next_slot: u64,
    free: Vec<u64>,
    parked: Vec<ParkedThread>,
    /// Given up while an order was outstanding.
    abandoned: Vec<ParkedThread>,
    /// Told to exit.
    exiting: Vec<ParkedThread>,
}

/// A stub process. Dropping it kills it.
pub(super) struct Stub {
    pub(super) machine: Arc<Machine>,
    pub(super) control: Control,
    pid: i32,
    pidfd: Arc<OwnedFd>,
    /// Its place in the reaper's table.
    child_id: u64,
    threads: Mutex<Threads>,
    pub(super) run_time: RunTime,
    pub(super) peak: Arc<FinalPeak>,
    /// Its `/proc/PID/status`, once somebody has asked.
    pub(super) status: OnceLock<OwnedFd>,
}

/// How long all app threads together have had the word, in TSC ticks.
///
/// The host tells another process only the CPU time of a stub as a whole. It
/// is divided among the threads by the time they were to run guest code.
#[derive(Default)]
pub(super) struct RunTime(Mutex<RunTimes>);

#[derive(Default)]
struct RunTimes {
    /// Of threads that are no more.
    past: u64,
    threads: Vec<Weak<ThreadCore>>,
}

impl RunTime {
    pub(super) fn add(&self, thread: &Arc<ThreadCore>) {
        self.0.lock().threads.push(Arc::downgrade(thread));
    }

    pub(super) fn remove(&self, thread: &Arc<ThreadCore>) {
        let mut times = self.0.lock();
        times.past = times.past.wrapping_add(thread.run_ticks(ticks()));
        times
            .threads
            .retain(|other| other.as_ptr() != Arc::as_ptr(thread));
    }

    fn total(&self, now: u64) -> u64 {
        let times = self.0.lock();
        let threads = times.threads.iter().filter_map(Weak::upgrade);
        threads.fold(times.past, |sum, thread| {
            sum.saturating_add(thread.run_ticks(now))
        })
    }
}

impl Stub {
    /// A stub for a process that has just been started with `control`'s ends
    /// and has attested its pid.
    pub(super) fn adopt(
        machine: &Arc<Machine>,
        control: Control,
        pid: i32,
        first_slot: u64,
    ) -> Result<Arc<Self>, Errno> {
        let pidfd = Arc::new(sys::pidfd_open(pid)?);
        let peak = Arc::default();
        let child_id = machine
            .reaper
            .watch(&pidfd, &machine.hub, &control.bell, &peak)
            .inspect_err(|_| sys::pidfd_kill(pidfd.as_fd()))?;
        Ok(Arc::new(Self {
            machine: machine.clone(),
            control,
            pid,
            pidfd,
            child_id,
            threads: Mutex::new(Threads {
                next_slot: first_slot,
                ..Threads::default()
            }),
            run_time: RunTime::default(),
            peak,
            status: OnceLock::new(),
        }))
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.machine.hub
    }

    pub(super) fn bell(&self) -> &Arc<Bell> {
        &self.control.bell
    }

    pub(super) fn contexts(&self) -> &SharedMap {
        &self.control.contexts
    }

    /// Ends the process; those who wait for it learn so when it is gone.
    pub(super) fn kill(&self) {
        if !self.bell().is_dead() {
            sys::pidfd_kill(self.pidfd.as_fd());
        }
    }

    /// Ends the process, whose last user this is.
    pub(super) fn leave(self: &Arc<Self>) {
        self.kill();
        self.machine.reaper.leave(self.child_id, self.clone());
    }

    /// Whether no app thread but the first was ever ordered: then there is
    /// nobody else who could run guest code in this process, whatever the
    /// guest says.
    pub(super) fn has_single_thread(&self) -> bool {
        self.threads.lock().next_slot <= FIRST_SLOT + 1
    }

    /// Forgets what the guest may have put into contexts, of which the first
    /// alone is in use. Its words and its signal frames stay: the thread waits
    /// on them. What most programs have touched is zeroed, the rest unmapped.
    pub(super) fn scrub(&self) {
        const PAGE: u64 = 0x1000;
        // Of the thread that waits, and of an interrupt that comes late.
        const FRAMES: u64 = 2 * 0x3000;
        let first = FIRST_SLOT * l::SLOT_LEN;
        let windows = first + l::C_STACK + l::C_STACK_LEN;
        for (start, end) in [
            (l::R_MESSAGE, PAGE),
            (l::R_TRANSFER, l::R_TRANSFER + PAGE),
            (first + l::C_HINT, first + l::C_INTERRUPT),
            (first + l::C_SMALL_WINDOW, first + l::C_XSAVE_AREA + PAGE),
        ] {
            for offset in (start..end).step_by(8) {
                self.contexts().store(offset, 0);
            }
        }
        // By these the new program's trampolines find the context.
        name_slot(self.contexts(), FIRST_SLOT);
        for offset in [first + l::C_SPIN, first + l::C_CONTINUE, l::R_NO_SPIN] {
            self.contexts().store(offset, 0);
        }
        for (start, end) in [
            (PAGE, l::R_TRANSFER),
            (l::R_TRANSFER + PAGE, first),
            (first + l::C_XSAVE_AREA + PAGE, windows - FRAMES),
            (windows, l::CONTEXTS_LEN),
        ] {
            punch_hole(self.control.contexts_fd.as_fd(), start, end - start);
        }
    }

    /// CPU time of a thread that was to run for `own` ticks up to `now`.
    pub(super) fn cpu_time(&self, own: u64, now: u64) -> Duration {
        use nix::time::ClockId;
        use nix::unistd::Pid;
        let process = ClockId::pid_cpu_clock_id(Pid::from_raw(self.pid))
            .and_then(ClockId::now)
            .map_or(Duration::ZERO, Duration::from);
        let total = self.run_time.total(now).max(own).max(1);
        let share = process.as_nanos() * u128::from(own) / u128::from(total);
        Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
    }

    /// A copy of this process, with one app thread that waits for orders, and
    /// what `snapshot` has said at that moment.
    pub(super) async fn fork<T>(
        &self,
        snapshot: impl FnOnce() -> T,
    ) -> Result<((Arc<Self>, ParkedThread), T), Errno> {
        let machine = &self.machine;
        let blank = match machine.pool.take_blank() {
            Some(blank) => blank,
            None => Blank::new(&machine.hub)?,
        };
        let Blank {
            control,
            ends,
            watch,
        } = blank;
        let thread = FIRST_THREAD;
        let child = control.lock().await.map_err(no_process)?;
        child.set_signal_stack(stack_base(thread.slot), l::C_STACK_LEN);
        let dont_fork = libc::MADV_DONTFORK.cast_unsigned().into();
        let death = [
            libc::PR_SET_PDEATHSIG.cast_unsigned().into(),
            libc::SIGKILL.cast_unsigned().into(),
        ];
        let no_signal = libc::MSG_NOSIGNAL.cast_unsigned().into();
        let hello = [l::FD_SOCKET, l::COMMAND, 1, no_signal];
        let first = [
            HostCall::new(libc::SYS_madvise, &[l::COMMAND, l::COMMAND_LEN, dont_fork]),
            HostCall::new(
                libc::SYS_madvise,
                &[l::CONTEXTS, l::CONTEXTS_LEN, dont_fork],
            ),
            HostCall::new(libc::SYS_prctl, &death),
            HostCall::new(libc::SYS_sendto, &hello),
            // It is the first thread that is waited for.
            clone_thread(thread.slot).changing_places(),
        ];
        child.start(&first);
        let birth = Birth::expect(&machine.hub, &control, thread)?;

        let snapshot = {
            let parent = self.control.lock().await.map_err(no_process)?;
            self.control.send_fds(&[
                ends.socket.as_fd(),
                control.contexts_fd.as_fd(),
                ends.command.as_fd(),
            ])?;
            drop(ends);
            let results = parent
                .run(&[
                    HostCall::receive_fds(),
                    HostCall::new(libc::SYS_clone, &[l::CLONE_FORK_FLAGS]).ignoring_errors(),
                    HostCall::close_received(),
                ])
                .await
                .map_err(no_process)?;
            (*results.get(1).ok_or(Errno::EAGAIN)?)?;
            snapshot()
        };
        let born = birth.wait(&child).await;
        drop((birth, child));
        let (_, pid) = sys::receive(control.socket.as_fd(), &mut [0; 8])?;
        let stub = Self::adopt(machine, control, pid, FIRST_SLOT + 1)?;
        drop(watch);
        born?;
        let thread = ParkedThread {
            tid: pid,
            starting: false,
            ..thread
        };
        Ok(((stub, thread), snapshot))
    }

    /// An app thread that waits for orders.
    pub(super) async fn take_thread(self: &Arc<Self>) -> Result<ParkedThread, Errno> {
        if let Some(thread) = self.parked() {
            return Ok(thread);
        }
        let control = self.control.lock().await.map_err(no_process)?;
        let slot = self.take_slot().ok_or(Errno::EAGAIN)?;
        let thread = ParkedThread {
            slot,
            tid: 0,
            generation: 1,
            starting: true,
        };
        prepare_slot(self.contexts(), thread);
        control.set_signal_stack(stack_base(slot), l::C_STACK_LEN);
        let results = control
            .run(&[clone_thread(slot)])
            .await
            .map_err(no_process)?;
        let tid = match results.first() {
            Some(Ok(tid)) => i32::try_from(*tid).unwrap_or(0),
            Some(Err(err)) => {
                self.threads.lock().free.push(slot);
                return Err(*err);
            }
            None => 0,
        };
        // The guest could have forged it; then the claim must at least be one
        // of its own threads.
        if sys::tgkill(self.pid, tid, 0).is_err() {
            self.kill();
            return Err(Errno::EAGAIN);
        }
        // The signal stack is read from the command page by the new thread:
        // the next batch has to wait for it.
        let mut turn = super::context::Turn::new(self.clone(), ParkedThread { tid, ..thread })?;
        std::future::poll_fn(|cx| turn.poll_answer(cx))
            .await
            .map_err(no_process)?;
        drop(control);
        // Parks it, and takes it or another one.
        drop(turn);
        self.parked().ok_or(Errno::EAGAIN)
    }

    fn take_slot(&self) -> Option<u64> {
        let mut threads = self.threads.lock();
        threads.free.pop().or_else(|| {
            let slot = threads.next_slot;
            (slot < l::SLOTS).then(|| {
                threads.next_slot += 1;
                slot
            })
        })
    }

    /// Looks after threads given up, and takes a parked one.
    fn parked(&self) -> Option<ParkedThread> {
        let mut guard = self.threads.lock();
        let threads = &mut *guard;
        let contexts = self.contexts();
        let waits = |thread: &ParkedThread| {
            let state = contexts.u32(thread.slot * l::SLOT_LEN + l::C_STATE);
            is_waiting(state.load(Ordering::SeqCst), thread.generation)
        };
        for thread in threads.abandoned.extract_if(.., |thread| waits(thread)) {
            threads.parked.push(ParkedThread {
                starting: false,
                ..thread
            });
        }
        let exited: Vec<_> = threads
            .exiting
            .extract_if(.., |thread| {
                sys::tgkill(self.pid, thread.tid, 0) == Err(Errno::ESRCH)
            })
            .collect();
        for thread in exited {
            let offset = thread.slot * l::SLOT_LEN;
            punch_hole(self.control.contexts_fd.as_fd(), offset, l::SLOT_LEN);
            threads.free.push(thread.slot);
        }
        threads.parked.pop()
    }

    /// Keeps a thread that waits for orders, or ends it.
    pub(super) fn park(&self, thread: ParkedThread) {
        let mut threads = self.threads.lock();
        // Of the thread that has the process' id nobody would hear that it has
        // exited.
        if threads.parked.len() < MAX_PARKED || thread.tid == self.pid {
            threads.parked.push(thread);
            return;
        }
        let state = self.contexts().u32(thread.slot * l::SLOT_LEN + l::C_STATE);
        let order = word(l::OP_EXIT, thread.generation.wrapping_add(1));
        if state.swap(order, Ordering::SeqCst) & l::STATE_SLEEP != 0 {
            futex::wake(state, u32::MAX, Scope::Shared);
        }
        threads.exiting.push(thread);
    }

    /// Remembers a thread that has yet to answer.
    pub(super) fn abandon(&self, thread: ParkedThread) {
        self.threads.lock().abandoned.push(thread);
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The first answer of a new process' app thread, which says that the process
/// has done all it was told.
struct Birth {
    cell: Arc<Cell>,
    generation: u16,
}

impl Birth {
    fn expect(hub: &Arc<Hub>, control: &Control, thread: ParkedThread) -> Result<Self, Errno> {
        let cell = Cell::new(hub, &control.bell, thread.slot * l::SLOT_LEN + l::C_STATE)?;
        let generation = thread.generation;
        cell.expect_change_from(word(l::OP_START, generation));
        Ok(Self { cell, generation })
    }

    /// Waits for it. The process' first batch ends early if something fails.
    async fn wait(&self, first: &ControlGuard<'_>) -> Result<(), Errno> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(state) = self.cell.poll(cx, BIRTH_SPINS) {
                let state = state.map_err(no_process)?;
                let is_born = is_waiting(state, self.generation);
                return Poll::Ready(is_born.then_some(()).ok_or(Errno::EAGAIN));
            }
            ready!(first.poll_finished(cx, 0)).map_err(no_process)?;
            let failed = first.results(MAX_CALLS).into_iter().find_map(Result::err);
            match failed {
                Some(errno) => Poll::Ready(Err(errno)),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for Birth {
    fn drop(&mut self) {
        self.cell.retire();
    }
}

/// The process has gone before it could do what was asked.
pub(super) fn no_process(_: Dead) -> Errno {
    Errno::ESRCH
}

fn stack_base(slot: u64) -> u64 {
    l::CONTEXTS + slot * l::SLOT_LEN + l::C_STACK
}

fn clone_thread(slot: u64) -> HostCall {
    let stack_top = stack_base(slot) + l::C_STACK_LEN;
    HostCall::new(libc::SYS_clone, &[l::CLONE_THREAD_FLAGS, stack_top])
}

/// The app thread that a stub is born with.
const FIRST_THREAD: ParkedThread = ParkedThread {
    slot: FIRST_SLOT,
    tid: 0,
    generation: 1,
    starting: true,
};

/// Prepares the context of a stub's first thread.
pub(super) fn prepare_first_slot(contexts: &SharedMap) {
    prepare_slot(contexts, FIRST_THREAD);
    // Its pages will be needed: the vector state that the sentry puts there,
    // and the signal stack's end.
    let base = FIRST_THREAD.slot * l::SLOT_LEN;
    for offset in [l::C_XSAVE_AREA, l::C_STACK + l::C_STACK_LEN - 8] {
        contexts.store(base + offset, 0);
    }
}

fn prepare_slot(contexts: &SharedMap, thread: ParkedThread) {
    let base = thread.slot * l::SLOT_LEN;
    contexts
        .u32(base + l::C_INTERRUPT)
        .store(0, Ordering::Relaxed);
    name_slot(contexts, thread.slot);
    contexts
        .u32(base + l::C_STATE)
        .store(word(l::OP_START, thread.generation), Ordering::SeqCst);
}

/// Tells trampolines that this is a context.
fn name_slot(contexts: &SharedMap, slot: u64) {
    let base = slot * l::SLOT_LEN;
    contexts.store(base + l::C_COOKIE, l::COOKIE);
    contexts.store(base + l::C_SELF, l::CONTEXTS + base);
}
